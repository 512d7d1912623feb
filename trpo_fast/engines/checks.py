"""Whether a module of the user's own computes what an update takes it for, found out when an agent is made.

A second forward pass gives the same bits; a row's result does not depend on the other rows; the sequences of a
recurrent module are those of its single steps; derivatives are as `trpo_fast.engines.derivatives` has it. All on a
handful of rows: 8 to 12 ms for an MLP of 64, 64, 30 to 120 ms where M is not known in closed form, 35 ms for a small
LSTM, and 0.15 to 0.2 s for a Nature CNN of 84 x 84 x 4 (one thread of a machine that was busy, after the first check).
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .binding import check_deterministic, checked_distribution, checked_step
from .derivatives import NotFiniteError, check_derivatives
from .probing import calls, clones, distribution_of, first_line, readings, values_of

_SEED = 1
_NUMBERS = 10_000  # in the rows whose derivatives are looked at
_STEPS = 3


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
        mixed, it cannot be differentiated twice as it is computed, its derivatives are finite for none of the rows, or
        the divergence of its distribution is not one whose Hessian is the Fisher information.

    Warns
    -----
    UserWarning
        Its gradients are not the derivatives of what it computes, as where it detaches something on purpose.
    """
    check_deterministic("policy", policy)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        return  # the engine says so
    with _seeded(policy):
        taken = next(_taken("policy", policy, candidates, _as_rows), None)
        if taken is None:
            return
        (rows,), found = taken
        actions = distribution_of(found, (rows,)).sample()
        _check_pure(
            "policy",
            policy,
            rows,
            found,
            lambda result, chosen: readings(checked_distribution(result, len(actions[chosen])), actions[chosen]),
        )
        few = rows[: max(2, _NUMBERS // rows[0].numel())]  # images take their time
        alone = _taken("policy", policy, _single(candidates), _as_rows)
        followed = _derivatives_followed(policy, (few,), alone, linearization)
    if not followed:
        warnings.warn(_NOT_FOLLOWED, stacklevel=2)


_NOT_FOLLOWED = (
    "policy: its gradients are not the derivatives of what it computes: it has a detach(), a no_grad(), or a function "
    "whose backward is another's. Steps follow its gradients, and the line search what it computes"
)


def check_critic(critic: nn.Module, candidates: Sequence[Tensor]) -> None:
    """Refuse a critic as `check_policy` does, for what its values and their gradient show."""
    check_deterministic("critic", critic)
    if not any(parameter.requires_grad for parameter in critic.parameters()):
        return  # its kernel says so
    with _seeded(critic):
        taken = next(_taken("critic", critic, candidates, _as_rows), None)
        if taken is None:
            return
        (rows,), found = taken
        _check_pure("critic", critic, rows, found, lambda result, _: (result,))
        _check_gradient(critic, (rows,), _taken("critic", critic, _single(candidates), _as_rows))


def check_recurrent(what: str, module: Any, candidates: Sequence[Tensor], *, linearization: str = "auto") -> None:
    """Refuse a recurrent module, "policy" or "critic", whose sequences are not those of its single steps.

    Several steps of some environments at once, with a start in the middle, are compared with calls of one step each, by
    which the state is handed on; with another order of the environments; and with other states before the first step,
    which starts an episode. Derivatives of a policy are looked at as `check_policy` does.

    Parameters
    ----------
    what : {"policy", "critic"}
    module : torch.nn.Module
        See `trpo_fast.policies.recurrent.RecurrentModule`.
    candidates : sequence of Tensor, each (B, ...) with B > 1
        Rows as `check_policy` takes them; where it takes none of them there is no check.
    linearization : str
        How the engine computes Fisher products.

    Raises
    ------
    ValueError
        Two passes differ, or one of the above is something else; or what `check_policy` says of derivatives.

    Warns
    -----
    UserWarning
        As `check_policy` does.
    """
    check_deterministic(what, module)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return  # the engine, or the critic's kernel, says so
    followed = True
    with _seeded(module):
        taken = next(_taken(what, module, candidates, _as_sequences), None)
        if taken is None:
            return
        (steps, state, starts), _ = taken
        with torch.no_grad():
            _check_sequences(what, module, steps, state, starts, _sequence(what, module, steps, state, starts))
        few = steps[:_STEPS, :2], state[:2], starts[:_STEPS, :2]
        alone = _taken(what, module, _single(candidates), _as_step)
        if what == "policy":
            followed = _derivatives_followed(module, few, alone, linearization)
        else:
            _check_gradient(module, few, alone)
    if not followed:
        warnings.warn(_NOT_FOLLOWED, stacklevel=2)


def _derivatives_followed(
    policy: nn.Module,
    first: Sequence[Tensor],
    alone: Iterator[tuple[Sequence[Tensor], Any]],
    linearization: str,
) -> bool:
    """`check_derivatives` of `first`, or of the first row with finite ones where those are not."""
    failures = []
    for arguments in itertools.chain([first], (arguments for arguments, _ in alone)):
        try:
            return check_derivatives(policy, arguments, linearization)
        except NotFiniteError as error:
            failures.append(f" ({error})" * bool(str(error)))
    raise ValueError(_not_finite("policy", failures[0], len(failures) - 1))


def _check_gradient(critic: nn.Module, first: Sequence[Tensor], alone: Iterator[tuple[Sequence[Tensor], Any]]) -> None:
    """ValueError where values have no gradient, or one that is finite neither for `first` nor for any row."""
    leaves = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    tried = 0
    for tried, arguments in enumerate(itertools.chain([first], (arguments for arguments, _ in alone))):  # noqa: B007
        with torch.enable_grad():
            result = critic(*clones(arguments))
            values = result if len(arguments) == 1 else result[0]
            if not values.requires_grad:
                raise ValueError(
                    "critic: nothing connects its values to its parameters; want a forward without torch.no_grad() "
                    "and detach()"
                )
            gradient = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
        if all(part is None or part.isfinite().all() for part in gradient):
            return
    raise ValueError(_not_finite("critic", "", tried))


def _not_finite(what: str, words: str, count: int) -> str:
    return (
        f"{what}: its derivatives are not finite{words} for any of the {count} rows of observations that were made up "
        "to try it, though what it returns is; want finite ones: sqrt, norm, log and divisions kept away from 0, "
        "before a torch.where, too"
    )


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
    return [part.reshape(*shape, *part.shape[1:]) for part in readings(distribution, actions)], after, actions


def _check_sequences(
    what: str,
    module: Any,
    steps: Tensor,
    state: Tensor,
    starts: Tensor,
    found: tuple[list[Tensor], Tensor, Tensor | None],
) -> None:
    first, _, actions = found
    close = 2e-3 if steps.dtype == torch.float32 else 1e-7
    by_step = None if actions is None else actions.reshape(*starts.shape, *actions.shape[1:])

    def again(order: Tensor | slice = slice(None), before: Tensor | None = None) -> list[Tensor]:
        own = None if by_step is None else by_step[:, order].flatten(0, 1)
        own_state = state if before is None else before
        return _sequence(what, module, steps[:, order], own_state[order], starts[:, order], own)[0]

    def differ(others: Sequence[Tensor], order: Tensor | slice = slice(None), tolerance: float = close) -> bool:
        return not all(_same(a[:, order], b, tolerance) for a, b in zip(first, others, strict=True))

    if differ(again(), tolerance=0.0 if steps.device.type == "cpu" else 1e-4):
        raise ValueError(
            f"{what}: two forward passes of the same sequences differ; want one that draws no random numbers and "
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
            f"{what}: what was before an episode's start is not forgotten; want initial_state wherever "
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
            "returned; want a state with all that is remembered, rows in the order t E + e, and episode_starts "
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
    what: str,
    module: Any,
    candidates: Iterable[Tensor],
    arguments_of: Callable[[Any, Tensor], tuple[Tensor, ...]],
) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
    """Arguments that `module` takes, and its finite results."""
    device = next(module.parameters()).device
    for rows in candidates:
        try:
            with torch.no_grad():
                arguments = arguments_of(module, rows.to(device))
                result = module(*clones(arguments))
                if what == "policy":
                    found = values_of(distribution_of(result, arguments))
                else:
                    found = (result if len(arguments) == 1 else result[0],)
                finite = all(value.isfinite().all() for value in found)
        except Exception:  # whatever a module of anybody's raises for rows that are none of its environment's
            continue
        if finite:
            yield arguments, result


def _single(candidates: Iterable[Tensor]) -> Iterator[Tensor]:
    return (row[None] for rows in candidates for row in rows)


def _as_rows(_: nn.Module, rows: Tensor) -> tuple[Tensor, ...]:
    return (rows,)


def _as_sequences(module: Any, rows: Tensor) -> tuple[Tensor, ...]:
    """Of three environments, with a start in the middle of one, and a constant state."""
    steps = torch.stack([rows, rows.flip(0), rows.roll(1, 0)], 1)  # (T, E, ...)
    starts = torch.zeros(steps.shape[:2], dtype=torch.bool, device=rows.device)
    starts[0], starts[len(rows) // 2, 1] = True, True
    return steps, module.initial_state(3).detach(), starts


def _as_step(module: Any, row: Tensor) -> tuple[Tensor, ...]:
    return row[None], module.initial_state(1).detach(), torch.ones(1, 1, dtype=torch.bool, device=row.device)


def _check_pure(
    what: str,
    module: nn.Module,
    rows: Tensor,
    found: Any,
    parts_of: Callable[[Any, slice | Tensor], Sequence[Tensor]],
) -> None:
    """ValueError where `found` of `rows` is not what comes again, backwards, and of a row alone."""
    everything = slice(None)
    with torch.no_grad():
        first, second = (parts_of(result, everything) for result in (found, module(rows.clone())))
        exact = rows.device.type == "cpu"
        if not all(_same(a, b, 0.0 if exact else 1e-4) for a, b in zip(first, second, strict=True)):
            culprit = _culprit(module, rows, rows, everything)
            raise ValueError(
                f"{what}: two forward passes of the same rows differ, and {culprit} makes the difference; want one "
                f"that draws no random numbers and keeps no state between calls: {what}.eval(), or another layer"
            )
        backwards = torch.arange(len(rows) - 1, -1, -1, device=rows.device)
        for chosen in (backwards, backwards[:1]):
            try:
                apart = parts_of(module(rows[chosen]), chosen)
            except Exception as error:
                raise ValueError(
                    f"{what}: forward takes {len(rows)} rows and fails for {len(chosen)}: {first_line(error)}"
                ) from error
            # Kernels for few rows round in another way than those for many.
            close = 2e-3 if rows.dtype == torch.float32 else 1e-7
            if not all(_same(a[chosen], b, close) for a, b in zip(first, apart, strict=True)):
                culprit = _culprit(module, rows, rows[chosen], chosen)
                raise ValueError(
                    f"{what}: a row's result depends on the other rows of the batch, and {culprit} mixes them; want "
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
    for one, other in zip(calls(module, (rows,)), calls(module, (others,)), strict=False):
        (name, layer, inputs, outputs), (_, _, own_inputs, own_outputs) = one, other
        pairs = [
            [_same(part_of(a).double(), b.double(), tolerance) for a, b in zip(left, right, strict=False)]
            for left, right in ((inputs, own_inputs), (outputs, own_outputs))
        ]
        if name and inputs and all(pairs[0]) and not all(pairs[1]):
            return f"{name!r}, a {type(layer).__name__},"
    return f"the forward of {type(module).__name__} itself"
