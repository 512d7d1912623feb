from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.rollout.toys import Walk
from trpo_fast.rollout.environments import EnvironmentAdapter, SyncEnvironments, _InWorker, make_vector_env

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def pushes(adapter, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, adapter.action_shape).astype(adapter.action_dtype) for _ in range(steps)]


def play(adapter, steps=60):
    """Everything that happens in `steps` steps, copied."""
    observations = [adapter.reset(11).copy()]
    rewards, flags, finals = [], [], []
    for t, action in enumerate(pushes(adapter, steps)):
        result = adapter.step(action)
        observations.append(result.observations.copy())
        rewards.append(result.rewards.copy())
        flags.append(np.stack([result.terminated, result.truncated]))
        if result.final_observations is not None:
            rows, indices = result.final_observations
            finals.extend((t, int(i), tuple(row)) for i, row in zip(indices, rows, strict=True))
    adapter.close()
    return np.array(observations), np.array(rewards), np.array(flags), finals


def same_step(kind):
    return kind([Walk] * 3, autoreset_mode=SAME)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_vector_env(same_step(SyncVectorEnv)),
        lambda: make_vector_env(Walk, num_envs=3, vectorization="async"),
    ],
    ids=["gymnasium's sync", "async"],
)
def test_vectorizations_agree_bit_for_bit(make):
    ours, others = play(make_vector_env(Walk, num_envs=3)), play(make())
    for mine, other in zip(ours[:3], others[:3], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours[3] == others[3]
    terminated, truncated = ours[2][:, 0], ours[2][:, 1]
    assert terminated.any()
    assert len(ours[3]) == (truncated & ~terminated).sum() > 0
    assert all(row[1] == 7 for _, _, row in ours[3])  # the final observation, not the one after the reset


def test_reset_starts_every_copy_with_a_generator_of_its_own():
    adapter = make_vector_env(Walk, num_envs=5)
    first = adapter.reset(3).copy()
    assert len(np.unique(first[:, 0])) == 5
    np.testing.assert_array_equal(adapter.reset(3)[:, 0], first[:, 0])
    assert not np.isin(adapter.reset(50)[:, 0], first[:, 0]).any()


def test_mujoco_steps_as_gymnasium_steps_it():
    pytest.importorskip("mujoco")
    adapters = [
        make_vector_env("HalfCheetah-v5", num_envs=2),
        make_vector_env(gymnasium.make_vec("HalfCheetah-v5", 2, vectorization_mode="sync")),
    ]
    assert adapters[0].id == adapters[1].id == "HalfCheetah-v5"
    ours, others = (play(adapter, 5) for adapter in adapters)
    for mine, other in zip(ours[:3], others[:3], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_arguments_reach_the_environment():
    made = make_vector_env(Walk, num_envs=2, env_kwargs={"limit": 2})
    assert [env.limit for env in made._env.envs] == [2, 2]
    spec = make_vector_env("CartPole-v1", num_envs=1, env_kwargs={"max_episode_steps": 9})._env.envs[0].spec
    assert spec.max_episode_steps == 9


def test_own_vector_version_is_used_and_resets_in_the_next_step():
    adapter = make_vector_env("CartPole-v1", num_envs=3, vectorization="vector")
    assert (adapter.num_envs, adapter.autoreset_mode, adapter.id) == (3, NEXT, "CartPole-v1")
    observations = adapter.reset(0)
    assert observations.shape == (3, 4)
    assert observations.flags.c_contiguous
    result = adapter.step(np.array([0, 1, 0]))
    assert result.observations.flags.c_contiguous
    assert result.rewards.dtype == np.float64
    assert adapter.make_evaluation(2).num_envs == 2


class Reuses(Walk):
    """Hands out the same array at every step and reset."""

    def __init__(self):
        super().__init__(limit=3)
        self.memory = np.zeros(3)

    def _observe(self):
        self.memory[...] = super()._observe()
        return self.memory


def test_final_observation_survives_an_environment_that_reuses_its_memory():
    finals = play(make_vector_env(Reuses, num_envs=2))[3]
    assert len(finals) > 5
    assert all(row[1] == 3 for _, _, row in finals)


class Ending(VectorEnv):
    """Two environments that are truncated at every step; `final` is what the infos hold."""

    num_envs = 2
    single_observation_space = gymnasium.spaces.Box(-9, 9, (2, 2), np.float32)
    single_action_space = gymnasium.spaces.Box(-1, 1, (2, 1), np.float64)

    def __init__(self, final=None, mode=SAME):
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.final = final or {}

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 2, 2), np.float32), {}

    def step(self, actions):
        assert actions in self.action_space
        terminated = np.array([True, False])
        return np.zeros((2, 2, 2), np.float32), np.zeros(2), terminated, np.ones(2, bool), self.final


