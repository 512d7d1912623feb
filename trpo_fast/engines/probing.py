"""What a pass of a module of the user's own shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast.policies.distributions import family_of

from .binding import checked_distribution, checked_step


def distribution_of(result: Any, arguments: Sequence[Tensor]) -> Distribution:
    """What a policy returned for `arguments`: rows, or observations, state and starts of a recurrent one."""
    if len(arguments) == 1:
        return checked_distribution(result, len(arguments[0]))
    _, state, starts = arguments
    found, _ = checked_step(result, "policy", tuple(state.shape))
    return checked_distribution(found, starts.numel())


def values_of(distribution: Distribution) -> tuple[Tensor, ...]:
    """`readings` of what it draws."""
    return readings(distribution, distribution.sample())


def readings(distribution: Distribution, actions: Tensor) -> tuple[Tensor, ...]:
    """What says which distribution it is: its coordinates, or the log-probabilities of `actions`."""
    family = family_of(distribution)
    return (distribution.log_prob(actions),) if family is None else family.coordinates(distribution)


def clones(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """For a module that writes to what it is given."""
    return tuple(tensor.clone() for tensor in tensors)


def calls(module: nn.Module, arguments: Sequence[Tensor]) -> list[tuple[str, nn.Module, list[Tensor], list[Tensor]]]:
    """Name, layer, inputs and outputs of every layer that a forward pass calls, as it ends: innermost first."""
    found: list[tuple[str, nn.Module, list[Tensor], list[Tensor]]] = []

    def watch(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, inputs: Any, outputs: Any) -> None:
            found.append((name, layer, list(tensors_in(inputs)), list(tensors_in(outputs))))

        return note

    handles = [part.register_forward_hook(watch(name)) for name, part in module.named_modules()]
    try:
        with torch.no_grad():
            module(*clones(arguments))
    finally:
        for handle in handles:
            handle.remove()
    return found


def tensors_in(value: Any, *, detached: bool = True) -> Iterator[Tensor]:
    """Those that are not complex, in tuples and lists, too; detached ones are copies."""
    if isinstance(value, Tensor) and not value.is_complex():
        yield value.detach().clone() if detached else value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part, detached=detached)


def first_line(error: BaseException) -> str:
    """Of what `error` says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
