"""Training, saving and acting with every kind of space, with and without action masks."""

from __future__ import annotations

import copy
import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.registered import newest
from tests.rollout.toys import Gate
from trpo_fast.algorithm.trpo import TRPO

ACTIONS = [
    Discrete(5, start=-2),
    MultiDiscrete([2, 4, 3], start=[5, 0, -1]),
    MultiDiscrete([[2, 3], [1, 4]]),
    MultiBinary(3),
    MultiBinary((2, 2)),
]
OBSERVATIONS = [
    Box(-1, 1, (2, 3), np.float64),
    Box(0, 255, (2, 2, 3), np.uint8),
    Box(-5, 5, (3,), np.int64),
    Box(0, 1, (), bool),
    Discrete(4, start=-1),
    MultiDiscrete([2, 3], start=[1, 2]),
    MultiBinary((2, 2)),
    Dict(far=Box(-1, 1, (2,)), here=Tuple([Discrete(3), MultiBinary(2), Box(0, 255, (2, 2, 1), np.uint8)])),
]
SMALL = {"num_envs": 2, "steps_per_env": 24}
STEPS = 2 * 24


def total(action):
    """Of all parts."""
    if isinstance(action, dict):
        action = tuple(action.values())
    return sum(map(total, action)) if isinstance(action, tuple) else float(np.sum(action))


class Anything(gym.Env):
    """Random observations of a space; pays the sum of the action, and is truncated after five steps."""

    def __init__(self, observation_space, action_space):
        # Copies: what environments share, a generator of a space for example, is refused.
        self.observation_space, self.action_space = copy.deepcopy((observation_space, action_space))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space
        self.time += 1
        return self.observation_space.sample(), total(action), False, self.time == 5, {}


def same_after_loading(agent, path, make, observation, **masks):
    """The loaded agent, which acts as the saved one did."""
    agent.save(path)
    loaded = TRPO.load(path, env=make)
    assert loaded.observation_space == agent.observation_space
    assert loaded.action_space == agent.action_space
    for deterministic in True, False:
        actions = [a.predict(observation, deterministic=deterministic, **masks)[0] for a in (agent, loaded)]
        np.testing.assert_array_equal(*actions)
        assert actions[0] in agent.action_space
    assert loaded.learn(STEPS).last_update is not None
    loaded.close()


@pytest.mark.parametrize("engine", ["native", "autograd"])
@pytest.mark.parametrize("space", [*ACTIONS, Box(-1, 1, (2, 2), np.float16)], ids=str)
def test_every_action_space_trains_evaluates_and_survives_a_file(make_agent, tmp_path, space, engine):
    make = functools.partial(Anything, Box(-1, 1, (3,), np.float32), space)
    agent = make_agent(make, engine=engine, **SMALL).learn(2 * STEPS)
    assert agent.engine.name == engine
    assert agent.last_update.status >= 0
    assert agent.evaluate(3, deterministic=False).lengths.tolist() == [5] * 3
    several, _ = agent.predict(np.zeros((7, 3)))
    assert several.shape == (7, *(space.shape or ()))
    assert several.dtype == space.dtype
    same_after_loading(agent, tmp_path / "model", make, np.zeros(3))


@pytest.mark.parametrize("vectorization", ["sync"])
@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_every_observation_space_trains_evaluates_and_survives_a_file(make_agent, tmp_path, space, vectorization):
    make = functools.partial(Anything, space, Discrete(3))
    agent = make_agent(make, vectorization=vectorization, **SMALL).learn(2 * STEPS)
    assert agent.last_update.status >= 0
    assert agent.evaluate(3).lengths.tolist() == [5] * 3
    same_after_loading(agent, tmp_path / "model", make, space.sample())


def test_only_numeric_columns_are_normalized(make_agent):
    agent = make_agent(functools.partial(Anything, OBSERVATIONS[-1], Discrete(3)), **SMALL).learn(STEPS)
    moved = agent.observation_normalizer.mean != 0
    np.testing.assert_array_equal(moved, [True] * 2 + [False] * 5 + [True] * 4)
    agent = make_agent(functools.partial(Anything, Discrete(3), Discrete(3)), **SMALL).learn(STEPS)
    assert agent.observation_normalizer is None


