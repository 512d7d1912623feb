"""Environments, a policy and a critic that are simple enough to be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_fast.rollout.collector import Collector
from trpo_fast.rollout.environments import EnvironmentAdapter, SyncEnvironments


class Walk(gymnasium.Env):
    """A random walk pushed by the action: terminated beyond +-`edge`, truncated after `limit` steps.

    Observations are (position, steps in this episode, episode number), so every one is different.
    """

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, limit: int = 7, edge: float = 1.5) -> None:
        self.limit = limit
        self.edge = edge
        self.episode = -1
        self.history: list[tuple[float, bool, bool]] = []

    def _observe(self) -> np.ndarray:
        return np.array([self.position, self.steps, self.episode], np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        self.position = float(self.np_random.uniform(-0.5, 0.5))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        self.position += float(action[0]) + float(self.np_random.normal(0, 0.5))
        reward = 1.0 + self.position
        terminated, truncated = abs(self.position) > self.edge, self.steps >= self.limit
        self.history.append((reward, terminated, truncated))
        return self._observe(), reward, terminated, truncated, {"position": self.position}


def walks(
    num_envs: int = 4, mode: AutoresetMode = AutoresetMode.SAME_STEP, limit: int = 7, edge: float = 1.5
) -> EnvironmentAdapter:
    """`num_envs` walks; SAME_STEP are our own vector environment, NEXT_STEP gymnasium's."""
    env_fns: list[Callable[[], gymnasium.Env]] = [lambda: Walk(limit, edge)] * num_envs
    if mode is AutoresetMode.SAME_STEP:
        return EnvironmentAdapter(SyncEnvironments(env_fns))
    return EnvironmentAdapter(SyncVectorEnv(env_fns, autoreset_mode=mode))


class FollowingActor:
    """Acts on the normalized observation alone, so that its actions do not depend on how steps are counted."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.steps: list[int] = []

    def act(self, observations, step, normalized, actions, log_probs, env_actions, deterministic=False, first_row=0):
        if not np.isfinite(observations).all():
            raise FloatingPointError("a row is not finite")
        self.steps.append(step)
        mean, scale = self.options["observation_mean"], self.options["observation_scale"]
        clip = self.options["observation_clip"]
        normalized[...] = observations if mean is None else np.clip((observations - mean) * scale, -clip, clip)
        actions[...] = 0.3 * np.sin(5.0 * normalized[:, :1])
        log_probs[...] = actions[:, 0]
        env_actions[...] = actions
        if not np.isfinite(actions).all():
            raise FloatingPointError("an action is not finite")


class FollowingEngine:
    """As much of an engine as the collector uses."""

    def __init__(self, dtype: type = np.float64) -> None:
        self.dtype = np.dtype(dtype)

    def refresh(self):
        pass

    def actor(self, action_space, **options):
        self.last_actor = FollowingActor(options)
        return self.last_actor


def follow(adapter: EnvironmentAdapter, steps_per_env: int, seed: int = 3, dtype: type = np.float64, **options: Any):
    """Collector of a policy that follows its observations, with its actor as an attribute."""
    engine = FollowingEngine(dtype)
    collector = Collector(adapter, engine, steps_per_env=steps_per_env, seed=seed, **options)
    collector.toy_actor = engine.last_actor
    return collector


def value(observations: np.ndarray) -> np.ndarray:
    """A critic: any function of the observation that tells rows apart."""
    return (np.cos(observations[:, 0]) + 0.25 * observations[:, 1]).astype(observations.dtype)
