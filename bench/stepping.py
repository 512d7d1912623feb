"""Stepping by worker processes beside what it replaces and what it could reach.

    python -m bench.stepping [--against REV_OR_PATH] [--env HalfCheetah-v5 Humanoid-v5] [--rounds 11] [--out FILE]
    python -m bench.stepping --glue [--against REV_OR_PATH] [--rounds 11] [--out FILE]
    python -m bench.stepping --envpool [--rounds 11] [--out FILE]        (bench.envpool_stepping)

For each environment, 8 copies, the defaults else, medians of alternating rounds and of their ratios:

- ``learn()`` with workers against ``learn()`` in one process of another build, which --against names: a revision, which
  is built in a temporary folder, or a checkout that is built already;
- the rollout phase alone, while no critic is fitted beside it, against as many processes that step the simulator and do
  nothing else. Both simulate the same: actions of a standard normal, as a policy of `log_std_init=0` begins, which this
  side's trust region of nothing keeps there. (What a policy does changes the time of a step: Humanoid's by a tenth.) A
  round of training has as many steps as the bare processes take in one of theirs, in whole updates: after the seconds
  in which others worked, the first tenths of one run on cold caches, and what is shorter has a larger part of that;
- the same against bare processes that wait for each other after the steps of a rollout, as workers do: on a machine
  whose cores have other work, the slower one decides there, and the rates of two that never wait add up to more;
- a worker and its parent on one core against one process on one core.

And how long it takes to make 256 copies, and what memory they take, shared out to two workers and in one process. Every
side is a process of its own that waits while others work. The two on one core have to agree bit for bit, or the run is
an error.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.builds import BEFORE, ROOT, Worker, checkout, revision
from bench.machine import describe, share_of_cores, write_figures
from trpo_fast._core.library import usable_cores
from trpo_fast.benchmarks import QUIET

SIDE = Path(__file__).with_name("stepping_side.py")
# Of both builds, whose defaults differ; one without a setting does what is said here.
PINNED = {
    **{"log_std_init": 0.0, "action_map": "clip", "gae_lambda": 0.95, "critic_gae_lambda": 0.95},
    **{"max_kl": 0.02, "max_kl_schedule": "constant", "relative_damping": 0.0, "cg_iterations": 10},
}
RESULT = Path(__file__).with_name("results") / "stepping.json"
COPIES = 8
ROLLOUT = 2048  # steps of all copies, the default
MANY = 256


class Timed:
    """What has rounds."""

    rounds: list[dict[str, Any]]

    def median(self, figure: str) -> float:
        """Of all rounds."""
        return statistics.median(one[figure] for one in self.rounds)


class Side(Timed, Worker):
    """One of those compared: a process that does a round when it is asked to."""

    def __init__(self, stack: ExitStack, checkout: Path, *, one_core: bool = False, **task: Any) -> None:
        super().__init__(stack, SIDE, checkout)
        self.rounds: list[dict[str, Any]] = []
        if task["kind"] in ("train", "glue"):
            task["checkout"] = str(checkout)
        self.ask({"one_core": one_core, **task})

    def begin(self) -> None:
        """Start a round."""
        self.ask("round")

    def round(self) -> None:
        """A whole round."""
        self.begin()
        self.rounds.append(self.answer())


class Bare(Timed):
    """Processes that only step, all at the same time: for `seconds`, or `at_least` so many steps of each."""

    def __init__(self, stack: ExitStack, env: str, processes: int, *, seconds: float = 0.0, at_least: int = 0) -> None:
        share = COPIES // processes
        task: dict[str, Any] = {"kind": "bare", "env": env, "copies": share, "seconds": seconds, "at_least": at_least}
        self.rounds: list[dict[str, Any]] = []
        self._sides = [Side(stack, ROOT, **task, first=share * i) for i in range(processes)]
        for side in self._sides:
            side.answer()

    def round(self) -> None:
        """A whole round: what the processes reach, each for itself."""
        for side in self._sides:
            side.begin()
        self.rounds.append({"steps_per_second": sum(side.answer()["steps_per_second"] for side in self._sides)})


class Meeting(Bare):
    """The same, and after the steps of a rollout all wait for the slowest."""

    def __init__(self, stack: ExitStack, env: str, processes: int, steps: int) -> None:
        super().__init__(stack, env, processes, at_least=ROLLOUT // processes)
        self._rollouts = -(-steps // ROLLOUT)

    def round(self) -> None:
        """A whole round."""
        began = time.perf_counter()
        for _ in range(self._rollouts):
            for side in self._sides:
                side.begin()
            for side in self._sides:
                side.answer()
        self.rounds.append({"steps_per_second": self._rollouts * ROLLOUT / (time.perf_counter() - began)})


def ratio(one: Timed, other: Timed, figure: str = "steps_per_second", others: str = "") -> float:
    """Median of the ratios of rounds that followed each other: a machine's slower minutes fall on both."""
    rounds = zip(one.rounds, other.rounds, strict=True)
    return statistics.median(a[figure] / b[others or figure] for a, b in rounds)


