"""Checks that both engines make when a batch or an action space meets a policy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.spectral_norm import SpectralNorm

from trpo_fast.gymnasium_spaces import action_layout
from trpo_fast.policies.flat import FlatBuffer
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.rollout.batch import Batch
from trpo_fast.spaces import ActionLayout


def checked_parameters(flat: FlatBuffer, expected: NDArray[Any] | None) -> NDArray[Any]:
    """The live buffer, with the views made again where something replaced them.

    Raises ValueError when it no longer is `expected` (None: anything goes), or when a parameter, which it names, is not
    finite.
    """
    if not flat.is_intact():
        flat.restore()
    buffer = flat.numpy
    if expected is not None and buffer is not expected:
        raise ValueError(
            "policy: its parameters changed dtype, size or memory since the engine was made; make another engine"
        )
    flat.require_finite("policy")
    return buffer


def changed_call(module: nn.Module) -> str | None:
    """What a call of this very module does that its class does not say; None where that is nothing."""
    if "forward" in vars(module):
        return "has a forward of its own"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    return None


def require_sequences_fit(batch: Batch, recurrent: bool) -> None:
    """ValueError where a batch has sequences and the policy is not recurrent, or the other way round."""
    if (batch.sequences is not None) != recurrent:
        wanted = "some, of a recurrent policy" if recurrent else "none, the policy is not recurrent"
        raise ValueError(f"batch: {'sequences' if batch.sequences else 'no sequences'} given; want {wanted}")


def check_deterministic(what: str, module: nn.Module) -> None:
    """ValueError naming a layer of `module` whose outputs, in its present mode, are not a function of each row.

    Or one that the engines cannot serve whatever its outputs are: of sparse gradients, without parameters yet, or
    compiled to TorchScript.
    """
    for name, part in module.named_modules():
        kind = type(part).__name__
        where = f"{name!r}, a {kind}" if name else f"it is a {kind}"
        for parameter_name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"{what}: {where}, has no {parameter_name} before its first forward pass; want one pass of a row "
                    f"of observations before it is given"
                )
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(f"{what}: {where}, compiled to TorchScript; want the module that it was made from")
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            raise ValueError(f"{what}: {where}, has sparse gradients; want sparse=False")
        fault, instead = None, ""
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or not part.track_running_stats):
            fault, instead = "mixes the rows of a batch", "LayerNorm or GroupNorm in its place"
        elif part.training and isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            fault, instead = "changes its statistics", "track_running_stats=False"
        elif part.training and (
            (isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0)
            or (isinstance(part, nn.RNNBase | nn.MultiheadAttention) and part.dropout > 0)
            or isinstance(part, nn.RReLU)
        ):
            fault, instead = "draws random numbers", "no such layer"
        elif part.training and any(
            isinstance(one, torch.nn.utils.parametrizations._SpectralNorm | SpectralNorm)
            for one in (part, *part._forward_pre_hooks.values())
        ):
            fault, instead = "iterates at every pass", "its weights as they are"
        if fault is not None:
            mode = "training" if part.training else "evaluation"
            # In evaluation mode it is the layer itself that has to go.
            ways = [f"{what}.eval() before it is given"] * part.training + [instead]
            raise ValueError(f"{what}: {where} in {mode} mode, {fault}; want {', or '.join(ways)}")


def plain_module(module: nn.Module) -> nn.Module:
    """`module` as it was before ``torch.compile``; its parts are put back, too.

    A compiled module has no second derivatives, and "_orig_mod." in the names of its parameters.
    """
    dynamo = sys.modules.get("torch._dynamo")  # loaded where anything was compiled
    if dynamo is None:
        return module
    wrapper = dynamo.eval_frame.OptimizedModule
    while isinstance(module, wrapper):
        module = module._orig_mod
    for part in module.modules():
        if part._compiled_call_impl is not None:  # of part.compile()
            part._compiled_call_impl = None
        for name, child in part._modules.items():
            while isinstance(child, wrapper):
                child = child._orig_mod
            part._modules[name] = child
    return module


def checked_distribution(result: object, count: int) -> Distribution:
    """`result` of a policy for `count` observations; an error when it is not one distribution for each of them."""
    if not isinstance(result, Distribution):
        raise TypeError(f"policy: forward returned {type(result).__name__}; want a torch.distributions.Distribution")
    if tuple(result.batch_shape) != (count,):
        raise ValueError(
            f"policy: forward returned a distribution of batch shape {tuple(result.batch_shape)} for {count} "
            f"observations; want ({count},); torch.distributions.Independent makes action dimensions one event"
        )
    return result


def checked_step(result: object, what: str, shape: tuple[int, ...]) -> tuple[Any, Tensor]:
    """`result` of a recurrent module's forward, which is to be a pair with a state of `shape`."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{what}: forward returned {type(result).__name__}; want a pair: the result and the new state")
    state = result[1]
    if not isinstance(state, Tensor) or tuple(state.shape) != shape:
        given = f"of shape {tuple(state.shape)}" if isinstance(state, Tensor) else f"a {type(state).__name__}"
        raise ValueError(f"{what}: forward returned a state {given}; want a Tensor of shape {shape}")
    return result[0], state.detach()


def as_observations(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`as_rows` of observations, of which bytes stay bytes: torch converts them where it uses them."""
    return as_rows("observations", array, array.dtype if array.dtype == np.uint8 else dtype)


def as_rows(name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`array` as it is where it has `dtype` and is C-contiguous, otherwise converted; floats never become integers."""
    if dtype.kind == "i" and np.asarray(array).dtype.kind == "f":
        raise ValueError(f"{name}: dtype {array.dtype} given; want integers for a policy over discrete actions")
    return np.ascontiguousarray(array, dtype)


def checked_action_layout(space: spaces.Space[Any], policy: nn.Module, action_map: str) -> ActionLayout:
    """The layout of `space`; ValueError when it is not supported, or not what an MLPPolicy was made for."""
    layout = action_layout(space, action_map)
    if isinstance(policy, MLPPolicy):
        own = action_layout(policy.action_space)
        if _what_kernels_know(own) != _what_kernels_know(layout):
            raise ValueError(
                f"action_space: {space} given; want {policy.action_space}, as this {policy.distribution} policy has"
            )
        if policy.squash and layout.scale is not None:
            raise ValueError(
                f"action_map: {action_map!r} given; want 'clip' for a policy that squashes its actions into the box"
            )
    return layout


def _what_kernels_know(layout: ActionLayout) -> tuple[Any, ...]:
    return layout.distribution, layout.outputs, layout.kernel_arguments
