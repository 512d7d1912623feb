from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .critic import ValueKernel
from .policy import PolicyKernel

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

def check_arrays(
    observations: Any,
    action_masks: Any,
    normalized: Any,
    actions: Any,
    log_probs: Any,
    env_actions: Any,
    dtype: np.dtype[Any],
    real: bool,
) -> None: ...
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
    parts: Sequence[tuple[Any, ...]] | None = None,
    action_masks: NDArray[Any] | None = None,
) -> None: ...
def gaussian_actions(means: NDArray[Any], log_std: NDArray[Any], noise: NDArray[Any]) -> NDArray[Any]: ...
