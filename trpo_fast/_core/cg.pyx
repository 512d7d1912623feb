"""The conjugate-gradient loop: one for both precisions, the kernel table knows the item size.

x holds the last good iterate on every exit. The loop runs without the GIL; it takes it once per iteration, for Ctrl-C.

Whether a residual is what the recurrence says is a matter of size: rounding moves b - A x by some epsilons of |b| and
of |A| |x|, of the largest x on the way (Greenbaum 1997, "Estimating the attainable accuracy of recursively computed
residual methods"). |A| |p| is known from the products, so that only what is within that doubt costs a product: never
the solve of a trust-region step, which ends far above.
"""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport fabs, isfinite, sqrt
from libc.string cimport memcpy, memset

from trpo_fast._core.csrc cimport (
    TRPO_STATUS_ITERATION_LIMIT,
    TRPO_STATUS_NO_PROGRESS,
    TRPO_STATUS_NON_FINITE,
    TRPO_STATUS_NOT_POSITIVE_DEFINITE,
    TRPO_STATUS_STAGNATED,
    TRPO_STATUS_SUCCESS,
    trpo_kernels,
)
from trpo_fast._core.library cimport Memory, aligned, code_of, data_of, refuse_overlap
from trpo_fast._core.operator cimport Operator

cdef double FLOAT32_MAX = 3.4028234663852886e38
cdef double FLOAT64_MAX = 1.7976931348623157e308
cdef double FLOAT32_MIN = 1.1754943508222875e-38
cdef double FLOAT64_MIN = 2.2250738585072014e-308
# A residual below this many epsilons of |b|, or of |A| |x|, is below what rounding in the products lets the recurrence
# know.
cdef double ATTAINABLE = 1000
cdef double LEAST_SQUARE = 1e-280  # below it, squares of the items may have been lost
# b is brought to about 1 where it is beyond these, or below their inverses, so that its squares, x, and in float64 p'Ap
# of an operator up to 1e240 stay within the dtype.
cdef double FLOAT32_WIDEST = 2.0**60, FLOAT64_WIDEST = 2.0**100
cdef int FLOAT32_FARTHEST = 120, FLOAT64_FARTHEST = 800  # a start this many powers of 2 above b is left where it is


cdef struct Work:
    # n items each
    void *x
    void *r
    void *z              # M r; the same memory as r without a preconditioner
    void *p
    void *Ap
    # earlier r_j and z_j over sqrt(r_j . z_j), k x n; the same memory without a preconditioner, NULL without
    # reorthogonalization
    void *residuals
    void *duals
    double *coefficients
    double gain  # the largest |A p| / |p| so far


cdef double norm(const trpo_kernels *k, size_t n, const void *v) noexcept nogil:
    # |v|, also where the squares of its items leave the range of double.
    cdef double square = k.dot(n, v, v), largest = 0, item
    cdef bint single = k.item_size == sizeof(float)
    cdef size_t i
    if LEAST_SQUARE < square and isfinite(square):
        return sqrt(square)
    for i in range(n):
        item = fabs((<const float *>v)[i] if single else (<const double *>v)[i])
        if not item <= largest:  # a NaN is found, too
            largest = item
    if largest == 0 or not isfinite(largest):
        return largest
    square = 0
    for i in range(n):
        item = ((<const float *>v)[i] if single else (<const double *>v)[i]) / largest
        square += item * item
    return largest * sqrt(square)


cdef int check_signals(object callback, object x) except -1:
    PyErr_CheckSignals()
    if callback is not None:
        callback(x)
    return 0


