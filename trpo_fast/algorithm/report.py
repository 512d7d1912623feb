"""What one update did: the object behind ``agent.last_update``; and its clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from trpo_fast.algorithm.critic import FitOutcome
from trpo_fast.ranks import Traffic
from trpo_fast.solvers.status import Status
from trpo_fast.solvers.trust_region import TrustRegionReport

TIMINGS = ("rollout", "advantages", "gradient", "solve", "line_search", "critic_fit", "critic_wait")


class Stopwatch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last call under ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def add(self, seconds: Mapping[str, float]) -> None:
        """Book times measured elsewhere."""
        for name, duration in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + duration
        self._last = time.perf_counter()


@dataclass(frozen=True)
class UpdateReport:
    """One update of the policy and of the critic.

    Everything about the policy is there at once; `value_loss`, `critic_status` and `timings` tell of the critic's fit
    as well, and wait for it where it still runs beside the next rollout. Where Ctrl-C stopped the fit, they raise
    RuntimeError. A few numbers: reports of a whole training may be kept.
    """

    step: TrustRegionReport  # the whole report of the trust-region step
    steps: int  # transitions in the batch
    max_kl: float  # trust region of this update
    critic_learning_rate: float  # of the fit after it
    entropy: float  # mean entropy of the policy before the update, nats
    explained_variance: float  # of the returns, by the critic before its fit; nan where the returns are constant
    seconds: Mapping[str, float]  # the timings that were known when the update ended
    fit: Future[FitOutcome]
    traffic: Traffic | None = None  # with other ranks, of a training on several

    @property
    def status(self) -> Status:
        """SUCCESS where the policy changed; < 0 (failed) and NO_GRADIENT where it stayed as it was."""
        return self.step.status

    @property
    def cg_status(self) -> Status:
        """How the conjugate-gradient solve ended; ITERATION_LIMIT is normal."""
        return self.step.cg_status

    @property
    def backtracks(self) -> int:
        """Backtracks of the line search."""
        return self.step.backtracks

    @property
    def kl(self) -> float:
        """Joint KL of the accepted step, or of the last trial (nats)."""
        return self.step.kl

    @property
    def improvement(self) -> float:
        """Surrogate improvement of the accepted step, or of the last trial."""
        return self.step.improvement

    @property
    def predicted_improvement(self) -> float:
        """Improvement that the linear model promised for the accepted step, or for the last trial."""
        return self.step.predicted_improvement

    @property
    def cg_iterations(self) -> int:
        """Iterations of the solve."""
        return self.step.cg_iterations

    @property
    def cg_residual(self) -> float:
        """``||g - A x|| / ||g||`` of the solve."""
        return self.step.cg_residual

    @property
    def cg_damping(self) -> float:
        """The damping lambda of the solve, with the part that `relative_damping` asked for."""
        return self.step.damping

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient, ``||g||``."""
        return self.step.gradient_norm

    @property
    def step_norm(self) -> float:
        """Length of the accepted step in parameter space; 0 where none was."""
        return self.step.step_norm

    @property
    def value_loss(self) -> float:
        """Mean squared error of the last epoch of the critic's fit; nan where `critic_status` is NON_FINITE."""
        return self.fit.result().loss

    @property
    def critic_status(self) -> Status:
        """SUCCESS, or NON_FINITE where the fit would not have stayed finite: critic and Adam are those before it."""
        return Status.SUCCESS if self.fit.result().error is None else Status.NON_FINITE

    @property
    def timings(self) -> dict[str, float]:
        """Seconds under the keys of ``TIMINGS``.

        ``critic_fit`` is the fit's own time; ``critic_wait`` what this update waited for the fit of the one before.
        """
        seconds: dict[str, Any] = {**self.seconds, "critic_fit": self.fit.result().seconds}
        return {key: seconds[key] for key in TIMINGS}
