"""Action masks as environments give them, brought into one form."""

from __future__ import annotations

import warnings
from typing import Any

from gymnasium import Space
from gymnasium.spaces import Dict

from trpo_fast.environments.spaces import described_actions, observation_size
from trpo_fast.spaces import masks

NAMES_OF_PARTS = ("action_mask", "action_masks", "mask")
"""Keys under which environments hand a mask out as a part of their observation."""


class MaskFormat(masks.MaskFormat):
    """`trpo_fast.spaces.MaskFormat` of a Gymnasium space; ValueError for one whose actions are not supported."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(described_actions(space))


def mask_part(observation_space: Space[Any], action_space: Space[Any]) -> str | None:
    """Key of the part of a Dict that is an action mask: called so, with one item for every choice; None for none."""
    if not isinstance(observation_space, Dict):
        return None
    choices = MaskFormat(action_space).size
    for name in NAMES_OF_PARTS:
        if choices and name in observation_space.spaces and observation_size(observation_space[name]) == choices:
            return name
    return None


def warn_of_unheeded_mask(observation_space: Space[Any], action_space: Space[Any]) -> None:
    """One warning for environments without masks whose observation has one: the policy sees it and may disobey."""
    name = mask_part(observation_space, action_space)
    if name is not None:
        warnings.warn(
            f"env: observation[{name!r}] looks like an action mask, and nothing keeps the policy to it; want "
            "wrappers=['mask-in-observation'], which makes it info['action_mask'], or the part renamed",
            stacklevel=2,
        )
