"""Synthetic batches of the sizes of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float32", "float64")
CHEETAH = (17, 64, 64, 6)  # HalfCheetah-v5 with the layers that everybody takes
HUMANOID = (376, 256, 256, 17)  # Humanoid-v4
WIDTHS = (CHEETAH, (17, 16, 16, 6), (17, 256, 256, 6), (17, 512, 512, 6), HUMANOID)
BATCHES = (2_048, 8_192, 50_000)

Vector = NDArray[Any]


@dataclass(frozen=True)
class PolicyProblem:
    """One batch of a Gaussian tanh policy with a critic of the same hidden layers, synthetic, of the sizes of training.

    Attributes
    ----------
    widths : tuple of int
        Of the policy: observations D, hidden layers, action dimensions A.
    batch : int
        B.
    dtype : {"float32", "float64"}
        Of every array below.
    """

    widths: tuple[int, ...] = CHEETAH
    batch: int = 2_048
    dtype: str = "float32"
    distribution: ClassVar[str] = "gaussian"

    @property
    def masks(self) -> NDArray[np.bool_] | None:
        """The choices that are allowed, ``(B, choices)``; None: all."""
        return None

    def _draw(self, seed: int, *shape: int) -> Vector:
        return np.random.default_rng(seed).standard_normal(shape).astype(self.dtype)

    def _layers(self, widths: Sequence[int], seed: int) -> list[tuple[Vector, Vector]]:
        rng = np.random.default_rng(seed)
        layers = []
        for inputs, outputs in pairwise(widths):
            weight, bias = rng.standard_normal((outputs, inputs)) / np.sqrt(inputs), 0.1 * rng.standard_normal(outputs)
            layers.append((weight.astype(self.dtype), bias.astype(self.dtype)))
        return layers

    @cached_property
    def layers(self) -> list[tuple[Vector, Vector]]:
        """Weights (out, in) and biases (out,) of the policy."""
        return self._layers(self.widths, 1)

    @cached_property
    def critic_layers(self) -> list[tuple[Vector, Vector]]:
        """As `layers`, with one output."""
        return self._layers((*self.widths[:-1], 1), 2)

    @cached_property
    def log_std(self) -> Vector:
        """(A,)."""
        return np.linspace(-0.8, -0.2, self.widths[-1]).astype(self.dtype)

    @cached_property
    def parameters(self) -> Vector:
        """theta_old, (n,): ``log_std W1 b1 W2 b2 ...``."""
        return np.concatenate([self.log_std, flatten(self.layers)])

    @cached_property
    def observations(self) -> Vector:
        """(B, D), normalized."""
        return self._draw(3, self.batch, self.widths[0])

    @cached_property
    def actions(self) -> Vector:
        """(B, A), drawn from the policy."""
        mean = forward(self.layers, self.observations)[-1]
        return mean + np.exp(self.log_std) * self._draw(4, self.batch, self.widths[-1])

    @cached_property
    def advantages(self) -> Vector:
        """(B,), mean 0 and standard deviation 1: some actions in some states are better."""
        raw = self.actions[:, 0] * self.observations[:, 3] + self._draw(6, self.batch)
        return ((raw - raw.mean()) / (raw.std() or 1)).astype(self.dtype)  # a single row deviates by nothing

    @cached_property
    def returns(self) -> Vector:
        """(B,): a function of the observation that a critic can learn, and noise."""
        x = self.observations
        return (np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * self._draw(5, self.batch)).astype(self.dtype)

    @cached_property
    def direction(self) -> Vector:
        """A vector to multiply, (n,)."""
        return self._draw(8, self.size)

    @property
    def size(self) -> int:
        """The number n of the policy's parameters."""
        return self.widths[-1] + sum(outputs * (inputs + 1) for inputs, outputs in pairwise(self.widths))

    @property
    def weights(self) -> int:
        """P: parameters that are multiplied with."""
        return sum(inputs * outputs for inputs, outputs in pairwise(self.widths))

    @property
    def fisher_flops(self) -> int:
        """Operations of one Fisher product."""
        return self.batch * (8 * self.weights - 4 * self.widths[0] * self.widths[1])

    @property
    def fisher_bytes(self) -> int:
        """Bytes that one Fisher product has to move at least."""
        return np.dtype(self.dtype).itemsize * (self.batch * sum(self.widths[:-1]) + 3 * self.size)

    @property
    def name(self) -> str:
        """As in "17-64-64-6"."""
        return "-".join(map(str, self.widths))


def flatten(layers: Any) -> Vector:
    """``W1 b1 W2 b2 ...`` of arrays, (n,)."""
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def forward(layers: Any, observations: Vector) -> list[Vector]:
    """Inputs, hidden activations and output of a tanh network, in the precision of its arguments."""
    values = [observations]
    for i, (weight, bias) in enumerate(layers):
        z = values[-1] @ weight.T + bias
        values.append(np.tanh(z) if i < len(layers) - 1 else z)
    return values
