"""The conjugate-gradient loop: one for both precisions, the kernel table knows the item size.

x holds the last good iterate on every exit. The loop runs without the GIL; it takes it once per iteration, for Ctrl-C.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport isfinite, sqrt
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
# A residual below this many epsilons of |b| is below what rounding in the products lets the recurrence know.
cdef double ATTAINABLE = 1000


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
    # model: phi(x) = x'Ax/2 - b'x at the start; models: to be filled with those of all iterates
    cdef double rr, rz, rz_next, pAp, norm_p, norm_Ap, alpha, largest, smallest
    cdef double tiny = 8 * k.epsilon  # curvature below tiny |p||Ap| is rounding
    cdef size_t row = n * k.item_size
    cdef char *residual
    cdef char *dual

    rr = k.dot(n, w.r, w.r)
    residual_norm[0] = sqrt(rr)
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
        if rz <= 0:  # only a preconditioner that is not positive definite can do this
            return TRPO_STATUS_NOT_POSITIVE_DEFINITE
        if sqrt(rz) < smallest:  # 1 / sqrt(rz) could overflow, and the residual has few digits left
            return TRPO_STATUS_STAGNATED
        A.apply(w.p, w.Ap)
        if damping != 0:
            k.axpy(n, damping, w.p, w.Ap)
        pAp = k.dot(n, w.p, w.Ap)
        norm_p = sqrt(k.dot(n, w.p, w.p))
        norm_Ap = sqrt(k.dot(n, w.Ap, w.Ap))
        if not (isfinite(pAp) and isfinite(norm_Ap)):
            return TRPO_STATUS_NON_FINITE
        if pAp <= tiny * norm_p * norm_Ap:
            return TRPO_STATUS_STAGNATED if pAp >= -tiny * norm_p * norm_Ap else TRPO_STATUS_NOT_POSITIVE_DEFINITE
        alpha = rz / pAp
        if not alpha * max(norm_p, norm_Ap, 1.0) < largest:
            return TRPO_STATUS_NON_FINITE
        if w.residuals != NULL:
            residual = <char *>w.residuals + iterations[0] * row
            dual = <char *>w.duals + iterations[0] * row
            k.scaled_copy(n, 1 / sqrt(rz), w.r, residual)
            if M is not None:
                k.scaled_copy(n, 1 / sqrt(rz), w.z, dual)
        rr = k.cg_update(n, alpha, w.p, w.Ap, w.x, w.r)
        model -= 0.5 * alpha * rz
        iterations[0] += 1
        if w.residuals != NULL:
            k.project_out(n, iterations[0], w.duals, w.residuals, w.coefficients, w.r)
            rr = k.dot(n, w.r, w.r)
        residual_norm[0] = sqrt(rr)
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


def solve(
    Operator A, b, x, *, int max_iter, double rtol, double atol, double damping, double progress_tol,
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
    cdef int kept = min(max_iter, <int>n) if reorthogonalize else 0
    cdef int iterations = 0, status = TRPO_STATUS_SUCCESS
    cdef double residual_norm = 0, norm_b, goal, curvature, model = 0
    if preconditioner is not None and (preconditioner.size != A.size or preconditioner.dtype != A.dtype):
        raise ValueError(
            f"preconditioner: wanted size {A.size} and dtype {A.dtype}, "
            f"got {preconditioner.size} and {preconditioner.dtype}"
        )
    w.x = data_of(x, "x", code, 1, n, -1, True)
    refuse_overlap("x", w.x, row, "b", rhs, row)
    if not k.all_finite(n, rhs):
        raise ValueError("b: holds a value that is not finite")
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
    if reorthogonalize:
        max_iter = kept

    with nogil:
        norm_b = sqrt(k.dot(n, rhs, rhs))
        goal = max(rtol * norm_b, atol)
        if norm_b == 0 or not start_from_x:
            memset(w.x, 0, row)
        if start_from_x and norm_b > 0:
            residual(A, k, &w, n, rhs, damping)
            model = -0.5 * (k.dot(n, w.x, rhs) + k.dot(n, w.x, w.r))  # x'Ax = x'(b - r)
        else:
            memcpy(w.r, rhs, row)
        if norm_b > 0:
            status = iterate(
                A, preconditioner, k, &w, n, max_iter, goal, damping, model, progress_tol, models, callback, x,
                &iterations, &residual_norm
            )
        if status >= 0 and residual_norm < ATTAINABLE * k.epsilon * norm_b:
            # The recurrence goes on falling where the residual itself has met the dtype's accuracy: compute it.
            residual(A, k, &w, n, rhs, damping)
            residual_norm = sqrt(k.dot(n, w.r, w.r))
            if status == TRPO_STATUS_SUCCESS and not residual_norm <= goal:
                status = TRPO_STATUS_STAGNATED
        # x'Ax = x'(b - r) - damping x'x: no further product
        curvature = k.dot(n, w.x, rhs) - k.dot(n, w.x, w.r) - damping * k.dot(n, w.x, w.x)
    return status, iterations, residual_norm, curvature
