"""Damaged files through the command line: one line of what is wrong with them, or what they say is done."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.disturbed import SMALL, UPDATE
from tests.cli.fork_server import Ended, ForkServer
from tests.damage import damaged, damaged_bytes

FILES, PROCESSES = 40, 4
GO_ON = ("--eval-episodes", "0", "--timesteps", str(6 * UPDATE))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory) -> Path:
    """A folder with a run in it."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = ["train", "CartPole-v1", "--out", "run", *SMALL]
    ended = server.run({"cwd": str(folder), "arguments": arguments})
    assert ended.code == 0, ended.said
    return folder


def commands(chance: random.Random) -> list[tuple[str, Any, list[str]]]:
    """(file to damage, how, command) of each."""
    evaluated = ["--episodes", "1", "--max-steps", "50"]
    return [
        ("run/model.trpo", damaged, ["eval", "run/model.trpo", *evaluated]),
        ("run/model.trpo", damaged, ["eval", "run", *evaluated]),
        ("run/model.trpo", damaged, ["export", "run/model.trpo", "--out", "policy.onnx"]),
        ("run/model.trpo", damaged_bytes, ["train", "--resume", "run", *GO_ON]),
        ("run/config.json", damaged_bytes, ["train", "--resume", "run", *GO_ON]),
        ("run/progress.csv", damaged_bytes, ["train", "--resume", "run", *GO_ON]),
        ("run/progress.csv", damaged_bytes, ["plot", "run", "--out", "curve.png"]),
        (
            "run/config.json",
            damaged_bytes,
            ["train", "CartPole-v1", "--config", "run/config.json", "--out", "new", *SMALL],
        ),
    ]


def require_a_clean_end(command: list[str], number: int, ended: Ended) -> None:
    where = f"{number}: {command}: {ended}"
    assert ended.code in (0, 2), where
    assert "Traceback" not in ended.said and "Exception ignored" not in ended.said, where
    errors = [line for line in ended.said.splitlines() if line.startswith(f"trpo-fast {command[0]}: error: ")]
    assert len(errors) == (ended.code == 2), where
    assert all(len(line) < 5000 for line in ended.said.splitlines()), where


def test_a_damaged_file_ends_a_command_in_a_line_or_is_what_it_says(server, whole, tmp_path, record_property):
    chance, refused, taken = random.Random(5), 0, 0
    for number in range(FILES):
        of_all = commands(chance)
        name, damage, command = of_all[number % len(of_all)]
        folder = tmp_path / f"{number}"
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(damage((whole / name).read_bytes(), chance))
        if number % (FILES // PROCESSES) == 0:
            done = subprocess.run(
                [sys.executable, "-m", "trpo_fast", *command], cwd=folder, capture_output=True, text=True, timeout=300
            )
            ended = Ended(done.returncode, done.stdout + done.stderr)
        else:
            ended = server.run({"cwd": str(folder), "arguments": command})
        require_a_clean_end(command, number, ended)
        if name == "run/model.trpo" and "run" in command:  # the checkpoint of the same update is there
            assert ended.code == 0, ended
            assert "taken instead" in ended.said or "run/model.trpo" in ended.said or "--resume" in command
        refused += ended.code == 2
        taken += ended.code == 0
    assert refused >= FILES // 4 and taken >= FILES // 4
    record_property("survival: damaged files through the command line", FILES)
