"""Backtracking on an objective and a KL constraint."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import linesearch
from .arrays import as_numpy, is_tensor, mark_written, without_graph
from .status import Status
from .validation import require_count, require_fraction, require_number


class LineSearchResult(NamedTuple):
    """Outcome of `backtracking_line_search`."""

    status: Status
    """SUCCESS, or why no trial was accepted: NO_IMPROVEMENT, KL_VIOLATED, NON_FINITE (the last trial's reason)."""
    backtracks: int
    """j of the accepted step, or the last tried."""
    improvement: float
    """Of the accepted step, or of the last trial."""
    kl: float
    """Of the accepted step, or of the last trial."""
    step_fraction: float
    """``backtrack_factor ** j`` of the accepted step; 0 where none was."""


def backtracking_line_search(
    objective: Callable[[Any], tuple[float, float]],
    theta: Any,
    step: Any,
    *,
    max_kl: float,
    backtrack_factor: float = 0.8,
    max_backtracks: int = 10,
) -> LineSearchResult:
    """Move to ``theta + backtrack_factor**j step`` for the smallest j that improves within the trust region.

    The j-th trial is accepted if its improvement is ``> 0`` and its KL is ``<= max_kl``, j in 0..`max_backtracks`
    (Schulman et al. 2015, appendix C).

    Parameters
    ----------
    objective : callable
        ``objective(theta) -> (improvement, kl)`` at trial parameters; it is given `theta` itself.
    theta : ndarray or CPU tensor of float32 or float64, shape (n,)
        Updated in place; left as it was, bit for bit, where no trial is accepted or `objective` raises. A tensor's
        version goes up with every change, so that an autograd graph that needs the old numbers fails.
    step : array (n,), same dtype
        The full step; not modified.
    max_kl : float
        ``> 0``; infinity asks for improvement alone.
    backtrack_factor : float
        In (0, 1).
    max_backtracks : int
        ``>= 0``.

    Raises
    ------
    TypeError, ValueError
        Misuse, also an `objective` that returns something else than two numbers. What it raises travels to the caller.
    """
    if not callable(objective):
        raise TypeError(f"objective: wanted a callable theta -> (improvement, kl), got {type(objective).__name__}")
    tensor = is_tensor(theta)
    values = as_numpy(theta, "theta") if tensor else theta  # of other libraries none may be written
    if not isinstance(values, np.ndarray) or values.dtype not in (np.float32, np.float64):
        what = f"{values.dtype} array" if isinstance(values, np.ndarray) else type(theta).__name__
        raise TypeError(f"theta: wanted an ndarray or CPU tensor of float32 or float64 to update in place, got {what}")

    def trial(_: NDArray[Any]) -> Any:
        if tensor:
            mark_written(theta)
        return without_graph(objective(theta))

    try:
        status, backtracks, improvement, kl, fraction = linesearch.backtrack(
            trial,
            values,
            as_numpy(step, "step"),
            max_kl=require_number("max_kl", max_kl, low=0, inclusive=False, finite=False),
            backtrack_factor=require_fraction("backtrack_factor", backtrack_factor),
            max_backtracks=require_count("max_backtracks", max_backtracks, low=0),
        )
    finally:
        if tensor:
            mark_written(theta)
    return LineSearchResult(Status(status), backtracks, improvement, kl, fraction)


def full_step(
    objective: Callable[[NDArray[Any]], tuple[float, float]], theta: NDArray[Any], step: NDArray[Any]
) -> LineSearchResult:
    """Move to ``theta + step`` whatever comes of it, but not where improvement or KL are not finite.

    Arguments are those of `backtracking_line_search`; `theta` is left as it was, bit for bit, where the step is not
    taken or `objective` raises.
    """
    origin = theta.copy()
    taken = False
    try:
        theta += step
        improvement, kl = objective(theta)
        taken = math.isfinite(improvement) and math.isfinite(kl)
    finally:
        if not taken:
            theta[:] = origin
    return LineSearchResult(Status.SUCCESS if taken else Status.NON_FINITE, 0, improvement, kl, float(taken))
