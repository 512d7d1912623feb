"""Environments that draw from numpy's or Python's global generator, which no seed given to ``reset`` reaches.

Whether one does is found by comparing the generators' states around its calls: around its constructor, its first reset
and its first steps, as looking costs more than a step of a fast simulator.
"""

from __future__ import annotations

import copy
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.random import mtrand

from trpo_fast import streams
from trpo_fast.state import State, copied

WATCHED_STEPS = 32
"""Steps of each environment, counted over episodes, whose calls are looked at."""

_BLOCKS = 64  # of 624 words each: who draws more in one call is not followed


class GlobalState:
    """State of both global generators, as it is now."""

    def __init__(self) -> None:
        self.numpy: Any = np.random.get_state()
        self.python = random.getstate()

    @classmethod
    def of(cls, sequence: np.random.SeedSequence) -> GlobalState:
        """The state that follows from a seed."""
        for_numpy, for_python = sequence.spawn(2)
        state = cls.__new__(cls)
        state.numpy = np.random.RandomState(np.random.MT19937(for_numpy)).get_state()
        state.python = _python_state(for_python)
        return state

    def put_back(self) -> None:
        """Make the global generators go on from here."""
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def moved(self) -> tuple[str, ...]:
        """Whose global generators, "numpy", "Python", have drawn, or were seeded, since."""
        numpy: Any = np.random.get_state()
        same = numpy[2:] == self.numpy[2:] and np.array_equal(numpy[1], self.numpy[1])
        moved = {"numpy": not same, "Python": random.getstate() != self.python}
        return tuple(whose for whose in moved if moved[whose])

    def leads_to_now(self, whose: str) -> bool:
        """Whether drawing from this state brings a global generator to where it is."""
        now: Any
        if whose == "numpy":
            now, numpy = np.random.get_state(), np.random.RandomState()
            numpy.set_state(self.numpy)
            for _ in range(_BLOCKS):
                state: Any = numpy.get_state()
                if np.array_equal(state[1], now[1]):
                    return True
                numpy.bytes(4 * 624)
            return False
        now, python = random.getstate(), random.Random()
        python.setstate(self.python)
        for _ in range(_BLOCKS):
            if python.getstate()[1][:-1] == now[1][:-1]:
                return True
            python.getrandbits(32 * 624)
        return False


class Look:
    """A look at the global generators around a call: a context manager.

    Attributes
    ----------
    before : GlobalState
        Theirs when it began.
    moved : tuple of str
        Whose, "numpy" or "Python", the call moved; nothing where another thread may have: in a look of its own, by
        putting them somewhere, or as it has an environment that is known to draw.
    """

    _lock = threading.Lock()
    # Weak, as a Ctrl-C may keep a look from its end, and environments, which may have no hash, come and go.
    _under_way: ClassVar[weakref.WeakSet[Look]] = weakref.WeakSet()
    _drawing: ClassVar[list[tuple[weakref.ref[Any], threading.Thread]]] = []
    moved: tuple[str, ...] = ()
    _alone = True

    def __enter__(self) -> Look:
        self._thread = threading.current_thread()
        with self._lock:
            others = [look for look in self._under_way if look._thread is not self._thread]
            for look in others:
                look._alone = False
            drawing = [thread for env, thread in self._drawing if env() is not None and thread.is_alive()]
            self._alone = not others and all(thread is self._thread for thread in drawing)
            self._under_way.add(self)
        self.before = GlobalState()
        return self

    def __exit__(self, *_: object) -> None:
        moved = self.before.moved()
        with self._lock:
            self._under_way.discard(self)
            self.moved = moved if self._alone else ()

    @classmethod
    def know(cls, env: Any) -> None:
        """That `env`, of this thread, draws: nobody looks at its calls from now on."""
        with cls._lock:
            cls._drawing[:] = [known for known in cls._drawing if known[0]() is not None]
            cls._drawing.append((weakref.ref(env), threading.current_thread()))


_preserving: weakref.WeakSet[GlobalState] = weakref.WeakSet()
_origin: GlobalState | None = None


@contextmanager
def preserved() -> Iterator[None]:
    """Put both global generators back to where they are now; of several threads the last, to where the first was."""
    global _origin
    with Look():
        with Look._lock:
            before = GlobalState()
            if not _preserving:
                _origin = copy.copy(before)
            _preserving.add(before)
        try:
            yield
        finally:
            with Look._lock:
                _preserving.discard(before)
                (before if _preserving or _origin is None else _origin).put_back()


def seed_both(seed: int) -> None:
    """Begin both global generators anew, from `seed`."""
    with Look():
        GlobalState.of(np.random.SeedSequence((seed, streams.GLOBAL_GENERATORS))).put_back()


def made_with_own(make_one: Callable[[], Any], seed: int | None, index: int) -> Any:
    """What `make_one` makes, copy `index`, with global generators that follow from a run's seed; from nothing for None.

    Those of the process are then where they were.
    """
    with preserved():
        entropy = None if seed is None else (seed, index, streams.CONSTRUCTION)
        GlobalState.of(np.random.SeedSequence(entropy)).put_back()
        return make_one()