@pytest.mark.parametrize("dense", [True, False])
def test_final_observations_may_be_dense_or_objects(dense):
    rows = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    final = {"final_obs": rows}
    if not dense:
        objects = np.full(2, None, dtype=object)
        objects[1] = rows[1]
        final = {"final_obs": objects, "_final_obs": np.array([False, True])}
    adapter = make_vector_env(Ending(final))
    adapter.reset(0)
    rows_given, indices = adapter.step(np.zeros((2, 2))).final_observations
    np.testing.assert_array_equal(indices, [1])  # the other one was terminated as well: nothing to bootstrap from
    np.testing.assert_array_equal(rows_given, [[4, 5, 6, 7]])


@pytest.mark.parametrize("final", [{}, {"final_obs": np.full(2, None), "_final_obs": np.array([True, False])}])
def test_truncation_without_final_observation_is_an_error(final):
    adapter = make_vector_env(Ending(final))
    adapter.reset(0)
    with pytest.raises(
        ValueError, match=r"environment 1 was truncated without a final observation.*infos\['final_obs'\]"
    ):
        adapter.step(np.zeros((2, 2)))


def test_autoreset_modes_are_refused_by_name():
    with pytest.raises(ValueError, match="autoreset mode DISABLED of SyncVectorEnv is not supported"):
        make_vector_env(SyncVectorEnv([Walk], autoreset_mode=DISABLED))
    with pytest.raises(ValueError, match=r"metadata\['autoreset_mode'\] of Ending must be .*, got None"):
        make_vector_env(Ending(mode=None))
    with pytest.raises(ValueError, match="got 'Sometimes'"):
        make_vector_env(Ending(mode="Sometimes"))
    assert make_vector_env(Ending(mode="NextStep")).autoreset_mode is NEXT


def test_wrapped_vector_environment_keeps_its_mode():
    adapter = make_vector_env(RecordEpisodeStatistics(same_step(SyncVectorEnv)))
    assert adapter.autoreset_mode is SAME
    assert adapter.num_envs == 3


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (np.uint8, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (bool, np.float32),
    ],
)
def test_observations_become_float_rows(dtype, wanted):
    class Image(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (2, 3), dtype)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.asfortranarray(np.eye(2, 3).astype(dtype)), {}

    adapter = make_vector_env(Image, num_envs=4)
    rows = adapter.reset(0)
    assert rows.dtype == adapter.observation_dtype == wanted
    assert rows.shape == (4, 6)
    np.testing.assert_array_equal(rows, np.tile([1, 0, 0, 0, 1, 0], (4, 1)))


def test_reset_of_another_shape_than_the_space_says_is_an_error():
    class Liar(Ending):
        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 5), np.float32), {}

    with pytest.raises(ValueError, match=r"observations must have shape \(2, 2, 2\).*reset returned \(2, 5\)"):
        make_vector_env(Liar()).reset(0)


@pytest.mark.parametrize("id", ["HalfCheeta-v5", "halfcheetah", "HalfCheetah-v77"])
def test_unknown_id_suggests_near_names(id):
    with pytest.raises(ValueError, match=rf"no environment '{id}' is registered.*HalfCheetah-v5"):
        make_vector_env(id)


def test_unknown_module_and_namespace_are_named():
    with pytest.raises(ValueError, match=r"no environment 'nowhere_at_all:Thing-v0' is registered.*nowhere_at_all"):
        make_vector_env("nowhere_at_all:Thing-v0")
    for id in (":CartPole-v1", ".relative:CartPole-v1"):
        with pytest.raises(ValueError, match=f"no environment '{id}' is registered"):
            make_vector_env(id)
    with pytest.raises(ValueError, match="Nothing-v0"):
        make_vector_env("Nothing-v0")


