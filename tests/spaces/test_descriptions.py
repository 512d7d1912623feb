"""Plain spaces beside Gymnasium's. What is damaged, and how observations become rows: tests/rollout."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple, flatdim

from tests.agents import ACTIONS, OBSERVATIONS
from tests.discretes import discrete
from trpo_fast import spaces
from trpo_fast.gymnasium_spaces import described, space_to_json

SPACES = [
    *ACTIONS,
    *OBSERVATIONS,
    Box(np.arange(6.0).reshape(2, 3) - 9, np.full((2, 3), np.inf), dtype=np.float64),
    Box(-(2**40), 2**40, (2,), np.int64),
    discrete(3, start=-1, dtype=np.int8),
    MultiBinary([3]),
    Tuple([Discrete(2), Dict(z=Box(0, 1, (1,)), y=Discrete(3))]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_plain_space_prints_and_behaves_as_gymnasiums(space):
    plain = described(space)
    assert str(plain) == str(space)
    assert sum(map(spaces.flat_size, spaces.leaves(plain))) == flatdim(space)
    if not isinstance(space, (Dict, Tuple)):
        assert plain.shape == space.shape and plain.dtype == space.dtype


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_plain_space_survives_json(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    plain = spaces.from_json(json.loads(text))
    assert str(plain) == str(space)
    assert json.dumps(spaces.to_json(plain)) == text


@pytest.mark.parametrize(
    "description",
    [
        {"type": "Box", "low": 2, "high": 1, "shape": [2], "dtype": "float32"},
        {"type": "Box", "low": "nan", "high": 1, "shape": [2], "dtype": "float32"},
        {"type": "Box", "low": "-inf", "high": 1, "shape": [2], "dtype": "int64"},
        {"type": "Box", "low": 0, "high": 1, "shape": [-2], "dtype": "float32"},
        {"type": "Box", "low": [0, 0, 0], "high": 1, "shape": [2], "dtype": "float32"},
        {"type": "Box", "low": 0, "high": 1, "shape": [2], "dtype": "complex64"},
        *(
            {"type": "Box", "low": 0, "high": 1, "shape": [2], "dtype": name}
            for name in ("1" * 5000, "f4,f4", "(2,)f4")
        ),
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "Discrete", "n": True, "start": 0},
    ],
    ids=str,
)
def test_what_no_space_can_be_is_refused(description):
    with pytest.raises(ValueError, match="damaged description of a space"):
        spaces.from_json(description)


def test_a_dict_whose_keys_a_file_cannot_keep_cannot_be_saved():
    part = described(Discrete(2))
    for keys in ((1, 2), True, 1.5), (1, "1"):
        with pytest.raises(ValueError, match=r"space: keys? .* given; want"):
            spaces.to_json(spaces.Dict(dict.fromkeys(keys, part)))
    assert spaces.to_json(spaces.Dict({1: part}))["spaces"][0][0] == 1


@pytest.mark.parametrize("given", [torch.zeros(3), [1], {"type": "Tuple", "spaces": 3}, {"type": "Discrete", "n": []}])
def test_what_describes_no_space_is_refused_without_a_warning(given):
    with pytest.raises(ValueError, match="damaged description of a space"):
        spaces.from_json(given)


def test_a_bound_on_numbers_that_is_none_is_named():
    with pytest.raises(TypeError, match="most: 'many' given; want an integer"):
        spaces.from_json({"type": "MultiBinary", "n": 2}, "many")
