"""Acting for hundreds of rows, which several threads share by tiles."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from trpo_fast import MLPPolicy, get_num_threads, make_engine, set_num_threads

SPACES = [gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(4, start=2)]
ROWS = 500  # six tiles of 96


@pytest.fixture(autouse=True)
def restored_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def act(space, threads, observations, first_row=0):
    """All that acting writes."""
    set_num_threads(threads)
    engine = make_engine(MLPPolicy(gymnasium.spaces.Box(-1, 1, (5,)), space, hidden_sizes=(16,), seed=1))
    rows, box = len(observations), isinstance(space, gymnasium.spaces.Box)
    shape, dtype = ((rows, 3), np.float32) if box else ((rows,), np.int64)
    out = [np.zeros((rows, 5), np.float32), np.zeros(shape, dtype), np.zeros(rows, np.float32), np.zeros(shape, dtype)]
    engine.actor(space, seed=3, stream=0).act(observations, 7, *out, first_row=first_row)
    return out


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_rows_have_the_same_bits_on_any_number_of_threads_and_one_by_one(space, threads):
    observations = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    alone, shared = act(space, 1, observations), act(space, threads, observations)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(shared[2])) > ROWS // 2
    for row in (0, 95, 96, 191, 288, 499):
        single = act(space, 1, observations[row : row + 1], first_row=row)
        for one, other in zip(single, shared, strict=True):
            np.testing.assert_array_equal(one[0], other[row])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_first_of_several_bad_rows_is_named(threads):
    observations = np.zeros((ROWS, 5), np.float32)
    observations[[130, 400], 2] = np.nan
    with pytest.raises(FloatingPointError, match="observation of environment 130 is not finite"):
        act(SPACES[0], threads, observations)
