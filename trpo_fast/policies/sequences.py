"""Compiled recurrent cells in torch: differentiable once, in forward and in reverse mode."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trpo_fast._core.recurrent import Cell


def run_cell(
    cell: Cell, inputs: Tensor, weight: Tensor, bias: Tensor, first: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden states of E sequences over T steps, time-major.

    Parameters
    ----------
    cell : Cell
        Of H units and G gates, and of the tensors' dtype.
    inputs : Tensor, shape (T E, G H)
        W_ih x + b_ih of every step.
    weight, bias : Tensor, shapes (G H, H) and (G H,)
        W_hh and b_hh, as torch.nn.GRUCell and LSTMCell have them.
    first : Tensor, shape (E, S)
        States before the first step, constants.
    starts : bool Tensor, shape (T E,)
        Whether an episode, whose state begins at zero, starts with the step.

    Returns
    -------
    hidden : Tensor, shape (T E, H)
        Differentiable by inputs, weight and bias.
    states : Tensor, shape (T E, S)
        The same with what else the cell's state has; without gradients.
    """
    return cast(tuple[Tensor, Tensor], _CompiledCell.apply(inputs, weight, bias, first, starts, cell))


class _CompiledCell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, first: Tensor, starts: Tensor, cell: Cell
    ) -> tuple[Tensor, Tensor]:
        flags = starts.numpy()
        arrays = [tensor.detach().contiguous().numpy() for tensor in (weight, bias, inputs, first)]
        keep = any(ctx.needs_input_grad) or torch.autograd.forward_ad._current_level >= 0
        states, kept = cell.forward(arrays[0], arrays[1], arrays[2], flags, arrays[3], keep=keep)
        result = torch.from_numpy(states)
        hidden = result[:, : cell.units].clone()
        ctx.cell, ctx.kept, ctx.flags, ctx.sequences = cell, kept, flags, len(first)
        # Saved by torch, which notices where they were written meanwhile.
        ctx.save_for_backward(weight, bias)
        ctx.save_for_forward(weight, bias)
        # States before each step, at which the recurrent weights were used.
        before = torch.cat([first[:, : cell.units].detach(), hidden[: -len(first)]])
        ctx.before = before.masked_fill(starts[:, None], 0)
        ctx.mark_non_differentiable(result)
        return hidden, result

    @staticmethod
    def jvp(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, *_: Any) -> tuple[Tensor, None]:
        parameters = [tensor.detach().contiguous().numpy() for tensor in ctx.saved_tensors]
        zeros = torch.zeros_like(ctx.before[:, :1]).expand(-1, len(parameters[1]))
        recurrent = zeros if weight is None else ctx.before @ weight.T
        if bias is not None:
            recurrent = recurrent + bias
        inputs = zeros if inputs is None else inputs
        tangent = ctx.cell.jvp(
            *parameters,
            ctx.kept,
            ctx.flags,
            inputs.contiguous().numpy(),
            recurrent.contiguous().numpy(),
            ctx.sequences,
        )
        return torch.from_numpy(tangent), None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hidden: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        parameters = [tensor.detach().contiguous().numpy() for tensor in ctx.saved_tensors]
        inputs, recurrent = map(
            torch.from_numpy,
            ctx.cell.vjp(*parameters, ctx.kept, ctx.flags, hidden.contiguous().numpy(), ctx.sequences),
        )
        return inputs, recurrent.T @ ctx.before, recurrent.sum(0), None, None, None


COMPILED_CELL = _CompiledCell.__name__
"""How graphs call it, which can be differentiated once only."""
