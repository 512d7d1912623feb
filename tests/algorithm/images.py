"""A small environment of images, and modules that a user may bring."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Independent, Normal


class Halves(gymnasium.Env):
    """One half of an 8 x 8 image is bright; naming it (0 left, 1 right) is worth 1. Episodes of 6 images."""

    observation_space = spaces.Box(0, 255, (1, 8, 8), np.uint8)
    action_space = spaces.Discrete(2)

    def _show(self) -> np.ndarray:
        self._bright = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 60, (1, 8, 8), np.uint8)
        image[:, :, 4 * self._bright : 4 * self._bright + 4] += 150
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._step = 0
        return self._show(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._step += 1
        reward = float(int(action) == self._bright)
        return self._show(), reward, False, self._step == 6, {}


class OwnPolicy(nn.Module):
    """A Gaussian whose standard deviation depends on the state, as for Pendulum-v1 by default."""

    def __init__(self, inputs: int = 3, actions: int = 1, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.body = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 2 * actions))
        self.register_buffer("least", torch.tensor(-3.0))

    def forward(self, observations: torch.Tensor) -> Independent:
        mean, log_std = self.body(observations).chunk(2, -1)
        return Independent(Normal(mean, log_std.clamp_min(self.least).exp()), 1)


class OwnCritic(nn.Module):
    """A value function that is no MLPCritic."""

    def __init__(self, inputs: int = 3, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(6)
            self.body = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.body(observations).squeeze(-1)


class Catch(gymnasium.Env):
    """A dot falls through a gray image of 10 x 10; a paddle of three pixels in the last row catches it (1) or not (-1).

    Actions move the paddle to the left, not at all, or to the right.
    """

    observation_space = spaces.Box(0, 255, (10, 10), np.uint8)
    action_space = spaces.Discrete(3)

    def _show(self) -> np.ndarray:
        image = np.zeros((10, 10), np.uint8)
        image[self._row, self._dot] = 255
        image[9, max(0, self._paddle - 1) : self._paddle + 2] = 128
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._row = 0
        self._dot, self._paddle = map(int, self.np_random.integers(10, size=2))
        return self._show(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._paddle = min(max(self._paddle + int(action) - 1, 0), 9)
        self._row += 1
        if self._row < 9:
            return self._show(), 0.0, False, False, {}
        return self._show(), 1.0 if abs(self._paddle - self._dot) <= 1 else -1.0, True, False, {}
