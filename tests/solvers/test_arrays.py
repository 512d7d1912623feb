"""Tensors, JAX arrays and scipy's matrices at the solvers' door."""

import functools
import importlib

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from trpo_fast import Status, backtracking_line_search, conjugate_gradient
from trpo_fast._core.operator import DenseOperator
from trpo_fast.solvers.arrays import as_numpy

DTYPES = [np.float32, np.float64]


def problem(dtype=np.float64, n=40):
    """A symmetric positive definite matrix of condition 30, and a right-hand side."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = (basis * np.geomspace(1, 30, n)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype), rng.normal(size=n).astype(dtype)


@functools.cache
def library(name):
    """`name`, where it is installed."""
    reason = f"{name} is not installed: its arrays take the path of array_api_strict's"
    found = pytest.importorskip("jax.numpy" if name == "jax" else name, reason=reason)
    if name == "jax":
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    return found


FOREIGN = ["array_api_strict", "jax"]
EVERY = ["torch", *FOREIGN]


def array_of(name, values):
    """`values` as an array of the library `name`, a copy."""
    return torch.tensor(values) if name == "torch" else library(name).asarray(values.copy())


def same_library(array, name):
    return type(array) is type(array_of(name, np.ones(1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EVERY)
def test_what_the_right_hand_side_is_the_operator_is_given_and_the_solution_is(name, dtype):
    matrix, b = problem(dtype)
    compiled, seen = DenseOperator(matrix), []
    options = {"max_iter": 9, "rtol": 0.0, "damping": 0.1}

    def product(v):
        seen.append(v)
        return array_of(name, compiled @ np.asarray(v))

    expected = conjugate_gradient(
        compiled, b, preconditioner=lambda v: v / np.diag(matrix), x0=np.ones_like(b), **options
    )
    result = conjugate_gradient(
        product,
        array_of(name, b),
        preconditioner=lambda v: array_of(name, np.asarray(v) / np.diag(matrix)),
        x0=array_of(name, np.ones_like(b)),
        callback=seen.append,
        **options,
    )
    assert len(seen) == 2 * 9 + 1
    assert all(same_library(v, name) for v in [*seen, result.x])
    assert np.asarray(result.x).tobytes() == expected.x.tobytes()
    assert result[1:] == expected[1:]


@pytest.mark.parametrize("name", EVERY)
def test_no_array_that_was_handed_out_changes_afterwards(name):
    matrix, b = problem()
    right = array_of(name, b)
    A, kept = array_of(name, matrix), []

    def keep(v):
        kept.append((v, np.asarray(v).copy()))
        return A @ v

    result = conjugate_gradient(keep, right, max_iter=12, preconditioner=keep, callback=keep, reorthogonalize=True)
    kept.append((result.x, np.asarray(result.x).copy()))
    # An array of array_api_strict's that is read-only can be exported since NumPy 2.1.
    start = right if name == "array_api_strict" and np.lib.NumpyVersion(np.__version__) < "2.1.0" else result.x
    conjugate_gradient(keep, right, x0=start, max_iter=3)
    assert len(kept) > 40
    for array, as_it_was in kept:
        np.testing.assert_array_equal(np.asarray(array), as_it_was)
    np.testing.assert_array_equal(np.asarray(right), b)


def test_an_operator_may_change_its_tensor():
    matrix, b = problem()

    def in_place(v):
        return v.copy_(torch.from_numpy(matrix) @ v)

    expected = conjugate_gradient(lambda v: torch.from_numpy(matrix) @ v, torch.from_numpy(b)).x
    assert torch.equal(conjugate_gradient(in_place, torch.from_numpy(b)).x, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.double().requires_grad_() * 1,
        lambda v: torch.stack([v, v], dim=1)[:, 0],
        lambda v: v.double(),
        lambda v: v.numpy(),
        lambda v: v.tolist(),
        torch.nn.Parameter,
        lambda v: v[:, None].expand(-1, 3)[:, 2],
    ],
    ids=["graph", "strided", "float64", "ndarray", "list", "parameter", "expanded"],
)
def test_an_operator_on_tensors_may_return_any_real_vector(change):
    matrix, b = (torch.from_numpy(array) for array in problem(np.float32))
    expected = conjugate_gradient(lambda v: matrix @ v, b, max_iter=5)
    result = conjugate_gradient(lambda v: change(matrix @ v), b, max_iter=5)
    assert torch.equal(result.x, expected.x)
    assert not result.x.requires_grad and result.x.dtype == torch.float32


def test_a_hessian_vector_product_by_autograd_solves_newtons_equation():
    matrix, b = problem()
    weights = torch.zeros(40, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * weights @ torch.from_numpy(matrix) @ weights - torch.from_numpy(b) @ weights
    (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
    assert gradient.requires_grad
    result = conjugate_gradient(
        lambda v: torch.autograd.grad(gradient @ v, weights, retain_graph=True)[0], -gradient, max_iter=200
    )
    assert result.status == Status.SUCCESS
    np.testing.assert_allclose(result.x.numpy(), np.linalg.solve(matrix, b), rtol=1e-7)
    assert not result.x.requires_grad


@pytest.mark.parametrize("name", [None, *EVERY])
@pytest.mark.parametrize(
    "kind", ["dense", "same library", "compiled", "LinearOperator", "csr_array", "coo_matrix", "dia_array", "own class"]
)
def test_whatever_multiplies_serves_every_right_hand_side(kind, name):
    matrix, b = problem()
    right = b if name is None else array_of(name, b)

    class Own:
        shape, dtype = matrix.shape, matrix.dtype

        def __matmul__(self, v):
            assert type(v) is np.ndarray
            return matrix @ v

    A = {
        "dense": matrix,
        "same library": matrix if name is None else array_of(name, matrix),
        "compiled": DenseOperator(matrix),
        "LinearOperator": aslinearoperator(matrix),
        "csr_array": scipy.sparse.csr_array(matrix),
        "coo_matrix": scipy.sparse.coo_matrix(matrix),
        "dia_array": scipy.sparse.dia_array(matrix),
        "own class": Own(),
    }[kind]
    result = conjugate_gradient(A, right, max_iter=100, preconditioner=A, damping=0.1)
    np.testing.assert_allclose(np.asarray(result.x), np.linalg.solve(matrix + 0.1 * np.eye(40), b), rtol=1e-8)
    assert type(result.x) is type(right)


class OfTensors:
    """As torch's libraries have them, linear_operator for one."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype, self.device = matrix, matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, v):
        assert v.dtype == self.dtype
        return self.matrix @ v


