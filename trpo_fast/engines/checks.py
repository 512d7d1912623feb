"""Whether a module of the user's own computes what an update takes it for, found out when an agent is made.

A second forward pass gives the same bits; a row's result does not depend on the other rows; a Fisher product is
symmetric and that of the score; J v is what a finite difference of the forward pass says. All on a handful of rows:
15 to 40 ms for an MLP of 64, 64, 40 to 350 ms where M is not known in closed form, and one to two seconds for a Nature
CNN of 84 x 84 x 4 (one thread of a machine that was busy).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from trpo_fast.policies.distributions import base_of, family_of
from trpo_fast.policies.families import Family
from trpo_fast.policies.functional import call_with

from .binding import check_deterministic, checked_distribution, checked_step
from .linearization import FisherProduct, torchs_divergence, twice_differentiable

R = TypeVar("R")

_SEED = 1
_SAMPLES = 2_000  # for each row: the mean square of a score is known to a few per cent
_DIRECTIONS = 2
_NUMBERS = 10_000  # in the rows whose derivatives are looked at

_REGISTERED = "a divergence of its own registered with torch.distributions.kl.register_kl"
_INSTEAD = f"wanted another distribution, or {_REGISTERED}"


def check_policy(policy: nn.Module, candidates: Sequence[Tensor], *, linearization: str = "auto") -> None:
    """Refuse a policy that an update would not be right for; the generators of random numbers stay as they were.

    Parameters
    ----------
    policy : torch.nn.Module
        ``forward(observations)`` returns a distribution of batch shape (B,).
    candidates : sequence of Tensor, each (B, ...) with B > 1
        Rows as the policy takes them; the first that it does take, with finite results, are those of the check. A
        policy that takes none of them is not refused for that.
    linearization : str
        How the engine computes Fisher products.

    Raises
    ------
    ValueError
        Naming the layer or the distribution: the same rows give something else the second time, the rows of a batch are
        mixed, it cannot be differentiated twice as it is computed, or the divergence of its distribution is not one
        whose Hessian is the Fisher information.

    Warns
    -----
    UserWarning
        Its gradients are not the derivatives of what it computes, as where it detaches something on purpose.
    """
    check_deterministic("policy", policy)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        return  # the engine says so
    with _seeded(policy):
        found = _taken(policy, candidates, lambda rows: _values_of(checked_distribution(policy(rows), len(rows))))
        if found is None:
            return
        rows, _ = found
        with torch.no_grad():
            actions = policy(rows).sample()
        _check_pure("policy", policy, rows, lambda result, chosen: _readings_of(result, actions[chosen]))
        few = rows[: max(2, _NUMBERS // rows[0].numel())]  # images take their time
        followed = _check_derivatives(policy, few, linearization)
    if not followed:
        warnings.warn(
            "policy: its gradients are not the derivatives of what it computes: it has a detach(), a no_grad(), or a "
            "function whose backward is another's. Steps follow its gradients, and the line search what it computes",
            stacklevel=2,
        )


def check_critic(critic: nn.Module, candidates: Sequence[Tensor]) -> None:
    """Refuse a critic whose values are not a function of each row and the parameters, as `check_policy` does."""
    check_deterministic("critic", critic)
    if not any(parameter.requires_grad for parameter in critic.parameters()):
        return  # its kernel says so
    with _seeded(critic):
        found = _taken(critic, candidates, lambda rows: (critic(rows),))
        if found is None:
            return
        rows, _ = found
        _check_pure("critic", critic, rows, lambda result, _: (result,))
        with torch.enable_grad():
            if not critic(rows).requires_grad:
                raise ValueError(
                    "critic: nothing connects its values to its parameters, wanted a forward without torch.no_grad() "
                    "and detach()"
                )


def check_recurrent(what: str, module: Any, candidates: Sequence[Tensor]) -> None:
    """Refuse a recurrent module, "policy" or "critic", whose sequences are not those of its single steps.

    Several steps of some environments at once, with a start in the middle, are compared with calls of one step each, by
    which the state is handed on; with another order of the environments; and with other states before the first step,
    which starts an episode.

    Parameters
    ----------
    what : {"policy", "critic"}
    module : torch.nn.Module
        See `trpo_fast.policies.recurrent.RecurrentModule`.
    candidates : sequence of Tensor, each (B, ...) with B > 1
        Rows as `check_policy` takes them; where it takes none of them there is no check.

    Raises
    ------
    ValueError
        Two passes differ, or one of the above is something else.
    """
    check_deterministic(what, module)
    with _seeded(module), torch.no_grad():
        for rows in candidates:
            device = next(module.parameters()).device
            steps = torch.stack([rows, rows.flip(0), rows.roll(1, 0)], 1).to(device)  # (T, E, ...)
            starts = torch.zeros(steps.shape[:2], dtype=torch.bool, device=device)
            starts[0], starts[2, 1] = True, True
            try:
                state = module.initial_state(3).detach()
                found = _sequence(what, module, steps, state, starts)
            except Exception:  # whatever a module of anybody's raises for rows that are none of its environment's
                continue
            _check_sequences(what, module, steps, state, starts, found)
            return


def _sequence(
    what: str, module: Any, steps: Tensor, state: Tensor, starts: Tensor, actions: Tensor | None = None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """What says which results these are, (T, E, ...), the state after them, and the actions that were looked at."""
    result, after = checked_step(module(steps.clone(), state.clone(), starts.clone()), what, tuple(state.shape))
    shape = tuple(starts.shape)
    if what == "critic":
        return [result.reshape(*shape)], after, None
    distribution = checked_distribution(result, starts.numel())
    actions = distribution.sample() if actions is None else actions
    return [part.reshape(*shape, *part.shape[1:]) for part in _readings(distribution, actions)], after, actions


def _check_sequences(
    what: str,
    module: Any,
    steps: Tensor,
    state: Tensor,
    starts: Tensor,
    found: tuple[list[Tensor], Tensor, Tensor | None],
) -> None:
    readings, _, actions = found
    close = 2e-3 if steps.dtype == torch.float32 else 1e-7
    by_step = None if actions is None else actions.reshape(*starts.shape, *actions.shape[1:])

    def again(order: Tensor | slice = slice(None), before: Tensor | None = None) -> list[Tensor]:
        own = None if by_step is None else by_step[:, order].flatten(0, 1)
        first = state if before is None else before
        return _sequence(what, module, steps[:, order], first[order], starts[:, order], own)[0]

    def differ(others: Sequence[Tensor], order: Tensor | slice = slice(None), tolerance: float = close) -> bool:
        return not all(_same(a[:, order], b, tolerance) for a, b in zip(readings, others, strict=True))

    if differ(again(), tolerance=0.0 if steps.device.type == "cpu" else 1e-4):
        raise ValueError(
            f"{what}: two forward passes of the same sequences differ; wanted one that draws no random numbers and "
            "keeps nothing between calls but the state that it returns"
        )
    backwards = torch.arange(starts.shape[1] - 1, -1, -1, device=steps.device)
    if any(differ(again(order), order) for order in (backwards, backwards[:1])):
        raise ValueError(
            f"{what}: a sequence's results depend on the other sequences, or row t E + e of them is not step t of "
            "sequence e"
        )
    if differ(again(before=state + torch.randn_like(state))):
        raise ValueError(
            f"{what}: what was before an episode's start is not forgotten; wanted initial_state wherever "
            "episode_starts is True"
        )
    singly, before = [], state
    for t in range(len(steps)):
        own = None if by_step is None else by_step[t]
        result, before, _ = _sequence(what, module, steps[t : t + 1], before, starts[t : t + 1], own)
        singly.append(result)
    if differ([torch.cat(parts) for parts in zip(*singly, strict=True)]):
        raise ValueError(
            f"{what}: several steps at once are not what single steps give, each with the state that the one before "
            "returned; wanted a state with all that is remembered, rows in the order t E + e, and episode_starts "
            "obeyed in every step"
        )


@contextlib.contextmanager
def _seeded(module: nn.Module) -> Iterator[None]:
    """Random numbers of the checks' own seed, and no warnings; the generators are put back."""
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(sorted(devices, key=str), device_type="cuda"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a module says of a pass without gradients, for instance
        torch.manual_seed(_SEED)
        yield


def _taken(
    module: nn.Module, candidates: Sequence[Tensor], values: Callable[[Tensor], Sequence[Tensor]]
) -> tuple[Tensor, Sequence[Tensor]] | None:
    """The first of `candidates` that `module` takes."""
    device = next(module.parameters()).device
    for candidate in candidates:
        rows = candidate.to(device)
        try:
            with torch.no_grad():
                found = values(rows)
        except Exception:  # whatever a module of anybody's raises for rows that are none of its environment's
            continue
        if all(value.isfinite().all() for value in found):
            return rows, found
    return None


def _values_of(distribution: Distribution) -> tuple[Tensor, ...]:
    return _readings(distribution, distribution.sample())


def _readings_of(result: Any, actions: Tensor) -> tuple[Tensor, ...]:
    return _readings(checked_distribution(result, len(actions)), actions)


def _readings(distribution: Distribution, actions: Tensor) -> tuple[Tensor, ...]:
    """What says which distribution it is: its coordinates, or the log-probabilities of `actions`."""
    family = family_of(distribution)
    return (distribution.log_prob(actions),) if family is None else family.coordinates(distribution)


# Forward passes.


def _check_pure(
    what: str, module: nn.Module, rows: Tensor, readings: Callable[[Any, slice | Tensor], Sequence[Tensor]]
) -> None:
    """ValueError where `module` is no function of each row: it is evaluated again, backwards, and a row alone."""
    everything = slice(None)
    with torch.no_grad():
        first, second = (readings(module(rows), everything) for _ in range(2))
        exact = rows.device.type == "cpu"
        if not all(_same(a, b, 0.0 if exact else 1e-4) for a, b in zip(first, second, strict=True)):
            culprit = _culprit(module, rows, rows, everything)
            raise ValueError(
                f"{what}: two forward passes of the same rows differ, and {culprit} makes the difference; wanted one "
                f"that draws no random numbers and keeps no state between calls: {what}.eval(), or another layer"
            )
        backwards = torch.arange(len(rows) - 1, -1, -1, device=rows.device)
        for chosen in (backwards, backwards[:1]):
            try:
                apart = readings(module(rows[chosen]), chosen)
            except Exception as error:
                raise ValueError(
                    f"{what}: forward takes {len(rows)} rows and fails for {len(chosen)}: {_line(error)}"
                ) from error
            # Kernels for few rows round in another way than those for many.
            close = 2e-3 if rows.dtype == torch.float32 else 1e-7
            if not all(_same(a[chosen], b, close) for a, b in zip(first, apart, strict=True)):
                culprit = _culprit(module, rows, rows[chosen], chosen)
                raise ValueError(
                    f"{what}: a row's result depends on the other rows of the batch, and {culprit} mixes them; wanted "
                    "each row's result from that row alone, LayerNorm or GroupNorm for instance"
                )


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    if tolerance == 0.0:
        return torch.equal(a, b)
    return not bool((a - b).abs().max() > tolerance * (a.abs().max() + 1e-6))


def _culprit(module: nn.Module, rows: Tensor, others: Tensor, chosen: slice | Tensor) -> str:
    """The first layer that has the same inputs in both passes, up to the rows `chosen`, and other outputs."""
    count = len(rows)

    def part_of(tensor: Tensor) -> Tensor:
        return tensor[chosen] if tensor.ndim and len(tensor) == count else tensor

    tolerance = 0.0 if isinstance(chosen, slice) else 2e-3
    for one, other in zip(_calls(module, rows), _calls(module, others), strict=False):
        (name, layer, inputs, outputs), (_, _, own_inputs, own_outputs) = one, other
        pairs = [
            [_same(part_of(a).double(), b.double(), tolerance) for a, b in zip(left, right, strict=False)]
            for left, right in ((inputs, own_inputs), (outputs, own_outputs))
        ]
        if name and inputs and all(pairs[0]) and not all(pairs[1]):
            return f"{name!r}, a {type(layer).__name__},"
    return f"the forward of {type(module).__name__} itself"


def _calls(module: nn.Module, rows: Tensor) -> list[tuple[str, nn.Module, list[Tensor], list[Tensor]]]:
    """Every layer that a forward pass of `rows` calls, as it ends: innermost first."""
    calls: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]] = []

    def watch(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, inputs: Any, outputs: Any) -> None:
            calls.append((name, layer, list(_tensors(inputs)), list(_tensors(outputs))))

        return note

    handles = [part.register_forward_hook(watch(name)) for name, part in module.named_modules()]
    try:
        with torch.no_grad():
            module(rows)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tensors(value: Any, *, detached: bool = True) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and not value.is_complex():
        yield value.detach().clone() if detached else value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part, detached=detached)


