"""What a training of hours must not end by, or must name at once."""

import functools
import warnings

import gymnasium as gym
import numpy as np
import pytest

from tests.algorithm.test_every_space import Anything
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.policies import MLPPolicy
from trpo_fast.solvers.status import Status


class Constant(gym.Env):
    """One step an episode, the same reward whatever is done."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, reward=1.0):
        self._reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self._reward, True, False, {}


class Acts(Constant):
    """With other actions."""

    def __init__(self, action_space):
        super().__init__()
        self.action_space = action_space


def test_an_entropy_bonus_without_a_reward_against_it_leaves_log_std_at_its_limit(make_agent, tmp_path):
    settings = {"num_envs": 1, "steps_per_env": 8, "entropy_coefficient": 0.01, "max_kl": 1.0, "critic_epochs": 1}
    agent = make_agent(lambda: Constant(), **settings, log_std_limit=3.0).learn(8 * 40)
    assert agent.policy.log_std.item() == 3.0
    agent.save(tmp_path / "a.trpo")
    again = TRPO.load(tmp_path / "a.trpo", env=lambda: Constant())
    again.learn(8)
    assert again.policy.log_std.item() == 3.0
    again.close()


def test_the_limit_of_log_std_changes_no_bit_of_an_agent_within_it(make_agent, bits):
    assert bits(make_agent().learn(3 * 192)) == bits(make_agent(log_std_limit=5.0).learn(3 * 192))


def test_an_agent_beyond_the_limit_learns_on_within_it(make_agent):
    agent = make_agent(lambda: Constant(), num_envs=1, steps_per_env=8)
    agent.policy.log_std.data.fill_(30.0)
    agent.learn(8)
    assert agent.policy.log_std.item() == 20.0


@pytest.mark.parametrize("value", [0, 44, float("nan"), "a"])
def test_a_limit_that_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match=r"log_std_limit: .* given; want a number in \(0, 43\]"):
        TRPOConfig(log_std_limit=value)


def test_an_initial_log_std_beyond_the_limit_is_refused(make_agent):
    with pytest.raises(ValueError, match=r"log_std_init: 25\.0 given; want it from -20 to 20, the log_std_limit"):
        make_agent(log_std_init=25)
    with pytest.raises(ValueError, match=r"log_std_limit: 0\.5 given; want at least 1\.0, as log_std_init is -1\.0"):
        make_agent(log_std_limit=0.5)


def test_a_loaded_agent_takes_a_limit_below_what_it_began_with(make_agent, tmp_path):
    make_agent().save(tmp_path / "agent.trpo")
    agent = TRPO.load(tmp_path / "agent.trpo", log_std_limit=0.25)
    agent.learn(8)
    assert agent.policy.log_std.abs().max() <= 0.25
    agent.save(tmp_path / "again.trpo")
    assert TRPO.load(tmp_path / "again.trpo").config.log_std_limit == 0.25


@pytest.mark.parametrize("reward", [1e18, 1e19, 1e25])
def test_what_a_huge_reward_leaves_of_an_agent_can_be_saved_and_loaded(make_agent, tmp_path, reward):
    agent = make_agent(lambda: Constant(reward), scale_rewards=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*second moment")
        agent.learn(192)
    assert agent.num_updates == 1
    expected = {1e18: [Status.SUCCESS], 1e19: [Status.SUCCESS, Status.NON_FINITE], 1e25: [Status.NON_FINITE]}
    assert agent.last_update.critic_status in expected[reward]
    agent.save(tmp_path / "a.trpo")
    TRPO.load(tmp_path / "a.trpo").close()


def test_a_policy_is_taken_over_with_the_statistics_of_its_observations(make_agent):
    agent, other = make_agent(seed=1).learn(192), make_agent(seed=2).learn(2 * 192)
    with pytest.raises(AttributeError, match=r"want agent\.take_policy\(other_agent\)"):
        agent.policy = other.policy
    agent.take_policy(other)
    np.testing.assert_array_equal(agent.evaluate(3, seed=5).returns, other.evaluate(3, seed=5).returns)
    before = other.policy.flat.numpy.copy()
    agent.learn(192)
    np.testing.assert_array_equal(other.policy.flat.numpy, before)


def test_a_policy_that_does_not_fit_is_refused_and_nothing_taken(make_agent, bits):
    agent = make_agent()
    before = bits(agent)
    with pytest.raises(ValueError, match=r"other: its policy has parameters .*; want .*, this agent's"):
        agent.take_policy(make_agent(hidden_sizes=(4,)))
    with pytest.raises(ValueError, match=r"other: normalize_observations is False; want True, this agent's"):
        agent.take_policy(make_agent(normalize_observations=False))
    with pytest.raises(TypeError, match=r"other: .* given; want a TRPO"):
        agent.take_policy(make_agent().policy)
    assert bits(agent) == before


@pytest.mark.parametrize("setting", [{"activation": "relu"}, {"squash": True}])
def test_a_policy_of_ones_own_that_computes_something_else_is_not_taken(make_agent, bits, setting):
    def made(**settings):
        return make_agent(policy=lambda *spaces_and_seed: MLPPolicy(*spaces_and_seed[:2], (8,), **settings))

    agent, other = made(), made(**setting)
    before = bits(agent)
    (name,) = setting
    with pytest.raises(ValueError, match=rf"other: the policy's {name} is .*; want .*, this agent's"):
        agent.take_policy(other)
    assert bits(agent) == before


def test_a_policy_for_other_actions_is_not_taken(make_agent):
    agent = make_agent(functools.partial(Acts, gym.spaces.Discrete(2)))
    with pytest.raises(ValueError, match=r"other: action_space MultiBinary\(2\) given; want Discrete\(2\), this"):
        agent.take_policy(make_agent(functools.partial(Acts, gym.spaces.MultiBinary(2))))


def test_a_policy_over_other_columns_is_not_taken(make_agent):
    def seeing(**sizes):
        parts = {name: gym.spaces.Box(-1, 1, (size,)) for name, size in sizes.items()}
        return make_agent(functools.partial(Anything, gym.spaces.Dict(parts), gym.spaces.Discrete(2)))

    with pytest.raises(ValueError, match=r"other: observation_space .* given; want .*: observation\['a'\]"):
        seeing(a=1, b=2).take_policy(seeing(a=2, b=1))


def test_what_is_taken_or_observed_is_not_undone_by_what_was_to_be_put_back(make_agent):
    agent, other = make_agent(seed=1).learn(192), make_agent(seed=2).learn(192)
    before = checkpoint.capture(agent)
    agent.learn(192)
    agent.put_back_to = before, False  # as a lack of memory leaves it
    agent.take_policy(other)
    assert agent.put_back_to is None
    agent.predict(np.zeros(3, np.float32))
    np.testing.assert_array_equal(agent.policy.flat.numpy, other.policy.flat.numpy)
    agent.put_back_to = before, False
    count = agent.observation_normalizer.count
    agent.observe(np.zeros((10, 3), np.float32))
    assert agent.put_back_to is None and agent.observation_normalizer.count != count


def test_statistics_of_demonstrations_hold_when_the_training_begins(make_agent):
    observations = np.random.default_rng(0).normal(3.0, 2.0, (5_000, 3)).astype(np.float32)
    agent = make_agent(warm_up_steps=0)
    agent.observe(observations)
    np.testing.assert_allclose(agent.observation_normalizer.mean, observations.mean(0), rtol=1e-5)
    assert agent.observation_normalizer.count == 5_000
    seen = agent.predict(observations[0], deterministic=True)[0]
    agent.learn(1)
    agent.take_policy(agent)  # nothing changes
    assert agent.observation_normalizer.count == 5_000 + 192
    assert np.abs(agent.observation_normalizer.mean - observations.mean(0)).max() < 0.2
    assert np.abs(agent.predict(observations[0], deterministic=True)[0] - seen).max() < 1.0


def test_an_agent_without_statistics_observes_nothing(make_agent):
    with pytest.raises(ValueError, match="observations: given, but this agent keeps no statistics"):
        make_agent(normalize_observations=False).observe(np.zeros((2, 3)))
