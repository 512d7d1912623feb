"""Runs that are killed, stopped and resumed, at moments that are counted, not timed, in children of this process."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from trpo_fast import model_file
from trpo_fast._core import library
from trpo_fast.algorithm.logging import read_progress
from trpo_fast.cli.main import main

UPDATE = 2 * 16
UPDATES = 5
SMALL = (
    *("--num-envs", "2", "--steps-per-env", "16", "--warm-up-steps", "4"),
    *("--hidden-sizes", "4", "--critic-hidden-sizes", "4", "--critic-epochs", "1", "--critic-batch-size", "16"),
    *("--eval-episodes", "1", "--checkpoint-every", str(UPDATE), "--timesteps", str(UPDATES * UPDATE)),
)
# Functions of C that change what lies on a disk.
CHANGES = {"open", "fsync", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "lockf"}


KILLS, SIGNALS = 8, 3


class Bandit(gymnasium.Env[Any, Any]):
    """Episodes of one step without chance: a new one is the one that was cut."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([0.5, -0.5], np.float32), {}

    def step(self, action):
        return np.array([0.5, -0.5], np.float32), float(action == 1), True, False, {}


gymnasium.register("SurvivalBandit-v0", Bandit)
ENV = "SurvivalBandit-v0"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path) -> Iterator[None]:
    """One thread, which a fork does not lose, and neither curves nor events, whose thread would not be counted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    threads = library.get_num_threads()
    library.set_num_threads(1)
    yield
    library.set_num_threads(threads)


def in_child(arguments: tuple[str, ...], prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Wait status of a child that runs the command after `prepare`, and what it printed."""
    said = Path("said")
    child = os.fork()
    if child == 0:
        try:
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
            prepare()
            code = main(arguments)
            sys.setprofile(None)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    _, status = os.waitpid(child, 0)
    return status, said.read_text()


class At:
    """Calls `act` when the `number`-th event of a kind begins in the main thread; counts them for 0."""

    def __init__(self, number: int, counts: Callable[[str, Any, Any], bool], act: Callable[[], None]) -> None:
        self.number, self.seen, self._counts, self._act = number, 0, counts, act

    def __call__(self) -> None:
        sys.setprofile(self._event)

    def _event(self, frame: Any, event: str, argument: Any) -> None:
        if self._counts(event, argument, frame):
            self.seen += 1
            if self.seen == self.number:
                sys.setprofile(None)
                self._act()


def changes_files(event: str, argument: Any, frame: Any) -> bool:
    if event != "c_call":
        return False
    if argument.__name__ == "write":
        return isinstance(argument.__self__, io.FileIO | io.BufferedWriter)
    return argument.__name__ in CHANGES and argument.__module__ in ("posix", "fcntl")


def any_call(event: str, argument: Any, frame: Any) -> bool:
    return event in ("call", "c_call")


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def learned(folder: Path) -> dict[str, bytes]:
    """Every bit that the run's model has."""
    arrays, metadata = model_file.read(folder / "model.trpo")
    counters = {k: v for k, v in metadata["counters"].items() if k != "collector"}
    return {name: array.tobytes() for name, array in arrays.items()} | {"counters": json.dumps(counters).encode()}


def rows(folder: Path) -> list[dict[str, str]]:
    timed = ("time/time_elapsed", "time/fps", "timings/")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_progress(folder / "progress.csv")]


@functools.cache  # one for all tests of a process, whose folder is the first's
def undisturbed(env: str = ENV) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    folder = Path("undisturbed")
    status, said = in_child(("train", env, "--out", str(folder), *SMALL))
    assert status == 0, said
    found = rows(folder)
    assert [int(row["time/total_timesteps"]) for row in found] == [UPDATE * (i + 1) for i in range(UPDATES)]
    return learned(folder), found


@functools.cache
def count(counts: Callable[[str, Any, Any], bool], env: str = ENV) -> int:
    """How many such events an undisturbed run has."""
    told, tell = os.pipe()

    def prepare() -> None:
        at = At(0, counts, lambda: None)
        at()
        os._exit = lambda code, leave=os._exit: (os.write(tell, f"{at.seen}".encode()), leave(code))

    status, said = in_child(("train", env, "--out", "counted", *SMALL), prepare)
    assert status == 0, said
    found = int(os.read(told, 100))
    os.close(told)
    os.close(tell)
    return found


def go_on(folder: Path, env: str = ENV) -> str:
    """Finish a run that was disturbed, as a user would; what the command said."""
    if (folder / "config.json").exists():
        arguments = ("--resume", str(folder), "--eval-episodes", "1", "--checkpoint-every", str(UPDATE))
        if learned_all(folder):
            return ""
    else:
        arguments = (env, "--out", str(folder), *SMALL)
    status, said = in_child(("train", *arguments))
    assert status == 0, f"{folder}: {said}"
    assert "Traceback" not in said
    return said


def learned_all(folder: Path) -> bool:
    model = folder / "model.trpo"
    return model.exists() and model_file.read_metadata(model)["counters"]["num_timesteps"] == UPDATES * UPDATE


def check(folder: Path, wanted: tuple[dict[str, bytes], list[dict[str, str]]]) -> None:
    assert learned(folder) == wanted[0]
    assert rows(folder) == wanted[1]
    # The lock of a process that was killed after the end lies there, and holds nothing.
    left = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    assert left == [], "left-overs of the killed process are removed"


def test_a_run_that_is_killed_at_any_change_of_a_file_goes_on_to_the_same_bits_and_rows():
    wanted, total = undisturbed(), count(changes_files)
    assert total > 60
    moments = sorted(random.Random(0).sample(range(1, total + 1), KILLS))
    for number in moments:
        folder = Path(f"run-{number}")
        at = At(number, changes_files, send(signal.SIGKILL))
        status, said = in_child(("train", ENV, "--out", str(folder), *SMALL), at)
        assert os.WTERMSIG(status) == signal.SIGKILL, said
        go_on(folder)
        check(folder, wanted)


@pytest.mark.parametrize(("env", "kills"), [(ENV, KILLS), ("Pendulum-v1", 4), ("CartPole-v1", 4)])
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bits_and_rows(env, kills):
    wanted, total = undisturbed(env), count(any_call, env)
    for number in sorted(random.Random(1).sample(range(1, total), kills)):
        folder = Path(f"run-{number}")
        status, said = in_child(
            ("train", env, "--out", str(folder), *SMALL), At(number, any_call, send(signal.SIGKILL))
        )
        assert os.WTERMSIG(status) == signal.SIGKILL, said
        go_on(folder, env)
        check(folder, wanted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_anywhere_ends_the_run_in_a_line_saved_and_the_run_goes_on(number):
    wanted, total = undisturbed(), count(any_call)
    for moment in sorted(random.Random(int(number)).sample(range(1, total), SIGNALS)):
        folder = Path(f"run-{number}-{moment}")
        status, said = in_child(("train", ENV, "--out", str(folder), *SMALL), At(moment, any_call, send(number)))
        assert os.waitstatus_to_exitcode(status) in (128 + number, -number), said
        assert "Traceback" not in said and "Exception ignored" not in said, said
        if "saved; to go on" in said:
            assert f"trpo-fast train --resume {folder}" in said
        go_on(folder)
        check(folder, wanted)
