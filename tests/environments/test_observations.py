"""Rows against gymnasium's own flatten, one observation at a time."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, flatdim, flatten
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.discretes import discrete
from tests.rollout.toys import make_environments
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.gymnasium_spaces import observation_size

LEAVES = st.one_of(
    st.builds(
        lambda shape, dtype: Box(0, 1 if dtype is bool else 100, tuple(shape), dtype),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from([bool, np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64]),
    ),
    st.builds(
        discrete,
        st.integers(1, 5),
        st.integers(-3, 3),
        st.sampled_from([np.int8, np.int64]),
    ),
    st.builds(
        lambda nvec, start: MultiDiscrete(nvec, start=np.full(np.shape(nvec), start)),
        st.one_of(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.just([[2, 3], [1, 4]])),
        st.integers(-3, 3),
    ),
    st.builds(MultiBinary, st.one_of(st.integers(1, 4), st.just((2, 3)))),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(Tuple),
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(Dict),
    ),
    max_leaves=5,
).filter(lambda space: flatdim(space) > 0)


def batch_of(space, samples):
    """As a VectorEnv hands them out."""
    return concatenate(space, samples, create_empty_array(space, len(samples)))


def expected_rows(space, samples, dtype):
    return np.array([flatten(space, sample) for sample in samples], np.float64).astype(dtype)


@settings(max_examples=200, deadline=None)
@given(SPACES, st.integers(0, 2**31), st.integers(1, 5))
def test_rows_are_gymnasiums_flatten(space, seed, count):
    space.seed(seed)
    samples = [space.sample() for _ in range(count)]
    layout = ObservationLayout(space)
    expected = expected_rows(space, samples, layout.dtype)
    assert layout.size == observation_size(space) == flatdim(space)

    rows = np.full((count, layout.size), np.nan, layout.dtype)
    layout.flatten(batch_of(space, samples), count, rows, "step")
    np.testing.assert_array_equal(rows, expected)

    several, single = layout.flatten_any(batch_of(space, samples))
    assert not single
    np.testing.assert_array_equal(several, expected)
    one, single = layout.flatten_any(samples[0])
    assert single
    np.testing.assert_array_equal(one, expected[:1])

    objects = np.full(count, None, object)
    objects[-1] = samples[-1]
    last = np.array([count - 1])
    np.testing.assert_array_equal(layout.flatten_some(objects, last), expected[-1:])
    np.testing.assert_array_equal(layout.flatten_some(batch_of(space, samples), last), expected[-1:])


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (Dict(a=Box(0, 1, (2,), np.uint8), b=Discrete(3)), np.float32),
        (Tuple([Box(0, 1, (2,), np.float16), Box(0, 1, (2,), bool)]), np.float32),
        (Dict(a=Box(0, 1, (2,)), b=Box(0, 2**40, (1,), np.int64)), np.float64),
        (Dict(a=Box(0, 1, (2,)), b=Box(0, 1, (1,), np.float64)), np.float64),
        (MultiDiscrete([2, 3]), np.float32),
    ],
    ids=str,
)
def test_rows_are_float32_where_that_holds_every_value(space, dtype):
    assert ObservationLayout(space).dtype == dtype


NESTED = Dict(a=Tuple([Discrete(3, start=1), Box(-1, 1, (2,))]), b=MultiBinary(2))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"b": 0}, ValueError, r"observations: \['b'\] given; want a dict with a, b"),
        (np.zeros((2, 3)), ValueError, r"observations: ndarray given; want a dict with a, b"),
        ({"a": (0,), "b": 0}, ValueError, r"observations\['a'\]: a tuple of 1 items given; want a tuple of 2 items"),
        ({"a": [0, 0], "b": 0}, ValueError, r"observations\['a'\]: a list of 2 items given; want a tuple of 2 items"),
        (
            {"a": (np.ones(3, int), np.zeros((2, 2))), "b": np.zeros((2, 2))},
            ValueError,
            r"observations\['a'\]\[0\]: shape \(3,\) returned by step; want \(2,\), as their space says",
        ),
        (
            {"a": (np.ones(2, int), np.zeros((2, 2))), "b": np.zeros((2, 3))},
            ValueError,
            r"observations\['b'\]: .* returned by .*; want \(2, 2\)",
        ),
        (
            {"a": (np.array([1, 4]), np.zeros((2, 2))), "b": np.zeros((2, 2))},
            ValueError,
            r"observations\['a'\]\[0\]: 4 is no choice of Discrete\(3, start=1\)",
        ),
        (
            {"a": (np.array([0, 1]), np.zeros((2, 2))), "b": np.zeros((2, 2))},
            ValueError,
            r"observations\['a'\]\[0\]: 0 is no choice of Discrete\(3, start=1\)",
        ),
        (
            {"a": (np.array([1.0, 1.0]), np.zeros((2, 2))), "b": np.zeros((2, 2))},
            TypeError,
            r"observations\['a'\]\[0\]: float64 returned by .*; want int64, as its space says",
        ),
    ],
)
def test_batch_that_is_not_built_as_the_space_is_named_by_its_part(batch, error, message):
    layout = ObservationLayout(NESTED)
    with pytest.raises(error, match=message):
        layout.flatten(batch, 2, np.zeros((2, layout.size)), "step")


@pytest.mark.parametrize(
    ("space", "good", "bad", "part"),
    [
        (NESTED, *({"a": (a, np.zeros(2, np.float32)), "b": np.zeros(2, np.int8)} for a in (1, 4)), r"\['a'\]\[0\]"),
        (Discrete(3, start=1), 1, 4, ""),
    ],
    ids=["part", "whole"],
)
def test_a_value_that_is_no_choice_is_named_with_its_environment_and_part(space, good, bad, part):
    layout = ObservationLayout(space)
    with pytest.raises(ValueError, match=rf"^observation of environment 6{part}: 4 is no choice of Discrete\(3"):
        layout.flatten_each([good, bad, good], np.zeros((3, layout.size)), "step", 5)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (
            {"a": (1, [0.0, 0.0, 0.0]), "b": [0, 1]},
            r"observation\['a'\]\[1\]: shape \(3,\) given; want \(2,\) for one observation or \(n, 2\) for several",
        ),
        ({"a": (1, [[0.0, 0.0]]), "b": [0, 1]}, r"observation\['a'\]\[1\]: shape \(1, 2\) given; want \(2,\), as of"),
        (
            {"a": ([1, 2], np.zeros((2, 2))), "b": np.zeros((3, 2))},
            r"observation\['b'\]: shape \(3, 2\) given; want",
        ),
        ({"a": (1, [[0.0], []]), "b": [0, 1]}, r"observation\['a'\]\[1\]: no array can be made of it"),
    ],
)
def test_observation_that_is_neither_one_nor_several_is_named_by_its_part(observation, message):
    with pytest.raises(ValueError, match=message):
        ObservationLayout(NESTED).flatten_any(observation)


def test_a_float_box_costs_no_copy():
    class Still(gymnasium.Env):
        observation_space = Box(-1, 1, (2, 3), np.float32)
        action_space = Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 3), np.float32), {}

    adapter = make_environments(Still, num_envs=2)
    assert np.shares_memory(adapter.reset(0), adapter.reset(1))
