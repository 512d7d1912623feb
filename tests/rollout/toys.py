"""Environments, a policy and a critic that are simple enough to be followed by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from trpo_fast.environments.base import Environments
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.vector import VectorAdapter
from trpo_fast.gymnasium_spaces import action_layout
from trpo_fast.rollout.collector import Collector


def make_environments(env: Any, num_envs: int = 8, **recipe: Any) -> Environments:
    """Copies of an environment, by a recipe."""
    return EnvironmentRecipe(env, **recipe).make(num_envs)


def copies_of(environments: Environments) -> list[gymnasium.Env]:
    """The single environments behind `environments` of this process."""
    own = getattr(environments, "copies", None)
    return environments._env.envs if own is None else own.envs


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


class Parts(Walk):
    """The same walk, seen in parts."""

    observation_space = gymnasium.spaces.Dict(
        {
            "moved": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "count": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(9), gymnasium.spaces.MultiBinary(2)]),
        }
    )

    def _observe(self):
        position, steps, episode = super()._observe()
        signs = np.array([position > 0, episode % 2], np.int8)
        return {"moved": np.array([position, episode]), "count": (int(steps), signs)}


def pushes(adapter, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, adapter.action_shape).astype(adapter.action_dtype) for _ in range(steps)]


def play(adapter, steps=60):
    """Everything that happens in `steps` steps, copied."""
    observations = [adapter.reset(11).copy()]
    rewards, flags, finals = [], [], []
    for t, action in enumerate(pushes(adapter, steps)):
        result = adapter.step(action)
        observations.append(result.observations.copy())
        rewards.append(result.rewards.copy())
        flags.append(np.stack([result.terminated, result.truncated]))
        if result.final_observations is not None:
            rows, indices = result.final_observations
            finals.extend((t, int(i), tuple(row)) for i, row in zip(indices, rows, strict=True))
    adapter.close()
    return np.array(observations), np.array(rewards), np.array(flags), finals


class Ending(VectorEnv):
    """Two environments that are truncated at every step; `final` is what the infos hold."""

    num_envs = 2
    single_observation_space = gymnasium.spaces.Box(-9, 9, (2, 2), np.float32)
    single_action_space = gymnasium.spaces.Box(-1, 1, (2, 1), np.float64)

    def __init__(self, final=None, mode=AutoresetMode.SAME_STEP):
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.final = final or {}

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 2, 2), np.float32), {}

    def step(self, actions):
        assert actions in self.action_space
        terminated = np.array([True, False])
        return np.zeros((2, 2, 2), np.float32), np.zeros(2), terminated, np.ones(2, bool), self.final


def walks(
    num_envs: int = 4, mode: AutoresetMode = AutoresetMode.SAME_STEP, limit: int = 7, edge: float = 1.5
) -> Environments:
    """`num_envs` walks; SAME_STEP are our own vector environment, NEXT_STEP gymnasium's."""
    if mode is AutoresetMode.SAME_STEP:
        return make_environments(Walk, num_envs, env_kwargs={"limit": limit, "edge": edge})
    return VectorAdapter(SyncVectorEnv([lambda: Walk(limit, edge)] * num_envs, autoreset_mode=mode))


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

    rows_independent = True
    recurrent = False

    def __init__(self, dtype: type = np.float64) -> None:
        self.dtype = np.dtype(dtype)

    def refresh(self):
        pass

    def actor_plan(self, action_space, **options):
        return None

    def actor(self, action_space, **options):
        self.last_actor = FollowingActor(options)
        return self.last_actor


def follow(adapter: Environments, steps_per_env: int, seed: int = 3, dtype: type = np.float64, **options: Any):
    """Collector of a policy that follows its observations, with its actor as an attribute."""
    engine = FollowingEngine(dtype)
    collector = Collector(adapter, engine, steps_per_env=steps_per_env, seed=seed, **options)
    collector.toy_actor = engine.last_actor
    return collector


def value(observations: np.ndarray) -> np.ndarray:
    """A critic: any function of the observation that tells rows apart."""
    return (np.cos(observations[:, 0]) + 0.25 * observations[:, 1]).astype(observations.dtype)


