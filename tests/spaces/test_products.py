"""Actions of Tuple and Dict spaces as rows, and back; masks for each of their parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.discretes import discrete
from trpo_fast.environments.masks import MaskFormat
from trpo_fast.gymnasium_spaces import (
    action_layout,
    action_structure,
    described,
    resolved_action_map,
    unreached_sides,
)

NESTED = Dict(
    [
        ("kick", discrete(3, start=-2)),
        ("arm", Tuple([Box(-1, 1, (2, 1), np.float16), MultiBinary((1, 2))])),
        ("power", Box(0, 10, (), np.float64)),
        ("grid", MultiDiscrete([[2, 3]], start=[[5, 2**60]])),
    ]
)
"""Its keys are in this order, which is not that of the alphabet."""
PLAIN = described(Box(-1, 1, (2,)))  # of observations
ROW = [1.0, 0.5, -0.25, 1.0, 0.0, 7.5, 0.0, 2.0]


def test_a_layout_is_its_parts_one_after_the_other():
    layout = action_layout(NESTED, "auto")
    assert (layout.distribution, layout.shape, layout.outputs, layout.nvec) == ("product", (8,), 3 + 2 + 2 + 1 + 5, ())
    assert [part.distribution for part in layout.parts] == [
        "categorical",
        "gaussian",
        "bernoulli",
        "gaussian",
        "multicategorical",
    ]
    assert layout.mask_size == 3 + 0 + 4 + 0 + 5
    assert layout.log_std_size == 3
    inf = np.inf
    np.testing.assert_array_equal(layout.low, [-inf, -1, -1, -inf, -inf, 0, -inf, -inf])
    np.testing.assert_array_equal(layout.high, [inf, 1, 1, inf, inf, 10, inf, inf])
    np.testing.assert_array_equal(layout.scale, [1, 1, 1, 1, 1, 5, 1, 1])
    np.testing.assert_array_equal(layout.offset, [0, 0, 0, 0, 0, 5, 0, 0])
    assert not layout.start.any()
    assert action_layout(NESTED).scale is None


def test_rows_become_actions_of_the_spaces_own_structure_and_dtypes():
    structure = action_structure(NESTED)
    (one,), several = structure.each(np.array([ROW])), structure.batch(np.array([ROW, ROW]))
    assert one in NESTED
    assert list(one) == list(several) == list(NESTED.spaces)
    assert isinstance(one["kick"], NESTED["kick"].dtype.type) and one["kick"] == -1
    assert isinstance(one["arm"], tuple) and one["arm"][0].tolist() == [[0.5], [-0.25]]
    assert one["arm"][1].tolist() == [[1, 0]]
    assert one["power"].shape == () and one["power"] == 7.5
    assert one["grid"].tolist() == [[5, 2**60 + 2]]  # above what a float holds exactly
    assert several["kick"].tolist() == [-1, -1] and several["arm"][0].shape == (2, 2, 1)
    assert (several["arm"][0].dtype, several["arm"][1].dtype, several["grid"].dtype) == (np.float16, np.int8, np.int64)


def test_a_space_without_parts_stays_an_array():
    structure = action_structure(Box(-1, 1, (2, 2)))
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(structure.batch(rows), rows.reshape(2, 2, 2))
    assert not structure.is_nested
    assert isinstance(action_structure(Discrete(3)).each(np.array([2]))[0], np.integer)


def test_every_box_has_a_map_of_its_own():
    wide, narrow = Box(0, 9, (2,)), Box(-1, 1, (1,))
    assert resolved_action_map(Tuple([Discrete(2), wide]), "auto") == "affine"
    assert resolved_action_map(Tuple([Discrete(2), narrow]), "auto") == "clip"
    assert resolved_action_map(Tuple([wide, narrow]), "auto") == "auto"
    assert resolved_action_map(Tuple([Discrete(2), MultiBinary(2)]), "auto") == "clip"
    affine = action_layout(Tuple([narrow, Discrete(2)]), "affine")
    np.testing.assert_array_equal(affine.scale, [1, 1])
    with pytest.raises(ValueError, match=r"action_map: 'affine' given for Tuple.*; want 'auto' or 'clip', only a Box"):
        action_layout(Tuple([Discrete(2)]), "affine")
    with pytest.raises(ValueError, match=r"action_map: 'affine' given, but dimension 0 of Box.* goes from 0 to inf"):
        action_layout(Dict(a=Box(0, np.inf, (1,))), "affine")


def test_unreached_sides_say_in_which_part_they_are():
    space = Dict(a=Tuple([Discrete(2), Box(0, 9, (2,))]), b=Box(-20, 1, ()))
    names = [name for name, _ in unreached_sides(space)]
    assert names == ["dimension 0 of action['a'][1]", "dimension 1 of action['a'][1]", "action['b']"]


MASK = {"kick": [0, 1, 1], "arm": (None, np.array([[2, 0]])), "grid": ((1, 0), (1, 1, 0))}
FLAT = np.array([0, 1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0], bool)


@pytest.mark.parametrize(
    ("mask", "row"),
    [
        (MASK, FLAT),
        (FLAT, FLAT),
        (FLAT.astype(np.int8), FLAT),
        (MASK | {"power": None}, FLAT),
        ({"kick": [0, 1, 1]}, [0, 1, 1] + [1] * 9),
        ({"arm": [None, [[True, False], [False, True]]]}, [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]),
        ({}, [1] * 12),
        (None, [1] * 12),
    ],
    ids=str,
)
def test_masks_are_nested_as_the_space_or_flat(mask, row):
    masks = MaskFormat(NESTED)
    assert masks.size == 12
    np.testing.assert_array_equal(masks.rows([mask, None], name="environment"), [row, np.ones(12)])
    if mask is not None:
        np.testing.assert_array_equal(masks.rows_for(mask, None, PLAIN, 1, single=True), [row])


def test_masks_gathered_by_key_belong_to_who_has_them():
    arms = np.empty(2, object)
    arms[0] = MASK["arm"]
    gathered = {"kick": np.array([[0, 1, 1], [0, 0, 0]]), "_kick": np.array([True, False]), "arm": arms}
    masks = MaskFormat(NESTED)
    rows = masks.rows(masks.apart(gathered, 2), name="environment")
    np.testing.assert_array_equal(rows, [[0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1], np.ones(12)])
    np.testing.assert_array_equal(masks.rows_for(gathered, None, PLAIN, 2, single=False), rows)
    with pytest.raises(ValueError, match=r"action_masks: .* given for 'kick'; want one for each of 3"):
        masks.apart(gathered, 3)


@pytest.mark.parametrize("count", [2, 3])
def test_masks_part_by_part_for_a_batch_are_not_taken_for_masks_of_its_items(count):
    masks, own = MaskFormat(Tuple([Discrete(3), Discrete(3)])), np.ones((count, 3), np.bool_)
    with pytest.raises(
        ValueError, match=r"(?s)observation 0: .* given; want a mask or None for each part|2 masks given"
    ):
        masks.rows_for((own, own), None, PLAIN, count, single=False)
    with pytest.raises(ValueError, match=r"(?s)observation 0: .* given; want a mask or None for each part"):
        masks.rows_for(own[:2], None, PLAIN, 1, single=True)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"kick": [0, 0, 0]}, r"environment 4 forbids every choice of part \['kick'\]; want"),
        ({"grid": [[1, 1], [0, 0, 0]]}, r"environment 4 forbids every choice of part \['grid'\] of component 1"),
        ({"kick": [1, 1]}, r"environment 4, part \['kick'\]: .* 2 items given; want 3 items"),
        ({"power": [1]}, r"environment 4, part \['power'\]: \[1\] given; want None for Box.*, masks are for discrete"),
        ({"arm": [1, 1, 1]}, r"environment 4, part \['arm'\]: a list of 3 items given; want a tuple of 2 items"),
        ({"kik": [1, 1, 1]}, r"environment 4: \['kik'\] given; want a dict with some of kick, arm, power, grid"),
        ([1, 1, 1], r"environment 4: list given; want a dict with some of kick"),
        (np.ones(11), r"environment 4: .* given; want a mask or None for each part of Dict.*, or 12 items of 0 and 1"),
        (np.full(12, 2), r"environment 4: .* given; want a mask or None for each part"),
    ],
    ids=str,
)
def test_masks_that_do_not_fit_are_named_with_their_part(mask, message):
    with pytest.raises(ValueError, match=message):
        MaskFormat(NESTED).rows([mask], name="environment", first=4)


def test_a_product_of_boxes_has_no_masks():
    assert MaskFormat(Tuple([Box(0, 1, (2,))])).size == 0


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.array(True), r"action_masks: .*True.* given; want one for each of 3 observations"),
        (3, "action_masks: 3 given; want one for each of 3 observations"),
        (memoryview(np.ones((3, 5))), r"action_masks: <memory.* given; want a mask for each"),
        (np.zeros((3, 0)), "action mask of observation 0: float64 of 0 items given; want 4 items"),
        (torch.ones((3, 4), device="meta"), "action mask of observation 0: .* on meta given; want one on the CPU"),
        ([[1], [[1, 0], 1], 1], "action mask of observation 0: int64 of 1 items given"),
    ],
)
def test_masks_that_are_none_are_named(masks, message):
    own = MaskFormat(Discrete(4))
    with pytest.raises((TypeError, ValueError), match=message):
        own.rows_for(masks, np.zeros((3, 2)), described(Box(-1, 1, (2,))), 3, single=False)
