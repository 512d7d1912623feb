"""Backtracking: which trial is accepted, and that a failure leaves every bit of the parameters."""

import math
import signal

import numpy as np
import pytest

from trpo_fast import Status, backtracking_line_search

DTYPES = [np.float32, np.float64]
# Values whose bits arithmetic could lose: theta + 0 is not theta for -0.0, and a NaN has a payload.
AWKWARD = [0.1, -0.0, 0.0, 1e-40, -3.7e20, 1 / 3]


def awkward(dtype):
    return np.array(AWKWARD, dtype)


def refuses(_):
    return -1.0, 0.0


class Script:
    """An objective that answers from a list, and keeps the trials that it saw."""

    def __init__(self, *answers):
        self.answers, self.trials, self.arrays = list(answers), [], []

    def __call__(self, theta):
        self.arrays.append(theta)
        self.trials.append(theta.copy())
        answer = self.answers[len(self.trials) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_trial_that_improves_within_the_region_is_accepted(dtype):
    theta, step = np.linspace(-1, 1, 7).astype(dtype), np.linspace(3, 2, 7).astype(dtype)
    start, kept = theta.copy(), step.copy()
    script = Script((-0.5, 0.001), (0.5, 0.02), (0.25, 0.009), (9, 0))
    result = backtracking_line_search(script, theta, step, max_kl=0.01, backtrack_factor=0.5)
    assert result == (Status.SUCCESS, 2, 0.25, 0.009, 0.25)
    assert len(script.trials) == 3
    np.testing.assert_array_equal(step, kept)
    np.testing.assert_array_equal(theta, start + dtype(0.25) * step)
    for j, trial in enumerate(script.trials):
        np.testing.assert_array_equal(trial, start + dtype(0.5**j) * step)


def test_the_objective_is_given_theta_itself():
    theta, script = np.zeros(3), Script((1, 0))
    backtracking_line_search(script, theta, np.ones(3), max_kl=1)
    assert script.arrays[0] is theta


def test_trials_start_from_theta_and_not_from_the_last_trial():
    theta, script = np.array([1e16]), Script(*[(-1, 0)] * 3)
    backtracking_line_search(script, theta, np.array([1.0]), max_kl=1, max_backtracks=2, backtrack_factor=0.5)
    np.testing.assert_array_equal(script.trials, [[1e16]] * 3)


@pytest.mark.parametrize(
    ("improvement", "kl", "accepted"),
    [(5e-324, 0.01, True), (0.0, 0.0, False), (1.0, np.nextafter(0.01, 1), False), (1.0, 0.01, True), (-0.0, 0, False)],
)
def test_improvement_is_strict_and_the_region_is_closed(improvement, kl, accepted):
    theta = np.zeros(2)
    result = backtracking_line_search(lambda _: (improvement, kl), theta, np.ones(2), max_kl=0.01, max_backtracks=0)
    assert (result.status == Status.SUCCESS) == accepted
    np.testing.assert_array_equal(theta, 1 if accepted else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((-1.0, 0.0), Status.NO_IMPROVEMENT),
        ((-1.0, 9.0), Status.NO_IMPROVEMENT),
        ((1.0, 9.0), Status.KL_VIOLATED),
        ((math.nan, 0.0), Status.NON_FINITE),
        ((1.0, math.nan), Status.NON_FINITE),
        ((math.inf, 0.0), Status.NON_FINITE),
        ((1.0, math.inf), Status.NON_FINITE),
    ],
)
def test_a_rejected_step_restores_every_bit_of_the_parameters(answer, status, dtype):
    theta = awkward(dtype)
    bits = theta.tobytes()
    result = backtracking_line_search(lambda _: answer, theta, np.full_like(theta, 0.3), max_kl=0.01, max_backtracks=3)
    assert theta.tobytes() == bits
    assert (result.status, result.backtracks, result.step_fraction) == (status, 3, 0.0)
    np.testing.assert_array_equal((result.improvement, result.kl), answer)


def test_the_reason_is_that_of_the_last_trial():
    for last, status in (((1, 9), Status.KL_VIOLATED), ((-1, 0), Status.NO_IMPROVEMENT)):
        script = Script((math.nan, 0), (1, 9), last)
        result = backtracking_line_search(script, np.zeros(2), np.ones(2), max_kl=0.01, max_backtracks=2)
        assert result[:4] == (status, 2, *last)


def test_an_early_trial_that_is_not_finite_does_not_end_the_search():
    script = Script((math.nan, math.nan), (1.0, 0.0))
    assert backtracking_line_search(script, np.zeros(2), np.ones(2), max_kl=0.01).backtracks == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_never_become_non_finite(dtype):
    largest = np.finfo(dtype).max
    theta, script = np.array([largest, 1], dtype), Script((1.0, 0.0))
    # The full step overflows; the objective is asked from the first finite trial on.
    result = backtracking_line_search(
        script, theta, np.array([largest, 1], dtype) / dtype(2**10), max_kl=1, backtrack_factor=2.0**-20
    )
    assert result.status == Status.SUCCESS
    assert result.backtracks >= 1
    assert len(script.trials) == 1
    assert np.isfinite(theta).all()
    for bad in (np.nan, np.inf):
        theta, script = awkward(dtype), Script()
        bits, step = theta.tobytes(), np.array([0, bad, 0, 0, 0, 0], dtype)
        result = backtracking_line_search(script, theta, step, max_kl=1)
        assert result.status == Status.NON_FINITE
        assert math.isnan(result.improvement) and math.isnan(result.kl)
        assert theta.tobytes() == bits
        assert not script.trials


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at", [0, 2])
def test_an_exception_in_the_objective_restores_every_bit_and_reaches_the_caller(at, dtype):
    theta = awkward(dtype)
    bits, error = theta.tobytes(), ZeroDivisionError("of the objective")
    with pytest.raises(ZeroDivisionError) as caught:
        backtracking_line_search(Script(*[(-1, 0)] * at, error), theta, np.ones_like(theta), max_kl=1)
    assert caught.value is error
    assert theta.tobytes() == bits


