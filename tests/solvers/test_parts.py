"""The parts of a step, each alone and in a row: direction, length, search with a further condition."""

import copy
import math
import signal
import warnings
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.solvers.test_trust_region import Quadratic, Unwell, problem
from trpo_fast import (
    Direction,
    DirectionSettings,
    Status,
    StepSettings,
    TrustRegionReport,
    backtracking_line_search,
    conjugate_gradient,
    find_direction,
    step_length,
    trust_region_step,
    try_step,
)
from trpo_fast._core.operator import DenseOperator

DTYPES = [np.float32, np.float64]


def engine_of(seed, n, dtype, answer=None):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    fisher = (basis * np.geomspace(10.0 ** rng.integers(-2, 2), 0.1, n)) @ basis.T
    return Quadratic(rng.normal(size=n), fisher, dtype, answer)


DIRECTIONS = st.builds(
    DirectionSettings,
    damping=st.floats(0, 10),
    relative_damping=st.one_of(st.just(0.0), st.floats(1e-3, 10)),
    cg_iterations=st.integers(1, 20),
    cg_rtol=st.sampled_from([0.0, 1e-10, 0.1]),
    cg_progress_tol=st.sampled_from([0.0, 1e-3]),
    reorthogonalize=st.booleans(),
)
STEPS = st.builds(
    StepSettings,
    max_kl=st.floats(1e-6, 1),
    kl_direction=st.sampled_from(["new_old", "old_new"]),
    step_curvature=st.sampled_from(["fisher", "damped"]),
    line_search=st.booleans(),
    backtrack_factor=st.floats(0.1, 0.9),
    max_backtracks=st.integers(0, 5),
)


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 12),
    dtype=st.sampled_from(DTYPES),
    direction=DIRECTIONS,
    step=STEPS,
    scale=st.sampled_from([0.5, 1.0, 3.0, 100.0]),
    bound=st.floats(0, 1),
)
@settings(max_examples=150)
def test_the_parts_in_a_row_are_the_step_bit_for_bit(seed, n, dtype, direction, step, scale, bound):
    one, other, third = (engine_of(seed, n, dtype, lambda gain, kl: (gain, scale * kl)) for _ in range(3))

    def accept(trial):
        return trial.step_fraction <= bound + 0.1

    found = find_direction(one, one.surrogate_gradient(), direction)
    length = step_length(found, step)
    search = None if length is None else try_step(one, length * found.x, step, accept=accept)
    by_hand = TrustRegionReport.of_parts(found, length, search, step)
    by_names = {**vars(direction), **vars(step)}
    reports = [
        trust_region_step(other, direction=direction, step=step, accept=accept),
        trust_region_step(third, accept=accept, **by_names),
    ]
    for engine, report in zip((other, third), reports, strict=True):
        assert engine.theta.tobytes() == one.theta.tobytes() and engine.directions == one.directions
        report.timings.update(by_hand.timings)
        assert report == by_hand
    assert one.seen == one.theta.tobytes()
    assert (by_hand.status == 0) == (one.theta.tobytes() != one.origin.tobytes())


