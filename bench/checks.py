"""The float64 answers that a run must match before its time counts, from the tests' oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.problems import PolicyProblem, UpdateSettings
from tests import reference

Vector = NDArray[np.float64]


class ExactPolicy:
    """A problem's policy at theta_old in float64; flat vectors are ``log_std W1 b1 W2 b2 W3 b3``."""

    def __init__(self, problem: PolicyProblem) -> None:
        self._problem = problem
        self._policy = reference.Policy(problem.widths, "tanh", "gaussian")
        self._theta = _flat([(problem.log_std,), *problem.layers])

    def gradient(self) -> Vector:
        """Of the surrogate."""
        problem = self._problem
        return self._policy.surrogate_gradient(self._theta, problem.observations, problem.actions, problem.advantages)

    def fisher_product(self, v: NDArray[Any]) -> Vector:
        """``F v``."""
        return self._policy.fisher_product(self._theta, self._problem.observations, v)

    def evaluate(self, theta: NDArray[Any]) -> tuple[float, float]:
        """(improvement, KL(new || old)) of a trial."""
        problem = self._problem
        return self._policy.evaluate(theta, self._theta, problem.observations, problem.actions, problem.advantages)

    def log_prob(self, actions: NDArray[Any]) -> Vector:
        """(B,), of any actions (B, A) at theta_old."""
        return self._policy.log_prob(self._theta, self._problem.observations, actions)

    def mean(self) -> Vector:
        """(B, A)."""
        return self._policy.forward(self._theta, self._problem.observations)

    def direction(self, damping: float, iterations: int) -> Vector:
        """x of ``(F + damping I) x = g`` after so many iterations of exact CG."""
        return reference.conjugate_gradient(self.fisher_product, self.gradient(), iterations, damping)

    def trust_region_step(self, settings: UpdateSettings) -> Vector:
        """Theta after one update with sb3-contrib's step size, sqrt(2 delta / x'(F + lambda I)x)."""
        x = self.direction(settings.damping, settings.cg_iterations)
        curvature = x @ self.fisher_product(x) + settings.damping * (x @ x)
        step = np.sqrt(2 * settings.max_kl / curvature) * x
        for j in range(10):
            theta: Vector = self._theta + 0.8**j * step
            improvement, kl = self.evaluate(theta)
            if improvement > 0 and kl <= settings.max_kl:
                return theta
        raise AssertionError("the exact line search failed: not a problem to measure with")


def critic_loss(problem: PolicyProblem, critic: NDArray[Any]) -> float:
    """Mean squared error over the batch."""
    values, _ = _critic(problem).forward(critic, problem.observations)
    return float(((values[:, 0] - problem.returns) ** 2).mean())


def fitted_critic_loss(problem: PolicyProblem, settings: UpdateSettings) -> float:
    """Mean squared error after minibatch Adam from the problem's start."""
    rng = np.random.default_rng(0)
    theta = _flat(problem.critic_layers)
    fitted, *_ = reference.fit_values(
        _critic(problem),
        theta,
        np.zeros_like(theta),
        np.zeros_like(theta),
        problem.observations,
        problem.returns,
        [rng.permutation(problem.batch) for _ in range(settings.critic_epochs)],
        adam_step=0,
        batch_size=settings.critic_batch_size,
        learning_rate=settings.critic_learning_rate,
    )
    return critic_loss(problem, fitted)


def _critic(problem: PolicyProblem) -> reference.MLP:
    return reference.MLP((*problem.widths[:-1], 1), "tanh")


def _flat(layers: Any) -> Vector:
    return np.concatenate([part.ravel() for layer in layers for part in layer], dtype=np.float64)
