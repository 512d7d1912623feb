"""Which axis of an observation is which, and the layers that follow from it."""

import numpy as np
import pytest

from trpo_fast.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from trpo_fast.spaces.images import (
    convolutions,
    fits_bytes,
    flattened_images,
    has_images,
    image_layout,
    input_parts,
    is_image,
    is_pixels,
)


def box(*shape, low=0, high=255, dtype=np.uint8):
    return Box(np.full(shape, low, dtype), np.full(shape, high, dtype))


def planes(*shape):
    return box(*shape, high=1, dtype=np.float32)


# What an axis is, by its place: f frames, c channels, h height, w width; None where the shape does not tell.
AXES = [
    (box, (84, 84), "hw"),
    (box, (84, 84, 1), "hwc"),
    (box, (1, 84, 84), "chw"),
    (box, (4, 84, 84), "chw"),
    (box, (84, 96, 3), "hwc"),
    (box, (210, 160, 3), "hwc"),
    (box, (10, 10, 4), "hwc"),
    (box, (3, 3, 3), "chw"),
    (box, (10, 12, 9), "hwc"),
    (box, (3, 9, 3), "chw"),
    (box, (4, 84, 84, 3), "fhwc"),
    (box, (4, 3, 84, 84), "fchw"),
    (box, (4, 210, 160, 3), "fhwc"),
    (box, (4, 84, 84, 1), "fhwc"),
    (box, (9, 3, 9), None),
    (box, (84, 3, 84), None),
    (box, (84, 84, 3, 4), None),  # the stack behind
    (box, (84, 84, 4, 4), None),
    (box, (8, 5, 5, 3), None),
    (planes, (8, 8), "hw"),
    (planes, (17, 8, 8), "chw"),
    (planes, (8, 8, 111), "hwc"),
    (planes, (19, 19, 17), "hwc"),
    (planes, (6, 7, 2), "hwc"),
    (planes, (2, 6, 7), "chw"),
    (planes, (10, 10, 4), "hwc"),
    (planes, (3, 3, 2), "hwc"),
    (planes, (8, 8, 8, 14), "fhwc"),
    (planes, (6, 7, 20), None),  # more planes than squares
    (planes, (20, 6, 7), None),
    (planes, (8, 8, 8), None),
    (planes, (3, 9, 3), None),
]


@pytest.mark.parametrize(("make", "shape", "axes"), AXES)
def test_the_shape_tells_which_axis_is_which_or_is_refused_with_the_space_and_the_way_out(make, shape, axes):
    space = make(*shape)
    assert is_image(space) == (make is box and axes is not None)
    if axes is not None:
        sizes = {"f": 1, "c": 1} | dict(zip(axes, shape, strict=True))
        assert image_layout(space)[:5] == (*(sizes[axis] for axis in "fchw"), axes[-1] == "c")
        return
    with pytest.raises(ValueError) as error:
        image_layout(space)
    assert str(space) in str(error.value)
    assert "channel_axis='first' or 'last'" in str(error.value)
    sides = [image_layout(space, axis) for axis in ("first", "last")]
    assert [image.channels_last for image in sides] == [False, True]
    assert all(image.planes * image.height * image.width == space.low.size for image in sides)


