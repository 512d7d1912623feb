"""trpo_fast, through its public names."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import trpo_fast
from bench.baselines import Product, Solve
from bench.problems import ACTIONS, OBSERVATIONS, LinearSystem, PolicyProblem, Updated, UpdateSettings
from trpo_fast.algorithm.critic import CriticTrainer
from trpo_fast.policies import MLPCritic

OBSERVATION_SPACE = gym.spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32)
ACTION_SPACE = gym.spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def solver(system: LinearSystem) -> Solve:
    """CG; a dense matrix is applied by the library, a diagonal one by a Python function."""
    A = system.matrix if system.matrix.ndim == 2 else system.product
    return lambda: trpo_fast.conjugate_gradient(A, system.b, max_iter=system.iterations, rtol=0.0).x


def bound_engine(problem: PolicyProblem, engine: str) -> Any:
    """An engine with the problem's weights and batch."""
    policy = trpo_fast.MLPPolicy(OBSERVATION_SPACE, ACTION_SPACE, (problem.hidden, problem.hidden))
    _set(policy, problem.layers)
    with torch.no_grad():
        policy.log_std.copy_(torch.from_numpy(problem.log_std))
    made = trpo_fast.make_engine(policy, engine)
    made.bind(trpo_fast.Batch(problem.observations, problem.actions, problem.advantages))
    return made


def fisher_product(problem: PolicyProblem, engine: str = "native") -> Product:
    """The compiled operator, into one output array."""
    operator = bound_engine(problem, engine).fisher_operator()
    out = np.empty_like(problem.direction)
    return lambda v: operator.matvec(v, out)


def fisher_solver(problem: PolicyProblem, gradient: NDArray[Any], damping: float, iterations: int) -> Solve:
    """As the trust-region step solves: with reorthogonalization."""
    engine = bound_engine(problem, "native")

    def solve() -> NDArray[Any]:
        return trpo_fast.conjugate_gradient(
            engine.fisher_operator(), gradient, max_iter=iterations, rtol=0.0, damping=damping, reorthogonalize=True
        ).x

    return solve


class _Update:
    def __init__(self, problem: PolicyProblem, settings: UpdateSettings) -> None:
        self._problem, self._settings = problem, settings
        self._engine = bound_engine(problem, "native")
        self._start = self._engine.parameters().copy()
        self._critic = MLPCritic(OBSERVATION_SPACE, (problem.hidden, problem.hidden))
        self._config = trpo_fast.TRPOConfig(
            critic_epochs=settings.critic_epochs,
            critic_batch_size=settings.critic_batch_size,
            critic_learning_rate=settings.critic_learning_rate,
            overlap_critic=False,
        )
        self.reset()

    def reset(self) -> None:
        self._engine.parameters()[:] = self._start
        self._engine.parameters_changed()
        _set(self._critic, self._problem.critic_layers)
        self._trainer = CriticTrainer(self._critic, self._config, seed=0)

    def run(self) -> None:
        problem, settings = self._problem, self._settings
        self._engine.bind(trpo_fast.Batch(problem.observations, problem.actions, problem.advantages))
        trpo_fast.trust_region_step(
            self._engine,
            max_kl=settings.max_kl,
            damping=settings.damping,
            cg_iterations=settings.cg_iterations,
            cg_rtol=0.0,
            step_curvature="damped",
        )
        self._trainer.start(problem.observations, problem.returns)
        self._trainer.wait()

    def result(self) -> Updated:
        return Updated(policy=self._engine.parameters().copy(), critic=self._critic.flat.numpy.copy())


def update(problem: PolicyProblem, settings: UpdateSettings) -> _Update:
    """Bind, trust-region step and critic fit; sb3-contrib's step curvature, so that both make the same step."""
    return _Update(problem, settings)


def _set(module: Any, layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> None:
    with torch.no_grad():
        for linear, (weight, bias) in zip(module.layers, layers, strict=True):
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
