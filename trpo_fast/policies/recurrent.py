"""Recurrent policies and critics: a gated cell, then a perceptron; and what such modules of one's own have to offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast._core.library import LARGEST_LAYER, require_choice
from trpo_fast._core.recurrent import Cell
from trpo_fast.gymnasium_spaces import action_layout, check_observation_space, observation_size
from trpo_fast.recurrence import CELLS
from trpo_fast.solvers.validation import require_count

from .heads import ActsOver, checked_dtype, orthogonal, seeded_generator
from .mlp import checked_activation, checked_widths, dense_layers, through
from .sequences import run_cell


class RecurrentModule(Protocol):
    """What makes a torch module a recurrent policy or critic: `initial_state`, and a forward over sequences.

    ``forward(observations, state, episode_starts)`` takes

    - observations (T, E, ...), T steps of E sequences, each observation as the module wants it,
    - state (E, S), before the first step, a constant: whatever it holds was computed with earlier parameters,
    - episode_starts (T, E), bool: True where a step starts an episode, for which the state before it has to be
      `initial_state`'s,

    and returns ``(result, state)``: of a policy a distribution of batch shape (T E,), of a critic values (T E,), row
    t E + e of which belongs to step t of sequence e; and the state after the last step, (E, S). No sequence may depend
    on another.
    """

    def initial_state(self, count: int) -> Tensor:
        """State of `count` sequences at the start of an episode, (count, S)."""
        ...


def is_recurrent(module: nn.Module) -> bool:
    """Whether `module` has a state that goes from step to step."""
    return callable(getattr(module, "initial_state", None))


class _Recurrent(nn.Module):
    """A cell over flat observations, then linear layers with an activation between them.

    Attributes
    ----------
    kind : {"gru", "lstm"}
    widths : tuple of int
        Of the layers behind the cell: its units, hidden sizes, outputs.
    activation : str
        A key of `ACTIVATIONS`.
    layers : nn.ModuleList of nn.Linear
    cell : nn.GRUCell or nn.LSTMCell
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        units: int,
        hidden_sizes: Sequence[int],
        outputs: int,
        activation: str,
        output_gain: float,
        dtype: torch.dtype,
        seed: int | None,
    ) -> None:
        super().__init__()
        require_choice("kind", kind, CELLS)
        units = require_count("units", units, low=1, most=LARGEST_LAYER)
        self.kind = kind
        self.widths = checked_widths(units, hidden_sizes, outputs)
        self.activation = checked_activation(activation)
        generator = seeded_generator(seed)
        # Before the cell in named_parameters(), so that they lie in one piece behind log_std, as an MLPPolicy's do.
        self.layers = dense_layers(self.widths, output_gain, dtype, generator)
        made = nn.GRUCell if kind == "gru" else nn.LSTMCell
        self.cell = cast(nn.GRUCell | nn.LSTMCell, nn.utils.skip_init(made, inputs, units, dtype=dtype))
        _initialize(self.cell, generator)
        self._compiled: Cell | None = None

    @property
    def inputs(self) -> int:
        """Numbers in an observation."""
        return self.cell.input_size

    @property
    def state_items(self) -> int:
        """S, numbers in a state: the units of a GRU; of an LSTM twice as many, h, then c."""
        return self.widths[0] * (1 if self.kind == "gru" else 2)

    def initial_state(self, count: int) -> Tensor:
        """Zeros, (count, S)."""
        return self.cell.weight_hh.new_zeros(count, self.state_items)

    def _outputs(self, observations: Tensor, state: Tensor, episode_starts: Tensor) -> tuple[Tensor, Tensor]:
        """Last layer's outputs, (T E, outputs), and the states after every step, (T E, S)."""
        weight = self.cell.weight_hh
        if weight.device.type != "cpu":
            raise ValueError(
                f"policy: a {type(self).__name__} on {weight.device}; want the CPU, as its cell is compiled"
            )
        steps, count = tuple(observations.shape[:2]) if observations.ndim > 1 else (0, 0)
        x = observations.reshape(steps * count, -1).to(weight.dtype)
        if x.shape[1] != self.inputs or steps * count == 0:
            raise ValueError(
                f"observations: shape {tuple(observations.shape)} given; want (T, E, ...) with {self.inputs} numbers "
                "in each step"
            )
        if tuple(state.shape) != (count, self.state_items):
            raise ValueError(f"state: shape {tuple(state.shape)} given; want {(count, self.state_items)}")
        if tuple(episode_starts.shape) != (steps, count):
            raise ValueError(f"episode_starts: shape {tuple(episode_starts.shape)} given; want {(steps, count)}")
        inputs = nn.functional.linear(x, self.cell.weight_ih, self.cell.bias_ih)
        starts = episode_starts.reshape(-1).to(torch.bool).contiguous()
        h, states = run_cell(self._kernel(weight), inputs, weight, self.cell.bias_hh, state, starts)
        return through(self.layers, self.activation, h), states

    def _kernel(self, weight: Tensor) -> Cell:
        name = str(weight.dtype).removeprefix("torch.")
        if self._compiled is None or self._compiled.dtype.name != name:
            self._compiled = Cell(self.kind, self.widths[0], name)
        return self._compiled

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}


