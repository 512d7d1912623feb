"""Acting with recurrent policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast._core.library import MAX_LAYERS, MAX_OUTPUTS
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.recurrent import CellActor
from trpo_fast.gymnasium_spaces import action_layout
from trpo_fast.policies.recurrent import RecurrentPolicy
from trpo_fast.recurrence import CELL_PARAMETERS

from .actor import TorchActor
from .binding import changed_call


def obstacle_to_cell_actor(policy: nn.Module) -> str | None:
    """Why compiled kernels cannot act with `policy`, naming the culprit; None where they can."""
    if not isinstance(policy, RecurrentPolicy) or type(policy).forward is not RecurrentPolicy.forward:
        return f"{type(policy).__name__} has its own forward"
    if policy.widths[-1] > MAX_OUTPUTS:
        return f"{type(policy).__name__} has {policy.widths[-1]:,} outputs, more than {MAX_OUTPUTS:,}"
    if len(policy.layers) > MAX_LAYERS:
        return f"{type(policy).__name__} has {len(policy.layers)} layers, more than {MAX_LAYERS}"
    for name, module in policy.named_modules():
        plain = module in (policy, policy.layers) or type(module) in (nn.Linear, nn.GRUCell, nn.LSTMCell)
        if not plain or changed_call(module):
            return f"{name or type(policy).__name__!r} is not as it was made"
    names = [name for name, _ in policy.named_parameters()]
    expected = ["log_std"] if action_layout(policy.action_space).log_std_size else []
    expected += [f"layers.{i}.{part}" for i in range(len(policy.layers)) for part in ("weight", "bias")]
    expected += [f"cell.{name}" for name in CELL_PARAMETERS]
    devices = {parameter.device.type for parameter in policy.parameters()}
    return None if names == expected and devices == {"cpu"} else "its parameters are not as they were made"


def cell_actor(policy: RecurrentPolicy, parameters: NDArray[Any], **options: Any) -> CellActor:
    """The compiled actor of `policy`, whose flat buffer `parameters` is."""
    arguments = policy.distribution, parameters.dtype, *action_layout(policy.action_space).kernel_arguments
    head = PolicyKernel(policy.widths, policy.activation, *arguments)
    parts, offset = [], head.size
    for name in CELL_PARAMETERS:
        shape = tuple(getattr(policy.cell, name).shape)
        size = int(np.prod(shape))
        parts.append(parameters[offset : offset + size].reshape(shape))
        offset += size
    return CellActor(policy.kind, parts, head, parameters[: head.size], **options)


class TorchRecurrentActor(TorchActor):
    """Acts with any recurrent torch module, as `trpo_fast._core.recurrent.CellActor` does.

    Parameters
    ----------
    step : callable
        ``step(observations, state, episode_starts)``, flat observations (E, D), gives a distribution of batch shape
        (E,) and the new state.
    policy : torch.nn.Module
        Its `initial_state` is asked.
    dtype, device, options
        Of `TorchActor`.

    Attributes
    ----------
    state, episode_starts
        As `CellActor` has them.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor, Tensor], tuple[Distribution, Tensor]],
        policy: Any,
        dtype: np.dtype[Any],
        *,
        device: torch.device,
        **options: Any,
    ) -> None:
        super().__init__(self._stepped, dtype, device=device, **options)
        self._step, self._policy = step, policy
        self.begin(1)

    def begin(self, count: int) -> None:
        """Let `count` rows start an episode at the next call."""
        with torch.no_grad():
            self.state = np.array(self._policy.initial_state(count).cpu().numpy())
        self.episode_starts = np.ones(count, np.bool_)

    def _stepped(self, observations: Tensor) -> Distribution:
        state, starts = (
            torch.from_numpy(np.array(array)).to(self._device) for array in (self.state, self.episode_starts)
        )
        found, after = self._step(observations, state, starts)
        self.state = np.array(after.cpu().numpy())
        return found
