"""Advantages and running statistics against their definitions, and bad input by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from trpo_fast._core.rollout import discounted_returns, generalized_advantages, merge_moments, normalize_advantages

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}


class Segment:
    """T steps of E environments with episodes that end in both ways, sometimes both at once."""

    def __init__(self, steps=40, envs=3, dtype=np.float64, seed=0, ends=0.15):
        rng = np.random.default_rng(seed)
        self.rewards, self.values, self.next_values = rng.normal(size=(3, steps, envs)).astype(dtype)
        self.terminated, self.truncated = rng.random((2, steps, envs)) < ends
        self.advantages, self.returns = np.full((2, steps, envs), np.nan, dtype)

    def arrays(self):
        return {name: getattr(self, name) for name in INPUTS + OUTPUTS}

    def run(self, gamma=0.97, gae_lambda=0.9, **replace):
        generalized_advantages(**(self.arrays() | replace), gamma=gamma, gae_lambda=gae_lambda)
        return self.advantages, self.returns


INPUTS = ("rewards", "values", "next_values", "terminated", "truncated")
OUTPUTS = ("advantages", "returns")


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    steps=st.integers(0, 30),
    envs=st.integers(0, 4),
    ends=st.sampled_from([0.0, 0.2, 1.0]),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_advantages_are_those_of_the_definition(steps, envs, ends, gamma, gae_lambda, dtype, seed):
    s = Segment(steps, envs, dtype, seed, ends)
    expected = reference.generalized_advantages(
        s.rewards, s.values, s.next_values, s.terminated, s.truncated, gamma, gae_lambda
    )
    for ours, theirs in zip(s.run(gamma, gae_lambda), expected, strict=True):
        # Sums of up to 1 / (1 - gamma lambda) terms, in double: what is left is the rounding of the result.
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[dtype], atol=40 * TOLERANCE[dtype])


def test_truncation_bootstraps_and_termination_does_not():
    one = {name: np.array([[value]]) for name, value in (("rewards", 1.0), ("values", 0.25), ("next_values", 10.0))}
    for terminated, truncated, expected in (
        (False, False, 1 + 0.5 * 10 - 0.25),
        (False, True, 1 + 0.5 * 10 - 0.25),
        (True, False, 1 - 0.25),
        (True, True, 1 - 0.25),
    ):
        advantages, returns = np.empty((2, 1, 1))
        generalized_advantages(
            **one,
            terminated=np.array([[terminated]]),
            truncated=np.array([[truncated]]),
            advantages=advantages,
            returns=returns,
            gamma=0.5,
            gae_lambda=0.9,
        )
        assert advantages == expected
        assert returns == expected + 0.25


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_advantages_do_not_leak_across_an_episodes_end(end):
    s = Segment(ends=0)
    getattr(s, end)[17, 1] = True
    before = [a.copy() for a in s.run()]
    s.rewards[18:, 1] += 100
    s.values[18:, 1] -= 50
    s.next_values[18:, 1] += 30
    for old, new in zip(before, s.run(), strict=True):
        np.testing.assert_array_equal(new[:18], old[:18])  # the row that ended is row 17: no off by one
        np.testing.assert_array_equal(new[:, [0, 2]], old[:, [0, 2]])
        assert (new[18:, 1] != old[18:, 1]).all()
    s.rewards[17, 1] += 1
    assert s.run()[0][16, 1] > before[0][16, 1]


def test_with_lambda_1_returns_are_discounted_sums():
    s = Segment(steps=12, envs=1, ends=0)
    s.next_values[:-1] = s.values[1:]
    _, returns = s.run(gamma=0.9, gae_lambda=1.0)
    powers = 0.9 ** np.arange(12)
    assert returns[0, 0] == pytest.approx(powers @ s.rewards[:, 0] + 0.9**12 * s.next_values[-1, 0], rel=1e-13)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


SPOILED = {
    "short": lambda a: a[:-1].copy(),
    "wide": lambda a: np.repeat(a, 2, axis=-1),
    "flat": lambda a: a.ravel(),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "integers": lambda a: np.zeros(a.shape, np.int64),
    "other precision": lambda a: a.astype(np.float32),
    "list": lambda a: a.tolist(),
    "nothing": lambda a: None,
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("name", INPUTS + OUTPUTS)
def test_advantage_arrays_that_do_not_fit_are_named(name, how):
    s = Segment()
    # The first array to be looked at sets the shape and precision that the others are held to.
    named = name if name != "values" or how not in ("short", "wide", "other precision") else "rewards"
    with pytest.raises((TypeError, ValueError), match=rf"^{named}: .* given; want "):
        s.run(**{name: SPOILED[how](getattr(s, name))})


@pytest.mark.parametrize("name", INPUTS + OUTPUTS)
def test_read_only_input_is_fine_and_read_only_output_is_not(name):
    s = Segment()
    if name in INPUTS:
        s.run(**{name: read_only(getattr(s, name))})
    else:
        with pytest.raises(ValueError, match=f"^{name}: .*read-only"):
            s.run(**{name: read_only(getattr(s, name))})


@pytest.mark.parametrize("other", ["rewards", "values", "next_values", "advantages"])
def test_results_that_share_memory_with_something_else_are_refused(other):
    s = Segment()
    for name in OUTPUTS if other != "advantages" else ("returns",):
        with pytest.raises(ValueError, match=f"{name}: shares memory with {other}"):
            s.run(**{name: getattr(s, other)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (50, 3), (4, 5, 6)])
def test_normalized_advantages_have_mean_0_and_deviation_1(shape, dtype):
    advantages = (5 + 3 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    before = advantages.astype(np.float64)
    mean, std = normalize_advantages(advantages)
    assert (mean, std) == (pytest.approx(before.mean(), rel=1e-13), pytest.approx(before.std(), rel=1e-13))
    np.testing.assert_allclose(advantages, (before - before.mean()) / before.std(), atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, -7e5])  # the sum of a thousand times 0.1 is not 100
def test_advantages_without_variance_become_zeros_and_not_nan(value, dtype):
    advantages = np.full(1000, value, dtype)
    mean, _ = normalize_advantages(advantages)
    assert mean == pytest.approx(float(dtype(value)), rel=1e-12)
    np.testing.assert_array_equal(advantages, 0)
    if value:
        noisy = np.full(1000, value, dtype)
        noisy[::3] = np.nextafter(noisy[::3], dtype(np.inf))  # rounding is no advantage
        normalize_advantages(noisy)
        np.testing.assert_array_equal(noisy, 0)


def test_no_advantages_are_normalized_to_none():
    assert normalize_advantages(np.zeros(0)) == (0.0, 0.0)


def test_small_advantages_are_advantages():
    advantages = np.array([1e-20, -1e-20], np.float32)
    normalize_advantages(advantages)
    np.testing.assert_allclose(advantages, [1, -1], rtol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        [1.0, 2.0],
        np.ones(4, np.int64),
        np.ones(4, np.float16),
        np.ones(8)[::2],
        np.ones((4, 4)).T[:2],
        read_only(np.ones(4)),
    ],
)
def test_advantages_that_cannot_be_normalized_are_named(bad):
    with pytest.raises((TypeError, ValueError), match=r"^advantages: .* given; want "):
        normalize_advantages(bad)


class Sums:
    """Rewards with episode ends and dummy rows after them, as NEXT_STEP environments have."""

    def __init__(self, steps=30, envs=3):
        rng = np.random.default_rng(0)
        self.rewards = rng.normal(size=(steps, envs))
        self.valid = np.ones((steps, envs), bool)
        self.done = rng.random((steps, envs)) < 0.2
        for t in range(1, steps):
            self.valid[t] = ~self.done[t - 1]
            self.done[t] &= self.valid[t]
        assert not self.valid.all()
        self.carry = rng.normal(size=envs)
        self.out = np.full((steps, envs), np.nan)

    def arrays(self):
        return {name: getattr(self, name) for name in ("rewards", "done", "valid", "carry", "out")}

    def run(self, **replace):
        discounted_returns(**(self.arrays() | replace), gamma=0.9)


def test_discounted_returns_are_those_of_the_definition():
    s = Sums()
    expected, carry = reference.discounted_returns(s.rewards, s.done, s.valid, s.carry, 0.9)
    s.run()
    np.testing.assert_allclose(s.out, expected, rtol=1e-14)
    np.testing.assert_allclose(s.carry, carry, rtol=1e-14)


def test_discounted_returns_carry_over_from_one_rollout_to_the_next():
    whole, parts = Sums(), Sums()
    whole.run()
    for rows in (slice(0, 11), slice(11, 30)):
        arrays = {name: array if name == "carry" else array[rows] for name, array in parts.arrays().items()}
        parts.run(**arrays)
    np.testing.assert_array_equal(parts.out, whole.out)
    np.testing.assert_array_equal(parts.carry, whole.carry)


def test_dummy_rows_leave_the_carry_alone():
    s = Sums()
    s.run()
    expected = s.out.copy()
    again = Sums()
    again.rewards[~again.valid] = np.nan
    again.run()
    np.testing.assert_array_equal(again.out, expected)


@pytest.mark.parametrize("how", [how for how in SPOILED if how != "flat"])
@pytest.mark.parametrize("name", ["rewards", "done", "valid", "carry", "out"])
def test_return_arrays_that_do_not_fit_are_named(name, how):
    s = Sums()
    named = "done" if name == "rewards" and how in ("short", "wide") else name
    with pytest.raises((TypeError, ValueError), match=f"^{named}: .* given; want "):
        s.run(**{name: SPOILED[how](getattr(s, name))})
    for output in ("carry", "out"):
        with pytest.raises(ValueError, match=f"^{output}: .*read-only"):
            s.run(**{output: read_only(getattr(s, output))})


def test_discounted_returns_refuse_shared_memory():
    s = Sums()
    with pytest.raises(ValueError, match="out: shares memory with rewards"):
        s.run(out=s.rewards)
    with pytest.raises(ValueError, match="out: shares memory with carry"):
        s.run(carry=s.out[-1])
    with pytest.raises(ValueError, match="carry: shares memory with rewards"):
        s.run(carry=s.rewards[3])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    columns=st.integers(1, 5),
    offset=st.sampled_from([0.0, 1.0, 1e6]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_moments_are_those_of_all_rows_at_once(sizes, columns, offset, dtype, seed):
    rng = np.random.default_rng(seed)
    parts = [(offset + rng.normal(size=(size, columns))).astype(dtype) for size in sizes]
    mean, m2, count = np.zeros(columns), np.zeros(columns), 0.0
    for part in parts:
        count = merge_moments(part, mean, m2, count)
    assert count == sum(sizes)
    if count:
        rows = np.concatenate(parts).astype(np.float64)
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(m2, ((rows - rows.mean(0)) ** 2).sum(0), rtol=1e-8, atol=1e-8)
    else:
        assert not mean.any() and not m2.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_and_merges_nothing(bad, dtype):
    data = np.ones((20, 4), dtype)
    data[13, 2] = bad
    mean, m2 = np.arange(4.0), np.arange(4.0) + 1
    with pytest.raises(ValueError, match=f"data: row 13, column 2 holds {bad}"):
        merge_moments(data, mean, m2, 7.0)
    np.testing.assert_array_equal(mean, np.arange(4))
    np.testing.assert_array_equal(m2, np.arange(4) + 1)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data": np.ones(4)}, "data"),
        ({"data": np.ones((5, 8))[:, ::2]}, "data"),
        ({"data": np.ones((5, 4), np.int64)}, "data"),
        ({"data": [[1.0] * 4]}, "data"),
        ({"mean": np.zeros(3)}, "mean"),
        ({"mean": np.zeros(4, np.float32)}, "mean"),
        ({"mean": read_only(np.zeros(4))}, "mean"),
        ({"m2": np.zeros(5)}, "m2"),
        ({"m2": np.zeros(8)[::2]}, "m2"),
        ({"m2": read_only(np.zeros(4))}, "m2"),
    ],
)
def test_moment_arrays_that_do_not_fit_are_named(change, name):
    arrays = {"data": np.ones((5, 4)), "mean": np.zeros(4), "m2": np.zeros(4)}
    with pytest.raises((TypeError, ValueError), match=f"^{name}: .* given; want "):
        merge_moments(**(arrays | change), count=0.0)


def test_moments_that_share_memory_are_refused():
    data, one = np.ones((5, 4)), np.zeros(4)
    with pytest.raises(ValueError, match="m2: shares memory with mean"):
        merge_moments(data, one, one, 0.0)
    with pytest.raises(ValueError, match="mean: shares memory with data"):
        merge_moments(data, data[2], one, 0.0)
