"""The engine for any torch policy."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from trpo_fast._core.library import as_double, in_words, require_choice
from trpo_fast._core.operator import CallableOperator, Operator
from trpo_fast._core.recurrent import CellActor
from trpo_fast.policies.distributions import Product, base_of, choices_of, divergence, with_masks
from trpo_fast.policies.flat import flat_parameters
from trpo_fast.policies.functional import call_with
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.policies.recurrent import RecurrentPolicy, is_recurrent
from trpo_fast.rollout.batch import Batch, Sequences
from trpo_fast.solvers.arrays import as_array
from trpo_fast.solvers.validation import require_items, require_kind

from .actor import TorchActor
from .base import PolicyEngine
from .binding import (
    as_observations,
    as_rows,
    check_deterministic,
    checked_distribution,
    checked_step,
    require_sequences_fit,
)
from .linearization import LINEARIZATIONS, FisherProduct, twice_differentiable
from .recurrent import TorchRecurrentActor, cell_actor, obstacle_to_cell_actor

P = ParamSpec("P")
R = TypeVar("R")

_CHUNK_BYTES = 2**28
"""Of bytes that became floats, for one forward pass: 2,377 images of 84 x 84 x 4 in float32. A Nature CNN needs about
twice as much again for what it remembers of them. And of the terms of a KL, where a policy has thousands of outputs."""
_KL_BYTES = 64
"""That a divergence takes for each output of a sample: eight float64 arrays."""


def _recording(method: Callable[P, R]) -> Callable[P, R]:
    """`method` with gradients, wherever it is called: under ``torch.no_grad`` or ``inference_mode``, too."""

    @functools.wraps(method)
    def recorded(*arguments: P.args, **options: P.kwargs) -> R:
        with torch.inference_mode(False), torch.enable_grad():
            return method(*arguments, **options)

    return recorded


class AutogradEngine(PolicyEngine):
    """`trpo_fast.solvers.engine.Engine` for any module that returns a torch distribution, by torch's autograd.

    Made by `make_engine`. The module must be deterministic, since theta_old is evaluated more than once: dropout and
    batch normalization in training mode are refused. Fisher products are exact J'MJ for Normal, Categorical,
    MultiCategorical and Bernoulli, alone or in Independent, and for a Product of these, and second derivatives of the
    KL for any other distribution. Where the module is on a GPU, the batch goes there too, and vectors of n items go to
    and fro.

    Observations may be bytes (images): they become the policy's dtype some at a time, so that beside the batch itself
    no pass but a Fisher product takes more memory for more rows; that takes it for the rows that F is averaged over.

    Attributes
    ----------
    name : "autograd"
    reason : str
        Why this engine was chosen.
    size : int
        n, number of parameters; frozen ones count, with gradient and Fisher rows of zero.
    dtype : numpy.dtype
        Of the parameters, and of every array this engine takes or gives.
    linearization : str
        How Fisher products are computed, one of `trpo_fast.engines.linearization.LINEARIZATIONS`; the default, "auto",
        goes by what the network is made of, see `trpo_fast.engines.linearization`.
    """

    name = "autograd"

    def __init__(
        self,
        policy: nn.Module,
        reason: str,
        *,
        observation_shape: Sequence[int] | None = None,
        linearization: str = "auto",
    ) -> None:
        require_choice("linearization", linearization, LINEARIZATIONS)
        check_deterministic("policy", require_kind("policy", policy, nn.Module))
        super().__init__(policy, flat_parameters(policy))
        if not any(parameter.requires_grad for parameter in policy.parameters()):
            raise ValueError("policy: every parameter is frozen; want one that requires gradients")
        self.reason = reason
        self.recurrent = is_recurrent(policy)
        self.linearization = linearization
        self.verified_linearization: str | None = None  # what "auto" came to, once a product has been checked
        self._observation_shape: tuple[int, ...] | None = None
        if observation_shape is not None:
            self._observation_shape = tuple(require_items("observation_shape", observation_shape, "sizes"))
        self._bound: _Bound | None = None

    @_recording
    def bind(self, batch: Batch, *, total: int | None = None, entropy_coefficient: float = 0.0) -> None:
        """Cache the forward pass of `batch` at theta_old, the current parameters.

        Parameters
        ----------
        batch : Batch
            B samples; without ``log_probs`` those at theta_old are used, so the ratio there is exactly 1. (torch does
            not promise the same bits for acting on a few rows and for a batch.) Masks are for discrete policies.
        total : int, optional
            Every mean below is a sum over the batch divided by this; B by default.
        entropy_coefficient : float
            c: the surrogate objective becomes L + c H, H being the mean entropy.

        Raises
        ------
        ValueError
            A shape that does not fit; a distribution whose batch shape is not (B,); a masked action that was taken; a
            parameter that is not finite or has another dtype than when the engine was made; a log-probability that is
            not finite; an entropy coefficient for a distribution whose entropy torch does not know.
        TypeError
            The policy returns something else than a torch distribution.
        """
        require_kind("batch", batch, Batch)
        if total is not None and not batch.samples <= as_double(total, "total") < math.inf:
            raise ValueError(f"total: {in_words(total)} given; want at least the {batch.samples} samples of this batch")
        if not math.isfinite(as_double(entropy_coefficient, "entropy_coefficient")):
            raise ValueError(f"entropy_coefficient: {in_words(entropy_coefficient)} given; want a finite number")
        check_deterministic("policy", self._policy)
        require_sequences_fit(batch, self.recurrent)
        self.refresh()
        self._bound = None
        self._bound = _Bound(self, batch, total, entropy_coefficient)

    @_recording
    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the surrogate objective at theta_old, (n,)."""
        return self._current().surrogate_gradient()

    @_recording
    def fisher_operator(self, rows: NDArray[np.int64] | None = None) -> Operator:
        """The undamped Fisher matrix at theta_old; using it after another `bind` raises RuntimeError.

        Parameters
        ----------
        rows : int64, shape (S,), optional
            Sorted indices of the samples that F is averaged over, each once; all by default. Only the graph of one
            operator is kept: using two of them by turns records a graph at every turn.
        """
        bound = self._current()
        this = weakref.ref(bound)  # who keeps an operator that is outlived keeps no graph
        if rows is not None and self.recurrent:
            raise ValueError("rows: some given for a recurrent policy, whose sequences are whole; want None")
        chosen = None if rows is None else _checked_rows(rows, bound.count)
        bound.linearize(chosen)

        @_recording
        def product(v: NDArray[Any]) -> NDArray[Any]:
            current = self._bound
            if current is None or current is not this():
                raise RuntimeError("this Fisher operator is outlived: its engine was bound to another batch since")
            return current.fisher_product(v, chosen)

        return CallableOperator(product, self.size, self.dtype)

    def preconditioner(self, kind: str, *, damping: float, rows: NDArray[np.int64] | None = None) -> Operator:
        """ValueError: the statistics are made by the native engine; KroneckerPreconditioner takes a module's own."""
        raise ValueError(f"preconditioner: {kind!r} needs the native engine; want an operator of your own, or None")

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """Improvement and KL of the current parameters against theta_old; not finite where these are not.

        `kl_direction` "new_old" is KL(pi_theta || pi_old), "old_new" the other.
        """
        return self._current().evaluate(kl_direction)

    def entropy(self) -> float:
        """Mean entropy over the bound batch at theta_old, in nats; NaN where torch has none for the distribution."""
        return self._current().entropy()

    def _make_actor(self, *, narrow: bool, **options: Any) -> TorchActor | CellActor:
        if not self.recurrent:
            return TorchActor(self._distribution, self.dtype, device=self._device, **options)
        if obstacle_to_cell_actor(self._policy) is None:
            assert isinstance(self._policy, RecurrentPolicy)
            return cell_actor(self._policy, self._buffer, **options)
        return TorchRecurrentActor(self._step, self._policy, self.dtype, device=self._device, **options)

    def _step(self, observations: Tensor, state: Tensor, episode_starts: Tensor) -> tuple[Distribution, Tensor]:
        """One step of every sequence."""
        found, after = self._forward(observations, None, _SequenceTensors(episode_starts[None], state, None))
        assert after is not None
        return found, after

    def _current(self) -> _Bound:
        if self._bound is None:
            raise RuntimeError("no batch is bound: call bind first")
        return self._bound

    @property
    def _device(self) -> torch.device:
        return next(self._policy.parameters()).device

    def _distribution(
        self,
        observations: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
        sequences: _SequenceTensors | None = None,
    ) -> Distribution:
        """The policy's distribution for flat rows (B, D), with `parameters` in place of its own if given."""
        return self._forward(observations, parameters, sequences)[0]

    def _forward(
        self,
        observations: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
        sequences: _SequenceTensors | None = None,
    ) -> tuple[Distribution, Tensor | None]:
        """`_distribution`, and the states of a recurrent policy after the last step."""
        count = len(observations)
        observations = observations.to(self._device)
        # A copy, as a policy may write to what it is given; bytes went to the device as bytes.
        dtype = self._flat.tensor.dtype if observations.dtype == torch.uint8 else observations.dtype
        observations = observations.to(dtype, copy=True)
        if self._observation_shape is not None:
            observations = observations.reshape(count, *self._observation_shape)
        arguments: tuple[Tensor, ...] = (observations,)
        if sequences is not None:
            by_step = observations.reshape(*sequences.starts.shape, *observations.shape[1:])
            arguments = by_step, sequences.state.clone(), sequences.starts.clone()
        result = self._policy(*arguments) if parameters is None else call_with(self._policy, parameters, arguments)
        if sequences is None:
            return checked_distribution(result, count), None
        found, state = checked_step(result, "policy", tuple(sequences.state.shape))
        return checked_distribution(found, count), state


