"""Which observations are images, how they lie in memory, and which convolutions they get."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .descriptions import Box, Space

_NATURE_LEAST = 36
_SMALL_LEAST = 3


class ImageLayout(NamedTuple):
    """How an image observation lies in memory."""

    channels: int
    height: int
    width: int
    channels_last: bool


class Convolutions(NamedTuple):
    """The layers of a CNN below its head."""

    stack: tuple[tuple[int, int, int], ...]
    """(filters, kernel, stride) of each convolution."""
    features: int
    """Numbers that the last convolution gives."""
    dense: int
    """Width of the dense layer."""


def image_layout(space: Space) -> ImageLayout:
    """The layout of a space of images; a ValueError says why `space` is none that a CNN can take.

    An image is a Box of uint8 from 0 to 255 with three axes, of which the shortest is the channels' (or stacked
    frames'), the first or the last, as in Stable-Baselines3; on a tie it is the first.
    """
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        raise ValueError(f"observation space: got {space}, wanted a Box of uint8 with three axes for a CNN")
    if (space.low != 0).any() or (space.high != 255).any():
        raise ValueError(f"observation space: got {space}, wanted bounds of 0 and 255 for a CNN, which divides by 255")
    shape = tuple(map(int, space.shape))
    axis = shape.index(min(shape))
    if axis == 1:
        raise ValueError(f"observation space: got shape {shape}, wanted channels first or last for a CNN")
    channels = shape[axis]
    height, width = shape[1:] if axis == 0 else shape[:2]
    if min(height, width) < _SMALL_LEAST:
        least = f"{_SMALL_LEAST} x {_SMALL_LEAST}"
        raise ValueError(f"observation space: got images of {height} x {width}, wanted {least} pixels for a CNN")
    return ImageLayout(channels, height, width, channels_last=axis == 2)


def convolutions(image: ImageLayout) -> Convolutions:
    """The network of Mnih et al. (2015), or for images that are too small for it that of MinAtar (2019)."""
    stack: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    dense = 512
    height, width = image.height, image.width
    if min(height, width) < _NATURE_LEAST:
        stack, dense = ((16, 3, 1),), 128
    for _, kernel, stride in stack:
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    return Convolutions(stack, stack[-1][0] * height * width, dense)
