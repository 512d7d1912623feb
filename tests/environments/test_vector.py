from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import concatenate, create_empty_array
from gymnasium.wrappers import TransformAction
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics, VectorizeTransformAction

import trpo_fast.environments.vector as module
from tests.rollout.toys import Ending, Parts, Walk, make_environments, play
from trpo_fast import TRPO
from trpo_fast.engines import make_engine
from trpo_fast.environments.vector import VectorAdapter
from trpo_fast.environments.worker_process import WorkerError
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.rollout.collector import Collector

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def same_step(kind):
    return kind([Walk] * 3, autoreset_mode=SAME)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_environments(same_step(SyncVectorEnv)),
        lambda: make_environments(same_step(AsyncVectorEnv)),
    ],
    ids=["sync", "async"],
)
def test_vectorizations_agree_bit_for_bit(make):
    ours, others = play(make_environments(Walk, num_envs=3)), play(make())
    for mine, other in zip(ours[:3], others[:3], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours[3] == others[3]
    terminated, truncated = ours[2][:, 0], ours[2][:, 1]
    assert terminated.any()
    assert len(ours[3]) == (truncated & ~terminated).sum() > 0
    assert all(row[1] == 7 for _, _, row in ours[3])  # the final observation, not the one after the reset


def test_mujoco_steps_as_gymnasium_steps_it():
    pytest.importorskip("mujoco")
    adapters = [
        make_environments("HalfCheetah-v5", num_envs=2),
        make_environments(gymnasium.make_vec("HalfCheetah-v5", 2, vectorization_mode="sync")),
    ]
    ours, others = (play(adapter, 5) for adapter in adapters)
    for mine, other in zip(ours[:3], others[:3], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("dense", [True, False])
def test_final_observations_may_be_dense_or_objects(dense):
    rows = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    final = {"final_obs": rows}
    if not dense:
        objects = np.full(2, None, dtype=object)
        objects[1] = rows[1]
        final = {"final_obs": objects, "_final_obs": np.array([False, True])}
    adapter = make_environments(Ending(final))
    adapter.reset(0)
    rows_given, indices = adapter.step(np.zeros((2, 2))).final_observations
    np.testing.assert_array_equal(indices, [1])  # the other one was terminated as well: nothing to bootstrap from
    np.testing.assert_array_equal(rows_given, [[4, 5, 6, 7]])


@pytest.mark.parametrize("final", [{}, {"final_obs": np.full(2, None), "_final_obs": np.array([True, False])}])
def test_truncation_without_final_observation_is_an_error(final):
    adapter = make_environments(Ending(final))
    adapter.reset(0)
    with pytest.raises(
        ValueError, match=r"environment 1 was truncated without a final observation.*infos\['final_obs'\]"
    ):
        adapter.step(np.zeros((2, 2)))


def test_autoreset_modes_are_refused_by_name():
    with pytest.raises(ValueError, match="autoreset mode DISABLED of SyncVectorEnv is not supported"):
        make_environments(SyncVectorEnv([Walk], autoreset_mode=DISABLED))
    with pytest.raises(ValueError, match=r"metadata\['autoreset_mode'\] None given, of Ending; want "):
        make_environments(Ending(mode=None))
    with pytest.raises(ValueError, match="'Sometimes'"):
        make_environments(Ending(mode="Sometimes"))
    assert make_environments(Ending(mode="NextStep")).autoreset_mode is NEXT


def test_wrapped_vector_environment_keeps_its_mode():
    adapter = make_environments(RecordEpisodeStatistics(same_step(SyncVectorEnv)))
    assert adapter.autoreset_mode is SAME
    assert adapter.num_envs == 3


def test_reset_of_another_shape_than_the_space_says_is_an_error():
    class Liar(Ending):
        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 5), np.float32), {}

    with pytest.raises(ValueError, match=r"observations: shape \(2, 5\) returned by reset; want \(2, 2, 2\)"):
        make_environments(Liar()).reset(0)


class InterruptedPipe:
    """Ctrl-C at the first call of one method."""

    def __init__(self, pipe, method):
        self._pipe = pipe
        self._method = method

    def __getattr__(self, name):
        if name == self._method:
            self._method = None
            raise KeyboardInterrupt
        return getattr(self._pipe, name)


