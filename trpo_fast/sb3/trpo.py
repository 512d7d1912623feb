"""sb3-contrib's TRPO with a compiled update."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import explained_variance
from torch import nn

from trpo_fast._core.critic import NonFiniteError
from trpo_fast._core.library import in_words

from .acting import compiled_acting
from .autograd import AutogradActor
from .backend import Backend
from .buffers import quick
from .critic import fit_by_torch, fit_compiled, obstacle_to_compiled_fit
from .networks import CompiledNetworks, is_perceptron
from .update import BoundActor, CompiledActor, PolicyStep, Samples, update_policy

# What sb3-contrib's train() calls: a subclass that overrides one of these means something by it.
_OWN_MATHEMATICS = ("_compute_actor_grad", "hessian_vector_product")

Init = TypeVar("Init", bound=Callable[..., None])


def _with_arguments_of_sb3_contrib(init: Init) -> Init:
    """`init` as ``help`` and whoever reads signatures shall see it: with the arguments of sb3-contrib's by name."""
    theirs = inspect.signature(sb3_contrib.TRPO.__init__)
    own = [one for one in inspect.signature(init).parameters.values() if one.kind is one.KEYWORD_ONLY]
    vars(init)["__signature__"] = theirs.replace(parameters=[*theirs.parameters.values(), *own])
    return init


