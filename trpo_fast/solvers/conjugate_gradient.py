"""Conjugate gradient on anything that multiplies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import cg
from .._core.operator import CallableOperator, DenseOperator, Operator
from .arrays import as_array, as_numpy, in_kind, is_sparse, maker, sparse_as, taker
from .status import Status
from .validation import require_bool, require_count, require_number


class CGResult(NamedTuple):
    """Outcome of `conjugate_gradient`."""

    x: Any
    """(n,) solution, or the last good iterate: an array of b's library and dtype, without an autograd graph."""
    status: Status
    """``> 0`` stopped early and usable, ``< 0`` failed."""
    iterations: int
    """One product with A each, and one more for `x0` and for each residual that is computed afresh."""
    residual_norm: float
    """``||b - (A + damping I) x||``: the recurrence's, computed afresh where rounding may have parted the two, before
    SUCCESS is said."""
    curvature: float
    """``x' A x``, without damping; infinite, or 0, where no double holds it."""


def as_operator(
    A: Any, size: int, dtype: Any, name: str = "A", make: Callable[[NDArray[Any]], Any] | None = None
) -> Operator:
    """`A` as a compiled operator of `size` and `dtype`.

    A callable is given what `make` makes of an ndarray, see `arrays.maker`, an object what `arrays.taker` says.
    """
    if is_sparse(A):
        A = sparse_as(A, dtype, name)
    if isinstance(A, Operator):
        operator = A
    elif not is_sparse(A) and isinstance(matrix := as_numpy(A, name), np.ndarray):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"{name}: shape {matrix.shape} given; want a square matrix")
        if not np.can_cast(matrix.dtype, dtype, "same_kind"):
            raise TypeError(f"{name}: a matrix of {matrix.dtype} given; want real numbers")
        operator = DenseOperator(np.require(matrix, dtype, ["C", "A"]))  # a file's memory may begin at any byte
    elif hasattr(A, "shape") and (hasattr(A, "matvec") or hasattr(A, "__matmul__")):
        # The LinearOperators and sparse arrays of scipy, torch and others, without importing them
        if tuple(A.shape) != (size, size):
            raise ValueError(f"{name}: shape {tuple(A.shape)} given; want ({size}, {size})")
        multiply = A.matvec if hasattr(A, "matvec") else A.__matmul__
        operator = CallableOperator(in_kind(multiply, taker(A, make, name), name), size, dtype, name)
    elif callable(A):
        operator = CallableOperator(in_kind(A, make, name), size, dtype, name)
    else:
        raise TypeError(
            f"{name}: {type(A).__name__} given; want a callable v -> A v, a dense or sparse array, a LinearOperator "
            "or an Operator"
        )
    if operator.size != size:
        raise ValueError(f"{name}: size {operator.size} given; want {size}, as the right-hand side has")
    if operator.dtype != np.dtype(dtype):
        raise TypeError(f"{name}: dtype {operator.dtype} given; want {np.dtype(dtype)}, as the right-hand side has")
    return operator


def _read_only(x: NDArray[Any]) -> NDArray[Any]:
    view = x.view()
    view.flags.writeable = False
    return view


