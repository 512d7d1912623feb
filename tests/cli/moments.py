"""Moments of a training that are counted, not timed: the n-th step of an evaluation, the n-th change of a model's file.

Whoever reaches one says so, in the process that trains or in a worker that steps its environments; at the one that is
asked for, the training gets a signal. All of them share a small file, which an environment variable names.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

VARIABLE = "TRPO_FAST_TESTS_MOMENTS"
STAGES = ("warm-up", "first rollout", "first update", "rollout", "evaluation", "save", "file", "call")
_PID, _STAGE, _WANTED, _NUMBER, _SIGNAL, _REACHED, _COUNTS = range(7)
_FIELDS = _COUNTS + len(STAGES)


class Moments:
    """The counts of one run; every process has its own of steps, of which the file keeps the largest."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._fields = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)
        self._own = [0] * len(STAGES)

    @classmethod
    def make(cls, path: Path, stage: str | None, number: int, signal: int) -> Moments:
        """Of a training in this process that is to get `signal` at the `number`-th of `stage`, or to count alone."""
        path.write_bytes(bytes(8 * _FIELDS))
        moments = cls(path)
        fields = moments._fields
        fields[_PID], fields[_SIGNAL], fields[_NUMBER] = os.getpid(), signal, number
        fields[_WANTED] = -1 if stage is None else STAGES.index(stage)
        fields[_STAGE] = -1
        return moments

    @property
    def wanted(self) -> str | None:
        """The stage that is waited for; None where all are counted."""
        return None if self._fields[_WANTED] < 0 else STAGES[self._fields[_WANTED]]

    @property
    def stage(self) -> str | None:
        """What an environment's step belongs to now."""
        return None if self._fields[_STAGE] < 0 else STAGES[self._fields[_STAGE]]

    @stage.setter
    def stage(self, value: str | None) -> None:
        self._fields[_STAGE] = -1 if value is None else STAGES.index(value)

    def reach(self, stage: str) -> None:
        """One more of `stage`."""
        index, fields = STAGES.index(stage), self._fields
        self._own[index] += 1
        number = self._own[index]
        fields[_COUNTS + index] = max(fields[_COUNTS + index], number)
        if fields[_WANTED] == index and fields[_NUMBER] == number and not fields[_REACHED]:
            fields[_REACHED] = 1
            os.kill(int(fields[_PID]), int(fields[_SIGNAL]))

    def step(self) -> None:
        """A step of an environment, of whatever stage it is."""
        stage = self.stage
        if stage is not None:
            self.reach(stage)


def note_worker(path: Path) -> None:
    """This process steps environments for the training."""
    with path.with_name("workers").open("a") as file:  # appended to, as several begin at once
        file.write(f"{os.getpid()}\n")


def counted(path: Path) -> dict[str, int]:
    """How often each stage was reached."""
    fields = np.fromfile(path, np.int64)
    return {stage: int(fields[_COUNTS + i]) for i, stage in enumerate(STAGES)}


def workers_of(path: Path) -> list[int]:
    """Processes that stepped environments."""
    noted = path.with_name("workers")
    return list(map(int, noted.read_text().split())) if noted.exists() else []
