"""Which engine serves which policy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trpo_fast._core.library import require_choice
from trpo_fast.policies.mlp import MLPPolicy

from .autograd import AutogradEngine
from .binding import plain_module
from .native import NativeEngine, obstacle_to_native


def make_engine(
    policy: nn.Module,
    engine: str = "auto",
    *,
    observation_shape: Sequence[int] | None = None,
    linearization: str = "auto",
) -> NativeEngine | AutogradEngine:
    """The engine that computes gradient, Fisher products and trial evaluations for `policy`.

    Parameters
    ----------
    policy : torch.nn.Module
        ``forward(observations)`` returns a ``torch.distributions.Distribution`` of batch shape (B,). Its parameters are
        float32 or float64, on one device; on the CPU they become views of one buffer. Frozen parameters take no part in
        the update. Of a compiled module it is the plain one that is served.
    engine : {"auto", "native", "autograd"}
        "auto" takes the compiled engine where it can serve; the result's ``reason`` says why.
    observation_shape : sequence of int, optional
        Shape of one observation as `policy` wants it; batches hold flat rows, which the policy gets as they are
        otherwise.
    linearization : {"auto", "forward", "double_vjp", "double_backward"}
        How the autograd engine computes Fisher products; see `trpo_fast.engines.linearization`.

    Raises
    ------
    ValueError
        `engine` is "native" and the compiled engine cannot serve, which the message explains; or the parameters
        cannot be flattened (see `FlatParameters`), or a module is random or changes itself (dropout, batch
        normalization) and is in training mode.
    TypeError
        `policy` is not a torch module.
    """
    if not isinstance(policy, nn.Module):
        raise TypeError(f"policy: {type(policy).__name__} given; want a torch.nn.Module")
    policy = plain_module(policy)
    require_choice("engine", engine, ("auto", "native", "autograd"))
    if engine == "autograd":
        return AutogradEngine(policy, "asked for", observation_shape=observation_shape, linearization=linearization)
    obstacle = obstacle_to_native(policy)
    if obstacle is None and isinstance(policy, MLPPolicy):
        return NativeEngine(policy)
    if engine == "native":
        raise ValueError(f"engine: the native engine cannot serve this policy: {obstacle}")
    return AutogradEngine(policy, str(obstacle), observation_shape=observation_shape, linearization=linearization)