@pytest.mark.parametrize(
    ("id", "module", "command"),
    [
        ("HalfCheeta-v5", "mujoco", r"pip install 'trpo-fast\[mujoco\]'"),
        ("ALE/Pong-v5", "ale_py", r"pip install 'gymnasium\[atari\]'"),
        ("LunarLandar-v3", "Box2D", r"pip install 'gymnasium\[box2d\]'"),
    ],
)
def test_missing_simulator_is_named_with_what_installs_it(id, module, command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else find(name, *more))
    with pytest.raises(ValueError, match=f"{module} is not installed: {command}"):
        make_vector_env(id)


def test_known_environment_without_its_simulator_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    find = importlib.util.find_spec
    monkeypatch.setattr(gymnasium, "make", missing)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "mujoco" else find(name, *more)
    )
    with pytest.raises(ValueError, match=r"'Hopper-v5' cannot be made.*pip install 'trpo-fast\[mujoco\]'"):
        make_vector_env("Hopper-v5")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs must be at least 1, got 0"),
        ({"num_envs": -2}, ValueError, "num_envs must be at least 1, got -2"),
        ({"num_envs": 2.0}, TypeError, "num_envs must be an integer, got 2.0"),
        ({"num_envs": True}, TypeError, "num_envs must be an integer, got True"),
        ({"vectorization": "threads"}, ValueError, "vectorization must be one of sync, async, vector, got 'threads'"),
        ({"vectorization": "vector"}, ValueError, "vectorization='vector' needs a registered id"),
        ({"env_kwargs": 3}, TypeError, "env_kwargs must be a mapping from names to values, got 3"),
        ({"env_kwargs": [("limit", 3)]}, TypeError, "env_kwargs must be a mapping"),
        ({"env": 3}, TypeError, "env must be an id, a callable .*got 3"),
        ({"env": Walk()}, TypeError, "env must be an id, a callable .*got <.*Walk"),
        ({"env": "Pendulum-v1", "vectorization": "vector"}, ValueError, "Pendulum-v1 has no vector version"),
        ({"env": Ending(), "vectorization": "sync"}, ValueError, "must be left out with a VectorEnv"),
        ({"env": Ending(), "env_kwargs": {"limit": 3}}, ValueError, "must be left out with a VectorEnv"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        make_vector_env(**{"env": Walk, **options})


def test_callable_that_returns_one_object_twice_is_refused():
    one = Walk()
    with pytest.raises(ValueError, match="a new environment at every call"):
        make_vector_env(lambda: one, num_envs=2)


def test_unsupported_spaces_are_named():
    class Strange(Walk):
        action_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2))

    class Reader(Walk):
        observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Text(5))

    with pytest.raises(ValueError, match=r"action space must be .*got Dict"):
        make_vector_env(Strange, num_envs=1)
    with pytest.raises(ValueError, match=r"observation\['a'\]: its space must be .*got Text"):
        make_vector_env(Reader, num_envs=1)


