"""Convolutional policies and critics for images."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast.gymnasium_spaces import action_layout, described
from trpo_fast.spaces import images
from trpo_fast.spaces.images import ImageLayout

from .heads import ActsOver, checked_dtype, initialize_orthogonally, seeded_generator


def image_layout(space: spaces.Space[Any], channel_axis: str = "auto") -> ImageLayout:
    """`trpo_fast.spaces.images.image_layout` of a Gymnasium space."""
    return images.image_layout(described(space), channel_axis)


class ImageFeatures(nn.Module):
    """Images to the outputs of a dense layer behind convolutions, each with relu.

    Parameters
    ----------
    image : ImageLayout
        How one observation lies in a row.
    generator : torch.Generator or None
        Of the initial weights; None: torch's global one.
    """

    def __init__(self, image: ImageLayout, dtype: torch.dtype, generator: torch.Generator | None) -> None:
        super().__init__()
        self.image = image
        network, channels = images.convolutions(image), image.planes
        self.convolutions = nn.ModuleList()
        for filters, kernel, stride in network.stack:
            convolution = nn.utils.skip_init(nn.Conv2d, channels, filters, kernel, stride, network.padding, dtype=dtype)
            self.convolutions.append(convolution)
            channels = filters
        self.dense = nn.utils.skip_init(nn.Linear, network.features, network.dense, dtype=dtype)
        for layer in (*self.convolutions, self.dense):
            initialize_orthogonally(layer, math.sqrt(2.0), generator)

    def features(self, observations: Tensor) -> Tensor:
        """Outputs of the dense layer, (B, width), for B images of any shape and dtype."""
        layout, count = self.image, len(observations)
        size = math.prod(layout.axes)
        if observations[:1].numel() != size and count:
            raise ValueError(f"observations: shape {tuple(observations.shape)} given; want (B, {size})")
        x = observations.reshape(count, *layout.axes).to(self.dense.weight.dtype) / layout.largest
        if layout.channels_last:
            x = x.permute(0, 1, 4, 2, 3)
        x = x.reshape(count, layout.planes, layout.height, layout.width)
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        return torch.relu(self.dense(x.flatten(1)))


class _CNN(ImageFeatures):
    """Images to `outputs` numbers.

    Parameters
    ----------
    space : gymnasium.spaces.Box or MultiBinary
        See `image_layout`.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        outputs: int,
        output_gain: float,
        channel_axis: str,
        dtype: torch.dtype,
        seed: int | None,
    ) -> None:
        generator = seeded_generator(seed)
        super().__init__(image_layout(space, channel_axis), dtype, generator)
        self.observation_space = space
        self.head = nn.utils.skip_init(nn.Linear, self.dense.out_features, outputs, dtype=dtype)
        initialize_orthogonally(self.head, output_gain, generator)

    def _outputs(self, observations: Tensor) -> Tensor:
        """Last layer's outputs, (B, outputs)."""
        return self.head(self.features(observations))


class CNNPolicy(ActsOver, _CNN):
    """Convolutional policy over any supported action space, for images.

    The network of Mnih et al. [1]_ for images of 36 x 36 pixels and more: 32 filters of 8 x 8 with stride 4, 64 of
    4 x 4 with stride 2, 64 of 3 x 3, 512 units, each with relu. Smaller images, for which that is too coarse, get the
    network of MinAtar [2]_: 16 filters of 3 x 3 and 128 units, with zeros around images of less than 3 x 3 pixels and
    boards of less than 5 x 5, so that they do not shrink. Values are divided by the largest magnitude of the space's
    bounds, pixels by 255. Weights are orthogonal with gain sqrt(2) (hidden) and 0.01 (output), biases zero, as in
    `MLPPolicy`.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box or MultiBinary
        Two to four axes with finite bounds, see `trpo_fast.spaces.images.image_layout`.
    action_space : gymnasium.spaces.Box of floats, Discrete, MultiDiscrete or MultiBinary, or a Tuple or Dict of these
    log_std_init : float
        Initial log standard deviation of every action dimension; unused where actions are discrete.
    channel_axis : {"auto", "first", "last"}
        Where each frame's channels are; "auto" goes by its shape.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.

    Attributes
    ----------
    log_std : nn.Parameter, shape (A,)
        First of the parameters; one for each dimension of a Box, and only where there is one.
    convolutions : nn.ModuleList of nn.Conv2d
    dense, head : nn.Linear
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
    nvec : tuple of int
    action_parts : tuple of ActionLayout
        As in `MLPPolicy`.

    Raises
    ------
    ValueError
        For a dtype or space that is not supported, or a space whose shape does not tell which axis is the channels';
        the message names it.

    References
    ----------
    .. [1] Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015.
    .. [2] Young & Tian, "MinAtar: An Atari-inspired testbed for thorough and reproducible reinforcement learning
       experiments", 2019.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        log_std_init: float = 0.0,
        channel_axis: str = "auto",
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        layout, dtype = action_layout(action_space), checked_dtype(dtype)
        super().__init__(observation_space, layout.outputs, 0.01, channel_axis, dtype, seed)
        self.act_over(action_space, layout, log_std_init, dtype)

    def forward(self, observations: Tensor) -> Distribution:
        """Distribution of the actions, batch shape (B,), as `MLPPolicy` returns it.

        Parameters
        ----------
        observations : Tensor, shape ``(B, D)`` or ``(B, *observation_space.shape)``
            As the space has them, pixels from 0 to 255 for instance, of any dtype.
        """
        return self.distribution_of(self._outputs(observations))


class CNNCritic(_CNN):
    """Convolutional value function, of the same layers as `CNNPolicy`; gain 1 for the output.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box or MultiBinary
    channel_axis : {"auto", "first", "last"}
        Both as `CNNPolicy` takes them.
    dtype : torch.float32 or torch.float64, or its name
    seed : int, optional
        Seed of the initial weights; None draws from torch's global generator.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        *,
        channel_axis: str = "auto",
        dtype: torch.dtype | str = torch.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(observation_space, 1, 1.0, channel_axis, checked_dtype(dtype), seed)

    def forward(self, observations: Tensor) -> Tensor:
        """Values, shape (B,), of observations ``(B, D)`` or ``(B, *observation_space.shape)``."""
        return self._outputs(observations).squeeze(-1)
