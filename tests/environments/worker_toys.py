"""Environments for worker processes, in a module of their own that a worker imports quickly."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from trpo_fast._core import library
from trpo_fast.environments.generators import WATCHED_STEPS


class Drawn(gymnasium.Env):
    """Everything is drawn from the copy's generator and the action: episodes end either way after a few steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, masks: str | None = None) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.masks = masks
        if masks == "method":
            self.action_masks = lambda: self.mask

    def _observe(self) -> tuple[Any, dict]:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.mask = None
        if self.masks is not None:
            self.mask = self.np_random.random(self.action_space.n) < 0.5
            self.mask[self.np_random.integers(self.action_space.n)] = True
        # A mask is only sometimes among the infos.
        info = {"action_mask": self.mask} if self.masks == "info" and self.np_random.random() < 0.8 else {}
        return self.observation_space.sample(), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe()

    def step(self, action):
        observation, info = self._observe()
        reward = float(np.sum(np.asarray(action, np.float64)) + self.np_random.normal())
        terminated, truncated = self.np_random.random(2) < 0.15
        return observation, reward, bool(terminated), bool(truncated), info


class Sum(gymnasium.Env):
    """The running sum of the actions; subclasses do something strange on the way."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total, self.steps = float(self.np_random.random()), 0
        return self._observe(), {}

    def _observe(self) -> np.ndarray:
        return np.array([self.total, self.steps])

    def step(self, action):
        self.steps += 1
        self.total += float(action[0])
        self.happen(action)
        return self._observe(), self.total, False, False, {}

    def happen(self, action) -> None:
        """What is strange; at a step with an action of 1."""


class Lost(Exception):
    """Can be pickled, but not made again."""

    def __init__(self, one, other) -> None:
        super().__init__(f"{one} and {other}")


class Raises(Sum):
    def __init__(self, kind: str = "KeyError") -> None:
        self.kind = kind

    def happen(self, action) -> None:
        if action[0] == 1:
            errors = {"KeyError": KeyError("no such door"), "Lost": Lost("key", "door")}
            stops = {"KeyboardInterrupt": KeyboardInterrupt(), "CancelledError": asyncio.CancelledError("no more")}
            raise {**errors, **stops}[self.kind]


class Exits(Sum):
    def __init__(self, how: str) -> None:
        self.how = how

    def happen(self, action) -> None:
        if action[0] != 1:
            return
        if self.how == "exit":
            sys.exit(3)
        if self.how == "_exit":
            os._exit(4)
        os.kill(os.getpid(), signal.SIGSEGV if self.how == "segfault" else signal.SIGKILL)


class Stuck(Sum):
    """Does not come back from a step, and does not let itself be asked to where it is `stubborn`."""

    def __init__(self, stubborn: bool = False) -> None:
        if stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def happen(self, action) -> None:
        while action[0] == 1:
            time.sleep(0.1)


class Slow(Sum):
    def happen(self, action) -> None:
        time.sleep(0.3)


class Surroundings(Sum):
    """Observes its process: torch imported, threads, OpenMP's variable, the compiled core's threads."""

    def _observe(self) -> np.ndarray:
        threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 2
        allowed = 100 * float(os.environ["OMP_NUM_THREADS"]) + 1000 * library.get_num_threads()
        return np.array([float("torch" in sys.modules), threads + allowed])


class Tiny(Sum):
    """Observes what the CPU makes of a number that is below the least normal one."""

    def _observe(self) -> np.ndarray:
        return np.array([np.float64(2.0**-1022) * np.float64(2.0**-10), 0.0])


class Recorded(Sum):
    """Leaves a file behind when it is made, another when it is closed; number `failing` cannot be made."""

    def __init__(self, folder: str, failing: int = -1) -> None:
        self.folder = Path(folder)
        made = self.folder / f"made-{os.getpid()}-{id(self)}"
        made.touch()
        if len(list(self.folder.glob(f"made-{os.getpid()}-*"))) == failing:
            raise LookupError("the third door is locked")

    def close(self) -> None:
        (self.folder / f"closed-{os.getpid()}-{id(self)}").touch()


class Global(Sum):
    """Draws from NumPy's global generator."""

    def happen(self, action) -> None:
        self.total += np.random.random()


