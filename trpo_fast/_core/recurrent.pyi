from typing import Any

from numpy.typing import NDArray

class Cell:
    def __init__(self, kind: str, units: int, dtype: Any) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def units(self) -> int: ...
    @property
    def gates(self) -> int: ...
    @property
    def state_items(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def forward(
        self,
        weight: NDArray[Any],
        bias: NDArray[Any],
        inputs: NDArray[Any],
        starts: NDArray[Any] | None,
        first: NDArray[Any],
        *,
        keep: bool = False,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]: ...
    def jvp(
        self,
        weight: NDArray[Any],
        bias: NDArray[Any],
        kept: NDArray[Any],
        starts: NDArray[Any] | None,
        inputs: NDArray[Any],
        recurrent: NDArray[Any],
        sequences: int,
    ) -> NDArray[Any]: ...
    def vjp(
        self,
        weight: NDArray[Any],
        bias: NDArray[Any],
        kept: NDArray[Any],
        starts: NDArray[Any] | None,
        cotangents: NDArray[Any],
        sequences: int,
    ) -> tuple[NDArray[Any], NDArray[Any]]: ...
