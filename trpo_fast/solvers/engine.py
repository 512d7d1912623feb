"""What a trust-region step needs from the mathematics of a policy."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._core.operator import Operator


class Evaluator(Protocol):
    """Parameters that a search moves, and what a move is worth."""

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer (n,), without a copy: writing it changes the policy."""

    def parameters_changed(self) -> None:
        """Says that `parameters()` was written, so that stale autograd graphs fail loudly."""

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """``(improvement, kl)`` at the current parameters."""


class Engine(Evaluator, Protocol):
    """The policy's side of a trust-region step; theta_old is where the parameters were when `bind` ran.

    Every mean is a sum over the bound rows divided by their number, or by the `total` given to `bind`, so that several
    ranks can add their gradients, products and evaluations.
    """

    @property
    def name(self) -> str:
        """ "native" or "autograd"."""

    @property
    def size(self) -> int:
        """n, the number of parameters."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def bind(self, batch: Any, *, total: int | None = None, entropy_coefficient: float = 0.0) -> None:
        """Cache the forward pass of `batch` at the current parameters.

        The objective is ``(1/N) sum ratio A`` plus `entropy_coefficient` times the mean entropy.
        """

    def surrogate_gradient(self) -> NDArray[Any]:
        """(n,) gradient of the objective at theta_old."""

    def fisher_operator(self, rows: NDArray[np.int64] | None = None) -> Operator:
        """F at theta_old, undamped; with `rows`, increasing row numbers of the batch, the mean over these alone."""

    def preconditioner(self, kind: str, *, damping: float, rows: NDArray[np.int64] | None = None) -> Operator:
        """About (F + damping I)^-1 at theta_old, from some of the bound rows; `kind` is "kfac" or "diagonal"."""
