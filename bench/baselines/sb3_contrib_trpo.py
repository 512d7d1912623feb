"""sb3-contrib: its CG function, its Hessian-vector product and its ``train()``.

It averages the KL over action dimensions, so its target and damping are those of the joint distribution divided by the
number of dimensions, and its product is multiplied by it.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import TRPO
from sb3_contrib.common.utils import conjugate_gradient_solver
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from bench.baselines import Act, Product, Solve
from bench.problems import LinearSystem, PolicyProblem, Updated, UpdateSettings

ENVIRONMENTS = 2


def _environment(problem: PolicyProblem) -> gym.Env[NDArray[np.float32], NDArray[np.float32]]:
    """Gives the model its spaces; never stepped."""
    env: gym.Env[NDArray[np.float32], NDArray[np.float32]] = gym.Env()
    env.observation_space = gym.spaces.Box(-np.inf, np.inf, (problem.widths[0],), np.float32)
    env.action_space = gym.spaces.Box(-1.0, 1.0, (problem.widths[-1],), np.float32)
    return env


def solver(system: LinearSystem) -> Solve:
    """CG on tensors; tolerance 0, so that every iteration is spent."""
    tensors = LinearSystem(torch.from_numpy(system.matrix), system.b, system.iterations)  # type: ignore[arg-type]
    b = torch.from_numpy(system.b)
    return lambda: conjugate_gradient_solver(tensors.product, b, max_iter=system.iterations, residual_tol=0.0).numpy()


def _model(problem: PolicyProblem, settings: UpdateSettings) -> TRPO:
    steps, rest = divmod(problem.batch, ENVIRONMENTS)
    if rest:
        raise ValueError(f"batch: {problem.batch} given; want a multiple of {ENVIRONMENTS}")
    hidden, actions = list(problem.widths[1:-1]), problem.widths[-1]
    model = TRPO(
        "MlpPolicy",
        DummyVecEnv([lambda: _environment(problem)] * ENVIRONMENTS),
        n_steps=steps,
        batch_size=settings.critic_batch_size,
        n_critic_updates=settings.critic_epochs,
        learning_rate=settings.critic_learning_rate,
        cg_max_steps=settings.cg_iterations,
        cg_damping=settings.damping / actions,
        target_kl=settings.max_kl / actions,
        policy_kwargs={"net_arch": {"pi": hidden, "vf": hidden}, "activation_fn": nn.Tanh},
        device="cpu",
        seed=0,
    )
    model.set_logger(configure(None, []))
    policy: Any = model.policy
    with torch.no_grad():
        policy.log_std.copy_(torch.from_numpy(problem.log_std))
        for layers, modules in (
            (problem.layers, [*policy.mlp_extractor.policy_net[::2], policy.action_net]),
            (problem.critic_layers, [*policy.mlp_extractor.value_net[::2], policy.value_net]),
        ):
            for (weight, bias), linear in zip(layers, modules, strict=True):
                linear.weight.copy_(torch.from_numpy(weight))
                linear.bias.copy_(torch.from_numpy(bias))
    return model


class _Fisher:
    """The state that ``train()`` has when it calls CG."""

    def __init__(self, problem: PolicyProblem, damping: float) -> None:
        self.model = _model(problem, UpdateSettings(damping=damping, critic_batch_size=problem.batch))
        observations = torch.from_numpy(problem.observations)
        actions = torch.from_numpy(problem.actions)
        with torch.no_grad():
            old = copy.copy(self.model.policy.get_distribution(observations))
        new = self.model.policy.get_distribution(observations)
        objective = (new.log_prob(actions) * torch.from_numpy(problem.advantages)).mean()
        self.parameters, _, self.kl_gradient, _ = self.model._compute_actor_grad(
            kl_divergence(new, old).mean(), objective
        )

    def product(self, v: Tensor) -> Tensor:
        result: Tensor = self.model.hessian_vector_product(self.parameters, self.kl_gradient, v)
        return result


def fisher_product(problem: PolicyProblem) -> Product:
    """``hessian_vector_product`` as ``train()`` calls it."""
    fisher = _Fisher(problem, damping=0.0)
    return lambda v: (fisher.product(torch.from_numpy(v)) * problem.widths[-1]).numpy()


def fisher_solver(problem: PolicyProblem, gradient: NDArray[Any], damping: float, iterations: int) -> Solve:
    """``conjugate_gradient_solver`` as ``train()`` calls it; x of the joint Fisher matrix is its x divided by A."""
    fisher, b = _Fisher(problem, damping), torch.from_numpy(gradient)
    return lambda: (
        conjugate_gradient_solver(fisher.product, b, max_iter=iterations, residual_tol=0.0) / problem.widths[-1]
    ).numpy()


class _Update:
    def __init__(self, problem: PolicyProblem, settings: UpdateSettings) -> None:
        self.model = _model(problem, settings)
        self._start = [p.detach().clone() for p in self.model.policy.parameters()]
        self._optimizer = self.model.policy.optimizer.state_dict()
        with torch.no_grad():
            _, log_probs, _ = self.model.policy.evaluate_actions(
                torch.from_numpy(problem.observations), torch.from_numpy(problem.actions)
            )
            values = self.model.policy.predict_values(torch.from_numpy(problem.observations))
        buffer = self.model.rollout_buffer
        for name, data in {
            "observations": problem.observations,
            "actions": problem.actions,
            "advantages": problem.advantages,
            "returns": problem.returns,
            "log_probs": log_probs.numpy(),
            "values": values.numpy().ravel(),
        }.items():
            # The buffer is (steps, environments, ...) and flattens environment by environment.
            rows = data.reshape(ENVIRONMENTS, problem.batch // ENVIRONMENTS, *data.shape[1:])
            getattr(buffer, name)[...] = rows.swapaxes(0, 1)
        buffer.full = True

    def reset(self) -> None:
        with torch.no_grad():
            for parameter, start in zip(self.model.policy.parameters(), self._start, strict=True):
                parameter.copy_(start)
        self.model.policy.optimizer.load_state_dict(self._optimizer)

    def run(self) -> None:
        self.model.train()

    def result(self) -> Updated:
        named = dict(self.model.policy.named_parameters())

        def flat(value: bool) -> NDArray[np.float32]:
            chosen = [p.detach().reshape(-1) for name, p in named.items() if ("value" in name) == value]
            return torch.cat(chosen).numpy()

        return Updated(policy=flat(False), critic=flat(True))


def update(problem: PolicyProblem, settings: UpdateSettings) -> _Update:
    """``train()`` on a rollout buffer filled with the problem."""
    return _Update(problem, settings)


class _CriticFit(_Update):
    """The loop at the end of ``train()``, as it stands there (sb3-contrib 2.9)."""

    def run(self) -> None:
        model: Any = self.model
        with_value = ("value", "vf")
        actor = [p for name, p in model.policy.named_parameters() if not any(word in name for word in with_value)]
        for _ in range(model.n_critic_updates):
            for data in model.rollout_buffer.get(model.batch_size):
                values = model.policy.predict_values(data.observations)
                loss = nn.functional.mse_loss(data.returns, values.flatten())
                loss.item()  # it keeps all of them
                model.policy.optimizer.zero_grad()
                loss.backward()
                for parameter in actor:
                    parameter.grad = None
                model.policy.optimizer.step()


def critic_fit(problem: PolicyProblem, settings: UpdateSettings) -> _CriticFit:
    """``train()`` without its policy part."""
    return _CriticFit(problem, settings)


def actor(problem: PolicyProblem) -> Act:
    """What ``collect_rollouts`` does with an observation: policy, value, sample, clip. It has the value for nothing."""
    model: Any = _model(PolicyProblem(problem.widths, 2_048), UpdateSettings())  # as many as its minibatch divides
    low, high = model.action_space.low, model.action_space.high

    def act() -> tuple[NDArray[Any], NDArray[Any]]:
        with torch.no_grad():
            actions, _, log_probs = model.policy(torch.as_tensor(problem.observations))
        actions = actions.numpy()
        np.clip(actions, low, high)
        return actions, log_probs.numpy()

    return act