class LateGlobal(Sum):
    """Draws from NumPy's and Python's global generators, but not in its first calls."""

    def happen(self, action) -> None:
        if self.steps > WATCHED_STEPS:
            self.total += np.random.random() + random.random()


class Shared(Sum):
    """All copies of one process move one counter, as where a simulator exists once."""

    moved = 0

    def reset(self, *, seed=None, options=None):
        Shared.moved = 0
        return super().reset(seed=seed)

    def happen(self, action) -> None:
        Shared.moved += 1
        self.total += Shared.moved


class Gambler(Sum):
    """Pays what the class's action space gives."""

    def happen(self, action) -> None:
        self.total += float(self.action_space.sample()[0])


class Late(Sum):
    """A step takes a moment, or does not end where it is `stuck`, when the actions are a policy's."""

    def __init__(self, stuck: bool) -> None:
        self.stuck = stuck

    def happen(self, action) -> None:
        if self.steps > 3:  # which what is tried afterwards does not reach
            time.sleep(1000.0 if self.stuck else 0.2)


class Fifth(Sum):
    """Something happens in the fifth step."""

    def __init__(self, how: str) -> None:
        self.how = how

    def happen(self, action) -> None:
        if self.steps == 5:
            if self.how == "raise":
                raise ArithmeticError("the fifth")
            os.kill(os.getpid(), signal.SIGKILL)


class Numbered(Sum):
    """Knows which of the copies it is, which are seeded from `first` on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def reset(self, *, seed=None, options=None):
        self.copy = None if seed is None else seed - self.first
        return super().reset(seed=seed)


class Fails(Numbered):
    """Copy i raises at step `at[i]`, after a moment where it is first."""

    def __init__(self, first: int, at: dict[int, int]) -> None:
        super().__init__(first)
        self.at = at

    def happen(self, action) -> None:
        if self.steps == self.at.get(self.copy):
            time.sleep(0.3 if self.copy == min(self.at, key=self.at.get) else 0.0)
            raise ArithmeticError(f"copy {self.copy}")


class FailsOrHangs(Fails):
    """Copy 1 raises at step 3, before which copy 0 does not come back from it."""

    def __init__(self, first: int) -> None:
        super().__init__(first, {1: 3})

    def happen(self, action) -> None:
        if self.steps == 3 and self.copy == 0:
            time.sleep(1000.0)
        super().happen(action)


class FailsOrExits(Fails):
    """Copy 1 raises at step 3, where copy 0 ends its process once there is a file."""

    def __init__(self, first: int, path: Path) -> None:
        super().__init__(first, {1: 3})
        self.path = path

    def happen(self, action) -> None:
        if self.steps == 3 and self.copy == 0:
            while not self.path.exists():
                time.sleep(0.001)
            os._exit(3)
        super().happen(action)


class JamsOrRaisesInClose(Numbered):
    """Copy 0 does not come back from its first step; copy 1 raises when it is closed."""

    def step(self, action):
        if self.copy == 0:
            time.sleep(1000.0)
        return super().step(action)

    def close(self) -> None:
        if self.copy == 1:
            raise ArithmeticError("copy 1")


class Odd(Numbered):
    """Of the copies, 3 has an observation that is not finite at step 5, 1 at step 7."""

    def _observe(self) -> np.ndarray:
        return np.array([np.nan, 0.0]) if (self.copy, self.steps) in ((3, 5), (1, 7)) else super()._observe()


class Jammed(Recorded):
    """Cannot be closed, and leaves a file where that is tried."""

    def close(self) -> None:
        super().close()
        raise OSError("the port is jammed")
