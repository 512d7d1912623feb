"""Which Gymnasium spaces are supported, and how they are written to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray


def check_observation_space(space: Space[Any]) -> Box:
    """Return `space` when it is a Box, whose observations are flattened; a ValueError names any other."""
    if not isinstance(space, Box):
        raise ValueError(f"observation space must be a Box, got {space}")
    if math.prod(space.shape) == 0:
        raise ValueError(f"observation space must have at least one item, got {space}")
    return space


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


def action_layout(space: Space[Any]) -> ActionLayout:
    """The layout of a supported action space; a ValueError names any other."""
    space = check_action_space(space)
    size = math.prod(space.shape or ())
    if isinstance(space, Box):
        low, high = (np.array(bound, np.float64).ravel() for bound in (space.low, space.high))
        return ActionLayout("gaussian", (size,), size, (), 0, np.empty(0, np.int64), low, high)
    if isinstance(space, Discrete):
        count = int(space.n)
        return ActionLayout("categorical", (), count, (count,), count, np.array([space.start], np.int64), None, None)
    if isinstance(space, MultiDiscrete):
        nvec = tuple(int(n) for n in space.nvec.ravel())
        start = np.array(space.start, np.int64).ravel()
        return ActionLayout("multicategorical", (len(nvec),), sum(nvec), nvec, sum(nvec), start, None, None)
    return ActionLayout("bernoulli", (size,), size, (), 2 * size, np.zeros(size, np.int64), None, None)


def check_action_space(space: Space[Any]) -> Box | Discrete | MultiDiscrete | MultiBinary:
    """Return `space` when its actions are supported; a ValueError names any other."""
    if isinstance(space, Discrete):
        return space
    if isinstance(space, Box) and not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"action space must be a Box of floats, not of integers, got {space}")
    if not isinstance(space, (Box, MultiDiscrete, MultiBinary)):
        raise ValueError(f"action space must be a Box of floats, Discrete, MultiDiscrete or MultiBinary, got {space}")
    if math.prod(space.shape or ()) == 0:
        raise ValueError(f"action space must have at least one item, got {space}")
    return space


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Describe a Box or Discrete by what ``json.dumps`` accepts; infinite bounds become strings, as JSON has none."""
    if isinstance(space, Box):
        return {
            "type": "Box",
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
            "shape": list(space.shape),
            "dtype": space.dtype.name,
        }
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    raise ValueError(f"space must be a Box or a Discrete, got {space}")


def space_from_json(description: Mapping[str, Any]) -> Box | Discrete:
    """Inverse of `space_to_json`; ValueError when `description` is not one of its results."""
    try:
        kind = description["type"]
        if kind == "Discrete":
            return Discrete(description["n"], start=description["start"])
        if kind == "Box":
            shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
            low, high = (_bounds_from_json(description[name], shape, dtype) for name in ("low", "high"))
            return Box(low, high, shape, dtype.type)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"damaged description of a space, {error!r}: {description}") from error
    raise ValueError(f"space type must be 'Box' or 'Discrete', got {kind!r}")


def _bounds_to_json(bounds: NDArray[Any]) -> Any:
    # One number where all are equal: images have thousands.
    values = bounds.ravel()[:1] if (bounds == bounds.flat[0]).all() else bounds.ravel()
    described = [value if math.isfinite(value) else str(value) for value in values.tolist()]
    return described[0] if len(described) == 1 else described


def _bounds_from_json(described: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    values = described if isinstance(described, list) else [described] * math.prod(shape)
    numbers = [float(value) if isinstance(value, str) else value for value in values]
    return np.array(numbers, dtype=dtype).reshape(shape)