# Derivatives.


class _Pass:
    """The forward pass of a policy for some rows as a function of its parameters, in float64 where it can be."""

    def __init__(self, policy: nn.Module, rows: Tensor, *, double: bool) -> None:
        self.double = double

        def cast(tensor: Tensor) -> Tensor:
            kind = torch.complex128 if tensor.is_complex() else torch.float64
            convert = double and (tensor.is_floating_point() or tensor.is_complex())
            return tensor.detach().to(kind if convert else tensor.dtype, copy=True)

        self._policy = policy
        self._rows = cast(rows)
        self._buffers = {name: cast(buffer) for name, buffer in policy.named_buffers()}
        self.values = {name: cast(parameter) for name, parameter in policy.named_parameters()}
        self.live = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]

    def __call__(self, parameters: Mapping[str, Tensor]) -> Distribution:
        values = self._buffers | dict(parameters)
        with twice_differentiable():
            return checked_distribution(call_with(self._policy, values, (self._rows.clone(),)), len(self._rows))

    def holding(self, parameters: Mapping[str, Tensor], work: Callable[[], R]) -> R:
        """What `work` returns, the policy having `parameters` meanwhile.

        A part that is computed again in a backward pass, as by torch's checkpointing, takes those that are there then.
        """
        values = {f"policy.{name}": value for name, value in (self._buffers | dict(parameters)).items()}
        return cast("R", torch.func.functional_call(_Holding(self._policy, work), values, ()))

    def leaves(self) -> dict[str, Tensor]:
        """Parameters of which those that are trained require gradients."""
        return {name: value.detach().requires_grad_(name in self.live) for name, value in self.values.items()}

    def moved(self, direction: Sequence[Tensor], size: float) -> dict[str, Tensor]:
        """Parameters a step along `direction`, one tensor for each that is trained."""
        steps = dict(zip(self.live, direction, strict=True))
        return {name: value + size * steps[name] if name in steps else value for name, value in self.values.items()}


