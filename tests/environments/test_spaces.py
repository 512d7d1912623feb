from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, OneOf, Sequence, Text, Tuple
from hypothesis import given
from hypothesis import strategies as st

from tests.discretes import discrete
from trpo_fast.gymnasium_spaces import (
    action_layout,
    check_action_space,
    check_observation_space,
    numeric_columns,
    observation_size,
    space_from_json,
    space_to_json,
)

BOXES = [
    Box(-np.inf, np.inf, (17,), np.float64),
    Box(np.array([-1.0, -np.inf], np.float32), np.array([np.inf, 0.1], np.float32)),
    Box(0, 255, (84, 84, 4), np.uint8),
    Box(-0.4, 0.4, (1,), np.float32),
    Box(np.arange(6.0).reshape(2, 3) - 9, np.arange(6.0).reshape(2, 3), dtype=np.float64),
    Box(-2, 2, (), np.float32),
    Box(0, 1, (2,), bool),
    Box(-(2**40), 2**40, (2,), np.int64),
]
OTHERS = [
    Discrete(4),
    Discrete(3, start=-1),
    discrete(3),
    MultiDiscrete([2, 3, 4]),
    MultiDiscrete([[2, 3], [1, 5]], start=[[0, -1], [7, 2]], dtype=np.int32),
    MultiBinary(3),
    MultiBinary([3]),
    MultiBinary((2, 2)),
    Tuple([Discrete(2), Box(0, 1, (2,))]),
    Dict(a=Discrete(2), b=Tuple([MultiBinary(2), Dict(z=Box(0, 1, (1,)), y=Discrete(3))])),
    Dict([(1, Discrete(2)), (0, Box(0, 1, (2, 0), np.float32))]),
]


@pytest.mark.parametrize("space", [*BOXES, *OTHERS], ids=str)
def test_space_survives_strict_json(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    restored = space_from_json(json.loads(text))
    assert restored == space
    assert restored.dtype == space.dtype
    assert len(text) < 400


def test_order_of_a_dicts_keys_survives_as_it_is_that_of_the_columns():
    space = Dict([("b", Discrete(2)), ("a", Discrete(3))])
    assert list(space_from_json(json.loads(json.dumps(space_to_json(space)))).spaces) == ["b", "a"]


def test_discrete_of_an_older_file_has_the_default_dtype():
    assert space_from_json({"type": "Discrete", "n": 3, "start": 1}) == Discrete(3, start=1)


def test_a_discrete_space_is_made_as_gymnasium_before_1_2_2_makes_it(monkeypatch):
    class Older(Discrete):
        def __init__(self, n, seed=None, start=0):
            super().__init__(n, seed, start)

    description = space_to_json(Discrete(3, start=-1))
    monkeypatch.setattr("trpo_fast.gymnasium_spaces.Discrete", Older)
    found = space_from_json(description)
    assert type(found) is Older
    assert (found.n, found.start, found.dtype) == (3, -1, np.int64)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=5))
def test_bounds_survive_bit_for_bit(high):
    space = Box(-np.inf, np.array(high, np.float32))
    np.testing.assert_array_equal(space_from_json(space_to_json(space)).high, space.high)


UNSUPPORTED = [Text(5), Graph(Box(0, 1, (2,)), None), Sequence(Discrete(2)), OneOf([Discrete(2), Discrete(3)])]


@pytest.mark.parametrize("space", UNSUPPORTED, ids=lambda space: type(space).__name__)
def test_unsupported_spaces_are_named(space):
    name = type(space).__name__
    for refuse in check_observation_space, observation_size, numeric_columns:
        with pytest.raises(ValueError, match=rf"^observation space: {name}.* given; want a Box, .*"):
            refuse(space)
    with pytest.raises(ValueError, match=rf"^observation\['a'\]\[1\]: its space: {name}.* given; want a Box, .*"):
        check_observation_space(Dict(a=Tuple([Discrete(2), space])))
    with pytest.raises(ValueError, match=rf"action space: {name}.* given; want a Box of floats, Discrete, .*"):
        check_action_space(space)
    with pytest.raises(ValueError, match=rf"^action\['a'\]\[1\]: its space: {name}.* given; want a Box, .*"):
        check_action_space(Dict(a=Tuple([Discrete(2), space])))
    with pytest.raises(ValueError, match=rf"space: {name}.* given; want one of .*Box"):
        space_to_json(space)


