"""Checks of arguments: what passes, and that an error names argument, value and what is wanted."""

import math

import numpy as np
import pytest

from trpo_fast._core.library import require_choice
from trpo_fast.solvers.validation import (
    LARGEST_COUNT,
    require_bool,
    require_count,
    require_fraction,
    require_items,
    require_kind,
    require_number,
)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int64(3), 1e308])
def test_numbers_of_every_kind_become_floats(value):
    number = require_number("size", value, low=0)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("value", ["1", None, [1.0], 1j, True, np.bool_(True), np.ones(1)])
def test_what_is_no_number_is_named(value):
    for require in (lambda: require_number("size", value, low=0), lambda: require_fraction("size", value)):
        with pytest.raises(TypeError, match=r"size: .* given; want a number"):
            require()


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (-1, {}, "-1 given; want a finite number >= 0"),
        (math.nan, {}, "nan given; want a finite number >= 0"),
        (math.inf, {}, "inf given; want a finite number >= 0"),
        (-math.inf, {}, "-inf given; want a finite number >= 0"),
        (0, {"inclusive": False}, "0 given; want a finite number > 0"),
        (0.0, {"inclusive": False, "finite": False}, "0.0 given; want a number > 0"),
        (math.nan, {"finite": False}, "nan given; want a number >= 0"),
    ],
)
def test_numbers_outside_are_named(value, options, message):
    with pytest.raises(ValueError, match=f"size: {message}"):
        require_number("size", value, low=0, **options)


def test_infinity_passes_where_it_means_something():
    assert require_number("size", math.inf, low=0, finite=False) == math.inf


@pytest.mark.parametrize("value", [0, 1, -0.5, 2, math.nan, math.inf])
def test_fractions_lie_strictly_inside(value):
    with pytest.raises(ValueError, match=r"size: .* given; want a number in \(0, 1\)"):
        require_fraction("size", value)
    assert require_fraction("size", np.float32(0.5)) == 0.5


def test_counts_are_whole_and_bounded():
    assert require_count("steps", np.int32(3), low=1) == 3
    assert type(require_count("steps", np.int32(3), low=1)) is int
    assert require_count("steps", LARGEST_COUNT, low=1) == LARGEST_COUNT
    for value in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match=r"steps: .* given; want an integer"):
            require_count("steps", value, low=1)
    with pytest.raises(ValueError, match=r"steps: 0.* given; want at least 1"):
        require_count("steps", 0, low=1)
    with pytest.raises(ValueError, match=r"steps: .* given; want at most 2147483647"):
        require_count("steps", LARGEST_COUNT + 1, low=1)
    with pytest.raises(ValueError, match=r"steps: 4.* given; want at most 3"):
        require_count("steps", 4, low=1, most=3)


def test_flags_are_true_or_false():
    for value in (True, np.bool_(True)):
        assert require_bool("plain", value) is True
    for value in (1, None, "no"):
        with pytest.raises(TypeError, match=r"plain: .* given; want True or False"):
            require_bool("plain", value)


@pytest.mark.parametrize(
    "value", ["third", "", None, 1, [], np.array(["first"] * 2), pytest.param(10**5000, id="huge")]
)
def test_choices_are_listed(value):
    with pytest.raises(ValueError, match=r"which: .* given; want one of 'first', 'second'"):
        require_choice("which", value, ("first", "second"))
    assert require_choice("which", "second", ("first", "second")) == "second"


@pytest.mark.parametrize("value", [3, np.array(2), memoryview(np.zeros((2, 2)))])
def test_what_has_no_items_is_named(value):
    with pytest.raises(TypeError, match=r"sizes: .* given; want a sequence"):
        require_items("sizes", value, "a sequence")
    assert require_items("sizes", np.array([2, 3]), "a sequence") == [2, 3]


def test_an_instance_of_another_class_is_named():
    with pytest.raises(TypeError, match="batch: 3 given; want a dict"):
        require_kind("batch", 3, dict)
    own = {}
    assert require_kind("batch", own, dict) is own