def test_an_axis_that_is_no_choice_is_named():
    with pytest.raises(ValueError, match="channel_axis: 'middle' given; want one of 'auto', 'first', 'last'"):
        image_layout(box(3, 8, 8), "middle")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (box(84), r"Box\(0, 255, \(84,\), uint8\) given; want a Box of two to four axes"),
        (box(2, 3, 4, 5, 6), ".*want a Box of two to four axes"),
        (box(0, 8, 8), ".*want a Box of two to four axes"),
        (Discrete(3, 0, np.dtype(np.int64)), r"Discrete\(3\) given; want a Box of two"),
        (Dict({"image": box(3, 8, 8)}), ".*want a Box of two"),
        (box(3, 8, 8, low=-np.inf, high=np.inf, dtype=np.float32), ".*want bounds of at most 65535"),
        (box(3, 8, 8, low=0, high=2**31 - 1, dtype=np.int32), ".*want bounds of at most 65535"),
        (box(3, 8, 8, low=0, high=0), ".*want bounds of at most 65535"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(space, message):
    with pytest.raises(ValueError, match=message):
        image_layout(space)
    assert not is_image(space)


@pytest.mark.parametrize(
    ("space", "largest"),
    [
        (box(3, 8, 8), 255),
        (box(3, 8, 8, high=10), 10),
        (planes(3, 8, 8), 1),
        (box(3, 8, 8, low=-5, high=2, dtype=np.int8), 5),
        (box(3, 8, 8, low=0, high=1, dtype=np.bool_), 1),
        (MultiBinary((3, 8, 8)), 1),
    ],
    ids=str,
)
def test_values_are_divided_by_the_largest_bound(space, largest):
    assert image_layout(space).largest == largest


def test_pixels_alone_are_images_without_being_asked():
    for make, shape, _ in AXES:
        assert is_pixels(make(*shape)) == (make is box)
    for space in (box(3, 8, 8, high=10), MultiBinary((3, 8, 8))):
        assert not is_image(space) and not is_pixels(space)
    assert not is_image(box(35, 84))  # a table may be no image
    assert not is_image(box(1, 2, 9))


def test_pixels_that_are_flattened_are_found():
    image, table, undecided = box(64, 64, 3), box(5, 5), box(9, 3, 9)
    assert flattened_images(image) == flattened_images(table) == flattened_images(planes(9, 3, 9)) == []
    assert flattened_images(undecided) == [undecided]
    assert flattened_images(undecided, "last") == []
    assert flattened_images(Dict({"camera": image, "rest": Tuple((table, undecided))})) == [undecided]


def test_images_in_a_structure_are_found_with_their_columns():
    image, table, board = box(64, 64, 3), box(5, 5), planes(3, 8, 8)
    space = Dict({"choice": Discrete(3, 0, np.dtype(np.int64)), "camera": image, "rest": Tuple((table, board))})
    size = 3 + 64 * 64 * 3
    parts = input_parts(space)
    assert parts.images == ((slice(3, size), image_layout(image)),)
    assert parts.others == (slice(0, 3), slice(size, size + 25), slice(size + 25, size + 25 + 192))
    assert parts.features == 512 + 3 + 25 + 192
    boards = input_parts(space, boards=True)
    assert [layout for _, layout in boards.images] == [image_layout(part) for part in (image, table, board)]
    assert boards.others == (slice(0, 3),)
    assert has_images(space) and has_images(image) and not has_images(board) and not has_images(Tuple((table, board)))
    with pytest.raises(ValueError, match=r"observation space: Tuple.* want a part of two to four axes with bounds"):
        input_parts(Tuple((table, board)))
    with pytest.raises(ValueError, match="channel_axis='first' or 'last'"):
        input_parts(Tuple((box(9, 3, 9),)), boards=True)


def test_bytes_hold_what_they_are_used_for():
    for space in (box(3, 8, 8), box(3, 8, 8, high=1, dtype=np.bool_), MultiBinary((3, 8, 8))):
        assert fits_bytes(space)
        assert fits_bytes(Dict({"image": space, "choice": Discrete(3, 0, np.dtype(np.int64))}))
    for space in (planes(3, 8, 8), box(3, 8, 8, low=-1, high=1, dtype=np.int8)):
        assert not fits_bytes(space)
        assert not fits_bytes(Dict({"image": box(3, 8, 8), "other": space}))


@pytest.mark.parametrize("sides", [(1, 2), (2, 9), (3, 3), (4, 4), (5, 5), (6, 7), (35, 84)])
@pytest.mark.parametrize("make", [box, planes])
def test_nothing_shrinks_to_nothing(sides, make):
    image = image_layout(make(3, *sides), "first")
    network = convolutions(image)
    assert network.stack == ((16, 3, 1),)
    height, width = (side + 2 * network.padding - 2 for side in sides)
    assert network.features == 16 * height * width
    assert min(height, width) >= min(3 if make is planes else 1, *sides)


def test_small_boards_keep_their_size_and_pixels_that_fit_are_not_padded():
    assert convolutions(image_layout(planes(3, 3, 2))).padding == 1
    assert convolutions(image_layout(planes(5, 5, 2))).padding == 0
    assert convolutions(image_layout(box(1, 3, 3))).padding == 0
