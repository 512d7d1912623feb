"""Turning rollouts into batches: advantages, returns, and which rows a rank learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.rollout import normalize_advantages as normalize_in_place
from trpo_fast.normalizers import RewardScaler
from trpo_fast.rollout.advantages import AdvantageFunction, AdvantageInputs, estimated_by
from trpo_fast.rollout.batch import Batch
from trpo_fast.rollout.rollout import Rollout


class Finisher:
    """Makes batches of a collector's rollouts.

    Parameters
    ----------
    dtype : dtype
        Of the policy.
    reward_scaler : RewardScaler, optional
        The collector's.
    recurrent : bool
        Whether batches are sequences, of all rows.
    own : slice
        The copies, of those of all ranks, that this rank learns from.
    learned_parts : int, optional
        Of several ranks, parts of equally many of these copies, in whose order the batches are. None: one rank has all.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        *,
        reward_scaler: RewardScaler | None,
        recurrent: bool,
        own: slice,
        learned_parts: int | None = None,
    ) -> None:
        self._dtype = dtype
        self._scaler = reward_scaler
        self._recurrent = recurrent
        self._own = own
        self._learned_parts = learned_parts

    def finish(
        self,
        rollout: Rollout,
        values: Callable[[NDArray[Any]], NDArray[Any]],
        gamma: float,
        gae_lambda: float,
        normalize_advantages: bool,
        estimate: AdvantageFunction | None = None,
        *,
        critic_gae_lambda: float | None = None,
    ) -> tuple[Batch, NDArray[Any], float]:
        """Estimate advantages and drop the dummy rows.

        Parameters
        ----------
        rollout : Rollout
            Of the collector that this is made for.
        values : callable
            Maps observations ``(N, D)``, as the policy saw them, to values ``(N,)``; called once.
        gamma, gae_lambda : float
            Discount, and GAE's lambda.
        critic_gae_lambda : float, optional
            Lambda of the returns; by default the same.
        normalize_advantages : bool
            Shift and scale the batch's advantages to mean 0 and standard deviation 1.
        estimate : callable, optional
            ``estimate(inputs) -> (advantages, returns)``, in place of GAE.

        Returns
        -------
        (Batch, returns, explained_variance)
            ``returns (B,)`` are the critic's targets, of scaled rewards: values + advantages with `critic_gae_lambda`.
            The batch's arrays are views of the rollout where no row is dropped. Of several ranks it has the samples of
            this rank's copies; returns and explained variance are of all. That is
            1 - Var(returns - values) / Var(returns), without dummy rows; NaN where the returns do not vary.

        Raises
        ------
        ValueError
            `values` returned another shape, or something that is not finite; or advantages, or the
            variance of returns, overflow: the largest reward is named. Or `estimate` returned such: it is.
        """
        shape = rollout.rewards.shape
        size, num_envs = rollout.rewards.size, shape[1]
        predicted = np.asarray(values(rollout.value_inputs), dtype=self._dtype)
        if predicted.shape != (len(rollout.value_inputs),):
            raise ValueError(f"values: shape {predicted.shape} returned; want ({len(rollout.value_inputs)},)")
        if not np.isfinite(predicted).all():
            raise ValueError(
                "values: some not finite given; want finite ones: the critic or the observations have gone astray"
            )
        here = predicted[:size]
        # The value one step on: of the row below, at the end of the last observations, or of an episode's final one.
        following = predicted[num_envs : size + num_envs].copy()
        following[rollout.final_rows] = predicted[size + num_envs :]
        inputs = AdvantageInputs(
            rewards=self.learned_rewards(rollout.rewards, rollout.reward_scale),
            values=here.reshape(shape),
            next_values=following.reshape(shape),
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            valid=rollout.valid,
            observations=rollout.observations,
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            critic_gae_lambda=critic_gae_lambda,
        )
        advantages, returns = inputs.gae() if estimate is None else estimated_by(estimate, inputs, rollout.first_step)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.var(returns[rollout.valid], dtype=np.float64)
        if not (np.isfinite(spread) and np.isfinite(advantages[rollout.valid]).all()):
            t, i = largest(rollout.rewards)
            raise ValueError(
                f"rewards: {rollout.rewards[t, i]} given, of environment {i} at step {rollout.first_step + t}, and "
                f"values up to {np.abs(predicted).max()}; want advantages, and a variance of returns, that are finite "
                f"in {self._dtype}"
            )
        keep = slice(None) if rollout.steps == size else np.flatnonzero(rollout.valid)
        kept_advantages, kept_returns = advantages.reshape(-1)[keep], returns.reshape(-1)[keep]
        explained_variance = _explained_variance(kept_returns, here[keep])
        if normalize_advantages:
            normalize_in_place(kept_advantages)
        whole = kept_advantages
        if rollout.steps != size:
            whole = np.zeros(size, self._dtype)
            whole[keep] = kept_advantages
        return self._own_batch(rollout, whole.reshape(shape)), kept_returns, explained_variance

    def _own_batch(self, rollout: Rollout, advantages: NDArray[Any]) -> Batch:
        """The samples of this rank's copies, which are all where there is one."""
        recurrent, masks, size = self._recurrent, rollout.action_masks, rollout.valid.size
        rows, starts = self._own_rows(rollout)

        def own(array: NDArray[Any]) -> NDArray[Any]:
            return array.reshape(size, *array.shape[2:])[rows]

        return Batch(
            own(rollout.observations),
            own(rollout.actions),
            own(advantages),
            None if recurrent else own(rollout.log_probs),
            None if masks is None else own(masks),
            rollout.sequences.of(self._own) if recurrent else None,
            starts,
        )

    def _own_rows(self, rollout: Rollout) -> tuple[slice | NDArray[np.int64], list[int]]:
        """Rows, in (T E) order, that this rank learns from, part after part, and where in these each part begins."""
        # Rows that are no samples stay in sequences; log-probabilities are those of the batch's one pass there.
        counts = np.ones_like(rollout.valid) if self._recurrent else rollout.valid
        if self._learned_parts is None:
            return (slice(None) if counts.all() else np.flatnonzero(counts)), [0]
        every = np.arange(counts.size).reshape(counts.shape)
        width = (self._own.stop - self._own.start) // self._learned_parts
        firsts = range(self._own.start, self._own.stop, width)
        parts = [every[:, first : first + width][counts[:, first : first + width]] for first in firsts]
        starts = np.cumsum([0, *map(len, parts[:-1])]).tolist()
        return np.concatenate(parts), starts

    def own_samples(self, rollout: Rollout, samples: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Numbers, in this rank's batch, of those of `samples`, increasing numbers of all, that are its own."""
        if samples is None or self._learned_parts is None:
            return samples
        rows, _ = self._own_rows(rollout)
        assert not isinstance(rows, slice)
        number = np.full(rollout.valid.size, -1)
        number[rows] = np.arange(len(rows))
        chosen = number[np.flatnonzero(rollout.valid)[samples]]
        return np.sort(chosen[chosen >= 0])

    def learned_rewards(self, rewards: NDArray[np.float64], scale: float) -> NDArray[Any]:
        """Raw rewards as advantages are made of; infinite, without a warning, where they are too large for that."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self._scaler is None:
                return rewards.astype(self._dtype)
            return self._scaler.scaled(rewards, scale, self._dtype)


def largest(values: NDArray[Any]) -> tuple[int, int]:
    """Step and environment of the largest of `values` ``(T, E)`` or ``(T, E, D)``, without its sign."""
    t, i = np.unravel_index(np.argmax(np.abs(values)), values.shape)[:2]
    return int(t), int(i)


def _explained_variance(returns: NDArray[Any], values: NDArray[Any]) -> float:
    variance = float(np.var(returns, dtype=np.float64))
    residual = float(np.var(returns - values, dtype=np.float64))
    return 1.0 - residual / variance if variance > 0 else float("nan")
