"""What an agent does where its environments are not what they should be, or are made again."""

from __future__ import annotations

import os
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import trpo_fast.algorithm.training_environments as module
from tests.environments.test_shared_state import OneAircraft
from tests.environments.worker_toys import Gambler
from tests.rollout.toys import Walk
from trpo_fast.algorithm.callbacks import EvaluationCallback
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.environments.processes import WorkerError

STEPS = 3 * 64


class Counted(Walk):
    """Counts those that were made and those that were closed."""

    made = 0
    closed = 0

    def __init__(self):
        super().__init__()
        Counted.made += 1

    def close(self):
        Counted.closed += 1


@pytest.fixture
def counted():
    Counted.made = Counted.closed = 0
    return Counted


def test_environments_whose_first_reset_raises_stay_for_the_next_learn_and_close_closes_them(make_agent, counted):
    class Late(counted):
        fails = True

        def reset(self, *, seed=None, options=None):
            if Late.fails:
                raise KeyError("not yet")
            return super().reset(seed=seed)

    agent = make_agent(Late)
    with pytest.raises(KeyError, match="not yet"):
        agent.learn(STEPS)
    assert (counted.made, counted.closed) == (agent.num_envs, 0)
    Late.fails = False
    agent.learn(STEPS)
    assert (counted.made, counted.closed) == (agent.num_envs, 0)
    agent.close()
    assert counted.closed == agent.num_envs


def test_copies_that_are_one_simulator_are_refused_before_anything_is_learned(make_agent):
    agent = make_agent(OneAircraft)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"its 3 copies in one process share state.*'workers' with num_workers=3"):
            agent.learn(STEPS)
    assert agent.num_updates == 0


def test_workers_with_several_copies_of_one_simulator_are_refused_and_with_one_each_they_train(make_agent):
    workers = {"vectorization": "workers"}
    with pytest.raises(ValueError, match=r"share state.*'workers' with num_workers=3"):
        make_agent(OneAircraft, num_workers=2, **workers).learn(STEPS)
    assert make_agent(OneAircraft, num_workers=3, **workers).learn(STEPS).num_updates == 1


def test_one_copy_of_such_a_simulator_trains(make_agent):
    assert make_agent(OneAircraft, num_envs=1).learn(64).num_updates == 1


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_a_space_that_copies_draw_from_in_common_is_named_once(make_agent, vectorization):
    workers = {"num_workers": 1} if vectorization == "workers" else {}
    agent = make_agent(Gambler, vectorization=vectorization, **workers)
    with pytest.warns(
        UserWarning, match=r"^env: its copies draw from self\.action_space, one object .* self\.np_random"
    ):
        agent.learn(STEPS)
    agent.close()
    agent.learn(STEPS)  # says nothing more


def test_copies_that_share_state_train_where_that_is_asked_for_by_name(make_agent):
    with pytest.warns(UserWarning, match="its 3 copies in one process share state") as warned:
        agent = make_agent(OneAircraft, vectorization="sync").learn(STEPS)
    assert __file__ in {one.filename for one in warned}  # where learn was called
    assert agent.num_updates == 1


class ShortFlight(OneAircraft):
    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, False, self.steps == 5, {}


@pytest.mark.parametrize("given", [True, False], ids=["given", "the training's"])
def test_copies_of_an_evaluation_that_are_one_simulator_become_one_copy_said_by_name(make_agent, given):
    said = r"evaluate: its 3 copies in one process share state: a copy of ShortFlight .*; plays in one copy"
    trained, env = (Walk, ShortFlight) if given else (ShortFlight, None)
    with pytest.warns(UserWarning, match=said) as warned:
        result = make_agent(trained).evaluate(4, env=env)
    assert len(warned) == 1 and warned[0].filename == __file__
    alone = make_agent(trained, num_envs=1).evaluate(4, env=env)
    assert result.lengths.tolist() == [5] * 4 and result.returns.tolist() == alone.returns.tolist()


