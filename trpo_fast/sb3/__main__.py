"""sb3-contrib's TRPO and the drop-in by turns on one environment: ``python -m trpo_fast.sb3 [--env ID]``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import sb3_contrib
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import trpo_fast.sb3

ENVIRONMENTS, STEPS = 2, 1024


def make_model(kind: type[sb3_contrib.TRPO], env: str) -> sb3_contrib.TRPO:
    """With sb3-contrib's tuned settings for HalfCheetah; the class is all that differs."""
    return kind(
        "MlpPolicy",
        VecNormalize(make_vec_env(env, ENVIRONMENTS, seed=0)),
        n_steps=STEPS,
        batch_size=128,
        cg_max_steps=25,
        n_critic_updates=20,
        device="cpu",
        seed=0,
    )


def main(argv: list[str] | None = None) -> int:
    """Train with each in turn and print the ratio of their speeds."""
    parser = argparse.ArgumentParser(
        prog="python -m trpo_fast.sb3",
        description="Train with sb3-contrib's TRPO and with trpo_fast.sb3.TRPO by turns, and print the ratio.",
    )
    parser.add_argument("--env", default="HalfCheetah-v5", help="id of an environment (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="counted ones; their median is printed")
    parser.add_argument("--updates", type=int, default=2, help="updates in a round")
    arguments = parser.parse_args(argv)
    for name in ("rounds", "updates"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: {getattr(arguments, name)} given; want at least 1")

    torch.set_num_threads(1)
    trpo_fast.set_num_threads(1)
    models = {
        name: make_model(kind, arguments.env)
        for name, kind in (("sb3_contrib.TRPO", sb3_contrib.TRPO), ("trpo_fast.sb3.TRPO", trpo_fast.sb3.TRPO))
    }
    steps = arguments.updates * ENVIRONMENTS * STEPS
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False, log_interval=sys.maxsize)
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: steps / statistics.median(all_[1:]) for name, all_ in seconds.items()}  # the first warms up
    print(f"{arguments.env}, one thread each, median of {arguments.rounds} alternating rounds")
    for name, speed in speeds.items():
        print(f"  {name:<20}{speed:8,.0f} steps/s")
    theirs, ours = speeds.values()
    print(f"  ratio{ours / theirs:23.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