def test_evaluation_uses_new_environments_from_the_same_recipe():
    training = make_vector_env(Walk, num_envs=2, env_kwargs={"limit": 4})
    evaluation = training.make_evaluation(3)
    assert [env.limit for env in evaluation._env.envs] == [4, 4, 4]
    assert not {id(env) for env in evaluation._env.envs} & {id(env) for env in training._env.envs}

    from_spec = make_vector_env(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    assert (from_spec.make_evaluation(4).num_envs, from_spec.make_evaluation(4).id) == (4, "CartPole-v1")
    from_functions = make_vector_env(SyncVectorEnv([Walk, Reuses], autoreset_mode=NEXT))
    kinds = [type(env) for env in from_functions.make_evaluation(3)._env.envs]
    assert kinds == [Walk, Reuses, Walk]


def test_evaluation_without_a_recipe_says_what_is_wanted():
    for env in (Ending(), RecordEpisodeStatistics(same_step(SyncVectorEnv))):
        with pytest.raises(ValueError, match=r"cannot make new environments like .*pass an id or a callable"):
            make_vector_env(env).make_evaluation(2)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_vector_env(Walk, num_envs=1).make_evaluation(0)


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
def test_worker_processes_of_an_interrupted_call_are_replaced_at_the_next_reset(method, call):
    adapter = make_vector_env(Walk, num_envs=2, vectorization="async")
    fresh = adapter.reset(1).copy()
    abandoned = adapter._env
    interrupt(adapter, method)
    with pytest.raises(KeyboardInterrupt):
        adapter.reset(1) if call == "reset" else adapter.step(np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(adapter.reset(1), fresh)
    assert adapter._env is not abandoned
    assert not any(process.is_alive() for process in abandoned.processes)
    kept = adapter._env
    adapter.step(np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(adapter.reset(1)[:, :2], fresh[:, :2])  # the rest counts episodes
    assert adapter._env is kept
    adapter.close()


@pytest.mark.parametrize("method", ["send", "recv"])
@pytest.mark.filterwarnings("ignore:.*pending call")
def test_interrupted_worker_processes_without_a_recipe_are_refused_and_can_be_closed(method):
    environments = RecordEpisodeStatistics(AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME))
    adapter = make_vector_env(environments)
    adapter.reset(1)
    interrupt(adapter, method)
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros((2, 1), np.float32))
    with pytest.raises(RuntimeError, match=r"step or reset of RecordEpisodeStatistics was interrupted.*no recipe"):
        adapter.reset(1)
    adapter.close()
    assert not any(process.is_alive() for process in environments.unwrapped.processes)


def test_closing_ends_workers_that_do_not_answer():
    class Slow(Walk):
        def step(self, action):
            time.sleep(60)

    adapter = make_vector_env(Slow, num_envs=2, vectorization="async")
    adapter.reset(0)
    processes = adapter._env.processes
    adapter._env.step_async(np.zeros((2, 1), np.float32))
    began = time.perf_counter()
    with pytest.warns(UserWarning, match="pending call"):
        adapter.close()
    assert time.perf_counter() - began < 10
    assert not any(process.is_alive() for process in processes)


def test_infos_hold_the_final_observations_and_nothing_else():
    environments = SyncEnvironments([lambda: Walk(limit=2)] * 2)
    environments.reset(seed=0)
    kept = [set(environments.step(np.zeros((2, 1), np.float32))[-1]) for _ in range(2)]
    assert kept == [set(), {"final_obs", "_final_obs"}]


def test_worker_processes_leave_an_interrupt_to_the_main_process():
    adapter = make_vector_env(Walk, num_envs=2, vectorization="async")
    adapter.reset(0)
    for process in adapter._env.processes:
        os.kill(process.pid, signal.SIGINT)
    assert adapter.step(np.zeros((2, 1), np.float32)).rewards.shape == (2,)
    adapter.close()


def test_adapter_describes_one_environment():
    adapter = EnvironmentAdapter(AsyncVectorEnv([Walk] * 2, autoreset_mode=SAME))
    assert adapter.observation_space == Walk.observation_space
    assert adapter.action_space == Walk.action_space
    assert (adapter.observation_size, adapter.action_shape, adapter.action_dtype) == (3, (2, 1), np.float32)
    assert adapter.id is None
    adapter.close()


REGISTERS = """
import gymnasium
from tests.rollout.toys import Walk
gymnasium.register("Strolling-v0", Walk)
gymnasium.register("Nowhere-v0", f"{__name__}:Missing")
"""


@pytest.fixture
def strolls(tmp_path, monkeypatch):
    """Name of a module, not imported yet, that registers two ids."""
    (tmp_path / "strolls_for_a_test.py").write_text(REGISTERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "strolls_for_a_test"
    sys.modules.pop("strolls_for_a_test", None)
    for id in ("Strolling-v0", "Nowhere-v0"):
        gymnasium.registry.pop(id, None)


def test_module_in_an_id_is_imported_first(strolls):
    adapter = make_vector_env(f"{strolls}:Strolling-v0", num_envs=2, env_kwargs={"limit": 3})
    assert adapter.id == f"{strolls}:Strolling-v0"
    assert adapter.reset(0).shape == (2, 3)
    assert [env.unwrapped.limit for env in adapter.make_evaluation(1)._env.envs] == [3]
    with pytest.raises(ValueError, match=r"no environment 'strolls_for_a_test:Stroling-v0' .*Near names: Strolling-v0"):
        make_vector_env(f"{strolls}:Stroling-v0")


def test_entry_point_that_is_missing_is_named(strolls):
    with pytest.raises(ValueError, match=r"Nowhere-v0' cannot be made: .*strolls_for_a_test has no 'Missing'"):
        make_vector_env(f"{strolls}:Nowhere-v0")


class Careless(Walk):
    """Answers what it is told, in the copy that is told so."""

    def __init__(self, reset=None, step=None):
        super().__init__(limit=2, edge=np.inf)
        self.changed_reset = reset
        self.changed_step = step

    def reset(self, *, seed=None, options=None):
        answer = super().reset(seed=seed)
        return answer if self.changed_reset is None or self.episode == 0 else self.changed_reset(*answer)

    def step(self, action):
        answer = super().step(action)
        return answer if self.changed_step is None else self.changed_step(*answer)


def careless(vectorization, **changes):
    """Three copies of which the second is careless from its second episode or its first step on."""
    if vectorization == "sync":
        made = iter([{}, changes, {}])
        return make_vector_env(lambda: Careless(**next(made)), num_envs=3)
    return EnvironmentAdapter(
        AsyncVectorEnv(
            [_InWorker(functools.partial(Careless, **({}, changes, {})[i]), i) for i in range(3)], autoreset_mode=SAME
        )
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium tells of a worker's error this way
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"step": lambda o, *others: (o[0], *others)},
            ValueError,
            r"observation of environment 1 must have shape \(3,\), .*step returned float64 of shape \(\)",
        ),
        (
            {"step": lambda o, *others: (o[None], *others)},
            ValueError,
            r"observation of environment 1 must have .*step returned ndarray of shape \(1, 3\)",
        ),
        (
            {"step": lambda o, *others: ([[1], [2, 3], []], *others)},
            ValueError,
            "observation of environment 1 must have .*of shape lists of different lengths",
        ),
        (
            {"step": lambda *answer: answer[:4]},
            ValueError,
            r"step of environment 1 must return \(observation, reward.*got tuple of 4 items",
        ),
        ({"step": lambda *answer: None}, ValueError, "step of environment 1 must return .*got None"),
        (
            {"step": lambda o, r, *others: (o, None, *others)},
            TypeError,
            "reward of environment 1 must be a number, got None",
        ),
        (
            {"step": lambda o, r, *others: (o, np.ones(2), *others)},
            TypeError,
            r"reward of environment 1 must be a number, got array\(\[1., 1.\]\)",
        ),
        (
            {"reset": lambda o, info: o},
            ValueError,
            r"reset of environment 1 must return \(observation, info\), got ndarray of 3 items",
        ),
        (
            {"reset": lambda o, info: (o[:2], info)},
            ValueError,
            r"observation of environment 1 must have .*reset returned ndarray of shape \(2,\)",
        ),
        (
            {"reset": lambda o, info: (o.astype(complex), info)},
            TypeError,
            "observation of environment 1 must be float64, .*reset returned complex128",
        ),
    ],
)
def test_answers_against_the_contract_name_environment_and_what_is_wanted(vectorization, changes, error, message):
    adapter = careless(vectorization, **changes)
    adapter.reset(0)
    with pytest.raises(error, match=message):
        for _ in range(2):  # the second step ends the first episode
            adapter.step(np.zeros((3, 1), np.float32))
    if vectorization == "sync" and "reset" in changes:
        with pytest.raises(error, match=message):
            adapter.reset(0)
    adapter.close()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_reward_may_be_an_array_of_one_item(vectorization):
    adapter = careless(vectorization, step=lambda o, r, *others: (o, np.array([[2.5]]), *others))
    adapter.reset(0)
    assert adapter.step(np.zeros((3, 1), np.float32)).rewards[1] == 2.5
    adapter.close()


