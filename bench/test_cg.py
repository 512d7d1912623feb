"""Conjugate gradient: the loop itself (diagonal), with BLAS (dense), and the solve of a trust-region step (Fisher)."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy, relative_error
from bench.problems import PolicyProblem, linear_system
from tests import reference

ITERATIONS = 10


@pytest.mark.parametrize("library", OFFERS["solver"], indirect=True)
@pytest.mark.parametrize(("kind", "size"), [("diagonal", 5_708), ("diagonal", 73_484), ("dense", 1_024)])
def test_linear_system(benchmark, record, library, kind, size):
    benchmark.group = f"cg {kind} n={size:,}, {ITERATIONS} iterations"
    system = linear_system(kind, size, ITERATIONS)
    solve = library.solver(system)
    exact = reference.conjugate_gradient(system.product, system.b, ITERATIONS)
    # Ten well-conditioned steps keep their orthogonality; sb3-contrib starts from noise of scale 1e-4.
    assert relative_error(solve(), exact) < 1e-4
    benchmark(solve)
    record(ITERATIONS * (system.product_flops + 10 * size))


@pytest.mark.parametrize("library", OFFERS["fisher_solver"], indirect=True)
@pytest.mark.parametrize("iterations", [10, 25])
def test_fisher_system(benchmark, record, library, iterations):
    benchmark.group = f"cg fisher 17-64-64-6 B=2,048, {iterations} iterations"
    problem, damping = PolicyProblem(batch=2_048, hidden=64), 0.1
    policy = ExactPolicy(problem)
    gradient = policy.gradient()
    solve = library.fisher_solver(problem, gradient.astype(np.float32), damping, iterations)

    def gain(x: np.ndarray) -> float:
        """g'x / sqrt(x'(F + lambda I)x), what a step along x promises."""
        return gradient @ x / np.sqrt(x @ (policy.fisher_product(x) + damping * x))

    exact = gain(policy.direction(damping, iterations))
    relative = gain(solve().astype(np.float64)) / exact
    # Plain CG in float32 loses some of the gain, and that is its answer.
    assert 0.99 < relative < 1 + 1e-5
    benchmark.extra_info["relative_gain"] = relative
    benchmark(solve)
    record(iterations * problem.fisher_flops)
