"""A process with one thread that has everything imported, and forks a child for each job that it is told.

A fork of the tests' own process would lose the threads that it has, and whatever lock one of them holds. A child of
this one is ready in milliseconds, where an interpreter of its own takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TRPO_FAST_NUM_THREADS")


class Ended(NamedTuple):
    """A child that is gone."""

    code: int
    """The exit code; negative, the signal that ended it."""
    said: str
    """Standard output and error."""


class ForkServer:
    """Runs jobs of `tests.cli.disturbed`, one after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": str(ROOT)},
            text=True,
        )

    def run(self, job: Mapping[str, Any]) -> Ended:
        """The end of a child that did `job`: what `tests.cli.disturbed.run` takes, and its working folder, "cwd"."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork server has ended"
        return Ended(json.loads(answer), (Path(job["cwd"]) / "said").read_text(errors="replace"))

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        assert self._process.returncode == 0


def _serve() -> None:
    from tests.cli import disturbed  # the time that every child saves

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _begin(job, disturbed)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _begin(job: Mapping[str, Any], disturbed: Any) -> None:
    """Be the child; never returns."""
    code = 99
    try:
        os.chdir(job["cwd"])
        nothing, said = os.open(os.devnull, os.O_RDONLY), os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(nothing, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = disturbed.run(job)
    except BaseException:
        traceback.print_exc()
    sys.setprofile(None)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