class RecurrentPolicy(ActsOver, _Recurrent):
    """A GRU or LSTM cell over flat observations, then a perceptron, over any supported action space.

    The cell is torch's, with weights that are orthogonal gate by gate, and biases zero but for an LSTM's forget gate,
    which begins at 1 [1]_; the layers behind it are as in `MLPPolicy`.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    observation_space : gymnasium.Space
        Any supported one; observations are flattened.
    action_space : gymnasium.spaces.Box of floats, Discrete, MultiDiscrete or MultiBinary, or a Tuple or Dict of these
    units : int
        H, of the cell.
    hidden_sizes : sequence of int
        Of the layers behind it; may be empty.
    activation : str
        Of these layers, one of `ACTIVATIONS`.
    log_std_init : float
        Initial log standard deviation of every action dimension; unused where actions are discrete.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.

    Attributes
    ----------
    log_std : nn.Parameter, shape (A,)
        First of the parameters; one for each dimension of a Box, and only where there is one.
    layers : nn.ModuleList of nn.Linear
    cell : nn.GRUCell or nn.LSTMCell
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
    nvec, action_parts
        As in `MLPPolicy`.

    Raises
    ------
    ValueError
        For a space, size, activation, cell or dtype that is not supported.

    References
    ----------
    .. [1] Jozefowicz, Zaremba & Sutskever, "An Empirical Exploration of Recurrent Network Architectures", ICML 2015.
    """

    def __init__(
        self,
        kind: str,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        units: int = 64,
        hidden_sizes: Sequence[int] = (64,),
        activation: str = "tanh",
        log_std_init: float = 0.0,
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        inputs = observation_size(check_observation_space(observation_space))
        layout, dtype = action_layout(action_space), checked_dtype(dtype)
        super().__init__(kind, inputs, units, hidden_sizes, layout.outputs, activation, 0.01, dtype, seed)
        self.observation_space = observation_space
        self.act_over(action_space, layout, log_std_init, dtype)

    def forward(self, observations: Tensor, state: Tensor, episode_starts: Tensor) -> tuple[Distribution, Tensor]:
        """Distribution of the actions, batch shape (T E,), and states after the last step; see `RecurrentModule`."""
        outputs, states = self._outputs(observations, state, episode_starts)
        found = self.distribution_of(outputs)
        return found, states[-len(state) :]


class RecurrentCritic(_Recurrent):
    """A value function of the same kind as `RecurrentPolicy`; gain 1 for the output.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    observation_space : gymnasium.Space
    units, hidden_sizes, activation, dtype, seed
        As `RecurrentPolicy` takes them.
    """

    def __init__(
        self,
        kind: str,
        observation_space: spaces.Space[Any],
        *,
        units: int = 64,
        hidden_sizes: Sequence[int] = (64,),
        activation: str = "tanh",
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        inputs = observation_size(check_observation_space(observation_space))
        super().__init__(kind, inputs, units, hidden_sizes, 1, activation, 1.0, checked_dtype(dtype), seed)
        self.observation_space = observation_space

    def forward(
        self, observations: Tensor, state: Tensor, episode_starts: Tensor, every_state: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Values (T E,), and the states after the last step, or with `every_state` after each, (T E, S).

        See `RecurrentModule`.
        """
        values, states = self._outputs(observations, state, episode_starts)
        return values.squeeze(-1), states if every_state else states[-len(state) :]


def _initialize(cell: nn.GRUCell | nn.LSTMCell, generator: torch.Generator | None) -> None:
    size = cell.hidden_size
    with torch.no_grad():
        for weight in (cell.weight_ih, cell.weight_hh):
            for gate in weight.split(size):
                gate.copy_(orthogonal(gate.shape, 1.0, generator))
        cell.bias_ih.zero_()
        cell.bias_hh.zero_()
        if isinstance(cell, nn.LSTMCell):
            cell.bias_ih[size : 2 * size] = 1.0
