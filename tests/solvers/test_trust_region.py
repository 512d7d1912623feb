"""The trust-region step on problems whose answer is known in closed form, and every way in which it can end."""

import math
import random
import signal
import time

import numpy as np
import pytest

from trpo_fast import Status, find_direction, trust_region_step
from trpo_fast._core.operator import CallableOperator, DenseOperator

DTYPES = [np.float32, np.float64]


class Quadratic:
    """An engine whose surrogate is linear and whose KL is quadratic: what the step is derived from.

    The KL is a hair smaller than the model has it, so that the full step is inside in spite of rounding.
    """

    name = "quadratic"

    def __init__(self, gradient, fisher, dtype=np.float64, evaluate=None):
        self.g, self.F = np.array(gradient, np.float64), np.array(fisher, np.float64)
        self.dtype = np.dtype(dtype)
        self.theta = np.linspace(-0.1, 0.1, len(self.g)).astype(dtype)
        self.theta[0] = -0.0
        self.origin = self.theta.copy()
        self.answer = evaluate
        self.evaluations, self.seen, self.directions = 0, self.theta.tobytes(), []

    @property
    def size(self):
        return len(self.g)

    def bind(self, batch, *, total=None):
        raise AssertionError("a step does not bind")

    def parameters(self):
        return self.theta

    def parameters_changed(self):
        self.seen = self.theta.tobytes()

    def surrogate_gradient(self):
        return self.g.astype(self.dtype)

    def fisher_operator(self):
        return DenseOperator(self.F.astype(self.dtype))

    def evaluate(self, kl_direction="new_old"):
        self.evaluations += 1
        self.directions.append(kl_direction)
        assert self.seen == self.theta.tobytes(), "evaluated before the engine was told of new parameters"
        d = self.theta.astype(np.float64) - self.origin
        improvement, kl = float(self.g @ d), float(0.5 * (1 - 1e-4) * d @ self.F @ d)
        return (improvement, kl) if self.answer is None else self.answer(improvement, kl)

    def untouched(self):
        return self.theta.tobytes() == self.origin.tobytes() == self.seen


def problem(dtype=np.float64, evaluate=None, n=8):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return Quadratic(rng.normal(size=n), (basis * np.geomspace(4, 0.1, n)) @ basis.T, dtype, evaluate)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step_curvature", ["fisher", "damped"])
def test_the_full_step_is_the_natural_gradient_as_long_as_the_region_allows(step_curvature, dtype):
    engine = problem(dtype)
    report = trust_region_step(engine, max_kl=0.02, damping=0.3, cg_iterations=30, step_curvature=step_curvature)
    damped = engine.F + 0.3 * np.eye(8)
    x = np.linalg.solve(damped, engine.g)
    step = math.sqrt(2 * 0.02 / (x @ (engine.F if step_curvature == "fisher" else damped) @ x)) * x
    tolerance = 1e-5 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(engine.theta, engine.origin + step, atol=tolerance * np.linalg.norm(step))
    assert engine.seen == engine.theta.tobytes()
    assert (report.status, report.backtracks, report.step_fraction) == (Status.SUCCESS, 0, 1.0)
    assert report.cg_status >= 0
    assert report.improvement == pytest.approx(engine.g @ step, rel=tolerance)
    assert report.predicted_improvement == pytest.approx(engine.g @ step, rel=tolerance)
    assert report.kl == pytest.approx(0.5 * (1 - 1e-4) * step @ engine.F @ step, rel=10 * tolerance)
    assert report.kl <= 0.02
    assert report.gradient_norm == pytest.approx(np.linalg.norm(engine.g), rel=tolerance)
    assert report.step_norm == pytest.approx(np.linalg.norm(step), rel=tolerance)
    assert report.curvature == pytest.approx(x @ engine.F @ x, rel=10 * tolerance)
    assert report.cg_residual < (1e-5 if dtype == np.float32 else 1e-9)


def test_the_damped_curvature_makes_a_shorter_step():
    norms = {}
    for step_curvature in ("fisher", "damped"):
        norms[step_curvature] = trust_region_step(problem(), damping=0.3, step_curvature=step_curvature).step_norm
    assert norms["damped"] < 0.95 * norms["fisher"]


def test_the_reports_timings_have_exactly_the_documented_keys():
    for engine in (problem(), Quadratic(np.zeros(3), np.eye(3))):
        timings = trust_region_step(engine).timings
        assert list(timings) == ["gradient", "solve", "line_search"]
        assert all(seconds >= 0 for seconds in timings.values())


