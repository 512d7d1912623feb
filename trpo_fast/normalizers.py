"""Running statistics of observations and rewards, in float64.

Both are frozen while a rollout is collected and learned from, and change only in `merge`, so that a policy is trained
on exactly the inputs that it acted on. They need NumPy alone: a saved model acts without torch or gymnasium.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trpo_fast._core.library import as_double, in_words
from trpo_fast._core.rollout import discounted_returns, merge_moments
from trpo_fast.solvers.validation import require_count

_MOST_COLUMNS = 2**48  # beyond what any memory has


def _check_positive(name: str, value: float, *, finite: bool) -> float:
    number = as_double(value, name)
    if not number > 0 or (finite and not np.isfinite(number)):
        raise ValueError(f"{name}: {in_words(value)} given; want a {'finite ' if finite else ''}number > 0")
    return number


class _Moments:
    """Mean and sum of squared deviations of rows of `size` items, `of` what; float64, updated in place."""

    def __init__(self, size: int, of: str) -> None:
        self.of = of
        self.mean = np.zeros(size)
        self.m2 = np.zeros(size)
        self.count = 0.0

    def merge(self, rows: NDArray[Any]) -> None:
        if len(rows):
            mean, m2 = self.mean.copy(), self.m2.copy()
            count = merge_moments(rows, mean, m2, self.count)
            if not np.isfinite(m2).all():
                largest = f"numbers up to {np.abs(rows).max():g}"
                raise OverflowError(f"{self.of}: {largest} given; want such that their squares are finite in float64")
            self.count, self.mean[...], self.m2[...] = count, mean, m2

    def inverse_std(self, epsilon: float) -> NDArray[np.float64]:
        # One row has no spread: dividing by sqrt(epsilon) would blow every input up to the clip.
        if self.count < 2:
            return np.ones_like(self.m2)
        return 1.0 / np.sqrt(self.m2 / self.count + epsilon)

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        return {"count": np.array(self.count), "mean": self.mean.copy(), "m2": self.m2.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        arrays = {}
        for name, wanted in (("count", ()), ("mean", self.mean.shape), ("m2", self.m2.shape)):
            if name not in state:
                raise ValueError(f"state of a normalizer: {sorted(state)} given; want {name!r}, too")
            array = np.asarray(state[name], dtype=np.float64)
            if array.shape != wanted:
                raise ValueError(f"state[{name!r}]: shape {array.shape} given; want {wanted}")
            if not np.isfinite(array).all() or (name != "mean" and (array < 0).any()):
                wish = "finite" if name == "mean" else "finite and not negative"
                raise ValueError(f"state[{name!r}]: {array} given; want {wish}")
            arrays[name] = array
        self.count = float(arrays["count"])
        self.mean[...] = arrays["mean"]
        self.m2[...] = arrays["m2"]


class ObservationNormalizer:
    """Shifts and scales observations to zero mean and unit variance, then clips them.

    One-hot and binary columns are best left as they are: their statistics say how often something was seen, and would
    make what is rare enormous.

    Parameters
    ----------
    size : int
        D, items of a flattened observation.
    clip : float
        Normalized observations are clipped to ``[-clip, clip]``; infinity clips nothing.
    epsilon : float
        Added to the variance, so that a constant feature has a finite scale.
    columns : bool, shape (D,), optional
        True where a column is normalized; all are by default. The others are only clipped.
    unclipped : bool, shape (D,), optional
        True where a column is not even clipped, as pixels are not.

    Attributes
    ----------
    mean, scale : ndarray of float64, shape (D,)
        Normalized = (raw - mean) * scale. The same two arrays for the life of the object: an Actor keeps them and reads
        them at every call. Zeros and ones before the first `merge`.
    clip : float, or ndarray of float64, shape (D,), with `unclipped`
        Bound on what is normalized; infinite in columns that are not clipped.
    """

    def __init__(
        self,
        size: int,
        clip: float = 10.0,
        epsilon: float = 1e-8,
        columns: NDArray[np.bool_] | None = None,
        unclipped: NDArray[np.bool_] | None = None,
    ) -> None:
        require_count("size", size, low=1, most=_MOST_COLUMNS)
        for name, flags in ("columns", columns), ("unclipped", unclipped):
            if flags is not None and (np.shape(flags) != (size,) or np.asarray(flags).dtype != np.bool_):
                raise ValueError(f"{name}: {in_words(flags)} given; want bools of shape ({size},)")
        self.clip: Any = _check_positive("clip", clip, finite=False)
        if unclipped is not None and np.any(unclipped):
            self.clip = np.where(unclipped, np.inf, self.clip)
        self.epsilon = _check_positive("epsilon", epsilon, finite=True)
        self._moments = _Moments(size, "observations")
        self.mean = self._moments.mean
        self.scale = np.ones(size)
        self._untouched = None if columns is None or np.all(columns) else ~np.asarray(columns)

    @property
    def count(self) -> float:
        """Number of observations merged so far."""
        return self._moments.count

    def merge(self, rows: NDArray[Any]) -> None:
        """Add raw observations ``(N, D)``, float32 or float64.

        ValueError, and nothing changed, when not finite; OverflowError when their squares are not.
        """
        self._moments.merge(rows)
        self._rescale()

    def normalize(self, observations: NDArray[Any], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Normalized copy of raw ``(..., D)`` observations, computed in float64 and rounded once to `dtype`."""
        normalized = (np.asarray(observations, dtype=np.float64) - self.mean) * self.scale
        return np.clip(normalized, -self.clip, self.clip, out=normalized).astype(dtype)

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """Copies of the statistics: ``count ()``, ``mean (D,)``, ``m2 (D,)`` (sum of squared deviations)."""
        return self._moments.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned; ValueError names what is missing or has a wrong shape."""
        self._moments.set_state(state)
        self._rescale()

    def _rescale(self) -> None:
        self.scale[...] = self._moments.inverse_std(self.epsilon)
        if self._untouched is not None:
            self.mean[self._untouched] = self._moments.m2[self._untouched] = 0.0
            self.scale[self._untouched] = 1.0


class RewardScaler:
    """Divides rewards by the standard deviation of the discounted return, and clips them.

    The scale is that of the running sum ``R <- gamma R + r``, restarted at an episode's end: about the size that a
    critic has to predict. Rewards are not shifted, which would change what is optimal.

    Parameters
    ----------
    num_envs : int
        E, columns of the reward arrays.
    gamma : float
        Discount of the running sum, in [0, 1].
    clip : float
        Scaled rewards are clipped to ``[-clip, clip]``.
    epsilon : float
        Added to the variance.

    Attributes
    ----------
    scale : float
        1 / std; 1 before the first `merge`.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        self._num_envs = require_count("num_envs", num_envs, low=1, most=_MOST_COLUMNS)
        self.gamma = as_double(gamma, "gamma")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: {in_words(gamma)} given; want a number in [0, 1]")
        self.clip = _check_positive("clip", clip, finite=False)
        self.epsilon = _check_positive("epsilon", epsilon, finite=True)
        self.scale = 1.0
        self._moments = _Moments(1, "rewards")
        # None: zeros. A file may well say a number of environments that no memory has room for.
        self._carry: NDArray[np.float64] | None = None

    @property
    def running_sums(self) -> NDArray[np.float64]:
        """Of the episodes under way, (E,), a copy; set them where these are gone on with."""
        return np.zeros(self._num_envs) if self._carry is None else self._carry.copy()

    @running_sums.setter
    def running_sums(self, sums: NDArray[np.float64]) -> None:
        carry = np.empty(self._num_envs)
        carry[...] = sums
        self._carry = carry

    def restart(self) -> None:
        """Forget the running sums: the environments were reset."""
        self._carry = None

    def merge(self, rewards: NDArray[np.float64], done: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        """Add raw rewards ``(T, E)`` float64; rows that are not `valid` (autoreset's dummy rows) count for nothing.

        OverflowError, and nothing changed, when their running sums or the squares of these are not finite.
        """
        sums, carry = np.empty_like(rewards), self.running_sums
        discounted_returns(rewards, done, valid, carry, sums, gamma=self.gamma)
        if not np.isfinite(sums).all():
            raise OverflowError("discounted sums of the rewards are infinite in float64")
        self._moments.merge(sums[valid][:, None])
        self._carry = carry
        self.scale = float(self._moments.inverse_std(self.epsilon)[0])

    def scaled(self, rewards: NDArray[np.float64], scale: float, dtype: DTypeLike) -> NDArray[Any]:
        """Clipped ``rewards * scale`` as `dtype`; `scale` is this scaler's when the rewards were collected."""
        return np.clip(rewards * scale, -self.clip, self.clip).astype(dtype)

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """Copies of the statistics: ``count ()``, ``mean (1,)``, ``m2 (1,)``; `running_sums` go with the episodes."""
        return self._moments.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned; ValueError names what is missing or has a wrong shape."""
        self._moments.set_state(state)
        self.scale = float(self._moments.inverse_std(self.epsilon)[0])
        self.restart()