class _Holding(nn.Module):
    """A policy in which `torch.func.functional_call` puts parameters for as long as `work` lasts."""

    def __init__(self, policy: nn.Module, work: Callable[[], Any]) -> None:
        super().__init__()
        self.policy = policy
        self.work = work

    def forward(self) -> Any:
        return self.work()


def _pass_of(policy: nn.Module, rows: Tensor) -> _Pass:
    """In float64, unless the policy has a dtype of its own somewhere."""
    double = _Pass(policy, rows, double=True)
    try:
        with torch.no_grad():
            if all(part.dtype != torch.float32 for part in _values_of(double(double.values))):
                return double
    except Exception:  # it may well insist on its dtype
        pass
    return _Pass(policy, rows, double=False)


def _check_derivatives(policy: nn.Module, rows: Tensor, linearization: str) -> bool:
    """Whether its derivatives are those of the forward pass; ValueError where a Fisher product is wrong."""
    forward = _pass_of(policy, rows)
    leaves = forward.leaves()
    try:
        return forward.holding(leaves, lambda: _are_derivatives(policy, forward, leaves, linearization))
    except _NotTwiceError as error:
        raise ValueError(
            f"policy: torch cannot differentiate {_not_twice(policy, rows)} twice, which a Fisher product needs: "
            f"{error}"
        ) from error.__cause__