def test_the_step_backtracks_until_it_improves_within_the_region():
    engine = problem(evaluate=lambda improvement, kl: (improvement, 2 * kl))
    report = trust_region_step(engine, max_kl=0.01, backtrack_factor=0.8)
    # 2 * 0.64^j <= 1 first at j = 2.
    assert (report.status, report.backtracks) == (Status.SUCCESS, 2)
    assert report.step_fraction == pytest.approx(0.64)
    assert report.predicted_improvement == pytest.approx(report.improvement, rel=1e-12)
    assert report.step_norm == pytest.approx(np.linalg.norm(engine.theta - engine.origin), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("evaluate", "status"),
    [
        (lambda improvement, kl: (-improvement, kl), Status.NO_IMPROVEMENT),
        (lambda improvement, kl: (0.0, kl), Status.NO_IMPROVEMENT),
        (lambda improvement, kl: (improvement, 1.0), Status.KL_VIOLATED),
        (lambda improvement, kl: (improvement, math.nan), Status.NON_FINITE),
    ],
)
def test_a_rejected_step_restores_every_bit_of_the_parameters(evaluate, status, dtype):
    engine = problem(dtype, evaluate)
    report = trust_region_step(engine, max_backtracks=3)
    assert engine.untouched()
    assert (report.status, report.backtracks) == (status, 3)
    assert engine.evaluations == 4
    assert report.step_fraction == report.step_norm == 0.0
    assert report.cg_status >= 0


class Unwell(Exception):
    pass


@pytest.mark.parametrize("error", [Unwell, KeyboardInterrupt])
def test_an_exception_in_an_evaluation_restores_every_bit(error):
    def evaluate(improvement, kl):
        raise error

    engine = problem(evaluate=evaluate)
    with pytest.raises(error):
        trust_region_step(engine)
    assert engine.untouched()


def test_ctrl_c_during_the_solve_leaves_the_parameters_alone():
    engine = problem()

    def product(v):
        signal.raise_signal(signal.SIGINT)
        return v

    engine.fisher_operator = lambda: CallableOperator(product, engine.size, engine.dtype)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trust_region_step(engine)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert engine.untouched()
    assert engine.evaluations == 0


def test_an_operator_exception_reaches_the_caller():
    engine = problem()

    def product(v):
        raise Unwell

    engine.fisher_operator = lambda: CallableOperator(product, engine.size, engine.dtype)
    with pytest.raises(Unwell):
        trust_region_step(engine)
    assert engine.untouched()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("gradient", "fisher", "damping", "status"),
    [
        (np.zeros(3), np.eye(3), 0.1, Status.NO_GRADIENT),
        ([1, np.nan, 0], np.eye(3), 0.1, Status.NON_FINITE),
        ([1, np.inf, 0], np.eye(3), 0.1, Status.NON_FINITE),
        (np.ones(3), np.zeros((3, 3)), 0.1, Status.NO_CURVATURE),
        (np.ones(3), np.zeros((3, 3)), 0.0, Status.NO_CURVATURE),
        ([0, 0, 1], np.diag([1, 1, 0]), 0.1, Status.NO_CURVATURE),
        (np.ones(3), np.diag([1, 1, -1e-4]), 0.0, Status.NOT_POSITIVE_DEFINITE),
        (np.ones(3), -np.eye(3), 0.1, Status.NOT_POSITIVE_DEFINITE),
        (np.ones(3), np.diag([1, np.nan, 1]), 0.1, Status.NON_FINITE),
        (np.ones(3), np.diag([1, np.inf, 1]), 0.1, Status.NON_FINITE),
    ],
)
def test_a_direction_that_does_not_exist_is_an_outcome_and_no_step(gradient, fisher, damping, status, dtype):
    engine = Quadratic(gradient, fisher, dtype)
    report = trust_region_step(engine, damping=damping)
    assert report.status == status
    assert engine.untouched()
    assert engine.evaluations == 0
    assert report.step_norm == report.step_fraction == report.improvement == report.kl == 0.0


def test_a_semidefinite_fisher_matrix_without_damping_still_makes_a_step():
    engine = Quadratic([1, 2, 1e-3], np.diag([1, 1, 0]))
    report = trust_region_step(engine, damping=0.0)
    assert (report.status, report.cg_status) == (Status.SUCCESS, Status.STAGNATED)
    assert engine.theta[0] > engine.origin[0]


@pytest.mark.parametrize("kl_direction", ["new_old", "old_new"])
def test_the_direction_of_the_kl_reaches_the_engine(kl_direction):
    engine = problem()
    trust_region_step(engine, kl_direction=kl_direction)
    assert set(engine.directions) == {kl_direction}


