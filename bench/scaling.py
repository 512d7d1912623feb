"""Training on several ranks beside the plain program.

    python -m bench.scaling [--ranks 2] [--env HalfCheetah-v5] [--rounds 9] [--updates 5] [--out FILE]

Alternating rounds of whole updates, medians of them and of the ratios of rounds that followed each other:

- the plain program, 8 copies, on one core, where the critic is fitted between rollouts: a phase's seconds are its own;
- one rank under torchrun, the same 8 copies on the same core;
- `--ranks` ranks under torchrun, each on a core of its own, 8 copies each. All have to have the same parameters.

With it what a rank exchanges in an update, by phase: rounds, bytes of its own, seconds in them, waiting for slower
ranks included. And what the same bits for any number of ranks cost: for these the sums of 16 parts of the samples are
gathered, each rank giving its own, and added in one order, in the place of a reduction by gloo. `--ranks` ranks do it
in alternating rounds either way, with the default policy and with a larger one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.builds import ROOT, Worker
from bench.machine import describe, result_path, share_of_cores, write_figures
from bench.stepping import Timed, ratio
from trpo_fast.benchmarks import QUIET

SIDE = Path(__file__).with_name("scaling_side.py")
COPIES = 8  # of a rank
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
SIZES = ([64, 64], [160, 160], [256, 256])  # hidden units: the usual, just below what is added in order, beyond it


class Asked(Worker):
    """Rank 0, or the plain program, which answers requests."""

    def do(self, request: str, **arguments: Any) -> Any:
        """What comes of a request."""
        self.ask({"do": request, **arguments})
        return self.answer()

    def end(self) -> None:
        """Let it end by itself, and its ranks with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


class Side(Timed, Asked):
    """The plain program, or `ranks` under torchrun."""

    def __init__(self, stack: ExitStack, ranks: int, **task: Any) -> None:
        torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}") if ranks else ()
        super().__init__(
            stack,
            SIDE,
            ROOT,
            ENVIRONMENT,
            python=(sys.executable, "-P", *torchrun),
            arguments=(json.dumps({"num_envs": COPIES * max(1, ranks), "pinned": True, **task}),),
        )
        stack.callback(self.end)  # before it is killed: torchrun's ranks would go on alone
        self.rounds: list[dict[str, Any]] = []
        self.described = self.answer()

    def round(self, updates: int) -> None:
        """A whole round."""
        self.rounds.append(self.do("train", updates=updates))

    @property
    def traffic(self) -> dict[str, dict[str, float]]:
        """Of an update, by phase, medians over the rounds."""
        names = ("rounds", "bytes", "seconds")
        phases = dict.fromkeys(phase for one in self.rounds for phase in one["traffic"])
        return {
            phase: {
                name: statistics.median(one["traffic"].get(phase, (0, 0, 0))[i] for one in self.rounds)
                for i, name in enumerate(names)
            }
            for phase in phases
        }


def compare(env: str, ranks: int, rounds: int, updates: int) -> dict[str, Any]:
    """Rates, ratios, traffic and all rounds."""
    with ExitStack() as stack:
        sides = {
            "plain program": Side(stack, 0, env=env),
            "one rank": Side(stack, 1, env=env),
            f"{ranks} ranks": Side(stack, ranks, env=env),
        }
        plain, one, several = sides.values()
        for i in range(rounds):
            # Who comes first has the caches of another: they take turns.
            for side in list(sides.values()) if i % 2 == 0 else list(sides.values())[::-1]:
                side.round(updates)
        figures = ("steps_per_second", "seconds", "products", "trials")
        return {
            "medians": {
                name: {figure: side.median(figure) for figure in figures}
                | {
                    "phases": {
                        phase: statistics.median(round["phases"][phase] for round in side.rounds)
                        for phase in side.rounds[0]["phases"]
                    }
                }
                for name, side in sides.items()
            },
            "one_rank_by_plain": ratio(one, plain),
            "ranks_by_one_rank": ratio(several, one),
            "agent": several.described,
            "traffic": several.traffic,
            "rounds": {name: side.rounds for name, side in sides.items()},
        }


def price_of_same_bits(env: str, ranks: int, rounds: int, updates: int, hidden: Sequence[int]) -> dict[str, Any]:
    """Updates with sums of parts, added in order, beside updates with reductions."""
    with ExitStack() as stack:
        task = {"env": env, "hidden_sizes": list(hidden)}
        sides = {sums: Side(stack, ranks, **task, sums=sums) for sums in ("in order", "reduced")}
        ordered, reduced = sides.values()
        for i in range(rounds):
            for side in (ordered, reduced) if i % 2 == 0 else (reduced, ordered):
                side.round(updates)
        n = ordered.described["parameters"]
        return {
            "hidden_sizes": list(hidden),
            "parameters": n,
            "collectives": ordered.do("collectives", numbers=n, dtype="float32", repeats=50),
            "seconds": {name: side.median("seconds") for name, side in sides.items()},
            "cpu": {name: side.median("cpu") for name, side in sides.items()},
            "solve": {
                name: statistics.median(round["phases"]["solve"] for round in side.rounds)
                for name, side in sides.items()
            },
            "bytes": {name: sum(phase["bytes"] for phase in side.traffic.values()) for name, side in sides.items()},
            "share": ratio(ordered, reduced, "seconds") - 1,
            "rounds": {name: side.rounds for name, side in sides.items()},
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--ranks", type=int, default=2, help="of which each has a core, so at most as many (default 2)")
    parser.add_argument("--rounds", type=int, default=9, help="of each side (default 9)")
    parser.add_argument("--updates", type=int, default=5, help="of a round (default 5)")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    if not 2 <= arguments.ranks <= min(cores, 16) or 16 % arguments.ranks:
        parser.error(f"--ranks: {arguments.ranks} given; want 2, 4, 8 or 16, and a core for each: there are {cores}")
    if arguments.rounds < 1 or arguments.updates < 1:
        parser.error("--rounds, --updates: want at least 1")
    machine, shares = describe(), [share_of_cores(arguments.ranks)]
    counts = (arguments.ranks, arguments.rounds, arguments.updates)
    result = compare(arguments.env, *counts)
    shares.append(share_of_cores(arguments.ranks))
    result["same_bits"] = [price_of_same_bits(arguments.env, *counts, hidden) for hidden in SIZES]
    shares.append(share_of_cores(arguments.ranks))
    share = statistics.median(shares)
    result = {
        "command": " ".join(["python -m bench.scaling", *(sys.argv[1:] if argv is None else argv)]),
        "machine": machine,
        "cpu_share": share,
        "quiet": share >= QUIET,
        "env": arguments.env,
        "ranks": arguments.ranks,
        **result,
    }
    for name, figures in result["medians"].items():
        print(f"  {name:15} {figures['steps_per_second']:8,.0f} steps/s, {figures['seconds'] * 1e3:.1f} ms an update")
    print(f"  one rank by the plain program {result['one_rank_by_plain']:.3f} (goal 0.97)")
    print(f"  {arguments.ranks} ranks by one {result['ranks_by_one_rank']:.2f} (goal of two 1.6)")
    for phase, moved in result["traffic"].items():
        print(
            f"  {phase:15} {moved['rounds']:6.2f} rounds {moved['bytes']:12,.0f} bytes {moved['seconds'] * 1e3:7.2f} ms"
        )
    for price in result["same_bits"]:
        print(f"  the same bits, {price['parameters']:,} parameters: {price['share']:.1%} of an update (goal 10%)")
    write_figures(arguments.out or result_path("scaling"), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