class _NotTwiceError(Exception):
    """What torch says of a policy that it cannot differentiate twice."""


def _are_derivatives(policy: nn.Module, forward: _Pass, leaves: Mapping[str, Tensor], linearization: str) -> bool:
    """As `_check_derivatives`, at `leaves`, which the policy holds."""
    with torch.enable_grad():
        distribution = forward(leaves)
    name, known = type(base_of(distribution)).__name__, family_of(distribution)
    directions = [_direction(policy, forward) for _ in range(_DIRECTIONS)]
    tensors = [leaves[part] for part in forward.live]
    with torch.enable_grad():
        readings = _values_of(distribution)
    if not any(reading.requires_grad for reading in readings):
        raise ValueError(
            "policy: nothing connects its log-probabilities to its parameters, wanted a forward without "
            "torch.no_grad() and detach()"
        )
    if known is None:
        _check_minimum(name, forward, distribution, tensors, directions)
    try:
        with torch.enable_grad():
            product = FisherProduct(forward, leaves, distribution, linearization)
            products = [product(direction) for direction in directions]
    except (RuntimeError, NotImplementedError) as error:
        raise _NotTwiceError(_line(error)) from error
    curvatures = [_dot(direction, found) for direction, found in zip(directions, products, strict=True)]
    if known is None:
        _check_curvature(name, distribution, tensors, directions, curvatures)
    return not forward.double or _are_followed(forward, known, distribution, directions, products, curvatures)


