"""Alternating rounds of whole training in one process: what the comparisons with sb3-contrib share."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sb3_contrib
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

import trpo_fast
from bench.machine import describe, result_path, share_of_cores, write_figures
from trpo_fast.benchmarks import QUIET

# sb3-contrib's tuned settings for HalfCheetah.
ENVIRONMENTS, STEPS = 2, 1024
CG_ITERATIONS, CRITIC_EPOCHS, MINIBATCH = 25, 20, 128


class Side(Protocol):
    """One of those compared."""

    name: str

    def round(self, updates: int) -> Any:
        """Learn for `updates` updates; a NamedTuple of figures."""


def parser_for(module: str, documentation: str | None) -> argparse.ArgumentParser:
    """With the options of every comparison."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(documentation or "").splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of each (at least 7)")
    parser.add_argument("--updates", type=int, default=3, help="updates a round (at least 2)")
    parser.add_argument("--threads", type=int, default=1, help="of both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file (one for every number of threads)")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with their threads set, and a file of results where none was given."""
    arguments = parser.parse_args(argv)
    if arguments.rounds < 7 or arguments.updates < 2:
        parser.error("want --rounds of at least 7 and --updates of at least 2")
    if arguments.out is None:
        several = f"-{arguments.threads}-threads" if arguments.threads > 1 else ""
        case = getattr(arguments, "case", None)
        name = parser.prog.rpartition(".")[2] if case is None else f"dropin/{case}-{arguments.env.lower()}"
        arguments.out = result_path(name + several)
    torch.set_num_threads(arguments.threads)
    trpo_fast.set_num_threads(arguments.threads)
    return arguments


def sb3_model(kind: type[sb3_contrib.TRPO], make: str | Callable[[], Any], seed: int) -> Any:
    """A model of sb3-contrib's class, or one in its place, with the tuned settings; it logs to nowhere."""
    model = kind(
        "MlpPolicy",
        VecNormalize(make_vec_env(make, ENVIRONMENTS, seed=seed)),
        n_steps=STEPS,
        batch_size=MINIBATCH,
        cg_max_steps=CG_ITERATIONS,
        n_critic_updates=CRITIC_EPOCHS,
        device="cpu",
        seed=seed,
    )
    model.set_logger(configure(None, []))
    return model


def learn_sb3(model: Any, updates: int) -> float:
    """Seconds that `updates` more updates of an sb3 model take."""
    steps = updates * ENVIRONMENTS * STEPS
    return timed(lambda: model.learn(steps, log_interval=sys.maxsize, reset_num_timesteps=False))


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def check_update(kl: float, improvement: float, max_kl: float) -> None:
    """An error where an accepted update is not one."""
    if not (0 < kl <= max_kl and improvement > 0):
        raise AssertionError(f"an update went wrong, so its time means nothing: KL {kl}, improvement {improvement}")


def alternate(sides: Iterable[Side], rounds: int, updates: int, threads: int = 1) -> tuple[dict[str, list[Any]], float]:
    """`rounds` counted rounds of each side in turn after one that warms up; and the share of its cores that this had.

    `threads` that are busy at times leave cores idle at others, so that with several the share is measured between the
    rounds.
    """
    sides = list(sides)
    shares: list[float] = []  # 1 on a quiet machine
    counted: dict[str, list[Any]] = {side.name: [] for side in sides}
    for i in range(rounds + 1):
        for side in sides:
            wall, cpu = time.perf_counter(), time.process_time()
            one = side.round(updates)
            share = (time.process_time() - cpu) / (time.perf_counter() - wall)
            if threads > 1:
                share = share_of_cores(min(threads, len(os.sched_getaffinity(0))))
            if i:
                counted[side.name].append(one)
                shares.append(share)
    return counted, statistics.median(shares)


def medians(counted: dict[str, list[Any]]) -> dict[str, Any]:
    """The median of every figure, each side's."""
    return {
        name: type(rounds[0])(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        for name, rounds in counted.items()
    }


def write(
    out: Path, module: str, argv: Sequence[str] | None, counted: dict[str, list[Any]], cpu_share: float, **more: Any
) -> None:
    """The JSON file: how, where, `more`, and every round."""
    result = {
        "command": " ".join([f"python -m {module}", *(sys.argv[1:] if argv is None else argv)]),
        "machine": describe(),
        "cpu_share": cpu_share,
        "quiet": cpu_share >= QUIET,
        **more,
        "medians": {name: median._asdict() for name, median in medians(counted).items()},
        "rounds": {name: [one._asdict() for one in rounds] for name, rounds in counted.items()},
    }
    write_figures(out, result)
