"""Environments that draw from numpy's or Python's global generator, which no seed given to ``reset`` reaches.

Whether one does is found by comparing the generators' states around its calls: around its first reset and its first
steps, as looking costs more than a step of a fast simulator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

WATCHED_STEPS = 32
"""Steps of each environment, counted over episodes, whose calls are looked at."""

_STREAM = 7  # after the streams 0 to 6 of an agent's seed


class _State:
    """State of both global generators."""

    def __init__(self) -> None:
        self.numpy: Any = np.random.get_state()
        self.python = random.getstate()

    @classmethod
    def seeded(cls, seed: int | None) -> _State:
        """The state that follows from a seed; a new one from the system without."""
        entropy = np.random.SeedSequence(None if seed is None else (seed, _STREAM))
        numpy_words, python_words = entropy.generate_state(8), entropy.generate_state(16)[8:]
        state = cls.__new__(cls)
        state.numpy = np.random.RandomState(numpy_words).get_state()
        state.python = random.Random(int.from_bytes(python_words.tobytes(), "little")).getstate()
        return state

    def put_back(self) -> None:
        """Make the global generators go on from here."""
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def moved(self) -> str | None:
        """Whose global generator has drawn, or was seeded, since; None where neither."""
        numpy: Any = np.random.get_state()
        if numpy[2:] != self.numpy[2:] or not np.array_equal(numpy[1], self.numpy[1]):
            return "numpy"
        return "Python" if random.getstate() != self.python else None


@contextmanager
def preserved() -> Iterator[None]:
    """Put both global generators back to where they are now."""
    before = _State()
    try:
        yield
    finally:
        before.put_back()


def seed_both(seed: int) -> None:
    """Begin both global generators anew, from `seed`."""
    _State.seeded(seed).put_back()


class Watched:
    """An environment whose calls are looked at: ``reset`` and ``step`` are its own.

    Parameters
    ----------
    env : gymnasium.Env
    drew : callable
        Called once, with "numpy" or "Python", where a call of the environment moved a global generator.
    done : callable
        Called once when there is nothing more to look at: the environment itself serves from now on.
    """

    def __init__(self, env: Any, drew: Callable[[str], None], done: Callable[[], None]) -> None:
        self._env = env
        self._drew = drew
        self._done = done
        self._left = WATCHED_STEPS

    @property
    def unwrapped(self) -> Any:
        """Of the environment."""
        return self._env.unwrapped

    def reset(self, **arguments: Any) -> Any:
        """``env.reset``."""
        before = _State()
        answer = self._env.reset(**arguments)
        self._look(before, arguments.get("seed"))
        return answer

    def step(self, action: Any) -> Any:
        """``env.step``."""
        before = _State()
        answer = self._env.step(action)
        self._left -= 1
        self._look(before, None)
        return answer

    def _look(self, before: _State, seed: int | None) -> None:
        whose = before.moved()
        if whose is not None and not _is_seeded_with(seed):
            self._drew(whose)
            self._done()
        elif self._left <= 0:
            self._done()


class Own:
    """An environment that finds in the global generators what it left there, whatever others draw from them.

    The states follow from the seed of each seeded reset. Around its calls they are put in place, and what was there
    before afterwards; an environment that has drawn nothing in its first calls is served by itself from then on.

    Parameters
    ----------
    env : gymnasium.Env
    done : callable
        Called once when it is known that the environment draws nothing.
    """

    def __init__(self, env: Any, done: Callable[[], None]) -> None:
        self._env = env
        self._done = done
        self._left = WATCHED_STEPS
        self._draws = False
        self._state: _State | None = None

    @property
    def unwrapped(self) -> Any:
        """Of the environment."""
        return self._env.unwrapped

    def reset(self, **arguments: Any) -> Any:
        """``env.reset``."""
        seed = arguments.get("seed")
        if seed is not None or self._state is None:
            self._state = _State.seeded(seed)
        return self._called(self._env.reset, **arguments)

    def step(self, action: Any) -> Any:
        """``env.step``."""
        answer = self._called(self._env.step, action)
        self._left -= 1
        if self._left <= 0 and not self._draws:
            self._done()
        return answer

    def _called(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        outer = _State()
        assert self._state is not None
        self._state.put_back()
        try:
            return method(*arguments, **named)
        finally:
            if not self._draws:
                self._draws = self._state.moved() is not None
            if self._draws:
                self._state = _State()
            outer.put_back()


def _is_seeded_with(seed: int | None) -> bool:
    """Whether numpy's global generator has been seeded with `seed` a moment ago: then the seed does reproduce it."""
    if seed is None:
        return False
    seeded = np.random.RandomState(seed)
    fresh: Any = seeded.get_state()
    seeded.random_sample()  # the first draw renews the key, which then serves for 624 words
    used: Any = seeded.get_state()
    now: Any = np.random.get_state()
    return np.array_equal(now[1], fresh[1]) or np.array_equal(now[1], used[1])