def test_workers_of_one_copy_each_evaluate_such_a_simulator_side_by_side(make_agent):
    agent = make_agent(ShortFlight, vectorization="async").learn(STEPS)
    assert agent.evaluate(3).lengths.tolist() == [5] * 3


def test_the_first_evaluation_of_an_agent_that_was_loaded_looks_for_shared_state_itself(
    make_agent, tmp_path, monkeypatch
):
    monkeypatch.setitem(gymnasium.registry, "ShortFlight-v0", EnvSpec("ShortFlight-v0", entry_point=ShortFlight))
    make_agent("ShortFlight-v0").save(tmp_path / "agent.trpo")
    agent = TRPO.load(tmp_path / "agent.trpo")
    with pytest.warns(UserWarning, match="evaluate: its 3 copies in one process share state"):
        agent.evaluate(4)
    assert agent.environments is None


def test_looking_for_shared_state_makes_no_environment_and_changes_no_bit_of_a_run(
    make_agent, bits, monkeypatch, counted
):
    looked = make_agent("Pendulum-v1").learn(STEPS)
    monkeypatch.setattr(module.TrainingEnvironments, "_refuse_shared_state", lambda training: None)
    assert bits(make_agent("Pendulum-v1").learn(STEPS)) == bits(looked)
    monkeypatch.undo()
    make_agent(counted).learn(STEPS)
    assert counted.made == 3


def test_one_object_handed_out_is_named_by_evaluation_and_stays_open(make_agent):
    env = Walk()
    env.close = lambda: pytest.fail("closed")
    agent = make_agent(lambda: env, num_envs=1).learn(64)
    steps = len(env.history)
    with pytest.raises(ValueError, match="it returned a Walk that is in use"):
        agent.evaluate(1)
    assert len(env.history) == steps
    with pytest.raises(ValueError, match="in use"):  # when it starts, not hours in
        agent.learn(64, callback=EvaluationCallback(10**9))
    assert agent.learn(64).num_updates == 2
    del env.close


def test_agent_that_was_closed_learns_on_in_new_environments(make_agent, counted):
    agent = make_agent(counted).learn(STEPS)
    agent.close()
    agent.close()
    assert (counted.made, counted.closed) == (3, 3)
    agent.learn(STEPS, reset_num_timesteps=False)
    assert agent.num_timesteps == 2 * STEPS and counted.made == 6
    agent.close()
    assert counted.closed == 6


def test_closing_in_between_is_what_saving_and_loading_is(make_agent, bits, tmp_path):
    closed, saved = make_agent().learn(STEPS), make_agent().learn(STEPS)
    closed.close()
    saved.save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo", "Pendulum-v1")
    assert bits(closed.learn(STEPS)) == bits(loaded.learn(STEPS))
    loaded.close()


