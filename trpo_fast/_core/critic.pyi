from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

class NonFiniteError(FloatingPointError, ValueError): ...

def fit_error(returns: NDArray[Any], learning_rate: float, *, second_moment: bool) -> NonFiniteError: ...

class ValueKernel:
    def __init__(self, widths: Sequence[int], activation: str, dtype: Any) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def dtype(self) -> Any: ...
    def values(
        self, parameters: NDArray[Any], observations: NDArray[Any], out: NDArray[Any] | None = None
    ) -> NDArray[Any]: ...
    def fit(
        self,
        parameters: NDArray[Any],
        first_moment: NDArray[Any],
        second_moment: NDArray[Any],
        observations: NDArray[Any],
        returns: NDArray[Any],
        *,
        adam_step: int,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int | None = None,
        stream: int | None = None,
        first_epoch: int | None = None,
        order: NDArray[Any] | None = None,
        losses: NDArray[Any] | None = None,
        stop: NDArray[Any] | None = None,
        threads: int | None = None,
        bfloat16: bool = False,
    ) -> tuple[int, float]: ...
