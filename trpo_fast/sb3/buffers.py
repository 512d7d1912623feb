"""Stable-Baselines3's rollout buffers, filled without the copies of copies that a step otherwise makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from torch import Tensor

if TYPE_CHECKING:
    _Base = RolloutBuffer
else:
    _Base = object


def quick(buffer: RolloutBuffer) -> RolloutBuffer:
    """`buffer` with its arrays, filled faster with the same numbers; one of the user's own class as it is."""
    kind = {RolloutBuffer: QuickRolloutBuffer, DictRolloutBuffer: QuickDictRolloutBuffer}.get(type(buffer))
    if kind is None:
        return buffer
    made: RolloutBuffer = object.__new__(kind)
    vars(made).update(vars(buffer))
    return made


class _Quick(_Base):
    """What the buffers share: an assignment copies, so that nothing is copied before it."""

    def add(
        self,
        obs: Any,
        action: NDArray[Any],
        reward: NDArray[np.float32],
        episode_start: NDArray[Any],
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Store a step of every environment; shapes and dtypes are Stable-Baselines3's."""
        at = self.pos
        self._add_observations(at, obs)
        self.actions[at] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[at] = reward
        self.episode_starts[at] = episode_start
        self.values[at] = value.cpu().numpy().reshape(-1)
        self.log_probs[at] = log_prob.cpu().numpy()
        self.pos = at + 1
        self.full = self.pos == self.buffer_size

    def _add_observations(self, at: int, given: Any) -> None:
        raise NotImplementedError

    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """Generalized advantage estimation (Schulman et al. 2016, eq. 16), to the bit what Stable-Baselines3 computes.

        Parameters
        ----------
        last_values : Tensor (n_envs,) or (n_envs, 1)
            Of the observations after the last step.
        dones : ndarray (n_envs,) bool
            Whether the last step ended its episode.
        """
        following = np.concatenate([self.values[1:], last_values.cpu().numpy().reshape(1, -1)])
        goes_on = np.float32(1) - np.concatenate([self.episode_starts[1:], dones.astype(np.float32)[np.newaxis]])
        deltas = self.rewards + self.gamma * following * goes_on - self.values
        decay = self.gamma * self.gae_lambda * goes_on
        advantage = np.zeros(self.n_envs, np.float32)
        for step in reversed(range(self.buffer_size)):
            advantage = self.advantages[step] = deltas[step] + decay[step] * advantage
        self.returns = self.advantages + self.values


class QuickRolloutBuffer(_Quick, RolloutBuffer):
    """Of observations that are one array."""

    def _add_observations(self, at: int, given: Any) -> None:
        self.observations[at] = _shaped(given, self.observation_space, (self.n_envs, *self.obs_shape))


class QuickDictRolloutBuffer(_Quick, DictRolloutBuffer):
    """Of observations that are several by name."""

    def _add_observations(self, at: int, given: Any) -> None:
        for key, stored in self.observations.items():
            stored[at] = _shaped(given[key], self.observation_space[key], (self.n_envs, *self.obs_shape[key]))


def _shaped(observations: NDArray[Any], space: spaces.Space[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return observations.reshape(shape) if isinstance(space, spaces.Discrete) else observations
