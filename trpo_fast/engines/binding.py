"""Checks that both engines make when a batch or an action space meets a policy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch.distributions import Distribution

from trpo_fast.policies.flat import FlatParameters


def checked_parameters(flat: FlatParameters, expected: NDArray[Any] | None) -> NDArray[Any]:
    """The live buffer, with the views made again where something replaced them.

    Raises ValueError when it no longer is `expected` (None: anything goes), or when a parameter, which it names, is not
    finite.
    """
    if not flat.is_intact():
        flat.restore()
    buffer = flat.numpy
    if expected is not None and buffer is not expected:
        raise ValueError("policy: its parameters changed dtype or size since the engine was made; make another engine")
    if not np.isfinite(buffer).all():
        index = int(np.flatnonzero(~np.isfinite(buffer))[0])
        raise ValueError(f"policy: parameter {flat.name_at(index)!r} contains {buffer[index]}, wanted finite numbers")
    return buffer


def checked_distribution(result: object, count: int) -> Distribution:
    """`result` of a policy for `count` observations; an error when it is not one distribution for each of them."""
    if not isinstance(result, Distribution):
        raise TypeError(f"policy: forward returned {type(result).__name__}, wanted a torch.distributions.Distribution")
    if tuple(result.batch_shape) != (count,):
        raise ValueError(
            f"policy: forward returned a distribution of batch shape {tuple(result.batch_shape)} for {count} "
            f"observations, wanted ({count},); torch.distributions.Independent makes action dimensions one event"
        )
    return result


def as_rows(name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`array` as it is where it has `dtype` and is C-contiguous, otherwise converted; floats never become integers."""
    if dtype.kind == "i" and np.asarray(array).dtype.kind == "f":
        raise ValueError(f"{name}: got dtype {array.dtype}, wanted integers for a policy over discrete actions")
    return np.ascontiguousarray(array, dtype)


def check_action_space(
    space: spaces.Space, distribution: str | None, size: int | None
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, int]:
    """``(low, high, start)`` of a Box, flat float64 arrays, or of Discrete.

    `distribution` ("gaussian", "categorical") and `size` are the policy's, None where they are not known; ValueError
    when the space does not fit them.
    """
    if isinstance(space, spaces.Discrete):
        if distribution in (None, "categorical") and size in (None, int(space.n)):
            return None, None, int(space.start)
    elif isinstance(space, spaces.Box):
        if distribution in (None, "gaussian") and size in (None, math.prod(space.shape)):
            return np.array(space.low, np.float64).ravel(), np.array(space.high, np.float64).ravel(), 0
    else:
        raise ValueError(f"action_space: got {space}, wanted a Box or Discrete")
    raise ValueError(f"action_space: got {space}, but the policy is {distribution} over {size} dimensions or choices")
