"""The value function's half of an update, with the minibatches and the optimizer state of sb3-contrib's TRPO."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from trpo_fast._core.critic import fit_error

from .networks import CompiledCritic

# Of an Adam's group, what the kernel does not do.
_UNSERVED = ("amsgrad", "maximize", "capturable", "differentiable", "fused")
# Of a rollout buffer, what decides which minibatches there are and what is in them.
_BUFFER_METHODS = ("get", "_get_samples", "swap_and_flatten", "to_torch")


def fit_by_torch(
    policy: ActorCriticPolicy, buffer: RolloutBuffer, *, epochs: int, batch_size: int, actor: Iterable[nn.Parameter]
) -> list[float]:
    """`epochs` passes of the policy's own optimizer over minibatches of `buffer`; the loss of each as it was met.

    The parameters of the `actor` take no part, also where the value function shares them. FloatingPointError where a
    parameter or what the optimizer keeps would have become non-finite: both are then what they were before.
    """
    actor = set(actor)
    optimizer, losses = policy.optimizer, []
    fitted = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad and p not in actor]
    before = [(p.detach().clone(), copy.deepcopy(optimizer.state.get(p))) for p in fitted]
    for _ in range(epochs):
        for data in buffer.get(batch_size):
            loss = F.mse_loss(data.returns, policy.predict_values(data.observations).flatten())
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            for parameter in actor:
                parameter.grad = None
            optimizer.step()
    sound = all(bool(p.isfinite().all()) for p in fitted)
    if sound and all(_is_finite(optimizer.state.get(p)) for p in fitted):
        return losses
    for parameter, (values, state) in zip(fitted, before, strict=True):
        parameter.grad = None
        with torch.no_grad():
            parameter.copy_(values)
        if state is None:
            optimizer.state.pop(parameter, None)
        else:
            optimizer.state[parameter] = state
    raise fit_error(buffer.returns, optimizer.param_groups[0]["lr"], second_moment=sound)


def _is_finite(state: dict[str, Any] | None) -> bool:
    """Whether every number that an optimizer keeps for a parameter is finite."""
    return all(bool(value.isfinite().all()) for value in (state or {}).values() if isinstance(value, Tensor))


def obstacle_to_compiled_fit(kernels: CompiledCritic, optimizer: Optimizer, buffer: RolloutBuffer) -> str | None:
    """Why `fit_compiled` would not be what `fit_by_torch` is, naming the culprit; None where it is."""
    kind = DictRolloutBuffer if isinstance(buffer, DictRolloutBuffer) else RolloutBuffer
    for method in _BUFFER_METHODS:
        standard = getattr(kind, method, None)
        if getattr(type(buffer), method, None) is not standard or method in vars(buffer):
            return f"{type(buffer).__name__} has its own {method}"
    if type(optimizer) not in (Adam, AdamW):
        return f"the optimizer is {type(optimizer).__name__}, not Adam or AdamW"
    if "step" in vars(optimizer) or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "the optimizer has a hook on its step"
    if _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        return "torch has a hook on every optimizer"
    group = _group(optimizer, kernels.critic_tensors)
    if group is None:
        return "the optimizer does not have all of the value function in one parameter group"
    for setting in _UNSERVED:
        if group.get(setting):
            return f"the optimizer has {setting}={group[setting]}"
    numbers = {name: group[name] for name in ("lr", "eps", "weight_decay")}
    numbers |= {"beta1": group["betas"][0], "beta2": group["betas"][1]}
    for setting, value in numbers.items():
        if not isinstance(value, float | int):
            return f"the optimizer has {setting}={value!r}, not a number"
    # torch before 2.7 has no such setting: AdamW is a class of its own.
    if group["weight_decay"] and not group.get("decoupled_weight_decay", type(optimizer) is AdamW):
        return f"the optimizer has weight_decay={group['weight_decay']} and is not AdamW"
    if not group["eps"] > 0:
        return f"the optimizer has eps={group['eps']}"
    steps = {float(optimizer.state[p]["step"]) if optimizer.state.get(p) else None for p in kernels.critic_tensors}
    if len(steps) > 1:
        return "the optimizer took other numbers of steps with some parameters of the value function than with others"
    return None


def fit_compiled(
    kernels: CompiledCritic, optimizer: Optimizer, buffer: RolloutBuffer, *, epochs: int, batch_size: int | None
) -> NDArray[np.float64]:
    """As `fit_by_torch`, in one compiled call: the same minibatches, drawn from NumPy's global generator.

    Parameters
    ----------
    kernels : CompiledCritic
        Whose critic is fitted in place.
    optimizer : Optimizer
        One that `obstacle_to_compiled_fit` has nothing against; its state is read and kept true.
    buffer : RolloutBuffer
        Full, and flattened by ``get``.

    Returns
    -------
    float64, shape (epochs, ceil(B / batch_size))
        Mean squared error of each minibatch as it was met.

    Raises
    ------
    FloatingPointError
        A loss or a parameter would have become non-finite; critic and optimizer are what they were before.
    """
    tensors = kernels.critic_tensors
    group = _group(optimizer, tensors)
    assert group is not None
    given: Any = buffer.observations
    observations = kernels.rows(
        {key: _on_cpu(array) for key, array in given.items()} if isinstance(given, dict) else _on_cpu(given)
    )
    returns = np.ascontiguousarray(buffer.returns.reshape(-1), np.float32)
    count = len(returns)
    batch_size = count if batch_size is None else min(batch_size, count)
    order = np.empty((epochs, count), np.int64)
    for epoch in order:
        epoch[:] = np.random.permutation(count)
    losses = np.empty((epochs, -(-count // batch_size)))
    step, first_moment, second_moment = _read_state(optimizer, tensors)
    step, _ = kernels.critic.fit(
        kernels.critic_parameters,
        first_moment.numpy(),
        second_moment.numpy(),
        observations,
        returns,
        adam_step=step,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        epsilon=group["eps"],
        weight_decay=group["weight_decay"],
        order=order,
        losses=losses,
    )
    kernels.bump_versions()
    _write_state(optimizer, tensors, step, first_moment, second_moment)
    return losses


def _on_cpu(array: Any) -> Tensor:
    return torch.as_tensor(array, device="cpu")


def _group(optimizer: Optimizer, tensors: Sequence[Tensor]) -> dict[str, Any] | None:
    """The parameter group that holds all of `tensors`."""
    wanted = set(tensors)
    return next((group for group in optimizer.param_groups if wanted <= set(group["params"])), None)


def _read_state(optimizer: Optimizer, tensors: Sequence[Tensor]) -> tuple[int, Tensor, Tensor]:
    """Steps taken, and copies of Adam's m and v, flat; zeros before its first step."""
    states = [optimizer.state[tensor] for tensor in tensors if optimizer.state.get(tensor)]
    if not states:
        size = sum(tensor.numel() for tensor in tensors)
        return 0, tensors[0].new_zeros(size), tensors[0].new_zeros(size)
    m, v = (torch.cat([state[key].reshape(-1) for state in states]) for key in ("exp_avg", "exp_avg_sq"))
    return int(states[0]["step"]), m, v


def _write_state(
    optimizer: Optimizer, tensors: Sequence[Tensor], step: int, first_moment: Tensor, second_moment: Tensor
) -> None:
    """Leave in `optimizer` what its own steps would have left there."""
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, m, v in zip(tensors, first_moment.split(sizes), second_moment.split(sizes), strict=True):
        state = optimizer.state[tensor]
        if not state:
            # Made as torch makes it; a step is a float32 on the CPU.
            state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(tensor), torch.zeros_like(tensor)
        state["step"].fill_(step)
        state["exp_avg"].copy_(m.view_as(tensor))
        state["exp_avg_sq"].copy_(v.view_as(tensor))