def test_vector_environments_step_of_another_shape_is_an_error():
    environment = Ending()
    adapter = make_vector_env(environment)
    adapter.reset(0)
    environment.step = lambda actions: (np.zeros((2, 4)), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {})
    with pytest.raises(ValueError, match=r"observations must have shape \(2, 2, 2\).*step returned \(2, 4\)"):
        adapter.step(np.zeros((2, 2)))


def test_errors_of_the_environment_itself_reach_the_caller_as_they_are():
    class Failing(Walk):
        def step(self, action):
            raise ValueError("of the environment")

    adapter = make_vector_env(Failing, num_envs=2)
    adapter.reset(0)
    with pytest.raises(ValueError, match=r"^of the environment$"):
        adapter.step(np.zeros((2, 1), np.float32))


class WithoutSpace(Walk):
    observation_space = None


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "environment 0 must be a gymnasium.Env, got 3"),
        (lambda: same_step(SyncVectorEnv), "environment 0 must be a gymnasium.Env, got SyncVectorEnv"),
        (WithoutSpace, "observation_space of environment 0 must be a gymnasium Space, got None"),
    ],
    ids=["number", "vector", "space"],
)
def test_callable_that_makes_no_environment_is_named(make, message, vectorization):
    with pytest.raises(TypeError, match=message):
        make_vector_env(make, num_envs=2, vectorization=vectorization)


