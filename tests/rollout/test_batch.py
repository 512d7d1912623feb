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
        ({"observations": np.zeros(6)}, ValueError, r"observations must have shape \(B, D\) with B >= 1, got \(6,\)"),
        ({"observations": np.zeros((0, 3))}, ValueError, r"observations must .* got \(0, 3\)"),
        ({"observations": np.zeros((6, 3), int)}, TypeError, "observations must be floating or uint8, got dtype int64"),
        ({"observations": np.full((6, 3), np.nan)}, ValueError, r"observations must be finite, got nan at \(0, 0\)"),
        ({"actions": np.zeros((5, 2))}, ValueError, r"actions must have shape \(6,\) or \(6, A\), got \(5, 2\)"),
        ({"actions": np.zeros((6, 2, 2))}, ValueError, r"actions must have shape .* got \(6, 2, 2\)"),
        ({"actions": np.zeros(6, bool)}, TypeError, "actions must be floating or integer, got dtype bool"),
        ({"advantages": np.zeros((6, 1))}, ValueError, r"advantages must have shape \(6,\) .*, got \(6, 1\)"),
        (
            {"advantages": np.array([0, 0, np.inf, 0, 0, 0])},
            ValueError,
            r"advantages must be finite, got inf at \(2,\)",
        ),
        ({"log_probs": np.zeros(7)}, ValueError, r"log_probs must have shape \(6,\)"),
        ({"action_masks": np.ones((6, 4))}, TypeError, "action_masks must be bool, got dtype float64"),
        ({"action_masks": np.ones(6, bool)}, ValueError, r"action_masks must have shape \(6, K\), got \(6,\)"),
        ({"advantages": torch.zeros(6, device="meta")}, ValueError, "advantages must be on the CPU, got .* meta"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        Batch(**parts(**changes))


def test_an_action_beyond_int64_is_named():
    with pytest.raises(ValueError, match=r"actions must be below 2\*\*63, got 9223372036854775808"):
        Batch(np.ones((2, 3)), np.array([0, 2**63], np.uint64), np.ones(2))