def test_ctrl_c_restores_every_bit():
    theta = awkward(np.float64)
    bits = theta.tobytes()

    def objective(_):
        signal.raise_signal(signal.SIGINT)
        return 1.0, 0.0

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            backtracking_line_search(objective, theta, np.ones(6), max_kl=1)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert theta.tobytes() == bits


@pytest.mark.parametrize("answer", [None, 1.0, (1.0,), (1.0, 0.0, 0.0), ("a", "b"), (None, 0.0), (1j, 0.0)])
def test_an_objective_that_answers_something_else_is_an_error_that_restores(answer):
    theta = awkward(np.float64)
    bits = theta.tobytes()
    with pytest.raises(TypeError, match=r"objective: .* given; want two numbers, \(improvement, kl\)"):
        backtracking_line_search(lambda _: answer, theta, np.ones(6), max_kl=1)
    assert theta.tobytes() == bits


def test_max_backtracks_counts_the_trials_after_the_first():
    for backtracks in (0, 1, 5):
        script = Script(*[(-1, 0)] * 9)
        result = backtracking_line_search(script, np.zeros(2), np.ones(2), max_kl=1, max_backtracks=backtracks)
        assert len(script.trials) == backtracks + 1
        assert result.backtracks == backtracks


def test_no_limit_on_the_kl_asks_for_improvement_alone():
    result = backtracking_line_search(lambda _: (1.0, 1e300), np.zeros(2), np.ones(2), max_kl=math.inf)
    assert result.status == Status.SUCCESS


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"theta": [0.0, 0.0]}, TypeError, "theta: .*list"),
        ({"theta": np.zeros(2, np.int64)}, TypeError, "theta: .*int64"),
        ({"theta": np.zeros(2, np.float16)}, TypeError, "theta: .*float16"),
        ({"theta": np.zeros((2, 1))}, ValueError, r"theta: .*\(2, 1\)"),
        ({"theta": np.zeros(4)[::2]}, ValueError, "theta: .*contiguous"),
        ({"theta": read_only(np.zeros(2))}, ValueError, "theta: .*read-only"),
        ({"step": np.zeros(3)}, ValueError, "step: .*3.*2"),
        ({"step": np.zeros(2, np.float32)}, TypeError, "step: .*float32.*float64"),
        ({"step": np.zeros(4)[::2]}, ValueError, "step: .*contiguous"),
        ({"step": [0.0, 0.0]}, TypeError, "step: .*list"),
        ({"max_kl": 0}, ValueError, "max_kl: .*0.*> 0"),
        ({"max_kl": -1.0}, ValueError, "max_kl: .*-1"),
        ({"max_kl": math.nan}, ValueError, "max_kl: .*nan"),
        ({"max_kl": None}, TypeError, "max_kl: .*None"),
        ({"backtrack_factor": 0}, ValueError, r"backtrack_factor: .*0.*\(0, 1\)"),
        ({"backtrack_factor": 1.0}, ValueError, r"backtrack_factor: .*1.0.*\(0, 1\)"),
        ({"backtrack_factor": math.nan}, ValueError, r"backtrack_factor: .*nan.*\(0, 1\)"),
        ({"max_backtracks": -1}, ValueError, "max_backtracks: .*-1"),
        ({"max_backtracks": 1.5}, TypeError, "max_backtracks: .*1.5"),
        ({"max_backtracks": 2**31}, ValueError, "max_backtracks: .*2147483648"),
        ({"objective": None}, TypeError, "objective: NoneType given; want a callable"),
        ({"objective": (1.0, 0.0)}, TypeError, "objective: tuple given; want a callable"),
    ],
)
def test_misuse_is_named(change, error, message):
    with pytest.raises(error, match=message):
        backtracking_line_search(
            **({"objective": refuses, "theta": np.zeros(2), "step": np.ones(2), "max_kl": 0.01} | change)
        )


def test_a_step_that_is_theta_is_refused():
    both = np.ones(4)
    for step in (both[:3], both[1:]):
        with pytest.raises(ValueError, match="step: shares memory with theta"):
            backtracking_line_search(refuses, both[:3], step, max_kl=1)
    np.testing.assert_array_equal(both, 1)


def test_the_largest_count_of_backtracks_that_is_taken_tries_the_whole_step():
    theta = np.zeros(2)
    result = backtracking_line_search(lambda _: (1.0, 0.0), theta, np.ones(2), max_kl=1, max_backtracks=2**31 - 1)
    assert (result.status, result.backtracks) == (Status.SUCCESS, 0)
    np.testing.assert_array_equal(theta, 1)
