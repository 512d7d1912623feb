"""trpo_fast, through its public names."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import trpo_fast
from bench.baselines import Act, Product, Solve
from bench.problems import LinearSystem, PolicyProblem, Updated, UpdateSettings
from trpo_fast.algorithm.critic import CriticTrainer
from trpo_fast.policies import MLPCritic


def _spaces(problem: PolicyProblem) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    inputs, outputs = problem.widths[0], problem.widths[-1]
    dtype = np.dtype(problem.dtype).type
    return gym.spaces.Box(-np.inf, np.inf, (inputs,), dtype), gym.spaces.Box(-1.0, 1.0, (outputs,), dtype)


def solver(system: LinearSystem) -> Solve:
    """CG; a dense matrix is applied by the library, a diagonal one by a Python function."""
    A = system.matrix if system.matrix.ndim == 2 else system.product
    return lambda: trpo_fast.conjugate_gradient(A, system.b, max_iter=system.iterations, rtol=0.0).x


def bound_engine(problem: PolicyProblem, engine: str) -> Any:
    """An engine with the problem's weights and batch."""
    policy = trpo_fast.MLPPolicy(*_spaces(problem), problem.widths[1:-1], dtype=problem.dtype)
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


class _CriticFit:
    def __init__(self, problem: PolicyProblem, settings: UpdateSettings) -> None:
        self._problem = problem
        self._critic = MLPCritic(_spaces(problem)[0], problem.widths[1:-1], dtype=problem.dtype)
        self._config = trpo_fast.TRPOConfig(
            critic_epochs=settings.critic_epochs,
            critic_batch_size=settings.critic_batch_size,
            critic_learning_rate=settings.critic_learning_rate,
            overlap_critic=False,
        )
        self.reset()

    def reset(self) -> None:
        _set(self._critic, self._problem.critic_layers)
        self._trainer = CriticTrainer(self._critic, self._config, seed=0)

    def run(self) -> None:
        self._trainer.start(self._problem.observations, self._problem.returns)
        self._trainer.wait()

    def result(self) -> Updated:
        return Updated(policy=np.empty(0, np.float32), critic=self._critic.flat.numpy.copy())


def critic_fit(problem: PolicyProblem, settings: UpdateSettings) -> _CriticFit:
    """`CriticTrainer`, in this thread."""
    return _CriticFit(problem, settings)


class _Update:
    def __init__(self, problem: PolicyProblem, settings: UpdateSettings) -> None:
        self._problem, self._settings = problem, settings
        self._engine = bound_engine(problem, "native")
        self._start = self._engine.parameters().copy()
        self._fit = _CriticFit(problem, settings)

    def reset(self) -> None:
        self._engine.parameters()[:] = self._start
        self._engine.parameters_changed()
        self._fit.reset()

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
        self._fit.run()

    def result(self) -> Updated:
        return Updated(policy=self._engine.parameters().copy(), critic=self._fit.result().critic)


def update(problem: PolicyProblem, settings: UpdateSettings) -> _Update:
    """Bind, trust-region step and critic fit; sb3-contrib's step curvature, so that both make the same step."""
    return _Update(problem, settings)


def actor(problem: PolicyProblem) -> Act:
    """The call that the collector makes; it normalizes and clips, too."""
    rows, inputs, outputs = problem.batch, problem.widths[0], problem.widths[-1]
    engine = bound_engine(problem, "native")
    made = engine.actor(
        _spaces(problem)[1], observation_mean=np.zeros(inputs), observation_scale=np.ones(inputs), observation_clip=1e3
    )
    normalized = np.empty((rows, inputs), problem.dtype)
    actions, env_actions = np.empty((rows, outputs), problem.dtype), np.empty((rows, outputs), problem.dtype)
    log_probs = np.empty(rows, problem.dtype)

    def act() -> tuple[NDArray[Any], NDArray[Any]]:
        made.act(problem.observations, 7, normalized, actions, log_probs, env_actions)
        return actions, log_probs

    return act


def _set(module: Any, layers: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    with torch.no_grad():
        for linear, (weight, bias) in zip(module.layers, layers, strict=True):
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
