"""Environments with their action mask in the observation."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.rollout.toys import Gate

SPACES = [
    Discrete(5, start=-2),
    MultiDiscrete([2, 4, 3], start=[5, 0, -1]),
    MultiDiscrete([[2, 3], [1, 4]]),
    MultiBinary(4),
]


class Shown(Gate):
    """A Gate, which raises at a forbidden action, with its mask in the observation, between what else that has.

    Parameters
    ----------
    form : {"bits", "floats", "tuple", "choices"}
        Bytes of 0 and 1, float32, an array for each component, or 0, 1 and 2 for each item of a MultiBinary.
    source : str
        "observation", or "method" where the true mask is to be had there and the observation's forbids nothing.
    """

    def __init__(self, action_space: Space[Any], form: str = "bits", source: str = "observation") -> None:
        super().__init__(action_space, source, flat=True)
        self.form = form
        counts = [2] * int(np.prod(action_space.shape))
        if isinstance(action_space, Discrete):
            counts = [int(action_space.n)]
        elif isinstance(action_space, MultiDiscrete):
            counts = [int(n) for n in action_space.nvec.ravel()]
        self.shown: dict[str, Space[Any]] = {
            "bits": MultiBinary(sum(counts)),
            "floats": Box(0, 1, (sum(counts),), np.float32),
            "tuple": Tuple([Box(0, 1, (n,), np.int8) for n in counts]),
            "choices": Box(0, 2, (len(counts),), np.int8),
        }
        parts = Gate.observation_space.spaces
        self.observation_space = Dict(
            [("here", parts["here"]), ("action_mask", self.shown[form]), ("far", parts["far"])]
        )

    def _draw(self) -> dict[str, Any]:
        drawn = super()._draw()
        flat = self.canonical().astype(np.int8)
        mask: Any = flat if self.source == "observation" else np.ones_like(flat)
        if self.form == "floats":
            mask = mask.astype(np.float32)
        elif self.form == "tuple":
            mask = tuple(allowed.astype(np.int8) for allowed in self.allowed)
        elif self.form == "choices":
            mask = np.array([2 if allowed.all() else int(allowed[1]) for allowed in self.allowed], np.int8)
        return {**drawn, "action_mask": mask}

    def step(self, action: Any) -> Any:
        """A finished game allows nothing."""
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            mask = observation["action_mask"]
            nothing = tuple(map(np.zeros_like, mask)) if isinstance(mask, tuple) else np.zeros_like(mask)
            observation = {**observation, "action_mask": nothing}
        return observation, reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """All that goes on from step to step."""
        return {"allowed": list(self.allowed), "steps": self.steps, "limit": self.limit}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.allowed, self.steps, self.limit = list(state["allowed"]), state["steps"], state["limit"]


class Lenient(Shown):
    """Takes what its mask forbids, too."""

    def step(self, action: Any) -> Any:
        """As if everything were allowed."""
        self.allowed = [np.ones_like(allowed) for allowed in self.allowed]
        return super().step(action)
