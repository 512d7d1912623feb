"""Multilayer-perceptron policies and critics in the layout that the compiled core reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Self, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast._core.library import LARGEST_LAYER, in_words, require_choice
from trpo_fast.gymnasium_spaces import action_layout, check_observation_space, observation_size
from trpo_fast.solvers.validation import require_items

from .flat import FlatParameters
from .heads import ActsOver, checked_dtype, initialize_orthogonally, seeded_generator
from .squashed import SquashedNormal, check_sides

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "leaky_relu": nn.functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "softplus": nn.functional.softplus,
}
"""Activations by name, with torch's defaults: elu with alpha 1, leaky_relu with slope 0.01, gelu without approximation,
softplus with beta 1 and threshold 20."""


class _MLP(nn.Module):
    """Linear layers with an activation between them; the parameters stay views of `flat` through copies and casts.

    Attributes
    ----------
    widths : tuple of int
        Inputs, hidden sizes, outputs.
    activation : str
        A key of `ACTIVATIONS`.
    layers : nn.ModuleList of nn.Linear
    flat : FlatParameters
    """

    flat: FlatParameters

    def __init__(
        self, widths: tuple[int, ...], activation: str, output_gain: float, dtype: torch.dtype, seed: int | None
    ) -> None:
        super().__init__()
        self.widths = widths
        self.activation = checked_activation(activation)
        self.layers = dense_layers(widths, output_gain, dtype, seeded_generator(seed))

    def _outputs(self, observations: Tensor) -> Tensor:
        """Last layer's outputs, (B, outputs)."""
        dtype = cast(nn.Linear, self.layers[0]).weight.dtype
        x = observations.reshape(len(observations), -1).to(dtype)
        if x.shape[1] != self.widths[0]:
            raise ValueError(
                f"observations: shape {tuple(observations.shape)} given; want {self.widths[0]} numbers in each row"
            )
        return through(self.layers, self.activation, x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._flatten()
        return self

    def _flatten(self) -> None:
        # Elsewhere than on the CPU there is no buffer to share; coming back makes it anew.
        if all(parameter.device.type == "cpu" for parameter in self.parameters()):
            if "flat" in self.__dict__:
                self.flat.restore()
            else:
                self.flat = FlatParameters(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "flat"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._flatten()


class MLPPolicy(ActsOver, _MLP):
    """Perceptron policy over any supported action space.

    A diagonal Gaussian with free log standard deviations for a Box; logits of one categorical distribution for
    Discrete, of one for each component for MultiDiscrete, of one Bernoulli for each item of MultiBinary; the product of
    these for a Tuple or a Dict, whose parts share all layers but the rows of the last.

    Weights are orthogonal with gain sqrt(2) (hidden) and 0.01 (output, so that the first actions are centred and the
    first Fisher matrix is well scaled), biases zero [1]_.

    Parameters
    ----------
    observation_space : gymnasium.Space
        Any supported one; observations are flattened.
    action_space : gymnasium.spaces.Box of floats, Discrete, MultiDiscrete or MultiBinary, or a Tuple or Dict of these
        Any shape.
    hidden_sizes : sequence of int
        May be empty: a linear policy.
    activation : str
        One of `ACTIVATIONS`.
    log_std_init : float
        Initial log standard deviation of every action dimension; unused where actions are discrete.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.
    squash : bool
        Actions of a Box with finite sides, which are not too close for `dtype`, are the Gaussian's, squashed into it
        by a tanh: a `SquashedNormal`, in the environment's units. Such a policy is one of your own for `TRPO`: served
        by torch.

    Attributes
    ----------
    log_std : nn.Parameter, shape (A,)
        First of the parameters; one for each dimension of a Box, and only where there is one.
    layers : nn.ModuleList of nn.Linear
    widths : tuple of int
        Inputs, hidden sizes, action dimensions or logits.
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
    nvec : tuple of int
        Choices of each categorical component; empty for a Box, for MultiBinary and for a product.
    action_parts : tuple of ActionLayout
        Of a product, in the order of its outputs; empty for all others.
    flat : FlatParameters
        ``[log_std] W1 b1 W2 b2 ...`` in one buffer.

    Raises
    ------
    ValueError
        For a space, size, activation or dtype that is not supported; with `squash`, sides of the Box that are closer
        than 2^20 roundings of the larger in `dtype`.
    TypeError
        `hidden_sizes` is no sequence.

    References
    ----------
    .. [1] Andrychowicz et al., "What Matters in On-Policy Reinforcement Learning?", 2020, sec. 3.2.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std_init: float = 0.0,
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
        squash: bool = False,
    ) -> None:
        inputs = observation_size(check_observation_space(observation_space))
        layout = action_layout(action_space)
        widths, dtype = checked_widths(inputs, hidden_sizes, layout.outputs), checked_dtype(dtype)
        super().__init__(widths, activation, 0.01, dtype, seed)
        self.observation_space = observation_space
        self.act_over(action_space, layout, log_std_init, dtype)
        self.squash = squash
        if squash and not (isinstance(action_space, spaces.Box) and action_space.is_bounded()):
            raise ValueError(f"squash: True for {action_space} given; want False, or a Box of finite sides")
        if squash:
            check_sides(*self._sides(), dtype)
        self.flat = FlatParameters(self)

    def forward(self, observations: Tensor) -> Distribution:
        """Distribution of the actions, batch shape (B,).

        Parameters
        ----------
        observations : Tensor, shape ``(B, D)`` or ``(B, *observation_space.shape)``

        Returns
        -------
        Independent(Normal), SquashedNormal, Categorical, MultiCategorical, Independent(Bernoulli), or a Product of
            these; event shape as stored actions have. Arguments are not validated: non-finite parameters are for the
            caller to notice.
        """
        outputs = self._outputs(observations)
        if self.squash:
            return SquashedNormal(outputs, self.log_std.exp(), *(side.to(outputs) for side in self._sides()))
        return self.distribution_of(outputs)

    def _sides(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.action_space, spaces.Box)
        return torch.as_tensor(self.action_space.low.ravel()), torch.as_tensor(self.action_space.high.ravel())


class MLPCritic(_MLP):
    """Perceptron value function; orthogonal weights with gain sqrt(2) (hidden) and 1 (output), biases zero.

    Parameters
    ----------
    observation_space : gymnasium.Space
        Any supported one; observations are flattened.
    hidden_sizes : sequence of int
    activation : str
        One of `ACTIVATIONS`.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.

    Attributes
    ----------
    widths : tuple of int
        Inputs, hidden sizes, 1.
    flat : FlatParameters
        ``W1 b1 W2 b2 ...`` in one buffer.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        widths = checked_widths(observation_size(check_observation_space(observation_space)), hidden_sizes, 1)
        super().__init__(widths, activation, 1.0, checked_dtype(dtype), seed)
        self.observation_space = observation_space
        self.flat = FlatParameters(self)

    def forward(self, observations: Tensor) -> Tensor:
        """Values, shape (B,), of observations ``(B, D)`` or ``(B, *observation_space.shape)``."""
        return self._outputs(observations).squeeze(-1)


def dense_layers(
    widths: Sequence[int], output_gain: float, dtype: torch.dtype, generator: torch.Generator | None
) -> nn.ModuleList:
    """Linear layers of these widths, inputs first, orthogonal with gain sqrt(2), the last one with `output_gain`."""
    layers = nn.ModuleList()
    for inputs, outputs in pairwise(widths):
        layer = cast(nn.Linear, nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype))
        layers.append(layer)
        initialize_orthogonally(layer, output_gain if len(layers) == len(widths) - 1 else math.sqrt(2.0), generator)
    return layers


def through(layers: nn.ModuleList, activation: str, x: Tensor) -> Tensor:
    """The last layer's outputs, (B, outputs), of inputs (B, inputs), with the activation between layers."""
    function = ACTIVATIONS[activation]
    for layer in layers[:-1]:
        x = function(layer(x))
    return layers[-1](x)


def checked_activation(name: str) -> str:
    """A key of `ACTIVATIONS`; ValueError for any other."""
    return require_choice("activation", name, ACTIVATIONS)


def checked_widths(inputs: int, hidden_sizes: Sequence[int], outputs: int) -> tuple[int, ...]:
    """Inputs, hidden sizes, outputs; ValueError or TypeError where the sizes are none."""
    hidden = require_items("hidden_sizes", hidden_sizes, "a sequence of positive integers")
    integers = all(isinstance(size, Integral) and not isinstance(size, bool) for size in hidden)
    if not integers or not all(0 < int(size) <= LARGEST_LAYER for size in hidden):
        raise ValueError(f"hidden_sizes: {in_words(hidden_sizes)} given; want positive integers up to 2**24")
    return inputs, *map(int, hidden), outputs