class Watched:
    """An environment whose calls are looked at: ``reset`` and ``step`` are its own.

    One that seeds a global generator with the seed of a reset is reproduced: what it draws from there on is its own,
    unless others draw from the same generator.

    Parameters
    ----------
    env : gymnasium.Env
    alone : bool
        Whether no other copy is stepped in the process.
    drew : callable
        Called once, with "numpy" or "Python", where a call of the environment moved a global generator, and whether it
        had seeded that one.
    done : callable
        Called once when there is nothing more to look at: the environment itself serves from now on.
    """

    def __init__(self, env: Any, alone: bool, drew: Callable[[str, bool], None], done: Callable[[], None]) -> None:
        self.env = env
        self._alone = alone
        self._drew = drew
        self._done = done
        self._seeded: set[str] = set()
        self._left = WATCHED_STEPS

    @property
    def unwrapped(self) -> Any:
        """Of the environment."""
        return self.env.unwrapped

    def reset(self, **arguments: Any) -> Any:
        """``env.reset``."""
        with Look() as look:
            answer = self.env.reset(**arguments)
        self._say(look, arguments.get("seed"))
        return answer

    def step(self, action: Any) -> Any:
        """``env.step``."""
        with Look() as look:
            answer = self.env.step(action)
        self._left -= 1
        self._say(look, None)
        return answer

    def _say(self, look: Look, seed: int | None) -> None:
        for whose in look.moved:
            if seed is not None and _is_seeded_with(seed, whose):
                self._seeded.add(whose)
                continue
            goes_on = whose in self._seeded and look.before.leads_to_now(whose)
            if not (goes_on and self._alone):
                Look.know(self.env)
                self._drew(whose, goes_on)
                self._done()
                return
        if self._left <= 0:
            self._done()


class Own:
    """An environment that finds in the global generators what it left there, whatever others draw from them.

    Their states follow from the seed of each seeded reset. They are put in place around its calls, and what was there
    before afterwards, except for the second half of a pair of normal numbers that numpy had kept. An environment that
    has drawn nothing in its first calls is served by itself from then on.

    Parameters
    ----------
    env : gymnasium.Env
    done : callable
        Called once when it is known that the environment draws nothing.
    """

    def __init__(self, env: Any, done: Callable[[], None]) -> None:
        self.env = env
        self._done = done
        self._left = WATCHED_STEPS
        self._draws_numpy = self._draws_python = False
        self._numpy: Any = None
        self._python: Any = None

    @property
    def unwrapped(self) -> Any:
        """Of the environment."""
        return self.env.unwrapped

    def reset(self, **arguments: Any) -> Any:
        """``env.reset``."""
        seed = arguments.get("seed")
        if seed is not None or self._numpy is None:
            entropy = np.random.SeedSequence(None if seed is None else (seed, streams.GLOBAL_GENERATORS))
            for_numpy, for_python = entropy.spawn(2)
            self._numpy = np.random.MT19937(for_numpy)
            self._python = _python_state(for_python)
        return self._called(self.env.reset, **arguments)

    def step(self, action: Any) -> Any:
        """``env.step``."""
        self._left -= 1
        answer = self._called(self.env.step, action)
        if self._left <= 0 and not (self._draws_numpy or self._draws_python):
            self._done()
        return answer

    def get_state(self) -> State:
        """What both generators go on from, and what is known of who draws."""
        known = {"left": self._left, "draws_numpy": self._draws_numpy, "draws_python": self._draws_python}
        if self._numpy is None:
            return {**known, "numpy": None, "python": None}
        version, words, gauss = self._python
        numpy = copied(dict(self._numpy.state))
        return {**known, "numpy": numpy, "python": [version, np.array(words, np.uint64), gauss]}

    def set_state(self, state: State) -> None:
        """Go on as the one whose state this is; ValueError where it is none."""
        try:
            numpy = python = None
            if state["numpy"] is not None:
                numpy = np.random.MT19937()
                numpy.state = copied(state["numpy"])
                version, words, gauss = state["python"]
                python = version, tuple(words.tolist()), gauss
                random.Random().setstate(python)
            self._left = int(state["left"])
            self._draws_numpy, self._draws_python = bool(state["draws_numpy"]), bool(state["draws_python"])
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of global generators: {error!r}") from error
        self._numpy, self._python = numpy, python

    def _called(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        # Another bit generator is put in place at once, where reading and writing a state takes tens of microseconds.
        outer: Any = mtrand.get_bit_generator()
        mtrand.set_bit_generator(self._numpy)
        before = None if self._draws_numpy or self._left < 0 else self._numpy.state["state"]
        watches_python = self._draws_python or self._left >= 0
        if watches_python:
            outer_python = random.getstate()
            random.setstate(self._python)
        try:
            return method(*arguments, **named)
        finally:
            if before is not None:
                now = self._numpy.state["state"]
                self._draws_numpy = now["pos"] != before["pos"] or not np.array_equal(now["key"], before["key"])
            if watches_python:
                state = random.getstate()
                self._draws_python = self._draws_python or state != self._python
                self._python = state
                random.setstate(outer_python)
            mtrand.set_bit_generator(outer)


def _python_state(sequence: np.random.SeedSequence) -> Any:
    return random.Random(int.from_bytes(sequence.generate_state(8).tobytes(), "little")).getstate()


def _is_seeded_with(seed: int, whose: str) -> bool:
    """Whether a global generator has been seeded with `seed` a moment ago: then the seed does reproduce it."""
    seeded = GlobalState()
    if whose == "numpy":
        seeded.numpy = np.random.RandomState(seed).get_state()
    else:
        seeded.python = random.Random(seed).getstate()
    return seeded.leads_to_now(whose)
