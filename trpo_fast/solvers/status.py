"""How a solver or a step ended. The sign is the contract; the values are those of csrc/include/trpo/types.h."""

from enum import IntEnum


class Status(IntEnum):
    """An outcome: 0 at the goal, > 0 if it stopped early with a usable result, < 0 if it failed and changed nothing."""

    SUCCESS = 0
    """Converged, or the step was accepted."""
    ITERATION_LIMIT = 1
    """Spent all iterations: normal for truncated conjugate gradient."""
    STAGNATED = 2
    """Curvature or residual lost in rounding; the iterate so far is usable."""
    NO_GRADIENT = 3
    """The gradient is zero: there is nothing to do."""
    NO_PROGRESS = 4
    """The quadratic model fell by less than asked for over the last iterations; the iterate is usable."""
    NOT_POSITIVE_DEFINITE = -1
    """A direction of negative curvature: the operator (or preconditioner) is not positive definite."""
    NON_FINITE = -2
    """An infinity or NaN appeared."""
    NO_IMPROVEMENT = -3
    """No trial was accepted; the last, shortest one did not improve the surrogate."""
    KL_VIOLATED = -4
    """No trial was accepted; the last, shortest one left the trust region."""
    NO_CURVATURE = -5
    """The direction has no curvature, so the quadratic model gives it no length."""
    CONDITION_VIOLATED = -6
    """No trial was accepted; the last one improved within the trust region, but a further condition refused it."""
