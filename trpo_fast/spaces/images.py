"""Which observations are images, how they lie in memory, and which convolutions they get."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import numpy as np

from .._core.library import require_choice
from ..solvers.validation import require_bool
from .descriptions import Box, Discrete, Leaf, MultiBinary, MultiDiscrete, Space, flat_size, leaves

CHANNEL_AXES = ("auto", "first", "last")
"""Where the channels of a frame may be; "auto" goes by its shape, see `image_layout`."""

_NATURE_LEAST = 36
_SMALL_LEAST = 3
_LARGEST = 65_535  # of depth images; divided by more, what is seen would vanish


class ImageLayout(NamedTuple):
    """How an image observation lies in memory: frames one after the other, each with its channels first or last."""

    frames: int
    """1 where there is no axis for them."""
    channels: int
    """Of one frame."""
    height: int
    width: int
    channels_last: bool
    largest: float
    """What values are divided by: the largest magnitude of the space's bounds."""
    pixels: bool
    """uint8 from 0 to 255."""

    @property
    def planes(self) -> int:
        """Channels that the first convolution sees: those of all frames."""
        return self.frames * self.channels

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """Shape of one observation with an axis for frames and one for channels, wherever they lie."""
        sides = self.height, self.width
        return (self.frames, *sides, self.channels) if self.channels_last else (self.frames, self.channels, *sides)


class InputParts(NamedTuple):
    """Columns of the rows of a Dict or Tuple that has images in it."""

    images: tuple[tuple[slice, ImageLayout], ...]
    others: tuple[slice, ...]
    """Of every other part, in the order of their columns."""

    @property
    def features(self) -> int:
        """Numbers that the dense layers behind the convolutions give, and those of the other parts."""
        of_images = sum(convolutions(image).dense for _, image in self.images)
        return of_images + sum(part.stop - part.start for part in self.others)


class Convolutions(NamedTuple):
    """The layers of a CNN below its head."""

    stack: tuple[tuple[int, int, int], ...]
    """(filters, kernel, stride) of each convolution."""
    padding: int
    """Zeros around the image, before each convolution."""
    features: int
    """Numbers that the last convolution gives."""
    dense: int
    """Width of the dense layer."""


def image_layout(space: Space, channel_axis: str = "auto") -> ImageLayout:
    """The layout of a space of images; a ValueError names `space` and says why a CNN cannot take it.

    An image is a Box of two to four axes with finite bounds, or a MultiBinary: (height, width), or these and channels
    (colours, stacked frames, planes of a board) before or behind, or a stack of such frames, one more axis in front.

    Where the channels are in (a, b, c), with `channel_axis` "auto":

    1. where one of the two readings, b x c or a x b, is square and the other is not, it is that one;
    2. otherwise the shortest axis has the channels. For pixels (uint8 from 0 to 255) that decides, the first axis on a
       tie, as in Stable-Baselines3. For everything else it must be at most half as long as the other two, because
       boards may have more planes than squares;
    3. a shortest axis in the middle decides nothing.
    """
    if not isinstance(space, Box | MultiBinary) or not 2 <= len(space.shape) <= 4 or 0 in space.shape:
        raise ValueError(f"observation space: {space} given; want a Box of two to four axes for a CNN")
    largest, pixels = 1.0, False
    if isinstance(space, Box):
        largest = max(abs(float(bound)) for bounds in (space.low, space.high) for bound in (bounds.min(), bounds.max()))
        pixels = is_pixels(space)
    if not 0 < largest <= _LARGEST:
        raise ValueError(
            f"observation space: {space} given; want bounds of at most {_LARGEST} for a CNN, which divides by them"
        )
    shape = tuple(map(int, space.shape))
    frames, frame = (shape[0], shape[1:]) if len(shape) == 4 else (1, shape)
    last = len(frame) == 3 and _channels_last(space, frame, channel_axis, pixels)
    channels, height, width = (frame[2], *frame[:2]) if last else ((1, *frame) if len(frame) == 2 else frame)
    if frames > min(height, width) and channel_axis == "auto":
        raise _undecided(space, f"{frames} frames of {height} x {width}")
    return ImageLayout(frames, channels, height, width, last, largest, pixels)


