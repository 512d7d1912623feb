"""Observations of Gymnasium's spaces as flat rows of floats, in the order of ``gymnasium.spaces.utils.flatten``."""

from __future__ import annotations

from typing import Any

from gymnasium import Space

from trpo_fast.gymnasium_spaces import described
from trpo_fast.spaces import observations


class ObservationLayout(observations.ObservationLayout):
    """`trpo_fast.spaces.ObservationLayout` of a Gymnasium space; ValueError names what in it is not supported."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(described(space))
