"""Batches on which trust-region steps go wrong, by name, for tests, benchmarks and docs/ten_ways.md alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..solvers import Status
from .problems import PolicyProblem, Vector, flatten


@dataclass(frozen=True)
class HardProblem(PolicyProblem):
    """A small batch, and how `trust_region_step` with the default settings but for `damping` has to end on it."""

    widths: tuple[int, ...] = (6, 16, 16, 4)
    batch: int = 256
    damping: ClassVar[float] = 0.1
    status: ClassVar[Status] = Status.SUCCESS


@dataclass(frozen=True)
class SingularFisher(HardProblem):
    """Eight samples cannot tell hundreds of parameters apart, and no damping hides it: F is singular."""

    batch: int = 8
    damping: ClassVar[float] = 0.0


class SaturatedTanh(HardProblem):
    """Hidden weights are a hundred times too large: nearly every tanh is at -1 or 1, and its derivative rounds to 0."""

    @cached_property
    def layers(self) -> list[tuple[Vector, Vector]]:
        """As elsewhere, with large hidden weights."""
        *hidden, last = super().layers
        return [*((100 * weight, bias) for weight, bias in hidden), last]


class NearlyDeterministic(HardProblem):
    """The standard deviation is e^-10: F's entries are huge, and a tiny change of a mean leaves the region."""

    @cached_property
    def log_std(self) -> Vector:
        """(A,)."""
        return np.full(self.widths[-1], -10, self.dtype)


@dataclass(frozen=True)
class OneSample(HardProblem):
    """The batch is one sample, whose advantage was not normalized away: F has the rank of one Jacobian."""

    batch: int = 1

    @cached_property
    def advantages(self) -> Vector:
        """(B,)."""
        return np.ones(self.batch, self.dtype)


class OneChoiceLeft(HardProblem):
    """All choices but one are masked in every state: nothing can be learned, the gradient and F are exactly zero."""

    distribution: ClassVar[str] = "categorical"
    status: ClassVar[Status] = Status.NO_GRADIENT

    @cached_property
    def parameters(self) -> Vector:
        """theta_old, (n,), without standard deviations."""
        return flatten(self.layers)

    @cached_property
    def actions(self) -> NDArray[np.int64]:
        """(B,), the choice that is left."""
        return np.random.default_rng(4).integers(self.widths[-1], size=self.batch)

    @cached_property
    def advantages(self) -> Vector:
        """(B,)."""
        return self._draw(6, self.batch)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(B, choices), one True in each row."""
        return np.arange(self.widths[-1]) == self.actions[:, None]


class IllScaledObservations(HardProblem):
    """Observations come in units from a thousandth to a thousand, so that F's entries differ by a factor of 10^12."""

    @cached_property
    def observations(self) -> Vector:
        """(B, D)."""
        drawn = self._draw(3, self.batch, self.widths[0])
        return (drawn * np.logspace(-3, 3, self.widths[0])).astype(self.dtype)


HARD_PROBLEMS: dict[str, type[HardProblem]] = {
    "singular F": SingularFisher,
    "saturated tanh": SaturatedTanh,
    "near-deterministic": NearlyDeterministic,
    "one sample": OneSample,
    "all but one masked": OneChoiceLeft,
    "ill-scaled observations": IllScaledObservations,
}
"""By name; each makes its arrays of a `dtype`, and its docstring says what is hard about it."""
