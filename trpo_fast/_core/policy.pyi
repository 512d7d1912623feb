"""MLP policies on one flat parameter buffer: acting, gradient, Fisher products, trial evaluation."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .operator import Operator

class PolicyKernel:
    """Mathematics of an MLP policy; holds no parameters.

    The flat buffer is ``[log_std (A,)] W1 (w1, w0) b1 (w1,) W2 b2 ...`` with ``log_std`` for "gaussian" only, that is
    ``named_parameters()`` order of MLPPolicy.
    """

    def __init__(self, widths: Sequence[int], activation: str, distribution: str, dtype: Any) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def distribution(self) -> str: ...
    def forward(self, parameters: NDArray[Any], observations: NDArray[Any]) -> NDArray[Any]:
        """Mean or logits, ``(B, A)``."""
    def log_prob(self, parameters: NDArray[Any], observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]: ...
    def entropy(self, parameters: NDArray[Any], observations: NDArray[Any]) -> float:
        """Mean entropy over the batch, nats."""
    def bind(
        self,
        parameters: NDArray[Any],
        observations: NDArray[Any],
        actions: NDArray[Any],
        advantages: NDArray[Any],
        log_probs: NDArray[Any] | None = None,
        total: int | None = None,
    ) -> None:
        """Cache the forward pass at theta_old. Means below are sums over this batch divided by ``total`` (default B)."""
    def surrogate_gradient(self, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def evaluate(self, parameters: NDArray[Any], kl_direction: str = "new_old") -> tuple[float, float]:
        """(improvement, kl) at trial ``parameters`` against the bound theta_old."""
    def fisher_operator(self) -> Operator:
        """Fisher product at the bound theta_old; raises RuntimeError once ``bind`` ran again."""

class Actor:
    """Acts with the parameters in ``parameters`` (shared, read at every call)."""

    def __init__(
        self,
        kernel: PolicyKernel,
        parameters: NDArray[Any],
        *,
        observation_mean: NDArray[Any] | None = None,   # float64 (D,), read at every call
        observation_scale: NDArray[Any] | None = None,  # float64 (D,), 1 / std
        observation_clip: float = float("inf"),
        action_low: NDArray[Any] | None = None,         # float64 (A,), gaussian only
        action_high: NDArray[Any] | None = None,
        action_start: int = 0,                          # categorical only
        seed: int = 0,
        stream: int = 0,
    ) -> None: ...
    def act(
        self,
        observations: NDArray[Any],  # IN  (E, D) float32 or float64, raw
        step: int,                   # counter of the noise; noise is keyed by (seed, stream, step, row + first_row)
        normalized: NDArray[Any],    # OUT (E, D) dtype of the policy
        actions: NDArray[Any],       # OUT (E, A) dtype of the policy, or (E,) int64
        log_probs: NDArray[Any],     # OUT (E,) dtype of the policy
        env_actions: NDArray[Any],   # OUT (E, A) float32/float64 clipped to the Box, or (E,) int64 with start added
        deterministic: bool = False,
        first_row: int = 0,
    ) -> None:
        """Raises FloatingPointError naming the row when an observation (or the resulting action) is not finite."""

def sample(
    distribution: str,
    distribution_parameters: NDArray[Any],  # (E, A) mean or logits
    log_std: NDArray[Any] | None,           # (A,) same dtype
    step: int,
    actions: NDArray[Any],                  # OUT as above
    log_probs: NDArray[Any],                # OUT
    *,
    seed: int,
    stream: int,
    deterministic: bool = False,
    first_row: int = 0,
) -> None:
    """The sampling that Actor does, for networks that are evaluated elsewhere."""
