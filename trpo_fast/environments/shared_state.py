"""Whether copies of an environment in one process share state: some simulators exist once in a process.

Two copies are reset alike, and one is stepped before the other. What the other answers then is what it answers alone,
or the first one has moved it. Copies that share state train on mixed-up data, without any error.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from trpo_fast.environments.generators import preserved, seed_both

STEPS = 8
"""At most so many steps of each of the two copies; fewer where an episode ends."""

_SEED = 1


@dataclass(frozen=True)
class SharedState:
    """What `shared_state` found."""

    shared: bool | None
    """None where it cannot be told."""
    reason: str


def shared_state(envs: Sequence[gymnasium.Env[Any, Any]]) -> SharedState:
    """Whether the first of `envs` moves the second.

    For environments that are reset with a seed before they are used: two of them are reset and stepped, below their
    wrappers, whose statistics stay as they are. Nothing of a run's random numbers is used, and the global generators
    are put back. What an environment raises makes the answer None; it will raise again where that is of interest.

    Parameters
    ----------
    envs : sequence of gymnasium.Env
        Of one process; with fewer than two there is nothing to share.
    """
    if len(envs) < 2:
        return SharedState(False, "one copy")
    one, other = envs[0].unwrapped, envs[1].unwrapped
    with preserved():
        try:
            begun, others = _begun(other), _begun(one)
            first, beside = _answers(one, others), _answers(other, begun)
            if _same(first, beside):
                return SharedState(False, "two copies answered alike, one after the other")
            alone, again = (_answers(other, _begun(other)) for _ in range(2))
        except Exception as error:
            return SharedState(None, f"it raised {error!r}")
    if not _same(alone, again):
        return SharedState(None, "its answers to one seed and the same actions differ")
    if _same(alone, beside):
        return SharedState(False, "copies differ, but one does not move the other")
    return SharedState(True, f"a copy of {type(one).__name__} answers differently once another one was stepped")


def _begun(env: gymnasium.Env[Any, Any]) -> Any:
    """The info of a reset."""
    seed_both(_SEED)  # so that what is drawn from them tells nothing apart
    return env.reset(seed=_SEED)[1]


def _answers(env: gymnasium.Env[Any, Any], info: Any) -> list[Any]:
    """Observation, reward and flags of the steps after a reset that returned `info`."""
    seed_both(_SEED)
    space = copy.deepcopy(env.action_space)  # the generator of the environment's own one belongs to its user
    space.seed(_SEED)
    answers: list[Any] = []
    for _ in range(STEPS):
        mask = _mask(env, info)
        *answer, info = env.step(space.sample() if mask is None else space.sample(mask=mask))
        answers.append(copy.deepcopy(answer))  # environments may use their memory again
        if answer[2] or answer[3]:
            break
    return answers


def _mask(env: gymnasium.Env[Any, Any], info: Any) -> Any:
    masks = getattr(env, "action_masks", None)
    mask = masks() if callable(masks) else info.get("action_mask")
    return mask if mask is None or isinstance(mask, tuple) else np.asarray(mask, np.int8)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")
