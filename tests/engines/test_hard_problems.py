"""What steps go wrong on (trpo_fast/benchmarks/hard_problems.py), on both engines, judged by the oracle."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests import reference
from tests.engines.cases import TOLERANCE, Case, relative_error
from trpo_fast.benchmarks import HARD_PROBLEMS
from trpo_fast.engines import make_engine
from trpo_fast.policies import MLPPolicy
from trpo_fast.solvers import Status, trust_region_step


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(params=HARD_PROBLEMS)
def problem(request, dtype):
    return HARD_PROBLEMS[request.param](dtype=dtype)


@pytest.fixture(params=["native", "autograd"])
def bound(request, problem):
    inputs, *hidden, outputs = problem.widths
    space = spaces.Box(-1, 1, (outputs,)) if problem.distribution == "gaussian" else spaces.Discrete(outputs)
    observations = spaces.Box(-np.inf, np.inf, (inputs,))
    policy = MLPPolicy(observations, space, tuple(hidden), dtype=getattr(torch, problem.dtype))
    policy.flat.numpy[:] = problem.parameters
    policy.flat.bump_versions()
    oracle = reference.Policy(problem.widths, "tanh", problem.distribution)
    data = problem.observations, problem.actions, problem.advantages
    case = Case(policy, oracle, *data, np.random.default_rng(0), problem.masks)
    engine = make_engine(policy, request.param)
    engine.bind(case.batch())
    return case, engine


def rounding(problem):
    """Relative, of what a standard deviation divides: means that were rounded."""
    return float(np.finfo(problem.dtype).eps / np.exp(problem.log_std.min()))


def conditioning(function, *inputs, epsilon, draws=10):
    """Median relative change of a function of arrays when each of their entries moves by `epsilon`, relative to it.

    What comes of inputs that were rounded: no arithmetic of that precision can be asked to do better.
    """
    rng, exact = np.random.default_rng(0), function(*inputs)
    moved = ([x * (1 + epsilon * rng.choice([-1, 1], x.shape)) for x in inputs] for _ in range(draws))
    return float(np.median([relative_error(function(*those), exact) for those in moved]))


def test_gradient_and_fisher_product_are_the_oracles(bound, problem):
    case, engine = bound
    theta, v = case.theta, case.vector()
    inputs = theta, case.observations.astype(np.float64)

    def gradient(theta, observations):
        return case.oracle.surrogate_gradient(theta, observations, *case.data[1:], masks=case.masks)

    def product(theta, observations):
        return case.oracle.fisher_product(theta, observations, v, masks=case.masks)

    for found, expected in ((engine.surrogate_gradient(), gradient), (engine.fisher_operator() @ v, product)):
        rounded = conditioning(expected, *inputs, epsilon=np.finfo(engine.dtype).eps)
        assert relative_error(found, expected(*inputs)) < TOLERANCE[engine.dtype] + rounded


def test_a_step_ends_as_the_problem_says(bound, problem):
    case, engine = bound
    theta, before = case.theta, engine.parameters().copy()
    kfac = engine.name == "native" and problem.damping > 0
    for preconditioner in (None, "kfac") if kfac else (None,):
        engine.parameters()[:] = before
        engine.parameters_changed()
        report = trust_region_step(engine, max_kl=0.01, damping=problem.damping, preconditioner=preconditioner)
        assert report.status == problem.status
        if report.status != Status.SUCCESS:
            assert engine.parameters().tobytes() == before.tobytes()
            continue
        improvement, kl = case.oracle.evaluate(case.theta, theta, *case.data)
        assert improvement > 0
        assert 0 < kl <= 0.01 * (1 + 1e-3)
        assert report.kl == pytest.approx(kl, rel=1e-3 + 4 * rounding(problem))
