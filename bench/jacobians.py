"""Both Fisher products, and whole solves with them: through the weights, and with cached output Jacobians.

    python -m bench.jacobians [--rounds 15] [--cases 11-64-64-3@2048 ...]

One thread, float32, by turns, in seconds of this thread: what else runs on the machine counts only by what it does to
the caches. A solve is ten or 25 iterations of conjugate gradient, with making the Jacobians where they are used. Every
answer is checked. Prints medians of the ratios of pairs that followed each other (more than 1: Jacobians are faster),
their quartiles, and what `fisher_jacobians="auto"` says of that many products here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.machine import caches_of, describe, kind_of
from trpo_fast import set_num_threads
from trpo_fast._core.policy import FisherOperator, PolicyKernel
from trpo_fast.solvers import conjugate_gradient
from trpo_fast.solvers.fisher_product import prepare_fisher

CASES = (
    *("17-64-64-6@96", "17-64-64-6@192", "17-64-64-6@480", "17-64-64-6@960", "17-64-64-6@2048"),
    *("3-64-64-1@2048", "4-64-64-2@2048", "11-64-64-3@2048", "11-64-64-3@8192"),
    *("17-256-256-6@2048", "376-256-256-17@2048"),
)
ITERATIONS = (10, 25)


class Side:
    """A Gaussian policy with a batch of random numbers, multiplied through its weights or with Jacobians."""

    def __init__(self, widths: Sequence[int], rows: int, jacobians: bool) -> None:
        rng = np.random.default_rng(0)
        self.kernel = PolicyKernel(widths, "tanh", "gaussian", "float32")
        self.theta = (0.2 * rng.normal(size=self.kernel.size)).astype(np.float32)
        self.observations = rng.normal(size=(rows, widths[0])).astype(np.float32)
        self.actions = rng.normal(size=(rows, widths[-1])).astype(np.float32)
        self.advantages = rng.normal(size=rows).astype(np.float32)
        self.jacobians = jacobians
        self.bind()
        self.gradient = self.kernel.surrogate_gradient()
        self.v, self.out = rng.normal(size=(2, self.kernel.size)).astype(np.float32)
        self.operator = self.prepared()

    def bind(self) -> None:
        """The batch anew: without Jacobians."""
        self.kernel.bind(self.theta, self.observations, self.actions, self.advantages)

    def prepared(self) -> FisherOperator:
        """F, with its Jacobians made where they are used."""
        operator = self.kernel.fisher_operator()
        if self.jacobians:
            operator.cache_jacobians()
        return operator

    def product(self) -> np.ndarray:
        """F v."""
        return self.operator.matvec(self.v, self.out)

    def solve(self, iterations: int) -> np.ndarray:
        """x, as the step solves for it, with all that products need made first."""
        self.operator = self.prepared()
        options: dict[str, Any] = {"max_iter": iterations, "rtol": 0.0, "damping": 0.1, "reorthogonalize": True}
        return conjugate_gradient(self.operator, self.gradient, **options).x


def seconds(function: Callable[[], object], times: int = 1) -> float:
    """Of one call, of this thread."""
    start = time.thread_time()
    for _ in range(times):
        function()
    return (time.thread_time() - start) / times


def compared(sides: Sequence[Side], once: Callable[[Side], float], rounds: int) -> str:
    """Median and quartiles of the ratios of what `once` measures of both."""
    pairs = [[once(side) for side in sides] for _ in range(rounds)]
    low, middle, high = statistics.quantiles((usual / other for usual, other in pairs), n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def measure(case: str, rounds: int) -> str:
    """A line of the table."""
    sizes, rows = case.split("@")
    widths = [int(size) for size in sizes.split("-")]
    sides = [Side(widths, int(rows), jacobians) for jacobians in (False, True)]
    weights, jacobians = (side.product().astype(np.float64) for side in sides)
    assert np.linalg.norm(weights - jacobians) < 1e-5 * np.linalg.norm(weights)

    def product(side: Side) -> float:
        side.product()
        return seconds(side.product, 5)

    def making(side: Side) -> float:
        side.bind()
        return seconds(lambda: side.solve(iterations))

    cells = [compared(sides, product, rounds)]
    for iterations in ITERATIONS:
        usual, other = (side.solve(iterations).astype(np.float64) for side in sides)
        assert np.linalg.norm(usual - other) < 1e-3 * np.linalg.norm(usual)
        choice, _ = prepare_fisher(sides[0].kernel.fisher_operator(), iterations)
        cells.append(f"{compared(sides, making, rounds)}; {choice}")
    return f"| {sizes} | {int(rows):,} | " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.jacobians", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--cases", nargs="*", default=CASES, metavar="WIDTHS@ROWS")
    arguments = parser.parse_args(argv)
    set_num_threads(1)
    print(f"{kind_of(describe())}; {caches_of(describe())}\n")
    print("| widths | B | F v | solve of 10; auto | solve of 25; auto |\n| --- | --- | --- | --- | --- |")
    for case in arguments.cases:
        print(measure(case, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
