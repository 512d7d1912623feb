"""Advantages and running statistics."""

from libc.stdint cimport uint8_t

from trpo_fast._core.csrc cimport trpo_kernels
from trpo_fast._core.library cimport Extent, code_of, data_of, kernels_of, number_of, refuse_overlap, refuse_shared


def generalized_advantages(
    rewards, values, next_values, terminated, truncated, advantages, returns, *, gamma, gae_lambda
):
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16), backwards over time-major (T, E) arrays.

    ``delta = r + gamma V(s') (1 - terminated) - V(s)``, ``A = delta + gamma lambda (1 - done) A_next`` and
    ``R = A + V(s)``.

    Parameters
    ----------
    rewards, values, next_values : ndarray (T, E), float32 or float64, one dtype
        V(s_t), and V(s_{t+1}) with the final observation's value where the episode ended.
    terminated, truncated : ndarray (T, E) bool
    advantages, returns : ndarray (T, E), written
    """
    cdef double discount = number_of(gamma, "gamma"), decay = number_of(gae_lambda, "gae_lambda")
    cdef const trpo_kernels *k = kernels_of(values, "values")
    cdef char code = code_of(values.dtype)
    cdef const void *v = data_of(values, "values", code, 2, -1, -1, False)
    cdef size_t steps = values.shape[0], envs = values.shape[1], bytes = values.nbytes
    cdef const void *r = data_of(rewards, "rewards", code, 2, steps, envs, False)
    cdef const void *following = data_of(next_values, "next_values", code, 2, steps, envs, False)
    cdef const void *end = data_of(terminated, "terminated", "?", 2, steps, envs, False)
    cdef const void *cut = data_of(truncated, "truncated", "?", 2, steps, envs, False)
    cdef void *a = data_of(advantages, "advantages", code, 2, steps, envs, True)
    cdef void *out = data_of(returns, "returns", code, 2, steps, envs, True)
    cdef Extent extents[7]
    extents[0], extents[1] = Extent(out, bytes), Extent(a, bytes)
    extents[2], extents[3], extents[4] = Extent(r, bytes), Extent(v, bytes), Extent(following, bytes)
    extents[5], extents[6] = Extent(end, steps * envs), Extent(cut, steps * envs)
    names = ("returns", "advantages", "rewards", "values", "next_values", "terminated", "truncated")
    refuse_shared(extents, names, 2)
    k.gae(steps, envs, discount, decay, r, v, following, <const uint8_t *>end, <const uint8_t *>cut, a, out)


def normalize_advantages(advantages):
    """``(A - mean) / std`` in place, any shape, float32 or float64; zeros where std is of rounding size.

    Returns ``(mean, std)`` from before.
    """
    cdef const trpo_kernels *k = kernels_of(advantages, "advantages")
    cdef double mean = 0, std = 0
    flat = advantages.reshape(-1)
    if advantages.size and flat.ctypes.data != advantages.ctypes.data:
        raise ValueError("advantages: an array that is not C-contiguous given; want one that is")
    cdef void *a = data_of(flat, "advantages", code_of(advantages.dtype), 1, -1, -1, True)
    k.standardize(flat.size, a, &mean, &std)
    return mean, std


def discounted_returns(rewards, done, valid, carry, out, *, gamma):
    """``carry = gamma carry + r; out = carry; carry = 0 where done``: the statistic of the reward scale.

    Parameters
    ----------
    rewards : ndarray (T, E) float64
    done, valid : ndarray (T, E) bool
        Rows that are not valid leave the carry alone; `out` is then the carry.
    carry : ndarray (E,) float64, updated in place
    out : ndarray (T, E) float64, written
    """
    cdef double discount = number_of(gamma, "gamma")
    cdef const double *r = <const double *>data_of(rewards, "rewards", "d", 2, -1, -1, False)
    cdef Py_ssize_t steps = rewards.shape[0], envs = rewards.shape[1], t, e, i
    cdef const uint8_t *d = <const uint8_t *>data_of(done, "done", "?", 2, steps, envs, False)
    cdef const uint8_t *ok = <const uint8_t *>data_of(valid, "valid", "?", 2, steps, envs, False)
    cdef double *c = <double *>data_of(carry, "carry", "d", 1, envs, -1, True)
    cdef double *o = <double *>data_of(out, "out", "d", 2, steps, envs, True)
    cdef Extent extents[5]
    extents[0], extents[1] = Extent(o, steps * envs * sizeof(double)), Extent(c, envs * sizeof(double))
    extents[2] = Extent(r, steps * envs * sizeof(double))
    extents[3], extents[4] = Extent(d, steps * envs), Extent(ok, steps * envs)
    refuse_shared(extents, ("out", "carry", "rewards", "done", "valid"), 2)
    for t in range(steps):
        for e in range(envs):
            i = t * envs + e
            if ok[i]:
                c[e] = discount * c[e] + r[i]
            o[i] = c[e]
            if ok[i] and d[i]:
                c[e] = 0


def merge_moments(data, mean, m2, count):
    """Merge rows ``data`` (N, D), float32 or float64, into running moments (Chan, Golub & LeVeque 1983).

    Parameters
    ----------
    mean, m2 : ndarray (D,) float64, updated in place
        Mean and sum of squared deviations of the `count` rows so far.

    Returns
    -------
    count : float
        The new count.

    Raises
    ------
    ValueError
        An entry is not finite; names its row and column. The statistics are untouched.
    """
    cdef double so_far = number_of(count, "count")
    cdef const trpo_kernels *k = kernels_of(data, "data")
    cdef const void *rows = data_of(data, "data", code_of(data.dtype), 2, -1, -1, False)
    cdef size_t n = data.shape[0], columns = data.shape[1], bad
    cdef double *center = <double *>data_of(mean, "mean", "d", 1, columns, -1, True)
    cdef double *squares = <double *>data_of(m2, "m2", "d", 1, columns, -1, True)
    refuse_overlap("m2", squares, m2.nbytes, "mean", center, mean.nbytes)
    refuse_overlap("mean", center, mean.nbytes, "data", rows, data.nbytes)
    refuse_overlap("m2", squares, m2.nbytes, "data", rows, data.nbytes)
    bad = k.merge_moments(n, columns, rows, so_far, center, squares)
    if bad:
        row, column = divmod(bad - 1, columns)
        raise ValueError(f"data: row {row}, column {column} holds {data[row, column]}; want finite values")
    return so_far + n
