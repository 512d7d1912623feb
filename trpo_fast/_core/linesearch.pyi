"""The backtracking loop."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

def backtrack(
    objective: Callable[[NDArray[Any]], tuple[float, float]],
    theta: NDArray[Any],
    step: NDArray[Any],
    *,
    max_kl: float,
    backtrack_factor: float,
    max_backtracks: int,
) -> tuple[int, int, float, float, float]:
    """Update ``theta`` in place or restore it bit for bit.

    Returns ``(status, backtracks, improvement, kl, step_fraction)``; ``improvement`` and ``kl`` are those of the accepted
    step, or of the last trial.
    """
