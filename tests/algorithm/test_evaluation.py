from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest

from trpo_fast.algorithm.evaluation import play_episodes


class Result(NamedTuple):
    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_observations: None = None


class Clockwork:
    """Environment i ends every ``lengths[i]`` steps and pays ``i + 1`` a step; dummy rows, if any, pay a million."""

    action_masks = None

    def __init__(self, lengths, mode=gym.vector.AutoresetMode.SAME_STEP):
        self.lengths, self.autoreset_mode, self.num_envs = np.array(lengths), mode, len(lengths)

    def reset(self, seed=None):
        self.time = np.zeros(self.num_envs, int)
        self.ended = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1))

    def step(self, actions):
        resets = self.ended if self.autoreset_mode is gym.vector.AutoresetMode.NEXT_STEP else np.zeros_like(self.ended)
        self.time = np.where(resets, 0, self.time + 1)
        rewards = np.where(resets, 1e6, np.arange(self.num_envs) + 1.0)
        self.ended = (self.time == self.lengths) & ~resets
        if self.autoreset_mode is gym.vector.AutoresetMode.SAME_STEP:
            self.time[self.ended] = 0
        return Result(np.zeros((self.num_envs, 1)), rewards, self.ended.copy(), np.zeros(self.num_envs, bool))


class Player:
    def act(self, observations, step, *, deterministic, action_masks):
        return np.zeros(len(observations))


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
def test_quotas_keep_short_episodes_from_being_over_represented(mode):
    result = play_episodes(Clockwork([1, 10, 100], mode), Player(), 6, deterministic=True, seed=0)
    assert result.lengths.tolist() == [1, 1, 10, 10, 100, 100]
    assert result.returns.tolist() == [1, 1, 20, 20, 300, 300]
    assert result.mean == pytest.approx(107.0)


@pytest.mark.parametrize("episodes", [1, 2, 3, 4, 5, 7])
def test_exactly_the_episodes_asked_for_are_played(episodes):
    result = play_episodes(Clockwork([2, 3, 4]), Player(), episodes, deterministic=True, seed=0)
    assert len(result.returns) == len(result.lengths) == episodes


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_reward_that_is_not_finite_is_refused_by_environment_and_step(mode, value):
    environments = Clockwork([9, 9, 9], mode)
    play = environments.step

    def step(actions):
        result = play(actions)
        if (environments.time == 5).all():
            result.rewards[1] = value
        return result

    environments.step = step
    with pytest.raises(ValueError, match=f"reward of environment 1 at step 4 must be finite, got {value}"):
        play_episodes(environments, Player(), 6, deterministic=True, seed=0)


def test_reward_of_a_dummy_row_may_be_anything():
    environments = Clockwork([3], gym.vector.AutoresetMode.NEXT_STEP)
    play = environments.step

    def step(actions):
        is_reset = environments.ended.copy()
        result = play(actions)
        result.rewards[is_reset] = np.nan
        return result

    environments.step = step
    assert play_episodes(environments, Player(), 3, deterministic=True, seed=0).returns.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("length", "reward", "message"),
    [
        (3, 1e308, r"return of environment 0 at step 1 must be finite, got inf"),
        (1, 1.5e308, r"mean and std of the returns must be finite"),
    ],
)
def test_overflow_is_refused_by_what_overflowed(length, reward, message):
    environments = Clockwork([length, length])
    play = environments.step

    def step(actions):
        result = play(actions)
        result.rewards[:] = reward
        return result

    environments.step = step
    with pytest.raises(ValueError, match=message):
        play_episodes(environments, Player(), 2, deterministic=True, seed=0)


def test_dummy_rows_count_in_no_return_and_no_length():
    result = play_episodes(Clockwork([3], gym.vector.AutoresetMode.NEXT_STEP), Player(), 3, deterministic=True, seed=0)
    assert result.lengths.tolist() == [3, 3, 3]
    assert result.returns.tolist() == [3, 3, 3]
