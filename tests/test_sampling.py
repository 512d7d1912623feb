"""Discrete actions in NumPy, beside the compiled sampler's and beside what the probabilities say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_fast._core.acting import sample
from trpo_fast._core.library import normal, permutation, philox, uniform
from trpo_fast.sampling import draw_choices, draw_parts

KEY = {"seed": 5, "stream": 3, "step": 7}
NVECS = [None, (9,), (2, 1, 5, 3), (40,) * 12]


def compiled(logits, nvec, masks=None, **how):
    components = logits.shape[1] if nvec is None else len(nvec)
    choices, log_probs = np.empty((len(logits), components), np.int64), np.empty(len(logits), logits.dtype)
    name = "bernoulli" if nvec is None else "multicategorical"
    sample(name, logits, None, how.pop("step"), choices, log_probs, nvec=nvec, action_masks=masks, **how)
    return choices


def rows(nvec, count=150, dtype=np.float64):
    width = 9 if nvec is None else sum(nvec)
    return np.random.default_rng(2).normal(size=(count, width), scale=3).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("nvec", NVECS, ids=str)
def test_choices_are_those_of_the_compiled_sampler(nvec, deterministic, dtype):
    logits = rows(nvec, dtype=dtype)
    how = {**KEY, "first_row": 11, "deterministic": deterministic}
    np.testing.assert_array_equal(draw_choices(logits, nvec, **how), compiled(logits, nvec, **how))


GAUSSIAN, CHOICES, BITS = ("gaussian", 3, None), ("multicategorical", 6, (4, 2)), ("bernoulli", 5, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    "parts", [[GAUSSIAN, CHOICES, BITS, GAUSSIAN], [CHOICES, GAUSSIAN], [BITS, CHOICES], [GAUSSIAN]]
)
def test_parts_are_those_of_the_compiled_sampler(parts, deterministic, dtype):
    is_mean = np.repeat([name == "gaussian" for name, _, _ in parts], [outputs for _, outputs, _ in parts])
    parameters = np.random.default_rng(3).normal(size=(150, len(is_mean))).astype(dtype)
    parameters[:, is_mean] = 0
    how = {**KEY, "first_row": 11, "deterministic": deterministic, "parts": parts}
    drawn = draw_parts(parameters, **how)
    expected, unit = np.empty(drawn.shape, dtype), np.zeros(is_mean.sum(), dtype) if is_mean.any() else None
    sample("product", parameters, unit, how.pop("step"), expected, np.empty(150, dtype), **how)
    np.testing.assert_array_equal(drawn.astype(dtype), expected)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_what_is_forbidden_is_never_drawn(seed, kept):
    logits = np.random.default_rng(seed).normal(size=(20, 7), scale=20)
    allowed = np.random.default_rng(seed + 1).random((20, 7)) < 0.3
    allowed[:, kept] = True
    for deterministic in (False, True):
        how = {**KEY, "step": seed, "deterministic": deterministic}
        choices = draw_choices(np.where(allowed, logits, -np.inf), (7,), **how)
        assert allowed[np.arange(20), choices[:, 0]].all()
        forced = np.where(allowed, np.inf, -np.inf)
        np.testing.assert_array_equal(draw_choices(forced, None, **how), allowed)


def test_frequencies_of_a_long_row_are_its_probabilities():
    """Chi-squared over ten bins of 5,000 choices, 20,000 draws: above 27.9 with probability 0.001 for a fixed seed."""
    logits = np.tile(np.log(np.arange(1, 5001, dtype=np.float64)), (20_000, 1))
    drawn = draw_choices(logits, (5000,), **KEY)[:, 0]
    expected = 20_000 * np.array_split(np.arange(1, 5001) / np.arange(1, 5001).sum(), 10)[0].sum()
    counts = np.bincount(drawn // 500, minlength=10)
    wanted = 20_000 * np.add.reduceat(np.arange(1, 5001), np.arange(0, 5000, 500)) / np.arange(1, 5001).sum()
    assert wanted[0] == pytest.approx(expected)
    assert ((counts - wanted) ** 2 / wanted).sum() < 27.9


def test_a_row_s_draw_is_its_own():
    logits = rows((9,))
    together = draw_choices(logits, (9,), **KEY)
    alone = [draw_choices(logits[i : i + 1], (9,), **KEY, first_row=i)[0, 0] for i in range(150)]
    np.testing.assert_array_equal(together[:, 0], alone)


def test_uniform_numbers_are_philox_on_the_half_open_interval():
    found = uniform(3, 5, seed=2**40 + 1, stream=6, step=2**35 + 9, first_row=4)
    for row in range(3):
        for item in range(5):
            counter = (item // 2, row + 4, 9, 8 ^ 6 << 24)
            words = philox((1, 2**8), counter)
            bits = words[2 * (item % 2)] | words[2 * (item % 2) + 1] << 32
            assert found[row, item] == ((bits >> 11) + 1) * 2.0**-53


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_are_the_compiled_sampler_s(dtype):
    noise, unit = np.zeros((7, 5), dtype), np.zeros(5, dtype)
    sample("gaussian", np.zeros_like(noise), unit, 7, noise, np.empty(7, dtype), seed=5, stream=3, first_row=2)
    np.testing.assert_array_equal(normal(7, 5, **KEY, first_row=2).astype(dtype), noise)


def test_what_would_be_the_draws_of_another_key_is_refused():
    order = permutation(5, seed=1, stream=255, step=2**56 - 1)
    assert sorted(order) == list(range(5))
    for name, value in {"stream": 256, "step": 2**56, "size": 2**32}.items():
        key = {"seed": 1, "stream": 0, "step": 0, "size": 1} | {name: value}
        with pytest.raises(ValueError, match=f"{name}: {value} given; want at most {value - 1}"):
            permutation(key.pop("size"), **key)
    with pytest.raises(ValueError, match="first_row"):
        sample(
            "gaussian",
            np.zeros((2, 1)),
            np.zeros(1),
            0,
            np.empty((2, 1)),
            np.empty(2),
            seed=1,
            stream=0,
            first_row=2**32 - 1,
        )


@pytest.mark.parametrize("draws", [uniform, normal])
def test_bad_counts_are_named(draws):
    assert draws(0, 3, **KEY).shape == (0, 3)
    with pytest.raises((ValueError, TypeError), match="rows"):
        draws(-1, 3, **KEY)
    with pytest.raises((ValueError, TypeError), match="count"):
        draws(1, 2**31, **KEY)
    with pytest.raises((ValueError, TypeError), match="first_row"):
        draws(1, 1, **KEY, first_row=2**32 - 1)