def _direction(policy: nn.Module, forward: _Pass) -> list[Tensor]:
    """Random, of the size of each parameter's numbers, so that it moves all parts of a network alike."""
    found = {}
    for name in forward.live:
        value = forward.values[name]
        size = float(value.abs().mean()) + 1e-3 if value.numel() else 1.0
        found[name] = size * torch.randn_like(value)
    for name, part in policy.named_modules():
        rows = found.get(f"{name}.weight" if name else "weight")
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None and rows is not None:
            rows[part.padding_idx] = 0.0  # has no gradient, as it is never to move
    return list(found.values())


def _not_twice(policy: nn.Module, rows: Tensor) -> str:
    """The first layer that torch cannot differentiate twice by itself."""
    for name, layer, inputs, _ in _calls(policy, rows):
        with torch.enable_grad():
            given = [part.requires_grad_() if part.is_floating_point() else part for part in inputs]
            leaves = [part for part in (*given, *layer.parameters()) if part.requires_grad]
            try:
                outputs = [part for part in _tensors(layer(*given), detached=False) if part.requires_grad]
            except Exception:  # it has other arguments, too
                continue
            weights = [torch.zeros_like(part, requires_grad=True) for part in outputs]
            try:
                pulled = torch.autograd.grad(outputs, leaves, weights, create_graph=True, allow_unused=True)
                live = [part for part in pulled if part is not None and part.requires_grad]
                torch.autograd.grad(live, weights, [torch.ones_like(part) for part in live], allow_unused=True)
            except RuntimeError:
                if name and outputs:
                    return f"{name!r}, a {type(layer).__name__},"
    return "it"


