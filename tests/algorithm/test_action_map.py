"""How an agent hands its actions on: chosen when it is made, the same in training, evaluation and prediction, saved."""

from __future__ import annotations

import copy
import functools
import re
import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.distributions import Independent, Normal

from tests import reference
from tests.algorithm.test_every_space import Anything
from trpo_fast import TRPO

OBSERVATIONS = Box(-1, 1, (3,), np.float32)
RAW = Box(np.array([0.0, 8.0, -0.1]), np.array([200.0, 40.0, 0.1]), dtype=np.float64)


def making(space):
    """A function that makes copies which share nothing, the generators of their spaces included."""
    return lambda: Anything(copy.deepcopy(OBSERVATIONS), copy.deepcopy(space))


class Recorded(Anything):
    """Keeps the actions that reach it."""

    seen: list = []  # noqa: RUF012  one list for every copy is what the test wants

    def step(self, action):
        self.seen.append(np.array(action))
        return super().step(action)


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_training_evaluation_and_prediction_map_actions_alike(make_agent, engine):
    Recorded.seen = []
    make = functools.partial(Recorded, OBSERVATIONS, RAW)
    agent = make_agent(make, engine=engine, dtype="float64", warm_up_steps=0, normalize_observations=False)
    assert agent.config.action_map == "affine"
    rollout = agent.collector.collect()
    seen = np.array(Recorded.seen).reshape(rollout.actions.shape)
    expected = reference.environment_action(rollout.actions, RAW.low, RAW.high, "affine")
    np.testing.assert_allclose(seen, expected, rtol=1e-13, atol=1e-14)
    with torch.no_grad():
        own = agent.policy(torch.from_numpy(np.array(rollout.observations[0]))).log_prob(
            torch.from_numpy(np.array(rollout.actions[0]))
        )
    np.testing.assert_allclose(rollout.log_probs[0], own, rtol=1e-10)

    observations = np.random.default_rng(0).normal(size=(40, 3))
    with torch.no_grad():
        means = agent.policy(torch.from_numpy(observations)).mean
    predicted, _ = agent.predict(observations, deterministic=True)
    np.testing.assert_allclose(
        predicted, reference.environment_action(means, RAW.low, RAW.high, "affine"), rtol=1e-13, atol=1e-14
    )

    Recorded.seen = []
    agent.evaluate(3)
    assert len(Recorded.seen) >= 5
    assert all(action in RAW for action in Recorded.seen)
    # Of means near 0, so near the middle; clipped, the second dimension would be the constant 8.
    assert (abs(np.array(Recorded.seen)[:, 1] - 24) < 8).all()


def test_the_choice_is_kept_in_the_configuration_and_the_file(make_agent, tmp_path):
    spaces = (RAW, "affine"), (Box(-3, 3, (2,), np.float32), "affine"), (Box(-1, 1, (2,), np.float32), "clip")
    for space, chosen in (*spaces, (Discrete(3), "clip")):
        agent = make_agent(making(space))
        assert agent.config.action_map == chosen
        agent.save(tmp_path / "model.trpo")
        assert TRPO.load(tmp_path / "model.trpo").config == agent.config


def test_boxes_that_stay_clipped_are_trained_to_the_same_bits_by_default(make_agent, bits):
    make = making(Box(-1, 1, (2,), np.float32))
    agents = [make_agent(make, **settings).learn(400) for settings in ({}, {"action_map": "clip"})]
    assert bits(agents[0]) == bits(agents[1])


class Own(nn.Module):
    """Emits the environment's own units."""

    def __init__(self, observation_space, action_space, seed):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([100.0, 20.0, 0.0]))
        self.std = nn.Parameter(torch.tensor([30.0, 4.0, 0.02]))

    def forward(self, observations):
        return Independent(Normal(self.mean.expand(len(observations), 3), self.std), 1)


def test_a_module_of_ones_own_is_clipped_without_a_word_unless_a_map_is_asked_for(make_agent, tmp_path):
    make = making(RAW)
    agent = make_agent(make, policy=Own)
    assert agent.config.action_map == "clip"
    np.testing.assert_allclose(agent.predict(np.zeros(3), deterministic=True)[0], [100, 20, 0])
    mapped = make_agent(make, policy=Own, action_map="affine")
    np.testing.assert_allclose(mapped.predict(np.zeros(3), deterministic=True)[0], [200, 40, 0])
    mapped.save(tmp_path / "model.trpo")
    assert TRPO.load(tmp_path / "model.trpo", policy=Own).config.action_map == "affine"


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        (RAW, {"action_map": "clip"}, ["200 of dimension 0, 8 of dimension 1, 40 of dimension 1 are far", "'affine'"]),
        (
            Box(np.full((2, 2), 9.0), np.full((2, 2), 12.0), dtype=np.float64),
            {"action_map": "clip"},
            ["9 of dimension 0, 0, 12 of dimension 0, 0, 9 of dimension 0, 1 and 5 more are far"],
        ),
        (Box(8, np.inf, (1,), np.float64), {}, ["8 of dimension 0", "a wrapper that gives every side"]),
        (Box(-50, 50, (1,), np.float64), {"action_map": "clip", "log_std_init": 1.0}, ["deviation 2.71828", "-50 of"]),
    ],
    ids=str,
)
def test_a_side_far_from_what_a_clipped_policy_emits_is_said_once(make_agent, tmp_path, space, settings, words):
    with pytest.warns(UserWarning, match=r"action_map: 'clip' takes what the policy emits") as caught:
        agent = make_agent(making(space), **settings)
    (warning,) = caught
    for word in words:
        assert re.search(re.escape(word), str(warning.message))
    agent.learn(100)  # here a warning would be an error
    agent.evaluate(2)
    agent.save(tmp_path / "model.trpo")
    TRPO.load(tmp_path / "model.trpo")


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (RAW, {}),
        (Box(-3, 3, (2,), np.float32), {"log_std_init": -2.0}),
        (Box(0, np.inf, (2,), np.float32), {}),
        (Box(-np.inf, np.inf, (2,), np.float32), {"action_map": "clip"}),
        (Box(-50, 50, (1,), np.float64), {"action_map": "clip", "log_std_init": 3.0}),
        (Discrete(3), {"action_map": "clip"}),
    ],
    ids=str,
)
def test_nothing_is_said_of_sides_that_are_reached_or_infinite(make_agent, space, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = make_agent(making(space), **settings)
    assert agent.config.log_std_init == settings.get("log_std_init", -1.0)


def test_an_affine_map_that_cannot_be_is_refused_when_the_agent_is_made(make_agent):
    with pytest.raises(ValueError, match=r"action_map: 'affine' given, but dimension 1 of Box.* goes from 0 to inf"):
        make_agent(
            making(Box(np.zeros(2), np.array([1, np.inf]), dtype=np.float64)),
            action_map="affine",
        )
    with pytest.raises(ValueError, match="action_map: 'affine' given for Discrete"):
        make_agent("CartPole-v1", action_map="affine")
