"""Real mid-training problems: HalfCheetah-v5, 2,048 samples, a 17-64-64-6 tanh Gaussian policy.

They lie beside the repository, in a folder `shared`, and not in it; without them these tests are skipped.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests import reference
from tests.engines.cases import TOLERANCE, Case, improvement_scale, relative_error
from trpo_fast.engines import make_engine
from trpo_fast.policies import MLPPolicy
from trpo_fast.solvers import DirectionSettings, Status, conjugate_gradient, find_direction, trust_region_step

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "trust_region_problems"
FILES = sorted(FOLDER.glob("*.npz"))
DAMPING = 0.1
# The promise for 25 reorthogonalized iterations.
CG_TOLERANCE = {np.dtype(np.float32): 5e-5, np.dtype(np.float64): 1e-9}

pytestmark = pytest.mark.skipif(not FILES, reason="no shared/data/trust_region_problems beside the repository")


def load(path, dtype) -> Case:
    with np.load(path) as data:
        arrays = dict(data)
    space = spaces.Box(-np.inf, np.inf, arrays["observations"].shape[1:])
    policy = MLPPolicy(space, spaces.Box(-1, 1, arrays["log_std"].shape), (64, 64), dtype=getattr(torch, dtype), seed=0)
    pieces = [arrays["log_std"], *(arrays[f"{kind}{layer}"] for layer in range(3) for kind in "wb")]
    policy.flat.numpy[:] = np.concatenate([piece.ravel() for piece in pieces])
    observations, actions, advantages = (
        arrays[name].astype(dtype) for name in ("observations", "actions", "advantages")
    )
    oracle = reference.Policy(policy.widths, "tanh", "gaussian")
    return Case(policy, oracle, observations, actions, advantages, np.random.default_rng(0))


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def solution(request):
    """(path, gradient, x after 25 iterations) by the oracle."""
    case = load(request.param, "float64")
    theta, gradient = case.theta, case.oracle.surrogate_gradient(case.theta, *case.data)
    x = reference.conjugate_gradient(
        lambda v: case.oracle.fisher_product(theta, case.observations, v), gradient, 25, DAMPING
    )
    return request.param, gradient, x


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(params=["native", "autograd"])
def bound(request, solution, dtype):
    case = load(solution[0], dtype)
    engine = make_engine(case.policy, request.param)
    engine.bind(case.batch())
    return case, engine


def test_gradient_and_fisher_product_are_the_oracles(bound, solution):
    case, engine = bound
    assert relative_error(engine.surrogate_gradient(), solution[1]) < TOLERANCE[engine.dtype]
    operator = engine.fisher_operator()
    for v in (case.vector(), solution[1], solution[2]):
        expected = case.oracle.fisher_product(case.theta, case.observations, v.astype(engine.dtype))
        assert relative_error(operator @ v.astype(engine.dtype), expected) < TOLERANCE[engine.dtype]


def test_25_reorthogonalized_iterations_are_the_oracles(bound, solution):
    _, engine = bound
    _, gradient, expected = solution
    result = conjugate_gradient(
        engine.fisher_operator(),
        gradient.astype(engine.dtype),
        max_iter=25,
        rtol=0.0,
        damping=DAMPING,
        reorthogonalize=True,
    )
    assert result.iterations == 25
    assert relative_error(result.x, expected) < CG_TOLERANCE[engine.dtype]


def test_a_step_along_the_solution_is_judged_as_the_oracle_does(bound, solution):
    case, engine = bound
    theta, x = case.theta, solution[2]
    curvature = x @ case.oracle.fisher_product(theta, case.observations, x)
    engine.parameters()[:] += (np.sqrt(2 * 0.01 / curvature) * x).astype(engine.dtype)
    engine.parameters_changed()
    for direction in ("new_old", "old_new"):
        improvement, kl = engine.evaluate(direction)
        expected = case.oracle.evaluate(case.theta, theta, *case.data, direction)
        assert kl == pytest.approx(expected[1], rel=TOLERANCE[engine.dtype])
        scale = improvement_scale(case, case.theta, theta)
        assert improvement == pytest.approx(expected[0], rel=0, abs=TOLERANCE[engine.dtype] * scale)


def test_a_whole_step_improves_within_the_trust_region(bound):
    case, engine = bound
    theta = case.theta
    report = trust_region_step(engine, max_kl=0.01, damping=DAMPING, cg_iterations=25)
    assert report.status == Status.SUCCESS
    improvement, kl = case.oracle.evaluate(case.theta, theta, *case.data)
    assert improvement > 0
    assert 0 < kl < 0.0101
    assert report.predicted_improvement > 0.5 * report.improvement


def test_bf16_products_find_a_direction_that_gains_as_much(solution, portable_bfloat16):
    case = load(solution[0], "float32")
    engine = make_engine(case.policy, "native")
    engine.bind(case.batch())
    settings = DirectionSettings(cg_iterations=25, cg_rtol=0.0, damping=DAMPING, fisher_precision="bfloat16")
    found = find_direction(engine, settings=settings)
    assert (found.iterations, found.fisher_precision) == (25, "bfloat16")

    def gain(x):
        """g'x / sqrt(x'Fx) by the oracle: what a step along x to the edge of the trust region gains."""
        return solution[1] @ x / np.sqrt(x @ case.oracle.fisher_product(case.theta, case.observations, x))

    assert relative_error(found.x, solution[2]) > 1e-4  # the digits are others
    assert gain(found.x) == pytest.approx(gain(solution[2]), rel=5e-3)
    curvature = found.x @ case.oracle.fisher_product(case.theta, case.observations, found.x)
    assert found.curvature == pytest.approx(curvature, rel=1e-2)
