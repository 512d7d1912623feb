"""Training beside sb3-contrib in one process: whole updates and steps per second, one thread each.

    python -m bench.compare_sb3 [--env HalfCheetah-v5] [--rounds 9] [--updates 2] [--out FILE]

Both train with sb3-contrib's tuned settings for HalfCheetah: 2 environments x 1,024 steps, 25 CG iterations, 20
critic epochs with minibatches of 128, normalized observations and rewards. Rounds alternate between the two, the
first round of each is not counted, and medians are compared. The critic is fitted in the same thread unless
--overlap-critic is given, which gives trpo_fast a second core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import sb3_contrib
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

import trpo_fast
from bench.machine import describe
from trpo_fast.benchmarks import QUIET

ENVIRONMENTS, STEPS = 2, 1024
CG_ITERATIONS, CRITIC_EPOCHS, MINIBATCH = 25, 20, 128
UPDATE_TIMINGS = ("gradient", "solve", "line_search", "critic_fit")
RESULT = Path(__file__).with_name("results") / "compare_sb3.json"


class Round(NamedTuple):
    """One call of ``learn``."""

    update_seconds: float  # mean over the round's updates: gradient + solve + line search + critic fit
    steps_per_second: float  # everything included
    accepted: float  # fraction of the updates whose line search succeeded


class Ours:
    """trpo_fast with sb3-contrib's settings."""

    name = "trpo_fast"

    def __init__(self, env: str, seed: int, overlap_critic: bool) -> None:
        dimensions = _action_dimensions(env)
        self.agent = trpo_fast.TRPO(
            env,
            num_envs=ENVIRONMENTS,
            vectorization="sync",
            seed=seed,
            steps_per_env=STEPS,
            cg_iterations=CG_ITERATIONS,
            critic_epochs=CRITIC_EPOCHS,
            critic_batch_size=MINIBATCH,
            # sb3-contrib averages KL over action dimensions: its 0.01 and 0.1 for the joint distribution.
            max_kl=0.01 * dimensions,
            damping=0.1 * dimensions,
            step_curvature="damped",
            overlap_critic=overlap_critic,
        )
        self.reports: list[Any] = []

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self.reports.clear()
        steps = updates * ENVIRONMENTS * STEPS
        seconds = _timed(
            lambda: self.agent.learn(
                steps,
                callback=lambda agent: self.reports.append(agent.last_update),
                reset_num_timesteps=False,
            )
        )
        accepted = [report for report in self.reports if report.status == trpo_fast.Status.SUCCESS]
        for report in accepted:
            _check(report.kl, report.improvement, self.agent.config.max_kl)
        timings = [sum(report.timings[key] for key in UPDATE_TIMINGS) for report in self.reports]
        return Round(statistics.fmean(timings), steps / seconds, len(accepted) / updates)


class _TimedTRPO(sb3_contrib.TRPO):
    trainings: list[tuple[float, bool]]  # seconds, accepted

    def train(self) -> None:
        seconds = _timed(super().train)
        logged = self.logger.name_to_value
        accepted = bool(logged["train/is_line_search_success"])
        if accepted:
            _check(logged["train/kl_divergence_loss"], logged["train/policy_objective"], self.target_kl)
        self.trainings.append((seconds, accepted))


class Theirs:
    """sb3-contrib's TRPO."""

    name = "sb3-contrib"

    def __init__(self, env: str, seed: int) -> None:
        self.model = _TimedTRPO(
            "MlpPolicy",
            VecNormalize(make_vec_env(env, ENVIRONMENTS, seed=seed)),
            n_steps=STEPS,
            batch_size=MINIBATCH,
            cg_max_steps=CG_ITERATIONS,
            n_critic_updates=CRITIC_EPOCHS,
            device="cpu",
            seed=seed,
        )
        self.model.set_logger(configure(None, []))

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self.model.trainings = []
        steps = updates * ENVIRONMENTS * STEPS
        seconds = _timed(lambda: self.model.learn(steps, log_interval=sys.maxsize, reset_num_timesteps=False))
        trainings, accepted = zip(*self.model.trainings, strict=True)
        return Round(statistics.fmean(trainings), steps / seconds, statistics.fmean(accepted))


def _check(kl: float, improvement: float, max_kl: float) -> None:
    if not (0 < kl <= max_kl and improvement > 0):
        raise AssertionError(f"an update went wrong, so its time means nothing: KL {kl}, improvement {improvement}")


def _action_dimensions(env: str) -> int:
    made = gym.make(env)
    shape = made.action_space.shape
    made.close()
    if not shape:
        raise SystemExit(f"--env: {env} given; want one with continuous actions")
    return int(shape[0])


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Print the two ratios and write every round as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare_sb3", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of each (at least 7)")
    parser.add_argument("--updates", type=int, default=2, help="updates a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overlap-critic", action="store_true", help="fit trpo_fast's critic on a second core")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 7 or arguments.updates < 1:
        parser.error("want --rounds of at least 7 and --updates of at least 1")

    torch.set_num_threads(1)
    trpo_fast.set_num_threads(1)
    sides = (Ours(arguments.env, arguments.seed, arguments.overlap_critic), Theirs(arguments.env, arguments.seed))
    shares: list[float] = []  # of a core that each counted round had; one thread, so 1 on a quiet machine
    rounds: dict[str, list[Round]] = {side.name: [] for side in sides}
    for i in range(arguments.rounds + 1):
        for side in sides:
            wall, cpu = time.perf_counter(), time.process_time()
            one = side.round(arguments.updates)
            if i:  # the first warms up
                rounds[side.name].append(one)
                shares.append((time.process_time() - cpu) / (time.perf_counter() - wall))

    medians = {
        name: Round(*(statistics.median(column) for column in zip(*counted, strict=True)))
        for name, counted in rounds.items()
    }
    ours, theirs = medians["trpo_fast"], medians["sb3-contrib"]
    update_ratio = theirs.update_seconds / ours.update_seconds
    speed_ratio = ours.steps_per_second / theirs.steps_per_second
    machine = describe()
    threads = "one thread each" + (", trpo_fast's critic on a second core" if arguments.overlap_critic else "")
    isa = machine["instruction_set"]
    print(f"{arguments.env}, {ENVIRONMENTS} x {STEPS}, {threads}, {isa}, medians of {arguments.rounds} rounds")
    for name, median in medians.items():
        accepted = statistics.fmean(one.accepted for one in rounds[name])
        print(
            f"  {name:<12} update {1e3 * median.update_seconds:7.1f} ms   {median.steps_per_second:8,.0f} steps/s"
            f"   {accepted:.0%} of updates accepted"
        )
    print(f"  ratio        update {update_ratio:7.2f} x    {speed_ratio:8.2f} x")

    cpu_share = statistics.median(shares)
    if cpu_share < QUIET:
        print(f"  NOT TO BE QUOTED: the machine was busy, these processes had {cpu_share:.0%} of a core")

    result = {
        "command": " ".join(["python -m bench.compare_sb3", *(sys.argv[1:] if argv is None else argv)]),
        "threads": threads,
        "machine": machine,
        "cpu_share": cpu_share,
        "quiet": cpu_share >= QUIET,
        "update_ratio": update_ratio,
        "steps_per_second_ratio": speed_ratio,
        "medians": {name: median._asdict() for name, median in medians.items()},
        "rounds": {name: [one._asdict() for one in counted] for name, counted in rounds.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"  written to {os.path.relpath(arguments.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
