"""Values of any torch critic, and their fit, behind the interface of the compiled `ValueKernel`."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpo_fast._core.critic import ValueKernel, fit_error
from trpo_fast._core.library import MAX_LAYERS, permutation
from trpo_fast.policies.flat import flat_parameters
from trpo_fast.policies.functional import call_with
from trpo_fast.policies.mlp import MLPCritic
from trpo_fast.policies.recurrent import RecurrentCritic, is_recurrent

from .binding import as_observations, as_rows, changed_call, check_deterministic, checked_step

if TYPE_CHECKING:
    from trpo_fast.rollout.batch import CriticSequences

_PIECES = 16  # of a minibatch, at least
_PIECE = 32  # steps of a sequence that a recurrent critic is fitted to at once
_CHUNK = 1024  # rows evaluated at once: bounds the memory that images take, and fixes the bits
_MOST_FAILED = 3  # fits in a row that may fail before training ends by it


def make_value_kernel(
    critic: nn.Module, *, observation_shape: Sequence[int] | None = None
) -> ValueKernel | TorchValueKernel:
    """The compiled kernel for an MLPCritic on the CPU, torch's for every other module.

    Parameters
    ----------
    critic : torch.nn.Module
        ``forward(observations)`` returns values of shape (B,); or a recurrent one, see
        `trpo_fast.policies.recurrent.RecurrentModule`.
    observation_shape : sequence of int, optional
        Shape of one observation as `critic` wants it; flat rows otherwise.
    """
    if type(critic) is MLPCritic and len(critic.layers) <= MAX_LAYERS:
        plain = all(type(layer) is nn.Linear for layer in critic.layers)
        plain &= not any(changed_call(part) for part in critic.modules())
        if plain and all(p.requires_grad and p.device.type == "cpu" for p in critic.parameters()):
            return ValueKernel(critic.widths, critic.activation, critic.flat.numpy.dtype)
    kernel = SequenceValueKernel if is_recurrent(critic) else TorchValueKernel
    return kernel(critic, observation_shape=observation_shape)


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
            raise ValueError("critic: every parameter is frozen; want one that requires gradients")
        self.size = len(flat)
        self.dtype = flat.numpy.dtype
        self._observation_shape = None if observation_shape is None else tuple(observation_shape)
        self._critic = critic
        self._worker: Any = copy.deepcopy(critic)
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
        targets = torch.from_numpy(as_rows("returns", returns, self.dtype)).to(self._device)
        data = self._data(observations)
        frozen = [
            part.new_full((part.numel(),), not part.requires_grad, dtype=torch.bool)
            for part in self._worker.parameters()
        ]
        m[torch.cat(frozen)] = 0.0  # nothing moves on by what it was doing when it was frozen
        loss = math.nan
        for epoch in range(first_epoch, first_epoch + epochs):
            order = torch.from_numpy(permutation(data.items, seed=seed, stream=stream, step=epoch)).to(self._device)
            squares, count = 0.0, 0
            for chosen in order.split(data.at_once(batch_size)):
                if stop is not None and stop[0]:
                    raise RuntimeError("the value fit was stopped")
                theta = theta.detach().requires_grad_()
                with torch.enable_grad():
                    residuals = self._residuals(theta, data, targets, chosen)
                    if not len(residuals):  # pieces without samples
                        theta = theta.detach()
                        continue
                    (gradient,) = torch.autograd.grad(residuals.square().mean(), theta)
                theta = theta.detach()
                squares += float(residuals.detach().double().square().sum())
                count += len(residuals)
                # Kingma & Ba 2015, algorithm 1
                adam_step += 1
                m.mul_(beta1).add_(gradient, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                root = v.sqrt().mul_(1 / math.sqrt(1 - beta2**adam_step)).add_(epsilon)
                theta.addcdiv_(m, root, value=-learning_rate / (1 - beta1**adam_step))
            loss = squares / count
            sound = math.isfinite(loss) and bool(theta.isfinite().all())
            if not (sound and v.isfinite().all()):
                raise fit_error(returns, learning_rate, second_moment=sound)
        for array, tensor in ((parameters, theta), (first_moment, m), (second_moment, v)):
            array[:] = tensor.cpu().numpy()
        return adam_step, loss

    def _data(self, observations: Any) -> _Data:
        rows = torch.from_numpy(as_observations(observations, self.dtype)).to(self._device)
        return _Data(rows, len(rows), 1)

    def _residuals(self, theta: Tensor, data: Any, targets: Tensor, chosen: Tensor) -> Tensor:
        """V(s) - R of the rows `chosen`."""
        return self._values(theta, data.rows[chosen]) - targets[chosen]

    def _values(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Values at the flat parameters `theta` of `rows` (B, D); frozen parameters get no gradient."""
        return self._checked_values(self._called(theta, self._shaped(theta, rows)), len(rows))

    def _shaped(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Rows (B, D) as the critic wants its observations."""
        # Bytes go to the device as bytes; a copy, as a critic may write to what it is given.
        observations = rows.to(self._device).to(theta.dtype, copy=True)
        return observations if self._observation_shape is None else observations.reshape(-1, *self._observation_shape)

    def _called(self, theta: Tensor, *arguments: Tensor, **options: bool) -> Any:
        named = list(self._worker.named_parameters())
        parts = theta.split([parameter.numel() for _, parameter in named])
        parameters = {
            name: (part if parameter.requires_grad else part.detach()).view(parameter.shape)
            for (name, parameter), part in zip(named, parts, strict=True)
        }
        return call_with(self._worker, parameters, arguments, options)

    @staticmethod
    def _checked_values(values: Any, count: int) -> Tensor:
        if not isinstance(values, Tensor):
            raise TypeError(f"critic: forward returned {type(values).__name__}; want a Tensor of values")
        if values.shape != (count,):
            raise ValueError(
                f"critic: forward returned shape {tuple(values.shape)} for {count} observations; want ({count},)"
            )
        return values

    def _take_buffers(self) -> None:
        """Buffers may have been edited since; parameters are given with each call."""
        for own, given in zip(self._worker.buffers(), self._critic.buffers(), strict=True):
            own.copy_(given)


class _Data(NamedTuple):
    """What a fit chooses from: `items` rows, or pieces of `length` rows each."""

    rows: Tensor
    items: int
    length: int
    starts: Tensor | None = None  # (T, E), and of pieces alone, as the others
    samples: Tensor | None = None  # (T E,) bool
    targets: Tensor | None = None  # (T E,) where among the samples a row is
    states: Tensor | None = None  # (T, E, S) before each step

    def at_once(self, batch_size: int) -> int:
        """Rows or pieces of a minibatch: some pieces, as the samples of one tell little more than each other."""
        return batch_size if self.length == 1 else max(_PIECES, batch_size // self.length)


class SequenceValueKernel(TorchValueKernel):
    """The same of a recurrent critic, whose observations are `CriticSequences`.

    A fit goes over pieces of the sequences, of 32 steps or, in a shorter rollout, of all, each from the state that the
    critic had there when the values were computed: truncated backpropagation through time, with stored states as in
    Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", ICLR 2019. A minibatch
    has as many pieces as there are whole ones in `batch_size` samples, and 16 at least.

    Attributes
    ----------
    state : ndarray (E, S) or None
        Of the critic after the latest rollout whose values were asked for; the next one's begin with it, the first
        one's with the critic's `initial_state`, also in the middle of an episode that a warm-up began.
    """

    def __init__(self, critic: nn.Module, *, observation_shape: Sequence[int] | None = None) -> None:
        super().__init__(critic, observation_shape=observation_shape)
        self.state: NDArray[Any] | None = None
        self._states: Tensor | None = None

    @property
    def state_items(self) -> int:
        """S, numbers in the state of one sequence."""
        return int(self._worker.initial_state(1).shape[1])

    def take_over(self, other: SequenceValueKernel) -> None:
        """Go on where a kernel of the same critic stopped."""
        self.state, self._states = other.state, other._states

    def values(self, parameters: NDArray[Any], observations: Any) -> NDArray[Any]:
        """V of every row and of every other observation, (T E + E + F,)."""
        sequences: CriticSequences = observations
        self._take_buffers()
        theta = torch.tensor(parameters, device=self._device)
        steps, count = sequences.starts.shape
        with torch.no_grad():
            initial = self._worker.initial_state(count)
            state = initial
            if self.state is not None and self.state.shape == tuple(initial.shape):
                state = torch.from_numpy(self.state).to(initial)
            values, after = self._values_and_states(theta, sequences, state)
            self._states = torch.cat([state[None], after[:-1]])
            self.state = np.array(after[-1].cpu().numpy())
            # Each other observation is one step of a sequence by itself.
            rows = torch.from_numpy(sequences.final_rows)
            before = torch.cat([after[-1], after.reshape(steps * count, -1)[rows.to(after.device)]])
            others = self._shaped(theta, torch.from_numpy(as_observations(sequences.others, self.dtype)))
            starts = torch.zeros(1, len(others), dtype=torch.bool, device=self._device)
            last, _ = self._step(theta, others[None], before, starts)
            return torch.cat([values, last]).cpu().numpy()

    def _values_and_states(self, theta: Tensor, sequences: CriticSequences, state: Tensor) -> tuple[Tensor, Tensor]:
        """Values (T E,), and states after each step, (T, E, S)."""
        steps, count = sequences.starts.shape
        rows = torch.from_numpy(as_observations(sequences.observations, self.dtype))
        observations = self._shaped(theta, rows)
        observations = observations.reshape(steps, count, *observations.shape[1:])
        starts = torch.from_numpy(sequences.starts).to(self._device)
        if type(self._worker) is RecurrentCritic:
            found, after = self._called(theta, observations, state, starts, every_state=True)
            return found, after.reshape(steps, count, -1)
        # One at a time, as a module of the user's own gives the state after the last step alone.
        values, states = [], []
        for t in range(steps):
            found, state = self._step(theta, observations[t : t + 1], state, starts[t : t + 1])
            values.append(found)
            states.append(state)
        return torch.cat(values), torch.stack(states)

    def _step(self, theta: Tensor, observations: Tensor, state: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        found, after = checked_step(self._called(theta, observations, state, starts), "critic", tuple(state.shape))
        return self._checked_values(found, starts.numel()), after

    def _data(self, observations: Any) -> _Data:
        sequences: CriticSequences = observations
        steps, count = sequences.starts.shape
        length = min(_PIECE, steps)
        rows, starts, valid = (
            torch.from_numpy(array).to(self._device)
            for array in (as_observations(sequences.observations, self.dtype), sequences.starts, sequences.valid)
        )
        samples = valid.reshape(-1)
        places = samples.cumsum(0) - 1
        return _Data(rows, -(-steps // length) * count, length, starts, samples, places, self._states)

    def _residuals(self, theta: Tensor, data: Any, targets: Tensor, chosen: Tensor) -> Tensor:
        """V(s) - R of the samples of the pieces `chosen`."""
        steps, count = data.starts.shape
        wanted = chosen // count * data.length  # the first step of each that counts
        first = wanted.clamp_max(steps - data.length)  # the last pieces overlap those before, and so warm up
        t = first + torch.arange(data.length, device=self._device)[:, None]
        rows = t * count + chosen % count
        states = data.states[first, chosen % count]
        observations = self._shaped(theta, data.rows[rows.reshape(-1)])
        observations = observations.reshape(*rows.shape, *observations.shape[1:])
        values, _ = self._step(theta, observations, states, data.starts.reshape(-1)[rows])
        counted = (data.samples[rows] & (t >= wanted)).reshape(-1)
        return values[counted] - targets[data.targets[rows.reshape(-1)[counted]]]


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
