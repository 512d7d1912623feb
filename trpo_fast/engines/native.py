"""The compiled engine: MLPPolicy on the CPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from trpo_fast._core.operator import Operator
from trpo_fast._core.policy import Actor, PolicyKernel
from trpo_fast.policies.mlp import MLPPolicy

from .binding import as_rows, check_action_space, checked_parameters

if TYPE_CHECKING:
    from trpo_fast.rollout.batch import Batch


def obstacle_to_native(policy: nn.Module) -> str | None:
    """Why the compiled engine cannot serve `policy`, naming the culprit; None when it can."""
    if not isinstance(policy, MLPPolicy):
        return f"{type(policy).__name__} is not an MLPPolicy"
    if type(policy).forward is not MLPPolicy.forward:
        return f"{type(policy).__name__} has its own forward"
    for name, module in policy.named_modules():
        if module is not policy and not (module is policy.layers or type(module) is nn.Linear):
            return f"{name!r} is a {type(module).__name__}, not a plain nn.Linear"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or type(policy).__name__!r} has a forward hook"
    expected: dict[str, tuple[int, ...]] = {}
    if policy.distribution == "gaussian":
        expected["log_std"] = (policy.widths[-1],)
    for index, (inputs, outputs) in enumerate(zip(policy.widths[:-1], policy.widths[1:], strict=True)):
        expected |= {f"layers.{index}.weight": (outputs, inputs), f"layers.{index}.bias": (outputs,)}
    owners: dict[int, str] = {}
    for name, parameter in policy.named_parameters(remove_duplicate=False):
        owner = owners.setdefault(id(parameter), name)
        if owner != name:
            return f"parameter {name!r} is tied to {owner!r}"
        if parameter.shape != expected.pop(name, None):
            return f"parameter {name!r} of shape {tuple(parameter.shape)} is not an MLPPolicy's"
        if not parameter.requires_grad:
            return f"parameter {name!r} is frozen"
        if parameter.device.type != "cpu":
            return f"parameter {name!r} is on {parameter.device}"
    return f"parameter {next(iter(expected))!r} is missing" if expected else None


class NativeEngine:
    """`trpo_fast.solvers.engine.Engine` for an MLPPolicy, on compiled kernels.

    Made by `make_engine`. Two engines may serve two policies in two threads; one engine is for one thread at a time.

    Attributes
    ----------
    name : "native"
    reason : str
        Why this engine was chosen.
    size : int
        n, number of parameters.
    dtype : numpy.dtype
        Of the parameters, and of every array this engine takes or gives.
    """

    name = "native"
    reason = "an MLPPolicy on the CPU"

    def __init__(self, policy: MLPPolicy) -> None:
        self._policy = policy
        self._flat = policy.flat
        self._buffer = checked_parameters(self._flat, None)
        self.size = len(self._buffer)
        self.dtype: np.dtype[Any] = self._buffer.dtype
        self._kernel = PolicyKernel(policy.widths, policy.activation, policy.distribution, self.dtype)

    def bind(self, batch: Batch, *, total: int | None = None) -> None:
        """Cache the forward pass of `batch` at theta_old, the current parameters.

        Arrays of the policy's dtype are used in place and must not change while bound; others are converted once.

        Parameters
        ----------
        batch : Batch
            B samples; without ``log_probs`` those at theta_old are used, so the ratio there is exactly 1.
        total : int, optional
            Every mean below is a sum over the batch divided by this; B by default.

        Raises
        ------
        ValueError
            A shape that does not fit; action masks; a parameter that is not finite, or a policy changed since this
            engine was made so that it can no longer serve, both named.
        """
        obstacle = obstacle_to_native(self._policy)
        if obstacle is not None:
            raise ValueError(f"policy: the native engine cannot serve it any longer: {obstacle}")
        if batch.action_masks is not None:
            raise ValueError("action_masks: not for the native engine; make_engine(policy, 'autograd') takes them")
        checked_parameters(self._flat, self._buffer)
        discrete = self._policy.distribution == "categorical"
        observations = as_rows("observations", batch.observations, self.dtype)
        actions = as_rows("actions", batch.actions, np.dtype(np.int64) if discrete else self.dtype)
        advantages = as_rows("advantages", batch.advantages, self.dtype)
        log_probs = None if batch.log_probs is None else as_rows("log_probs", batch.log_probs, self.dtype)
        self._kernel.bind(self._buffer, observations, actions, advantages, log_probs, total)

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer, (n,): writing it changes the policy. Call `parameters_changed` afterwards."""
        return self._buffer

    def parameters_changed(self) -> None:
        """Tell autograd that the buffer was written."""
        self._flat.bump_versions()

    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the surrogate objective at theta_old, (n,)."""
        return self._kernel.surrogate_gradient()

    def fisher_operator(self) -> Operator:
        """The undamped Fisher matrix at theta_old; using it after another `bind` raises RuntimeError."""
        return self._kernel.fisher_operator()

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """(improvement, KL) of the current parameters against theta_old; not finite where they are.

        `kl_direction` "new_old" is KL(pi_theta || pi_old), "old_new" the other.
        """
        return self._kernel.evaluate(self._buffer, kl_direction)

    def entropy(self) -> float:
        """Mean entropy over the bound batch at theta_old, in nats."""
        return self._kernel.entropy()

    def actor(
        self,
        action_space: spaces.Space,
        *,
        observation_mean: NDArray[np.float64] | None = None,
        observation_scale: NDArray[np.float64] | None = None,
        observation_clip: float = math.inf,
        seed: int = 0,
        stream: int = 0,
    ) -> Actor:
        """What acts with the live parameters, one compiled call a step: see `trpo_fast._core.policy.Actor`.

        Parameters
        ----------
        action_space : gymnasium.spaces.Box or Discrete
            A Box clips what goes to the environment, Discrete adds its start.
        observation_mean, observation_scale : float64, shape (D,), optional
            Observations become ``clip((observation - mean) * scale)``; both arrays are read at every call.
        observation_clip : float
            Bound on normalized observations; without the two above nothing is clipped.
        seed, stream : int
            Key of the noise.
        """
        low, high, start = check_action_space(action_space, self._policy.distribution, self._policy.widths[-1])
        return Actor(
            self._kernel,
            self._buffer,
            observation_mean=observation_mean,
            observation_scale=observation_scale,
            observation_clip=observation_clip,
            action_low=low,
            action_high=high,
            action_start=start,
            seed=seed,
            stream=stream,
        )