class OfTensorsAlone(OfTensors):
    """One that does not say of what it is."""

    def __init__(self, matrix):
        super().__init__(matrix)
        del self.dtype, self.device

    def __matmul__(self, v):
        return self.matrix @ v


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["coo", "csr", "integers", "with a graph", "operator", "operator without a dtype"])
def test_what_multiplies_tensors_alone_is_given_tensors(kind, dtype):
    matrix, b = problem()
    tensor = torch.from_numpy(matrix)
    A = {
        "coo": tensor.to_sparse(),
        "csr": tensor.float().to_sparse_csr(),
        "integers": (tensor * 100).round().long().to_sparse(),
        "with a graph": OfTensors(tensor.clone().requires_grad_()),
        "operator": OfTensors(tensor.float()),
        "operator without a dtype": OfTensorsAlone(tensor.to(dtype)),
    }[kind]
    if kind == "integers":
        matrix = np.round(matrix * 100)
    right = torch.from_numpy(b).to(dtype)
    for rhs in [right] if kind == "operator without a dtype" else [right, right.numpy()]:
        result = conjugate_gradient(A, rhs, max_iter=100, preconditioner=A)
        assert type(result.x) is type(rhs) and result.x.dtype == rhs.dtype
        np.testing.assert_allclose(np.asarray(result.x), np.linalg.solve(matrix, b), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True])
def test_a_function_of_arrays_may_answer_in_tensors(graph):
    matrix, b = problem()
    A = torch.tensor(matrix, requires_grad=graph)
    result = conjugate_gradient(lambda v: A @ torch.from_numpy(v), b, max_iter=100)
    assert type(result.x) is np.ndarray
    np.testing.assert_allclose(result.x, np.linalg.solve(matrix, b), rtol=1e-8)


def test_reading_copies_nothing():
    tensor = torch.arange(8.0)
    for view in (tensor, tensor.requires_grad_(), torch.nn.Parameter(tensor), tensor[::2]):
        read = as_numpy(view, "b")
        assert read.ctypes.data == view.data_ptr() and read.strides[0] == 4 * view.stride(0)
    for name in FOREIGN[:1]:
        array = array_of(name, np.arange(8.0))
        assert np.shares_memory(as_numpy(array, "b"), as_numpy(array, "b"))