@given(seed=st.integers(0, 99), dtype=st.sampled_from(DTYPES), damping=st.floats(0.05, 5))
def test_the_direction_solves_the_damped_system_and_moves_nothing(seed, dtype, damping):
    engine = engine_of(seed, 8, dtype)
    found = find_direction(engine, settings=DirectionSettings(damping=damping, cg_iterations=30))
    x = np.linalg.solve(engine.F + damping * np.eye(8), engine.g)
    tolerance = (1e-4 if dtype == np.float32 else 1e-8) * np.linalg.norm(x)
    np.testing.assert_allclose(found.x, x, rtol=0, atol=tolerance)
    assert found.usable and found.x.dtype == np.float64
    assert found.curvature == pytest.approx(x @ engine.F @ x, rel=1e-3)
    assert found.slope == pytest.approx(x @ engine.g, rel=1e-3)
    assert found.squared_norm == pytest.approx(x @ x, rel=1e-3)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(engine.g), rel=1e-6)
    assert found.residual == pytest.approx(found.residual_norm / found.gradient_norm)
    assert engine.untouched() and engine.evaluations == 0


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(DTYPES),
    damping=st.floats(0, 1),
    relative=st.floats(0.01, 10),
    unit=st.sampled_from([1e-3, 1.0, 1e3]),
    size=st.sampled_from([1e-12, 1.0, 1e12]),
)
def test_relative_damping_is_a_part_of_the_curvature_along_the_gradient(seed, dtype, damping, relative, unit, size):
    """Whatever the units of F, to which the policy's standard deviation belongs, and of the gradient are."""
    usual = engine_of(seed, 8, np.float64)
    F, g = usual.F * unit, usual.g * size
    asked = DirectionSettings(damping=damping * unit, relative_damping=relative, cg_iterations=30)
    found = find_direction(Quadratic(g, F, dtype), settings=asked)
    total = unit * (damping + relative * (usual.g @ usual.F @ usual.g) / (usual.g @ usual.g))
    assert found.damping == pytest.approx(total, rel=1e-5)
    x = np.linalg.solve(F + total * np.eye(8), g)
    tolerance = (1e-4 if dtype == np.float32 else 1e-8) * np.linalg.norm(x)
    np.testing.assert_allclose(found.x, x, rtol=0, atol=tolerance)
    report = trust_region_step(Quadratic(g, F, dtype), direction=asked)
    assert report.damping == found.damping


def test_relative_damping_costs_one_product_and_goes_to_the_preconditioner():
    engine, given, products = problem(), [], []

    def product(v):
        products.append(v)
        return engine.F @ v

    def preconditioner(name, *, damping, rows):
        given.append((name, damping, rows))
        return DenseOperator(np.diag(1 / (np.diag(engine.F) + damping)))

    engine.preconditioner, engine.fisher_operator = preconditioner, lambda: product
    asked = DirectionSettings(damping=0.3, relative_damping=0.5, cg_iterations=3, cg_rtol=0.0, preconditioner="kfac")
    found = find_direction(engine, settings=asked)
    assert given == [("kfac", found.damping, None)] and found.damping > 0.3
    assert len(products) == found.iterations + 1


@pytest.mark.parametrize("fisher", [-np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan), np.full((3, 3), 1e300)])
def test_relative_damping_of_no_curvature_changes_nothing_about_the_outcome(fisher):
    plain, relative = (
        find_direction(Quadratic(np.ones(3), fisher, np.float64), settings=DirectionSettings(damping=0.5, **more))
        for more in ({}, {"relative_damping": 0.1})
    )
    assert (plain.status, plain.usable) == (relative.status, relative.usable)


@given(seed=st.integers(0, 99), max_kl=st.floats(1e-6, 1e3), damping=st.floats(0, 5))
def test_the_length_takes_the_quadratic_model_to_the_border_of_the_region(seed, max_kl, damping):
    engine = engine_of(seed, 6, np.float64)
    found = find_direction(engine, settings=DirectionSettings(damping=damping, cg_iterations=30))
    step = step_length(found, StepSettings(max_kl=max_kl)) * found.x
    assert 0.5 * step @ engine.F @ step == pytest.approx(max_kl, rel=1e-6)
    damped = step_length(found, StepSettings(max_kl=max_kl, step_curvature="damped")) * found.x
    assert 0.5 * damped @ (engine.F + damping * np.eye(6)) @ damped == pytest.approx(max_kl, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("gradient", "status"),
    [(np.zeros(3), Status.NO_GRADIENT), ([1, np.nan, 0], Status.NON_FINITE), ([1, np.inf, 0], Status.NON_FINITE)],
)
def test_without_a_gradient_there_is_no_direction_and_no_length(gradient, status, dtype):
    found = find_direction(Quadratic(gradient, np.eye(3), dtype))
    assert (found.status, found.usable) == (status, False)
    assert not found.x.any()
    assert step_length(found) is None
    report = TrustRegionReport.of_parts(found)
    assert (report.status, report.cg_status, report.step_norm) == (status, status, 0.0)
    assert report.timings == {"gradient": 0.0, "solve": 0.0, "line_search": 0.0}


