"""Acting in Stable-Baselines3's rollout with compiled networks, where nothing but the time shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, SupportsIndex, cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from trpo_fast._core.acting import ActorCritic, gaussian_actions

from .networks import CompiledActing, CompiledNetworks, CompiledTrunk, Observations

_HALF_LOG_TAU = np.float32(math.log(2 * math.pi) / 2)


@contextmanager
def compiled_acting(policy: ActorCriticPolicy, networks: CompiledActing | None) -> Iterator[None]:
    """While it lasts, ``policy(observations)`` computes with `networks`, unless gradients are recorded.

    Actions, values and log-probabilities are Stable-Baselines3's up to rounding, of the same shapes and dtypes, and
    torch's global generator is used in the same way. ``policy.action_dist`` has the distribution of the latest call.
    ``policy.forward`` and every other method stay what they are, and so do copies and pickles of the policy. Once
    something replaces a parameter or a module, or adds a hook, torch does the rest.

    Parameters
    ----------
    policy : ActorCriticPolicy
    networks : CompiledActing, optional
        Of `policy`, refreshed; None leaves all as it is.
    """
    # The attribute that nn.Module.compile sets: calls go there, copies and pickles leave it out. Where it is taken, the
    # user compiled the policy, or this rollout is inside another.
    if networks is None or policy._compiled_call_impl is not None:
        yield
        return
    ours = policy._compiled_call_impl = _CompiledCall(policy, networks)
    try:
        yield
    finally:
        if policy._compiled_call_impl is ours:  # and not what the user has compiled since
            del policy._compiled_call_impl


class _Late:
    """A torch distribution that is made when something looks at it, since few do and making one takes 10 us.

    From then on it is one of the plain class `kind`, with the parameters that `make` gives for what is `known`.
    """

    kind: ClassVar[type[Distribution]]
    make: ClassVar[Callable[..., dict[str, Tensor]]]

    def __init__(self, *known: Any) -> None:
        self.__dict__["known"] = known

    def __getattribute__(self, name: str) -> Any:
        # What Python itself looks up asks nothing of the distribution.
        return object.__getattribute__(self, name) if name.startswith("__") else getattr(_made(self), name)

    def __repr__(self) -> str:
        return repr(_made(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return _made(self).__reduce_ex__(protocol)


def _made(late: _Late) -> Distribution:
    kind, parameters = type(late).kind, type(late).make(*late.__dict__.pop("known"))
    late.__class__ = kind  # type: ignore[assignment]  # here `_Late` ends
    kind.__init__(late, **parameters)  # type: ignore[arg-type]
    return cast(Distribution, late)


class _LateNormal(_Late, Normal):
    kind = Normal

    @staticmethod
    def make(means: NDArray[np.float32], log_std: NDArray[np.float32]) -> dict[str, Tensor]:
        loc = torch.from_numpy(means)
        return {"loc": loc, "scale": torch.from_numpy(log_std).exp().expand_as(loc)}


class _LateNormalOfVariance(_Late, Normal):
    kind = Normal

    @staticmethod
    def make(means: NDArray[np.float32], variance: NDArray[np.float32]) -> dict[str, Tensor]:
        return {"loc": torch.from_numpy(means), "scale": torch.from_numpy(variance).sqrt()}


class _LateCategorical(_Late, Categorical):
    kind = Categorical

    @staticmethod
    def make(logits: Tensor) -> dict[str, Tensor]:
        return {"logits": logits}


class _LateBernoulli(_Late, Bernoulli):
    kind = Bernoulli
    make = _LateCategorical.make


class _Exploration:
    """gSDE behind the hidden layers, in NumPy: torch's calls would take longer than all the rest of acting."""

    def __init__(self, policy: ActorCriticPolicy, networks: CompiledTrunk) -> None:
        self._policy = policy
        self._distribution = cast(StateDependentNoiseDistribution, policy.action_dist)
        self._activation = networks.activation
        # Live, like the networks' buffers.
        self._weight, self._bias = networks.head.weight.detach().numpy().T, networks.head.bias.detach().numpy()
        self._log_std = policy.log_std.detach().numpy()
        self._known_log_std = b""
        self._variance = self._log_std
        self._known_matrix: Tensor | None = None
        self._matrix = self._log_std

    def __call__(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        """Actions (B, A) and log-probabilities (B,)."""
        known = self._distribution
        latent = self._activation(torch.from_numpy(outputs))
        if known.bijector is not None:
            distribution = self._policy._get_action_dist_from_latent(latent)
            actions = distribution.get_actions(deterministic)
            return actions, distribution.log_prob(actions)
        log_std = self._log_std.tobytes()
        if log_std != self._known_log_std:
            self._known_log_std = log_std
            self._variance = known.get_std(self._policy.log_std).square().numpy()
        known._latent_sde = latent
        features = latent.numpy()
        actions = means = features @ self._weight + self._bias
        variance = np.square(features) @ self._variance
        variance += np.float32(known.epsilon)
        exponent = np.log(variance)
        if not deterministic:
            noise = self._noise(features)
            actions = means + noise
            exponent += np.square(noise) / variance
        log_probs = np.add.reduce(exponent, 1) / -2 - means.shape[1] * _HALF_LOG_TAU
        known.distribution = _LateNormalOfVariance(means, variance)
        return torch.from_numpy(actions), torch.from_numpy(log_probs.astype(np.float32, copy=False))

    def _noise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `StateDependentNoiseDistribution.get_noise`: one matrix for each row, or one for all of them."""
        matrices = self._distribution.exploration_matrices
        if len(features) == 1 or len(features) != len(matrices):
            if self._known_matrix is not self._distribution.exploration_mat:
                self._known_matrix = self._distribution.exploration_mat
                self._matrix = self._known_matrix.detach().numpy()
            return cast("NDArray[np.float32]", features @ self._matrix)
        return cast("NDArray[np.float32]", np.matmul(features[:, np.newaxis], matrices.detach().numpy())[:, 0])


class _CompiledCall:
    """``policy(observations, deterministic)``: actions (B, *shape), values (B, 1), log-probabilities (B,)."""

    def __init__(self, policy: ActorCriticPolicy, networks: CompiledActing) -> None:
        self._policy = policy
        self._networks = networks
        self._shape = cast(tuple[int, ...], policy.action_space.shape)
        self._parameters = networks.actor_parameters
        self._log_std = self._parameters[: networks.actor.log_std_items]
        self._forward = ActorCritic(
            networks.actor, self._parameters, networks.critic, networks.critic_parameters
        ).forward
        self._choose = {
            "gaussian": self._gaussian,
            "categorical": self._categorical,
            "multicategorical": self._categorical,
            "bernoulli": self._bernoulli,
            "state_dependent": self._state_dependent,
        }[networks.distribution]
        self._explore = _Exploration(policy, networks) if isinstance(networks, CompiledTrunk) else None

    def __call__(self, obs: Observations, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        networks = self._networks
        serves = (
            not torch.is_grad_enabled()
            and not any(part.requires_grad for part in (obs.values() if isinstance(obs, dict) else (obs,)))
            and networks.actor_parameters is self._parameters  # another, once they are refreshed within the rollout
            and networks.is_current()
        )
        given = self._forward(networks.rows(obs)) if serves else None
        if given is None:  # or no distribution, which torch may refuse, and does before anything is drawn
            return self._policy._call_impl(obs, deterministic)
        outputs, values = given
        actions, log_probs = self._choose(outputs, deterministic)
        return actions, torch.from_numpy(values[:, np.newaxis]), log_probs

    # Each draws as torch's distributions do for Stable-Baselines3: the same calls, as many numbers, in the same order.

    def _gaussian(self, means: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        noise = np.zeros(means.shape, np.float32)
        actions = torch.from_numpy(noise.reshape(-1, *self._shape))  # the same memory
        if not deterministic:
            actions.normal_()
        log_probs = gaussian_actions(means, self._log_std, noise)
        self._policy.action_dist.distribution = _LateNormal(means, self._log_std.copy())
        return actions, torch.from_numpy(log_probs)

    def _categorical(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        parts = []
        several = torch.from_numpy(outputs).split(cast(CompiledNetworks, self._networks).choices, dim=1)
        late: list[Any] = [_LateCategorical(logits) for logits in several]
        self._policy.action_dist.distribution = late if self._networks.distribution == "multicategorical" else late[0]
        for logits in several:
            log_p = logits.log_softmax(1)
            p = log_p.softmax(1)
            action = p.argmax(1, keepdim=True) if deterministic else torch.multinomial(p, 1, True)
            parts.append((action, log_p.gather(1, action)))
        actions, log_probs = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
        return actions.reshape(-1, *self._shape), log_probs.sum(1)

    def _state_dependent(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        assert self._explore is not None
        actions, log_probs = self._explore(outputs, deterministic)
        return actions.reshape(-1, *self._shape), log_probs

    def _bernoulli(self, outputs: NDArray[np.float32], deterministic: bool) -> tuple[Tensor, Tensor]:
        logits = torch.from_numpy(outputs)
        self._policy.action_dist.distribution = _LateBernoulli(logits)
        p = logits.sigmoid()
        actions = p.round() if deterministic else p.bernoulli()
        log_probs = -torch.nn.functional.binary_cross_entropy_with_logits(logits, actions, reduction="none").sum(1)
        return actions.reshape(-1, *self._shape), log_probs
