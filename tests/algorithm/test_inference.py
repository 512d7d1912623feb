import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.utils.env_checker import data_equivalence
from torch import nn

from tests.agents import observations_of, random_agent
from trpo_fast import TRPO

SPACES = [
    Discrete(5, start=-2),
    MultiDiscrete([2, 4, 3], start=[5, 0, -1]),
    MultiBinary(3),
    Box(-0.3, 0.3, (2, 2), np.float64),
    Box(8, 40, (2, 1), np.float32),
    Dict(arm=Box(0, 200, (2,)), hand=Tuple([Discrete(3, start=1), MultiBinary(2)])),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_log_probs_of_predicted_actions_are_those_that_they_were_drawn_with(space):
    agent = random_agent(action_space=space)
    with torch.no_grad():
        for parameter in agent.policy.layers[-1].parameters():
            parameter *= 0.02
        if hasattr(agent.policy, "log_std"):
            agent.policy.log_std -= 3.0  # no draw is beyond the box, and clipped
    samples, batch = observations_of(agent, 6)
    actor = agent._inference._actor
    actions, _ = agent.predict(batch)
    drawn = actor._arrays[2].copy()  # log-probabilities of the policy's own numbers
    found = agent.log_probs(batch, actions)
    assert found.shape == (6,) and found.dtype == np.float64
    np.testing.assert_allclose(found, drawn, rtol=1e-3, atol=1e-3)  # a float32 action of a wide box is rounded
    one = agent.predict(samples[0], deterministic=True)[0]
    single = agent.log_probs(samples[0], one)
    assert np.ndim(single) == 0 and single == pytest.approx(
        agent.log_probs(batch, agent.predict(batch, deterministic=True)[0])[0], rel=1e-5
    )
    agent.close()


def test_a_dimension_of_a_mapped_box_without_width_counts_as_its_middle():
    agent = random_agent(action_space=Box(np.array([-2.0, 5.0]), np.array([2.0, 5.0]), dtype=np.float64))
    assert agent.config.action_map == "affine"
    (sample, *_), _ = observations_of(agent, 1)
    with torch.no_grad():
        distribution = agent.policy(torch.from_numpy(agent._inference._normalized(np.atleast_2d(sample))))
        expected = distribution.log_prob(torch.tensor([[0.5, 0.0]], dtype=distribution.mean.dtype)).item()
    assert agent.log_probs(sample, np.array([1.0, 5.0])) == pytest.approx(expected, rel=1e-6)


def test_log_probs_are_the_densities_of_a_gaussian_and_masks_leave_no_chance():
    agent = random_agent(action_space=Box(-1, 1, (3,)))
    _, batch = observations_of(agent, 4)
    mean = agent.policy(torch.from_numpy(agent._inference._normalized(batch.astype(float)))).mean
    actions = np.full((4, 3), 0.25, np.float32)
    log_std = agent.policy.log_std.detach().numpy().astype(float)
    z = (0.25 - mean.detach().numpy().astype(float)) / np.exp(log_std)
    expected = (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(1)
    np.testing.assert_allclose(agent.log_probs(batch, actions), expected, rtol=1e-5)
    agent.close()
    masked = random_agent()
    samples, _ = observations_of(masked, 1)
    all_but_one = np.array([0, 1, 0], np.int8)
    assert masked.log_probs(samples[0], np.int64(1), action_masks=all_but_one) == 0.0
    assert masked.log_probs(samples[0], np.int64(0), action_masks=all_but_one) < -1e30
    masked.close()


def test_values_are_the_critics_in_the_environments_unit():
    agent = random_agent()
    samples, batch = observations_of(agent, 5)
    agent.reward_scaler.scale = 0.25
    rows = torch.from_numpy(agent._inference._normalized(batch.astype(float)))
    own = agent.critic(rows).detach().numpy().astype(float)
    np.testing.assert_allclose(agent.values(batch), 4 * own, rtol=1e-5, atol=1e-7)
    assert agent.values(samples[2]) == pytest.approx(agent.values(batch)[2], rel=1e-5)
    agent.close()


def test_what_has_no_value_or_probability_is_named():
    agent = random_agent()
    sample = observations_of(agent, 1)[0][0]
    for call, message in (
        (lambda: agent.values(np.full(4, np.nan)), "observation: column 0 is nan; want finite numbers"),
        (lambda: agent.log_probs(sample, 3), r"actions: 3 given; want actions of Discrete\(3\)"),
        (lambda: agent.log_probs(sample, 0.5), r"actions: 0.5 given; want actions of Discrete\(3\)"),
        (lambda: agent.log_probs(sample, [0, 1]), r"actions: shape \(2,\) given; want \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    agent.close()
    recurrent = random_agent(policy="gru")
    sample = observations_of(recurrent, 1)[0][0]
    with pytest.raises(ValueError, match="values: this critic is recurrent"):
        recurrent.values(sample)
    with pytest.raises(ValueError, match="log_probs: this policy is recurrent"):
        recurrent.log_probs(sample, 0)
    recurrent.close()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_one_observation_and_a_batch_of_one_are_predicted_alike(space):
    agent = random_agent(action_space=space)
    sample = observations_of(agent, 1)[0][0]
    for deterministic in (True, False):
        before = agent.num_predictions
        one, state = agent.predict(sample, "kept", deterministic=deterministic)
        agent.num_predictions = before
        listed, _ = agent.predict(sample.tolist(), deterministic=deterministic)
        assert state == "kept" and agent.num_predictions == before + 1
        assert data_equivalence(one, listed)
    agent.close()


def test_predict_sees_whatever_was_done_to_the_policy():
    agent = random_agent()
    sample = observations_of(agent, 1)[0][0]

    def best():
        action, _ = agent.predict(sample, deterministic=True)
        logits = agent.policy(torch.from_numpy(agent._inference._normalized(sample[None].astype(float)))).logits
        assert action == int(logits.argmax())
        return int(action)

    best()
    last = agent.policy.layers[-1]
    with torch.no_grad():
        for choice in range(3):
            last.bias[:] = torch.eye(3)[choice] * 100
            assert best() == choice
        last.bias = nn.Parameter(torch.tensor([0.0, 100.0, 0.0]))
        assert best() == 1
        last.bias.data = torch.tensor([100.0, 0.0, 0.0])
        assert best() == 0
        replaced = nn.Linear(last.in_features, 3)
        replaced.bias[:] = torch.tensor([0.0, 0.0, 100.0])
        agent.policy.layers[-1] = replaced
        assert best() == 2
        replaced.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"policy: parameter 'layers\.2\.weight' contains nan"):
        agent.predict(sample)
    agent.close()


def test_an_agent_is_closed_at_the_end_of_a_block():
    with random_agent() as agent:
        agent.learn(1)
        assert agent.environments is not None
    assert agent.environments is None


def test_a_critic_that_is_not_finite_or_of_another_size_is_named():
    agent = TRPO("CartPole-v1", preset=None, num_envs=2, steps_per_env=16, warm_up_steps=0)
    observation = agent.observation_space.sample()
    with torch.no_grad():
        agent.critic.layers[0].bias[3] = torch.inf
    for call in (lambda: agent.values(observation), lambda: agent.learn(32)):
        with pytest.raises(ValueError, match=r"critic: parameter 'layers\.0\.bias' contains inf; want finite numbers"):
            call()
    agent.critic.layers[-1].weight = torch.nn.Parameter(torch.zeros(7, 3))
    for call in (lambda: agent.values(observation), lambda: agent.learn(32)):
        with pytest.raises(ValueError, match=r"critic: 4,\d{3} parameters of float32 given; want 4,\d{3} of float32"):
            call()
    agent.close()
