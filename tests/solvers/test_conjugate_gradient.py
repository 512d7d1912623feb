"""Conjugate gradient against dense solves and the float64 oracle, and every way in which it can end."""

import random
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator

from tests import reference
from trpo_fast import Status, conjugate_gradient
from trpo_fast._core import cg
from trpo_fast._core.operator import CallableOperator, DenseOperator

DTYPES = [np.float32, np.float64]
GOAL = {np.float32: 1e-3, np.float64: 1e-8}
LARGEST_CONDITION = {np.float32: 2, np.float64: 4}  # decimal exponent

# Deterministic, and without deadlines: the machine is shared.
repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def spd(n, condition, seed=0, dtype=np.float64):
    """Symmetric positive definite (n, n), eigenvalues from 1 down to 1 / condition."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = (basis * np.geomspace(1, 1 / condition, n)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype)


def right_hand_side(n, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(size=n).astype(dtype)


def relative_error(actual, expected):
    return np.linalg.norm(actual.astype(np.float64) - expected) / np.linalg.norm(expected)


class Counted:
    """v -> A v that counts its calls, and does `spoil(result)` at call number `at`."""

    def __init__(self, matrix, at=None, spoil=None):
        self.matrix, self.at, self.spoil, self.calls = matrix, at, spoil, 0

    def __call__(self, v):
        self.calls += 1
        result = self.matrix @ v
        return self.spoil(result) if self.calls == self.at else result


def test_the_test_matrices_have_the_condition_that_they_claim():
    eigenvalues = np.linalg.eigvalsh(spd(30, 1e4))
    assert eigenvalues[-1] == pytest.approx(1)
    assert eigenvalues[0] == pytest.approx(1e-4)


@repeatable
@given(
    n=st.integers(1, 30),
    exponent=st.floats(0, 1),
    damping=st.sampled_from([0.0, 0.1, 3.0]),
    dtype=st.sampled_from(DTYPES),
    reorthogonalize=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_converged_solve_is_the_dense_solve(n, exponent, damping, dtype, reorthogonalize, seed):
    condition = 10 ** (exponent * LARGEST_CONDITION[dtype])
    A, b = spd(n, condition, seed, dtype), right_hand_side(n, dtype, seed)
    result = conjugate_gradient(
        A, b, max_iter=10 * n, rtol=GOAL[dtype], damping=damping, reorthogonalize=reorthogonalize
    )
    assert result.status == Status.SUCCESS
    exact = np.linalg.solve(A.astype(np.float64) + damping * np.eye(n), b.astype(np.float64))
    # |x - exact| <= |A^-1| |residual|, and the recurrence's residual is off by some eps |A| |x| per iteration.
    assert relative_error(result.x, exact) <= condition * (GOAL[dtype] + 100 * np.finfo(dtype).eps)


@repeatable
@given(
    scale_A=st.integers(-40, 40),
    scale_b=st.integers(-15, 15),
    dtype=st.sampled_from(DTYPES),
    reorthogonalize=st.booleans(),
)
def test_nothing_is_added_to_a_denominator(scale_A, scale_b, dtype, reorthogonalize):
    # Scaling by powers of two is exact, so every bit must follow; an epsilon somewhere would show.
    a, s = 2.0**scale_A, 2.0**scale_b
    A, b = spd(12, 50, dtype=dtype), right_hand_side(12, dtype)
    options = {"max_iter": 7, "rtol": 0.0}
    plain = conjugate_gradient(A, b, damping=0.125, reorthogonalize=False, **options)
    scaled = conjugate_gradient(
        (a * A).astype(dtype), (s * b).astype(dtype), damping=0.125 * a, reorthogonalize=reorthogonalize, **options
    )
    assert scaled.status == plain.status == Status.ITERATION_LIMIT
    if reorthogonalize:
        np.testing.assert_allclose(scaled.x * (a / s), plain.x, rtol=1e3 * np.finfo(dtype).eps)
    else:
        np.testing.assert_array_equal(scaled.x, (plain.x * (s / a)).astype(dtype))
        assert scaled.residual_norm == plain.residual_norm * s


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-5), (np.float64, 1e-9)])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_with_reorthogonalization_25_iterations_are_those_of_exact_arithmetic(dtype, tolerance, preconditioned):
    # A few large eigenvalues over many small ones, as Fisher matrices have them: where plain CG loses orthogonality.
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))
    A = (basis * np.concatenate([np.geomspace(100, 5, 4), np.geomspace(1, 1e-3, 196)])) @ basis.T
    A, b = ((A + A.T) / 2).astype(dtype), right_hand_side(200, dtype)
    exact = reference.conjugate_gradient(lambda v: A.astype(np.float64) @ v, b, 25, damping=0.01)
    # A multiple of the identity changes no iterate, but takes the other path.
    M = 3 * np.eye(200, dtype=dtype) if preconditioned else None
    options = {"max_iter": 25, "rtol": 0, "damping": 0.01, "preconditioner": M}
    assert relative_error(conjugate_gradient(A, b, reorthogonalize=True, **options).x, exact) < tolerance
    assert relative_error(conjugate_gradient(A, b, **options).x, exact) > 0.01


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x0", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_truncated_solve_reports_the_true_residual_and_curvature(damping, x0, dtype):
    A, b = spd(60, 1e3, dtype=dtype), right_hand_side(60, dtype)
    start = right_hand_side(60, dtype, seed=5) if x0 else None
    result = conjugate_gradient(A, b, max_iter=8, damping=damping, x0=start)
    assert (result.status, result.iterations) == (Status.ITERATION_LIMIT, 8)
    x, matrix = result.x.astype(np.float64), A.astype(np.float64)
    tolerance = 100 * float(np.finfo(dtype).eps)
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - matrix @ x - damping * x), rel=100 * tolerance)
    assert result.curvature == pytest.approx(x @ matrix @ x, rel=tolerance)


@pytest.mark.parametrize("reorthogonalize", [False, True])
def test_each_iteration_takes_one_product(reorthogonalize):
    A, b = Counted(spd(40, 100)), right_hand_side(40)
    for max_iter in (0, 1, 7):
        A.calls = 0
        result = conjugate_gradient(A, b, max_iter=max_iter, reorthogonalize=reorthogonalize)
        assert A.calls == result.iterations == max_iter
    A.calls = 0
    result = conjugate_gradient(A, b, max_iter=100, rtol=1e-3)
    assert result.status == Status.SUCCESS
    assert A.calls == result.iterations
    A.calls = 0
    result = conjugate_gradient(A, b, max_iter=7, x0=np.ones(40))
    assert A.calls == result.iterations + 1


def test_each_iteration_takes_one_application_of_the_preconditioner():
    M = Counted(np.eye(40))
    result = conjugate_gradient(spd(40, 100), right_hand_side(40), max_iter=100, rtol=1e-3, preconditioner=M)
    assert result.status == Status.SUCCESS
    assert M.calls == result.iterations


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_right_hand_side_and_the_start_are_not_modified(dtype):
    A, b, x0 = spd(20, 100, dtype=dtype), right_hand_side(20, dtype), right_hand_side(20, dtype, seed=9)
    kept_b, kept_x0 = b.copy(), x0.copy()
    for start in (None, x0, b):
        result = conjugate_gradient(A, b, max_iter=5, x0=start)
        assert not np.shares_memory(result.x, b)
        assert not np.shares_memory(result.x, x0)
    np.testing.assert_array_equal(b, kept_b)
    np.testing.assert_array_equal(x0, kept_x0)


def test_an_operator_may_return_or_change_or_keep_what_it_was_given():
    b, scale = right_hand_side(20), np.geomspace(1, 9, 20)
    expected = conjugate_gradient(lambda v: scale * v, b, max_iter=5).x
    assert conjugate_gradient(lambda v: v, b, max_iter=5).iterations == 1
    kept, buffer = [], np.empty(20)

    def changes_its_operand(v):
        v *= scale
        return v

    def keeps_its_operand(v):
        kept.append((v, v.copy()))
        return scale * v

    def reuses_its_result(v):
        return np.multiply(scale, v, out=buffer)

    for operator in (changes_its_operand, keeps_its_operand, reuses_its_result):
        np.testing.assert_array_equal(conjugate_gradient(operator, b, max_iter=5).x, expected)
    for operand, as_it_was in kept:
        np.testing.assert_array_equal(operand, as_it_was)


def test_no_global_random_number_is_drawn_and_two_solves_give_the_same_bits():
    A, b = spd(40, 1e3), right_hand_side(40)
    legacy, python = np.random.get_state(), random.getstate()
    first, second = (conjugate_gradient(A, b, max_iter=12).x for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert random.getstate() == python
    for before, after in zip(legacy, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


def martens_stop(models, tolerance):
    """The iteration at which Martens 2010, sec. 4.4, stops, given phi(x_0), phi(x_1) ..."""
    for i in range(len(models)):
        k = max(10, i // 10)
        if i > k and models[i] < 0 and (models[i] - models[i - k]) / models[i] < k * tolerance:
            return i
    return None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("tolerance", [5e-4, 5e-3])
def test_a_solve_without_progress_stops_where_martens_does(tolerance, preconditioned, start, dtype):
    n, damping = 200, 1e-4
    A, b = spd(n, 1e5).astype(dtype), right_hand_side(n, dtype)
    options = {
        "max_iter": 500,
        "rtol": 0.0,
        "damping": damping,
        "reorthogonalize": True,
        "preconditioner": np.diag(np.linspace(1, 3, n)).astype(dtype) if preconditioned else None,
        "x0": 0.1 * b if start else None,
    }
    iterates = [np.zeros(n) if not start else 0.1 * b.astype(np.float64)]
    conjugate_gradient(A, b, callback=lambda x: iterates.append(x.astype(np.float64)), **options)
    models = [0.5 * x @ (A @ x + damping * x) - b @ x for x in iterates]
    result = conjugate_gradient(A, b, progress_tol=tolerance, **options)
    assert result.status == Status.NO_PROGRESS > 0
    assert result.iterations == martens_stop(models, tolerance) < 190
    np.testing.assert_array_equal(result.x, iterates[result.iterations].astype(dtype))


def test_a_tolerance_of_zero_never_stops_and_one_that_is_not_met_changes_no_bit():
    A, b = spd(100, 1e5, dtype=np.float32), right_hand_side(100, np.float32)
    options = {"max_iter": 60, "rtol": 0.0, "damping": 1e-4, "reorthogonalize": True}
    plain = conjugate_gradient(A, b, **options)
    for tolerance in (0.0, 1e-12):
        result = conjugate_gradient(A, b, progress_tol=tolerance, **options)
        assert (result.status, result.iterations) == (plain.status, plain.iterations) == (Status.ITERATION_LIMIT, 60)
        assert result.x.tobytes() == plain.x.tobytes()


def test_a_goal_reached_is_a_success_whatever_the_progress():
    A, b = spd(60, 100), right_hand_side(60)
    reached = conjugate_gradient(A, b, max_iter=100, rtol=1e-3)
    result = conjugate_gradient(A, b, max_iter=100, rtol=1e-3, progress_tol=10.0)
    assert reached.iterations > 11
    assert (result.status, result.iterations) == (Status.NO_PROGRESS, 11)
    assert conjugate_gradient(A, b, max_iter=100, rtol=0.3, progress_tol=10.0).status == Status.SUCCESS


@pytest.mark.parametrize("goal", ["rtol", "atol"])
def test_the_tolerance_bounds_the_residual_and_not_its_square(goal):
    A, b, residuals = spd(40, 1e3), right_hand_side(40), []
    b *= 7
    conjugate_gradient(A, b, max_iter=60, rtol=0, callback=lambda x: residuals.append(np.linalg.norm(b - A @ x)))
    wanted = 1e-2 * np.linalg.norm(b)
    options = {"rtol": 1e-2} if goal == "rtol" else {"rtol": 0, "atol": wanted}
    result = conjugate_gradient(A, b, max_iter=60, **options)
    assert result.status == Status.SUCCESS
    assert result.iterations == 1 + next(i for i, residual in enumerate(residuals) if residual <= wanted)
    assert result.residual_norm <= wanted


def test_the_looser_of_the_two_tolerances_counts():
    A, b = spd(40, 1e3), right_hand_side(40)
    loose = conjugate_gradient(A, b, max_iter=60, rtol=1e-2)
    assert conjugate_gradient(A, b, max_iter=60, rtol=1e-2, atol=1e-9).iterations == loose.iterations
    assert (
        conjugate_gradient(A, b, max_iter=60, rtol=1e-9, atol=1e-2 * np.linalg.norm(b)).iterations == loose.iterations
    )
    assert conjugate_gradient(A, b, rtol=np.inf).iterations == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smallest", [-1.0, -1e-3])
def test_an_operator_that_is_not_positive_definite_is_reported(smallest, dtype):
    A = np.diag(np.array([1, 2, smallest], dtype))
    result = conjugate_gradient(A, np.ones(3, dtype), max_iter=20)
    assert result.status == Status.NOT_POSITIVE_DEFINITE
    assert np.isfinite(result.x).all()
    assert result.iterations > 0 or (result.x == 0).all()
    mended = conjugate_gradient(A, np.ones(3, dtype), max_iter=20, damping=-2 * smallest, rtol=1e-5)
    assert mended.status == Status.SUCCESS


def test_a_preconditioner_that_is_not_positive_definite_is_reported():
    result = conjugate_gradient(spd(5, 10), np.ones(5), preconditioner=-np.eye(5))
    assert (result.status, result.iterations) == (Status.NOT_POSITIVE_DEFINITE, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_semidefinite_operator_stagnates_with_a_usable_x(dtype):
    A = np.diag(np.array([1, 1, 0], dtype))
    result = conjugate_gradient(A, np.array([0, 0, 1], dtype))
    assert (result.status, result.iterations) == (Status.STAGNATED, 0)
    np.testing.assert_array_equal(result.x, 0)
    # In the range of A there is a solution.
    result = conjugate_gradient(A, np.array([1, 2, 0], dtype))
    assert result.status == Status.SUCCESS
    np.testing.assert_allclose(result.x, [1, 2, 0], rtol=1e-6)
    assert conjugate_gradient(np.zeros((3, 3), dtype), np.ones(3, dtype)).status == Status.STAGNATED


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [1, 4])
def test_a_product_that_is_not_finite_leaves_the_last_good_iterate(at, bad, dtype):
    def spoil(product):
        product[3] = bad
        return product

    matrix, b = spd(20, 1e3, dtype=dtype), right_hand_side(20, dtype)
    result = conjugate_gradient(Counted(matrix, at, spoil), b, max_iter=9)
    good = conjugate_gradient(matrix.__matmul__, b, max_iter=at - 1)
    assert (result.status, result.iterations) == (Status.NON_FINITE, at - 1)
    np.testing.assert_array_equal(result.x, good.x)
    assert result.residual_norm == good.residual_norm


@pytest.mark.parametrize("at", [1, 4])
def test_a_preconditioner_that_is_not_finite_leaves_the_last_good_iterate(at):
    matrix, b = spd(20, 1e3), right_hand_side(20)
    M = Counted(np.eye(20), at, lambda product: product * np.nan)
    result = conjugate_gradient(matrix, b, max_iter=9, preconditioner=M)
    assert (result.status, result.iterations) == (Status.NON_FINITE, at - 1)
    np.testing.assert_array_equal(result.x, conjugate_gradient(matrix, b, max_iter=at - 1, preconditioner=np.eye(20)).x)


def test_a_start_at_which_the_product_is_not_finite_is_kept():
    result = conjugate_gradient(lambda v: v * np.nan, np.ones(4), x0=np.full(4, 2.0))
    assert (result.status, result.iterations) == (Status.NON_FINITE, 0)
    np.testing.assert_array_equal(result.x, 2)


def test_a_step_beyond_the_range_of_the_dtype_leaves_x_finite():
    # 1 / 1e-40 does not exist in float32, though its product with p does.
    for b in (np.full(3, 1e5, np.float32), np.array([1e5, 1e-20, 0], np.float32)):
        result = conjugate_gradient(np.float32(1e-40) * np.eye(3, dtype=np.float32), b)
        assert result.status == Status.NON_FINITE
        np.testing.assert_array_equal(result.x, 0)


@pytest.mark.parametrize("preconditioner", [None, np.eye(50)])
@pytest.mark.parametrize("reorthogonalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 1e-15, 1e-22, 1e-30])
def test_residuals_may_become_as_small_as_the_dtype_has_them(size, dtype, reorthogonalize, preconditioner):
    # 1 / r'r overflows float32 long before r does: reorthogonalization once made NaN of that, and SUCCESS of NaN.
    A, b = spd(50, 1.001, dtype=dtype), (size * right_hand_side(50)).astype(dtype)
    result = conjugate_gradient(
        A, b, max_iter=30, rtol=0, reorthogonalize=reorthogonalize, preconditioner=preconditioner
    )
    assert result.status >= 0
    assert np.isfinite([result.residual_norm, result.curvature]).all()
    exact = np.linalg.solve(A.astype(np.float64), b.astype(np.float64))
    assert relative_error(result.x, exact) < 20 * np.finfo(dtype).eps


def test_an_operators_exception_reaches_the_caller():
    class Unwell(Exception):
        pass

    error = Unwell("not today")

    def spoil(_):
        raise error

    with pytest.raises(Unwell) as caught:
        conjugate_gradient(Counted(spd(20, 1e3), 3, spoil), right_hand_side(20))
    assert caught.value is error
    with pytest.raises(Unwell):
        conjugate_gradient(np.eye(20), right_hand_side(20), preconditioner=spoil)
    with pytest.raises(Unwell):
        conjugate_gradient(spd(20, 1e3), right_hand_side(20), callback=spoil)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.ones(4), ValueError, r"A: .*\(4,\).*\(5,\)"),
        (np.ones((5, 1)), ValueError, r"A: .*\(5, 1\).*\(5,\)"),
        (1.0, ValueError, r"A: .*\(\).*\(5,\)"),
        (np.ones(5, np.complex128), TypeError, "A: .*complex128"),
        (None, ValueError, "A: "),
        (np.array(["a"] * 5), TypeError, "A: .*dtype"),
    ],
)
def test_an_operator_that_returns_something_else_is_named(result, error, message):
    with pytest.raises(error, match=message):
        conjugate_gradient(lambda v: result, np.ones(5))


def test_ctrl_c_lands_between_products():
    # list.append runs no Python bytecode, so nothing but the loop itself can notice the signal.
    A, iterations = DenseOperator(np.diag(np.geomspace(1, 1e-8, 1500))), []
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        with pytest.raises(KeyboardInterrupt):
            conjugate_gradient(A, right_hand_side(1500), max_iter=2000, rtol=0, callback=iterations.append)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(iterations) < 2000


def test_ctrl_c_inside_an_operator_reaches_the_caller():
    def spoil(product):
        signal.raise_signal(signal.SIGINT)
        return product

    A = Counted(spd(20, 1e3), 3, spoil)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            conjugate_gradient(A, right_hand_side(20))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert A.calls == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_operator_gives_the_same_solution(dtype):
    A, b = spd(30, 100, dtype=dtype), right_hand_side(30, dtype)
    compiled = DenseOperator(A)
    expected = conjugate_gradient(A, b).x
    assert expected.dtype == dtype
    for same in (compiled, compiled.matvec, CallableOperator(compiled.matvec, 30, dtype), np.asfortranarray(A)):
        np.testing.assert_array_equal(conjugate_gradient(same, b).x, expected)
    scipys = LinearOperator((30, 30), matvec=compiled.matvec, dtype=dtype)
    np.testing.assert_array_equal(conjugate_gradient(scipys, b).x, expected)
    for near in (A.__matmul__, A.astype(np.float64), lambda v: A.astype(np.float64) @ v):
        np.testing.assert_allclose(conjugate_gradient(near, b).x, expected, rtol=1e4 * np.finfo(dtype).eps)


def test_read_only_and_strided_right_hand_sides_are_fine():
    A, b = spd(30, 100), right_hand_side(30)
    expected = conjugate_gradient(A, b).x
    strided = np.repeat(b, 2)[::2]
    b.flags.writeable = A.flags.writeable = False
    np.testing.assert_array_equal(conjugate_gradient(A, b).x, expected)
    np.testing.assert_array_equal(conjugate_gradient(A, strided).x, expected)


def test_a_right_hand_side_of_zeros_is_solved_without_a_product():
    A = Counted(spd(10, 10))
    for x0 in (None, np.ones(10)):
        result = conjugate_gradient(A, np.zeros(10), x0=x0)
        assert (result.status, result.iterations, A.calls) == (Status.SUCCESS, 0, 0)
        np.testing.assert_array_equal(result.x, 0)
    assert conjugate_gradient(lambda v: v, np.zeros(0)).x.shape == (0,)


def test_a_start_is_taken_up():
    A, b = spd(40, 1e3), right_hand_side(40)
    exact = np.linalg.solve(A, b)
    assert conjugate_gradient(A, b, x0=exact, rtol=1e-10).iterations == 0
    near = conjugate_gradient(A, b, x0=exact + 1e-6, max_iter=100, rtol=1e-9)
    assert near.status == Status.SUCCESS
    assert near.iterations < conjugate_gradient(A, b, max_iter=100, rtol=1e-9).iterations
    np.testing.assert_array_equal(conjugate_gradient(A, b, x0=np.zeros(40)).x, conjugate_gradient(A, b).x)
    np.testing.assert_array_equal(conjugate_gradient(A, b, x0=[0.0] * 40).x, conjugate_gradient(A, b).x)


@pytest.mark.parametrize("reorthogonalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exact_inverse_as_preconditioner_solves_in_one_iteration(dtype, reorthogonalize):
    A, b = spd(30, 100, dtype=dtype), right_hand_side(30, dtype)
    inverse = np.linalg.inv(A.astype(np.float64) + 0.1 * np.eye(30))
    result = conjugate_gradient(A, b, damping=0.1, rtol=1e-5, preconditioner=inverse, reorthogonalize=reorthogonalize)
    assert (result.status, result.iterations) == (Status.SUCCESS, 1)
    np.testing.assert_allclose(result.x, inverse @ b, rtol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("reorthogonalize", [False, True])
def test_a_preconditioner_changes_the_way_and_not_the_solution(reorthogonalize):
    rng = np.random.default_rng(3)
    scale = np.geomspace(1, 1e3, 40)
    A = spd(40, 10) * np.sqrt(np.outer(scale, scale))
    b = rng.normal(size=40)
    options = {"max_iter": 200, "rtol": 1e-10}
    plain = conjugate_gradient(A, b, **options)
    jacobi = conjugate_gradient(
        A, b, preconditioner=lambda r: r / np.diag(A), reorthogonalize=reorthogonalize, **options
    )
    assert jacobi.status == Status.SUCCESS
    assert jacobi.iterations < plain.iterations / 2
    np.testing.assert_allclose(jacobi.x, np.linalg.solve(A, b), rtol=1e-6)


def test_reorthogonalization_stops_when_the_space_is_spanned():
    A = Counted(spd(6, 1e3))
    result = conjugate_gradient(A, right_hand_side(6), max_iter=50, rtol=0, reorthogonalize=True)
    assert result.iterations <= 6
    assert A.calls == result.iterations + 1  # and one for a residual near the dtype's accuracy
    assert result.residual_norm < 1e-12


def test_the_callback_sees_x_after_every_iteration():
    A, b, seen = spd(20, 100), right_hand_side(20), []
    result = conjugate_gradient(A, b, max_iter=4, callback=lambda x: seen.append(x.copy()))
    assert len(seen) == 4
    for iterations, x in enumerate(seen, 1):
        np.testing.assert_array_equal(x, conjugate_gradient(A, b, max_iter=iterations).x)
    np.testing.assert_array_equal(seen[-1], result.x)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"b": [1.0, 2.0]}, TypeError, "b: .*list"),
        ({"b": np.ones(5, np.float16)}, TypeError, "b: .*float16"),
        ({"b": np.ones(5, np.int64)}, TypeError, "b: .*int64"),
        ({"b": np.ones(5, np.complex128)}, TypeError, "b: .*complex128"),
        ({"b": np.ones((5, 1))}, ValueError, r"b: .*\(5, 1\)"),
        ({"b": np.array([1, np.nan, 1, 1, 1])}, ValueError, "b: .*not finite"),
        ({"b": np.array([1, np.inf, 1, 1, 1])}, ValueError, "b: .*not finite"),
        ({"b": np.ones(4)}, ValueError, "A: .*5.* given; want 4"),
        ({"A": np.eye(5)[:4]}, ValueError, r"A: .*\(4, 5\).*square"),
        ({"A": np.eye(5) * 1j}, TypeError, "A: .*complex128"),
        ({"A": np.eye(5).tolist()}, TypeError, "A: .*list"),
        ({"A": LinearOperator((4, 4), matvec=lambda v: v, dtype=float)}, ValueError, r"A: .*\(4, 4\).*\(5, 5\)"),
        ({"A": DenseOperator(np.eye(5, dtype=np.float32))}, TypeError, "A: .*float32.*float64"),
        ({"A": DenseOperator(np.eye(4))}, ValueError, "A: size 4 given; want 5"),
        ({"preconditioner": np.eye(4)}, ValueError, "preconditioner: .*4.*5"),
        ({"preconditioner": 3}, TypeError, "preconditioner: .*int"),
        ({"x0": np.ones(5, complex)}, TypeError, "x0: complex128.* given; want real numbers"),
        ({"x0": ["a"] * 5}, TypeError, "x0: <U1.* given; want real numbers"),
        ({"x0": np.ones(4)}, ValueError, r"x0: .*\(4,\).*\(5,\)"),
        ({"x0": np.full(5, np.nan)}, ValueError, "x0: .*not finite"),
        ({"max_iter": -1}, ValueError, "max_iter: .*-1"),
        ({"max_iter": 2**40}, ValueError, "max_iter: .*1099511627776"),
        ({"max_iter": 2.5}, TypeError, "max_iter: .*2.5"),
        ({"max_iter": True}, TypeError, "max_iter: .*True"),
        ({"rtol": -1e-3}, ValueError, "rtol: .*-0.001"),
        ({"rtol": np.nan}, ValueError, "rtol: .*nan"),
        ({"rtol": "tight"}, TypeError, "rtol: .*tight"),
        ({"atol": -1}, ValueError, "atol: .*-1"),
        ({"damping": -0.1}, ValueError, "damping: .*-0.1"),
        ({"damping": np.inf}, ValueError, "damping: .*inf"),
        ({"progress_tol": -1e-3}, ValueError, "progress_tol: .*-0.001"),
        ({"progress_tol": "5e-4"}, TypeError, "progress_tol: .*'5e-4'"),
    ],
)
def test_misuse_is_named(change, error, message):
    with pytest.raises(error, match=message):
        conjugate_gradient(**({"A": np.eye(5), "b": np.ones(5)} | change))


def solve(x, b=None, A=None, preconditioner=None):
    """The compiled loop itself."""
    return cg.solve(
        DenseOperator(np.eye(5)) if A is None else A,
        np.ones(5) if b is None else b,
        x,
        max_iter=3,
        rtol=0.0,
        atol=0.0,
        damping=0.0,
        progress_tol=0.0,
        preconditioner=preconditioner,
        start_from_x=False,
        reorthogonalize=False,
        callback=None,
    )


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.ones(4)}, ValueError, "x: .*4.*5"),
        ({"x": np.ones((5, 1))}, ValueError, "x: "),
        ({"x": np.ones(5, np.float32)}, TypeError, "x: .*float32.*float64"),
        ({"x": np.ones(10)[::2]}, ValueError, "x: .*contiguous"),
        ({"x": read_only(np.ones(5))}, ValueError, "x: .*read-only.*writable"),
        ({"x": [0.0] * 5}, TypeError, "x: .*list"),
        ({"x": np.ones(5), "b": np.ones(10)[::2]}, ValueError, "b: .*contiguous"),
        ({"x": np.ones(5), "b": np.ones(5, np.float32)}, TypeError, "b: .*float32"),
        ({"x": np.ones(5), "b": np.ones(5, ">f8")}, (TypeError, ValueError), "b: "),
        ({"x": np.ones(5), "preconditioner": DenseOperator(np.eye(4))}, ValueError, "preconditioner: .*4.*5"),
        ({"x": np.ones(5), "preconditioner": np.eye(5)}, TypeError, "preconditioner"),
        ({"x": np.ones(5), "A": np.eye(5)}, TypeError, "'A'"),
    ],
)
def test_the_compiled_loop_refuses_arrays_that_do_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        solve(**arguments)


def test_the_compiled_loop_refuses_to_work_on_an_alias_of_b():
    both = np.ones(8)
    for x in (both[:5], both[2:7], both[3:]):
        with pytest.raises(ValueError, match=r"x: shares memory with b"):
            solve(x, b=both[:5])
    np.testing.assert_array_equal(both, 1)


@pytest.mark.parametrize("reorthogonalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_success_is_never_claimed_for_a_residual_below_the_dtypes_accuracy(dtype, reorthogonalize):
    A, b = spd(60, 100.0).astype(dtype), right_hand_side(60).astype(dtype)
    result = conjugate_gradient(A, b, max_iter=400, rtol=1e-17, reorthogonalize=reorthogonalize)
    exact = b.astype(np.float64) - A.astype(np.float64) @ result.x.astype(np.float64)
    true = np.linalg.norm(exact)
    assert result.status > 0
    eps = float(np.finfo(dtype).eps)
    assert result.residual_norm == pytest.approx(true, rel=0.5, abs=30 * eps * float(np.linalg.norm(b)))
    assert result.residual_norm > 0.01 * eps * np.linalg.norm(b)


def true_residual(A, b, x, damping=0.0):
    """||b - (A + damping I) x|| in extended precision, whose exponents also hold squares of every double."""
    A, b, x = (np.asarray(array, np.longdouble) for array in (A, b, x))
    return np.sqrt(((b - A @ x - np.longdouble(damping) * x) ** 2).sum())


def length(x):
    return np.sqrt((np.asarray(x, np.longdouble) ** 2).sum())


@repeatable
@given(
    n=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    far=st.integers(-3, 18),
    damping=st.sampled_from([0.0, 0.5]),
    reorthogonalize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_from_a_start_however_far_success_is_what_the_residual_itself_says(
    n, dtype, far, damping, reorthogonalize, seed
):
    A, b = spd(n, 30, seed, dtype), right_hand_side(n, dtype, seed + 1)
    x0 = (10.0**far * np.random.default_rng(seed + 2).normal(size=n)).astype(dtype)
    result = conjugate_gradient(A, b, x0=x0, max_iter=400, rtol=1e-3, damping=damping, reorthogonalize=reorthogonalize)
    true = true_residual(A, b, result.x, damping)
    rounding = 20 * np.finfo(dtype).eps * length(result.x)
    assert abs(result.residual_norm - true) <= 0.01 * true + rounding
    if result.status == Status.SUCCESS:
        assert true <= 1.01e-3 * length(b) + rounding
    else:
        assert result.status in (Status.ITERATION_LIMIT, Status.STAGNATED)
    if not reorthogonalize:  # which ends after n iterations
        assert result.status == Status.SUCCESS


def test_a_far_start_reaches_the_goal_by_starting_again():
    A, b = spd(30, 100, dtype=np.float32), right_hand_side(30, np.float32)
    counted = Counted(A)
    result = conjugate_gradient(counted, b, x0=np.full(30, 1e6, np.float32), max_iter=200, rtol=1e-3)
    assert result.status == Status.SUCCESS
    assert true_residual(A, b, result.x) <= 1.01e-3 * length(b)
    assert 30 < result.iterations < 100
    assert counted.calls <= result.iterations + 4


@repeatable
@given(
    dtype=st.sampled_from(DTYPES),
    place=st.floats(0.0, 1.0),
    scale_A=st.integers(-3, 3),
    reorthogonalize=st.booleans(),
    preconditioned=st.booleans(),
    started=st.booleans(),
)
def test_a_right_hand_side_of_any_size_is_solved_for_or_said_not_to_be(
    dtype, place, scale_A, reorthogonalize, preconditioned, started
):
    A, b = (10.0**scale_A * spd(12, 30)).astype(dtype), right_hand_side(12, np.float64)
    low, high = (-45, 37) if dtype == np.float32 else (-323, 307)
    b = np.ldexp(b, int(np.log2(10) * (low + place * (high - low)))).astype(dtype)
    options = {"max_iter": 60, "rtol": 1e-3, "reorthogonalize": reorthogonalize}
    if preconditioned:
        options["preconditioner"] = np.diag(1 / np.diag(A))
    if started:
        options["x0"] = b
    result = conjugate_gradient(A, b, **options)
    assert np.isfinite(result.x).all()
    if result.status == Status.SUCCESS:
        assert true_residual(A, b, result.x) <= 1.01e-3 * length(b)
        return
    # Only where x itself cannot be held: beyond the largest number, or with too few digits below the least normal one.
    expected = length(np.linalg.solve(A.astype(np.float64), b / float(length(b)))) * length(b)
    if result.status == Status.NON_FINITE:
        assert expected > 0.1 * np.finfo(dtype).max
    else:
        assert result.status == Status.STAGNATED
        assert expected < 1e4 * np.finfo(dtype).tiny
        assert true_residual(A, b, result.x) == pytest.approx(result.residual_norm, rel=0.01)


@pytest.mark.parametrize(("dtype", "tiny"), [(np.float32, 1e-36), (np.float64, 1e-200), (np.float64, 1e-310)])
def test_a_tiny_right_hand_side_gives_the_scaled_solution_and_its_numbers(dtype, tiny):
    A, b = spd(20, 30, dtype=dtype), right_hand_side(20, dtype)
    scale = 2.0 ** np.floor(np.log2(tiny))
    seen = []
    options = {"max_iter": 12, "rtol": 0.0, "callback": lambda x: seen.append(x.copy())}
    plain = conjugate_gradient(A, b, **options)
    steps = [x.copy() for x in seen]
    seen.clear()
    scaled = conjugate_gradient(A, (b * scale).astype(dtype), **options)
    assert (scaled.status, scaled.iterations) == (plain.status, plain.iterations)
    exact = np.finfo(dtype).tiny < 1e-3 * tiny  # no digit is lost
    for found, expected in zip([scaled.x, *seen], [plain.x, *steps], strict=True):
        np.testing.assert_allclose(found / scale, expected, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-3)
    assert scaled.residual_norm / scale == pytest.approx(plain.residual_norm, rel=1e-6 if exact else 0.5)


def test_an_absolute_tolerance_is_not_scaled_with_the_right_hand_side():
    A, b = np.diag([1.0, 2.0, 3.0]), np.full(3, 1e-200)
    assert conjugate_gradient(A, b, atol=1e-190, rtol=0).iterations == 0
    assert conjugate_gradient(A, b, atol=1e-203, rtol=0).residual_norm <= 1e-203
    assert conjugate_gradient(A, b, atol=1e-203, rtol=0).iterations > 0


def test_a_start_that_is_the_solution_of_a_tiny_right_hand_side_is_kept():
    A, x = np.diag([1e-200, 2e-200]), np.array([1.0, 3.0])
    result = conjugate_gradient(A, A @ x, x0=x)
    assert result.status == Status.SUCCESS
    np.testing.assert_array_equal(result.x, x)


@pytest.mark.parametrize("reorthogonalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_truncated_solve_from_zero_takes_a_product_for_each_iteration_and_no_other(dtype, reorthogonalize):
    A, b = spd(200, 1e4, dtype=dtype), right_hand_side(200, dtype)
    counted = Counted(A)
    result = conjugate_gradient(counted, b, max_iter=25, rtol=1e-10, damping=1e-3, reorthogonalize=reorthogonalize)
    assert result.status == Status.ITERATION_LIMIT
    assert counted.calls == result.iterations == 25


def test_bad_flags_and_callbacks_are_named():
    with pytest.raises(TypeError, match="reorthogonalize"):
        conjugate_gradient(np.eye(2), np.ones(2), reorthogonalize="no")
    with pytest.raises(TypeError, match="callback"):
        conjugate_gradient(np.eye(2), np.ones(2), callback=3)
    with pytest.raises(ValueError, match="preconditioner: the operator returned shape"):
        conjugate_gradient(np.eye(2), np.ones(2), preconditioner=lambda v: v[:1])
    with pytest.raises(ValueError, match="x0"):
        conjugate_gradient(np.eye(2, dtype=np.float32), np.ones(2, np.float32), x0=np.full(2, 1e300))


def test_a_callback_cannot_write_the_solvers_own_vector():
    A, b = spd(20, 1e3), right_hand_side(20)

    def spoil(x):
        x[:] = 0

    for right in (b, 1e-300 * b):  # the second is solved for scaled
        with pytest.raises(ValueError, match="read-only"):
            conjugate_gradient(A, right, callback=spoil)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-160, 1e160, 1e200, 1e300])
def test_an_operator_of_any_size_that_a_double_holds_is_solved_with(size, n):
    scale = size * np.arange(1, n + 1)
    result = conjugate_gradient(np.diag(scale), np.ones(n))
    assert result.status == Status.SUCCESS
    np.testing.assert_allclose(result.x, 1 / scale, rtol=1e-9)
    np.testing.assert_allclose(result.curvature, (1 / scale).sum(), rtol=1e-9)  # x'Ax with an x'x of no double


def test_an_operator_and_a_right_hand_side_may_both_be_large():
    result = conjugate_gradient(np.array([[1e300]]), np.array([1e120]))
    assert result.status == Status.SUCCESS
    np.testing.assert_allclose([result.x[0], result.curvature], [1e-180, 1e-60], rtol=1e-9)


def test_a_product_beyond_float32_is_an_outcome():
    result = conjugate_gradient(lambda v: 1e300 * v.astype(np.float64), np.ones(2, np.float32))
    assert (result.status, result.iterations) == (Status.NON_FINITE, 0)


def test_damping_counts_in_the_curvature_where_squares_of_x_overflow():
    result = conjugate_gradient(np.array([[1e-200]]), np.ones(1), damping=1e-200)
    assert result.status == Status.SUCCESS
    np.testing.assert_allclose([result.x[0], result.curvature], [5e199, 2.5e199], rtol=1e-9)


def test_a_curvature_beyond_a_double_is_infinite_and_not_nan():
    result = conjugate_gradient(np.array([[1e-150]]), np.array([1e100]))
    assert (result.status, result.curvature) == (Status.SUCCESS, np.inf)


def test_a_residual_at_the_goal_is_a_success_also_where_the_next_product_underflowed():
    result = conjugate_gradient(np.array([[1e-38]], np.float32), np.ones(1, np.float32))
    assert (result.status, result.residual_norm) == (Status.SUCCESS, 0.0)
