"""Acting in Stable-Baselines3's rollout with compiled networks, where nothing but the time shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from trpo_fast._core.policy import gaussian_actions

from .networks import CompiledNetworks

_MAX_LOG_STD = 43.0  # half the logarithm of float32's least normal number: what the kernel takes


@contextmanager
def compiled_acting(policy: ActorCriticPolicy, networks: CompiledNetworks | None) -> Iterator[None]:
    """While it lasts, ``policy(observations)`` computes with `networks`, unless gradients are recorded.

    Actions, values and log-probabilities are Stable-Baselines3's up to rounding, of the same shapes and dtypes, and
    torch's global generator is used in the same way. ``policy.forward`` and every other method stay what they are, and
    so do copies and pickles of the policy. Once something replaces a parameter or a module, or adds a hook, torch does
    the rest. Only ``policy.action_dist`` keeps the distribution of the last call that was not compiled.

    Parameters
    ----------
    policy : ActorCriticPolicy
    networks : CompiledNetworks, optional
        Of `policy`, refreshed; None leaves all as it is.
    """
    # The attribute that nn.Module.compile sets: calls go there, copies and pickles leave it out. Where it is taken, the
    # user compiled the policy, or this rollout is inside another.
    if networks is None or policy._compiled_call_impl is not None:
        yield
        return
    policy._compiled_call_impl = _CompiledCall(policy, networks)
    try:
        yield
    finally:
        vars(policy).pop("_compiled_call_impl", None)


class _CompiledCall:
    """``policy(observations, deterministic)``: actions (B, *shape), values (B, 1), log-probabilities (B,)."""

    def __init__(self, policy: ActorCriticPolicy, networks: CompiledNetworks) -> None:
        self._policy = policy
        self._networks = networks
        self._shape = cast(tuple[int, ...], policy.action_space.shape)
        self._choose = {
            "gaussian": self._gaussian,
            "categorical": self._categorical,
            "multicategorical": self._categorical,
            "bernoulli": self._bernoulli,
        }[networks.actor.distribution]

    def __call__(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        networks = self._networks
        if torch.is_grad_enabled() or obs.requires_grad or not networks.is_current():
            return self._policy._call_impl(obs, deterministic)
        rows = networks.rows(obs)
        outputs = networks.actor.forward(networks.actor_parameters, rows)
        # What is not finite torch's distributions refuse, and before anything is drawn.
        chosen = self._choose(outputs, deterministic) if math.isfinite(np.vdot(outputs, outputs)) else None
        if chosen is None:
            return self._policy._call_impl(obs, deterministic)
        values = networks.critic.values(networks.critic_parameters, rows)
        return chosen[0], torch.from_numpy(values[:, np.newaxis]), chosen[1]

    # Each draws as torch's distributions do for Stable-Baselines3: the same calls, as many numbers, in the same order.

    def _gaussian(self, means: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor] | None:
        log_std = self._networks.actor_parameters[: means.shape[1]]
        if not np.vdot(log_std, log_std) < _MAX_LOG_STD**2:
            return None
        shape = (len(means), *self._shape)
        actions = torch.zeros(shape) if deterministic else torch.empty(shape).normal_()
        log_probs = gaussian_actions(means, log_std, actions.numpy().reshape(means.shape))
        return actions, torch.from_numpy(log_probs)

    def _categorical(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        parts = []
        for logits in torch.from_numpy(outputs).split(self._networks.choices, dim=1):
            log_p = logits.log_softmax(1)
            p = log_p.softmax(1)
            action = p.argmax(1, keepdim=True) if deterministic else torch.multinomial(p, 1, True)
            parts.append((action, log_p.gather(1, action)))
        actions, log_probs = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
        return actions.reshape(-1, *self._shape), log_probs.sum(1)

    def _bernoulli(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        logits = torch.from_numpy(outputs)
        p = logits.sigmoid()
        actions = p.round() if deterministic else p.bernoulli()
        log_probs = -torch.nn.functional.binary_cross_entropy_with_logits(logits, actions, reduction="none").sum(1)
        return actions.reshape(-1, *self._shape), log_probs