def conjugate_gradient(
    A: Any,
    b: Any,
    *,
    max_iter: int = 10,
    rtol: float = 1e-10,
    atol: float = 0.0,
    damping: float = 0.0,
    preconditioner: Any = None,
    x0: Any = None,
    reorthogonalize: bool = False,
    callback: Callable[[Any], Any] | None = None,
    progress_tol: float = 0.0,
) -> CGResult:
    """Approximately solve ``(A + damping I) x = b`` for a symmetric positive definite ``A``.

    Stopping at `max_iter` is normal here: a truncated solve is still an ascent direction [1]_.

    Parameters
    ----------
    A : callable, dense or sparse array or tensor, LinearOperator, or Operator
        A callable maps ``v`` of shape ``(n,)`` to ``A @ v``. It is given an array of its own, of b's library, and may
        return one of any. So is an object with ``shape`` and ``matvec`` or ``@`` that has no ``dtype``; one that has is
        given that library's: tensors where it is torch's, as linear_operator's are, else ndarrays, as scipy's are.
    b : ndarray, CPU tensor of torch, or JAX array; float32 or float64, shape (n,)
        Right-hand side; not modified. Its dtype is the dtype of the solve. A tensor is read where it lies, and so is
        the array of any library that speaks the array API and DLPack. No gradient flows through the solve.
    max_iter : int
        Most iterations; each takes one product with `A`.
    rtol, atol : float
        Goal: ``||b - (A + damping I) x|| <= max(rtol ||b||, atol)``; ``rtol=0`` spends all of `max_iter`.
    damping : float
        Added to the diagonal, ``>= 0``.
    preconditioner : same kinds as `A`, optional
        Approximates ``(A + damping I)^-1``; symmetric positive definite.
    x0 : array (n,), optional
        Start; costs one product more. Not modified.
    reorthogonalize : bool
        Keep the earlier residuals (``max_iter n`` items, twice that with a preconditioner) and project them out of each
        new one. In float32 plain CG loses orthogonality after about ten products, and with it digits of x. The solve
        ends after n iterations at the latest: they span the space.
    callback : callable, optional
        Called with the current x after every iteration: a read-only view of the solver's own ndarray (copy it to keep
        it), or a copy as an array of b's library.
    progress_tol : float
        Stop after iteration i, with status NO_PROGRESS, when ``phi(x) = x'(A + damping I)x / 2 - b'x`` fell by less
        than ``k progress_tol |phi|`` over the last ``k = max(10, i / 10)`` iterations [2]_; 0 never does. Martens uses
        5e-4.

    Returns
    -------
    CGResult
        ``status > 0`` means stopped early and usable, ``< 0`` failed with ``x`` the last good iterate. SUCCESS is what
        the residual itself says: where the recurrence has lost touch with it, far from a start for instance, the solve
        goes on from there, or ends as STAGNATED or ITERATION_LIMIT. A `b` whose squares would underflow or overflow is
        solved for scaled by a power of 2, and operators of any size a double holds are multiplied by; digits that `x`
        itself cannot hold are STAGNATED, an `x` that overflows NON_FINITE, with the last good iterate, or zeros.

    Raises
    ------
    TypeError, ValueError
        Misuse: shapes, dtypes, a right-hand side that is not finite. What the operator raises travels to the caller.

    References
    ----------
    .. [1] Nocedal & Wright, *Numerical Optimization*, 2nd ed., sec. 7.1; preconditioned form: algorithm 5.3.
    .. [2] Martens, "Deep learning via Hessian-free optimization", ICML 2010, sec. 4.4.
    """
    rhs = as_numpy(b, "b")
    if not isinstance(rhs, np.ndarray) or rhs.dtype not in (np.float32, np.float64):
        what = f"{rhs.dtype} array" if isinstance(rhs, np.ndarray) else type(b).__name__
        raise TypeError(f"b: {what} given; want an ndarray, tensor or JAX array of float32 or float64")
    if rhs.ndim != 1:
        raise ValueError(f"b: shape {rhs.shape} given; want (n,)")
    make = maker(b, "b")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: {type(callback).__name__} given; want a callable")
    rhs = np.require(rhs, requirements=["C", "A"])
    operator = as_operator(A, rhs.size, rhs.dtype, "A", make)
    inverse = None
    if preconditioner is not None:
        inverse = as_operator(preconditioner, rhs.size, rhs.dtype, "preconditioner", make)
    x = np.zeros_like(rhs)
    if x0 is not None:
        start = as_array(x0, "x0")
        if not np.can_cast(start.dtype, rhs.dtype, "same_kind"):
            raise TypeError(f"x0: {start.dtype} given; want real numbers")
        if start.shape != rhs.shape:
            raise ValueError(f"x0: shape {start.shape} given; want {rhs.shape}")
        with np.errstate(over="ignore"):
            x[:] = start
        if not np.isfinite(x).all():
            raise ValueError(f"x0: holds a value that is not finite as {rhs.dtype}")
    status, iterations, residual_norm, curvature = cg.solve(
        operator,
        rhs,
        x,
        max_iter=require_count("max_iter", max_iter, low=0),
        rtol=require_number("rtol", rtol, low=0, finite=False),
        atol=require_number("atol", atol, low=0, finite=False),
        damping=require_number("damping", damping, low=0),
        progress_tol=require_number("progress_tol", progress_tol, low=0),
        preconditioner=inverse,
        start_from_x=x0 is not None,
        reorthogonalize=require_bool("reorthogonalize", reorthogonalize),
        callback=callback
        if callback is None
        else lambda x: callback(_read_only(x) if make is None else make(x.copy())),
    )
    return CGResult(x if make is None else make(x), Status(status), iterations, residual_norm, curvature)
