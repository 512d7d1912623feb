"""Value networks on one flat parameter buffer, and their fit."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

class ValueKernel:
    """Mathematics of an MLP critic ``W1 b1 W2 b2 ...`` with one output; holds no parameters."""

    def __init__(self, widths: Sequence[int], activation: str, dtype: Any) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def values(self, parameters: NDArray[Any], observations: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """``(B,)``."""
    def fit(
        self,
        parameters: NDArray[Any],      # IN/OUT (n,)
        first_moment: NDArray[Any],    # IN/OUT (n,) Adam's m
        second_moment: NDArray[Any],   # IN/OUT (n,) Adam's v
        observations: NDArray[Any],    # (B, D)
        returns: NDArray[Any],         # (B,)
        *,
        adam_step: int,                # steps taken so far
        epochs: int,
        batch_size: int,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        seed: int,
        stream: int,
        first_epoch: int,              # counter of the minibatch permutations, unique over the whole training
    ) -> tuple[int, float]:
        """All epochs in one GIL-free call: minibatch Adam on mean squared error.

        Every epoch draws a fresh permutation; a last minibatch smaller than ``batch_size`` is used with its own mean.
        Returns ``(adam_step, loss)`` where loss is the mean squared error over the last epoch's minibatches as they were
        met. Raises FloatingPointError when it would make a parameter non-finite, with parameters and moments as they were
        before the call. Only the main thread answers Ctrl-C (between minibatches, KeyboardInterrupt, arrays as before the call).
        """
