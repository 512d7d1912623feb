from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

from trpo_fast.rollout.spaces import check_action_space, check_observation_space, space_from_json, space_to_json

BOXES = [
    Box(-np.inf, np.inf, (17,), np.float64),
    Box(np.array([-1.0, -np.inf], np.float32), np.array([np.inf, 0.1], np.float32)),
    Box(0, 255, (84, 84, 4), np.uint8),
    Box(-0.4, 0.4, (1,), np.float32),
    Box(np.arange(6.0).reshape(2, 3) - 9, np.arange(6.0).reshape(2, 3), dtype=np.float64),
    Box(-2, 2, (), np.float32),
]


@pytest.mark.parametrize("space", [*BOXES, Discrete(4), Discrete(3, start=-1)])
def test_space_survives_strict_json(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    restored = space_from_json(json.loads(text))
    assert restored == space
    assert restored.dtype == space.dtype
    assert len(text) < 300


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=5))
def test_bounds_survive_bit_for_bit(high):
    space = Box(-np.inf, np.array(high, np.float32))
    np.testing.assert_array_equal(space_from_json(space_to_json(space)).high, space.high)


def test_unsupported_spaces_are_named():
    with pytest.raises(ValueError, match=r"observation space must be a Box, got Dict"):
        check_observation_space(Dict(a=Discrete(2)))
    with pytest.raises(ValueError, match=r"observation space must have at least one item, got Box"):
        check_observation_space(Box(0, 1, (0,)))
    with pytest.raises(ValueError, match=r"action space must be a Discrete or a Box of floats, got MultiDiscrete"):
        check_action_space(MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match=r"action space must be a Discrete or a Box of floats, got Box.*int32"):
        check_action_space(Box(0, 3, (2,), np.int32))
    with pytest.raises(ValueError, match=r"action space must have at least one item, got Box"):
        check_action_space(Box(0, 1, (0,)))
    with pytest.raises(ValueError, match="space must be a Box or a Discrete, got MultiDiscrete"):
        space_to_json(MultiDiscrete([2, 3]))


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"type": "Box", "shape": [2]},
        {"type": "Tuple"},
        {"type": "Discrete", "n": -1, "start": 0},
        {"type": "Discrete"},
    ],
)
def test_damaged_descriptions_are_refused(description):
    with pytest.raises(ValueError, match="space"):
        space_from_json(description)
