"""Pickles and copies of agents, engines and actors; agents that several threads use."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from tests.agents import ACTIONS, observations_of, random_agent
from trpo_fast import TRPO
from trpo_fast.deploy import load_actor
from trpo_fast.policies import MLPPolicy

SMALL = {"num_envs": 2, "steps_per_env": 16, "warm_up_steps": 4, "seed": 1, "hidden_sizes": (8,)}
COPIES = [
    lambda one: pickle.loads(pickle.dumps(one)),
    lambda one: cloudpickle.loads(cloudpickle.dumps(one)),
    copy.copy,
    copy.deepcopy,
]
WAYS = ["pickle", "cloudpickle", "copy", "deepcopy"]


@pytest.mark.parametrize("copied", COPIES, ids=WAYS)
@pytest.mark.parametrize("space", [ACTIONS[4], ACTIONS[9], Discrete(5000)], ids=str)
def test_an_actor_is_pickled_and_copied_by_content(space, copied, tmp_path):
    nested = Dict(far=Box(-1, 1, (2,), np.float64), here=Discrete(3))
    agent = random_agent(nested, space)
    agent.save(tmp_path / "agent.trpo")
    actor = load_actor(tmp_path / "agent.trpo", seed=7)
    (tmp_path / "agent.trpo").unlink()
    _, observations = observations_of(agent, 6)
    actor(observations, deterministic=False)
    again = copied(actor)
    assert (again.seed, again.num_predictions) == (7, 1)
    assert again.metadata == actor.metadata and str(again.action_space) == str(actor.action_space)
    for deterministic in (True, False):
        wanted = actor(observations, deterministic=deterministic)
        np.testing.assert_array_equal(again(observations, deterministic=deterministic), wanted)
    if copied is not copy.copy:
        again.normalizer.mean[:] += 1  # read at every call, and its own
        assert (actor.normalizer.mean != again.normalizer.mean).all()
        assert again._actor is not actor._actor
        assert not np.array_equal(again(observations, deterministic=False), actor(observations, deterministic=False))


@pytest.mark.parametrize("copied", COPIES, ids=WAYS)
@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_agents_and_engines_say_why_they_are_not_and_what_is(copied, engine):
    agent = TRPO("CartPole-v1", **SMALL, engine=engine)
    with pytest.raises(
        TypeError, match=r"^TRPO: an agent cannot be pickled .* want agent\.save\(path\) and TRPO\.load"
    ):
        copied(agent)
    with pytest.raises(
        TypeError, match=r"^(Native|Autograd)Engine: an engine cannot be pickled .* save and TRPO\.load"
    ):
        copied(agent.engine)
    assert isinstance(copied(agent.policy), MLPPolicy)
    agent.close()


def test_predict_of_both_samples_unless_it_is_told_not_to(tmp_path):
    agent = random_agent(action_space=Box(-9, 9, (2,), np.float32))
    agent.save(tmp_path / "agent.trpo")
    actor, observation = load_actor(tmp_path / "agent.trpo"), observations_of(agent, 1)[0][0]
    for one in (agent, actor):
        assert not np.array_equal(one.predict(observation)[0], one.predict(observation)[0])
        first, second = (one.predict(observation, deterministic=True)[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(actor(observation), first)
    agent.num_predictions = actor.num_predictions = 3
    np.testing.assert_array_equal(agent.predict(observation)[0], actor.predict(observation)[0])
    for method in (agent.predict, actor.predict, actor.__call__):
        first_line = method.__doc__.splitlines()[0]
        assert "sampled action" in first_line or "deterministic, unless" in first_line


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_threads_that_predict_get_their_own_observations_actions(engine):
    agent = random_agent(action_space=Box(-99, 99, (2,), np.float32), engine=engine)
    _, observations = observations_of(agent, 400)
    wanted = agent.predict(observations, deterministic=True)[0]
    start = threading.Barrier(4)

    def act(thread):
        start.wait()
        own = range(thread, 400, 4)
        return [(i, agent.predict(observations[i], deterministic=True)[0]) for i in own]

    before = agent.num_predictions
    with ThreadPoolExecutor(4) as pool:
        found = [pair for pairs in pool.map(act, range(4)) for pair in pairs]
    assert agent.num_predictions == before + 400
    for i, action in found:
        np.testing.assert_allclose(action, wanted[i], rtol=1e-5, atol=1e-4)


def test_a_second_thread_in_learn_is_refused_by_name_and_the_first_goes_on():
    agent, other = TRPO("CartPole-v1", **SMALL), TRPO("CartPole-v1", **SMALL)
    inside, done = threading.Event(), threading.Event()

    def wait(_):
        inside.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(agent.learn, 64, callback=wait)
        assert inside.wait(60)
        try:
            with pytest.raises(
                RuntimeError, match=r"^learn: called while another thread is in learn of this agent; want"
            ):
                agent.learn(64)
        finally:
            done.set()
        assert first.result(60) is agent
    assert agent.num_timesteps == 64
    agent.learn(32)  # nobody holds it any more
    other.learn(64)
    other.learn(32)
    for one, same in zip(agent.policy.parameters(), other.policy.parameters(), strict=True):
        assert (one == same).all()


def test_an_agent_learns_again_after_a_refused_call():
    agent = TRPO("CartPole-v1", **SMALL)
    with pytest.raises(ValueError, match="horizon: 1 given"):
        agent.learn(64, horizon=1)
    agent.learn(32)


def test_a_fit_that_gets_no_thread_of_its_own_is_made_in_the_callers_to_the_same_bits(make_agent, bits, monkeypatch):
    beside = bits(make_agent().learn(400))

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert bits(make_agent().learn(400)) == beside