def test_an_exception_of_an_operator_on_tensors_is_the_one_that_arrives():
    error = ZeroDivisionError("of the operator")

    def unwell(v):
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        conjugate_gradient(unwell, torch.ones(3))
    assert caught.value is error


class Elsewhere:
    """An array on a GPU, as DLPack sees it."""

    dtype, shape = "float32", (3,)

    def __dlpack__(self, **_):
        raise AssertionError("is not asked for its memory")

    def __dlpack_device__(self):
        return 2, 0


class Homeless(Elsewhere):
    """On the CPU, of a library that does not say how to make another one."""

    def __dlpack__(self, **options):
        return np.ones(3).__dlpack__(**options)

    def __dlpack_device__(self):
        return 1, 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"b": torch.ones(3, device="meta")},
            TypeError,
            r"b: a tensor on meta given; want one on the CPU, as \.cpu\(\)",
        ),
        ({"b": torch.ones(3, dtype=torch.bfloat16)}, TypeError, "b: .*torch.bfloat16"),
        ({"b": torch.ones(3, dtype=torch.float16)}, TypeError, "b: float16.* given; want .*float32 or float64"),
        ({"b": torch.ones(3, dtype=torch.int64)}, TypeError, "b: int64.* given; want .*float32 or float64"),
        ({"b": torch.ones(3, dtype=torch.complex64)}, TypeError, "b: complex64.* given; want .*float32 or float64"),
        ({"b": torch.ones(3).to_sparse()}, TypeError, "b: .*[Ss]parse"),
        ({"b": torch.ones(3, 1)}, ValueError, r"b: shape \(3, 1\) given; want \(n,\)"),
        ({"b": torch.tensor([1.0, torch.nan, 1.0])}, ValueError, "b: .*not finite"),
        ({"b": Elsewhere()}, TypeError, "b: an array on DLPack's device 2.* given; want one on the CPU"),
        ({"b": Homeless()}, TypeError, "b: Homeless.* given; want an array with __array_namespace__"),
        ({"b": "b"}, TypeError, "b: str.* given; want an ndarray, tensor or JAX array of float32 or float64"),
        ({"A": torch.ones(2, 3)}, ValueError, r"A: .*\(2, 3\).*square"),
        ({"A": torch.eye(3, dtype=torch.complex64)}, TypeError, "A: a matrix of complex64.* given; want real numbers"),
        (
            {"A": torch.eye(3, dtype=torch.complex64).to_sparse()},
            TypeError,
            "A: a sparse tensor of torch.complex64 given",
        ),
        ({"A": torch.eye(4).to_sparse()}, ValueError, r"A: .*4.* given; want \(3, 3\)"),
        ({"A": OfTensors(torch.eye(3, dtype=torch.int64))}, TypeError, "A: an operator of torch.int64 given; want one"),
        ({"A": OfTensors(torch.eye(3, device="meta"))}, TypeError, "A: one on meta given; want one on the CPU"),
        ({"A": torch.eye(3, device="meta")}, TypeError, "A: .*on meta"),
        ({"A": scipy.sparse.eye_array(4)}, ValueError, r"A: shape \(4, 4\) given; want \(3, 3\)"),
        ({"A": 1j * scipy.sparse.eye_array(3)}, TypeError, "A: .*complex128"),
        ({"A": LinearOperator((2, 2), matvec=lambda v: v)}, ValueError, r"A: shape \(2, 2\) given; want \(3, 3\)"),
        ({"A": lambda v: v.to("meta")}, TypeError, r"A\(v\): a tensor on meta given; want one on the CPU"),
        ({"A": lambda v: v.bfloat16()}, TypeError, r"A\(v\): .*torch.bfloat16"),
        ({"A": lambda v: v[:2]}, ValueError, r"A: the operator returned shape \(2,\); want \(3,\)"),
        ({"A": lambda v: v + 0j}, TypeError, "A: the operator returned dtype complex64"),
        ({"A": lambda v: None}, ValueError, "A: the operator returned"),
        ({"preconditioner": lambda v: v.to("meta")}, TypeError, r"preconditioner\(v\): .*on meta"),
        ({"preconditioner": lambda v: v[:2]}, ValueError, r"preconditioner: .*\(2,\)"),
        ({"x0": torch.ones(3, device="meta")}, TypeError, "x0: .*on meta"),
        ({"x0": [[1.0], [1.0, 2.0]]}, ValueError, "x0: no array can be made of it"),
        ({"x0": torch.ones(2)}, ValueError, r"x0: shape \(2,\) given; want \(3,\)"),
    ],
)
def test_arrays_that_cannot_serve_are_named(change, error, message):
    with pytest.raises(error, match=message):
        conjugate_gradient(**({"A": lambda v: v, "b": torch.ones(3)} | change))


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_dtypes_that_have_no_kernels_are_named(name):
    for wrong in (np.ones(3, np.int64), np.ones(3, np.complex64)):
        with pytest.raises(TypeError, match=f"b: {wrong.dtype}.* given; want .*float32 or float64"):
            conjugate_gradient(lambda v: v, array_of(name, wrong))


