from typing import Any

from numpy.typing import DTypeLike, NDArray

from .acting import Actor

class Recorder:
    def __init__(
        self,
        actor: Actor,
        own: slice,
        *,
        first_step: int,
        env_action_dtype: DTypeLike,
        observations: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        rewards: NDArray[Any],
        terminated: NDArray[Any],
        truncated: NDArray[Any],
        raw: NDArray[Any] | None = None,
        action_masks: NDArray[Any] | None = None,
        first_row: int | None = None,
    ) -> None: ...
    def act(self, t: int, observations: NDArray[Any], action_masks: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def record(self, t: int, rewards: NDArray[Any], terminated: NDArray[Any], truncated: NDArray[Any]) -> None: ...
