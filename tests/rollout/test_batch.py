from __future__ import annotations

import numpy as np
import pytest
import torch

from trpo_fast.rollout.batch import Batch


def parts(size=6, **changes):
    rng = np.random.default_rng(0)
    given = {
        "observations": rng.normal(size=(size, 3)),
        "actions": rng.normal(size=(size, 2)),
        "advantages": rng.normal(size=size),
    }
    return {**given, **changes}


@pytest.mark.parametrize("as_tensors", [False, True])
def test_contiguous_input_is_kept_without_a_copy(as_tensors):
    given = parts(log_probs=np.zeros(6), action_masks=np.ones((6, 4), bool))
    inputs = {name: torch.from_numpy(array) for name, array in given.items()} if as_tensors else given
    batch = Batch(**inputs)
    assert len(batch) == 6
    for name, array in given.items():
        assert np.shares_memory(getattr(batch, name), array)
        np.testing.assert_array_equal(getattr(batch, name), array)


def test_tensor_that_requires_grad_is_accepted():
    observations = torch.ones((6, 3), requires_grad=True)
    assert Batch(**parts(observations=observations)).observations.dtype == np.float32


def test_strided_input_becomes_contiguous_and_images_become_rows():
    observations = np.arange(6 * 8.0).reshape(6, 2, 4)[:, :, ::2]
    batch = Batch(**parts(observations=observations))
    assert batch.observations.flags.c_contiguous
    np.testing.assert_array_equal(batch.observations, observations.reshape(6, 4))


def test_integer_actions_become_int64():
    batch = Batch(**parts(actions=np.arange(6, dtype=np.int32)))
    assert batch.actions.dtype == np.int64
    assert batch.log_probs is None
    assert batch.action_masks is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"observations": np.zeros(6)}, ValueError, r"observations: shape \(6,\) given; want \(B, D\) with B >= 1"),
        (
            {"observations": np.zeros((0, 3))},
            ValueError,
            r"observations: shape \(0, 3\) given; want \(B, D\) with",
        ),
        ({"observations": np.zeros((6, 3), int)}, TypeError, "observations: dtype int64 given; want floating or uint8"),
        ({"observations": np.full((6, 3), np.nan)}, ValueError, r"observations: nan at \(0, 0\) given; want finite"),
        ({"actions": np.zeros((5, 2))}, ValueError, r"actions: shape \(5, 2\) given; want \(6,\) or \(6, A\)"),
        ({"actions": np.zeros((6, 2, 2))}, ValueError, r"actions: shape \(6, 2, 2\) given; want \(6,\) or \(6, A\)"),
        ({"actions": np.zeros(6, bool)}, TypeError, "actions: dtype bool given; want floating or integer"),
        ({"advantages": np.zeros((6, 1))}, ValueError, r"advantages: shape \(6, 1\) given; want \(6,\)"),
        (
            {"advantages": np.array([0, 0, np.inf, 0, 0, 0])},
            ValueError,
            r"advantages: inf at \(2,\) given; want finite",
        ),
        ({"log_probs": np.zeros(7)}, ValueError, r"log_probs: .* given; want \(6,\)"),
        ({"action_masks": np.ones((6, 4))}, TypeError, "action_masks: dtype float64 given; want bool"),
        ({"action_masks": np.ones(6, bool)}, ValueError, r"action_masks: shape \(6,\) given; want \(6, K\)"),
        ({"advantages": [[0.0], [0.0, 1.0]]}, ValueError, "advantages: no array can be made of it"),
        ({"advantages": torch.zeros(6, dtype=torch.bfloat16)}, TypeError, "advantages: .*bfloat16 given"),
        ({"sequences": {}}, TypeError, "sequences: {} given; want a Sequences"),
        ({"part_starts": np.array(0)}, TypeError, r"part_starts: array\(0\) given; want a sequence of rows"),
        ({"part_starts": (0, 2.5)}, TypeError, "part_starts: 2.5 given; want an integer"),
        ({"advantages": torch.zeros(6, device="meta")}, ValueError, "advantages: .* meta given; want one on the CPU"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        Batch(**parts(**changes))


def test_an_action_beyond_int64_is_named():
    with pytest.raises(ValueError, match=r"actions: 9223372036854775808 given; want numbers below 2\*\*63"):
        Batch(np.ones((2, 3)), np.array([0, 2**63], np.uint64), np.ones(2))


@pytest.mark.parametrize(("index", "error"), [(1, ValueError), (-1, ValueError), ("0", TypeError)])
def test_a_part_that_is_not_there_is_named(index, error):
    with pytest.raises(error, match=f"index: {index!r} given; want"):
        Batch(**parts()).part(index)
