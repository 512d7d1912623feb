"""Folders of runs with anything in their files, through what looks for the latest and what takes the folder."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np

from tests.fuzz.decoding import Input
from trpo_fast import model_file
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.run_folder import RunFolder, claimed_by_name, latest_of
from trpo_fast.model_file import ModelFileError
from trpo_fast.run_models import newest_first, read_latest

MODULES = ("run_models.py", "cli/run_folder.py")
PLANTED = (
    "run_models.py",
    "        except ModelFileError as error:\n            if damaged",
    "        except ZeroDivisionError as error:\n            if damaged",
    "is a folder, not a model file",
)
_NAMES = ("model.trpo", "checkpoints/000000000010.trpo", "checkpoints/000000000000.trpo", "checkpoints/best.trpo")
_NAMES += (
    "12.trpo",
    "٣.trpo",
    "²",
    "checkpoints/x.trpo",
    "checkpoints/.x.trpo.12345678.new",
    "best.trpo",
    "9" * 200 + ".trpo",
)
_OTHERS = ("config.json", ".lock", "error.txt", "progress.csv", "config.json.new", "a")


def _model(chosen: Input) -> bytes:
    counters = {name: chosen.choose((3, 10, 0)) for name in ("num_timesteps", "earlier_timesteps", "num_updates")}
    counters[chosen.choose(("num_timesteps", "num_updates", "x"))] = chosen.choose(
        (1, 2**63, True, "x", None, -1, 10**300)
    )
    said = {"counters": chosen.choose((counters, counters, counters, [], None))}
    scratch = Path(_FOLDER[0], "made")
    model_file.write(scratch, {"x": np.zeros(1)}, said)
    content = scratch.read_bytes()
    scratch.unlink()
    return content[: chosen.take(len(content))] if chosen.take(4) == 1 else content


_FOLDER: list[Path] = []


def _config(chosen: Input) -> bytes:
    if chosen.take(4) == 1:
        return chosen.choose((b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 5000)) + chosen.bytes(16)
    content = {"timesteps": 10, "environment": {"id": "CartPole-v1"}, "log": None}
    for _ in range(chosen.take(4)):
        content[
            chosen.choose(("timesteps", "environment", "log", "threads", "eval_episodes", "keep_checkpoints", "x"))
        ] = chosen.value()
    if chosen.take(6) == 1:
        content.pop("timesteps", None)
    return json.dumps(content).encode()


def run(data: bytes, folder: Path) -> None:
    """AssertionError where something else comes of a folder than what is in it or an error that says so."""
    chosen, run = Input(data), folder / "run"
    _FOLDER[:] = [folder]
    (run / "checkpoints").mkdir(parents=True)
    for _ in range(chosen.take(7)):
        path = run / chosen.choose((*_NAMES, *_OTHERS))
        if os.path.lexists(path):
            continue
        kind = chosen.take(8)
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            path.symlink_to(chosen.choose(("nowhere", path.name, "..", "/dev/null")))
        else:
            path.write_bytes(_config(chosen) if path.name == "config.json" else _model(chosen))
    if chosen.take(4) == 1 and not any((run / "checkpoints").iterdir()):
        (run / "checkpoints").rmdir()
    before = {path for path in run.rglob("*")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _read(run)
        _latest(run)
        _take(chosen, run, before)


def _latest(run: Path) -> None:
    found = newest_first(run)
    assert [progress for _, progress in found] == sorted((progress for _, progress in found), reverse=True)
    try:
        taken = read_latest(run, lambda path: (model_file.read(path), path)[1])
        assert (found and taken == found[0][0]) or taken in [path for path, _ in found]
    except (ModelFileError, FileNotFoundError) as error:
        assert str(run) in str(error), error
    try:
        latest_of(str(run), model_file.read)
    except CommandError as error:
        assert str(run) in str(error), error


def _read(run: Path) -> None:
    folder = RunFolder(run)
    for read in (folder.read_config, folder.options, folder.environment_id):
        try:
            read()
        except CommandError as error:
            assert str(run) in str(error) and len(str(error)) < 20_000, error


def _take(chosen: Input, run: Path, before: set[Path]) -> None:
    folder = RunFolder(run)
    kind = chosen.take(4)
    try:
        if kind == 0:
            folder.refuse_if_used()
        elif kind == 1:
            folder.claim_new()
            assert folder.is_new and folder.is_in_place
            folder.write_config({"timesteps": 3})
            assert RunFolder(run).options()["timesteps"] == 3
        elif kind == 2:
            folder.claim_old()
            folder.share_with(folder)
            try:
                RunFolder(run).claim_old()
                raise AssertionError("two have one folder")
            except CommandError:
                pass
            if chosen.take(2):
                folder.prepare()
        else:
            other = claimed_by_name(folder)
            assert other.path != run and other.is_new
            assert str(other.shown(other.model)) == str(other.path / "model.trpo")
            other.discard()
            assert not other.path.exists()
    except CommandError as error:
        assert str(run) in str(error), error
    finally:
        if kind == 1 and folder.is_new:
            folder.discard()
        folder.release()
    if kind in (0, 2, 3):  # nothing that is a run's is removed
        kept = {
            path
            for path in before
            if not path.name.endswith(".new") and path.name != ".lock" and "trpo." not in path.name
        }
        assert kept <= set(run.rglob("*")), kept - set(run.rglob("*"))
