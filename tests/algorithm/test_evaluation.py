import sys
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest

from tests.registered import newest
from trpo_fast.algorithm.evaluation import EvaluationResult, play_episodes
from trpo_fast.algorithm.trpo import TRPO


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
        self.seeds = []

    def reset(self, seed=None):
        self.seeds.append(seed)
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


class Actor:
    state = None

    def act(self, observations, step, *, deterministic, action_masks, state, episode_starts):
        return np.zeros(len(observations))


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
def test_quotas_keep_short_episodes_from_being_over_represented(mode):
    result = play_episodes(Clockwork([1, 10, 100], mode), Actor(), 6, deterministic=True, seed=0, max_steps=999)
    assert result.lengths.tolist() == [1, 1, 10, 10, 100, 100]
    assert result.returns.tolist() == [1, 1, 20, 20, 300, 300]
    assert result.mean == pytest.approx(107.0)


@pytest.mark.parametrize("episodes", [1, 2, 3, 4, 5, 7])
def test_exactly_the_episodes_asked_for_are_played(episodes):
    result = play_episodes(Clockwork([2, 3, 4]), Actor(), episodes, deterministic=True, seed=0, max_steps=999)
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
    with pytest.raises(ValueError, match=f"reward of environment 1 at step 4: {value} given; want a finite number"):
        play_episodes(environments, Actor(), 6, deterministic=True, seed=0, max_steps=999)


def test_reward_of_a_dummy_row_may_be_anything():
    environments = Clockwork([3], gym.vector.AutoresetMode.NEXT_STEP)
    play = environments.step

    def step(actions):
        is_reset = environments.ended.copy()
        result = play(actions)
        result.rewards[is_reset] = np.nan
        return result

    environments.step = step
    assert play_episodes(environments, Actor(), 3, deterministic=True, seed=0, max_steps=999).returns.tolist() == [
        3,
        3,
        3,
    ]


@pytest.mark.parametrize(
    ("length", "reward", "message"),
    [
        (3, 1e308, r"return of environment 0 at step 1: inf given; want a finite number"),
        (1, 1.5e308, r"mean and std of the returns: inf and inf given; want finite ones"),
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
        play_episodes(environments, Actor(), 2, deterministic=True, seed=0, max_steps=999)


def test_dummy_rows_count_in_no_return_and_no_length():
    result = play_episodes(
        Clockwork([3], gym.vector.AutoresetMode.NEXT_STEP), Actor(), 3, deterministic=True, seed=0, max_steps=999
    )
    assert result.lengths.tolist() == [3, 3, 3]
    assert result.returns.tolist() == [3, 3, 3]


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
def test_episodes_without_an_end_are_left_and_said_and_every_episode_asked_for_is_played(mode):
    environments = Clockwork([3, 10**9, 10], mode)
    result = play_episodes(environments, Actor(), 8, deterministic=True, seed=7, max_steps=10)
    assert result.finished.tolist() == [True, True, False, False, False, True, True, True]
    assert result.lengths.tolist() == [3, 3, 10, 10, 10, 10, 10, 10]
    assert result.returns.tolist() == [3, 3, 20, 20, 20, 30, 30, 30]
    assert result.unfinished == 3 and result.mean == pytest.approx(result.returns.mean())
    assert environments.seeds == [
        7,
        10,
        13,
    ]  # a new reset after each that did not end, seeds unused before


def test_limit_that_no_episode_reaches_changes_nothing():
    results = [
        play_episodes(Clockwork([1, 10, 100]), Actor(), 6, deterministic=True, seed=0, max_steps=limit)
        for limit in (100, 10**6)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))
    assert results[0].finished.all() and results[0].unfinished == 0


def test_result_is_a_tuple_that_begins_with_mean_std_returns_and_lengths():
    assert EvaluationResult._fields[:4] == ("mean", "std", "returns", "lengths")


def test_cliff_walking_trained_for_2048_steps_is_evaluated_and_says_what_did_not_end():
    agent = TRPO(newest("CliffWalking"), seed=0, evaluation_max_steps=300).learn(2048)
    with pytest.warns(UserWarning, match="evaluate: 10 of 10 episodes had not ended after 300 steps"):
        result = agent.evaluate()
    assert result.unfinished == 10 and result.lengths.tolist() == [300] * 10
    with pytest.warns(UserWarning, match="evaluate: 3 of 3 episodes had not ended after 20 steps"):
        assert agent.evaluate(3, max_steps=20).lengths.tolist() == [20, 20, 20]
    agent.close()


@pytest.mark.parametrize("value", [0, 2.5, True])
def test_bad_limit_is_refused_by_name(make_agent, value):
    with pytest.raises(ValueError, match=f"max_steps: {value} given; want an integer >= 1"):
        make_agent().evaluate(max_steps=value)


def test_a_bar_of_episodes_is_shown_where_it_is_asked_for_and_somebody_watches(capsys, monkeypatch):
    agent = TRPO("CartPole-v1", num_envs=2, seed=0)
    plain = agent.evaluate(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    agent.evaluate(3, progress_bar=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown = agent.evaluate(3, progress_bar=True)
    assert "evaluating:" in capsys.readouterr().err
    assert (shown.returns == plain.returns).all()
    agent.close()