def test_jax_computes_late_and_is_waited_for():
    jnp = library("jax")
    jax = importlib.import_module("jax")
    matrix, b = problem(np.float32, n=400)
    A = jnp.asarray(matrix)

    @jax.jit
    def slow(v):
        # four products and their inverses' worth of work, dispatched long before it is done
        return jax.lax.fori_loop(0, 50, lambda _, w: A @ v + 0 * w, v)

    result = conjugate_gradient(slow, jnp.asarray(b), max_iter=8, rtol=0)
    expected = conjugate_gradient(lambda v: matrix @ v, b, max_iter=8, rtol=0)
    np.testing.assert_allclose(np.asarray(result.x), expected.x, rtol=2e-4, atol=2e-5)


def test_what_has_no_values_yet_is_named():
    class Traced:  # as JAX's tracers are: they have no device
        shape, dtype, ndim = (3,), np.dtype(np.float32), 1

        def __dlpack__(self, **_):
            raise AssertionError

    with pytest.raises(TypeError, match=r"^b: Traced given; want an array that has values, which none has where JAX"):
        conjugate_gradient(lambda v: v, Traced())


def test_jax_arrays_that_cannot_be_read_are_named():
    jnp = library("jax")
    jax = importlib.import_module("jax")
    with pytest.raises(TypeError, match=r"b: .*bfloat16"):
        conjugate_gradient(lambda v: v, jnp.ones(3, jnp.bfloat16))
    with pytest.raises(TypeError, match=r"A\(v\): .*bfloat16"):
        conjugate_gradient(lambda v: v.astype(jnp.bfloat16), jnp.ones(3, jnp.float32))
    with pytest.raises(TypeError, match=r"theta: ArrayImpl.* given; want .*update in place"):
        backtracking_line_search(lambda x: (1, 0), jnp.zeros(3), jnp.ones(3), max_kl=1)
    with pytest.raises(TypeError, match=r"b: .*Tracer given; want an array that has values"):
        jax.jit(lambda b: conjugate_gradient(lambda v: v, b).x)(jnp.ones(3))


def accept(theta):
    return 1.0, 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [torch.clone, torch.nn.Parameter, lambda tensor: torch.cat([tensor, tensor])[3:]])
def test_a_line_search_moves_a_tensor_in_place(make, dtype):
    theta = make(torch.tensor([1.0, -2.0, 3.0], dtype=dtype))
    step, memory, seen = torch.tensor([4.0, 4.0, 8.0], dtype=dtype), theta.data_ptr(), []

    def objective(trial):
        assert trial is theta
        seen.append(trial.tolist())
        return trial.sum(), (trial.detach() ** 2).sum()

    result = backtracking_line_search(objective, theta, step, max_kl=40.0, backtrack_factor=0.5)
    assert (result.status, result.backtracks, result.step_fraction) == (Status.SUCCESS, 2, 0.25)
    assert seen == [[5, 2, 11], [3, 0, 7], [2, -1, 5]]
    assert theta.tolist() == seen[-1] and theta.data_ptr() == memory
    assert (result.improvement, result.kl) == (6.0, 30.0)
    assert step.tolist() == [4, 4, 8]


@pytest.mark.parametrize("pair", [tuple, list, torch.stack])
def test_a_line_search_takes_two_numbers_with_a_graph(pair):
    theta = torch.ones(3, requires_grad=True)
    result = backtracking_line_search(lambda x: pair([x.sum(), x.sum() * 0]), theta, torch.ones(3), max_kl=1.0)
    assert (result.status, result.improvement, result.kl) == (Status.SUCCESS, 6, 0)


