"""Values of any torch critic, and their fit, behind the interface of the compiled `ValueKernel`."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpo_fast._core.critic import ValueKernel, fit_error
from trpo_fast._core.library import MAX_LAYERS, permutation
from trpo_fast.policies.flat import flat_parameters
from trpo_fast.policies.mlp import MLPCritic

from .binding import as_observations, as_rows, check_deterministic

_CHUNK = 1024  # rows evaluated at once: bounds the memory that images take, and fixes the bits
_MOST_FAILED = 3  # fits in a row that may fail before training ends by it


def make_value_kernel(
    critic: nn.Module, *, observation_shape: Sequence[int] | None = None
) -> ValueKernel | TorchValueKernel:
    """The compiled kernel for an MLPCritic on the CPU, torch's for every other module.

    Parameters
    ----------
    critic : torch.nn.Module
        ``forward(observations)`` returns values of shape (B,).
    observation_shape : sequence of int, optional
        Shape of one observation as `critic` wants it; flat rows otherwise.
    """
    if type(critic) is MLPCritic and len(critic.layers) <= MAX_LAYERS:
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in critic.modules())
        plain = all(type(layer) is nn.Linear for layer in critic.layers) and not hooked
        if plain and all(p.requires_grad and p.device.type == "cpu" for p in critic.parameters()):
            return ValueKernel(critic.widths, critic.activation, critic.flat.numpy.dtype)
    return TorchValueKernel(critic, observation_shape=observation_shape)


class TorchValueKernel:
    """Mathematics of a torch critic at given parameters, as `trpo_fast._core.critic.ValueKernel` has it for an MLP.

    Works with a copy of the module, so that a fit in a second thread and whoever looks at the module do not meet.

    Parameters
    ----------
    critic : torch.nn.Module
        ``forward(observations)`` returns values of shape (B,); deterministic, and it must not change itself.
    observation_shape : sequence of int, optional
        Shape of one observation as `critic` wants it; flat rows otherwise.

    Attributes
    ----------
    size : int
        n, number of parameters.
    dtype : numpy.dtype
        Of the parameters, and of every array.

    Raises
    ------
    ValueError
        A layer that draws random numbers or changes itself, parameters of several dtypes or devices, all named; or no
        parameter that could be fitted.
    """

    def __init__(self, critic: nn.Module, *, observation_shape: Sequence[int] | None = None) -> None:
        check_deterministic("critic", critic)
        flat = flat_parameters(critic)
        if not any(parameter.requires_grad for parameter in critic.parameters()):
            raise ValueError("critic: every parameter is frozen, wanted one that requires gradients")
        self.size = len(flat)
        self.dtype = flat.numpy.dtype
        self._observation_shape = None if observation_shape is None else tuple(observation_shape)
        self._critic = critic
        self._worker = copy.deepcopy(critic)
        self._device = next(critic.parameters()).device

    def values(self, parameters: NDArray[Any], observations: NDArray[Any]) -> NDArray[Any]:
        """V(s), (B,), of `observations` (B, D), of the parameters' dtype or uint8."""
        self._take_buffers()
        theta = torch.tensor(parameters, device=self._device)
        rows = torch.from_numpy(as_observations(observations, self.dtype))
        with torch.no_grad():
            return torch.cat([self._values(theta, chunk) for chunk in rows.split(_CHUNK)]).cpu().numpy()

    def fit(
        self,
        parameters: NDArray[Any],
        first_moment: NDArray[Any],
        second_moment: NDArray[Any],
        observations: NDArray[Any],
        returns: NDArray[Any],
        *,
        adam_step: int,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        seed: int,
        stream: int,
        first_epoch: int,
        stop: NDArray[Any] | None = None,
        threads: int | None = None,
    ) -> tuple[int, float]:
        """Minibatch Adam on ``mean (V(s) - R)^2``, of the same minibatches as the compiled kernel's.

        Arguments, results and errors are those of `ValueKernel.fit`, which takes an order and reports losses besides;
        `threads` says nothing here, since torch has its own. The three arrays change only at the end.
        """
        check_deterministic("critic", self._critic)
        self._take_buffers()
        theta, m, v = (torch.tensor(array, device=self._device) for array in (parameters, first_moment, second_moment))
        rows, targets = (
            torch.from_numpy(array).to(self._device)
            for array in (as_observations(observations, self.dtype), as_rows("returns", returns, self.dtype))
        )
        frozen = [
            part.new_full((part.numel(),), not part.requires_grad, dtype=torch.bool)
            for part in self._worker.parameters()
        ]
        m[torch.cat(frozen)] = 0.0  # nothing moves on by what it was doing when it was frozen
        loss = math.nan
        for epoch in range(first_epoch, first_epoch + epochs):
            order = torch.from_numpy(permutation(len(rows), seed=seed, stream=stream, step=epoch)).to(self._device)
            squares = 0.0
            for chosen in order.split(batch_size):
                if stop is not None and stop[0]:
                    raise RuntimeError("the value fit was stopped")
                theta.requires_grad_()
                with torch.enable_grad():
                    residuals = self._values(theta, rows[chosen]) - targets[chosen]
                    (gradient,) = torch.autograd.grad(residuals.square().mean(), theta)
                theta = theta.detach()
                squares += float(residuals.detach().double().square().sum())
                # Kingma & Ba 2015, algorithm 1
                adam_step += 1
                m.mul_(beta1).add_(gradient, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                root = v.sqrt().mul_(1 / math.sqrt(1 - beta2**adam_step)).add_(epsilon)
                theta.addcdiv_(m, root, value=-learning_rate / (1 - beta1**adam_step))
            loss = squares / len(rows)
            sound = math.isfinite(loss) and bool(theta.isfinite().all())
            if not (sound and v.isfinite().all()):
                raise fit_error(returns, learning_rate, second_moment=sound)
        for array, tensor in ((parameters, theta), (first_moment, m), (second_moment, v)):
            array[:] = tensor.cpu().numpy()
        return adam_step, loss

    def _values(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Values at the flat parameters `theta` of `rows` (B, D); frozen parameters get no gradient."""
        count = len(rows)
        observations = rows.to(self._device).to(theta.dtype)  # bytes go to the device as bytes
        if self._observation_shape is not None:
            observations = observations.reshape(count, *self._observation_shape)
        named = list(self._worker.named_parameters())
        parts = theta.split([parameter.numel() for _, parameter in named])
        parameters = {
            name: (part if parameter.requires_grad else part.detach()).view(parameter.shape)
            for (name, parameter), part in zip(named, parts, strict=True)
        }
        values = torch.func.functional_call(self._worker, parameters, (observations,))
        if not isinstance(values, Tensor):
            raise TypeError(f"critic: forward returned {type(values).__name__}, wanted a Tensor of values")
        if values.shape != (count,):
            raise ValueError(
                f"critic: forward returned shape {tuple(values.shape)} for {count} observations, wanted ({count},)"
            )
        return values

    def _take_buffers(self) -> None:
        """Buffers may have been edited since; parameters are given with each call."""
        for own, given in zip(self._worker.buffers(), self._critic.buffers(), strict=True):
            own.copy_(given)


class FailedFits:
    """What follows where a fit of the value function would not have stayed finite, and left everything as it was.

    One return that is far too large must not end a training; settings with which no fit succeeds should.

    Attributes
    ----------
    in_a_row : int
        Fits that failed since the last one that did not.
    """

    def __init__(self) -> None:
        self.in_a_row = 0

    def settle(self, error: FloatingPointError | None) -> None:
        """Take the outcome of the latest fit: warn of `error`, or raise it where it is the third in a row."""
        if error is None:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if self.in_a_row >= _MOST_FAILED:
            self.in_a_row = 0
            raise error
        warnings.warn(
            f"{error}; value function and Adam are those before this fit, and training goes on",
            RuntimeWarning,
            stacklevel=4,
        )
