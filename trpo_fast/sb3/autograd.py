"""Any policy of Stable-Baselines3 for the autograd engine: one module that returns one torch distribution."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from trpo_fast._core.operator import Operator
from trpo_fast.engines.autograd import AutogradEngine
from trpo_fast.engines.binding import check_deterministic
from trpo_fast.policies.distributions import MultiCategorical
from trpo_fast.rollout.batch import Batch

from .networks import Observations, has_hook
from .update import Samples


class AutogradActor:
    """The actor of `policy` as an engine bound to `samples`.

    Parameters
    ----------
    policy : ActorCriticPolicy
        In the mode in which it is updated.
    reason : str
        Why not the kernels.
    samples : Samples

    Attributes
    ----------
    averaged_over : int
        A, by which sb3-contrib divides the joint KL of this policy's distribution.
    tensors : list of nn.Parameter
        What sb3-contrib steps: parameters that the KL depends on and whose name is not of the value function's.

    Raises
    ------
    Exception
        Of any kind: the engine cannot serve this policy, of which nothing was changed.
    """

    def __init__(self, policy: ActorCriticPolicy, reason: str, samples: Samples) -> None:
        check_deterministic("policy", policy)
        module = _Actor(policy, samples.observations)
        self.tensors = list(module.parameters())
        if not self.tensors:
            raise ValueError("policy: its KL divergence depends on no parameter that could be stepped")
        self.averaged_over = module.averaged_over
        self._engine = AutogradEngine(module, reason)
        # The module has the observations.
        rows = torch.zeros(len(samples.actions), 1, dtype=self.tensors[0].dtype, device="cpu")
        self._engine.bind(Batch(rows, samples.actions.cpu(), samples.advantages.cpu(), samples.log_probs.cpu()))
        self._fisher = self._engine.fisher_operator()  # now: what cannot be differentiated twice has to fail here
        self.parameters = self._engine.parameters
        self.parameters_changed = self._engine.parameters_changed
        self.surrogate_gradient = self._engine.surrogate_gradient
        self.evaluate = self._engine.evaluate

    def fisher_operator(self) -> Operator:
        """F at theta_old, undamped."""
        return self._fisher


class _Actor(nn.Module):
    """`policy` on `observations`, with those parameters alone that sb3-contrib's TRPO steps.

    The rows that the engine passes say no more than how many there are: observations may be images of integers or
    dicts, and an update uses all of them.
    """

    def __init__(self, policy: ActorCriticPolicy, observations: Observations) -> None:
        super().__init__()
        self.policy = policy
        self.observations = observations
        self._stepped: tuple[str, ...] = ()
        candidates = {
            f"policy.{name}": parameter
            for name, parameter in policy.named_parameters()
            if "value" not in name and parameter.requires_grad
        }
        for name, parameter in candidates.items():
            if has_hook(parameter):  # the engine differentiates by copies, which have none
                raise ValueError(f"{name} has a hook")
        with torch.enable_grad():
            old = _detached(policy, _first(observations, 2))  # first: the policy changes one object at every pass
            divergence = sb3.kl_divergence(policy.get_distribution(_first(observations, 2)), old)
        self.averaged_over = divergence[0].numel()
        gradients = torch.autograd.grad(divergence.sum(), list(candidates.values()), allow_unused=True)
        self._stepped = tuple(
            name for name, gradient in zip(candidates, gradients, strict=True) if gradient is not None
        )

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that are stepped."""
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if name.removeprefix(f"{prefix}.") in self._stepped:
                yield name, parameter

    def forward(self, rows: Tensor) -> Distribution:
        """The distribution for all observations."""
        return _as_torch(self.policy.get_distribution(self.observations))


class _Joint(Independent):
    """A distribution of Stable-Baselines3 with its own log-probabilities, of squashed actions for instance."""

    def __init__(self, distribution: sb3.Distribution) -> None:
        base: Any = distribution.distribution
        super().__init__(base, len(base.batch_shape) - 1, validate_args=False)
        self._log_prob = distribution.log_prob

    def log_prob(self, value: Tensor) -> Tensor:
        """Of the actions `value`, shape (B,)."""
        return self._log_prob(value)


def _as_torch(distribution: sb3.Distribution) -> Distribution:
    if isinstance(distribution, sb3.MultiCategoricalDistribution):
        return MultiCategorical(
            torch.cat([one.logits for one in distribution.distribution], 1), distribution.action_dims
        )
    if not isinstance(distribution.distribution, Distribution):
        raise TypeError(f"policy: a {type(distribution).__name__} holds no torch distribution")
    # A copy: the policy has one such object, and every forward pass changes it.
    return _Joint(copy.copy(distribution))


def _detached(policy: ActorCriticPolicy, observations: Any) -> sb3.Distribution:
    with torch.no_grad():
        return copy.copy(policy.get_distribution(observations))


def _first(observations: Observations, count: int) -> Any:
    if isinstance(observations, dict):
        return {key: tensor[:count] for key, tensor in observations.items()}
    return observations[:count]
