"""What is timed: synthetic problems of the shapes that training meets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

OBSERVATIONS, ACTIONS = 17, 6  # HalfCheetah-v5


@dataclass(frozen=True)
class LinearSystem:
    """``A x = b`` with ``A`` symmetric positive definite, condition number 100."""

    matrix: NDArray[Any]  # (n, n), or (n,) for a diagonal matrix
    b: NDArray[Any]  # (n,)
    iterations: int

    @property
    def product_flops(self) -> int:
        """Operations of one product ``A v``."""
        return 2 * self.matrix.size if self.matrix.ndim == 2 else self.matrix.size

    def product(self, v: Any) -> Any:
        """``A v`` by numpy, or by torch where the matrix was replaced by a tensor."""
        return self.matrix @ v if self.matrix.ndim == 2 else self.matrix * v


def linear_system(kind: str, size: int, iterations: int, dtype: Any = np.float32) -> LinearSystem:
    """A random system; ``kind`` is "dense" or "diagonal"."""
    rng = np.random.default_rng(7)
    eigenvalues = np.geomspace(0.1, 10.0, size)
    rng.shuffle(eigenvalues)
    matrix = eigenvalues
    if kind == "dense":
        # A Householder reflection on both sides keeps the eigenvalues and fills the matrix.
        u = rng.standard_normal(size)
        u /= np.linalg.norm(u)
        matrix = np.diag(eigenvalues) - 2 * np.outer(u, u * eigenvalues)
        matrix -= 2 * np.outer(matrix @ u, u)
        matrix = (matrix + matrix.T) / 2
    return LinearSystem(matrix.astype(dtype), rng.standard_normal(size).astype(dtype), iterations)


@dataclass(frozen=True)
class PolicyProblem:
    """One batch of a Gaussian tanh policy ``17-hidden-hidden-6``, float32, with a critic of the same shape.

    Arrays are read by all baselines and written by none.
    """

    batch: int
    hidden: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the policy."""
        return (OBSERVATIONS, self.hidden, self.hidden, ACTIONS)

    def _layers(self, outputs: int, seed: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        rng = np.random.default_rng(seed)
        layers = []
        for shape in ((self.hidden, OBSERVATIONS), (self.hidden, self.hidden), (outputs, self.hidden)):
            weight = rng.standard_normal(shape) / np.sqrt(shape[1])
            layers.append((weight.astype(np.float32), (0.1 * rng.standard_normal(shape[0])).astype(np.float32)))
        return layers

    @cached_property
    def layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights (out, in) and biases (out,) of the policy."""
        return self._layers(ACTIONS, 1)

    @cached_property
    def critic_layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """As `layers`, with one output."""
        return self._layers(1, 2)

    @cached_property
    def log_std(self) -> NDArray[np.float32]:
        """(6,)."""
        return np.linspace(-0.8, -0.2, ACTIONS, dtype=np.float32)

    @cached_property
    def observations(self) -> NDArray[np.float32]:
        """(B, 17), normalized."""
        return np.random.default_rng(3).standard_normal((self.batch, OBSERVATIONS), dtype=np.float32)

    @cached_property
    def actions(self) -> NDArray[np.float32]:
        """(B, 6), drawn from the policy."""
        noise = np.random.default_rng(4).standard_normal((self.batch, ACTIONS), dtype=np.float32)
        return forward(self.layers, self.observations) + np.exp(self.log_std) * noise

    @cached_property
    def returns(self) -> NDArray[np.float32]:
        """(B,): a function of the observation that a critic can learn, and noise."""
        noise = np.random.default_rng(5).standard_normal(self.batch, dtype=np.float32)
        x = self.observations
        return (np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * noise).astype(np.float32)

    @cached_property
    def advantages(self) -> NDArray[np.float32]:
        """(B,), mean 0 and standard deviation 1: some actions in some states are better."""
        raw = self.actions[:, 0] * self.observations[:, 3] + np.random.default_rng(6).standard_normal(self.batch)
        return ((raw - raw.mean()) / raw.std()).astype(np.float32)

    @cached_property
    def direction(self) -> NDArray[np.float32]:
        """A vector to multiply, (n,)."""
        size = ACTIONS + sum(w.size + b.size for w, b in self.layers)
        return np.random.default_rng(8).standard_normal(size, dtype=np.float32)

    @property
    def fisher_flops(self) -> int:
        """Operations of one Fisher product: 8 B P - 4 B P_first with P weights, P_first of them in the first layer."""
        weights = [w.size for w, _ in self.layers]
        return self.batch * (8 * sum(weights) - 4 * weights[0])


@dataclass(frozen=True)
class UpdateSettings:
    """One update; KL and damping are those of the joint distribution (sb3-contrib averages over dimensions)."""

    max_kl: float = 0.03
    damping: float = 0.1
    cg_iterations: int = 25
    critic_epochs: int = 20
    critic_batch_size: int = 128
    critic_learning_rate: float = 1e-3


@dataclass(frozen=True)
class Updated:
    """Parameters after an update, flat and in ``named_parameters()`` order."""

    policy: NDArray[np.float32]  # log_std W1 b1 W2 b2 W3 b3
    critic: NDArray[np.float32]  # W1 b1 W2 b2 W3 b3


def forward(layers: Any, observations: Any) -> Any:
    """Output of the tanh network, (B, outputs), in the precision of its arguments."""
    x = observations
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if i < len(layers) - 1:
            x = np.tanh(x)
    return x
