"""How the actions of a space are produced by a policy, stored, and handed to the environment."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .descriptions import Box, Discrete, Leaf, MultiDiscrete, Space


class ActionLayout(NamedTuple):
    """How the actions of a space are produced by a policy, stored, and handed to the environment."""

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


def action_layout(space: Space) -> ActionLayout:
    """The layout of a supported action space; a ValueError names any other."""
    if not isinstance(space, Leaf):
        raise ValueError(f"action space must be a Box of floats, Discrete, MultiDiscrete or MultiBinary, got {space}")
    if isinstance(space, Box) and space.dtype.kind != "f":
        raise ValueError(f"action space must be a Box of floats, not of integers, got {space}")
    size = math.prod(space.shape)
    if size == 0:
        raise ValueError(f"action space must have at least one item, got {space}")
    if isinstance(space, Box):
        low, high = (np.array(bound, np.float64).ravel() for bound in (space.low, space.high))
        return ActionLayout("gaussian", (size,), size, (), 0, np.empty(0, np.int64), low, high)
    if isinstance(space, Discrete):
        start = np.array([space.start], np.int64)
        return ActionLayout("categorical", (), space.n, (space.n,), space.n, start, None, None)
    if isinstance(space, MultiDiscrete):
        nvec = tuple(int(n) for n in space.nvec.ravel())
        start = np.array(space.start, np.int64).ravel()
        return ActionLayout("multicategorical", (len(nvec),), sum(nvec), nvec, sum(nvec), start, None, None)
    return ActionLayout("bernoulli", (size,), size, (), 2 * size, np.zeros(size, np.int64), None, None)
