"""Observations of Gymnasium's spaces as flat rows of floats, in the order of ``gymnasium.spaces.utils.flatten``."""

from __future__ import annotations

from typing import Any

from gymnasium import Space
from gymnasium.spaces import Dict, Tuple

from trpo_fast.rollout.spaces import described
from trpo_fast.spaces import observations


class ObservationLayout(observations.ObservationLayout):
    """`trpo_fast.spaces.ObservationLayout` of a Gymnasium space; ValueError names what in it is not supported."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(described(space))


def same_columns(one: Space[Any], other: Space[Any]) -> bool:
    """Whether two equal observation spaces lie in the same order in a row: equality of Dicts forgets that of keys."""
    if isinstance(one, Dict):
        return isinstance(other, Dict) and all(
            key == wanted and same_columns(part, like)
            for (key, part), (wanted, like) in zip(one.spaces.items(), other.spaces.items(), strict=True)
        )
    if isinstance(one, Tuple):
        return isinstance(other, Tuple) and all(map(same_columns, one.spaces, other.spaces))
    return True
