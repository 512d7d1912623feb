"""Compiled operators: linear and symmetric, at home in scipy, and safe at their boundary."""

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_fast import KroneckerPreconditioner, conjugate_gradient
from trpo_fast._core.operator import CallableOperator, DenseOperator, Operator
from trpo_fast._core.policy import FisherOperator, PolicyKernel

DTYPES = [np.float32, np.float64]
KINDS = ["dense", "callable", "gaussian", "categorical"]


def symmetric(n, dtype=np.float64):
    matrix = np.random.default_rng(0).normal(size=(n, n))
    return (matrix @ matrix.T / n).astype(dtype)


def make(kind, dtype):
    """An operator, and what must stay alive for it."""
    if kind == "dense":
        return DenseOperator(symmetric(37, dtype))
    if kind == "callable":
        return CallableOperator(symmetric(37, dtype).__matmul__, 37, dtype)
    kernel = PolicyKernel((4, 9, 3), "tanh", kind, dtype)
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(150, 3)).astype(dtype) if kind == "gaussian" else rng.integers(0, 3, 150)
    kernel.bind(
        (0.5 * rng.normal(size=kernel.size)).astype(dtype),
        rng.normal(size=(150, 4)).astype(dtype),
        actions,
        rng.normal(size=150).astype(dtype),
    )
    return kernel.fisher_operator()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([2.0**-20, 1.0, -4.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_operators_are_symmetric_linear_and_nowhere_negative(kind, dtype, scale, seed):
    A = make(kind, dtype)
    u, v = np.random.default_rng(seed).normal(size=(2, A.size)).astype(dtype)
    Au, Av = A @ u, A @ v
    size = np.linalg.norm(Au) * np.linalg.norm(v) + np.linalg.norm(Av) * np.linalg.norm(u)
    tolerance = 50 * np.finfo(dtype).eps
    assert abs(u.astype(np.float64) @ Av - v.astype(np.float64) @ Au) <= tolerance * size
    assert v.astype(np.float64) @ Av >= 0
    combined = A @ (u + dtype(scale) * v)
    bound = tolerance * (np.linalg.norm(Au) + abs(scale) * np.linalg.norm(Av))
    assert np.linalg.norm(combined - (Au + dtype(scale) * Av)) <= bound
    # Powers of two are exact: not a bit may change but the exponent.
    np.testing.assert_array_equal(A @ (dtype(4) * v), dtype(4) * Av)
    np.testing.assert_array_equal(A @ np.zeros(A.size, dtype), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_operator_describes_itself(kind, dtype):
    A = make(kind, dtype)
    assert isinstance(A, Operator)
    assert A.shape == (A.size, A.size)
    assert A.dtype == np.dtype(dtype)
    v = np.ones(A.size, dtype)
    out = np.empty_like(v)
    assert A.matvec(v, out) is out
    np.testing.assert_array_equal(out, A.matvec(v))
    np.testing.assert_array_equal(out, A @ v)
    np.testing.assert_array_equal(A @ v.astype(np.float64), out)
    np.testing.assert_array_equal(A @ np.repeat(v, 2)[::2], out)
    np.testing.assert_array_equal(A @ v.astype(int).tolist(), out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 5, 16, 33, 200])
def test_a_dense_product_is_numpys(n, dtype):
    A, v = symmetric(n, dtype), np.random.default_rng(1).normal(size=n).astype(dtype)
    expected = A.astype(np.float64) @ v.astype(np.float64)
    np.testing.assert_allclose(DenseOperator(A) @ v, expected, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_a_dense_operator_does_not_copy_its_matrix():
    matrix = np.eye(3)
    A = DenseOperator(matrix)
    matrix[0, 0] = 7
    np.testing.assert_array_equal(A @ np.ones(3), [7, 1, 1])
    matrix.flags.writeable = False
    np.testing.assert_array_equal(DenseOperator(matrix) @ np.ones(3), [7, 1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_scipy_accepts_an_operator(kind):
    A = make(kind, np.float64)
    wrapped = scipy.sparse.linalg.aslinearoperator(A)
    assert wrapped.shape == A.shape
    assert wrapped.dtype == A.dtype
    damped = wrapped + 0.1 * scipy.sparse.linalg.aslinearoperator(np.eye(A.size))
    b = np.random.default_rng(2).normal(size=A.size)
    theirs, info = scipy.sparse.linalg.cg(damped, b, rtol=1e-10)
    assert info == 0
    ours = conjugate_gradient(A, b, damping=0.1, max_iter=500, rtol=1e-10).x
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


SOLVERS = {
    "cg": lambda A, b, M: scipy.sparse.linalg.cg(A, b, rtol=1e-5, M=M)[0],
    "minres": lambda A, b, M: scipy.sparse.linalg.minres(A, b, rtol=1e-7, M=M)[0],
    "bicg": lambda A, b, M: scipy.sparse.linalg.bicg(A, b, rtol=1e-5, M=M)[0],
    "gmres": lambda A, b, M: scipy.sparse.linalg.gmres(A, b, rtol=1e-5, M=M)[0],
    "lsqr": lambda A, b, M: scipy.sparse.linalg.lsqr(A, b, atol=1e-7, btol=1e-7)[0],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_scipys_solvers_take_compiled_operators_and_preconditioners(solver, dtype):
    n = 37
    matrix = symmetric(n, dtype) + np.eye(n, dtype=dtype)
    A, M = DenseOperator(matrix), KroneckerPreconditioner([], n, dtype, 0.0, np.diag(matrix).copy())
    b = np.random.default_rng(2).normal(size=n).astype(dtype)
    exact = np.linalg.solve(matrix.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(SOLVERS[solver](A, b, M), exact, rtol=0, atol=1e-4 * np.abs(exact).max())
    # a right-hand side of the other precision
    np.testing.assert_allclose(SOLVERS[solver](A, b.astype(np.float64), M), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scipys_view_of_an_operator_multiplies_whatever_scipy_multiplies(kind, dtype):
    A = make(kind, dtype)
    assert A.T is A and A.H is A
    wrapped = scipy.sparse.linalg.aslinearoperator(A)
    V = np.random.default_rng(3).normal(size=(A.size, 4)).astype(dtype)
    products = np.stack([A @ column for column in V.T], axis=1)
    assert products.shape == V.shape and products.dtype == dtype
    for same in (A @ V, A.matmat(V), A.rmatmat(V), wrapped @ V, wrapped.T @ V, wrapped.H @ V):
        np.testing.assert_array_equal(same, products)
    for column in (A.rmatvec(V[:, 1]), wrapped @ V[:, 1], wrapped.T @ V[:, 1], wrapped.rmatvec(V[:, 1])):
        np.testing.assert_array_equal(column, products[:, 1])
    np.testing.assert_array_equal(wrapped @ V[:, 1:2], products[:, 1:2])
    assert (A @ V[:, :0]).shape == (A.size, 0)
    largest = np.linalg.eigvalsh(A.matmat(np.eye(A.size)).astype(np.float64))[-1]
    found = scipy.sparse.linalg.eigsh(A, k=1, v0=np.ones(A.size), return_eigenvectors=False)
    np.testing.assert_allclose(found, largest, rtol=1e3 * np.finfo(dtype).eps)


def test_a_callable_gets_its_own_array_and_its_result_is_copied():
    given_arrays, result = [], np.ones(4)

    def function(v):
        given_arrays.append(v)
        v[:] = -1
        return result

    A, v = CallableOperator(function, 4, np.float64), np.arange(4.0)
    out = A @ v
    np.testing.assert_array_equal(v, np.arange(4))
    assert not np.shares_memory(given_arrays[0], v)
    assert not np.shares_memory(out, result)
    assert given_arrays[0].dtype == np.float64


@pytest.mark.parametrize(
    ("result", "expected"),
    [([1, 2, 3], [1, 2, 3]), (np.arange(6.0)[::2], [0, 2, 4]), (np.arange(3, dtype=np.float32), [0, 1, 2])],
)
def test_a_callable_may_return_any_real_vector(result, expected):
    np.testing.assert_array_equal(CallableOperator(lambda v: result, 3, np.float64) @ np.ones(3), expected)


def test_a_callables_exception_reaches_the_caller():
    def function(v):
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        CallableOperator(function, 3, np.float64) @ np.ones(3)


@pytest.mark.parametrize(
    ("construct", "error", "message"),
    [
        (lambda: DenseOperator([[1.0]]), TypeError, "matrix: .*list"),
        (lambda: DenseOperator(np.ones(3)), ValueError, r"matrix: .*\(3,\)"),
        (lambda: DenseOperator(np.ones((2, 3))), ValueError, r"matrix: .*\(2, 3\)"),
        (lambda: DenseOperator(np.ones((3, 3), np.float16)), TypeError, "float16"),
        (lambda: DenseOperator(np.ones((3, 3), np.int64)), TypeError, "int64"),
        (lambda: DenseOperator(np.ones((3, 3), order="F")), ValueError, "matrix: .*contiguous"),
        (lambda: DenseOperator(np.ones((6, 6))[::2, ::2]), ValueError, "matrix: .*contiguous"),
        (lambda: CallableOperator(3, 3, np.float64), TypeError, "function: .*int"),
        (lambda: CallableOperator(abs, -1, np.float64), ValueError, "size: .*-1"),
        (lambda: CallableOperator(abs, 3.0, np.float64), TypeError, "size: 3.0.* given; want an integer"),
        (lambda: CallableOperator(abs, "3", np.float64), TypeError, "size: '3'.* given; want an integer"),
        (lambda: CallableOperator(abs, None, np.float64), TypeError, "size: None.* given; want an integer"),
        (lambda: CallableOperator(abs, True, np.float64), TypeError, "size: True.* given; want an integer"),
        (lambda: CallableOperator(abs, 3, np.int32), TypeError, "dtype: .*int32"),
        (FisherOperator, TypeError, "fisher_operator"),
    ],
)
def test_an_operator_that_cannot_be_is_refused_by_name(construct, error, message):
    with pytest.raises(error, match=message):
        construct()


def test_the_abstract_operator_says_what_to_use_instead():
    class Mine(Operator):
        pass

    for operator in (Operator(), Mine()):
        assert operator.shape == (0, 0)
        with pytest.raises(TypeError, match=r"abstract.*CallableOperator"):
            operator.matvec(np.zeros(0))


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_do_not_fit_are_named(kind):
    A = make(kind, np.float64)
    n = A.size
    good, free = np.ones(n), np.empty(n)
    for v in (np.ones(n - 1), np.ones((n, 1)), np.ones(n, np.float32), np.ones(2 * n)[::2], good.tolist(), None):
        with pytest.raises((TypeError, ValueError), match=r"v: .*want a C-contiguous float64 array of shape \(\d+,\)"):
            A.matvec(v, free)
    for v in (np.ones(n - 1), np.ones((1, n)), np.ones((n, 1, 1)), 1.0):
        with pytest.raises(ValueError, match=r"v: .*want a .* float64 array of shape \(\d+,\)"):
            A.matvec(v)
    for v in (None, good * 1j, ["a"] * n):
        with pytest.raises(TypeError, match=r"v: .* given; want real numbers"):
            A.matvec(v)
    for V in (good, np.ones((n + 1, 2)), np.ones((1, n, 1))):
        with pytest.raises(ValueError, match=r"V: .*want \(\d+, k\)"):
            A.matmat(V)
    with pytest.raises(TypeError, match=r"V: complex128.* given; want real numbers"):
        A @ np.ones((n, 2), complex)
    for out in (np.ones(n - 1), np.ones((n, 1)), np.ones(n, np.float32), np.ones(2 * n)[::2], read_only(np.ones(n))):
        with pytest.raises((TypeError, ValueError), match=r"out: .*want a C-contiguous writable float64 array"):
            A.matvec(good, out)
    both = np.ones(n + 1)
    for out in (both[:n], both[1:]):
        with pytest.raises(ValueError, match="out: shares memory with v"):
            A.matvec(both[:n], out)
    np.testing.assert_array_equal(both, 1)


def test_what_has_no_buffer_or_no_alignment_is_named_like_the_rest():
    A, free = DenseOperator(np.eye(3)), np.empty(3)
    for v in (np.zeros(3, "M8[s]"), np.zeros(3, "m8[s]"), np.zeros(3, object), np.zeros(3, ">f8"), np.zeros(3, "V8")):
        with pytest.raises(TypeError, match=r"v: .*want a C-contiguous float64 array"):
            A.matvec(v, free)
    between = np.zeros(25, np.uint8)[1:].view(np.float64)
    with pytest.raises(
        ValueError,
        match=r"v: float64 array of shape \(3,\) misaligned in memory.* given; want a C-contig",
    ):
        A.matvec(between, free)


def test_a_wrong_dtype_is_a_type_error_and_a_wrong_shape_a_value_error():
    A = DenseOperator(np.eye(3))
    with pytest.raises(TypeError, match="float32"):
        A.matvec(np.ones(3, np.float32), np.empty(3))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        A.matvec(np.ones(4), np.empty(3))