class Gate(gymnasium.Env):
    """Lets only masked actions through: any other raises. A new mask after every step; episodes of 1 to 5 steps.

    Parameters
    ----------
    action_space : Discrete, MultiDiscrete or MultiBinary
    source : {"method", "info", None}
        Where the mask is to be found: ``action_masks()``, ``info["action_mask"]``, or nowhere, and then it allows
        everything; any other string leaves that to a subclass.
    flat : bool
        The mask as one flat array instead of Gymnasium's own form.
    """

    observation_space = gymnasium.spaces.Dict(
        here=gymnasium.spaces.Discrete(3, start=1), far=gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    )

    def __init__(self, action_space: gymnasium.Space, source: str | None = "method", flat: bool = False) -> None:
        self.action_space = action_space
        self.source, self.flat = source, flat
        if source == "method":
            self.action_masks = self._mask  # on the object, so that the class can do without
        self.passed = 0

    def _draw(self) -> dict:
        space, rng = self.action_space, self.np_random
        if isinstance(space, gymnasium.spaces.MultiBinary):
            self.allowed = [np.array([m != 1, m != 0]) for m in rng.integers(0, 3, size=space.shape).ravel()]
        else:
            counts = [space.n] if isinstance(space, gymnasium.spaces.Discrete) else space.nvec.ravel()
            self.allowed = [rng.random(n) < 0.4 for n in counts]
            for allowed in self.allowed:
                allowed[rng.integers(len(allowed))] = True
        here = int(rng.integers(1, 4))
        return {"here": here, "far": rng.uniform(-1, 1, 2).astype(np.float32)}

    def canonical(self) -> np.ndarray:
        """The mask as the engines get it."""
        return np.concatenate(self.allowed)

    def _mask(self) -> Any:
        space = self.action_space
        if self.flat or isinstance(space, gymnasium.spaces.Discrete):
            return self.canonical()
        if isinstance(space, gymnasium.spaces.MultiBinary):
            choices = [2 if allowed.all() else int(allowed[1]) for allowed in self.allowed]
            return np.array(choices, np.int8).reshape(space.shape)
        masks = iter([allowed.astype(np.int8) for allowed in self.allowed])
        if space.nvec.ndim == 1:
            return tuple(masks)
        return tuple(tuple(next(masks) for _ in row) for row in space.nvec)

    def _info(self) -> dict:
        if self.source != "info":
            return {}
        mask = self._mask()
        return {"action_mask": mask if isinstance(mask, tuple) else mask.astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.steps, self.limit = 0, int(self.np_random.integers(1, 6))
        return self._draw(), self._info()

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        assert action in self.action_space, f"{action!r} is not in {self.action_space}"
        starts = np.zeros(1, int)
        if not isinstance(self.action_space, gymnasium.spaces.MultiBinary):
            starts = np.ravel(self.action_space.start)
        if self.source is not None:
            for choice, allowed in zip(np.ravel(action) - starts, self.allowed, strict=True):
                assert allowed[choice], f"{action!r} is not allowed by {self.allowed}"
        self.passed += 1
        self.steps += 1
        ended = self.steps == self.limit
        observation = self._draw()
        if ended:  # a finished game allows nothing
            self.allowed = [np.zeros_like(allowed) for allowed in self.allowed]
        terminated, truncated = ended and self.limit % 2 == 0, ended and self.limit % 2 == 1
        return observation, float(np.sum(action)), terminated, truncated, self._info()


class LuckyEngine:
    """Draws uniformly from what is allowed, for any discrete space, as actors do."""

    rows_independent = False
    recurrent = False
    dtype = np.dtype(np.float32)

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def refresh(self):
        pass

    def actor_plan(self, action_space, **options):
        return None

    def actor(self, action_space, **options):
        self.layout = action_layout(action_space)
        return self

    def act(
        self,
        observations,
        step,
        normalized,
        actions,
        log_probs,
        env_actions,
        deterministic=False,
        first_row=0,
        action_masks=None,
    ):
        counts = self.layout.nvec or (2,) * self.layout.outputs
        if action_masks is None:
            action_masks = np.ones((len(observations), sum(counts)), bool)
        assert action_masks.dtype == np.bool_
        assert action_masks.shape == (len(observations), sum(counts))
        assert action_masks.flags.c_contiguous
        normalized[...] = observations
        log_probs[...] = 0
        choices = actions.reshape(len(actions), -1)
        for component, block in enumerate(np.split(action_masks, np.cumsum(counts)[:-1], axis=1)):
            choices[:, component] = (block * self.rng.random(block.shape)).argmax(1)
        np.add(actions, self.layout.start if actions.ndim > 1 else self.layout.start[0], out=env_actions)
