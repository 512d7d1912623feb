"""Whole episodes in environments of their own, without touching the training."""

from __future__ import annotations

import math
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from trpo_fast.algorithm.acting import Player
from trpo_fast.environments.base import Environments


class EvaluationResult(NamedTuple):
    """Undiscounted episode returns in the environment's unit."""

    mean: float
    std: float
    returns: NDArray[np.float64]  # (episodes,) grouped by environment, each in the order played
    lengths: NDArray[np.int64]  # (episodes,) steps


def play_episodes(
    environments: Environments, player: Player, episodes: int, *, deterministic: bool, seed: int
) -> EvaluationResult:
    """Play ``episodes`` episodes and stop.

    Every environment has a quota fixed beforehand: taking the first episodes to finish would take too many short ones.

    Raises ValueError where a reward, a return, or the mean or standard deviation of the returns is not finite; the
    first two name the environment and its step.
    """
    count = environments.num_envs
    quota = (episodes + np.arange(count)) // count
    finished: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    has_reset_rows = environments.autoreset_mode == gym.vector.AutoresetMode.NEXT_STEP
    is_reset_row = np.zeros(count, bool)
    observations = environments.reset(seed)
    step = 0
    while any(len(done) < wanted for done, wanted in zip(finished, quota, strict=True)):
        actions = player.act(observations, step, deterministic=deterministic, action_masks=environments.action_masks)
        result = environments.step(actions)
        rewards = np.where(is_reset_row, 0.0, result.rewards)
        _require_finite("reward", rewards, step)
        with np.errstate(over="ignore"):
            returns += rewards
        _require_finite("return", returns, step)
        lengths += ~is_reset_row
        ended = (result.terminated | result.truncated) & ~is_reset_row
        for i in np.flatnonzero(ended):
            if len(finished[i]) < quota[i]:
                finished[i].append((float(returns[i]), int(lengths[i])))
            returns[i], lengths[i] = 0.0, 0
        if has_reset_rows:
            is_reset_row = ended
        observations = result.observations
        step += 1
    played = [episode for group in finished for episode in group]
    all_returns = np.array([value for value, _ in played])
    all_lengths = np.array([length for _, length in played], np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(all_returns.mean()), float(all_returns.std())
    if not (math.isfinite(mean) and math.isfinite(std)):
        largest = float(np.abs(all_returns).max())
        raise ValueError(
            f"mean and std of the returns must be finite, got {mean} and {std}: returns of size {largest} are too large"
        )
    return EvaluationResult(mean, std, all_returns, all_lengths)


def _require_finite(what: str, values: NDArray[np.float64], step: int) -> None:
    if not np.isfinite(values).all():
        i = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(f"{what} of environment {i} at step {step} must be finite, got {values[i]}")
