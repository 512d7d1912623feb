"""The backtracking loop."""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport NAN, isfinite
from libc.string cimport memcpy

from trpo_fast._core.csrc cimport (
    TRPO_STATUS_CONDITION_VIOLATED,
    TRPO_STATUS_KL_VIOLATED,
    TRPO_STATUS_NO_IMPROVEMENT,
    TRPO_STATUS_NON_FINITE,
    TRPO_STATUS_SUCCESS,
    trpo_kernels,
)
from trpo_fast._core.library cimport Memory, code_of, data_of, kernels_of, refuse_overlap

from trpo_fast._core.library import in_words


def two_numbers(answer):
    """What an objective returned, (improvement, kl), as floats; a TypeError or ValueError names it otherwise."""
    try:
        improvement, kl = answer
        numbers = float(improvement), float(kl)
    except (TypeError, ValueError):
        raise TypeError(f"objective: {in_words(answer)} given; want two numbers, (improvement, kl)") from None
    except OverflowError:
        raise ValueError(
            f"objective: {in_words(answer)} given; want two numbers that a float holds, (improvement, kl)"
        ) from None
    return numbers


def backtrack(
    objective, theta, step, *, double max_kl, double backtrack_factor, int max_backtracks, accept=None
):
    """Update ``theta`` in place or restore it bit for bit; see solvers.backtracking_line_search.

    Returns ``(status, backtracks, improvement, kl, step_fraction)``. `improvement` and `kl` are those of the accepted
    step, or of the last trial. ``accept(improvement, kl, fraction) -> bool`` is asked where the rest holds.
    """
    cdef const trpo_kernels *k = kernels_of(theta, "theta")
    cdef char code = code_of(theta.dtype)
    cdef size_t n = theta.size, bytes = theta.size * k.item_size
    cdef void *current = data_of(theta, "theta", code, 1, n, -1, True)
    cdef const void *direction = data_of(step, "step", code, 1, n, -1, False)
    cdef Memory memory = Memory()
    cdef void *origin = memory.reserve(bytes)
    cdef double fraction = 1, improvement = 0, kl = 0
    cdef int status = TRPO_STATUS_NO_IMPROVEMENT
    cdef long long j, trials = <long long>max_backtracks + 1  # beyond an int for the largest count
    cdef bint accepted = False
    refuse_overlap("step", direction, bytes, "theta", current, bytes)
    memcpy(origin, current, bytes)
    try:
        for j in range(trials):
            PyErr_CheckSignals()
            k.step_from(n, origin, fraction, direction, current)
            if not k.all_finite(n, current):
                status, improvement, kl = TRPO_STATUS_NON_FINITE, NAN, NAN
            else:
                improvement, kl = two_numbers(objective(theta))
                if not (isfinite(improvement) and isfinite(kl)):
                    status = TRPO_STATUS_NON_FINITE
                elif not improvement > 0:
                    status = TRPO_STATUS_NO_IMPROVEMENT
                elif not kl <= max_kl:
                    status = TRPO_STATUS_KL_VIOLATED
                elif accept is not None and not accept(improvement, kl, fraction):
                    status = TRPO_STATUS_CONDITION_VIOLATED
                else:
                    accepted = True
                    return TRPO_STATUS_SUCCESS, j, improvement, kl, fraction
            fraction *= backtrack_factor
        return status, max_backtracks, improvement, kl, 0.0
    finally:
        # also when the objective or the condition raised or Ctrl-C landed
        if not accepted:
            memcpy(current, origin, bytes)
