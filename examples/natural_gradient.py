"""A natural policy gradient written by hand: your loop, your advantages, the compiled core for everything after them.

python examples/natural_gradient.py [iterations]        12 by default: five seconds
"""

import sys

import gymnasium as gym
import numpy as np
import torch

import trpo_fast
from trpo_fast.solvers.engine import Engine

STEPS, GAMMA = 2_000, 0.99
DIRECTION = trpo_fast.DirectionSettings(damping=0.1, cg_iterations=10)
STEP = trpo_fast.StepSettings(max_kl=0.02, line_search=False)  # with the search that is on by default it is TRPO


def rewards_to_go(rewards: list[float]) -> list[float]:
    """Discounted sums of the rewards from each step of one episode on."""
    sums, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + GAMMA * total
        sums.append(total)
    return sums[::-1]


def play(env: gym.Env, policy: trpo_fast.MLPPolicy) -> tuple[trpo_fast.Batch, float]:
    """Whole episodes of at least STEPS steps, and their mean return."""
    observations, actions, returns = [], [], []
    targets: list[float] = []
    times: list[int] = []
    while len(targets) < STEPS:
        observation, _ = env.reset()
        rewards: list[float] = []
        done = False
        while not done:
            with torch.no_grad():
                action = int(policy(torch.as_tensor(observation)[None]).sample())
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(float(reward))
            done = terminated or truncated
        targets += rewards_to_go(rewards)
        times += range(len(rewards))
        returns.append(sum(rewards))
    # The baseline: a parabola in time through all rewards-to-go.
    target, time = np.array(targets), np.array(times) / 500
    advantages = target - np.polyval(np.polyfit(time, target, 2), time)
    advantages /= advantages.std()
    return trpo_fast.Batch(np.array(observations), np.array(actions), advantages), float(np.mean(returns))


def improve(engine: Engine, batch: trpo_fast.Batch) -> trpo_fast.LineSearchResult:
    """One step of the natural gradient, part by part; `trpo_fast.trust_region_step` is these parts in a row."""
    engine.bind(batch)
    direction = trpo_fast.find_direction(engine, settings=DIRECTION)  # (F + 0.1 I) x = g
    length = trpo_fast.step_length(direction, STEP)  # x'Fx at no further product
    if length is None:
        sys.exit(f"no direction: {direction.status.name}")
    return trpo_fast.try_step(engine, length * direction.x, STEP)


def main(iterations: int) -> None:
    """Learn CartPole."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    policy = trpo_fast.MLPPolicy(env.observation_space, env.action_space, hidden_sizes=(32, 32))
    engine = trpo_fast.make_engine(policy)
    for iteration in range(iterations):
        batch, mean_return = play(env, policy)
        result = improve(engine, batch)
        assert result.kl < 2 * STEP.max_kl  # what the quadratic model promises is 1, and nothing enforces it
        print(f"{iteration:3d}  return {mean_return:5.1f}  {result.status.name}  KL {result.kl:.4f}", flush=True)
    print(f"mean return at last: {play(env, policy)[1]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
