"""Action masks as environments give them, brought into one form."""

from __future__ import annotations

import warnings
from typing import Any

from gymnasium import Space
from gymnasium.spaces import Box, Dict, MultiBinary, Tuple

from trpo_fast.gymnasium_spaces import described, described_actions
from trpo_fast.spaces import MASK_KEY, masks

NAMES_OF_PARTS = ("action_mask", "action_masks", "mask")
"""Keys under which environments hand a mask out as a part of their observation."""


class MaskFormat(masks.MaskFormat):
    """`trpo_fast.spaces.MaskFormat` of a Gymnasium space; ValueError for one whose actions are not supported."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(described_actions(space))


def mask_part(observation_space: Space[Any], action_space: Space[Any]) -> str | None:
    """Key of the part of a Dict that is an action mask: called so, and of its shape; None for none."""
    if isinstance(observation_space, Dict):
        for name in NAMES_OF_PARTS:
            if name in observation_space.spaces and _fits(observation_space[name], action_space):
                return name
    return None


def without_mask(observation_space: Space[Any], action_space: Space[Any]) -> tuple[Space[Any], bool]:
    """`observation_space` without the part of a Dict that is its action mask, by key and shape; whether it has one.

    Nothing but a mask is no observation: it stays.
    """
    if isinstance(observation_space, Dict) and MASK_KEY in observation_space.spaces:
        kept = [(key, part) for key, part in observation_space.spaces.items() if key != MASK_KEY]
        if kept and _fits(observation_space[MASK_KEY], action_space):
            return Dict(kept), True
    return observation_space, False


def warn_of_left_out_mask(observation_space: Space[Any], action_space: Space[Any], *, left_out: bool) -> None:
    """Say that the mask of the observations is obeyed and left out of them, or why a part that is called so is not."""
    whose = f"observation[{MASK_KEY!r}]"
    if left_out:
        warnings.warn(
            f"{whose}: obeyed as the action mask, and left out of what the networks see; to have it seen, and not "
            "obeyed: mask_in_observation='observe'",
            stacklevel=3,
        )
    elif isinstance(observation_space, Dict) and MASK_KEY in observation_space.spaces:
        part = observation_space[MASK_KEY]
        if not _fits(part, action_space):
            warnings.warn(
                f"{whose}: {part} is no mask of {action_space}; it stays a part of what the networks see, and nothing "
                "keeps the policy to it",
                stacklevel=3,
            )


def warn_of_unheeded_mask(observation_space: Space[Any], action_space: Space[Any]) -> None:
    """One warning for environments without masks whose observation has one: the policy sees it and may disobey."""
    name = mask_part(observation_space, action_space)
    if name is not None:
        setting = "mask_in_observation='obey' or " if name == MASK_KEY else ""
        warnings.warn(
            f"env: observation[{name!r}] looks like an action mask, and nothing keeps the policy to it; want "
            f"{setting}wrappers=['mask-in-observation'], which makes it info['action_mask'], or the part renamed",
            stacklevel=2,
        )


def _fits(part: Space[Any], action_space: Space[Any]) -> bool:
    """Whether `part` of an observation is a mask of the actions by its shape."""
    if not isinstance(part, Box | MultiBinary | Tuple):
        return False
    if isinstance(part, Tuple) and not all(isinstance(one, Box | MultiBinary) for one in part.spaces):
        return False
    return MaskFormat(action_space).fits(described(part))