def test_the_solvers_settings_reach_the_solver():
    engine = problem()
    assert trust_region_step(engine, cg_iterations=3, cg_rtol=0).cg_iterations == 3
    assert trust_region_step(engine, cg_iterations=30, cg_rtol=0.5).cg_iterations < 3
    exact = np.linalg.inv(engine.F + 0.1 * np.eye(8))
    assert trust_region_step(engine, cg_rtol=1e-6, preconditioner=exact).cg_iterations == 1
    assert trust_region_step(engine, cg_iterations=100, cg_rtol=0, reorthogonalize=True).cg_iterations <= 8
    assert trust_region_step(engine, cg_iterations=9, cg_rtol=0, reorthogonalize=False).cg_iterations == 9
    assert trust_region_step(engine, max_backtracks=0).backtracks == 0
    hard = problem(n=60)
    assert trust_region_step(hard, cg_iterations=60, cg_rtol=0, damping=1e-3).cg_status == Status.ITERATION_LIMIT
    stopped = trust_region_step(hard, cg_iterations=60, cg_rtol=0, damping=1e-3, cg_progress_tol=0.01)
    assert stopped.cg_status == Status.NO_PROGRESS
    assert 10 < stopped.cg_iterations < 60


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_line_search_the_full_step_is_taken_even_out_of_the_region(dtype):
    engine = problem(dtype, evaluate=lambda improvement, kl: (-improvement, 100 * kl))
    report = trust_region_step(engine, max_kl=0.02, cg_iterations=30, line_search=False)
    x = np.linalg.solve(engine.F + 0.1 * np.eye(8), engine.g)
    step = math.sqrt(2 * 0.02 / (x @ engine.F @ x)) * x
    np.testing.assert_allclose(engine.theta, engine.origin + step, atol=1e-5 * np.linalg.norm(step))
    assert (report.status, report.backtracks, report.step_fraction) == (Status.SUCCESS, 0, 1.0)
    assert report.improvement < 0 and report.kl > 0.02
    assert engine.evaluations == 1


@pytest.mark.parametrize("value", [(math.nan, 0.0), (0.0, math.inf)])
def test_a_full_step_that_is_not_finite_is_not_taken(value):
    engine = problem(evaluate=lambda improvement, kl: value)
    report = trust_region_step(engine, line_search=False)
    assert (report.status, report.step_norm) == (Status.NON_FINITE, 0.0)
    assert engine.untouched()


def test_an_exception_in_the_evaluation_of_a_full_step_restores_every_bit():
    def evaluate(improvement, kl):
        raise Unwell

    engine = problem(evaluate=evaluate)
    with pytest.raises(Unwell):
        trust_region_step(engine, line_search=False)
    assert engine.untouched()


def test_the_rows_of_the_fisher_matrix_reach_the_engine():
    engine, seen = problem(), []
    whole = engine.fisher_operator()
    engine.fisher_operator = lambda rows=None: seen.append(rows) or whole
    rows = np.array([1, 3, 4])
    trust_region_step(engine, fisher_rows=rows)
    assert seen[0] is rows


@pytest.mark.parametrize(
    ("rows", "error", "given"),
    [
        ([1, 2], TypeError, "list given"),
        (np.array([1.0, 2.0]), TypeError, r"float64 of shape \(2,\) given"),
        (np.array([[1, 2]]), TypeError, r"int64 of shape \(1, 2\) given"),
        (np.array([2, 1]), ValueError, "item 1 is 1; want increasing row numbers"),
        (np.array([1, 1]), ValueError, "item 1 is 1; want increasing row numbers"),
        (np.array([-1, 1]), ValueError, "item 0 is -1; want increasing row numbers"),
    ],
)
def test_rows_that_cannot_be_are_named_as_the_caller_names_them(rows, error, given):
    engine = problem()
    with pytest.raises(error, match=f"^fisher_rows: {given}"):
        trust_region_step(engine, fisher_rows=rows)
    with pytest.raises(error, match=f"^rows: {given}"):
        find_direction(engine, rows=rows)
    assert engine.untouched()


@pytest.mark.parametrize("kind", ["kfac", "diagonal"])
def test_a_named_preconditioner_is_made_by_the_engine_with_the_damping_and_its_time_is_the_solves(kind):
    engine, made = problem(), []

    def preconditioner(name, *, damping, rows):
        made.append((name, damping, rows))
        time.sleep(0.05)
        return DenseOperator(np.linalg.inv(engine.F + damping * np.eye(8)))

    engine.preconditioner = preconditioner
    report = trust_region_step(engine, damping=0.3, preconditioner=kind, cg_iterations=3)
    assert made == [(kind, 0.3, None)]
    assert report.timings["solve"] > 0.05
    assert report.cg_residual < 1e-10  # a perfect one: one iteration
    # one's own goes to the solver as it is
    assert trust_region_step(problem(), preconditioner=np.eye(8), cg_iterations=3).cg_iterations == 3
    assert len(made) == 1