class _Bound:
    """One batch at theta_old. The graph hangs on a snapshot of theta_old, so trial parameters never touch it."""

    def __init__(self, engine: AutogradEngine, batch: Batch, total: int | None, entropy_coefficient: float) -> None:
        self._engine = engine
        self._device = engine._device
        self.count = len(batch.observations)
        rows = as_observations(batch.observations, engine.dtype)
        self._observations = torch.from_numpy(rows).to(self._device)
        self._sequences = _sequences_on(self._device, batch.sequences)
        self._samples = None if self._sequences is None else self._sequences.samples
        self._chunks: list[slice | None] = [None]
        widest = rows.shape[1] * engine.dtype.itemsize if rows.dtype == np.uint8 else 1
        if isinstance(engine._policy, MLPPolicy):
            widest = max(widest, engine._policy.widths[-1] * _KL_BYTES)
        step = max(1, _CHUNK_BYTES // widest)
        if step < self.count and self._sequences is None:
            self._chunks = [slice(first, first + step) for first in range(0, self.count, step)]
        self._masks = None if batch.action_masks is None else torch.from_numpy(batch.action_masks).to(self._device)
        self._total = batch.samples if total is None else total
        self._entropy_coefficient = entropy_coefficient
        # A clone of the whole buffer keeps the offsets, hence the alignment, of the live parameters.
        snapshot = engine._flat.tensor.detach().clone().to(self._device)
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
        # Evaluated exactly as trials are, so that the ratio at theta_old is 1 to the last bit; at the snapshot, as a
        # distribution may keep a parameter itself, or a view of it, which a trial writes to.
        old = {name: tensor.detach() for name, tensor in self._theta.items()}
        with torch.no_grad():
            self._old = [self._distribution(chunk, old) for chunk in self._chunks]
            self._actions = self._fitting_actions(batch.actions)
            self._advantages = self._of_samples(self._rows("advantages", batch.advantages))
            parts = zip(self._old, self._chunks, strict=True)
            self._log_probs = torch.cat([self._log_probs_of(old, chunk) for old, chunk in parts])
            if not self._log_probs.isfinite().all():
                row = int((~self._log_probs.isfinite()).nonzero()[0])
                raise ValueError(
                    f"policy: the log-probability of sample {row} is {self._log_probs[row]}; want finite numbers"
                )
            if batch.log_probs is not None:
                self._log_probs = self._of_samples(self._rows("log_probs", batch.log_probs))
            self._old_entropy = [self._entropy_of(old) for old in self._old] if entropy_coefficient else None
        self._gradient: NDArray[Any] | None = None
        self._graph: Distribution | None = None
        self._graph_rows: Tensor | slice | None = None
        self._fisher: FisherProduct | None = None

    def surrogate_gradient(self) -> NDArray[Any]:
        if self._gradient is None:
            pieces = self._gradient_of(self._chunks[0])
            for chunk in self._chunks[1:]:
                # Not in place: parameters that are added to each other get one tensor as their gradients.
                pieces = tuple(piece + more for piece, more in zip(pieces, self._gradient_of(chunk), strict=True))
            self._gradient = self._joined(pieces)
        return self._gradient.copy()

    def _gradient_of(self, chunk: slice | None) -> tuple[Tensor, ...]:
        """The part of the samples `chunk`, for each leaf."""
        distribution = self._recorded(chunk)
        log_probs = self._log_probs_of(distribution, chunk)
        if not log_probs.requires_grad:
            raise ValueError(
                "policy: nothing connects its log-probabilities to its parameters; want a forward without "
                "torch.no_grad() and detach()"
            )
        growth = (log_probs.detach() - _part(self._log_probs, chunk)).exp()
        terms, cotangents = [log_probs], [growth * _part(self._advantages, chunk) / self._total]
        if self._entropy_coefficient:
            terms.append(self._entropy_of(distribution))
            cotangents.append(torch.full_like(terms[1], self._entropy_coefficient / self._total))
        live = [(term, cotangent) for term, cotangent in zip(terms, cotangents, strict=True) if term.requires_grad]
        return torch.autograd.grad(
            [term for term, _ in live],
            self._leaves,
            [cotangent for _, cotangent in live],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )

    def linearize(self, rows: Tensor | None) -> FisherProduct:
        """Fisher products over `rows`; those over other rows are forgotten with their graph."""
        recorded = self._recorded(rows)
        if self._fisher is None:
            own = weakref.proxy(self)  # no cycle: the graph goes with the batch, not with Python's next collection
            self._fisher = FisherProduct(
                lambda parameters: own._distribution(rows, parameters),
                self._theta,
                recorded,
                self._engine.verified_linearization or self._engine.linearization,
                samples=self._samples,
                verified=self._engine.verified_linearization is not None,
            )
        return self._fisher

    def fisher_product(self, v: NDArray[Any], rows: Tensor | None) -> NDArray[Any]:
        fisher = self.linearize(rows)
        # A copy: the caller's vector may be read-only, which torch does not know.
        whole = torch.tensor(v, device=self._device)
        product = fisher([whole[s].view(leaf.shape) for s, leaf in zip(self._spans, self._leaves, strict=True)])
        self._engine.verified_linearization = fisher.method
        result = self._joined(product)
        result /= self._total if rows is None else self._total * (len(rows) / self.count)
        return result

    def evaluate(self, kl_direction: str) -> tuple[float, float]:
        require_choice("kl_direction", kl_direction, ("new_old", "old_new"))
        with torch.no_grad():
            improvement = gain = kl = 0.0
            for index, (chunk, old) in enumerate(zip(self._chunks, self._old, strict=True)):
                try:
                    new = self._distribution(chunk)
                except ValueError as error:
                    # torch's own validation of what a trial step that is too long may well come to
                    if str(error).startswith("Expected parameter "):
                        return math.nan, math.nan
                    raise
                log_probs = self._log_probs_of(new, chunk)
                growth = (log_probs.double() - _part(self._log_probs, chunk).double()).expm1()
                improvement += float((growth * _part(self._advantages, chunk).double()).sum())
                if self._old_entropy is not None:
                    gain += float((self._entropy_of(new).double() - self._old_entropy[index].double()).sum())
                moved = divergence(new, old) if kl_direction == "new_old" else divergence(old, new)
                kl += float(self._of_samples(moved).sum())
            improvement /= self._total
            if self._old_entropy is not None:
                improvement += self._entropy_coefficient * gain / self._total
            return improvement, kl / self._total

    def entropy(self) -> float:
        try:
            return float(torch.cat([self._of_samples(old.entropy()) for old in self._old]).double().mean())
        except NotImplementedError:
            return math.nan

    def _recorded(self, rows: Tensor | slice | None) -> Distribution:
        """The distribution at theta_old with its graph, of `rows` only where given; the only graph that is kept."""
        if self._graph is None or self._graph_rows is not rows:
            self._graph = self._fisher = None
            self._graph_rows = rows
            with torch.enable_grad(), twice_differentiable():
                self._graph = self._distribution(rows, self._theta)
        return self._graph

    def _distribution(
        self, rows: Tensor | slice | None, parameters: Mapping[str, Tensor] | None = None
    ) -> Distribution:
        """Of the samples `rows` (None: all), under their masks, at `parameters` (None: the module's own)."""
        distribution = self._engine._distribution(_part(self._observations, rows), parameters, self._sequences)
        if self._masks is None:
            return distribution
        return with_masks(distribution, _part(self._masks, rows))

    def _entropy_of(self, distribution: Distribution) -> Tensor:
        try:
            return self._of_samples(distribution.entropy())
        except NotImplementedError:
            raise ValueError(
                f"entropy_coefficient: {self._entropy_coefficient} given for a policy that returns a "
                f"{type(base_of(distribution)).__name__}, whose entropy torch does not know; want 0"
            ) from None

    def _fitting_actions(self, array: NDArray[Any]) -> Tensor:
        count, old = self.count, self._old[0]
        event_shape = tuple(old.event_shape)
        if array.size != count * math.prod(event_shape):
            raise ValueError(f"actions: shape {array.shape} given; want {(count, *event_shape)} for this policy")
        base = base_of(old)
        dtype = np.dtype(np.int64) if isinstance(base, Categorical) else self._engine.dtype
        actions = torch.from_numpy(as_rows("actions", array, dtype)).to(self._device).reshape(count, *event_shape)
        if not isinstance(old, Product):
            self._check_choices(old, actions, self._masks)
            return actions
        first = 0
        for index, (part, own) in enumerate(zip(old.parts, old.split(actions), strict=True)):
            last = first + sum(choices_of(part) or ())
            self._check_choices(part, own, None if self._masks is None else self._masks[:, first:last], index)
            first = last
        return actions

    def _log_probs_of(self, distribution: Distribution, chunk: slice | None) -> Tensor:
        """Of the actions that were taken in the samples `chunk`."""
        return self._of_samples(distribution.log_prob(_part(self._actions, chunk)))

    def _of_samples(self, values: Tensor) -> Tensor:
        """`values` of all rows without those that are no samples."""
        return values if self._samples is None else values[self._samples]

    def _check_choices(
        self, distribution: Distribution, actions: Tensor, masks: Tensor | None, part: int | None = None
    ) -> None:
        """ValueError where an action is no choice, or one that its mask forbids; `part` of a product, for that."""
        sizes = choices_of(distribution)
        if sizes is None:
            return
        within = "" if part is None else f" of part {part}"
        flat = actions.reshape(self.count, -1)
        chosen = flat.long()
        limits = torch.tensor(sizes, device=self._device)
        bad = (chosen != flat) | (chosen < 0) | (chosen >= limits)
        if bad.any():
            row, component = bad.nonzero()[0].tolist()
            wanted = f"0 to {sizes[component] - 1}"
            raise ValueError(
                f"actions: {flat[row, component]} in component {component}{within} of sample {row} given; want {wanted}"
            )
        if masks is None:
            return
        forbidden = ~masks.gather(1, chosen + limits.cumsum(0) - limits)
        if forbidden.any():
            row, component = forbidden.nonzero()[0].tolist()
            where = f" in component {component}{within}" if len(sizes) > 1 or within else ""
            raise ValueError(f"actions: sample {row} took an action{where} that its mask forbids")

    def _joined(self, pieces: Sequence[Tensor]) -> NDArray[Any]:
        """One array (n,) from a tensor per leaf; zeros for frozen parameters."""
        result = np.zeros(self._engine.size, self._engine.dtype)
        for span, piece in zip(self._spans, pieces, strict=True):
            result[span] = piece.reshape(-1).cpu().numpy()
        return result

    def _rows(self, name: str, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(as_rows(name, array, self._engine.dtype)).to(self._device)


class _SequenceTensors(NamedTuple):
    """`Sequences` where the policy computes."""

    starts: Tensor  # (T, E)
    state: Tensor  # (E, S)
    samples: Tensor | None  # rows, None: all


def _sequences_on(device: torch.device, sequences: Sequences | None) -> _SequenceTensors | None:
    if sequences is None:
        return None
    starts, state = (torch.from_numpy(np.array(array)).to(device) for array in (sequences.starts, sequences.state))
    rows = sequences.rows
    return _SequenceTensors(starts, state, None if rows is None else torch.from_numpy(rows).to(device))


def _part(tensor: Tensor, rows: Tensor | slice | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


def _checked_rows(rows: Any, count: int) -> Tensor:
    array = as_array(rows, "rows")
    if array.dtype != np.int64 or array.ndim != 1 or not len(array):
        raise ValueError(f"rows: shape {array.shape} of {array.dtype} given; want (S,) of int64, S >= 1")
    if len(array) > count:  # a view may say to be larger than any memory
        raise ValueError(f"rows: {len(array)} given; want increasing row numbers from 0 to {count - 1}")
    wrong = (array < 0) | (array >= count)
    wrong[1:] |= array[1:] <= array[:-1]  # their differences may be beyond int64
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"rows: item {index} is {array[index]}; want increasing row numbers from 0 to {count - 1}")
    return torch.from_numpy(array.copy())
