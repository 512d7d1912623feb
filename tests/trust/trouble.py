"""An environment that does what its file says in the step that its file says, in whatever process it is stepped."""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

ERRORS = (KeyError, ValueError, RuntimeError, ZeroDivisionError, MemoryError, OSError, StopIteration, AssertionError)
ENDS = ("SIGKILL", "SIGSEGV", "SIGTERM", "exit", "hang")
NOTHING = np.array([0.5, 0.5])
GARBAGE: tuple[Any, ...] = (
    *(None, (), 5, "a", (NOTHING, 1.0, False), (NOTHING, 1.0, False, False, {}, 6)),
    *((value, 1.0, False, False, {}) for value in (None, "a", [], np.zeros(3), np.zeros((2, 2)), {}, object())),
    *((np.array([value, 0.0]), 1.0, False, False, {}) for value in (np.nan, np.inf, 1e300, 1j)),
    *((NOTHING, value, False, False, {}) for value in (None, "a", np.nan, np.inf, -np.inf, 1e300, 1j, [1.0, 2.0], {})),
    *((NOTHING, 1.0, value, False, {}) for value in (None, "maybe", [True, False], np.nan, object())),
    *((NOTHING, 1.0, False, value, {}) for value in (None, "maybe", [True, False], np.nan, object())),
    *((NOTHING, 1.0, False, False, value) for value in (None, 5, [], "a")),
)
"""What a step may return that it should not."""


def is_taken(answer: Any) -> bool:
    """Whether that may be taken for a step: flags that are None, as false, infos that are no dicts, as empty ones.

    And an observation of 1e300, which is a number, where no network sees it but clipped.
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        return False
    seen, reward, terminated, truncated, _ = answer
    if seen is not NOTHING:
        return isinstance(seen, np.ndarray) and 1e300 in seen
    return reward == 1.0 and (None in (terminated, truncated) or (terminated, truncated) == (False, False))


_AT, _WHAT, _WHICH = range(3)
_files: dict[str, np.ndarray] = {}


def _fields(path: str) -> np.ndarray:
    if path not in _files:
        with open(path, "r+b") as file:
            _files[path] = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)
    return _files[path]


class Trouble(gymnasium.Env):
    """A sum of actions and noise, in episodes of seven steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, path: str) -> None:
        self.path = path

    def _observe(self) -> np.ndarray:
        return np.array([self.total, self.steps], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total, self.steps = float(self.np_random.random()), 0
        return self._observe(), {}

    def get_state(self):
        return {"total": self.total, "steps": self.steps}

    def set_state(self, state):
        self.total, self.steps = state["total"], state["steps"]

    def step(self, action):
        fields = _fields(self.path)
        if fields[_AT] > 0:
            fields[_AT] -= 1  # of two that share it one may be lost: which step it is does not matter
            if fields[_AT] == 0:
                return _do(int(fields[_WHAT]), int(fields[_WHICH]))
        self.steps += 1
        self.total += float(action[0]) + float(self.np_random.normal())
        return self._observe(), self.total, False, self.steps == 7, {}


WHATS = ("raise", "garbage", "end")


def _do(what: int, which: int) -> Any:
    if what == 0:
        raise ERRORS[which]("trouble")
    if what == 1:
        return GARBAGE[which]
    if ENDS[which] == "hang":
        time.sleep(1000)
    if ENDS[which] == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[ENDS[which]])
    time.sleep(1000)
    return None


class Maker:
    """Makes the copies of one training, and says when there is to be trouble."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = str(Path(folder, name))
        Path(self._path).write_bytes(bytes(24))

    def __call__(self) -> Trouble:
        return Trouble(self._path)

    @contextmanager
    def trouble(self, what: str, which: int, steps: int, chance: random.Random) -> Iterator[None]:
        """In one of the next `steps` steps."""
        fields = _fields(self._path)
        fields[_WHAT], fields[_WHICH] = WHATS.index(what), which
        fields[_AT] = chance.randrange(1, steps + 1)
        try:
            yield
        finally:
            fields[_AT] = 0