class TRPO(sb3_contrib.TRPO):
    """TRPO of sb3-contrib: the same arguments, mathematics, logs and files, with an update several times as fast.

    An update is compiled where the policy is a multilayer perceptron on flat observations, or on a Dict without images.
    Elsewhere (images, gSDE, networks of one's own) it uses Fisher products by torch's autograd with the compiled
    solver; and where these cannot serve either, sb3-contrib's own ``train()``, with a warning.

    Parameters
    ----------
    *args, **kwargs
        As for ``sb3_contrib.TRPO``.
    paper_kl : bool
        Let `target_kl` and `cg_damping` be those of the joint action distribution, as in the paper. By default they
        are, as in sb3-contrib, those of a KL divergence averaged over the dimensions of a Box or MultiBinary action
        space: with six dimensions its 0.01 is a joint 0.06.

    Attributes
    ----------
    update_engine : str or None
        What the last policy update was done by: "compiled", "autograd" or "sb3_contrib"; None before the first.
    update_reason : str or None
        Why it was not the compiled one.
    critic_engine, critic_reason : str or None
        The same of the value function: "compiled" or "torch".
    last_step : PolicyStep or None
        Status, improvement and KL of the last policy update; None where sb3-contrib did it.
    """

    last_step: PolicyStep | None

    @_with_arguments_of_sb3_contrib
    def __init__(self, *args: Any, paper_kl: bool = False, **kwargs: Any) -> None:
        if not isinstance(paper_kl, bool):
            raise TypeError(f"paper_kl: {in_words(paper_kl)} given; want True or False")
        self.paper_kl = paper_kl
        self.last_step = None
        self._backend = Backend()
        super().__init__(*args, **kwargs)

    @property
    def update_engine(self) -> str | None:
        """What the last policy update was done by."""
        return self._backend.policy_engine

    @property
    def update_reason(self) -> str | None:
        """Why it was not the compiled one."""
        return self._backend.policy_reason

    @property
    def critic_engine(self) -> str | None:
        """What the last fit of the value function was done by."""
        return self._backend.critic_engine

    @property
    def critic_reason(self) -> str | None:
        """Why it was not the compiled one."""
        return self._backend.critic_reason

    def _setup_model(self) -> None:
        super()._setup_model()
        self.rollout_buffer = quick(self.rollout_buffer)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Stable-Baselines3's own, with a policy that acts with compiled networks where it can."""
        with compiled_acting(self.policy, self._backend.acting(self.policy)):
            return super().collect_rollouts(*args, **kwargs)

    def _maybe_recommend_cpu(self, *args: Any, **kwargs: Any) -> None:
        """Stable-Baselines3's own knows neither kernels nor what of a Dict is flat."""
        if self.device.type == "cpu" or not is_perceptron(self.policy):
            super()._maybe_recommend_cpu(*args, **kwargs)
            return
        warnings.warn(
            f"device: {self.device} given for a policy that is a multilayer perceptron; want device='cpu', where it "
            "acts and is updated by compiled kernels, several times faster than on a GPU",
            stacklevel=2,
        )

    def train(self) -> None:
        """Update policy and value function with the rollout buffer.

        Raises
        ------
        FloatingPointError
            And ValueError, which searches for settings take for a trial that failed: an advantage or a return is not
            finite, and no parameter was changed; or the third fit of the value function in a row would not have stayed
            finite. The fits before it are warnings, and value function and optimizer are what they were before each.
        """
        obstacle = self._obstacle()
        if obstacle is not None:
            self._train_as_sb3_contrib(obstacle)
            return
        generators = np.random.get_state(), torch.get_rng_state()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self.policy.optimizer.zero_grad()
        networks = self._backend.networks(self.policy)

        steps, objectives = [], []
        before = [(parameter, parameter.detach().clone()) for parameter in self.policy.parameters()]
        try:
            # sb3-contrib's buffer yields one batch here, a buffer of one's own may yield several.
            for data in self.rollout_buffer.get(batch_size=None):
                samples = self._samples(data)
                actor = self._bind(networks, samples)
                step = update_policy(
                    actor,
                    kl_divisor=1 if self.paper_kl else actor.averaged_over,
                    max_kl=self.target_kl,
                    damping=self.cg_damping,
                    cg_max_steps=self.cg_max_steps,
                    shrinking_factor=self.line_search_shrinking_factor,
                    max_trials=self.line_search_max_iter,
                    device=self.policy.device,
                )
                steps.append(step)
                objectives.append(float(samples.advantages.double().mean()) + step.improvement)
        except BaseException as error:  # of a batch after the first, too
            with torch.no_grad():
                for parameter, values in before:
                    parameter.copy_(values)
            if not isinstance(error, _UnservedError):
                raise
            np.random.set_state(generators[0])
            torch.set_rng_state(generators[1])
            self._train_as_sb3_contrib(str(error))
            return

        self.last_step = steps[-1]
        losses = self._fit_critic(networks, actor.tensors)
        self._n_updates += 1
        self.logger.record("train/policy_objective", np.mean(objectives))
        self.logger.record("train/value_loss", np.mean(losses))
        self.logger.record("train/kl_divergence_loss", np.mean([step.kl for step in steps]))
        with np.errstate(over="ignore", invalid="ignore"):  # squares of float32
            explained = explained_variance(self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/is_line_search_success", np.mean([step.status == 0 for step in steps]))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", torch.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _obstacle(self) -> str | None:
        """Why no engine can do as sb3-contrib does, whatever the policy; None where one can."""
        for method in _OWN_MATHEMATICS:
            if getattr(type(self), method) is not getattr(sb3_contrib.TRPO, method) or method in vars(self):
                return f"{type(self).__name__} has its own {method}"
        # What the solver refuses by names of its own, sb3-contrib makes something of.
        if self.cg_max_steps < 0:
            return f"cg_max_steps is {self.cg_max_steps}, not at least 0"
        if not 0 <= self.cg_damping < math.inf:
            return f"cg_damping is {self.cg_damping}, not a finite number of at least 0"
        if not 0 < self.line_search_shrinking_factor < 1:
            return f"line_search_shrinking_factor is {self.line_search_shrinking_factor}, not between 0 and 1"
        return None

    def _samples(self, data: Any) -> Samples:
        """What the policy is updated with, out of all that the buffer has."""
        every = slice(None, None, self.sub_sampling_factor if self.sub_sampling_factor > 1 else None)
        observations = data.observations
        if isinstance(observations, dict):
            observations = {key: tensor[every] for key, tensor in observations.items()}
        else:
            observations = observations[every]
        actions, advantages = data.actions[every], data.advantages[every]
        if isinstance(self.action_space, spaces.Discrete | spaces.MultiDiscrete):
            actions = actions.long()
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.flatten()
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for name, values in (("advantages", advantages), ("returns", data.returns)):
            if not values.isfinite().all():
                raise NonFiniteError(f"rollout_buffer: {name} that are not finite given; want finite numbers")
        return Samples(observations, actions, data.old_log_prob[every], advantages)

    def _bind(self, networks: CompiledNetworks | str, samples: Samples) -> BoundActor:
        """The policy's actor and `samples`, by the best engine that serves; `_UnservedError` where none does."""
        backend = self._backend
        if not isinstance(networks, str):
            backend.policy_engine, backend.policy_reason = "compiled", None
            return CompiledActor(networks, samples)
        try:
            actor = AutogradActor(self.policy, networks, samples)
        except Exception as error:  # a policy of someone's own may do anything
            raise _UnservedError(f"{networks}; {type(error).__name__}: {error}") from error
        backend.policy_engine, backend.policy_reason = "autograd", networks
        self._tell(f"The policy is not updated by compiled kernels but by autograd: {networks}")
        return actor

    def _fit_critic(self, networks: CompiledNetworks | str, stepped: list[nn.Parameter]) -> Any:
        """The loss of every minibatch; NaN without any, and where the fit was taken back."""
        if self.n_critic_updates < 1:
            return math.nan
        settings = {"epochs": self.n_critic_updates, "batch_size": self.batch_size}
        optimizer, buffer, backend = self.policy.optimizer, self.rollout_buffer, self._backend
        # Where the actor has no kernel, the value function may still have one.
        kernels = backend.critic(self.policy) if isinstance(networks, str) else networks
        reason = kernels if isinstance(kernels, str) else obstacle_to_compiled_fit(kernels, optimizer, buffer)
        backend.critic_engine, backend.critic_reason = "compiled" if reason is None else "torch", reason
        if reason is not None:
            self._tell(f"The value function is not fitted by compiled kernels but by torch: {reason}")
        losses: Any = math.nan
        failure = None
        try:
            if not isinstance(kernels, str) and reason is None:
                losses = fit_compiled(kernels, optimizer, buffer, **settings)
            else:
                losses = fit_by_torch(self.policy, buffer, actor=stepped, **settings)
        except FloatingPointError as error:
            failure = error
        backend.failed_fits.settle(failure)
        return losses

    def _train_as_sb3_contrib(self, reason: str) -> None:
        """The parent's ``train()``, with its averaged KL made joint where that is wanted."""
        backend = self._backend
        backend.policy_engine, backend.policy_reason = "sb3_contrib", reason
        backend.critic_engine, backend.critic_reason = "torch", reason
        self.last_step = None
        if reason not in backend.told:
            backend.told.add(reason)
            warnings.warn(
                f"trpo_fast cannot update this policy, sb3-contrib's own train() does: {reason}", stacklevel=3
            )
        if not self.paper_kl or not isinstance(self.action_space, spaces.Box | spaces.MultiBinary):
            super().train()
            return
        given = self.target_kl, self.cg_damping
        dimensions = get_action_dim(self.action_space)
        self.target_kl, self.cg_damping = self.target_kl / dimensions, self.cg_damping / dimensions
        try:
            super().train()
        finally:
            self.target_kl, self.cg_damping = given
        kl = self.logger.name_to_value["train/kl_divergence_loss"]
        self.logger.record("train/kl_divergence_loss", kl * dimensions)

    def _tell(self, what: str) -> None:
        if what not in self._backend.told:
            self._backend.told.add(what)
            if self.verbose >= 1:
                print(what)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_backend", "last_step"]


class _UnservedError(Exception):
    """No engine can serve the policy, of which nothing was changed."""
