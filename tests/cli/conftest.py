"""Commands run in this process, in an empty folder."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from trpo_fast.cli.main import main

# Options that make a run small: an update is 2 x 32 steps.
SMALL = (
    *("--num-envs", "2", "--steps-per-env", "32", "--warm-up-steps", "4"),
    *("--hidden-sizes", "8", "--critic-hidden-sizes", "8", "--critic-epochs", "1"),
    *("--eval-episodes", "2"),
)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys, tmp_path, monkeypatch) -> Callable[..., Outcome]:
    """``command("train", "CartPole-v1", ...)``: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # commands add the working folder

    def run(*arguments: str) -> Outcome:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def small() -> Sequence[str]:
    """Options that make a run small."""
    return SMALL
