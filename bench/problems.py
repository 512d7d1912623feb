"""What is timed: the problems of `trpo_fast.benchmarks`, linear systems, and the settings of an update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast.benchmarks import BATCHES, CHEETAH, HUMANOID, WIDTHS, PolicyProblem

__all__ = [
    "BATCHES",
    "CHEETAH",
    "HUMANOID",
    "WIDTHS",
    "ChoiceProblem",
    "LinearSystem",
    "PolicyProblem",
    "UpdateSettings",
    "Updated",
]


@dataclass(frozen=True)
class ChoiceProblem:
    """One float32 batch of a tanh policy over discrete actions, on the observations of a `PolicyProblem`."""

    choices: tuple[int, ...]  # of each component: one of them is a categorical
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 2_048

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the policy; its outputs are logits."""
        return (CHEETAH[0], *self.hidden, sum(self.choices))

    @property
    def _network(self) -> PolicyProblem:
        return PolicyProblem(self.widths, self.batch)

    @cached_property
    def parameters(self) -> NDArray[np.float32]:
        """theta_old, (n,): ``W1 b1 W2 b2 ...``."""
        return np.concatenate([part.ravel() for layer in self._network.layers for part in layer])

    @cached_property
    def observations(self) -> NDArray[np.float32]:
        """(B, D)."""
        return self._network.observations

    @cached_property
    def actions(self) -> NDArray[np.int64]:
        """(B,) of a categorical, else (B, m): any choices, as a policy that has explored has them."""
        drawn = np.random.default_rng(4).integers(self.choices, size=(self.batch, len(self.choices)))
        return drawn[:, 0] if len(self.choices) == 1 else drawn

    @cached_property
    def advantages(self) -> NDArray[np.float32]:
        """(B,), standard normal."""
        return np.random.default_rng(6).standard_normal(self.batch).astype(np.float32)

    @cached_property
    def direction(self) -> NDArray[np.float32]:
        """A vector to multiply, (n,)."""
        return np.random.default_rng(8).standard_normal(self.parameters.size).astype(np.float32)

    @property
    def name(self) -> str:
        """As in "17-64-64-18"."""
        return "-".join(map(str, self.widths))


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
