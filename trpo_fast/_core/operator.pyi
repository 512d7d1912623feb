"""Symmetric linear operators that the compiled loops call without Python."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Operator:
    """A symmetric ``(n, n)`` linear operator. Subclasses are compiled."""

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def matvec(self, v: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def __matmul__(self, v: NDArray[Any]) -> NDArray[Any]: ...

class CallableOperator(Operator):
    """Adapts a Python function ``v -> A v``; the function must not keep ``v``."""

    def __init__(self, function: Callable[[NDArray[Any]], Any], size: int, dtype: Any) -> None: ...

class DenseOperator(Operator):
    """A dense symmetric matrix, C-contiguous ``(n, n)``, float32 or float64."""

    def __init__(self, matrix: NDArray[Any]) -> None: ...