def interrupt(adapter, method):
    pipes = list(adapter._env.unwrapped.parent_pipes)
    adapter._env.unwrapped.parent_pipes = [pipes[0], InterruptedPipe(pipes[1], method)]


@pytest.mark.filterwarnings("ignore:.*pending call")
@pytest.mark.parametrize("call", ["step", "reset"])
@pytest.mark.parametrize("method", ["send", "recv"])  # between two requests, between two answers
@pytest.mark.parametrize("whose", ["a user's", "its own"])
def test_worker_processes_of_an_interrupted_call_are_replaced_at_the_next_reset(method, call, whose):
    given = AsyncVectorEnv([Walk] * 2, autoreset_mode=NEXT)
    adapter = make_environments(given)
    adapter._owned = whose == "its own"
    fresh = adapter.reset(1).copy()
    interrupt(adapter, method)
    with pytest.raises(KeyboardInterrupt):
        adapter.reset(1) if call == "reset" else adapter.step(np.zeros((2, 1), np.float32))
    said = contextlib.nullcontext() if adapter._owned else pytest.warns(UserWarning, match="stays open, for you to clo")
    with said:
        np.testing.assert_array_equal(adapter.reset(1), fresh)
    assert adapter._env is not given
    assert type(adapter._env) is AsyncVectorEnv
    assert adapter._env.metadata["autoreset_mode"] is adapter.autoreset_mode is NEXT
    assert given.closed is (whose == "its own")
    assert all(process.is_alive() is not given.closed for process in given.processes)
    given.close(terminate=True)
    kept = adapter._env
    adapter.step(np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(adapter.reset(1)[:, :2], fresh[:, :2])  # the rest counts episodes
    assert adapter._env is kept
    adapter.close()


@pytest.mark.filterwarnings("ignore:.*pending call")
def test_worker_processes_that_have_become_others_after_an_interruption_are_refused():
    made = [Walk]
    given = AsyncVectorEnv([lambda: made[0]()] * 2, autoreset_mode=NEXT)
    adapter = make_environments(given)
    adapter.reset(1)
    interrupt(adapter, "recv")
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros((2, 1), np.float32))

    class Wider(Walk):
        action_space = gymnasium.spaces.Box(-2.0, 1.0, (1,), np.float32)

    made[0] = Wider
    for _ in range(2):
        with pytest.raises(ValueError, match=r"env AsyncVectorEnv: action_space .*as at first: low of action is -2\.0"):
            adapter.reset(1)
    made[0] = Walk
    with pytest.warns(UserWarning, match="the AsyncVectorEnv given was interrupted"):
        assert adapter.reset(1).shape == (2, 3)
    adapter.close()
    given.close(terminate=True)


@pytest.mark.filterwarnings("ignore:.*pending call")
@pytest.mark.parametrize("call", ["step", "reset", "adapting"])
@pytest.mark.parametrize("closed", [False, True])  # as the warning asks of its user
def test_worker_processes_of_an_interrupted_call_are_replaced_for_whoever_takes_them_next(call, closed):
    given = AsyncVectorEnv([Walk] * 2, autoreset_mode=NEXT)
    adapter = make_environments(given)
    fresh = adapter.reset(1).copy()
    interrupt(adapter, "recv")
    with pytest.raises(KeyboardInterrupt):
        if call == "adapting":
            make_environments(given)
        elif call == "reset":
            adapter.reset(1)
        else:
            adapter.step(np.zeros((2, 1), np.float32))
    adapter.close()
    if closed:
        given.close(terminate=True)
    for _ in range(2):
        with pytest.warns(UserWarning, match="it is closed; new" if closed else "stays open, for you to close; new"):
            another = make_environments(given)
        np.testing.assert_array_equal(another.reset(1), fresh)
        assert type(another._env) is AsyncVectorEnv
        assert another.autoreset_mode is another._env.metadata["autoreset_mode"] is NEXT
        another.close()
        assert another._env.closed
    given.close(terminate=True)