@pytest.mark.parametrize("engine", ["native", "autograd"])
@pytest.mark.parametrize("source", ["method", "info"])
@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_a_masked_action_never_happens_in_training_evaluation_and_prediction(
    make_agent, tmp_path, space, source, engine
):
    make = functools.partial(Gate, space, source)
    agent = make_agent(make, engine=engine, **SMALL)
    agent.learn(2 * STEPS)
    assert agent.last_update.status >= 0
    for deterministic in True, False:
        assert len(agent.evaluate(6, deterministic=deterministic).returns) == 6
    gate = make()
    observation, _ = gate.reset(seed=0)
    for _ in range(30):
        action, _ = agent.predict(observation, deterministic=False, action_masks=gate._mask())
        observation, _, terminated, truncated, _ = gate.step(action)
        if terminated or truncated:
            observation, _ = gate.reset()
    gates = [make() for _ in range(8)]
    resets = [gate.reset(seed=i)[0] for i, gate in enumerate(gates)]
    batch = {key: np.stack([reset[key] for reset in resets]) for key in ("here", "far")}
    actions, _ = agent.predict(batch, action_masks=np.stack([gate.canonical() for gate in gates]))
    for gate, action in zip(gates, actions, strict=True):
        gate.step(action)
    same_after_loading(agent, tmp_path / "model", make, observation, action_masks=gates[0].canonical() | True)


def test_an_agent_trained_with_masks_says_once_that_predict_got_none(make_agent, tmp_path):
    observation = {"here": 1, "far": np.zeros(2)}
    agent = make_agent(functools.partial(Gate, Discrete(3)), **SMALL)
    agent.predict(observation)  # not yet
    agent.learn(STEPS).save(tmp_path / "model")
    for each in (agent, TRPO.load(tmp_path / "model")):
        each.predict(observation, action_masks=np.ones(3, bool))
        with pytest.warns(
            UserWarning, match=r"predict: action_masks: none given, but this agent was trained with masks"
        ):
            each.predict(observation)
        each.predict(observation)


@pytest.mark.parametrize("engine", ["native", "autograd"])
@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_first_ratio_under_masks_is_one(make_agent, space, engine):
    agent = make_agent(functools.partial(Gate, space), engine=engine, dtype="float64", **SMALL).learn(STEPS)
    batch, _, _ = agent.collector.finisher.finish(
        agent.collector.collect(), agent.critic_trainer.values, 0.99, 0.95, True
    )
    assert not batch.action_masks.all()
    agent.engine.bind(batch)
    np.testing.assert_allclose(agent.engine.evaluate(), 0.0, atol=1e-12)


def test_masks_that_predict_cannot_use_are_named(make_agent):
    agent = make_agent(functools.partial(Gate, Discrete(3)), **SMALL)
    observation = {"here": 1, "far": np.zeros(2)}
    for masks, message in (
        (np.zeros(3, bool), "action mask of observation 0 forbids every choice"),
        (np.ones(4, bool), "action mask of observation 0: bool of 4 items given; want 3 items"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.predict(observation, action_masks=masks)
    several = {"here": [1, 2], "far": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="action_masks: 3 masks given; want one for each of 2 observations"):
        agent.predict(several, action_masks=np.ones((3, 3), bool))
    continuous = make_agent()
    with pytest.raises(ValueError, match=r"action_masks: given for Box.*; want None, masks are for discrete actions"):
        continuous.predict(np.zeros(3), action_masks=np.ones(2, bool))


def test_observations_whose_columns_lie_in_another_order_are_refused(make_agent, tmp_path):
    spaces = [Dict([(key, Discrete(2)) for key in keys]) for keys in ("ab", "ba")]
    agent = make_agent(functools.partial(Anything, spaces[0], Discrete(2)), **SMALL)
    agent.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"env .*: observation_space .* given; want .* the order of its keys"):
        TRPO.load(tmp_path / "model", env=functools.partial(Anything, spaces[1], Discrete(2)))


@pytest.mark.parametrize("name", ["FrozenLake", "Taxi", "Blackjack"])
def test_gymnasiums_toys_of_discrete_observations_train(make_agent, name):
    agent = make_agent(newest(name), **SMALL).learn(STEPS)
    assert agent.last_update is not None
    assert agent.evaluate(2, deterministic=False).lengths.min() >= 1