def test_a_preconditioner_whose_statistics_overflow_is_an_outcome_and_no_step():
    def preconditioner(name, *, damping, rows):
        raise FloatingPointError("layer 0")

    engine = problem()
    engine.preconditioner = preconditioner
    assert trust_region_step(engine, preconditioner="kfac").status == Status.NON_FINITE
    assert engine.untouched()


def test_a_named_preconditioner_of_an_engine_without_any_is_named():
    with pytest.raises(TypeError, match=r"preconditioner: .*'kfac'.*Quadratic makes none"):
        trust_region_step(problem(), preconditioner="kfac")


def test_no_global_random_number_is_drawn_and_two_steps_give_the_same_bits():
    legacy, python = np.random.get_state(), random.getstate()
    first, second = problem(np.float32), problem(np.float32)
    for engine in (first, second):
        trust_region_step(engine)
    assert first.theta.tobytes() == second.theta.tobytes()
    assert random.getstate() == python
    for before, after in zip(legacy, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"max_kl": 0}, ValueError, "max_kl: .*0.*> 0"),
        ({"max_kl": -0.01}, ValueError, "max_kl: .*-0.01"),
        ({"max_kl": math.nan}, ValueError, "max_kl: .*nan"),
        ({"max_kl": math.inf}, ValueError, "max_kl: .*inf"),
        ({"max_kl": "small"}, TypeError, "max_kl: .*small"),
        ({"damping": -0.1}, ValueError, "damping: .*-0.1"),
        ({"damping": math.inf}, ValueError, "damping: .*inf"),
        ({"cg_iterations": 0}, ValueError, "cg_iterations: .*0.*>= 1"),
        ({"cg_iterations": 2.5}, TypeError, "cg_iterations: .*2.5"),
        ({"cg_rtol": -1}, ValueError, "cg_rtol: .*-1"),
        ({"cg_progress_tol": -1}, ValueError, "cg_progress_tol: .*-1"),
        ({"preconditioner": np.eye(3)}, ValueError, "preconditioner: .*3.*8"),
        ({"step_curvature": "flat"}, ValueError, "step_curvature: .*flat.*'fisher', 'damped'"),
        ({"kl_direction": "sideways"}, ValueError, "kl_direction: .*sideways.*'new_old', 'old_new'"),
        ({"backtrack_factor": 1}, ValueError, "backtrack_factor: .*1"),
        ({"backtrack_factor": 0.0}, ValueError, "backtrack_factor: .*0.0"),
        ({"max_backtracks": -1}, ValueError, "max_backtracks: .*-1"),
        ({"reorthogonalize": 1}, TypeError, "reorthogonalize: 1.* given; want True or False"),
        ({"line_search": "no"}, TypeError, "line_search: 'no'.* given; want True or False"),
    ],
)
def test_misuse_is_named_and_changes_nothing(change, error, message):
    engine = problem()
    with pytest.raises(error, match=message):
        trust_region_step(engine, **change)
    assert engine.untouched()
    assert engine.evaluations == 0


@pytest.mark.parametrize(
    ("method", "answer", "error", "message"),
    [
        ("surrogate_gradient", [1.0] * 8, TypeError, r"engine.surrogate_gradient\(\): list.* given; want an ndarray"),
        (
            "fisher_operator",
            DenseOperator(np.eye(3)),
            ValueError,
            r"gradient, engine.fisher_operator\(\): .*\(8,\) and \(3, 3\) given; want one size",
        ),
        ("fisher_operator", lambda v: v[:3], ValueError, r"engine.fisher_operator\(\): .*shape \(3,\)"),
        (
            "parameters",
            np.zeros(3),
            ValueError,
            r"step, engine.parameters\(\): \(8,\) and \(3,\) given; want one shape",
        ),
    ],
)
def test_an_engine_that_answers_something_else_is_named(method, answer, error, message):
    engine = problem()
    setattr(engine, method, lambda: answer)
    with pytest.raises(error, match=message):
        trust_region_step(engine)
    assert engine.evaluations == 0


class Policy:
    """What somebody may pass in an engine's place: it has parameters, too."""

    def parameters(self):
        return iter(())


@pytest.mark.parametrize(
    ("engine", "lacking"),
    [(None, "NoneType given, .*no surrogate_gradient, .*evaluate"), (Policy(), "Policy given, .*no surrog")],
)
def test_what_is_no_engine_is_named_with_what_makes_one(engine, lacking):
    with pytest.raises(TypeError, match=rf"engine: {lacking}.*; want an engine, as make_engine\(policy\) returns"):
        trust_region_step(engine)