def test_agent_that_was_closed_learns_on_in_the_vector_environment_of_its_user(make_agent):
    vector = SyncVectorEnv([Walk] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = make_agent(vector).learn(128)
    agent.close()
    assert not vector.closed
    assert agent.learn(128).num_updates == 2
    vector.close()


@pytest.mark.parametrize("error", [MemoryError("of the buffers"), KeyboardInterrupt(), ValueError("of the engine")])
def test_error_between_environments_and_collector_closes_them_and_says_the_same_again(
    make_agent, counted, monkeypatch, tmp_path, error
):
    make_agent(counted).save(tmp_path / "agent.trpo")
    counted.made = counted.closed = 0

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(module, "Collector", refuse)
    with pytest.raises(type(error)) as raised:
        TRPO(counted, num_envs=3)
    assert str(error) in str(raised.value) and (counted.made, counted.closed) == (3, 3)
    loaded = TRPO.load(tmp_path / "agent.trpo", counted)  # which looks at one
    with pytest.raises(type(error)):
        loaded.learn(STEPS)
    assert (counted.made, counted.closed) == (7, 7)
    monkeypatch.undo()

    agent = make_agent(counted)
    agent.close()
    monkeypatch.setattr(module, "Collector", refuse)
    counted.made = counted.closed = 0
    for attempt in (1, 2):
        with pytest.raises(type(error)) as raised:
            agent.learn(STEPS)
        assert str(error) in str(raised.value) and (counted.made, counted.closed) == (3 * attempt, 3 * attempt)
    monkeypatch.undo()
    assert agent.learn(STEPS).num_updates == 1


def test_third_of_eight_constructors_that_raises_leaves_none_open(counted):
    def make():
        if counted.made == 2:
            raise OSError("no licence left")
        return counted()

    with pytest.raises(OSError, match="no licence left"):
        TRPO(make, num_envs=8)
    assert (counted.made, counted.closed) == (2, 2)


def test_vector_rewards_are_named_with_the_wrapper_that_helps(make_agent):
    class Objectives(Walk):
        def step(self, action):
            observation, reward, *others = super().step(action)
            return observation, np.array([reward, -1.0]), *others

    with pytest.raises(TypeError, match=r"reward of environment 0: .* given; want a number.*LinearReward"):
        make_agent(Objectives).learn(STEPS)


def test_objects_in_a_vector_environment_are_named_by_evaluation_and_stay_as_they_are(make_agent):
    objects = [Walk(), Walk()]
    vector = SyncVectorEnv([lambda: objects[0], lambda: objects[1]], autoreset_mode=AutoresetMode.SAME_STEP)
    agent = make_agent(vector, steps_per_env=5).learn(1)
    before = [one.history[-1] for one in objects]
    for look in (lambda: agent.evaluate(2), lambda: agent.learn(1, callback=EvaluationCallback(10**9))):
        with pytest.raises(ValueError, match=r"function of the SyncVectorEnv .* it returned a Walk that is in use"):
            look()
    assert [one.history[-1] for one in objects] == before and not vector.closed
    agent.learn(1)


def test_one_object_twice_in_a_vector_environment_is_refused(make_agent):
    one = Walk()
    vector = SyncVectorEnv([lambda: one] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="SyncVectorEnv holds the same Walk twice; want functions that make a new"):
        make_agent(vector)
    assert not vector.closed


def test_the_vector_environment_of_the_training_is_refused_by_an_evaluation_in_between(make_agent):
    vector = SyncVectorEnv([Walk] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = make_agent(vector, steps_per_env=5)
    agent.evaluate(2, env=vector)  # no episode of the training has begun
    agent.learn(1)
    begun = [one.steps for one in vector.envs]
    with pytest.raises(ValueError, match=r"env: it is the vector environment of the training.*agent.close\(\) before"):
        agent.evaluate(2, env=vector)
    with pytest.raises(ValueError, match="env: it is the vector environment of the training"):
        agent.learn(1, callback=EvaluationCallback(10**9, env=vector))
    assert [one.steps for one in vector.envs] == begun
    agent.close()
    assert len(agent.evaluate(2, env=vector).returns) == 2
    agent.learn(1)


def test_agents_that_share_a_vector_environment_begin_new_episodes_when_they_take_turns_and_say_so_once(make_agent):
    vector = SyncVectorEnv([lambda: Walk(99, np.inf)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    one, other, third = (make_agent(vector, steps_per_env=5, warm_up_steps=0) for _ in range(3))
    one.learn(1)
    other.learn(1)
    with pytest.warns(UserWarning, match=r"^env: somebody else, .*; want a vector environment for each$"):
        one.learn(1)
    assert [env.steps for env in vector.envs] == [5, 5]  # of episodes that began with a reset
    one.learn(1)
    assert [env.steps for env in vector.envs] == [10, 10]
    with pytest.warns(UserWarning, match="had not ended"):
        third.evaluate(1, env=vector, max_steps=3)
    one.learn(1)  # says nothing more
    assert [env.steps for env in vector.envs] == [5, 5]
    with pytest.warns(UserWarning, match="somebody else"):
        other.learn(1)


def test_a_reset_by_another_agent_that_fails_halfway_is_seen_too(make_agent):
    vector = SyncVectorEnv([lambda: Walk(99, np.inf)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    one, other = (make_agent(vector, steps_per_env=5, warm_up_steps=0) for _ in range(2))
    one.learn(1)

    def fail(**arguments):
        raise ArithmeticError("no reset")

    vector.envs[1].reset = fail
    with pytest.raises(ArithmeticError, match="no reset"):
        other.learn(1)
    del vector.envs[1].reset
    with pytest.warns(UserWarning, match="somebody else"):
        one.learn(1)
    assert [env.steps for env in vector.envs] == [5, 5]


def test_a_loaded_agent_that_is_evaluated_makes_environments_for_that_alone(make_agent, counted, tmp_path):
    gymnasium.register("Counted-v0", entry_point=Counted)
    try:
        make_agent("Counted-v0").save(tmp_path / "a.trpo")
        agent = TRPO.load(tmp_path / "a.trpo")
        counted.made = counted.closed = 0
        agent.evaluate(2)
        assert (counted.made, counted.closed) == (2, 2)
    finally:
        del gymnasium.registry["Counted-v0"]


def test_a_worker_that_is_killed_leaves_an_agent_that_is_saved_and_learns_on_in_new_workers(make_agent, bits, tmp_path):
    agent = make_agent(Walk, vectorization="workers", num_workers=2).learn(STEPS)
    before, killed = bits(agent), agent.environments.processes

    def kill(agent):
        os.kill(killed[1], signal.SIGKILL)

    with pytest.raises(WorkerError, match=rf"worker 1 \(process {killed[1]}, copies 1 to 2\) was killed by SIGKILL"):
        agent.learn(2 * STEPS, callback=kill, reset_num_timesteps=False)
    assert agent.num_timesteps == 2 * STEPS and bits(agent) != before  # its last complete update
    agent.save(tmp_path / "a.trpo")
    assert TRPO.load(tmp_path / "a.trpo", env=Walk).num_timesteps == 2 * STEPS
    agent.learn(STEPS, reset_num_timesteps=False)
    assert agent.num_timesteps == 3 * STEPS and not set(killed) & set(agent.environments.processes)


@pytest.fixture
def by_processes():
    vector = AsyncVectorEnv([Walk] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    yield vector
    vector.close(terminate=True)


@pytest.mark.filterwarnings("ignore:.*pending call")
def test_a_vector_environment_whose_step_was_interrupted_is_replaced_for_all_who_take_it(
    make_agent, by_processes, tmp_path, monkeypatch
):
    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    agent = make_agent(by_processes)
    agent.save(tmp_path / "model.trpo")
    with monkeypatch.context() as patched:
        patched.setattr(AsyncVectorEnv, "step_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(STEPS)
    agent.close()
    for take in (
        lambda: make_agent(by_processes).close(),
        lambda: TRPO.load(tmp_path / "model.trpo", env=by_processes).close(),
        lambda: agent.evaluate(1, env=by_processes),
        lambda: agent.learn(STEPS),
    ):
        with pytest.warns(UserWarning, match="the AsyncVectorEnv given was interrupted.*it stays open"):
            take()
    agent.close()


def test_worker_processes_that_end_between_two_trainings_are_replaced_by_the_next(make_agent, by_processes):
    agent = make_agent(by_processes)
    agent.learn(STEPS)
    for vector in (by_processes, None):
        vector = vector or agent.environments._env
        for process in vector.processes:
            process.kill()  # by Ctrl-C they end, too, but for who has it ignored from where the tests were started
            process.join()
        before = agent.total_timesteps
        with pytest.warns(UserWarning, match="the AsyncVectorEnv given was interrupted.*workers of it have ended"):
            agent.learn(STEPS)
        assert agent.total_timesteps > before
        assert vector.closed
    agent.close()
