"""Scores of several training seeds: interquartile means and their bootstrap intervals, after Agarwal et al. [1]_.

Without torch. ``trpo-fast plot --group seed`` and the learning study of this repository read off the same functions.

References
----------
.. [1] Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep reinforcement learning at the edge of the statistical
   precipice", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trpo_fast.settings import INNER_FRACTION, POSITIVE_COUNT, checked

FEWEST_SEEDS = 3
"""With fewer the bootstrap repeats one or two numbers, and its interval means nothing."""
RESAMPLES = 10_000


class Estimate(NamedTuple):
    """An interquartile mean, or a probability, with its interval: scalars, or an item for each point of a curve."""

    value: NDArray[np.float64]
    interval: tuple[NDArray[np.float64], NDArray[np.float64]] | None  # None: fewer than FEWEST_SEEDS seeds


def interquartile_mean(scores: ArrayLike) -> NDArray[np.float64]:
    """Mean of the middle half along the first axis, (n, ...) -> (...); a score on the border counts by its part."""
    ordered = np.sort(np.asarray(scores, np.float64), axis=0)
    n = len(ordered)
    if n == 0:
        raise ValueError("scores: none given; want at least one")
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    middle = weights > 0  # an infinity outside of it is not in the sum, not even times 0
    return np.asarray(np.tensordot(weights[middle] / weights.sum(), ordered[middle], axes=1))


def estimate(
    tasks: Sequence[ArrayLike], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Interquartile mean over all runs of all tasks, with the percentile interval of the stratified bootstrap.

    Parameters
    ----------
    tasks : sequence of array_like, each of shape (seeds, ...)
        The scores of one task each; of several tasks in one unit (:func:`normalized`). A run weighs as much as every
        other, so that a task with more seeds weighs more. Resampling draws whole seeds, each task's from its own. With
        ``...``, points of curves, every point gets the same draws.
    confidence : float in (0, 1)
    resamples : int >= 1
    seed : int
        Of the draws: the same scores give the same interval.

    Raises
    ------
    ValueError
        There is no score, or one is NaN (:func:`lowest_for_nan`); no such `confidence`, or no resample.
    """
    confidence, resamples = _checked(confidence, resamples)
    strata = [np.asarray(scores, np.float64) for scores in tasks]
    pooled = np.concatenate(strata) if strata else np.empty(0)
    if np.isnan(pooled).any():
        raise ValueError("scores: NaN given; want numbers, see lowest_for_nan")
    value = interquartile_mean(pooled)
    if min(map(len, strata)) < FEWEST_SEEDS:
        return Estimate(value, None)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(len(scores), size=(len(scores), resamples)) for scores in strata]
    if pooled.ndim == 1:
        means = interquartile_mean(np.concatenate([scores[rows] for scores, rows in zip(strata, draws, strict=True)]))
    else:  # one point at a time, as resamples of whole curves are large
        points = [scores.reshape(len(scores), -1) for scores in strata]
        columns = (
            np.concatenate([scores[rows, i] for scores, rows in zip(points, draws, strict=True)])
            for i in range(points[0].shape[1])
        )
        means = np.stack([interquartile_mean(column) for column in columns], axis=-1)
        means = means.reshape(resamples, *value.shape)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return Estimate(value, (np.asarray(low), np.asarray(high)))


def _checked(confidence: float, resamples: int) -> tuple[float, int]:
    return checked("confidence", confidence, INNER_FRACTION), checked("resamples", resamples, POSITIVE_COUNT)


def probability_of_improvement(
    tasks: Sequence[tuple[ArrayLike, ArrayLike]], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Probability that a run of one kind scores higher than one of another, a tie counting half; mean over tasks.

    Parameters
    ----------
    tasks : sequence of (scores, scores), each array_like of shape (seeds,)
        Of each task the scores of either kind, whose numbers of seeds may differ. No unit is needed: within a task
        scores are compared alone. The percentile interval is that of the bootstrap that draws whole seeds, each kind's
        of each task from its own.
    confidence : float in (0, 1)
    resamples : int >= 1
    seed : int
        Of the draws: the same scores give the same interval.

    Raises
    ------
    ValueError
        There is no task, one has no score of a kind, or a score is NaN (:func:`lowest_for_nan`); no such `confidence`,
        or no resample.
    """
    confidence, resamples = _checked(confidence, resamples)
    pairs = [(np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in tasks]
    if not pairs or not all(map(len, (scores for pair in pairs for scores in pair))):
        raise ValueError("scores: none given; want at least one of each kind for each task")
    if any(np.isnan(scores).any() for pair in pairs for scores in pair):
        raise ValueError("scores: NaN given; want numbers, see lowest_for_nan")
    better = [(1.0 + np.sign(one[:, None] - other[None, :])) / 2 for one, other in pairs]
    value = np.asarray(np.mean([table.mean() for table in better]))
    if min(len(scores) for pair in pairs for scores in pair) < FEWEST_SEEDS:
        return Estimate(value, None)
    generator = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for table in better:  # of drawn seeds the mean is that of the table weighted by how often each was drawn
        rows, columns = (generator.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in table.shape)
        means += np.einsum("ri,ij,rj->r", rows, table, columns, optimize=True) / len(better)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(value, (np.asarray(low), np.asarray(high)))


def on_one_grid(
    curves: Sequence[tuple[ArrayLike, ArrayLike]], points: int = 200
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Curves (steps, values) of several runs, interpolated between the last of their beginnings and the first end.

    Returns the steps (points,) and the values (runs, points). ValueError where no step is in all of the curves, there
    is no curve, or one is empty.
    """
    points = checked("points", points, POSITIVE_COUNT)
    arrays = [(np.asarray(steps, np.float64), np.asarray(values, np.float64)) for steps, values in curves]
    if not arrays or not all(len(steps) for steps, _ in arrays):
        raise ValueError("curves: none given, or an empty one; want at least one, of at least one step each")
    first, end = max(steps[0] for steps, _ in arrays), min(steps[-1] for steps, _ in arrays)
    if first > end:
        raise ValueError(f"curves: one begins at step {first:,.0f}, another ends at {end:,.0f}; want some steps in all")
    grid = np.linspace(first, end, points)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in arrays])


def normalized(scores: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Scores in units of a task: ``low`` becomes 0 and ``high`` 1; nothing is cut off. ValueError for two the same."""
    if not (low < high or low > high):
        raise ValueError(f"low, high: {low} and {high} given; want two different numbers")
    return (np.asarray(scores, np.float64) - low) / (high - low)


def lowest_for_nan(scores: ArrayLike) -> NDArray[np.float64]:
    """Scores with the lowest number among them in place of every NaN, so that a run that failed is not left out.

    Raises ValueError where all are NaN.
    """
    values = np.asarray(scores, np.float64)
    if np.isnan(values).all():
        raise ValueError("scores: only NaN given; want a number among them")
    return np.where(np.isnan(values), np.nanmin(values), values)