def test_a_direction_can_be_that_of_another_gradient():
    engine, other = problem(), np.arange(8.0)
    found = find_direction(engine, other, DirectionSettings(cg_iterations=30))
    np.testing.assert_allclose(found.x, np.linalg.solve(engine.F + 0.1 * np.eye(8), other), rtol=1e-7)
    assert found.gradient is other


def test_a_direction_can_come_from_another_solver():
    engine = problem()
    x = np.linalg.solve(engine.F + 0.1 * np.eye(8), engine.g)
    found = Direction(engine.surrogate_gradient(), x, curvature=float(x @ engine.F @ x), damping=0.1)
    length = step_length(found)
    search = try_step(engine, length * found.x)
    assert search.status == Status.SUCCESS
    usual = problem()
    report = trust_region_step(usual, cg_iterations=30)
    np.testing.assert_allclose(engine.theta, usual.theta, rtol=1e-8)
    own = TrustRegionReport.of_parts(found, length, search)
    assert own.kl == pytest.approx(report.kl) and own.step_norm == pytest.approx(report.step_norm)
    solution = conjugate_gradient(engine.F, engine.g, damping=0.1, max_iter=30)
    np.testing.assert_array_equal(Direction.from_solution(solution, engine.g, 0.1).x, solution.x)


def test_a_preconditioner_of_ones_own_is_taken_in_place_of_the_one_that_the_settings_name():
    engine = problem()
    inverse = np.linalg.inv(engine.F + 0.1 * np.eye(8))
    found = find_direction(engine, settings=DirectionSettings(preconditioner="kfac"), preconditioner=inverse)
    assert found.iterations == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_cast_to_the_precision_of_the_parameters(dtype):
    engine = problem(dtype)
    step = np.full(8, 1e-3)
    engine.g = step.copy()
    assert try_step(engine, step).status == Status.SUCCESS
    np.testing.assert_array_equal(engine.theta, engine.origin + step.astype(dtype))


