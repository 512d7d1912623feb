"""The engine for any torch policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from trpo_fast._core.operator import CallableOperator, Operator
from trpo_fast.policies.distributions import base_of, divergence, with_masks
from trpo_fast.policies.flat import FlatParameters
from trpo_fast.policies.mlp import MLPPolicy

from .actor import TorchActor
from .base import PolicyEngine
from .binding import as_rows, checked_distribution
from .linearization import FisherProduct

if TYPE_CHECKING:
    from trpo_fast.rollout.batch import Batch


class AutogradEngine(PolicyEngine):
    """`trpo_fast.solvers.engine.Engine` for any module that returns a torch distribution, by torch's autograd.

    Made by `make_engine`. The module must be deterministic (no dropout in training mode), since theta_old is evaluated
    more than once. Fisher products are exact J'MJ for Normal, Categorical and Bernoulli, alone or in Independent, and
    second derivatives of the KL for any other distribution.

    Attributes
    ----------
    name : "autograd"
    reason : str
        Why this engine was chosen.
    size : int
        n, number of parameters; frozen ones count, with gradient and Fisher rows of zero.
    dtype : numpy.dtype
        Of the parameters, and of every array this engine takes or gives.
    """

    name = "autograd"

    def __init__(self, policy: nn.Module, reason: str, *, observation_shape: Sequence[int] | None = None) -> None:
        super().__init__(policy, policy.flat if isinstance(policy, MLPPolicy) else FlatParameters(policy))
        if not any(parameter.requires_grad for parameter in policy.parameters()):
            raise ValueError("policy: every parameter is frozen, wanted one that requires gradients")
        self.reason = reason
        self._observation_shape = None if observation_shape is None else tuple(observation_shape)
        self._bound: _Bound | None = None

    def bind(self, batch: Batch, *, total: int | None = None) -> None:
        """Cache the forward pass of `batch` at theta_old, the current parameters.

        Parameters
        ----------
        batch : Batch
            B samples; without ``log_probs`` those at theta_old are used, so the ratio there is exactly 1. (torch does
            not promise the same bits for acting on a few rows and for a batch.) Masks are for Categorical policies.
        total : int, optional
            Every mean below is a sum over the batch divided by this; B by default.

        Raises
        ------
        ValueError
            A shape that does not fit; a distribution whose batch shape is not (B,); a masked action that was taken; a
            parameter that is not finite or has another dtype than when the engine was made.
        TypeError
            The policy returns something else than a torch distribution.
        """
        if total is not None and total < len(batch.observations):
            raise ValueError(f"total: got {total}, wanted at least the {len(batch.observations)} rows of this batch")
        self.refresh()
        self._bound = None
        self._bound = _Bound(self, batch, total)

    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the surrogate objective at theta_old, (n,)."""
        return self._current().surrogate_gradient()

    def fisher_operator(self) -> Operator:
        """The undamped Fisher matrix at theta_old; using it after another `bind` raises RuntimeError."""
        bound = self._current()
        bound.linearize()

        def product(v: NDArray[Any]) -> NDArray[Any]:
            if self._bound is not bound:
                raise RuntimeError("this Fisher operator is outlived: its engine was bound to another batch since")
            return bound.fisher_product(v)

        return CallableOperator(product, self.size, self.dtype)

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """(improvement, KL) of the current parameters against theta_old; not finite where they are.

        `kl_direction` "new_old" is KL(pi_theta || pi_old), "old_new" the other.
        """
        return self._current().evaluate(kl_direction)

    def entropy(self) -> float:
        """Mean entropy over the bound batch at theta_old, in nats; NaN where torch has none for the distribution."""
        return self._current().entropy()

    def _make_actor(self, **options: Any) -> TorchActor:
        return TorchActor(self._distribution, self.dtype, **options)

    def _current(self) -> _Bound:
        if self._bound is None:
            raise RuntimeError("no batch is bound: call bind first")
        return self._bound

    def _distribution(self, observations: Tensor, parameters: dict[str, Tensor] | None = None) -> Distribution:
        """The policy's distribution for flat rows (B, D), with `parameters` in place of its own if given."""
        count = len(observations)
        if self._observation_shape is not None:
            observations = observations.reshape(count, *self._observation_shape)
        if parameters is None:
            result = self._policy(observations)
        else:
            result = torch.func.functional_call(self._policy, parameters, (observations,))
        return checked_distribution(result, count)