@pytest.mark.parametrize("step", [np.ones(3, np.float32), torch.ones(3), torch.nn.Parameter(torch.ones(3))])
def test_theta_and_step_may_be_of_different_libraries(step):
    for theta in (np.zeros(3, np.float32), torch.zeros(3)):
        backtracking_line_search(accept, theta, step, max_kl=1.0)
        assert theta.tolist() == [1, 1, 1]


def test_a_graph_that_needs_the_old_parameters_fails():
    theta = torch.ones(3, requires_grad=True)
    loss = (theta**3).sum()
    version = theta._version
    backtracking_line_search(accept, theta, torch.ones(3), max_kl=1.0)
    assert theta._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_graph_of_a_trial_that_was_taken_back_fails():
    theta, losses = torch.ones(3, requires_grad=True), []

    def objective(trial):
        losses.append((trial**3).sum())
        return -losses[-1], torch.zeros(())

    result = backtracking_line_search(objective, theta, torch.ones(3), max_kl=1.0, max_backtracks=1)
    assert result.status == Status.NO_IMPROVEMENT
    assert theta.tolist() == [1, 1, 1]
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_tensor_is_restored_bit_for_bit():
    theta = torch.tensor([0.1, -0.0, 1e-45, torch.nan])
    bits = theta.numpy().tobytes()
    assert backtracking_line_search(accept, theta, torch.ones(4), max_kl=1).status == Status.NON_FINITE
    assert theta.numpy().tobytes() == bits

    def unwell(trial):
        raise LookupError("lost")

    theta[3] = 1.0
    bits = theta.numpy().tobytes()
    with pytest.raises(LookupError, match="lost"):
        backtracking_line_search(unwell, theta, torch.ones(4), max_kl=1)
    assert theta.numpy().tobytes() == bits


def test_a_tensor_without_versions_is_moved_too():
    with torch.inference_mode():
        theta = torch.zeros(2)
        backtracking_line_search(accept, theta, torch.ones(2), max_kl=1)
    assert theta.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"theta": torch.zeros(2, device="meta")}, TypeError, "theta: .*on meta"),
        ({"theta": torch.zeros(2, dtype=torch.bfloat16)}, TypeError, "theta: .*bfloat16"),
        (
            {"theta": torch.zeros(2, dtype=torch.int32)},
            TypeError,
            "theta: int32 array.* given; want an ndarray or CPU tensor of float32 or float64",
        ),
        ({"theta": torch.zeros(4)[::2]}, ValueError, "theta: .*contiguous"),
        ({"theta": torch.zeros(1).expand(2)}, ValueError, "theta: .*contiguous"),
        ({"theta": torch.zeros(2, 1)}, ValueError, r"theta: .*\(2, 1\)"),
        ({"step": torch.ones(3)}, ValueError, r"step: .*\(3,\)"),
        ({"step": torch.ones(2).double()}, TypeError, "step: .*float64.*float32"),
        ({"step": torch.ones(2, device="meta")}, TypeError, "step: .*on meta"),
        ({"objective": lambda theta: torch.ones(2, 2)}, TypeError, r"(?s)objective: .* given; want two numbers"),
        ({"objective": lambda theta: (theta, 0.0)}, TypeError, r"(?s)objective: .* given; want two numbers"),
    ],
)
def test_a_line_search_names_tensors_that_cannot_serve(change, error, message):
    arguments = {"objective": accept, "theta": torch.zeros(2), "step": torch.ones(2), "max_kl": 0.1} | change
    with pytest.raises(error, match=message):
        backtracking_line_search(**arguments)


def test_theta_of_a_library_whose_arrays_do_not_change_is_refused():
    strict = library("array_api_strict")
    with pytest.raises(TypeError, match=r"theta: Array.* given; want an ndarray or CPU tensor .* update in place"):
        backtracking_line_search(accept, strict.zeros(2), strict.ones(2), max_kl=1)
    theta = np.zeros(2)
    assert backtracking_line_search(accept, theta, strict.ones(2), max_kl=1).status == Status.SUCCESS
    assert theta.tolist() == [1, 1]


def test_the_memory_of_a_file_may_begin_at_any_byte():
    memory = np.zeros(13 * 4 + 1, np.uint8)
    numbers = memory[1:].view(np.float32)
    matrix, b, diagonal = numbers[:9].reshape(3, 3), numbers[9:12], np.diag(np.full(3, 0.5, np.float32))
    matrix[...], b[...] = 2 * np.eye(3), (2, 4, 6)
    np.testing.assert_allclose(conjugate_gradient(matrix, b, preconditioner=diagonal).x, (1, 2, 3), rtol=1e-6)
