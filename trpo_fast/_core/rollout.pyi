"""Advantages and running statistics."""

from typing import Any

from numpy.typing import NDArray

def generalized_advantages(
    rewards: NDArray[Any],      # (T, E) dtype of values
    values: NDArray[Any],       # (T, E) float32 or float64: V(s_t)
    next_values: NDArray[Any],  # (T, E): V(s_{t+1}); the final observation's value where the episode ended
    terminated: NDArray[Any],   # (T, E) bool
    truncated: NDArray[Any],    # (T, E) bool
    advantages: NDArray[Any],   # OUT (T, E)
    returns: NDArray[Any],      # OUT (T, E): advantages + values
    *,
    gamma: float,
    gae_lambda: float,
) -> None: ...
def normalize_advantages(advantages: NDArray[Any]) -> tuple[float, float]:
    """In place, any shape; (A - mean) / std, zeros where std is of rounding size. Returns (mean, std) before."""
def discounted_returns(
    rewards: NDArray[Any],      # (T, E) float64
    done: NDArray[Any],         # (T, E) bool
    valid: NDArray[Any],        # (T, E) bool; rows that are not valid leave the carry alone
    carry: NDArray[Any],        # IN/OUT (E,) float64
    out: NDArray[Any],          # OUT (T, E) float64
    *,
    gamma: float,
) -> None:
    """carry = gamma * carry + r; out = carry; carry = 0 where done (the reward scale's statistic)."""
def merge_moments(data: NDArray[Any], mean: NDArray[Any], m2: NDArray[Any], count: float) -> float:
    """Chan's merge of rows ``data`` (N, D), float32/float64, into float64 ``mean`` and ``m2`` (D,) in place; returns the new count.

    Raises ValueError naming row and column of the first non-finite entry, with the statistics untouched.
    """