class _Bound:
    """One batch at theta_old. The graph hangs on a snapshot of theta_old, so trial parameters never touch it."""

    def __init__(self, engine: AutogradEngine, batch: Batch, total: int | None) -> None:
        self._engine = engine
        self._observations = torch.from_numpy(as_rows("observations", batch.observations, engine.dtype))
        self._masks = None if batch.action_masks is None else torch.from_numpy(batch.action_masks)
        self._total = len(self._observations) if total is None else total
        # A clone of the whole buffer keeps the offsets, hence the alignment, of the live parameters.
        snapshot = engine._flat.tensor.detach().clone()
        self._theta: dict[str, Tensor] = {}
        self._spans: list[slice] = []
        offset = 0
        for name, parameter in engine._policy.named_parameters():
            span = slice(offset, offset + parameter.numel())
            offset = span.stop
            self._theta[name] = snapshot[span].view(parameter.shape)
            if parameter.requires_grad:
                self._theta[name].requires_grad_()
                self._spans.append(span)
        self._leaves = [tensor for tensor in self._theta.values() if tensor.requires_grad]
        # Evaluated exactly as trials are, so that the ratio at theta_old is 1 to the last bit.
        with torch.no_grad():
            self._old = self._masked(engine._distribution(self._observations))
            self._actions = self._fitting_actions(batch.actions)
            self._advantages = torch.from_numpy(as_rows("advantages", batch.advantages, engine.dtype))
            if batch.log_probs is None:
                self._log_probs = self._old.log_prob(self._actions)
            else:
                self._log_probs = torch.from_numpy(as_rows("log_probs", batch.log_probs, engine.dtype))
        self._graph: Distribution | None = None
        self._fisher: FisherProduct | None = None

    def surrogate_gradient(self) -> NDArray[Any]:
        log_probs = self._recorded().log_prob(self._actions)
        weights = (log_probs.detach() - self._log_probs).exp() * self._advantages / self._total
        return self._joined(
            torch.autograd.grad(
                log_probs, self._leaves, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )

    def linearize(self) -> None:
        if self._fisher is None:
            self._fisher = FisherProduct(self._recorded(), self._old, self._leaves)

    def fisher_product(self, v: NDArray[Any]) -> NDArray[Any]:
        assert self._fisher is not None
        # A copy: the caller's vector may be read-only, which torch does not know.
        whole = torch.tensor(v)
        vectors = [whole[span].view(leaf.shape) for span, leaf in zip(self._spans, self._leaves, strict=True)]
        result = self._joined(self._fisher(vectors))
        result /= self._total
        return result

    def evaluate(self, kl_direction: str) -> tuple[float, float]:
        if kl_direction not in ("new_old", "old_new"):
            raise ValueError(f"kl_direction: got {kl_direction!r}, wanted 'new_old' or 'old_new'")
        with torch.no_grad():
            new = self._masked(self._engine._distribution(self._observations))
            growth = (new.log_prob(self._actions).double() - self._log_probs.double()).expm1()
            improvement = float((growth * self._advantages.double()).sum()) / self._total
            kl = divergence(new, self._old) if kl_direction == "new_old" else divergence(self._old, new)
            return improvement, float(kl.sum()) / self._total

    def entropy(self) -> float:
        try:
            return float(self._old.entropy().double().mean())
        except NotImplementedError:
            return math.nan

    def _recorded(self) -> Distribution:
        if self._graph is None:
            with torch.enable_grad():
                self._graph = self._masked(self._engine._distribution(self._observations, self._theta))
        return self._graph

    def _masked(self, distribution: Distribution) -> Distribution:
        return distribution if self._masks is None else with_masks(distribution, self._masks)

    def _fitting_actions(self, array: NDArray[Any]) -> Tensor:
        count, event_shape = len(self._observations), tuple(self._old.event_shape)
        if array.size != count * math.prod(event_shape):
            raise ValueError(f"actions: got shape {array.shape}, wanted {(count, *event_shape)} for this policy")
        base = base_of(self._old)
        dtype = np.dtype(np.int64) if isinstance(base, Categorical) else self._engine.dtype
        actions = torch.from_numpy(as_rows("actions", array, dtype)).reshape(count, *event_shape)
        if isinstance(base, Categorical):
            if actions.min() < 0 or actions.max() >= base.logits.shape[-1]:
                found = f"{int(actions.min())} to {int(actions.max())}"
                raise ValueError(f"actions: got {found}, wanted 0 to {base.logits.shape[-1] - 1}")
            if self._masks is not None:
                forbidden = ~self._masks.gather(1, actions[:, None])[:, 0]
                if forbidden.any():
                    raise ValueError(
                        f"actions: sample {int(forbidden.nonzero()[0])} took an action that its mask forbids"
                    )
        return actions

    def _joined(self, pieces: Sequence[Tensor]) -> NDArray[Any]:
        """One array (n,) from a tensor per leaf; zeros for frozen parameters."""
        result = np.zeros(self._engine.size, self._engine.dtype)
        for span, piece in zip(self._spans, pieces, strict=True):
            result[span] = piece.reshape(-1).numpy()
        return result