cdef bint stalled(list models, double model, double tolerance) except -1:
    # models: phi(x_0), phi(x_1) ...; becomes longer by phi(x_i) = x'Ax/2 - b'x. Martens 2010, sec. 4.4: over the last k
    # iterations, has phi fallen by less than k times the tolerance, relative to phi?
    models.append(model)
    cdef Py_ssize_t i = len(models) - 1, k = max(10, i // 10)
    return i > k and model < 0 and (model - <double>models[i - k]) / model < k * tolerance


cdef int iterate(
    Operator A, Operator M, const trpo_kernels *k, Work *w, size_t n, int max_iter, double goal, double damping,
    double model, double progress_tol, list models, object callback, object x_array, int *iterations,
    double *residual_norm
) except? -100 nogil:
    # From w.r, the residual of w.x, on. model: phi(x) = x'Ax/2 - b'x there; models: to be filled with those of all
    # iterates.
    cdef double rr, rz, rz_next, pAp, norm_p, norm_Ap, alpha, largest, smallest
    cdef double tiny = 8 * k.epsilon  # curvature below tiny |p||Ap| is rounding
    cdef size_t row = n * k.item_size, kept
    cdef int first = iterations[0]
    cdef char *residual
    cdef char *dual

    rr = k.dot(n, w.r, w.r)
    residual_norm[0] = norm(k, n, w.r)
    if not isfinite(rr):
        return TRPO_STATUS_NON_FINITE
    largest = FLOAT32_MAX if k.item_size == sizeof(float) else FLOAT64_MAX
    smallest = FLOAT32_MIN if k.item_size == sizeof(float) else FLOAT64_MIN
    rz = rr
    if residual_norm[0] > goal and M is not None:
        M.apply(w.r, w.z)
        rz = k.dot(n, w.r, w.z)
    memcpy(w.p, w.z, row)
    with gil:
        models.append(model)
    while not residual_norm[0] <= goal:  # a NaN goes on, to be noticed
        if iterations[0] == max_iter:
            return TRPO_STATUS_ITERATION_LIMIT
        if not (isfinite(rr) and isfinite(rz)):
            return TRPO_STATUS_NON_FINITE
        if rz <= 0:  # only a preconditioner that is not positive definite can do this, or underflow
            return TRPO_STATUS_STAGNATED if rr < LEAST_SQUARE else TRPO_STATUS_NOT_POSITIVE_DEFINITE
        if sqrt(rz) < smallest:  # 1 / sqrt(rz) could overflow, and the residual has few digits left
            return TRPO_STATUS_STAGNATED
        A.apply(w.p, w.Ap)
        if damping != 0:
            k.axpy(n, damping, w.p, w.Ap)
        pAp = k.dot(n, w.p, w.Ap)
        norm_p, norm_Ap = norm(k, n, w.p), norm(k, n, w.Ap)
        if not (isfinite(pAp) and isfinite(norm_Ap)):
            return TRPO_STATUS_NON_FINITE
        if norm_p > 0:
            w.gain = max(w.gain, norm_Ap / norm_p)
        if pAp <= tiny * norm_p * norm_Ap:
            return TRPO_STATUS_STAGNATED if pAp >= -tiny * norm_p * norm_Ap else TRPO_STATUS_NOT_POSITIVE_DEFINITE
        alpha = rz / pAp
        if not alpha * max(norm_p, norm_Ap, 1.0) < largest:
            return TRPO_STATUS_NON_FINITE
        if w.residuals != NULL:
            kept = iterations[0] - first
            residual = <char *>w.residuals + kept * row
            dual = <char *>w.duals + kept * row
            k.scaled_copy(n, 1 / sqrt(rz), w.r, residual)
            if M is not None:
                k.scaled_copy(n, 1 / sqrt(rz), w.z, dual)
        rr = k.cg_update(n, alpha, w.p, w.Ap, w.x, w.r)
        model -= 0.5 * alpha * rz
        iterations[0] += 1
        if w.residuals != NULL:
            k.project_out(n, kept + 1, w.duals, w.residuals, w.coefficients, w.r)
            rr = k.dot(n, w.r, w.r)
        residual_norm[0] = sqrt(rr) if rr > LEAST_SQUARE else norm(k, n, w.r)
        rz_next = rr
        if M is not None and residual_norm[0] > goal:
            M.apply(w.r, w.z)
            rz_next = k.dot(n, w.r, w.z)
        k.cg_direction(n, rz_next / rz, w.z, w.p)
        rz = rz_next
        with gil:
            check_signals(callback, x_array)
            if progress_tol > 0 and residual_norm[0] > goal and stalled(models, model, progress_tol):
                return TRPO_STATUS_NO_PROGRESS
    return TRPO_STATUS_SUCCESS


cdef int residual(
    Operator A, const trpo_kernels *k, Work *w, size_t n, const void *b, double damping
) except -1 nogil:
    # r = b - (A + damping I) x
    A.apply(w.x, w.Ap)
    if damping != 0:
        k.axpy(n, damping, w.x, w.Ap)
    k.step_from(n, b, -1, w.Ap, w.r)
    return 0


cdef int settle(
    Operator A, Operator M, const trpo_kernels *k, Work *w, size_t n, const void *b, double norm_b, int max_iter,
    double goal, double damping, bint start_from_x, double progress_tol, list models, object callback, object x_array,
    int *iterations, double *residual_norm
) except? -100 nogil:
    # CG from w.x, and again from where it claims to be at its goal and is not, as long as that helps: a far start costs
    # digits that another start from there gives back.
    cdef double model = 0, before = norm_b, norm_x = 0, least = ATTAINABLE * k.epsilon
    cdef int status, first
    memcpy(w.r, b, n * k.item_size)
    if start_from_x:
        residual(A, k, w, n, b, damping)
        before, norm_x = norm(k, n, w.r), norm(k, n, w.x)
        if norm_x > 0:
            w.gain = norm(k, n, w.Ap) / norm_x
    while True:
        if start_from_x:
            model = -0.5 * (k.dot(n, w.x, b) + k.dot(n, w.x, w.r))  # x'Ax = x'(b - r)
        first = iterations[0]
        status = iterate(
            A, M, k, w, n, max_iter, goal, damping, model, progress_tol, models, callback, x_array, iterations,
            residual_norm
        )
        if status < 0 or iterations[0] == first:  # without an iteration the residual is the true one
            return status
        norm_x = max(norm_x, norm(k, n, w.x))
        # Where nothing is claimed, the residual of a start at 0 is looked at only where it is of no consequence to b.
        if not residual_norm[0] < least * (
            max(norm_b, w.gain * norm_x) if start_from_x or status == TRPO_STATUS_SUCCESS else norm_b
        ):
            return status
        residual(A, k, w, n, b, damping)
        residual_norm[0] = norm(k, n, w.r)
        if status >= 0 and residual_norm[0] <= goal:
            return TRPO_STATUS_SUCCESS
        if status != TRPO_STATUS_SUCCESS:
            return status
        if not (least * norm_b < residual_norm[0] < 0.5 * before):
            return TRPO_STATUS_STAGNATED
        before, start_from_x = residual_norm[0], True


def solve(
    Operator A not None, b, x, *, int max_iter, double rtol, double atol, double damping, double progress_tol,
    Operator preconditioner, bint start_from_x, bint reorthogonalize, callback
):
    """Overwrite ``x``; return ``(status, iterations, residual_norm, curvature)``; see solvers.conjugate_gradient."""
    cdef const trpo_kernels *k = A.kernels
    cdef size_t n = A.size, row = A.size * k.item_size
    cdef char code = code_of(A.dtype)
    cdef const void *rhs = data_of(b, "b", code, 1, n, -1, False)
    cdef Memory memory = Memory()
    cdef Work w
    cdef list models = []
    cdef size_t kept = min(<size_t>max_iter, n) if reorthogonalize else 0
    cdef int iterations = 0, status = TRPO_STATUS_SUCCESS, exponent = 0
    cdef int farthest = FLOAT32_FARTHEST if k.item_size == sizeof(float) else FLOAT64_FARTHEST
    cdef double largest = FLOAT32_WIDEST if k.item_size == sizeof(float) else FLOAT64_WIDEST
    cdef double residual_norm = 0, norm_b, goal, curvature, square
    if preconditioner is not None and (preconditioner.size != A.size or preconditioner.dtype != A.dtype):
        raise ValueError(
            f"preconditioner: size {preconditioner.size} and dtype {preconditioner.dtype} given; "
            f"want {A.size} and {A.dtype}"
        )
    w.x = data_of(x, "x", code, 1, n, -1, True)
    refuse_overlap("x", w.x, row, "b", rhs, row)
    A.refuse_result(w.x, "x")
    if preconditioner is not None:
        preconditioner.refuse_result(w.x, "x")
    if not k.all_finite(n, rhs):
        raise ValueError("b: holds a value that is not finite")
    norm_b = norm(k, n, rhs)
    if norm_b == 0:
        memset(w.x, 0, row)
        return status, iterations, residual_norm, 0.0
    if not 1 / largest < norm_b < largest:
        exponent = exponent_of(b)
        if not (start_from_x and exponent_of(x) - exponent > farthest):  # such an x0 would overflow
            return solve_scaled(
                A, b, x, exponent, max_iter, rtol, atol, damping, progress_tol, preconditioner, start_from_x,
                reorthogonalize, callback
            )
    goal = max(rtol * norm_b, atol)
    if not start_from_x:
        memset(w.x, 0, row)
    # Each vector starts on a vector boundary.
    cdef size_t stride = aligned(row)
    # Reorthogonalization stops to help, and to need memory, after n directions: CG has then spanned the space.
    cdef size_t kept_bytes = kept * row
    cdef bint preconditioned = preconditioner is not None
    cdef size_t duals_bytes = kept_bytes if preconditioned else 0
    cdef char *base = <char *>memory.reserve(4 * stride + kept_bytes + duals_bytes + (kept + 1) * sizeof(double))
    w.r, w.p, w.Ap = base, base + stride, base + 2 * stride
    w.z = base + 3 * stride if preconditioned else w.r
    w.residuals = base + 4 * stride if kept else NULL
    w.duals = <char *>w.residuals + kept_bytes if kept and preconditioned else w.residuals
    w.coefficients = <double *>(base + 4 * stride + (kept_bytes + duals_bytes + 7) // 8 * 8)
    w.gain = 0
    if reorthogonalize:
        max_iter = <int>kept

    with nogil:
        status = settle(
            A, preconditioner, k, &w, n, rhs, norm_b, max_iter, goal, damping, start_from_x, progress_tol, models,
            callback, x, &iterations, &residual_norm
        )
        # x'Ax = x'(b - r) - damping x'x: no further product
        curvature = k.dot(n, w.x, rhs) - k.dot(n, w.x, w.r)
        if damping != 0:
            square = k.dot(n, w.x, w.x)
            curvature -= damping * square if isfinite(square) else (sqrt(damping) * norm(k, n, w.x))**2
    return status, iterations, residual_norm, curvature


cdef int exponent_of(array) except? -1:
    # The largest item is below 2 to this power, and not below half of that.
    return int(np.frexp(np.abs(array).max())[1])


cdef object solve_scaled(
    Operator A, b, x, int exponent, int max_iter, double rtol, double atol, double damping, double progress_tol,
    Operator preconditioner, bint start_from_x, bint reorthogonalize, callback
):
    # `solve` for b and x over 2**exponent, which changes no digit but of what leaves the range of the dtype.
    with np.errstate(over="ignore", under="ignore"):
        rhs, y = np.ldexp(b, -exponent), np.ldexp(x, -exponent)
        status, iterations, residual_norm, curvature = solve(
            A, rhs, y, max_iter=max_iter, rtol=rtol, atol=np.ldexp(atol, -exponent), damping=damping,
            progress_tol=progress_tol, preconditioner=preconditioner, start_from_x=start_from_x,
            reorthogonalize=reorthogonalize,
            callback=None if callback is None else lambda y: callback(np.ldexp(y, exponent)),
        )
        result = np.ldexp(y, exponent)
        if not np.isfinite(result).all():
            status, residual_norm = TRPO_STATUS_NON_FINITE, float(np.linalg.norm(rhs.astype(np.float64)))
            result[:] = curvature = 0
        elif status >= 0:
            kept = np.ldexp(result, -exponent)
            if (kept != y).any():
                # Of x itself, which has lost digits.
                shortfall = (rhs - A.matvec(kept) - damping * kept).astype(np.float64)
                residual_norm = float(np.linalg.norm(shortfall))
                if status == TRPO_STATUS_SUCCESS and not residual_norm <= max(
                    rtol * np.linalg.norm(rhs.astype(np.float64)), np.ldexp(atol, -exponent)
                ):
                    status = TRPO_STATUS_STAGNATED
        x[:] = result
        return status, iterations, float(np.ldexp(residual_norm, exponent)), float(np.ldexp(curvature, 2 * exponent))
