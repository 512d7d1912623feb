from typing import Any

from numpy.typing import NDArray

def generalized_advantages(
    rewards: NDArray[Any],
    values: NDArray[Any],
    next_values: NDArray[Any],
    terminated: NDArray[Any],
    truncated: NDArray[Any],
    advantages: NDArray[Any],
    returns: NDArray[Any],
    *,
    gamma: float,
    gae_lambda: float,
) -> None: ...
def normalize_advantages(advantages: NDArray[Any]) -> tuple[float, float]: ...
def discounted_returns(
    rewards: NDArray[Any],
    done: NDArray[Any],
    valid: NDArray[Any],
    carry: NDArray[Any],
    out: NDArray[Any],
    *,
    gamma: float,
) -> None: ...
def merge_moments(data: NDArray[Any], mean: NDArray[Any], m2: NDArray[Any], count: float) -> float: ...
