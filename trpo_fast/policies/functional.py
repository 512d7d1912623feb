"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def call_with(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any] | None = None,
) -> Any:
    """``module(*arguments, **options)`` with `tensors` in the place of its parameters and buffers of these names.

    As ``torch.func.functional_call``, whose `tie_weights` leaves the new tensors behind in a part that has two names,
    and the part untrained from then on. A name in `tensors` stands for all places where its tensor is used.
    """
    named = (*module.named_parameters(), *module.named_buffers())
    wanted = {id(own): tensors[name] for name, own in named if name in tensors}
    places: dict[str, Tensor] = {}
    for prefix, part in module.named_modules():  # each once, whatever its names
        for name, own in (*part._parameters.items(), *part._buffers.items()):
            if own is not None and id(own) in wanted:
                places[f"{prefix}.{name}" if prefix else name] = wanted[id(own)]
    return torch.func.functional_call(module, places, arguments, dict(options or {}), tie_weights=False)
