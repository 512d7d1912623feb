"""The drop-in beside the class it replaces, in one process: ``train()``, ``learn()``, and where the rest of it goes.

    python -m bench.compare_dropin [--env HalfCheetah-v5] [--rounds 9] [--updates 3] [--threads 1] [--out FILE]
    python -m bench.compare_dropin --case NAME ...      one of bench.dropin_cases in its place

``trpo_fast.sb3.TRPO`` and ``sb3_contrib.TRPO`` are made with the same arguments, sb3-contrib's tuned settings for
HalfCheetah: 2 environments x 1,024 steps, 25 CG iterations, 20 critic epochs with minibatches of 128, VecNormalize.
Rounds alternate between the two, the first round of each is not counted, and medians are compared. After them come as
many rounds with a stopwatch around what a rollout calls.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import sb3_contrib
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize

import trpo_fast.sb3
from bench import dropin_cases
from bench.machine import describe
from bench.rounds import (
    ENVIRONMENTS,
    STEPS,
    alternate,
    check_update,
    learn_sb3,
    medians,
    parse,
    parser_for,
    sb3_model,
    timed,
    write,
)


class Round(NamedTuple):
    """One call of ``learn``; means over its updates."""

    train_seconds: float
    learn_seconds: float  # everything included
    accepted: float  # fraction of the updates whose line search succeeded


class Parts(NamedTuple):
    """Seconds of one update and its rollout, apart."""

    train: float
    simulator: float  # the environments' own step
    wrappers: float  # around it: gymnasium's, Monitor, DummyVecEnv, VecNormalize
    acting: float
    buffer: float  # adding to it, and advantages
    rest: float  # the loop, its callbacks, values at the ends of episodes


class Side:
    """A model of one of the classes, whose updates are timed and checked."""

    def __init__(self, name: str, kind: type[sb3_contrib.TRPO], env: str, seed: int) -> None:
        self.name = name
        self.trainings: list[tuple[float, bool]] = []  # seconds, accepted
        trainings = self.trainings

        class Timed(kind):  # type: ignore[misc, valid-type]
            def train(self) -> None:
                seconds = timed(super().train)
                logged = self.logger.name_to_value
                accepted = bool(logged["train/is_line_search_success"])
                if accepted:
                    check_update(logged["train/kl_divergence_loss"], logged["train/policy_objective"], self.target_kl)
                if (
                    isinstance(self, trpo_fast.sb3.TRPO)
                    and (self.update_engine, self.critic_engine) != ("compiled",) * 2
                ):
                    raise AssertionError(f"the update was not compiled: {self.update_reason or self.critic_reason}")
                trainings.append((seconds, accepted))

        self.model = sb3_model(Timed, env, seed)

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self.trainings.clear()
        seconds = learn_sb3(self.model, updates)
        trainings, accepted = zip(*self.trainings, strict=True)
        return Round(statistics.fmean(trainings), seconds / updates, statistics.fmean(accepted))


class Apart:
    """A side with a stopwatch around what its rollouts call."""

    def __init__(self, side: Side) -> None:
        self.name = side.name
        self._side = side
        self._simulator = type(side.model.get_env().unwrapped.envs[0].unwrapped)

    def round(self, updates: int) -> Parts:
        """Learn for `updates` updates."""
        spent: Counter[str] = Counter()
        with ExitStack() as stack:
            # On the classes: what sits on an object could change how it is served.
            for owner, method, part in (
                (self._simulator, "step", "simulator"),
                (VecNormalize, "step", "environments"),
                (ActorCriticPolicy, "__call__", "acting"),
                (type(self._side.model.rollout_buffer), "add", "buffer"),
                (type(self._side.model.rollout_buffer), "compute_returns_and_advantage", "buffer"),
            ):
                stack.enter_context(mock.patch.object(owner, method, _watched(getattr(owner, method), spent, part)))
            one = self._side.round(updates)
        simulator, environments, acting, buffer = (
            spent[part] / updates for part in ("simulator", "environments", "acting", "buffer")
        )
        rest = one.learn_seconds - one.train_seconds - environments - acting - buffer
        return Parts(one.train_seconds, simulator, environments - simulator, acting, buffer, rest)


def _watched(function: Callable[..., Any], spent: Counter[str], part: str) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - start  # type: ignore[assignment]

    return watched


def main(argv: list[str] | None = None) -> int:
    """Print the ratios and the parts, and write every round as JSON."""
    parser = parser_for("bench.compare_dropin", __doc__)
    parser.add_argument("--case", choices=dropin_cases.CASES, help="sb3-contrib's defaults with a kind of policy")
    arguments = parse(parser, argv)
    if arguments.case is not None:
        counted, cpu_share = dropin_cases.compare(
            *(arguments.case, arguments.env, arguments.rounds, arguments.updates, arguments.threads, arguments.seed)
        )
        write(arguments.out, "bench.compare_dropin", argv, counted, cpu_share, case=arguments.case)
        return 0
    sides = [
        Side(name, kind, arguments.env, arguments.seed)
        for name, kind in (("trpo_fast.sb3", trpo_fast.sb3.TRPO), ("sb3-contrib", sb3_contrib.TRPO))
    ]
    rounds, cpu_share = alternate(sides, arguments.rounds, arguments.updates, arguments.threads)
    apart, _ = alternate([Apart(side) for side in sides], arguments.rounds, arguments.updates, arguments.threads)
    ours, theirs = medians(rounds).values()
    train_ratio = theirs.train_seconds / ours.train_seconds
    learn_ratio = theirs.learn_seconds / ours.learn_seconds

    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''} each"
    isa = describe()["instruction_set"]
    print(f"{arguments.env}, {ENVIRONMENTS} x {STEPS}, {threads}, {isa}, medians of {arguments.rounds} rounds")
    for name, middle in medians(rounds).items():
        accepted = statistics.fmean(one.accepted for one in rounds[name])
        print(
            f"  {name:<14} train() {1e3 * middle.train_seconds:7.1f} ms   learn() {1e3 * middle.learn_seconds:7.1f} ms"
            f" an update   {accepted:.0%} of updates accepted"
        )
    print(f"  {'ratio':<14} train() {train_ratio:7.2f} x    learn() {learn_ratio:7.2f} x")
    print("  milliseconds of an update and its rollout, with the stopwatch on")
    print(f"  {'':<14}" + "".join(f"{field:>11}" for field in Parts._fields))
    for name, parts in medians(apart).items():
        print(f"  {name:<14}" + "".join(f"{1e3 * seconds:11.1f}" for seconds in parts))

    write(
        arguments.out,
        "bench.compare_dropin",
        argv,
        rounds,
        cpu_share,
        threads=threads,
        train_ratio=train_ratio,
        learn_ratio=learn_ratio,
        parts={name: parts._asdict() for name, parts in medians(apart).items()},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
