"""Tasks that an MLP cannot solve: CartPole without velocities, and, where popgym is installed, three of its tasks.

    trpo-fast train PositionsOnlyCartPole-v1 --import bench.memory_tasks --policy gru

popgym's own ids are registered by its import; ``MaskedBattleship-v0`` is its Battleship with the shots that were fired
already forbidden, as popgym has no masks.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

with contextlib.suppress(ImportError):
    import popgym  # noqa: F401


class PositionsOnly(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole that shows the cart's position and the pole's angle alone."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        self.observation_space = Box(space.low[[0, 2]], space.high[[0, 2]])

    def observation(self, observation: Any) -> Any:
        """Cart position and pole angle, (2,)."""
        return observation[[0, 2]]


class ShotsFiredForbidden(gym.Wrapper[Any, Any, Any, Any]):
    """popgym's Battleship with a mask: a square that was fired at is forbidden.

    An action is one number, row-major; it is seen with its result, as popgym asks for (`obs_requires_prev_action`).
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._nvec = env.action_space.nvec  # type: ignore[attr-defined]
        self.action_space = Discrete(int(np.prod(self._nvec)))
        self._free = np.ones(self.action_space.n, np.bool_)
        self.observation_space = gym.spaces.Tuple((env.observation_space, Discrete(self.action_space.n + 1)))

    def reset(self, **kwargs: Any) -> Any:
        """Begin with every square allowed."""
        self._free[:] = True
        seen, info = super().reset(**kwargs)
        return (seen, len(self._free)), info

    def step(self, action: Any) -> Any:
        """Fire at a square."""
        self._free[action] = False
        seen, *others = super().step(np.array(np.unravel_index(int(action), self._nvec)))
        return (seen, int(action)), *others

    def action_masks(self) -> Any:
        """Squares that were not fired at; all after the last one, which ends the episode."""
        return self._free.copy() if self._free.any() else np.ones_like(self._free)


def positions_only_cartpole(**kwargs: Any) -> gym.Env[Any, Any]:
    """CartPole-v1 without velocities."""
    return PositionsOnly(gym.make("CartPole-v1", **kwargs).unwrapped)


def masked_battleship(**kwargs: Any) -> gym.Env[Any, Any]:
    """popgym's BattleshipEasy with a mask."""
    from popgym.envs.battleship import BattleshipEasy

    return ShotsFiredForbidden(BattleshipEasy(**kwargs))


gym.register("PositionsOnlyCartPole-v1", positions_only_cartpole, max_episode_steps=500)
gym.register("MaskedBattleship-v0", masked_battleship)
