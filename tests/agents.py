"""Agents over every kind of space, whose policy and statistics are random instead of learned: made in milliseconds."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.algorithm.test_every_space import Anything
from tests.discretes import discrete
from trpo_fast import TRPO
from trpo_fast.environments.observations import ObservationLayout

ACTIONS = [
    Box(np.array([-1.0, -0.1, -np.inf], np.float32), np.array([1.0, 0.2, 0.0], np.float32)),
    Box(-0.3, 0.3, (2, 2), np.float64),
    Box(-0.3, 0.3, (2,), np.float16),
    Box(-0.5, 0.5, (), np.float32),
    Box(np.array([0.0, -0.1, -1.0], np.float32), np.array([200.0, 0.1, 1.0], np.float32)),  # the affine map by default
    Box(8, 40, (2, 1), np.float64),
    Box(-5, 90, (2,), np.float16),
    Discrete(5, start=-2),
    discrete(3),
    MultiDiscrete([2, 4, 3], start=[5, 0, -1]),
    MultiDiscrete([[2, 3], [1, 4]], dtype=np.int32),
    MultiBinary(3),
    MultiBinary((2, 2)),
]
OBSERVATIONS = [
    Box(-np.inf, np.inf, (5,), np.float64),
    Box(-1, 1, (2, 3), np.float32),
    Box(-1, 1, (3,), np.float16),
    Box(0, 255, (2, 2, 3), np.uint8),  # too small for a CNN
    Box(-5, 5, (3,), np.int64),
    Box(0, 1, (), bool),
    Discrete(4, start=-1),
    MultiDiscrete([2, 3], start=[1, 2]),
    MultiBinary((2, 2)),
    Dict(far=Box(-1, 1, (2,)), here=Tuple([Discrete(3), MultiBinary(2), Box(0, 255, (2, 2, 1), np.uint8)])),
]
PLAIN = Box(-2, 2, (4,), np.float32)
CHOICES = Discrete(3)
SHORT: dict[str, Any] = {  # trainings of moments, which begin alike whatever their length
    **{"seed": 5, "warm_up_steps": 4, "critic_batch_size": 32, "critic_epochs": 1, "preset": None},
    **{"hidden_sizes": (8,), "critic_hidden_sizes": (8,), "max_kl_schedule": "constant"},
}


def shows_images(space: Any) -> bool:
    """Whether agents for the environments of tests get a CNN, for which the sizes of an MLP are refused."""
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) > 1 and space.dtype in (np.uint8, np.bool_)


def random_agent(
    observation_space: gymnasium.Space = PLAIN, action_space: gymnasium.Space = CHOICES, **settings: Any
) -> TRPO:
    """An agent with seed 3 whose actions differ from observation to observation; on the CPU, whatever is there."""
    convolves = settings.get("policy") == "cnn" or shows_images(observation_space)
    small = {"device": "cpu"} if convolves else {"hidden_sizes": (8, 6), "critic_hidden_sizes": (4,)}
    settings = {"num_envs": 2, **small, "seed": 3} | settings
    agent = TRPO(lambda: Anything(observation_space, action_space), **settings)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            # Small biases, so that no choice is always the best; convolutions over bright pixels need little weight.
            size = 0.7 if parameter.ndim == 2 else 0.1
            parameter.copy_(torch.from_numpy(size * rng.normal(size=parameter.shape)))
    if agent.observation_normalizer is not None:
        rows, _ = ObservationLayout(observation_space).flatten_any(observations_of(agent, 50)[1])
        agent.observation_normalizer.merge(rows)
    return agent


def observations_of(agent: TRPO, count: int) -> tuple[list[Any], Any]:
    """Samples of the agent's observation space, and the batch that a vector environment would make of them."""
    space = agent.observation_space
    space.seed(7)
    samples = [space.sample() for _ in range(count)]
    batch = gymnasium.vector.utils.concatenate(space, samples, gymnasium.vector.utils.create_empty_array(space, count))
    return samples, batch
