from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from .operator import Operator
from .policy import PolicyKernel

FACTORED_DAMPING: float

class KroneckerPreconditioner(Operator):
    def __init__(
        self,
        blocks: Iterable[tuple[NDArray[Any], NDArray[Any], int, int | None]],
        size: int,
        dtype: Any,
        damping: float,
        diagonal: NDArray[Any] | None = None,
    ) -> None: ...

class FisherFactors:
    def __init__(self, policy: PolicyKernel) -> None: ...
    def statistics(
        self, rows: NDArray[Any] | None = None, signs: int = 0
    ) -> list[tuple[NDArray[Any], NDArray[Any]]]: ...
    def preconditioner(
        self,
        kind: str,
        *,
        damping: float,
        rows: NDArray[Any] | None = None,
        statistics: Sequence[tuple[NDArray[Any], NDArray[Any]]] | None = None,
    ) -> KroneckerPreconditioner: ...