class Parts(Walk):
    """The same walk, seen in parts."""

    observation_space = gymnasium.spaces.Dict(
        {
            "moved": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "count": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(9), gymnasium.spaces.MultiBinary(2)]),
        }
    )

    def _observe(self):
        position, steps, episode = super()._observe()
        signs = np.array([position > 0, episode % 2], np.int8)
        return {"moved": np.array([position, episode]), "count": (int(steps), signs)}


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
        lambda: make_vector_env(Parts, num_envs=3),
        lambda: make_vector_env(Parts, num_envs=3, vectorization="async"),
        lambda: make_vector_env(SyncVectorEnv([Parts] * 3, autoreset_mode=SAME)),
        lambda: make_vector_env(VectorParts()),
    ],
    ids=["sync", "async", "gymnasium's sync", "custom"],
)
def test_observations_in_parts_are_flattened_alike_by_all_vectorizations(make):
    whole, parts = play(make_vector_env(Walk, num_envs=3)), play(make())

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


class CarelessParts(Parts):
    """Answers what it is told from its first step on."""

    def __init__(self, change=None):
        super().__init__()
        self.change = change

    def _observe(self):
        observation = super()._observe()
        return observation if self.change is None or self.steps == 0 else self.change(observation)


@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium tells of a worker's error this way
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: {"moved": o["moved"]}, r"environment 1: \['moved'\] given; want a dict with count, moved"),
        (lambda o: {**o, "moved": o["moved"][:1]}, r"environment 1\['moved'\] must have shape \(2,\).*step returned"),
        (lambda o: {**o, "count": o["count"][:1]}, r"environment 1\['count'\]: a tuple of 1 items given; want a tuple"),
    ],
)
def test_parts_against_the_contract_name_environment_and_what_is_wanted(vectorization, change, message):
    if vectorization == "sync":
        made = iter([None, change, None])
        adapter = make_vector_env(lambda: CarelessParts(next(made)), num_envs=3)
    else:
        makers = [_InWorker(functools.partial(CarelessParts, change if i == 1 else None), i) for i in range(3)]
        adapter = EnvironmentAdapter(AsyncVectorEnv(makers, autoreset_mode=SAME))
    adapter.reset(0)
    with pytest.raises(ValueError, match=f"observation of {message}"):
        adapter.step(np.zeros((3, 1), np.float32))
    adapter.close()


@pytest.mark.parametrize(
    ("space", "action", "wanted"),
    [
        (gymnasium.spaces.MultiBinary((2, 2)), [1, 0, 0, 1], np.array([[1, 0], [0, 1]], np.int8)),
        (
            gymnasium.spaces.MultiDiscrete([[2, 3]], start=[[4, 5]], dtype=np.int32),
            [5, 6],
            np.array([[5, 6]], np.int32),
        ),
        (gymnasium.spaces.Discrete(3, start=-1, dtype=np.int32), -1, np.int32(-1)),
        (gymnasium.spaces.Box(-1, 1, (1, 2), np.float64), [0.1, 0.2], np.array([[0.1, 0.2]])),
        (gymnasium.spaces.Box(-1, 1, (2,), np.float16), [0.5, 0.25], np.array([0.5, 0.25], np.float16)),
    ],
    ids=str,
)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_environment_gets_what_its_action_space_wants(space, action, wanted, vectorization):
    class Receiving(Walk):
        action_space = space

        def step(self, action):
            assert action in self.action_space
            assert action.dtype == wanted.dtype
            assert action.shape == wanted.shape
            np.testing.assert_array_equal(action, wanted)
            return self._observe(), 7.0, False, False, {}

    adapter = make_vector_env(Receiving, num_envs=2, vectorization=vectorization)
    adapter.reset(0)
    actions = np.array([action, action], adapter.action_dtype)
    assert actions.shape == adapter.action_shape
    assert adapter.step(actions).rewards.tolist() == [7.0, 7.0]
    adapter.close()
