from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from trpo_fast._core.policy import PolicyKernel

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

class CellActor:
    state: NDArray[Any]
    episode_starts: NDArray[Any]

    def __init__(
        self,
        kind: str,
        parameters: Sequence[NDArray[Any]],
        head: PolicyKernel,
        head_parameters: NDArray[Any],
        *,
        observation_mean: NDArray[Any] | None = None,
        observation_scale: NDArray[Any] | None = None,
        observation_clip: float = ...,
        action_low: NDArray[Any] | None = None,
        action_high: NDArray[Any] | None = None,
        action_scale: NDArray[Any] | None = None,
        action_offset: NDArray[Any] | None = None,
        action_start: NDArray[Any] | None = None,
        seed: int = 0,
        stream: int = 0,
    ) -> None: ...
    @property
    def inputs(self) -> int: ...
    def begin(self, count: int) -> None: ...
    def act(
        self,
        observations: NDArray[Any],
        step: int,
        normalized: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        env_actions: NDArray[Any],
        deterministic: bool = False,
        first_row: int = 0,
        action_masks: NDArray[Any] | None = None,
    ) -> None: ...
