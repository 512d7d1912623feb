"""TRPO with a policy of your own: a Beta distribution, whose samples never leave a bounded action space.

python examples/custom_policy.py [timesteps]        60,000 by default: fifteen seconds
"""

import sys

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import flatdim
from torch import nn
from torch.distributions import Beta, Independent

import trpo_fast


class BetaPolicy(nn.Module):
    """Actions in (0, 1); both concentrations are functions of the state, and above 1, so that there is one mode."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        size, actions = flatdim(observation_space), flatdim(action_space)
        self.body = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.head = nn.Linear(32, 2 * actions)

    def forward(self, observations: torch.Tensor) -> Independent:
        """One distribution for each row."""
        alpha, beta = (1 + nn.functional.softplus(self.head(self.body(observations)))).chunk(2, dim=-1)
        return Independent(Beta(alpha, beta), 1)


def pendulum() -> gym.Env:
    """Pendulum, whose torque from -2 to 2 the agent gives as a number from 0 to 1."""
    return gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(0), np.float32(1))


def main(timesteps: int) -> None:
    """Train, and say what became better."""
    torch.set_num_threads(1)
    agent = trpo_fast.TRPO(pendulum, policy=BetaPolicy, num_envs=16, gamma=0.9, seed=1)
    print(f"{agent.engine.name} engine: {agent.engine.reason}")
    before = agent.evaluate(episodes=20, seed=0).mean
    agent.learn(timesteps)
    after = agent.evaluate(episodes=20, seed=0).mean
    report = agent.last_update
    assert report is not None and report.kl <= agent.config.max_kl
    print(f"last update: {report.status.name}, KL {report.kl:.4f}, {report.cg_iterations} Fisher products")
    print(f"mean return {before:.0f} before, {after:.0f} after {agent.num_timesteps:,} steps")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
