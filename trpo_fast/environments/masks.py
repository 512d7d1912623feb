"""Action masks as environments give them, brought into one form."""

from __future__ import annotations

from typing import Any

from gymnasium import Space

from trpo_fast.environments.spaces import check_action_space, described
from trpo_fast.spaces import masks


class MaskFormat(masks.MaskFormat):
    """`trpo_fast.spaces.MaskFormat` of a Gymnasium space; ValueError for one whose actions are not supported."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(described(check_action_space(space)))
