from __future__ import annotations

import itertools

import numpy as np
import pytest

from trpo_fast.statistics import (
    estimate,
    interquartile_mean,
    lowest_for_nan,
    normalized,
    on_one_grid,
    probability_of_improvement,
)


def test_interquartile_mean_of_a_multiple_of_four_is_the_mean_of_the_middle_half():
    scores = np.array([9.0, -100.0, 3.0, 5.0, 4.0, 1.0, 1000.0, 2.0])
    assert interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4, rel=1e-14)


@pytest.mark.parametrize("n", range(1, 11))
def test_a_score_on_the_border_counts_by_its_part(n):
    scores = np.random.default_rng(n).normal(size=n)
    # Four copies of each score leave no score on a border.
    repeated = sorted(np.repeat(scores, 4))[n : 3 * n]
    assert interquartile_mean(scores) == pytest.approx(np.mean(repeated), rel=1e-13)


def test_interquartile_mean_of_curves_is_taken_point_by_point():
    curves = np.random.default_rng(0).normal(size=(7, 4))
    assert interquartile_mean(curves) == pytest.approx([float(interquartile_mean(column)) for column in curves.T])


def test_no_score_has_no_mean():
    with pytest.raises(ValueError, match="scores: none given"):
        interquartile_mean([])
    with pytest.raises(ValueError, match="scores: none given"):
        estimate([])


def test_interval_is_that_of_every_possible_resample():
    scores = np.array([1.0, 2.0, 4.0, 8.0])
    every = [float(interquartile_mean(scores[list(rows)])) for rows in itertools.product(range(4), repeat=4)]
    low, high = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    found = estimate([scores], resamples=40_000)
    assert found.value == 3.0
    # The distribution has steps: a quantile of random draws is one of its values, the same unless a step lies within
    # the draws' error (0.1%) of the quantile.
    assert found.interval == (pytest.approx(low), pytest.approx(high))


def test_resampling_never_mixes_tasks():
    # Each task's seeds agree, so a resample within tasks changes nothing, and one across tasks would.
    value, interval = estimate([[0.0] * 3, [1.0] * 5, [2.0] * 4])
    assert interval == (value, value)


def test_mean_over_tasks_is_over_all_runs():
    first, second = [1.0, 5.0, 2.0], [7.0, 3.0, 9.0, 0.0]
    assert estimate([first, second]).value == interquartile_mean(first + second)


def test_interval_covers_the_truth_as_often_as_it_says():
    # Ten seeds of a symmetric distribution around 0. The percentile interval of ten is known to be a little narrow;
    # with 400 repetitions the standard error is 1.3%, so [86%, 98%] fails by chance less than once in a thousand.
    generator = np.random.default_rng(1)
    intervals = [estimate([generator.normal(size=10)], resamples=500).interval for _ in range(400)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.86 < covered < 0.98


def test_every_point_of_a_curve_has_the_interval_that_it_has_alone():
    curves = np.random.default_rng(2).normal(size=(5, 3))
    both = estimate([curves, curves[:4] + 1], resamples=200)
    assert both.interval is not None
    for i in range(3):
        alone = estimate([curves[:, i], curves[:4, i] + 1], resamples=200)
        assert alone.interval == (both.interval[0][i], both.interval[1][i])


def test_the_same_scores_give_the_same_interval():
    scores = np.random.default_rng(3).normal(size=6)
    assert estimate([scores]).interval == estimate([scores]).interval


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0]])
def test_fewer_than_three_seeds_have_no_interval(scores):
    assert estimate([scores]) == (np.mean(scores), None)
    assert estimate([scores, [1.0, 2.0, 3.0]]).interval is None


def test_nan_is_refused_where_it_would_be_averaged():
    with pytest.raises(ValueError, match="scores: NaN given"):
        estimate([[1.0, np.nan, 2.0]])


def test_a_failed_run_counts_as_the_lowest_score():
    assert lowest_for_nan([3.0, np.nan, -2.0]).tolist() == [3.0, -2.0, -2.0]
    with pytest.raises(ValueError, match="only NaN"):
        lowest_for_nan([np.nan])


