"""Whether copies of an environment in one process share state: some simulators exist once in a process.

One copy is reset and stepped alone, and once more behind another one's steps. What it answers then is what it answers
alone, or the other one has moved it; or it counts something, as both do when they are reset alike. Copies that share
state train on mixed-up data, without any error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from trpo_fast.environments.generators import preserved, seed_both

STEPS = 8
"""At most so many steps of each of the two copies; fewer where an episode ends."""

_FAR = 4.0
"""Answers so many times further off than from one time alone to the next are the doing of another copy."""

_SEED = 1


@dataclass(frozen=True)
class SharedState:
    """What `shared_state` found."""

    shared: bool | None
    """None where it cannot be told."""
    reason: str
    drawn_from: tuple[str, ...] = ()
    """Spaces, by attribute, that copies have in common, and whose samples decide what they answer."""


def shared_state(envs: Sequence[gymnasium.Env[Any, Any]], seeds: Sequence[int | None] = (_SEED, _SEED)) -> SharedState:
    """Whether the first of `envs` moves the second.

    For environments that are reset with a seed before they are used: two of them are reset and stepped, below their
    wrappers, whose statistics stay as they are. Nothing of a run's random numbers is used; the global generators, and
    those of the spaces, which copies may well have in common, are put back. Three resets and three times `STEPS` steps
    where the answers are the same; up to nine resets more where they are not, and three where copies draw from spaces
    that they have in common.

    Parameters
    ----------
    envs : sequence of gymnasium.Env
        Of one process; with fewer than two there is nothing to share.
    seeds : sequence of int or None
        What the first two are reset with: those that they will be used with, as one may keep what its first reset made.
    """
    if len(envs) < 2:
        return SharedState(False, "one copy")
    one, other = envs[0].unwrapped, envs[1].unwrapped
    if not all(hasattr(env, name) for env in (one, other) for name in ("observation_space", "action_space")):
        return SharedState(None, "a wrapper gives it its spaces")
    with preserved(), _spaces_preserved(one, other):
        spaces = _Spaces(one, other, seeds)
        found = _found(one, other, spaces)
        return found if found.shared else replace(found, drawn_from=_drawn_from(other, spaces))


def _found(one: Any, other: Any, spaces: _Spaces) -> SharedState:
    try:
        before = _answers_of(other, spaces)
    except Exception:
        before = None
    if _distance(before, _one_after_the_other(one, other, spaces)[1]) == 0:
        return SharedState(False, "a copy answered behind another one as it does alone")
    # What counts its resets or steps answers otherwise each time, and two copies alike that have had as many.
    try:
        _answers_of(one, spaces)
    except Exception as error:
        return SharedState(None, f"it raised {error!r}")
    spaces.seeds[id(one)] = spaces.seeds[id(other)]
    first, beside = _one_after_the_other(one, other, spaces)
    if _distance(first, beside) == 0:
        return SharedState(False, "two copies answered alike, one after the other")
    # Twice, so that what comes from no seed and happens now and then is not taken for the first copy's doing.
    try:
        alone = [_answers_of(other, spaces) for _ in range(2)]
        beside_again = _one_after_the_other(one, other, spaces)[1]
        alone += [_answers_of(other, spaces) for _ in range(2)]
    except Exception as error:
        return SharedState(None, f"it raised {error!r}")
    # Neighbours in time, as a simulator may drift from reset to reset.
    own = max(_distance(alone[0], alone[1]), _distance(alone[2], alone[3]))
    neighbours = ((beside, alone[0]), (alone[1], beside_again), (beside_again, alone[2]))
    moved = min(_distance(mixed, answers) for mixed, answers in neighbours)
    if moved > _FAR * own:
        return SharedState(True, f"a copy of {type(one).__name__} answers differently once another one was stepped")
    if own > 0:
        return SharedState(None, "its answers to one seed and the same actions differ")
    return SharedState(False, "copies differ, but one does not move the other")


def _drawn_from(env: Any, spaces: _Spaces) -> tuple[str, ...]:
    """Spaces that copies have in common and that were drawn from, where `env` answers otherwise once others drew, too.

    One that seeds them before it draws answers the same.
    """
    drawn = spaces.drawn()
    if not drawn:
        return ()
    try:
        usual, again = (_answers_of(env, spaces) for _ in range(2))
        after_others = _answers_of(env, spaces, _SEED + 1)
    except Exception:
        return ()
    return drawn if _distance(usual, again) == 0 < _distance(usual, after_others) else ()


def _one_after_the_other(one: Any, other: Any, spaces: _Spaces) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Answers of both, reset and then stepped in turn; None where one raises."""
    first = None
    try:
        begun, others = _begun(other, spaces), _begun(one, spaces)
        first = _answers(one, others, spaces)
        return first, _answers(other, begun, spaces)
    except Exception:
        return first, None


