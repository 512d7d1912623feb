"""How the actions of a space are produced by a policy, stored, and handed to the environment."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .descriptions import Box, Discrete, Leaf, MultiDiscrete, Space

ACTION_MAPS = ("auto", "affine", "clip")
"""How a Gaussian action becomes one of a Box: see `resolved_action_map`."""

REACH = 3.0
"""Standard deviations: one draw in 740 goes farther to either side. The wide boxes of MuJoCo's tasks end at 3."""

_NO_BOUND = 1e9
"""Bounds of this size are a way of writing none: the largest float, for example."""


class ActionLayout(NamedTuple):
    """How the actions of a space are produced by a policy, stored, and handed to the environment.

    A stored action is the policy's own, and its log-probability is of that. The environment gets
    ``clip(scale * action + offset, low, high)`` of a Gaussian one, and ``action + start`` of any other.
    """

    distribution: str
    """"gaussian" (Box), "categorical" (Discrete), "multicategorical" (MultiDiscrete) or "bernoulli" (MultiBinary)."""
    shape: tuple[int, ...]
    """Of one stored action: () for Discrete, otherwise (number of components,)."""
    outputs: int
    """Of the policy network: one for each dimension, or the logits of all components one after the other."""
    nvec: tuple[int, ...]
    """Choices of each categorical component; empty for a Box and for MultiBinary."""
    mask_size: int
    """K, items of one action mask: the choices of all components; (may be 0, may be 1) of each for MultiBinary."""
    start: NDArray[np.int64]
    """What is added to a stored action for the environment, one item per component; empty for a Box."""
    low: NDArray[np.float64] | None
    """Bounds that a Gaussian action is clipped to for the environment, flat; None where actions are discrete."""
    high: NDArray[np.float64] | None
    scale: NDArray[np.float64] | None
    """Of the affine map from [-1, 1] to the bounds, flat; None where an action is only clipped, and where discrete."""
    offset: NDArray[np.float64] | None


def action_layout(space: Space, action_map: str = "clip") -> ActionLayout:
    """The layout of a supported action space; a ValueError names any other, and an `action_map` that it cannot have."""
    if not isinstance(space, Leaf):
        raise ValueError(f"action space must be a Box of floats, Discrete, MultiDiscrete or MultiBinary, got {space}")
    if isinstance(space, Box) and space.dtype.kind != "f":
        raise ValueError(f"action space must be a Box of floats, not of integers, got {space}")
    size = math.prod(space.shape)
    if size == 0:
        raise ValueError(f"action space must have at least one item, got {space}")
    resolved = resolved_action_map(space, action_map)
    if isinstance(space, Box):
        low, high = _bounds(space)
        # Halves first: the difference of two finite bounds may overflow.
        scale, offset = (high / 2 - low / 2, high / 2 + low / 2) if resolved == "affine" else (None, None)
        return ActionLayout("gaussian", (size,), size, (), 0, np.empty(0, np.int64), low, high, scale, offset)
    discrete = None, None, None, None
    if isinstance(space, Discrete):
        start = np.array([space.start], np.int64)
        return ActionLayout("categorical", (), space.n, (space.n,), space.n, start, *discrete)
    if isinstance(space, MultiDiscrete):
        nvec = tuple(int(n) for n in space.nvec.ravel())
        start = np.array(space.start, np.int64).ravel()
        return ActionLayout("multicategorical", (len(nvec),), sum(nvec), nvec, sum(nvec), start, *discrete)
    return ActionLayout("bernoulli", (size,), size, (), 2 * size, np.zeros(size, np.int64), *discrete)


def resolved_action_map(space: Space, action_map: str) -> str:
    """What `action_map` means for `space`: "affine" or "clip".

    - "affine": the policy's [-1, 1] is the box. Every side must be finite.
    - "clip": the policy's numbers are the environment's. All that there is for discrete actions, whose numbers nothing
      changes.
    - "auto": "affine" for a box with all sides finite, and at least one of them unreached (`unreached_sides`); "clip"
      for every other space. One word for the whole box, so that log_std_init and the entropy mean the same in every
      dimension of a task; a dimension that is [-1, 1] already is the same under both.

    Raises
    ------
    ValueError
        No such map; or an affine one where a side is infinite, which is named, or where actions are discrete.
    """
    if action_map not in ACTION_MAPS:
        raise ValueError(f"action_map: {action_map!r} given; want one of {', '.join(map(repr, ACTION_MAPS))}")
    if not isinstance(space, Box):
        if action_map == "affine":
            raise ValueError(f"action_map: 'affine' given for {space}; want 'auto' or 'clip', only a Box has sides")
        return "clip"
    low, high = _bounds(space)
    if action_map == "affine":
        infinite = np.flatnonzero(np.isinf(low) | np.isinf(high))
        if len(infinite):
            j = infinite[0]
            raise ValueError(
                f"action_map: 'affine' given, but {_name(space, j)} of {space} goes from {low[j]:g} to {high[j]:g}; "
                "want 'clip', or finite sides"
            )
    if action_map != "auto":
        return action_map
    bounded = (np.maximum(abs(low), abs(high)) < _NO_BOUND).all()
    return "affine" if bounded and unreached_sides(space) else "clip"


def unreached_sides(space: Space, reach: float = REACH) -> list[tuple[str, float]]:
    """Sides of a Box that a policy of mean 0 does not make use of: dimension, as an error calls it, and bound.

    A side is unreached where it lies farther than `reach` from 0, so that hardly a draw gets there, and where 0 lies
    beyond it, so that most draws become that very bound. Infinite sides, and those of 1e9 and more, are none.
    """
    if not isinstance(space, Box):
        return []
    found = []
    for bound, outward in zip(_bounds(space), (-1, 1), strict=True):
        distance = outward * bound  # from 0 to the side; negative: 0 lies beyond it
        where = np.flatnonzero((abs(bound) < _NO_BOUND) & ((distance > reach) | (distance < 0)))
        found += [(int(j), float(bound[j])) for j in where]
    return [(_name(space, j), bound) for j, bound in sorted(found)]


def single_action(actions: NDArray[Any]) -> Any:
    """The only one of `actions` (1, *shape): an array, or for a Discrete space a NumPy integer, which can be a key."""
    return actions[0] if actions.ndim == 1 and actions.dtype.kind in "iu" else actions[0, ...]


def _bounds(space: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(space.low, np.float64).ravel(), np.array(space.high, np.float64).ravel()


def _name(space: Box, index: int) -> str:
    place = np.unravel_index(index, space.shape) if space.shape else ()
    return f"dimension {', '.join(str(int(i)) for i in place)}" if place else "the action"