@pytest.mark.filterwarnings("ignore:.*pending call")
def test_workers_that_are_about_to_end_after_an_interruption_have_ended(monkeypatch):
    class SlowToClose(Walk):
        def reset(self, **arguments):
            # In the worker: it inherits that the signal is ignored, where whoever started the tests has it so.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().reset(**arguments)

        def close(self):
            time.sleep(0.1)

    given = AsyncVectorEnv([SlowToClose] * 2, autoreset_mode=NEXT)
    adapter = make_environments(given)
    adapter.reset(1)
    interrupt(adapter, "recv")
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros((2, 1), np.float32))
    for process in given.processes:
        os.kill(process.pid, signal.SIGINT)  # as a terminal does
    monkeypatch.setattr(module, "PATIENCE", 60.0)  # a machine with other work may take longer
    with pytest.warns(UserWarning, match="AsyncVectorEnv given was interrupted.*workers of it have ended"):
        adapter.reset(1)
    assert given.closed
    adapter.close()


@pytest.mark.parametrize("method", ["send", "recv"])
@pytest.mark.filterwarnings("ignore:.*pending call")
def test_interrupted_worker_processes_without_a_recipe_are_refused_and_can_be_closed(method):
    environments = RecordEpisodeStatistics(AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME))
    adapter = VectorAdapter(environments)
    adapter.reset(1)
    interrupt(adapter, method)
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros((2, 1), np.float32))
    with pytest.raises(
        RuntimeError,
        match=r"step or reset of RecordEpisodeStatistics was interrupted.*nothing says how to make new ones",
    ):
        adapter.reset(1)
    adapter.close()
    assert not any(process.is_alive() for process in environments.unwrapped.processes)


class Posted(Ending):
    """Sends, and receives what was sent first, as EnvPool and ale-py do; `interrupted`: Ctrl-C falls in between."""

    def __init__(self):
        super().__init__(mode=NEXT)
        self.answers, self.interrupted = [], False

    def send(self, answer):
        self.answers.append(answer)
        if self.interrupted:
            raise KeyboardInterrupt

    def recv(self):
        return self.answers.pop(0)

    def reset(self, *, seed=None, options=None):
        self.send(super().reset())
        return self.recv()

    def step(self, actions):
        self.send(super().step(actions))
        return self.recv()


@pytest.mark.parametrize("call", ["step", "reset"])
def test_a_vector_environment_left_in_a_call_is_refused_to_whoever_takes_it_next(call):
    env = Posted()
    adapter = make_environments(env)
    adapter.reset(1)
    env.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        adapter.reset(1) if call == "reset" else adapter.step(np.zeros((2, 2)))
    adapter.close()
    env.interrupted = False
    with pytest.raises(RuntimeError, match="a step or reset of Posted was interrupted"):
        make_environments(env).reset(1)
    make_environments(Posted()).reset(1)


def test_closing_ends_workers_that_do_not_answer():
    class Slow(Walk):
        def step(self, action):
            time.sleep(60)

    adapter = VectorAdapter(AsyncVectorEnv([Slow] * 2, autoreset_mode=SAME))
    adapter.reset(0)
    processes = adapter._env.processes
    adapter._env.step_async(np.zeros((2, 1), np.float32))
    began = time.perf_counter()
    with pytest.warns(UserWarning, match="pending call"):
        adapter.close()
    assert time.perf_counter() - began < 10
    assert not any(process.is_alive() for process in processes)


def test_adapter_describes_one_environment():
    adapter = VectorAdapter(AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME))
    assert adapter.observation_space == Walk.observation_space
    assert adapter.action_space == Walk.action_space
    assert (adapter.observation_size, adapter.action_shape, adapter.action_dtype) == (3, (2, 1), np.float32)
    adapter.close()


def test_vector_environments_step_of_another_shape_is_an_error():
    environment = Ending()
    adapter = make_environments(environment)
    adapter.reset(0)
    environment.step = lambda actions: (np.zeros((2, 4)), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {})
    with pytest.raises(ValueError, match=r"observations: shape \(2, 4\) returned by step; want \(2, 2, 2\)"):
        adapter.step(np.zeros((2, 2)))


class InColumns(VectorWrapper):
    """Keeps rewards and flags in tables, of which every step returns columns."""

    def step(self, actions):
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        flags = np.stack([terminated, truncated], axis=1)
        return observations, np.stack([rewards, rewards], axis=1)[:, 1], flags[:, 0], flags[:, 1], infos


def test_rewards_and_flags_may_be_columns_of_a_table():
    rollouts = []
    for env in same_step(SyncVectorEnv), InColumns(same_step(SyncVectorEnv)):
        adapter = make_environments(env)
        engine = make_engine(MLPPolicy(adapter.observation_space, adapter.action_space, seed=1))
        rollouts.append(Collector(adapter, engine, steps_per_env=9, seed=5).collect())
    for name in ("rewards", "terminated", "truncated"):
        np.testing.assert_array_equal(*(getattr(rollout, name) for rollout in rollouts))
    assert rollouts[0].truncated.any()