def _answers_of(env: Any, spaces: _Spaces, seed: int = _SEED) -> NDArray[Any]:
    """Answers of one copy alone, whose spaces are seeded with `seed`."""
    return _answers(env, _begun(env, spaces, seed), spaces, seed)


def _begun(env: gymnasium.Env[Any, Any], spaces: _Spaces, seed: int = _SEED) -> Any:
    """The info of a reset."""
    spaces.seed(env, seed)
    return env.reset(seed=spaces.seeds[id(env)])[1]


class _Spaces:
    """The spaces of two copies, a class's often, whose generators then are one: and who has drawn from them."""

    def __init__(self, one: Any, other: Any, seeds: Sequence[int | None]) -> None:
        self.seeds = {id(one): seeds[0], id(other): seeds[1]}  # of their resets
        self._common: dict[str, list[Any]] = {}
        for name in ("observation_space", "action_space"):
            theirs = {id(part) for part in _parts(getattr(other, name))}
            self._common[name] = [part for part in _parts(getattr(one, name)) if id(part) in theirs]
        self._seeded: dict[str, list[Any]] = {}
        self._drawn: set[str] = set()

    def seed(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Begin the spaces and the process's generators anew, so that what is drawn from them tells nothing apart."""
        self._look()
        seed_both(_SEED)
        env.observation_space.seed(seed)
        env.action_space.seed(seed)
        self._seeded = {name: _states(parts) for name, parts in self._common.items()}

    def drawn(self) -> tuple[str, ...]:
        """Names of those that both have, and from which one has drawn since the first `seed`."""
        self._look()
        return tuple(name for name in self._common if name in self._drawn)

    def _look(self) -> None:
        self._drawn |= {name for name, states in self._seeded.items() if states != _states(self._common[name])}


def _states(spaces: list[Any]) -> list[Any]:
    # As text: some hold arrays.
    return [None if space._np_random is None else repr(space._np_random.bit_generator.state) for space in spaces]


@contextmanager
def _spaces_preserved(*envs: gymnasium.Env[Any, Any]) -> Iterator[None]:
    """Put the generators of the environments' spaces back to where they are now."""
    spaces = [part for env in envs for space in (env.observation_space, env.action_space) for part in _parts(space)]
    before = [copy.deepcopy(space._np_random) for space in spaces]  # np_random would make one where there is none
    try:
        yield
    finally:
        for space, generator in zip(spaces, before, strict=True):
            space._np_random = generator


def _parts(space: Any) -> Iterator[Any]:
    """The space itself, and all those inside."""
    yield space
    inside = getattr(space, "spaces", ())
    for part in inside.values() if isinstance(inside, Mapping) else inside:
        yield from _parts(part)


def _answers(env: gymnasium.Env[Any, Any], info: Any, spaces: _Spaces, seed: int = _SEED) -> NDArray[Any]:
    """All numbers in the observations, rewards and flags of the steps after a reset that returned `info`."""
    spaces.seed(env, seed)
    space = copy.deepcopy(env.action_space)  # the environment may draw from its own
    space.seed(_SEED)
    numbers: list[float] = []
    for _ in range(STEPS):
        mask = _mask(env, info)
        *answer, info = env.step(space.sample() if mask is None else space.sample(mask=mask))
        _append_numbers(answer, numbers)
        if answer[2] or answer[3]:
            break
    return np.array(numbers)


def _mask(env: gymnasium.Env[Any, Any], info: Any) -> Any:
    masks = getattr(env, "action_masks", None)
    mask = masks() if callable(masks) else info.get("action_mask") if masks is None else masks
    return _as_sampled_with(mask)


def _as_sampled_with(mask: Any) -> Any:
    """A mask as the spaces of Gymnasium take it, int8, nested as they are."""
    if isinstance(mask, Mapping):
        return {key: _as_sampled_with(part) for key, part in mask.items()}
    if isinstance(mask, tuple):
        return tuple(map(_as_sampled_with, mask))
    return None if mask is None else np.asarray(mask, np.int8)


def _append_numbers(value: Any, numbers: list[float]) -> None:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            _append_numbers(part, numbers)
    elif not isinstance(value, str):
        numbers += np.ravel(np.asarray(value, np.float64)).tolist()


def _distance(one: NDArray[Any] | None, other: NDArray[Any] | None) -> float:
    """Between answers; infinite where there are none, or where the number of steps differs."""
    if one is None or other is None or len(one) != len(other):
        return math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(one == other, 0.0, one - other)  # infinite entries may be equal
    both_nan = np.isnan(one) & np.isnan(other)
    return float(np.linalg.norm(np.where(both_nan, 0.0, np.nan_to_num(difference, nan=math.inf))))