def _check_minimum(
    name: str,
    forward: _Pass,
    distribution: Distribution,
    leaves: Sequence[Tensor],
    directions: Sequence[Sequence[Tensor]],
) -> None:
    """ValueError where torch's divergence is not there, or has no minimum, at the same parameters and near them."""
    with torch.no_grad():
        old = forward(forward.values)
    with torch.enable_grad():
        divergence = torchs_divergence(old, distribution).sum()
    if not divergence.requires_grad:
        raise ValueError(
            f"policy: torch's KL divergence of the {name} that it returns does not depend on its parameters, {_INSTEAD}"
        )
    slopes = torch.autograd.grad(divergence, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    for direction in directions:
        # Of a sum of terms that cancel; a support that moves has one of the size of the log-probability's.
        scale = sum(float((a.double() * b.double()).abs().sum()) for a, b in zip(slopes, direction, strict=True))
        if not abs(_dot(slopes, direction)) <= (1e-6 if forward.double else 1e-3) * (1.0 + scale):
            raise ValueError(
                f"policy: torch's KL divergence of the {name} that it returns has a slope where the two are the same, "
                "as its support depends on parameters; wanted a distribution of fixed support"
            )
        try:
            with torch.no_grad():
                moved = forward(forward.moved(direction, 1e-3))
            kl_divergence(old, moved)
        except NotImplementedError:
            raise ValueError(
                f"policy: torch has no KL divergence of the {name} that it returns once its parameters have moved, as "
                f"they are in its transforms; wanted them in its base distribution, or {_REGISTERED}"
            ) from None


def _check_curvature(
    name: str,
    distribution: Distribution,
    leaves: Sequence[Tensor],
    directions: Sequence[Sequence[Tensor]],
    curvatures: Sequence[float],
) -> None:
    """ValueError where the Hessian of torch's divergence is not the covariance of the score."""
    try:
        with torch.enable_grad():
            log_probs = distribution.log_prob(distribution.sample((_SAMPLES,)))
            weights = torch.zeros_like(log_probs, requires_grad=True)
            pulled = torch.autograd.grad(
                log_probs, leaves, weights, create_graph=True, allow_unused=True, materialize_grads=True
            )
        # J v of all log-probabilities, as the derivative of their pullback.
        squares = [
            float(torch.autograd.grad(pulled, weights, direction, retain_graph=True)[0].double().square().mean(0).sum())
            for direction in directions
        ]
    except (RuntimeError, NotImplementedError, ValueError):
        return  # it does not sample, or not many at once
    for curvature, square in zip(curvatures, squares, strict=True):
        if not 0.75 * square <= curvature <= 1.35 * square:
            raise ValueError(
                f"policy: the Hessian of torch's KL divergence of the {name} that it returns is {curvature:.3g} where "
                f"the covariance of its score is {square:.3g}, so that it is not the Fisher information, {_INSTEAD}"
            )


def _are_followed(
    forward: _Pass,
    known: Family | None,
    distribution: Distribution,
    directions: Sequence[Sequence[Tensor]],
    products: Sequence[Sequence[Tensor]],
    curvatures: Sequence[float],
) -> bool:
    """Whether <u, F v> is that of finite differences, of the coordinates or else of the KL's gradient."""

    def differences(size: float) -> list[float]:
        if known is None:
            slopes = [_slopes(forward, forward.moved(directions[0], sign * size)) for sign in (1.0, -1.0)]
            return [(_dot(direction, slopes[0]) - _dot(direction, slopes[1])) / (2 * size) for direction in directions]
        with torch.no_grad():
            moves = []
            for direction in directions:
                ends = [known.coordinates(forward(forward.moved(direction, sign * size))) for sign in (1.0, -1.0)]
                moves.append([(a - b) / (2 * size) for a, b in zip(*ends, strict=True)])
            weights = known.metric(tuple(part.detach() for part in known.coordinates(distribution)), tuple(moves[0]))
        return [_dot(move, weights) for move in moves]

    near, far = differences(1e-6), differences(4e-6)
    for index, direction in enumerate(directions):
        found = _dot(direction, products[0])
        scale = (abs(curvatures[0] * curvatures[index])) ** 0.5 + abs(near[index]) + 1e-12
        # Where both differences do not agree a corner lies between, and they say nothing.
        if abs(near[index] - far[index]) < 1e-4 * scale < abs(found - near[index]) / 10:
            return False
    return True


def _slopes(forward: _Pass, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Gradient of the sum of KL(old || new) at `parameters`, for each of those that are trained."""
    leaves = {name: value.detach().requires_grad_(name in forward.live) for name, value in parameters.items()}
    with torch.no_grad():
        old = forward(forward.values)
    tensors = [leaves[name] for name in forward.live]

    def slopes() -> list[Tensor]:
        with torch.enable_grad():
            divergence = kl_divergence(old, forward(leaves)).sum()
        return list(torch.autograd.grad(divergence, tensors, allow_unused=True, materialize_grads=True))

    return forward.holding(leaves, slopes)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def _line(error: BaseException) -> str:
    """The first line of what `error` says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
