"""Which Gymnasium spaces are supported, how many numbers they are, and how they are written to JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

Leaf = Box | Discrete | MultiDiscrete | MultiBinary


def check_observation_space(space: Space[Any]) -> Space[Any]:
    """Return `space` when its observations can be flattened; a ValueError names what in it is not supported."""
    if observation_size(space) == 0:
        raise ValueError(f"observation space must have at least one item, got {space}")
    return space


def observation_size(space: Space[Any]) -> int:
    """D, numbers in one flat observation of a supported `space`; a ValueError names any other."""
    return sum(flat_size(leaf) for leaf in observation_leaves(space))


def numeric_columns(space: Space[Any]) -> NDArray[np.bool_]:
    """Which of the D columns are numbers (of a Box), and not one-hot or binary: those worth normalizing."""
    return np.concatenate([np.full(flat_size(leaf), isinstance(leaf, Box)) for leaf in observation_leaves(space)])


def observation_leaves(space: Space[Any], name: str = "") -> Iterator[Leaf]:
    """The spaces without parts inside `space`, in the order in which Gymnasium flattens them.

    `name` is how error messages call the part of the observation that `space` describes, ``['camera'][0]`` for example.
    """
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from observation_leaves(part, f"{name}[{key!r}]")
    elif isinstance(space, Tuple):
        for index, part in enumerate(space.spaces):
            yield from observation_leaves(part, f"{name}[{index}]")
    elif isinstance(space, Leaf):
        yield space
    else:
        where = f"observation{name}: its" if name else "observation"
        raise ValueError(
            f"{where} space must be a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these, "
            f"got {space}"
        )


def flat_size(leaf: Leaf) -> int:
    """Columns that an observation of `leaf` takes: one for each item of a Box, one for each choice of the discrete."""
    if isinstance(leaf, Discrete):
        return int(leaf.n)
    return int(leaf.nvec.sum()) if isinstance(leaf, MultiDiscrete) else math.prod(leaf.shape)


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
    """Describe a supported space by what ``json.dumps`` accepts; infinite bounds become strings, as JSON has none."""
    if isinstance(space, Box):
        return {
            "type": "Box",
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
            "shape": list(space.shape),
            "dtype": space.dtype.name,
        }
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if isinstance(space, MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": space.dtype.name,
        }
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, Tuple):
        return {"type": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, Dict):
        for key in space.spaces:
            if not isinstance(key, str):
                raise ValueError(f"space: key {key!r} of {space} is not a string, so that it cannot be saved")
        # A list, because the order of the keys is the order of the columns.
        return {"type": "Dict", "spaces": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    raise ValueError(f"space must be one of {', '.join(_FROM_JSON)}, got {space}")


def space_from_json(description: Mapping[str, Any]) -> Space[Any]:
    """Inverse of `space_to_json`; ValueError when `description` is not one of its results."""
    try:
        kind = description["type"]
        if kind in _FROM_JSON:
            return _FROM_JSON[kind](description)
    except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"damaged description of a space, {error!r}: {description}") from error
    raise ValueError(f"space type must be one of {', '.join(_FROM_JSON)}, got {kind!r}")


def _box_from_json(description: Mapping[str, Any]) -> Box:
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, high = (_bounds_from_json(description[name], shape, dtype) for name in ("low", "high"))
    return Box(low, high, shape, dtype.type)


def _discrete_from_json(description: Mapping[str, Any]) -> Discrete:
    dtype = np.dtype(description.get("dtype", "int64"))  # files written before it was noted are of this one
    return Discrete(description["n"], start=description["start"], dtype=dtype.type)


def _multi_discrete_from_json(description: Mapping[str, Any]) -> MultiDiscrete:
    dtype = np.dtype(description["dtype"])
    nvec, start = (_integers(description[name]).astype(dtype) for name in ("nvec", "start"))
    return MultiDiscrete(nvec, dtype=dtype.type, start=start)


def _multi_binary_from_json(description: Mapping[str, Any]) -> MultiBinary:
    return MultiBinary(_integers(description["n"]).tolist())


def _tuple_from_json(description: Mapping[str, Any]) -> Tuple:
    return Tuple([space_from_json(part) for part in description["spaces"]])


def _dict_from_json(description: Mapping[str, Any]) -> Dict:
    parts = [(key, space_from_json(part)) for key, part in description["spaces"]]
    if len({str(key) for key, _ in parts}) < len(parts) or not all(isinstance(key, str) for key, _ in parts):
        raise ValueError("the keys of a Dict must be different strings")
    return Dict(parts)


_FROM_JSON = {
    "Box": _box_from_json,
    "Discrete": _discrete_from_json,
    "MultiDiscrete": _multi_discrete_from_json,
    "MultiBinary": _multi_binary_from_json,
    "Dict": _dict_from_json,
    "Tuple": _tuple_from_json,
}


def _integers(described: Any) -> NDArray[np.int64]:
    array = np.array(described)
    if array.dtype.kind != "i" and array.size:
        raise ValueError(f"want integers, got {described}")
    return array


def _bounds_to_json(bounds: NDArray[Any]) -> Any:
    # One number where all are equal: images have thousands.
    values = bounds.ravel()[:1] if (bounds == bounds.flat[0]).all() else bounds.ravel()
    described = [value if math.isfinite(value) else str(value) for value in values.tolist()]
    return described[0] if len(described) == 1 else described


def _bounds_from_json(described: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    values = described if isinstance(described, list) else [described] * math.prod(shape)
    numbers = [float(value) if isinstance(value, str) else value for value in values]
    return np.array(numbers, dtype=dtype).reshape(shape)
