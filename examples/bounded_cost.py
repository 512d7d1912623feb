"""A step of your own for `TRPO`: speed is rewarded, fuel is limited, and no step is accepted that would burn more.

python examples/bounded_cost.py [timesteps]        40,000 by default: five seconds
"""

import sys

import gymnasium as gym
import numpy as np
import torch

import trpo_fast
from trpo_fast.engines.native import NativeEngine

LIMIT = 0.5  # of fuel, per step


class Car(gym.Env[np.ndarray, np.ndarray]):
    """Thrust from -1 to 1 against drag; the reward is the speed."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    speed = 0.0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """At a random speed."""
        super().reset(seed=seed)
        self.speed = self.np_random.uniform(-0.1, 0.1)
        return np.array([self.speed], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Without an end of its own."""
        self.speed += 0.2 * (float(action[0]) - self.speed)
        return np.array([self.speed], np.float32), self.speed, False, False, {}


def car() -> gym.Env:
    """One that stops after 100 steps."""
    return gym.wrappers.TimeLimit(Car(), 100)


def fuel(actions: np.ndarray) -> np.ndarray:
    """What each action (B, 1) burns, (B,)."""
    return np.abs(actions[:, 0].clip(-1, 1))


class BoundedStep:
    """A trust-region step along which the fuel, estimated from the batch, stays within LIMIT."""

    def __init__(self) -> None:
        self.refused = self.saving = 0

    def __call__(self, engine: NativeEngine, inputs: trpo_fast.StepInputs) -> trpo_fast.TrustRegionReport:
        """Where too much is burnt already: a step that saves fuel. Elsewhere: one that gains speed, and is bounded."""
        batch = inputs.batch
        burnt = fuel(batch.actions)
        # A second engine over the same policy measures the fuel at whatever parameters the first one tries:
        # (1/N) sum (-fuel) (ratio - 1) is what a step saves.
        thrift = trpo_fast.make_engine(engine.policy)
        thrift.bind(trpo_fast.Batch(batch.observations, batch.actions, -burnt, batch.log_probs))

        def affordable(trial: trpo_fast.Trial) -> bool:
            saved, _ = thrift.evaluate()
            return float(burnt.mean()) - saved <= LIMIT

        if burnt.mean() > LIMIT:
            self.saving += 1
            return inputs.trust_region_step(thrift)
        report = inputs.trust_region_step(engine, accept=affordable)
        self.refused += report.status == trpo_fast.Status.CONDITION_VIOLATED
        return report


def drive(timesteps: int, step: BoundedStep | None) -> tuple[float, float]:
    """Train; the mean return of 20 episodes with the policy as it was learned, and the fuel of each step."""
    agent = trpo_fast.TRPO(car, num_envs=16, steps_per_env=64, log_std_init=-1.0, seed=0, step=step)
    agent.learn(timesteps)
    env = gym.vector.SyncVectorEnv([car] * 20)
    observations, _ = env.reset(seed=0)
    returns, burnt = np.zeros(20), []
    for _ in range(100):
        actions, _ = agent.predict(observations)
        burnt.append(fuel(actions).mean())
        observations, rewards, *_ = env.step(actions)
        returns += rewards
    env.close()
    agent.close()
    return float(returns.mean()), float(np.mean(burnt))


def main(timesteps: int) -> None:
    """With the limit, and without."""
    torch.set_num_threads(1)
    free, burnt = drive(timesteps, None)
    print(f"no limit:    return {free:5.1f}, fuel {burnt:.3f} a step")
    step = BoundedStep()
    bounded, burnt = drive(timesteps, step)
    print(f"limit {LIMIT}:   return {bounded:5.1f}, fuel {burnt:.3f} a step")
    print(f"steps that were refused: {step.refused}; that saved fuel: {step.saving}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
