from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

class CopyLoop:
    methods: list[Callable[[Any], Any]]
    infos: list[Any]
    observations: list[Any]
    dtype: Any
    shape: tuple[int, ...]
    @property
    def at(self) -> int: ...
    def __init__(
        self,
        rows: NDArray[Any],
        rewards: NDArray[Any],
        terminated: NDArray[Any],
        truncated: NDArray[Any],
        *,
        shape: tuple[int, ...],
        gather: bool,
        other: Callable[[int, Any], None],
    ) -> None: ...
    def step(self, actions: Any) -> None: ...