def compare(env: str, against: Path, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """Medians, ratios and all rounds of one environment."""
    workers = min(COPIES, usable_cores())
    with ExitStack() as stack:
        bare = Bare(stack, env, workers, seconds=seconds)
        bare.round()
        steps = round(seconds * bare.median("steps_per_second"))
    ours: dict[str, Any] = {
        **{"kind": "train", "env": env, "num_envs": COPIES, "at_least": steps, "seed": seed},
        "pinned": PINNED,
    }
    shared = ours | {"vectorization": "workers", "num_workers": workers}
    alone, still = ours | {"overlap_critic": False}, PINNED | {"max_kl": 1e-9}
    with ExitStack() as stack:
        sides: dict[str, Any] = {
            "learn, before": Side(stack, against, **ours, vectorization="sync"),
            "learn, workers": Side(stack, ROOT, **shared),
            "rollout, workers": Side(stack, ROOT, **shared | {"pinned": still}, overlap_critic=False),
            "one core, sync": Side(stack, ROOT, one_core=True, **alone, vectorization="sync"),
            "one core, worker": Side(stack, ROOT, one_core=True, **alone, vectorization="workers", num_workers=1),
        }
        for side in sides.values():
            side.answer()
        sides["bare processes"] = Bare(stack, env, workers, seconds=seconds)
        sides["bare processes that meet"] = Meeting(stack, env, workers, steps)
        order = (*list(sides)[:2], "bare processes", "rollout, workers", "bare processes that meet", *list(sides)[3:5])
        for _ in range(rounds):  # the two of a ratio one after the other
            for name in order:
                sides[name].round()
        for one, other in zip(sides["one core, sync"].rounds, sides["one core, worker"].rounds, strict=True):
            if one["parameters"] != other["parameters"]:
                raise AssertionError(f"{env}: a worker and one process disagree, so their time means nothing")
        figures = {name: side.median("steps_per_second") for name, side in sides.items()}
        for name in ("rollout, workers", "one core, sync", "one core, worker"):
            figures[name] = sides[name].median("rollout_steps_per_second")
        return {
            "workers": workers,
            "steps_a_round": steps,
            "steps_per_second": figures,
            "learn_ratio": ratio(sides["learn, workers"], sides["learn, before"]),
            "rollout_share_of_bare": ratio(
                sides["rollout, workers"], sides["bare processes"], "rollout_steps_per_second", "steps_per_second"
            ),
            "rollout_share_of_meeting": ratio(
                sides["rollout, workers"],
                sides["bare processes that meet"],
                *("rollout_steps_per_second", "steps_per_second"),
            ),
            "one_core_ratio": ratio(
                sides["one core, worker"], sides["one core, sync"], *2 * ("rollout_steps_per_second",)
            ),
            "rounds": {name: side.rounds for name, side in sides.items()},
        }


def many_copies(env: str, rounds: int) -> dict[str, Any]:
    """Seconds and megabytes of many copies, in one process and shared out to two."""
    with ExitStack() as stack:
        sides = {
            name: Side(stack, ROOT, kind="copies", env=env, num_envs=MANY, num_workers=workers)
            for name, workers in (("in one process", None), ("on 2 workers", 2))
        }
        for side in sides.values():
            side.answer()
        for _ in range(rounds):
            for side in sides.values():
                side.round()
        return {
            name: {"seconds": side.median("seconds"), "megabytes": side.median("megabytes"), "rounds": side.rounds}
            for name, side in sides.items()
        }


def compare_glue(against: Path, rounds: int) -> dict[str, Any]:
    """Processor time of a vector step of an environment that does nothing, before and now, by the number of copies."""
    results: dict[str, Any] = {}
    for copies, steps in ((1, 2048), (8, 2048), (64, 512)):
        with ExitStack() as stack:
            task: dict[str, Any] = {"kind": "glue", "copies": copies, "steps": steps}
            sides = {"before": Side(stack, against, **task), "now": Side(stack, ROOT, **task)}
            for side in sides.values():
                side.answer()
            for _ in range(rounds):
                for side in sides.values():
                    side.round()
            figures: dict[str, Any] = {name: side.median("microseconds") for name, side in sides.items()}
            print(f"  {copies:3} copies: {figures['before']:6.1f} us before, {figures['now']:6.1f} us now")
            results[str(copies)] = figures | {"rounds": {name: side.rounds for name, side in sides.items()}}
    return results


def _print(env: str, result: dict[str, Any]) -> None:
    figures = result["steps_per_second"]
    print(f"{env}, {COPIES} copies, {result['workers']} workers, steps/s")
    for one, other, name, ratio in (
        ("learn, workers", "learn, before", "learn() against the build before", "learn_ratio"),
        ("rollout, workers", "bare processes", "rollout phase against bare processes", "rollout_share_of_bare"),
        (
            *("rollout, workers", "bare processes that meet"),
            *("rollout phase against those that meet", "rollout_share_of_meeting"),
        ),
        ("one core, worker", "one core, sync", "rollout phase on one core against sync", "one_core_ratio"),
    ):
        print(f"  {name:<40} {figures[one]:9,.0f} / {figures[other]:9,.0f} = {result[ratio]:.3f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ratios and write every round as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.stepping", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", nargs="+", default=["HalfCheetah-v5", "Humanoid-v5"])
    parser.add_argument("--against", default=BEFORE, metavar="REV_OR_PATH", help=f"the build before ({BEFORE})")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the bare processes' rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    parser.add_argument(
        "--envpool",
        action="store_true",
        help="instead, EnvPool and Gymnasium's own vector environments beside their rates",
    )
    parser.add_argument(
        "--glue", action="store_true", help="instead, what a step of an environment that does nothing costs"
    )
    arguments = parser.parse_args(argv)
    if arguments.envpool:
        from bench import envpool_stepping  # which needs the packages of others

        out = arguments.out or envpool_stepping.RESULT
        envpool_stepping.main(["--rounds", str(arguments.rounds), "--out", str(out)])
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # folders and sides go, as by Ctrl-C
    machine = describe()
    commit = revision(arguments.against)
    words = [commit if word == arguments.against else word for word in (sys.argv[1:] if argv is None else argv)]
    print(f"{machine['cpu']}, {usable_cores()} cores, medians of {arguments.rounds} alternating rounds")
    result: dict[str, Any] = {
        "command": " ".join(["python -m bench.stepping", *words]),
        "machine": machine,
        "against": commit,
        "seed": arguments.seed,
    }
    shares = [share_of_cores(usable_cores())]
    with checkout(arguments.against) as before:
        if arguments.glue:
            result["glue"] = compare_glue(before, arguments.rounds)
        else:
            result["environments"] = environments = {}
            for env in arguments.env:
                environments[env] = compare(env, before, arguments.rounds, arguments.seconds, arguments.seed)
                shares.append(share_of_cores(usable_cores()))
                _print(env, environments[env])
    if not arguments.glue:
        many = many_copies(arguments.env[0], 3)
        for name, figures in many.items():
            cost = f"{figures['seconds']:.1f} s, {figures['megabytes']:,.0f} MB"
            print(f"{MANY} copies of {arguments.env[0]} {name}: {cost}")
        result["many_copies"] = {"env": arguments.env[0], "copies": MANY, **many}
    shares.append(share_of_cores(usable_cores()))
    share = statistics.median(shares)
    result |= {"cpu_share": share, "quiet": share >= QUIET}
    write_figures(arguments.out or (RESULT.with_name("stepping_glue.json") if arguments.glue else RESULT), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
