from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from .operator import Operator

def solve(
    A: Operator,
    b: NDArray[Any],
    x: NDArray[Any],
    *,
    max_iter: int,
    rtol: float,
    atol: float,
    damping: float,
    progress_tol: float,
    preconditioner: Operator | None,
    start_from_x: bool,
    reorthogonalize: bool,
    callback: Callable[[NDArray[Any]], Any] | None,
) -> tuple[int, int, float, float]: ...