def is_pixels(space: Space) -> TypeGuard[Box]:
    """Whether `space` is one of pixels, uint8 from 0 to 255 over two to four axes, whatever their order."""
    return (
        isinstance(space, Box)
        and space.dtype == np.uint8
        and 2 <= len(space.shape) <= 4
        and 0 not in space.shape
        and not space.low.any()
        and bool((space.high == 255).all())
    )


def is_image(space: Space, channel_axis: str = "auto") -> bool:
    """Whether a space is taken for one of images without being asked: pixels that have an `image_layout`.

    Gray ones without an axis for channels must have 36 x 36 pixels, since a smaller table may be no image.
    """
    if not is_pixels(space):
        return False
    try:
        image = image_layout(space, channel_axis)
    except ValueError:
        return False
    least = _NATURE_LEAST if len(space.shape) == 2 else _SMALL_LEAST
    return min(image.height, image.width) >= least


def has_images(space: Space, channel_axis: str = "auto") -> bool:
    """Whether a space, or a part of it, is taken for one of images without being asked."""
    return any(is_image(leaf, channel_axis) for leaf in leaves(space))


def input_parts(space: Space, channel_axis: str = "auto", *, boards: bool = False) -> InputParts:
    """Where the images of a Dict or Tuple lie in its rows: the parts that `is_image` takes.

    With `boards` also every other part of two to four axes with finite bounds. ValueError where there is none, or the
    shape of one does not tell where its channels are.
    """
    images, others, first = [], [], 0
    boards = require_bool("boards", boards)
    for leaf in leaves(space):
        columns = slice(first, first + flat_size(leaf))
        first = columns.stop
        if is_image(leaf, channel_axis) or (boards and _is_board(leaf)):
            images.append((columns, image_layout(leaf, channel_axis)))
        else:
            others.append(columns)
    if not images:
        raise ValueError(f"observation space: {space} given; want a part of two to four axes with bounds for a CNN")
    return InputParts(tuple(images), tuple(others))


def _is_board(leaf: Leaf) -> bool:
    bounded = isinstance(leaf, MultiBinary) or (
        isinstance(leaf, Box) and bool(np.isfinite(leaf.low).all() and np.isfinite(leaf.high).all())
    )
    return bounded and 2 <= len(leaf.shape) <= 4 and 0 not in leaf.shape


def flattened_images(space: Space, channel_axis: str = "auto") -> list[Leaf]:
    """What `is_image` leaves to be flattened though it is pixels: its shape does not tell where the channels are."""
    found: list[Leaf] = []
    for leaf in filter(is_pixels, leaves(space)):
        try:
            image_layout(leaf, channel_axis)
        except ValueError:
            found.append(leaf)
    return found


def fits_bytes(space: Space) -> bool:
    """Whether uint8 holds every number of the rows of `space`."""
    return all(
        leaf.dtype in (np.uint8, np.bool_)
        if isinstance(leaf, Box)
        else isinstance(leaf, Discrete | MultiDiscrete | MultiBinary)  # ones and zeros
        for leaf in leaves(space)
    )


def convolutions(image: ImageLayout) -> Convolutions:
    """The network of Mnih et al. (2015), or for images that are too small for it that of MinAtar (2019).

    Where even that would leave less than 3 x 3 of a board, zeros around it keep its size.
    """
    stack: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    dense, padding = 512, 0
    height, width = image.height, image.width
    least = min(height, width)
    if least < _NATURE_LEAST:
        stack, dense = ((16, 3, 1),), 128
        padding = int(least < (_SMALL_LEAST if image.pixels else _SMALL_LEAST + 2))
    for _, kernel, stride in stack:
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return Convolutions(stack, padding, stack[-1][0] * height * width, dense)


def _channels_last(space: Space, frame: tuple[int, ...], channel_axis: str, pixels: bool) -> bool:
    require_choice("channel_axis", channel_axis, CHANNEL_AXES)
    if channel_axis != "auto":
        return channel_axis == "last"
    first, middle, last = frame
    if (first == middle) != (middle == last):
        return first == middle
    least = min(frame)
    if middle == least < min(first, last) or not (pixels or 2 * least <= sorted(frame)[1]):
        raise _undecided(space, "channels first or last")
    return frame.index(least) == 2


def _undecided(space: Space, what: str) -> ValueError:
    return ValueError(
        f"observation space: {space} given, of which the shape does not tell whether it is {what}; want "
        "channel_axis='first' or 'last', or another order of its axes (a wrapper), for a CNN"
    )
