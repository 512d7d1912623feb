"""Conjugate gradient: the loop itself (diagonal), with BLAS (dense), and the solve of a trust-region step (Fisher)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy
from bench.problems import CHEETAH, PolicyProblem, linear_system
from tests import reference
from trpo_fast.benchmarks import relative_error

ITERATIONS = 10
CASES = (
    [("diagonal", 5_708, "float32"), ("diagonal", 73_484, "float32"), ("dense", 1_024, "float32")],
    [(kind, size, "float64") for kind, size in (("diagonal", 5_708), ("diagonal", 73_484), ("dense", 1_024))]
    + [("diagonal", 1_000_000, dtype) for dtype in ("float32", "float64")],
)


@pytest.mark.parametrize("library", OFFERS["solver"], indirect=True)
def test_linear_system(benchmark, record, library, case):
    kind, size, dtype = case
    benchmark.group = f"cg {kind} n={size:,} {dtype}, {ITERATIONS} iterations"
    system = linear_system(kind, size, ITERATIONS, dtype)
    solve = library.solver(system)
    exact = reference.conjugate_gradient(system.product, system.b, ITERATIONS)
    # Ten well-conditioned steps keep their orthogonality; sb3-contrib starts from noise of scale 1e-4.
    assert relative_error(solve(), exact) < 1e-4
    benchmark(solve)
    item = np.dtype(dtype).itemsize
    record(
        ITERATIONS * (system.product_flops + 10 * size),
        ITERATIONS * item * (system.matrix.size + 2 * size + 11 * size),
        dtype,
    )


@pytest.mark.parametrize("library", OFFERS["fisher_solver"], indirect=True)
@pytest.mark.parametrize("iterations", [10, 25])
def test_fisher_system(benchmark, record, library, iterations):
    benchmark.group = f"cg fisher 17-64-64-6 B=2,048, {iterations} iterations"
    problem, damping = PolicyProblem(CHEETAH, 2_048), 0.1
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
    record(iterations * problem.fisher_flops, iterations * problem.fisher_bytes)


FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "trust_region_problems"
FILES = sorted(FOLDER.glob("*.npz"))


@pytest.mark.skipif(not FILES, reason="no shared/data/trust_region_problems beside the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("solver", ["plain-25", "kfac-5", "diagonal-5"])
def test_preconditioned_solve(benchmark, record, path, solver):
    """Statistics of the preconditioner included, on real mid-training policies; gains relative to 25 plain products."""
    import gymnasium as gym

    import trpo_fast

    kind, products = solver.split("-")
    damping = 0.1
    with np.load(path) as data:
        arrays = {name: data[name].astype(np.float32) for name in data.files}
    inputs, outputs = arrays["observations"].shape[1], len(arrays["log_std"])
    policy = trpo_fast.MLPPolicy(gym.spaces.Box(-np.inf, np.inf, (inputs,)), gym.spaces.Box(-1, 1, (outputs,)))
    pieces = [arrays["log_std"], *(arrays[f"{letter}{layer}"] for layer in range(3) for letter in "wb")]
    policy.flat.numpy[:] = np.concatenate([piece.ravel() for piece in pieces])
    engine = trpo_fast.make_engine(policy, "native")
    batch = trpo_fast.Batch(arrays["observations"], arrays["actions"], arrays["advantages"])
    engine.bind(batch)
    gradient = engine.surrogate_gradient()

    def solve(kind: str = kind, products: int = int(products)) -> np.ndarray:
        inverse = None if kind == "plain" else engine.preconditioner(kind, damping=damping)
        return trpo_fast.conjugate_gradient(
            engine.fisher_operator(),
            gradient,
            max_iter=products,
            rtol=0.0,
            damping=damping,
            preconditioner=inverse,
            reorthogonalize=True,
        ).x

    oracle = reference.Policy(policy.widths, "tanh", "gaussian")
    theta, g = policy.flat.numpy.astype(np.float64), gradient.astype(np.float64)

    def gains(x: np.ndarray) -> tuple[float, float]:
        """g'x / sqrt(x'Fx), and the same with F + lambda I."""
        x = x.astype(np.float64)
        xFx = x @ oracle.fisher_product(theta, arrays["observations"], x)
        return g @ x / np.sqrt(xFx), g @ x / np.sqrt(xFx + damping * (x @ x))

    plain = gains(solve("plain", 25))
    fisher, damped = (gain / base for gain, base in zip(gains(solve()), plain, strict=True))
    if kind == "kfac":  # the goal of five products
        assert fisher >= 1 and damped >= 0.97
    benchmark.group = f"solve {path.stem}"
    benchmark.extra_info |= {"library": solver, "gain_fisher": fisher, "gain_damped": damped}
    benchmark(solve)
    record(int(products) * PolicyProblem(policy.widths, len(arrays["observations"])).fisher_flops)
