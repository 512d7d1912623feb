"""How a policy's actions become a Box's; paths that act have tests of their own, beside the same oracle."""

from __future__ import annotations

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from trpo_fast.gymnasium_spaces import action_layout, described, resolved_action_map, unreached_sides
from trpo_fast.spaces import ActionStructure

INF = np.inf


def box(*sides, dtype=np.float64):
    low, high = zip(*sides, strict=True)
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


@pytest.mark.parametrize(
    ("space", "resolved"),
    [
        (box((-1, 1), (-1, 1)), "clip"),
        (box((-1, 1), (-1, 1.001)), "affine"),
        (box((-3, 3), (-0.3, 0.3)), "affine"),
        (box((0, 1)), "affine"),
        (box((0, 200), (0, 0.5)), "affine"),
        (box((0.5, 2)), "affine"),
        (box((-2, -0.5)), "affine"),
        (box((0, 200), (0, INF)), "clip"),
        (box((8, 40), (-INF, 1)), "clip"),
        (box((-INF, INF)), "clip"),
        (box((-1e9, 1e9)), "clip"),
        (box((-9e8, 9e8)), "affine"),
        (Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32), "clip"),
        (Box(8, 40, (), np.float32), "affine"),
        (Box(0, 500, (2, 2), np.float16), "affine"),
        (Discrete(3), "clip"),
        (MultiDiscrete([2, 3]), "clip"),
        (MultiBinary(3), "clip"),
    ],
    ids=str,
)
def test_auto_maps_bounded_boxes_that_are_not_from_minus_one_to_one_already(space, resolved):
    assert resolved_action_map(space, "auto") == resolved
    assert (action_layout(space, "auto").scale is None) == (resolved == "clip")


def test_a_box_from_minus_one_to_one_has_nothing_to_map():
    layout = action_layout(box((-1, 1), (-1, 1)))
    assert layout.scale is None and layout.offset is None
    assert unreached_sides(box((-1, 1), (-1, 1))) == []


CLASSIC = ["Pendulum-v1", "MountainCarContinuous-v0"]
MUJOCO = [
    *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum"),
    *("Pusher", "Reacher", "Swimmer", "Walker2d"),
]


@pytest.mark.parametrize("id", [*CLASSIC, *(f"{name}-v5" for name in MUJOCO)])
def test_the_tasks_that_were_measured_are_mapped_where_their_boxes_are_others(id):
    if id not in CLASSIC and importlib.util.find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    env = gymnasium.make(id)
    mapped = id.startswith(("Humanoid", "InvertedPendulum", "Pusher", "Pendulum"))
    assert resolved_action_map(env.action_space, "auto") == ("affine" if mapped else "clip")
    env.close()


finite = st.floats(-1e300, 1e300)
sides = st.lists(st.tuples(finite, finite).map(sorted), min_size=1, max_size=4)


@settings(deadline=None)
@given(sides, st.randoms(use_true_random=False))
def test_the_affine_map_takes_minus_one_to_one_to_the_box_in_order(bounds, random):
    space = box(*bounds)
    layout = action_layout(space, "affine")
    actions = np.sort([[random.uniform(-1.5, 1.5) for _ in range(20)] for _ in bounds], axis=1).T
    actions = np.concatenate([np.full((1, len(bounds)), -1.0), actions, np.full((1, len(bounds)), 1.0)])
    mapped = np.clip(layout.scale * actions + layout.offset, layout.low, layout.high)
    width = space.high / 2 - space.low / 2
    tolerance = 1e-14 * np.maximum(abs(space.low), abs(space.high)) + 5e-324
    assert (abs(mapped[0] - space.low) <= tolerance).all() and (abs(mapped[-1] - space.high) <= tolerance).all()
    assert (np.diff(mapped[1:-1], axis=0) >= 0).all()
    expected = reference.environment_action(actions, space.low, space.high, "affine")
    assert (abs(mapped / 2 - expected / 2) <= tolerance + 1e-14 * width).all()


def test_a_dimension_that_is_minus_one_to_one_already_is_the_same_under_both_maps():
    layout = action_layout(box((0, 200), (-1, 1)), "affine")
    assert (layout.scale[1], layout.offset[1]) == (1, 0)


def test_the_widest_box_has_a_finite_map():
    largest = np.finfo(np.float64).max
    layout = action_layout(box((-largest, largest)), "affine")
    assert (layout.scale.item(), layout.offset.item()) == (largest, 0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (box((0, 1), (-INF, 1)), r"'affine' given, but dimension 1 of Box\(.* goes from -inf to 1; want 'clip'"),
        (Box(0, INF, (2, 2), np.float32), r"'affine' given, but dimension 0, 0 of Box\(.* goes from 0 to inf"),
        (Box(0, INF, (), np.float32), r"'affine' given, but the action of Box\(.* goes from 0 to inf"),
        (Discrete(3), r"'affine' given for Discrete\(3\); want 'auto' or 'clip', only a Box has sides"),
    ],
    ids=str,
)
def test_an_affine_map_that_cannot_be_is_refused_by_dimension(space, message):
    for use in resolved_action_map, action_layout:
        with pytest.raises(ValueError, match="action_map: " + message):
            use(space, "affine")


def test_a_map_that_there_is_not_is_refused_by_name():
    with pytest.raises(ValueError, match="action_map: 'tanh' given; want one of 'auto', 'affine', 'clip'"):
        action_layout(box((-1, 1)), "tanh")


def test_unreached_sides_are_those_beyond_reach_and_those_on_the_other_side_of_zero():
    space = box((0, 200), (8, 40), (-1, 1), (8, INF), (-INF, -0.1), (-1e9, 4))
    assert unreached_sides(space) == [
        ("dimension 0", 200.0),
        ("dimension 1", 8.0),
        ("dimension 1", 40.0),
        ("dimension 3", 8.0),
        ("dimension 4", -0.1),
        ("dimension 5", 4.0),
    ]
    assert unreached_sides(box((-50, 200)), reach=60.0) == [("dimension 0", 200.0)]
    assert unreached_sides(Discrete(3)) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resolved_action_map(Box(-1, 1, (2,)), ["clip"]), r"action_map: \['clip'\] given; want one of"),
        (lambda: unreached_sides(Box(-1, 1, (2,)), "far"), "reach: 'far' given; want a number"),
        (lambda: ActionStructure(described(Discrete(3))).rows([0], "one"), "count: 'one' given; want an integer"),
        (lambda: ActionStructure(described(Discrete(3))).rows([[0], [0, 1]], 2), "actions: no array can be made of it"),
    ],
)
def test_what_is_of_another_kind_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
