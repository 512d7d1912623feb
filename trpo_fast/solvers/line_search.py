"""Backtracking on an objective, a KL constraint and any further condition."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import linesearch
from .._core.library import in_words
from .arrays import as_numpy, is_tensor, mark_written, without_graph
from .status import Status
from .validation import require_count, require_fraction, require_number


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A step that is tried, at the moment when the parameters are its own."""

    theta: Any
    """The parameters (n,): a read-only view of an ndarray, a tensor itself, which must not be written."""
    improvement: float
    """What `objective` said of them, ``> 0``."""
    kl: float
    """What `objective` said of them, within the limit."""
    step_fraction: float
    """``backtrack_factor ** j``."""


Condition = Callable[[Trial], Any]
"""Whether a trial may be accepted that improves within the trust region."""


class LineSearchResult(NamedTuple):
    """Outcome of `backtracking_line_search`."""

    status: Status
    """SUCCESS, or why no trial was accepted: NO_IMPROVEMENT, KL_VIOLATED, CONDITION_VIOLATED, NON_FINITE (the last
    trial's reason)."""
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
    accept: Condition | None = None,
) -> LineSearchResult:
    """Move to ``theta + backtrack_factor**j step`` for the smallest j that improves within the trust region.

    The j-th trial is accepted if its improvement is ``> 0`` and its KL is ``<= max_kl``, and if `accept` says so, j in
    0..`max_backtracks` (Schulman et al. 2015, appendix C).

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
    accept : callable, optional
        ``accept(trial) -> bool``, a further condition, asked with a `Trial` of those trials alone that improve within
        the region; False goes on to the next one. It may look at whatever depends on the parameters, which are the
        trial's, and must not write them.

    Raises
    ------
    TypeError, ValueError
        Misuse, also an `objective` that returns something else than two numbers, and an `accept` something else than
        True or False. What they raise travels to the caller.
    """
    if not callable(objective):
        raise TypeError(f"objective: {type(objective).__name__} given; want a callable theta -> (improvement, kl)")
    tensor = is_tensor(theta)
    values = as_numpy(theta, "theta") if tensor else theta  # of other libraries none may be written
    if not isinstance(values, np.ndarray) or values.dtype not in (np.float32, np.float64):
        what = f"{values.dtype} array" if isinstance(values, np.ndarray) else type(theta).__name__
        raise TypeError(f"theta: {what} given; want an ndarray or CPU tensor of float32 or float64 to update in place")

    condition = _asked(accept, theta)

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
            accept=condition,
        )
    finally:
        if tensor:
            mark_written(theta)
    return LineSearchResult(Status(status), backtracks, improvement, kl, fraction)


def full_step(
    objective: Callable[[NDArray[Any]], tuple[float, float]],
    theta: NDArray[Any],
    step: NDArray[Any],
    accept: Condition | None = None,
) -> LineSearchResult:
    """Move to ``theta + step`` whatever comes of it, unless improvement or KL are not finite or `accept` says False.

    Arguments are those of `backtracking_line_search`; `theta` is left as it was, bit for bit, where the step is not
    taken or `objective` raises.
    """
    condition = _asked(accept, theta)
    origin = theta.copy()
    status, improvement, kl = Status.NON_FINITE, math.nan, math.nan
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            theta += step
        if np.isfinite(theta).all():  # what saturates hides an infinity
            improvement, kl = linesearch.two_numbers(objective(theta))
        if math.isfinite(improvement) and math.isfinite(kl):
            accepted = condition is None or condition(improvement, kl, 1.0)
            status = Status.SUCCESS if accepted else Status.CONDITION_VIOLATED
    finally:
        if status != Status.SUCCESS:
            theta[:] = origin
    return LineSearchResult(status, 0, improvement, kl, float(status == Status.SUCCESS))


def _asked(accept: Condition | None, theta: Any) -> Callable[[float, float, float], bool] | None:
    """`accept` as the loop asks it, or None; `theta` is what a trial shows."""
    if accept is None:
        return None
    if not callable(accept):
        raise TypeError(f"accept: {type(accept).__name__} given; want a callable trial -> True or False")
    shown = theta
    if isinstance(theta, np.ndarray):
        shown = theta.view()
        shown.flags.writeable = False

    def condition(improvement: float, kl: float, fraction: float) -> bool:
        answer = accept(Trial(shown, improvement, kl, fraction))
        try:
            found = answer.item() if hasattr(answer, "item") else answer  # of one item: NumPy's, torch's, JAX's
        except (RuntimeError, TypeError, ValueError):
            found = answer
        if not isinstance(found, bool):
            raise TypeError(f"accept: {in_words(answer)} given; want True or False")
        return found

    return condition
