from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

def two_numbers(answer: Any) -> tuple[float, float]: ...
def backtrack(
    objective: Callable[[NDArray[Any]], tuple[float, float]],
    theta: NDArray[Any],
    step: NDArray[Any],
    *,
    max_kl: float,
    backtrack_factor: float,
    max_backtracks: int,
    accept: Callable[[float, float, float], bool] | None = None,
) -> tuple[int, int, float, float, float]: ...