def test_normalized_scores_are_neither_cut_at_0_nor_at_1():
    assert normalized([-10.0, 0.0, 50.0, 300.0], low=0.0, high=100.0).tolist() == [-0.1, 0.0, 0.5, 3.0]


def test_curves_meet_on_the_steps_that_all_of_them_have():
    grid, values = on_one_grid([([0, 10, 20], [0, 10, 20]), ([5, 25], [1, 3])], points=4)
    assert grid.tolist() == [5, 10, 15, 20]
    assert values.tolist() == [[5, 10, 15, 20], [1, 1.5, 2, 2.5]]


def test_curves_without_a_step_in_common_are_refused():
    with pytest.raises(ValueError, match="curves: one begins at step 50, another ends at 20; want some steps in all"):
        on_one_grid([([0, 10, 20], [0, 10, 20]), ([50, 60], [1, 3])])


def test_probability_of_improvement_counts_every_pair_and_ties_by_half():
    one, other = [1.0, 2.0, 5.0], [2.0, 0.0, 3.0, 5.0]
    wins = [(x > y) + (x == y) / 2 for x in one for y in other]
    found = probability_of_improvement([(one, other)])
    assert found.value == pytest.approx(np.mean(wins), rel=1e-14)
    assert probability_of_improvement([(other, one)]).value == pytest.approx(1 - np.mean(wins), rel=1e-14)
    # Of two tasks it is the mean, however many seeds either has.
    assert probability_of_improvement([(one, other), ([1.0], [0.0])]).value == pytest.approx((np.mean(wins) + 1) / 2)


def test_interval_of_the_probability_of_improvement_is_that_of_every_possible_resample():
    one, other = np.array([1.0, 3.0, 6.0]), np.array([0.0, 2.0, 4.0])
    every = [
        np.mean(np.sign(one[list(a)][:, None] - other[list(b)][None, :]) / 2 + 0.5)
        for a in itertools.product(range(3), repeat=3)
        for b in itertools.product(range(3), repeat=3)
    ]
    low, high = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    found = probability_of_improvement([(one, other)], resamples=40_000)
    # As above: the distribution has steps of a ninth.
    assert found.interval == (pytest.approx(low), pytest.approx(high))


def test_a_probability_of_fewer_than_three_seeds_has_no_interval():
    assert probability_of_improvement([([1.0, 2.0], [0.0] * 5)]).interval is None
    for bad in ([], [([], [1.0])]):
        with pytest.raises(ValueError, match="scores: none given"):
            probability_of_improvement(bad)
    with pytest.raises(ValueError, match="scores: NaN given"):
        probability_of_improvement([([np.nan], [1.0])])


def test_an_infinity_outside_of_the_middle_half_counts_nothing():
    assert interquartile_mean([1.0, 2.0, 3.0, np.inf]) == interquartile_mean([-np.inf, 2.0, 3.0, 4.0]) == 2.5
    assert interquartile_mean([1.0, np.inf, np.inf, np.inf]) == np.inf


@pytest.mark.parametrize(
    "estimated", [estimate, lambda tasks, **given: probability_of_improvement([(*tasks, *tasks)], **given)]
)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"confidence": 95}, r"confidence: 95 given; want a number in \(0, 1\)"),
        ({"confidence": np.nan}, r"confidence: nan given"),
        ({"resamples": 0}, "resamples: 0 given; want an integer >= 1"),
    ],
)
def test_an_interval_that_cannot_be_is_refused(estimated, given, words):
    with pytest.raises(ValueError, match=words):
        estimated([[1.0, 2.0, 3.0]], **given)


def test_empty_curves_and_a_unit_of_nothing_are_refused():
    for curves in [], [([], [])]:
        with pytest.raises(ValueError, match="curves: none given, or an empty one; want at least one"):
            on_one_grid(curves)
    with pytest.raises(ValueError, match="points: 0 given; want an integer >= 1"):
        on_one_grid([([0, 1], [2, 3])], points=0)
    for low, high in (1.0, 1.0), (np.nan, 1.0):
        with pytest.raises(ValueError, match=f"low, high: {low} and {high} given; want two different numbers"):
            normalized([2.0], low, high)