def test_spaces_that_are_empty_or_of_the_wrong_kind_are_named():
    for space in Box(0, 1, (0,)), Dict(), Tuple([Box(0, 1, (2, 0))]):
        with pytest.raises(ValueError, match=r"observation space: .* given; want at least one item"):
            check_observation_space(space)
    with pytest.raises(ValueError, match=r"action space: Box.*int32.* given; want a Box of floats, not of integers"):
        check_action_space(Box(0, 3, (2,), np.int32))
    with pytest.raises(ValueError, match=r"action space: Box.* given; want at least one item"):
        check_action_space(Box(0, 1, (0,)))
    for space in Dict(), Tuple([]), Tuple([Dict()]):
        with pytest.raises(ValueError, match=r"action space: (Dict|Tuple)\(.*\) given; want at least one item"):
            check_action_space(space)
    for space, message in (
        (
            Dict(a=Tuple([Box(0, 3, (2,), np.int32)])),
            r"action\['a'\]\[0\]: its space: .* given; want a Box of floats, not",
        ),
        (Tuple([Discrete(2), Box(0, 1, (2, 0))]), r"action\[1\]: its space: Box.* given; want at least one item"),
    ):
        with pytest.raises(ValueError, match=message):
            check_action_space(space)
    with pytest.raises(ValueError, match=r"key \(1, 2\) given; want strings or integers as keys"):
        space_to_json(Dict({(1, 2): Discrete(2)}))


def test_numeric_columns_are_those_of_the_boxes():
    space = Dict(
        a=Box(0, 1, (2,)), b=Discrete(3), c=Tuple([MultiBinary(2), Box(0, 9, (), np.int64), MultiDiscrete([2])])
    )
    expected = [True] * 2 + [False] * 3 + [False] * 2 + [True] + [False] * 2
    np.testing.assert_array_equal(numeric_columns(space), expected)
    assert observation_size(space) == len(expected)


@pytest.mark.parametrize(
    ("space", "distribution", "shape", "outputs", "mask_size", "start"),
    [
        (Box(-1, 1, (2, 3)), "gaussian", (6,), 6, 0, []),
        (Discrete(4, start=-2), "categorical", (), 4, 4, [-2]),
        (MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]]), "multicategorical", (4,), 14, 14, [1, 2, 3, 4]),
        (MultiBinary((2, 3)), "bernoulli", (6,), 6, 12, [0] * 6),
    ],
    ids=str,
)
def test_action_layout(space, distribution, shape, outputs, mask_size, start):
    layout = action_layout(space)
    assert (layout.distribution, layout.shape, layout.outputs, layout.mask_size) == (
        distribution,
        shape,
        outputs,
        mask_size,
    )
    np.testing.assert_array_equal(layout.start, start)


@pytest.mark.parametrize(
    "description",
    [
        {},
        [],
        None,
        {"type": "Box", "shape": [2]},
        {"type": "Graph"},
        {"type": ["Box"]},
        {"type": "Discrete", "n": -1, "start": 0},
        {"type": "Discrete", "n": 2, "start": 0, "dtype": "float32"},
        {"type": "Discrete"},
        {"type": "MultiDiscrete", "nvec": [2, 0], "start": [0, 0], "dtype": "int64"},
        {"type": "MultiDiscrete", "nvec": [2.5], "start": [0], "dtype": "int64"},
        {"type": "MultiDiscrete", "nvec": [2, 2], "start": [0], "dtype": "int64"},
        {"type": "MultiBinary", "n": "three"},
        {"type": "MultiBinary", "n": -3},
        {"type": "Tuple"},
        {"type": "Tuple", "spaces": [{"type": "Discrete"}]},
        {"type": "Dict", "spaces": [["a"]]},
        {"type": "Dict", "spaces": [["a", {"type": "MultiBinary", "n": 2}], ["a", {"type": "MultiBinary", "n": 2}]]},
        {"type": "Dict", "spaces": [[1.5, {"type": "MultiBinary", "n": 2}]]},
    ],
    ids=str,
)
def test_damaged_descriptions_are_refused(description):
    with pytest.raises(ValueError, match="space"):
        space_from_json(description)
