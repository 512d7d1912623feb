"""Policies and critics for observations that have images beside other parts, in one Dict or Tuple."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast.gymnasium_spaces import action_layout, described
from trpo_fast.spaces.images import input_parts

from .cnn import ImageFeatures
from .heads import ActsOver, checked_dtype, seeded_generator
from .mlp import checked_activation, checked_widths, dense_layers, through


class _MultiInput(nn.Module):
    """Flat rows to `outputs` numbers."""

    def __init__(
        self,
        space: spaces.Space[Any],
        outputs: int,
        output_gain: float,
        hidden_sizes: Sequence[int],
        activation: str,
        channel_axis: str,
        boards: bool,
        dtype: torch.dtype,
        seed: int | None,
    ) -> None:
        super().__init__()
        self.observation_space = space
        self.parts = input_parts(described(space), channel_axis, boards=boards)
        self.activation = checked_activation(activation)
        self.widths = checked_widths(self.parts.features, hidden_sizes, outputs)
        generator = seeded_generator(seed)
        self.images = nn.ModuleList([ImageFeatures(image, dtype, generator) for _, image in self.parts.images])
        self.layers = dense_layers(self.widths, output_gain, dtype, generator)

    def _outputs(self, observations: Tensor) -> Tensor:
        """Last layer's outputs, (B, outputs)."""
        columns = [columns for columns, _ in self.parts.images]
        size = max(part.stop for part in (*columns, *self.parts.others))
        if observations.ndim != 2 or observations.shape[1] != size:
            raise ValueError(f"observations: shape {tuple(observations.shape)} given; want flat rows (B, {size})")
        bodies = cast(Iterable[ImageFeatures], self.images)
        seen = [image.features(observations[:, part]) for image, part in zip(bodies, columns, strict=True)]
        x = torch.cat([*seen, *(observations[:, part].to(seen[0].dtype) for part in self.parts.others)], 1)
        return through(self.layers, self.activation, x)


class MultiInputPolicy(ActsOver, _MultiInput):
    """Policy over any supported action space, for images beside other observations.

    Each image goes through the convolutions and the dense layer of a `CNNPolicy` of its own; what these give is
    concatenated with all other parts, flattened, and goes through an MLP, as in Stable-Baselines3's MultiInputPolicy.
    Weights are orthogonal with gain sqrt(2) (hidden) and 0.01 (output), biases zero.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Dict or Tuple
        With an image in it, see `trpo_fast.spaces.images.input_parts`.
    action_space : gymnasium.spaces.Box of floats, Discrete, MultiDiscrete or MultiBinary, or a Tuple or Dict of these
    hidden_sizes : sequence of int
        Of the MLP; may be empty.
    activation : str
        Between the layers of the MLP, one of `ACTIVATIONS`.
    log_std_init : float
        Initial log standard deviation of every action dimension; unused where actions are discrete.
    channel_axis : {"auto", "first", "last"}
        As of `CNNPolicy`, of every image.
    boards : bool
        Take every part of two to four axes with finite bounds for an image, and not pixels alone.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.

    Attributes
    ----------
    log_std : nn.Parameter, shape (A,)
        First of the parameters; one for each dimension of a Box, and only where there is one.
    images : nn.ModuleList
        Convolutions and dense layer of each image, in the order of the parts.
    layers : nn.ModuleList of nn.Linear
        The MLP.
    parts : InputParts
        Which columns of a flat row are whose.
    distribution, nvec, action_parts
        As in `MLPPolicy`.

    Raises
    ------
    ValueError
        For a space without an image, or a size, activation or dtype that is not supported.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        *,
        log_std_init: float = 0.0,
        channel_axis: str = "auto",
        boards: bool = False,
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        layout, dtype = action_layout(action_space), checked_dtype(dtype)
        how = hidden_sizes, activation, channel_axis, boards, dtype, seed
        super().__init__(observation_space, layout.outputs, 0.01, *how)
        self.act_over(action_space, layout, log_std_init, dtype)

    def forward(self, observations: Tensor) -> Distribution:
        """Distribution of the actions, batch shape (B,), as `MLPPolicy` returns it.

        Parameters
        ----------
        observations : Tensor, shape (B, D)
            Flat rows of the space, images as the space has them.
        """
        return self.distribution_of(self._outputs(observations))


class MultiInputCritic(_MultiInput):
    """Value function of the same layers as `MultiInputPolicy`, whose arguments it takes; gain 1 for the output."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        *,
        channel_axis: str = "auto",
        boards: bool = False,
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        how = hidden_sizes, activation, channel_axis, boards, checked_dtype(dtype), seed
        super().__init__(observation_space, 1, 1.0, *how)

    def forward(self, observations: Tensor) -> Tensor:
        """Values, shape (B,), of observations of shape (B, D)."""
        return self._outputs(observations).squeeze(-1)