class VectorParts(VectorEnv):
    """A VectorEnv of no known kind, whose final observations are one batch of arrays."""

    metadata = {"autoreset_mode": SAME}  # noqa: RUF012 -- as gymnasium has it

    def __init__(self):
        self.inner = SyncVectorEnv([Parts] * 3, autoreset_mode=SAME)
        self.num_envs = 3
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed)

    def step(self, actions):
        *answer, infos = self.inner.step(actions)
        if "final_obs" in infos:
            dense = create_empty_array(self.single_observation_space, 3)
            some = next(final for final in infos["final_obs"] if final is not None)
            finals = [some if final is None else final for final in infos["final_obs"]]
            infos["final_obs"] = concatenate(self.single_observation_space, finals, dense)
        return *answer, infos


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_environments(Parts, num_envs=3),
        lambda: make_environments(AsyncVectorEnv([Parts] * 3, autoreset_mode=SAME)),
        lambda: make_environments(SyncVectorEnv([Parts] * 3, autoreset_mode=SAME)),
        lambda: make_environments(VectorParts()),
    ],
    ids=["ours", "async", "sync", "custom"],
)
def test_observations_in_parts_are_flattened_alike_by_all_vectorizations(make):
    whole, parts = play(make_environments(Walk, num_envs=3)), play(make())

    def expected(rows):
        position, steps, episode = np.moveaxis(np.asarray(rows), -1, 0)
        count = [steps == n for n in range(9)]
        return np.stack([*count, position > 0, episode % 2, position, episode], axis=-1)

    np.testing.assert_array_equal(parts[0], expected(whole[0]))  # a Dict's keys are sorted: count, moved
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_array_equal(parts[2], whole[2])
    assert [final[:2] for final in parts[3]] == [final[:2] for final in whole[3]]
    finals = expected([row for _, _, row in whole[3]])
    np.testing.assert_array_equal([row for _, _, row in parts[3]], finals)
    assert finals[:, 7].all()  # seven steps: not the observation after the reset


def test_a_killed_worker_of_an_async_vector_environment_is_named_and_the_next_reset_makes_new_ones():
    given = AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME)
    adapter = make_environments(given)
    adapter.reset(0)
    os.kill(given.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker 1 of AsyncVectorEnv \(process \d+, copy 1\) was killed by SIGKILL"):
        for _ in range(2):
            adapter.step(np.zeros((2, 1), np.float32))
    with pytest.warns(UserWarning, match="AsyncVectorEnv given was interrupted.*workers of it have ended"):
        rows = adapter.reset(0)
    assert given.closed  # its own close would wait for the dead
    np.testing.assert_array_equal(rows, make_environments(Walk, 2).reset(0))
    adapter.close()
    with pytest.warns(UserWarning, match="AsyncVectorEnv given was interrupted.*workers of it have ended"):
        another = make_environments(given)
    np.testing.assert_array_equal(another.reset(0), rows)
    another.close()


def end(environments, index):
    """Kill a worker, and wait until it is gone."""
    os.kill(environments.processes[index].pid, signal.SIGKILL)
    environments.processes[index].join()


@pytest.mark.parametrize("adapted_before", [False, True])
def test_worker_processes_that_have_ended_between_two_calls_are_replaced_at_once(adapted_before):
    given = AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME)
    adapter = make_environments(given) if adapted_before else None
    end(given, 1)
    with pytest.warns(UserWarning, match="AsyncVectorEnv given was interrupted.*workers of it have ended"):
        adapter = adapter or make_environments(given)
        rows = adapter.reset(0).copy()
    assert given.closed
    end(adapter._env, 0)  # its own
    np.testing.assert_array_equal(adapter.reset(0), rows)
    end(adapter._env, 0)
    adapter.close()
    with pytest.warns(UserWarning, match="AsyncVectorEnv given was interrupted.*workers of it have ended"):
        make_environments(given).close()


