"""Small worlds whose actions have parts."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple


def shot_space() -> Tuple:
    """Parameterized actions as in hybrid-shoot: which way, and two parameters of different sizes."""
    return Tuple([Discrete(3), Box(-1, 1, (2,)), Box(0, 10, (1,))])


def nested_space() -> Dict:
    """Every kind of part, nested."""
    return Dict(
        kick=Discrete(3, start=2),
        arm=Tuple([Box(-1, 1, (2,)), MultiBinary(2)]),
        power=Box(0, 10, (1,), np.float64),
        grid=MultiDiscrete([[2, 3]]),
    )


class Shot(gym.Env):
    """20 shots: at most 1 for each, for the side that is seen, less what the aim and the power are off."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = Box(-1, 1, (4,)), shot_space()

    def _look(self) -> np.ndarray:
        self.side, self.aim = int(self.np_random.integers(3)), self.np_random.uniform(-1, 1)
        return np.array([*np.eye(3)[self.side], self.aim], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.shots = 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in self.action_space, action
        side, (aim, _), (power,) = action
        off = abs(float(aim) - self.aim) + 0.1 * abs(float(power) - 5 - 3 * self.aim)
        self.shots += 1
        reward = float(side == self.side) - off
        return self._look(), reward, False, self.shots == 20, {}


class Nested(gym.Env):
    """Random observations and masks of all parts that have choices; raises where an action is not allowed."""

    def __init__(self, source: str | None = None) -> None:
        self.observation_space, self.action_space = Box(-1, 1, (3,)), nested_space()
        self.source = source
        if source == "method":
            self.action_masks = self._mask

    def _draw(self) -> np.ndarray:
        rng = self.np_random
        self.kicks = rng.random(3) < 0.4
        self.kicks[rng.integers(3)] = True
        self.flag = int(rng.integers(3))
        self.has_grid = bool(rng.integers(2))
        return rng.uniform(-1, 1, 3).astype(np.float32)

    def _mask(self) -> dict:
        grid = (np.array([1, 0], np.int8), np.array([0, 1, 1], np.int8))
        return {
            "kick": self.kicks.astype(np.int8),
            "arm": (None, np.array([self.flag, 2], np.int8)),
            "grid": grid if self.has_grid else None,
        }

    def _info(self) -> dict:
        return {"action_mask": self._mask()} if self.source == "info" else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.limit = 0, int(self.np_random.integers(1, 6))
        return self._draw(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in self.action_space, action
        if self.source is not None:
            assert self.kicks[action["kick"] - 2], (action, self.kicks)
            assert self.flag in (2, action["arm"][1][0]), (action, self.flag)
            assert not self.has_grid or (action["grid"][0, 0] == 0 and action["grid"][0, 1] > 0), action
        self.steps += 1
        ended = self.steps == self.limit
        reward = float(action["arm"][0].sum() + action["power"][0] / 10 + action["grid"].sum())
        observation = self._draw()
        if ended:  # a finished game allows nothing
            self.kicks[:] = False
        return observation, reward, ended and self.limit % 2 == 0, ended and self.limit % 2 == 1, self._info()
