"""The compiled engine: MLPPolicy on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from trpo_fast._core.acting import Actor
from trpo_fast._core.library import MAX_LAYERS, MAX_OUTPUTS
from trpo_fast._core.operator import Operator
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.preconditioner import FisherFactors
from trpo_fast.environments.acting import ActorPlan
from trpo_fast.gymnasium_spaces import action_layout
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers.validation import require_kind

from .base import PolicyEngine
from .binding import as_rows, changed_call, require_sequences_fit


def obstacle_to_native(policy: nn.Module) -> str | None:
    """Why the compiled engine cannot serve `policy`, naming the culprit; None when it can."""
    if not isinstance(policy, MLPPolicy):
        return f"{type(policy).__name__} is not an MLPPolicy"
    if type(policy).forward is not MLPPolicy.forward:
        return f"{type(policy).__name__} has its own forward"
    if policy.squash:
        return f"{type(policy).__name__} squashes its actions"
    for name, module in policy.named_modules():
        if module is not policy and not (module is policy.layers or type(module) is nn.Linear):
            return f"{name!r} is a {type(module).__name__}, not a plain nn.Linear"
        changed = changed_call(module)
        if changed:
            return f"{name or type(policy).__name__!r} {changed}"
    if len(policy.layers) > MAX_LAYERS:
        return f"{type(policy).__name__} has {len(policy.layers)} layers, more than {MAX_LAYERS}"
    if policy.widths[-1] > MAX_OUTPUTS:
        return f"{type(policy).__name__} has {policy.widths[-1]:,} outputs, more than {MAX_OUTPUTS:,}"
    expected: dict[str, tuple[int, ...]] = {}
    log_std_size = action_layout(policy.action_space).log_std_size
    if log_std_size:
        expected["log_std"] = (log_std_size,)
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


class NativeEngine(PolicyEngine):
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
    rows_independent = True

    _policy: MLPPolicy

    def __init__(self, policy: MLPPolicy) -> None:
        super().__init__(policy, require_kind("policy", policy, MLPPolicy).flat)
        self._kernel_arguments = self._arguments_of_a_kernel()
        self._stores_integers = action_layout(policy.action_space).low is None
        self._kernel = PolicyKernel(*self._kernel_arguments)
        self._factors = FisherFactors(self._kernel)

    def bind(self, batch: Batch, *, total: int | None = None, entropy_coefficient: float = 0.0) -> None:
        """Cache the forward pass of `batch` at theta_old, the current parameters.

        Arrays of the policy's dtype are used in place and must not change while bound; others are converted once.

        Parameters
        ----------
        batch : Batch
            B samples; without ``log_probs`` those at theta_old are used, so the ratio there is exactly 1.
        total : int, optional
            Every mean below is a sum over the batch divided by this; B by default.
        entropy_coefficient : float
            The objective is the surrogate plus this times the mean entropy.

        Raises
        ------
        ValueError
            A shape that does not fit; an action that is out of range or masked; a mask that forbids everything; a
            log_std beyond what the dtype can square; a parameter that is not finite, or a policy changed since this
            engine was made so that it can no longer serve, both named.
        """
        require_kind("batch", batch, Batch)
        self.require_served()
        self.bind_served(batch, total, entropy_coefficient)

    def require_served(self) -> None:
        """ValueError naming what was changed of the policy so that this engine can no longer serve it."""
        obstacle = obstacle_to_native(self._policy)
        if obstacle is not None:
            raise ValueError(f"policy: the native engine cannot serve it any longer: {obstacle}")
        self.refresh()
        now = self._arguments_of_a_kernel()
        if now != self._kernel_arguments:
            was, now = next(pair for pair in zip(self._kernel_arguments, now, strict=True) if pair[0] != pair[1])
            raise ValueError(f"policy: {now!r} where it had {was!r} when the engine was made; make another engine")

    def _arguments_of_a_kernel(self) -> tuple[Any, ...]:
        """Of the policy as it is."""
        policy = self._policy
        arguments = action_layout(policy.action_space).kernel_arguments
        return policy.widths, policy.activation, policy.distribution, self.dtype, *arguments

    def bind_served(self, batch: Batch, total: int | None, entropy_coefficient: float) -> None:
        """`bind` after `require_served`, which serves for all engines over one policy."""
        require_sequences_fit(batch, recurrent=False)
        observations = as_rows("observations", batch.observations, self.dtype)
        actions = as_rows("actions", batch.actions, np.dtype(np.int64) if self._stores_integers else self.dtype)
        advantages = as_rows("advantages", batch.advantages, self.dtype)
        log_probs = None if batch.log_probs is None else as_rows("log_probs", batch.log_probs, self.dtype)
        self._kernel.bind(
            self._buffer,
            observations,
            actions,
            advantages,
            log_probs,
            total,
            action_masks=batch.action_masks,
            entropy_coefficient=entropy_coefficient,
        )

    @property
    def policy(self) -> MLPPolicy:
        """The policy that this engine was made for."""
        return self._policy

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        return list(pairwise(self._policy.widths))

    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the objective at theta_old, (n,)."""
        return self._kernel.surrogate_gradient()

    def fisher_operator(self, rows: NDArray[np.int64] | None = None) -> Operator:
        """The undamped Fisher matrix at theta_old; using it after another `bind` raises RuntimeError.

        With `rows`, increasing row numbers of the batch (S,), the mean is over these samples alone.
        """
        return self._kernel.fisher_operator(rows)

    def preconditioner(
        self,
        kind: str,
        *,
        damping: float,
        rows: NDArray[np.int64] | None = None,
        statistics: Sequence[tuple[NDArray[Any], NDArray[Any]]] | None = None,
    ) -> Operator:
        """An approximation of (F + damping I)^-1 at theta_old; using it after another `bind` raises RuntimeError.

        Parameters
        ----------
        kind : {"kfac", "diagonal"}
            A Kronecker product for each layer (Martens & Grosse 2015), or F's diagonal.
        damping : float
            As in the solve, >= 0.
        rows : int64 (S,), optional
            Indices of the bound rows that the statistics are made from, increasing; default: all; beyond 4,096
            only some, spread evenly, are read for A.
        statistics : sequence of (A, G), optional
            Those of a batch of which the bound one is a part, in place of its own; see `kronecker_statistics`.

        Raises
        ------
        FloatingPointError
            A statistic that is not finite.
        """
        return self._factors.preconditioner(kind, damping=damping, rows=rows, statistics=statistics)

    def kronecker_statistics(self, signs: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """What `preconditioner` is made from: of each layer A = E[a a'] and G = E[d d'].

        A (inputs + 1, inputs + 1) is a mean over a spread of the bound batch; G (outputs, outputs) a sum divided by the
        `total` of `bind`, as F is. Parts of one batch want other `signs`, so that the noise of their G is independent.
        """
        return self._factors.statistics(signs=signs)

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """Improvement and KL of the current parameters against theta_old; not finite where these are not.

        `kl_direction` "new_old" is KL(pi_theta || pi_old), "old_new" the other.
        """
        return self._kernel.evaluate(self._buffer, kl_direction)

    def entropy(self) -> float:
        """Mean entropy over the bound batch at theta_old, in nats."""
        return self._kernel.entropy()

    def actor_plan(
        self, action_space: spaces.Space, *, action_map: str = "clip", narrow: bool = False, **options: Any
    ) -> ActorPlan:
        """What makes the `actor` of the same arguments in another process; its parameters are the live ones."""
        return self._plan(narrow, self._actor_options(action_space, action_map) | options)

    def _make_actor(self, *, narrow: bool, **options: Any) -> Actor:
        return self._plan(narrow, options).make()

    def _plan(self, narrow: bool, options: dict[str, Any]) -> ActorPlan:
        # In float64 other vectors may give other last bits, and log-probabilities would not be those of the update.
        return ActorPlan(self._kernel_arguments, narrow and self.dtype == np.float32, self._buffer, options)