class Script:
    """Answers from a list, and counts."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def __call__(self, trial):
        self.asked.append(trial)
        return self.answers[len(self.asked) - 1]


OUTCOMES = st.tuples(st.sampled_from([-1.0, 0.0, 1.0, math.nan]), st.sampled_from([0.0, 1.0, 2.0, math.inf]))


@given(
    outcomes=st.lists(OUTCOMES, min_size=1, max_size=8),
    answers=st.lists(st.booleans(), min_size=8, max_size=8),
    dtype=st.sampled_from(DTYPES),
)
def test_the_first_trial_for_which_everything_holds_is_accepted_and_the_condition_is_asked_last(
    outcomes, answers, dtype
):
    theta = np.array([0.1, -0.0, 1e-40], dtype)
    before, step, asked = theta.tobytes(), np.array([1, 2, 3], dtype), Script(answers)
    objective = iter(outcomes)
    result = backtracking_line_search(
        lambda _: next(objective),
        theta,
        step,
        max_kl=1.0,
        backtrack_factor=0.5,
        max_backtracks=len(outcomes) - 1,
        accept=asked,
    )
    # In plain words: who is asked, and who is the first to hear yes.
    eligible = [j for j, (gain, kl) in enumerate(outcomes) if gain > 0 and kl <= 1 and math.isfinite(gain)]
    yes = [j for j, answer in zip(eligible, answers, strict=False) if answer]
    last = eligible.index(yes[0]) + 1 if yes else len(eligible)
    assert [trial.step_fraction for trial in asked.asked] == [0.5**j for j in eligible[:last]]
    if yes:
        assert (result.status, result.backtracks, result.step_fraction) == (Status.SUCCESS, yes[0], 0.5 ** yes[0])
        assert theta.tobytes() != before
        return
    gain, kl = outcomes[-1]
    reason = Status.CONDITION_VIOLATED
    if not (math.isfinite(gain) and math.isfinite(kl)):
        reason = Status.NON_FINITE
    elif gain <= 0:
        reason = Status.NO_IMPROVEMENT
    elif kl > 1:
        reason = Status.KL_VIOLATED
    assert (result.status, result.step_fraction) == (reason, 0.0)
    assert theta.tobytes() == before


def test_a_condition_sees_the_trial_while_the_parameters_are_its_own():
    engine = problem(evaluate=lambda gain, kl: (gain, 2 * kl))
    seen = []

    def accept(trial):
        assert engine.seen == engine.theta.tobytes() == trial.theta.tobytes() != engine.origin.tobytes()
        seen.append((trial.improvement, trial.kl, trial.step_fraction))
        return len(seen) == 2

    report = trust_region_step(engine, max_kl=0.01, backtrack_factor=0.8, accept=accept)
    # 2 * 0.64^j <= 1 first at j = 2, which is refused.
    assert (report.status, report.backtracks) == (Status.SUCCESS, 3)
    assert seen[-1] == (report.improvement, report.kl, report.step_fraction)
    assert [fraction for *_, fraction in seen] == pytest.approx([0.8**2, 0.8**3])


def test_a_condition_cannot_write_the_parameters_through_its_trial():
    engine = problem()

    def accept(trial):
        trial.theta[0] = 1.0

    with pytest.raises(ValueError, match="read-only"):
        trust_region_step(engine, accept=accept)
    assert engine.untouched()


@pytest.mark.parametrize("line_search", [True, False])
def test_a_step_that_the_condition_refuses_restores_every_bit_and_says_so(line_search):
    engine, asked = problem(), Script([False] * 4)
    report = trust_region_step(engine, max_backtracks=3, line_search=line_search, accept=asked)
    assert engine.untouched()
    assert (report.status, report.step_norm) == (Status.CONDITION_VIOLATED, 0.0)
    assert len(asked.asked) == (4 if line_search else 1)


def test_a_full_step_is_taken_where_the_condition_holds_and_not_asked_where_it_is_not_finite():
    engine = problem(evaluate=lambda gain, kl: (-gain, 100 * kl))
    assert trust_region_step(engine, line_search=False, accept=lambda trial: True).status == Status.SUCCESS
    engine, asked = problem(evaluate=lambda gain, kl: (math.nan, kl)), Script([])
    assert trust_region_step(engine, line_search=False, accept=asked).status == Status.NON_FINITE
    assert engine.untouched() and not asked.asked


@pytest.mark.parametrize("line_search", [True, False])
def test_parameters_that_are_not_finite_are_no_step_whatever_is_said_of_them(line_search):
    engine = engine_of(0, 4, np.float32, lambda gain, kl: (1.0, 0.01))  # as of a network that saturates
    before = engine.parameters().copy()
    settings = StepSettings(line_search=line_search, max_backtracks=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = try_step(engine, np.array([0.0, 1e39, 0.0, 0.0]), settings)
    assert report.status == Status.NON_FINITE
    np.testing.assert_array_equal(engine.parameters(), before)


@pytest.mark.parametrize("line_search", [True, False])
@pytest.mark.parametrize("error", [Unwell, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_error_in_the_condition_restores_every_bit_and_reaches_the_caller(error, line_search, dtype):
    engine, asked, raised = problem(dtype), count(), error("of the condition")

    def accept(trial):
        if not line_search or next(asked) == 2:
            raise raised
        return False

    with pytest.raises(error) as caught:
        trust_region_step(engine, accept=accept, line_search=line_search)
    assert caught.value is raised
    assert engine.untouched()


def test_ctrl_c_in_the_condition_restores_every_bit():
    engine = problem()

    def accept(trial):
        signal.raise_signal(signal.SIGINT)
        return False

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trust_region_step(engine, accept=accept)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert engine.untouched()


@pytest.mark.parametrize("answer", [True, np.True_, np.array(True), np.array([True]), torch.tensor(True)])
def test_a_condition_answers_with_a_truth_of_any_library(answer):
    assert trust_region_step(problem(), accept=lambda trial: answer).status == Status.SUCCESS


@pytest.mark.parametrize("answer", [None, 1, 1.0, "yes", np.array([True, False]), torch.ones(2), np.float64(1)])
def test_a_condition_that_answers_something_else_is_named_and_restores_every_bit(answer):
    engine = problem()
    with pytest.raises(TypeError, match=r"accept: .* given; want True or False"):
        trust_region_step(engine, accept=lambda trial: answer)
    assert engine.untouched()


@pytest.mark.parametrize("theta", [np.zeros(2), torch.zeros(2, dtype=torch.float64)])
def test_a_condition_of_a_search_alone_gets_the_parameters_in_kind(theta):
    seen, theta = [], copy.deepcopy(theta)

    def accept(trial):
        seen.append((type(trial.theta), [float(item) for item in trial.theta]))
        return True

    result = backtracking_line_search(lambda _: (1.0, 0.0), theta, theta + 1, max_kl=1.0, accept=accept)
    assert (result.status, seen) == (Status.SUCCESS, [(type(theta), [1.0, 1.0])])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: find_direction(None), TypeError, "engine: NoneType given.*fisher_operator"),
        (lambda e: find_direction(e, settings=StepSettings()), TypeError, "settings: .* given; want DirectionSettings"),
        (lambda e: find_direction(e, settings={"damping": 1}), TypeError, "settings: .* given; want DirectionSettings"),
        (lambda e: find_direction(e, [1.0] * 8), TypeError, "gradient: list given; want an ndarray of float"),
        (
            lambda e: find_direction(e, np.ones(8, int)),
            TypeError,
            "gradient: .*int64.* given; want an ndarray of float",
        ),
        (
            lambda e: find_direction(e, np.ones(3)),
            ValueError,
            r"gradient, .*: shapes \(3,\) and \(8, 8\).* given; want one size",
        ),
        (lambda e: find_direction(e, np.ones(8, np.float32)), TypeError, "gradient: float32 given; want float64, as"),
        (lambda e: find_direction(e, np.ones((8, 1))), ValueError, r"gradient: shape \(8, 1\) given; want \(n,\)"),
        (lambda e: step_length(find_direction(e), DirectionSettings()), TypeError, "settings: .*want StepSettings"),
        (lambda e: try_step(object(), np.ones(8)), TypeError, "engine: .*object.*no parameters, .*evaluate"),
        (
            lambda e: try_step(e, np.ones(3)),
            ValueError,
            r"step, engine.parameters\(\): \(3,\) and \(8,\).* given; want one shape",
        ),
        (lambda e: try_step(e, [1.0] * 8), TypeError, "step: list given; want an ndarray"),
        (lambda e: try_step(e, np.ones(8), 0.1), TypeError, "settings: 0.1.* given; want StepSettings"),
        (lambda e: try_step(e, np.ones(8), accept=True), TypeError, "accept: bool given; want a callable"),
        (lambda e: trust_region_step(e, accept=1), TypeError, "accept: int given; want a callable"),
        (lambda e: trust_region_step(e, accept=1, line_search=False), TypeError, "accept: int given; want a callable"),
        (lambda e: trust_region_step(e, maxkl=1), TypeError, "'maxkl' is no setting.*did you mean max_kl"),
        (lambda e: trust_region_step(e, direction=StepSettings()), TypeError, "direction: .*want DirectionSettings"),
        (lambda e: trust_region_step(e, step={}), TypeError, r"step: \{\}.* given; want StepSettings"),
        (lambda e: trust_region_step(e, preconditioner="jacobi"), ValueError, "preconditioner: .*'jacobi'.*'kfac'"),
        (lambda e: trust_region_step(e, damping=10**400), ValueError, "damping: .*want a finite number >= 0"),
    ],
)
def test_misuse_of_a_part_is_named_and_changes_nothing(call, error, message):
    engine = problem()
    with pytest.raises(error, match=message):
        call(engine)
    assert engine.untouched()


def test_keywords_replace_fields_of_the_settings_given():
    one, other = problem(), problem()
    settings = StepSettings(max_kl=1e-3, step_curvature="damped")
    trust_region_step(one, step=settings, max_kl=1e-4, damping=0.5)
    trust_region_step(other, max_kl=1e-4, damping=0.5, step_curvature="damped")
    assert one.theta.tobytes() == other.theta.tobytes() != one.origin.tobytes()


def test_whatever_has_parameters_and_measures_them_can_be_searched():
    class Bowl:
        theta = np.array([1.0, 1.0])

        def parameters(self):
            return self.theta

        def parameters_changed(self):
            pass

        def evaluate(self, kl_direction):
            assert kl_direction == "old_new"
            return 2.0 - float(self.theta @ self.theta), 0.0

    bowl = Bowl()
    result = try_step(bowl, -bowl.theta, StepSettings(kl_direction="old_new"))
    assert result.status == Status.SUCCESS and not bowl.theta.any()


def test_a_fisher_matrix_of_zeros_gives_no_length():
    engine = Quadratic(np.ones(3), np.zeros((3, 3)))
    engine.fisher_operator = lambda: DenseOperator(np.zeros((3, 3)))
    found = find_direction(engine)
    assert found.usable and step_length(found) is None
    assert TrustRegionReport.of_parts(found).status == Status.NO_CURVATURE


@pytest.mark.parametrize("size", [1e-200, 1e-163, 1e-150, 1e150, 1e160, 1e200])
def test_a_gradient_whose_squares_no_double_holds_has_a_direction(size):
    engine = Quadratic(np.ones(3), np.eye(3))
    found = find_direction(engine, np.full(3, size), DirectionSettings(damping=0.0))
    assert found.status == Status.SUCCESS
    assert found.gradient_norm == pytest.approx(size * math.sqrt(3), rel=1e-14)
    np.testing.assert_allclose(found.x, size, rtol=1e-12)
    length = step_length(found)
    if 1e-150 <= size <= 1e150:
        np.testing.assert_allclose(length * found.x, math.sqrt(2 * StepSettings().max_kl / 3), rtol=1e-12)
    else:  # x'Fx is 0 or infinite
        assert length is None
        assert TrustRegionReport.of_parts(found).status == Status.NO_CURVATURE


def test_a_direction_of_tensors_is_one_of_their_numbers():
    g = torch.tensor([1.0, 2.0])
    solution = conjugate_gradient(lambda v: 2 * v, g)
    of_tensors, of_arrays = (
        Direction.from_solution(solution, g, 0.1),
        Direction(g.numpy(), solution.x.numpy(), solution.curvature, 0.1),
    )
    assert isinstance(of_tensors.x, np.ndarray) and of_tensors.x.dtype == np.float64
    assert step_length(of_tensors) == step_length(of_arrays) > 0


ONES = np.ones(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: step_length(None), TypeError, "direction: None.* given; want Direction"),
        (lambda: TrustRegionReport.of_parts(None), TypeError, "direction: None.* given; want Direction"),
        (
            lambda: TrustRegionReport.of_parts(Direction(ONES, ONES), 1.0, 3),
            TypeError,
            "search: .*want LineSearchResult",
        ),
        (lambda: Direction([1.0], ONES), TypeError, "gradient: list.* given; want an ndarray of float32 or float64"),
        (lambda: Direction(ONES, [1.0, 1.0]), TypeError, "x: list.* given; want an ndarray of float32 or float64"),
        (lambda: Direction(ONES, np.ones(3)), ValueError, r"x: shape \(3,\) given; want \(2,\) as the gradient has"),
        (lambda: Direction(ONES, np.ones((2, 1))), ValueError, r"x: shape \(2, 1\) given; want \(n,\)"),
        (lambda: Direction(ONES, ONES, status=0), TypeError, "status: 0.* given; want a Status"),
        (lambda: Direction(ONES, ONES, "1"), TypeError, "curvature: .*want a number"),
        (
            lambda: Direction(ONES, ONES, iterations="many"),
            TypeError,
            "iterations: 'many'.* given; want an integer >= 0",
        ),
        (lambda: Direction(ONES, ONES, iterations=-1), TypeError, "iterations: -1.* given; want an integer >= 0"),
        (lambda: Direction.from_solution(ONES, ONES, 0.1), TypeError, "solution: ndarray.* given; want a CGResult"),
    ],
)
def test_what_is_no_direction_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
