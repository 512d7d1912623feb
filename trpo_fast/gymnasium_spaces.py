"""Which Gymnasium spaces are supported, how many numbers they are, and how they are written to JSON.

The rules themselves are `trpo_fast.spaces`, which needs no Gymnasium; here its spaces are turned into those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from trpo_fast import spaces
from trpo_fast.spaces import ActionLayout
from trpo_fast.spaces.descriptions import KINDS, check_keys


def described(space: Space[Any], name: str = "", whole: str = "observation") -> spaces.Space:
    """A supported `space` without Gymnasium; a ValueError names what in it is not supported.

    `name` is how error messages call the part of the `whole` that `space` describes, ``['camera'][0]`` for example.
    """
    if isinstance(space, Dict):
        check_keys(space.spaces, f"{whole}{name}")
        return spaces.Dict({key: described(part, f"{name}[{key!r}]", whole) for key, part in space.spaces.items()})
    if isinstance(space, Tuple):
        parts = enumerate(space.spaces)
        return spaces.Tuple(tuple(described(part, f"{name}[{index}]", whole) for index, part in parts))
    if isinstance(space, Box):
        return spaces.Box(space.low, space.high)
    if isinstance(space, Discrete):
        return spaces.Discrete(int(space.n), int(space.start), np.dtype(space.dtype))
    if isinstance(space, MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec, space.start)
    if isinstance(space, MultiBinary):
        return spaces.MultiBinary(space.n if isinstance(space.n, int) else tuple(map(int, space.n)))
    where = f"{whole}{name}: its" if name else whole
    raise ValueError(
        f"{where} space: {space} given; want a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these"
    )


def action_words(space: Space[Any]) -> str:
    """Kind and size of an action space, e.g. ``"Discrete(2)"`` or ``"Box(6,)"``; bounds do not count."""
    return f"Box{space.shape}" if isinstance(space, Box) else str(space)


def has_gaussian(space: Space[Any]) -> bool:
    """Whether actions of this space, or of a part of it, are drawn from a Gaussian."""
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        return any(map(has_gaussian, parts))
    return isinstance(space, Box)


def without_text(space: Space[Any], name: str = "observation") -> tuple[Space[Any], tuple[str, ...]]:
    """`space` without the parts of a Dict whose values are strings, and what these are called.

    No network here reads text. Such a part is a Text or a space of a package's own, as minigrid's missions are.
    """
    if isinstance(space, Dict):
        kept: dict[Any, Space[Any]] = {}
        left_out: tuple[str, ...] = ()
        for key, part in space.spaces.items():
            if part.dtype is not None and np.dtype(part.dtype).kind == "U":
                left_out += (f"{name}[{key!r}]",)
                continue
            kept[key], more = without_text(part, f"{name}[{key!r}]")
            left_out += more
        # Nothing but text is no observation: it stays, to be named by whoever looks at the space.
        return (Dict(list(kept.items())), left_out) if left_out and kept else (space, ())
    if isinstance(space, Tuple):
        parts = [without_text(part, f"{name}[{index}]") for index, part in enumerate(space.spaces)]
        left_out = tuple(text for _, more in parts for text in more)
        return (Tuple([part for part, _ in parts]), left_out) if left_out else (space, ())
    return space, ()


def check_observation_space(space: Space[Any]) -> Space[Any]:
    """Return `space` when its observations can be flattened; a ValueError names what in it is not supported."""
    if observation_size(space) == 0:
        raise ValueError(f"observation space: {space} given; want at least one item")
    return space


def observation_size(space: Space[Any]) -> int:
    """D, numbers in one flat observation of a supported `space`; a ValueError names any other."""
    return sum(map(spaces.flat_size, spaces.leaves(described(space))))


def numeric_columns(space: Space[Any]) -> NDArray[np.bool_]:
    """Which of the D columns are numbers (of a Box), and not one-hot or binary: those worth normalizing."""
    return spaces.numeric_columns(described(space))


def action_layout(space: Space[Any], action_map: str = "clip") -> ActionLayout:
    """The layout of a supported action space; a ValueError names any other, and an `action_map` that it cannot have."""
    return spaces.action_layout(described_actions(space), action_map)


def resolved_action_map(space: Space[Any], action_map: str) -> str:
    """As `trpo_fast.spaces.resolved_action_map`."""
    return spaces.resolved_action_map(described_actions(space), action_map)


def unreached_sides(
    space: Space[Any], reach: float = spaces.REACH, action_map: str = "clip"
) -> list[tuple[str, float]]:
    """As `trpo_fast.spaces.unreached_sides`."""
    return spaces.unreached_sides(described_actions(space), reach, action_map)


def action_structure(space: Space[Any]) -> spaces.ActionStructure:
    """The `trpo_fast.spaces.ActionStructure` of a supported action space; a ValueError names any other."""
    return spaces.ActionStructure(described_actions(space))


def check_action_space(space: Space[Any]) -> Space[Any]:
    """Return `space` when its actions are supported; a ValueError names any other."""
    action_layout(space)
    return space


def described_actions(space: Space[Any]) -> spaces.Space:
    """As `described`, of an action space."""
    if not isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple)):
        raise ValueError(
            f"action space: {space} given; want a Box of floats, Discrete, MultiDiscrete or MultiBinary, or a Dict or "
            "Tuple of these"
        )
    return described(space, whole="action")


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Describe a supported space by what ``json.dumps`` accepts."""
    if not isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple)):
        raise ValueError(f"space: {space} given; want one of {KINDS}")
    return spaces.to_json(described(space))


def space_from_json(description: Mapping[str, Any], most: int | None = None) -> Space[Any]:
    """Inverse of `space_to_json`; ValueError when `description` is not one of its results, or of more than `most`."""
    return _restored(spaces.from_json(description, most))


def _restored(space: spaces.Space) -> Space[Any]:
    """Inverse of `described`."""
    if isinstance(space, spaces.Box):
        return Box(space.low, space.high, space.shape, space.dtype.type)
    if isinstance(space, spaces.Discrete):
        if space.dtype == np.int64:  # the only one that Gymnasium before 1.2.2 knows
            return Discrete(space.n, start=space.start)
        return Discrete(space.n, start=space.start, dtype=space.dtype.type)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscrete(space.nvec, dtype=space.dtype.type, start=space.start)
    if isinstance(space, spaces.MultiBinary):
        return MultiBinary(space.n)
    if isinstance(space, spaces.Tuple):
        return Tuple([_restored(part) for part in space.spaces])
    return Dict([(key, _restored(part)) for key, part in space.spaces.items()])