def test_worker_processes_that_have_ended_without_a_recipe_are_named():
    environments = RecordEpisodeStatistics(AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME))
    adapter = VectorAdapter(environments)
    end(environments.unwrapped, 0)
    with pytest.raises(RuntimeError, match=r"worker processes of RecordEpisodeStatistics have ended, and nothing says"):
        adapter.reset(0)
    adapter.close()


def test_what_its_user_has_closed_is_not_replaced():
    given = AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME)
    adapter = make_environments(given)
    given.close()
    with pytest.raises(ClosedEnvironmentError):
        adapter.reset(0)
    with pytest.raises(ClosedEnvironmentError):
        make_environments(given)


def test_what_an_environment_in_a_vector_raises_has_the_step():
    class Fails(Walk):
        def step(self, action):
            raise KeyError("boom")

    adapter = make_environments(SyncVectorEnv([Fails] * 2, autoreset_mode=SAME))
    adapter.reset(0)
    with pytest.raises(KeyError, match="boom") as caught:
        adapter.step(np.zeros((2, 1), np.float32))
    assert caught.value.__notes__ == ["SyncVectorEnv, step 1 after the reset"]


def test_a_state_of_one_vector_environment_and_one_of_copies_are_told_apart_in_words():
    copies = make_environments("CartPole-v1", num_envs=2, vectorization="sync")
    vector = make_environments("CartPole-v1", num_envs=2, vectorization="vector")
    of_copies, of_vector = [(one.reset(0).copy(), one.get_state()) for one in (copies, vector)]
    with pytest.raises(ValueError, match=r"saved of copies that were made one by one .*this is one vector environment"):
        vector.set_state(of_copies[1], of_copies[0])
    with pytest.raises(ValueError, match="saved of one vector environment; these are copies that were made one by one"):
        copies.set_state(of_vector[1], of_vector[0])
    vector.set_state(of_vector[1], of_vector[0])
    copies.close()
    vector.close()


class Counts(Walk):
    """An int after a reset, else a float, as FrozenLake's probability is."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"p": 1}

    def step(self, action):
        return *super().step(action)[:4], {"p": 0.75}


def test_numbers_that_gymnasium_cut_to_integers_are_told_of_once():
    adapter = make_environments(SyncVectorEnv([lambda: Counts(limit=3), lambda: Counts(limit=5)], autoreset_mode=NEXT))
    adapter.ask(["p"])
    adapter.reset(0)
    with pytest.warns(UserWarning, match="env: infos of SyncVectorEnv have 'p' in integers in some steps") as said:
        for _ in range(12):
            adapter.step(np.zeros((2, *(adapter.action_space.shape or ())), adapter.action_space.dtype))
    assert len(said) == 1


def test_infos_that_are_no_dict_are_refused_by_name():
    adapter = make_environments(DictInfoToList(SyncVectorEnv([Walk] * 2)))
    with pytest.raises(ValueError, match="infos of DictInfoToList: list given; want a dict of arrays"):
        adapter.reset(0)


def test_worker_processes_that_forget_no_end_in_a_reset_are_told_of():
    env = AsyncVectorEnv([Walk] * 2, shared_memory=False)
    with pytest.warns(UserWarning, match="AsyncVectorEnv without shared memory does not forget in reset"):
        make_environments(env)
    env.close()
    for mode, shared in ((SAME, False), (NEXT, True)):
        env = AsyncVectorEnv([Walk] * 2, shared_memory=shared, autoreset_mode=mode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make_environments(env)
        env.close()


def test_actions_that_a_wrapper_overwrites_are_learned_from_as_they_were_drawn():
    """findings/gymnasium-vector-transform-action-changes-the-callers-actions.sh."""

    def halved(action):
        return action / 2

    def learned(env):
        with TRPO(env, seed=0, steps_per_env=16, warm_up_steps=0, hidden_sizes=(4,), critic_epochs=1) as agent:
            agent.learn(3 * 32)
        env.close()
        return agent.policy.flat.numpy.tobytes()

    given = np.ones((2, 1), np.float32)
    overwriting = VectorizeTransformAction(
        SyncVectorEnv([pendulum] * 2), TransformAction, func=halved, action_space=None
    )
    overwriting.reset(seed=0)
    overwriting.step(given)
    assert (given == 0.5).all()  # Gymnasium's own doing
    assert learned(overwriting) == learned(SyncVectorEnv([lambda: TransformAction(pendulum(), halved, None)] * 2))


def pendulum():
    return gymnasium.make("Pendulum-v1")
