from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .critic import ValueKernel
from .operator import Operator

class PolicyKernel:
    def __init__(
        self,
        widths: Sequence[int],
        activation: str,
        distribution: str,
        dtype: Any,
        nvec: Sequence[int] | None = None,
        *,
        narrow: bool = False,
    ) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def log_std_items(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def distribution(self) -> str: ...
    @property
    def nvec(self) -> tuple[int, ...] | None: ...
    @property
    def bindings(self) -> int: ...
    def forward(self, parameters: NDArray[Any], observations: NDArray[Any]) -> NDArray[Any]: ...
    def bind(
        self,
        parameters: NDArray[Any],
        observations: NDArray[Any],
        actions: NDArray[Any],
        advantages: NDArray[Any],
        log_probs: NDArray[Any] | None = None,
        total: float | None = None,
        action_masks: NDArray[Any] | None = None,
        entropy_coefficient: float = 0.0,
        cache_bytes: int | None = None,
    ) -> None: ...
    @property
    def memory(self) -> int: ...
    def subset(self, rows: NDArray[Any], cache_bytes: int | None = None) -> PolicyKernel: ...
    def log_probs(self) -> NDArray[Any]: ...
    def ratios(self) -> NDArray[Any]: ...
    def surrogate_gradient(self, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def evaluate(self, parameters: NDArray[Any], kl_direction: str = "new_old") -> tuple[float, float]: ...
    def entropy(self) -> float: ...
    def fisher_operator(self, rows: NDArray[Any] | None = None) -> FisherOperator: ...

class FisherOperator(Operator): ...

class Actor:
    def __init__(
        self,
        kernel: PolicyKernel,
        parameters: NDArray[Any],
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

class ActorCritic:
    def __init__(
        self,
        kernel: PolicyKernel,
        parameters: NDArray[Any],
        critic: ValueKernel,
        critic_parameters: NDArray[Any],
    ) -> None: ...
    def forward(self, observations: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None: ...

def sample(
    distribution: str,
    distribution_parameters: NDArray[Any],
    log_std: NDArray[Any] | None,
    step: int,
    actions: NDArray[Any],
    log_probs: NDArray[Any],
    *,
    seed: int,
    stream: int,
    deterministic: bool = False,
    first_row: int = 0,
    nvec: Sequence[int] | None = None,
    action_masks: NDArray[Any] | None = None,
) -> None: ...
def gaussian_actions(means: NDArray[Any], log_std: NDArray[Any], noise: NDArray[Any]) -> NDArray[Any]: ...
