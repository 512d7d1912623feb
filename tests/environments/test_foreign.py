"""Vector environments of other packages, each with its own package where that is installed."""

from __future__ import annotations

import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.rollout.toys import Ending, Parts, Walk, make_environments, play, pushes
from trpo_fast import TRPO
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.vector import VectorAdapter

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
SMALL = {"num_envs": 4, "steps_per_env": 16, "warm_up_steps": 4, "critic_epochs": 1, "hidden_sizes": (8,)}

# EnvPool makes some spaces in such a way that Gymnasium says so.
quiet = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")


@pytest.fixture
def envpool():
    return pytest.importorskip("envpool", reason="needs trpo-fast[envpool]")


def raw(envpool, id, seed, num_envs, steps, **arguments):
    """What EnvPool itself answers, from its own interface, to the actions of `play`."""
    pool = envpool.make(id, env_type="gymnasium", num_envs=num_envs, seed=seed, **arguments)
    shape = (num_envs, *pool.action_space.shape)
    rng = np.random.default_rng(0)
    observations, _ = pool.reset()
    answers = [(observations.copy(), None, None, None)]
    for _ in range(steps):
        answers.append([part.copy() for part in pool.step(rng.uniform(-1, 1, shape))[:4]])
    return answers


@pytest.mark.parametrize(
    ("id", "arguments"), [("HalfCheetah-v4", {"max_episode_steps": 7}), ("Pendulum-v1", {"max_episode_steps": 5})]
)
@pytest.mark.parametrize("by", ["id", "object"])
@quiet
def test_envpools_answers_are_those_of_its_own_interface(envpool, id, arguments, by):
    if by == "id":
        adapter = make_environments(id, num_envs=3, vectorization="envpool", env_kwargs=arguments)
    else:
        given = envpool.make(id, env_type="gymnasium", num_envs=3, seed=11, **arguments)
        adapter = make_environments(given)
    assert adapter.autoreset_mode is NEXT
    assert adapter.num_envs == 3
    observations, rewards, flags, finals = play(adapter, 20)  # whose reset is given the seed 11
    for t, (seen, reward, terminated, truncated) in enumerate(raw(envpool, id, 11, 3, 20, **arguments)):
        np.testing.assert_array_equal(observations[t], seen)
        if t:
            np.testing.assert_array_equal(rewards[t - 1], reward)
            np.testing.assert_array_equal(flags[t - 1], [terminated, truncated])
    assert flags[:, 1].any()
    assert finals == []


@quiet
def test_wrong_arguments_of_envpool_are_named_with_its_id(envpool):
    with pytest.raises(ValueError, match=r"env 'Pendulum-v1' cannot be made: TypeError: .*'gravitation'"):
        make_environments("Pendulum-v1", vectorization="envpool", env_kwargs={"gravitation": 3})


@quiet
def test_copy_i_of_envpool_gets_the_seed_plus_i_at_every_reset(envpool):
    adapter = make_environments("Pendulum-v1", num_envs=3, vectorization="envpool")
    first = adapter.reset(5).copy()
    adapter.step(np.zeros((3, 1), np.float32))
    np.testing.assert_array_equal(adapter.reset(5), first)
    np.testing.assert_array_equal(adapter.reset(6)[:2], first[1:])
    assert len(np.unique(np.concatenate([adapter.reset(None), adapter.reset(None)]), axis=0)) == 6
    adapter.close()


@quiet
def test_a_users_envpool_is_left_open_and_made_again_from_its_configuration(envpool):
    given = envpool.make("Pendulum-v1", env_type="gymnasium", num_envs=2, seed=3, max_episode_steps=5)
    recipe = EnvironmentRecipe(given)
    assert recipe.id is None
    assert recipe.reason_against_making_again is None
    made = recipe.make(1)
    again = recipe.make_again(3, like=made)
    observations, _, flags, _ = play(again, 8)
    expected = raw(envpool, "Pendulum-v1", 11, 3, 8, max_episode_steps=5)
    np.testing.assert_array_equal(observations, [seen for seen, *_ in expected])
    assert flags[:, 1].any()
    made.reset(0)
    made.close()
    assert given.step(np.zeros((2, 1), np.float32))[0].shape == (2, 3)


@quiet
def test_vector_wrappers_around_envpool_work_and_have_no_recipe(envpool):
    given = RecordEpisodeStatistics(envpool.make("Pendulum-v1", env_type="gymnasium", num_envs=2, seed=3))
    recipe = EnvironmentRecipe(given)
    adapter = recipe.make(1)
    assert adapter.reset(7).shape == (2, 3)
    assert adapter.step(np.zeros((2, 1), np.float32)).rewards.dtype == np.float64
    assert "carries no recipe" in recipe.reason_against_making_again


@quiet
def test_the_default_seed_of_a_users_envpool_is_said_once(envpool):
    given = envpool.make("Pendulum-v1", env_type="gymnasium", num_envs=2)
    with pytest.warns(UserWarning, match=r"has its default, 42, whatever the agent's seed is") as caught:
        adapter = make_environments(given)
        adapter.reset(3)
        adapter.reset(4)
    assert len([one for one in caught if "EnvPool's seed" in str(one.message)]) == 1


@quiet
def test_an_interrupted_call_leaves_no_answers_for_the_next(envpool):
    """Answers that wait in the pool would be taken for those of the reset, and every one after them would be late."""
    given = envpool.make("Pendulum-v1", env_type="gymnasium", num_envs=2, seed=3)
    adapter = make_environments(given)
    adapter.reset(0)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    given.recv = interrupted
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros((2, 1), np.float32))
    del given.recv
    expected = raw(envpool, "Pendulum-v1", 11, 2, 1)
    with pytest.warns(UserWarning, match="PendulumGymnasiumEnvPool given was interrupted.*it stays open"):
        observations, *_ = play(adapter, 1)
    np.testing.assert_array_equal(observations, [seen for seen, *_ in expected])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"env_type": "gymnasium", "num_envs": 4, "batch_size": 2}, ValueError, "batch_size=2 answers for a part of"),
        ({"env_type": "dm", "num_envs": 4}, TypeError, r"CartPoleDMEnvPool given; want .*env_type='gymnasium'"),
    ],
)
@quiet
def test_envpools_that_answer_otherwise_are_refused_by_name(envpool, arguments, error, message):
    with pytest.raises(error, match=message):
        make_environments(envpool.make("CartPole-v1", seed=1, **arguments))


def test_envpools_ids_and_arguments_are_checked_by_name(envpool):
    def made(id, vectorization="envpool", **arguments):
        return make_environments(id, vectorization=vectorization, env_kwargs=arguments)

    with pytest.raises(ValueError, match=r"EnvPool has no 'HalfCheeta-v4'. Near names: HalfCheetah-v"):
        made("HalfCheeta-v4")
    with pytest.raises(ValueError, match="env_kwargs: seed given; want it left out"):
        made("CartPole-v1", seed=3)
    with pytest.raises(ValueError, match="vectorization='envpool' needs a registered id as env"):
        made(Walk)


def test_envpool_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r"envpool cannot be imported .*pip install 'trpo-fast\[envpool\]'"):
        make_environments("CartPole-v1", vectorization="envpool")


@quiet
def test_an_agent_trains_on_envpool_and_is_saved_and_made_again(envpool, tmp_path):
    agents = [TRPO("CartPole-v1", vectorization="envpool", seed=3, **SMALL).learn(128) for _ in range(2)]
    assert agents[0].num_timesteps >= 128
    for mine, other in zip(agents[0].policy.parameters(), agents[1].policy.parameters(), strict=True):
        np.testing.assert_array_equal(mine.detach(), other.detach())
    agents[0].save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo")
    assert loaded.recipe.vectorization == "envpool"
    np.testing.assert_array_equal(loaded.evaluate(4).returns, agents[0].evaluate(4).returns)
    for agent in agents:
        agent.close()


@quiet
def test_what_was_trained_on_envpool_is_evaluated_on_gymnasium_where_the_spaces_agree(envpool):
    pytest.importorskip("mujoco")
    pool = envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=2, seed=1)
    agent = TRPO(pool, seed=0, **SMALL | {"num_envs": 2})
    assert (agent.action_space.dtype, agent.observation_space.shape) == (np.float64, (17,))

    def short():
        return gymnasium.make("HalfCheetah-v5", max_episode_steps=5)

    assert short().action_space.dtype == np.float32
    assert list(agent.evaluate(2, env=short).lengths) == [5, 5]
    other = TRPO(short, seed=0, **SMALL)
    short_pool = envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=2, seed=1, max_episode_steps=5)
    assert list(other.evaluate(2, env=short_pool).lengths) == [5, 5]
    ant = TRPO(lambda: gymnasium.make("Ant-v5"), seed=0, **SMALL)
    with pytest.raises(ValueError, match=r"observation has shape \(27,\) instead of \(105,\)"):
        ant.evaluate(1, env=envpool.make("Ant-v4", env_type="gymnasium", num_envs=1, seed=1))
    for each in (agent, other, ant):
        each.close()


@quiet
def test_envpools_atari_is_images_of_its_own_preprocessing(envpool):
    adapter = make_environments("Pong-v5", num_envs=2, vectorization="envpool")
    assert adapter.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert adapter.reset(1).shape == (2, 4 * 84 * 84)
    assert adapter.step(np.array([0, 3])).observations.max() > 1
    adapter.close()


@pytest.fixture
def atari():
    vector_env = pytest.importorskip("ale_py.vector_env", reason="needs ale-py")

    def make(mode=NEXT, **arguments):
        small = {"num_envs": 3, "img_height": 12, "img_width": 12, "stack_num": 2, "max_num_frames_per_episode": 24}
        return vector_env.AtariVectorEnv("pong", **{**small, "noop_max": 1, "autoreset_mode": mode, **arguments})

    return make


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_ales_vector_environment_answers_as_its_own_interface_does(atari, mode):
    adapter, reference = make_environments(atari(mode)), atari(mode)
    assert adapter.autoreset_mode is mode
    seen, _ = reference.reset(seed=5)
    np.testing.assert_array_equal(adapter.reset(5), seen.reshape(3, -1))
    ended = 0
    for actions in np.random.default_rng(0).integers(0, 6, (30, 3)):
        result = adapter.step(actions)
        seen, rewards, terminated, truncated, infos = reference.step(actions)
        np.testing.assert_array_equal(result.observations, seen.reshape(3, -1))
        np.testing.assert_array_equal(result.rewards, rewards)
        np.testing.assert_array_equal([result.terminated, result.truncated], [terminated, truncated])
        cut = np.flatnonzero(truncated)
        ended += len(cut)
        if mode is SAME and len(cut):
            rows, indices = result.final_observations
            np.testing.assert_array_equal(indices, cut)
            np.testing.assert_array_equal(rows, infos["final_obs"][cut].reshape(len(cut), -1))
            assert (rows != result.observations[cut]).any()
        else:
            assert result.final_observations is None
    assert ended


def test_ales_mode_is_that_of_the_object_not_of_the_one_made_last(atari):
    first = atari(NEXT)
    atari(SAME)
    assert make_environments(first).autoreset_mode is NEXT


def test_ales_partial_batches_are_refused_by_name(atari):
    with pytest.raises(ValueError, match="AtariVectorEnv answers for batch_size=2 of its 3 copies"):
        make_environments(atari(batch_size=2))


def test_ales_interrupted_vector_environment_is_refused_by_name(atari):
    env = atari()
    adapter = make_environments(env)
    adapter.reset(0)

    def interrupted():
        raise KeyboardInterrupt

    env.step = lambda actions: interrupted()
    with pytest.raises(KeyboardInterrupt):
        adapter.step(np.zeros(3, np.int64))
    with pytest.raises(RuntimeError, match=r"AtariVectorEnv was interrupted.*nothing says how to make new ones"):
        adapter.reset(0)


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_ales_vector_environment_by_id_is_made_again_in_its_mode(atari, mode):
    arguments = {"vectorization_mode": "vector_entry_point", "img_height": 12, "img_width": 12, "stack_num": 2}
    given = gymnasium.make_vec("ALE/Pong-v5", num_envs=2, autoreset_mode=mode, **arguments)
    again = EnvironmentRecipe(given).make_again(3, like=make_environments(given))
    assert (type(again._env), again.num_envs, again.autoreset_mode) == (type(given), 3, mode)
    again.close()


class Shared(Ending):
    """Writes its mode into the metadata of its class, as ale-py does."""

    metadata = {}  # noqa: RUF012 -- as gymnasium has it

    def __init__(self, mode):
        super().__init__(mode=mode)
        del self.metadata
        self.autoreset_mode = mode
        self.metadata["autoreset_mode"] = mode


def test_the_mode_of_an_object_goes_before_what_its_class_declares():
    first = Shared(NEXT)
    Shared(SAME)
    assert first.metadata["autoreset_mode"] is SAME
    assert make_environments(first).autoreset_mode is NEXT


class Listed:
    """Speaks as SuperSuit's vectors do, with no package: two copies that are truncated at every third step."""

    num_envs = 2
    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"name": "listed_v0"}  # noqa: RUF012 -- as pettingzoo has it
    idx_starts = (0, 1, 2)

    def __init__(self, by_process):
        self.by_process = by_process

    def env_is_wrapped(self, kind):
        return [False] * 2

    def reset(self, seed=None, options=None):
        self.t = 0
        infos = [{"action_mask": np.array([1, 0])}, {}]
        listed = [[(0, infos[0])], []] if self.by_process else infos
        return np.zeros((2, 1), np.float32), listed

    def step(self, actions):
        self.t += 1
        ended, (observations, _) = (
            self.t == 3,
            self.reset() if self.t == 3 else (np.full((2, 1), self.t, np.float32), 0),
        )
        infos = [{"action_mask": np.array([0, 1])}, {}]
        if ended:
            infos = [{**info, "terminal_observation": np.array([3 + i], np.float32)} for i, info in enumerate(infos)]
        return observations, np.ones(2, np.float32), np.zeros(2, np.uint8), np.full(2, ended, np.uint8), infos


@pytest.mark.parametrize("by_process", [True, False])
def test_lists_of_infos_are_gathered(by_process):
    adapter = make_environments(Listed(by_process))
    assert adapter.autoreset_mode is SAME
    for _ in range(2):
        adapter.reset(0)
        np.testing.assert_array_equal(adapter.action_masks, [[True, False], [True, True]])
        assert [adapter.step(np.zeros(2, np.int64)).final_observations for _ in range(2)] == [None, None]
        result = adapter.step(np.zeros(2, np.int64))
        np.testing.assert_array_equal(result.final_observations[0], [[3], [4]])
        np.testing.assert_array_equal(result.observations, [[0], [0]])
        np.testing.assert_array_equal(adapter.action_masks, [[False, True], [True, True]])


def duel_class():
    """Two agents that count: truncated after four steps, or terminated where both act 2."""
    pettingzoo = pytest.importorskip("pettingzoo", reason="needs supersuit and pettingzoo")

    class Duel(pettingzoo.ParallelEnv):
        metadata = {"name": "duel_v0", "render_modes": []}  # noqa: RUF012 -- as pettingzoo has it
        render_mode = None
        possible_agents = ("black", "white")
        episode = 0

        def observation_space(self, agent):
            return gymnasium.spaces.Box(-100, 100, (3,), np.float32)

        def action_space(self, agent):
            return gymnasium.spaces.Discrete(3)

        def reset(self, seed=None, options=None):
            self.agents = self.possible_agents
            self.t, self.seed, self.episode = 0, self.seed if seed is None else seed, self.episode + 1
            return self.told()

        seed = 0

        def told(self):
            seen = {a: np.array([self.t, i, self.seed], np.float32) for i, a in enumerate(self.possible_agents)}
            return seen, {a: {"action_mask": np.array([1, self.t % 2, 1], np.int8)} for a in self.possible_agents}

        def step(self, actions):
            self.t += 1
            both = all(action == 2 for action in actions.values())
            terminated, truncated = dict.fromkeys(actions, both), dict.fromkeys(actions, self.t >= 4)
            observations, infos = self.told()
            if both or self.t >= 4:
                self.agents = ()
            return observations, {a: float(actions[a]) for a in actions}, terminated, truncated, infos

        def close(self):
            pass

    return Duel


@pytest.fixture
def supersuit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("supersuit", reason="needs supersuit and pettingzoo")


def in_one(supersuit, duel):
    return supersuit.pettingzoo_env_to_vec_env_v1(duel)


def in_several(supersuit, duel):
    return supersuit.concat_vec_envs_v1(in_one(supersuit, duel), 2)


def in_processes(supersuit, duel):
    return supersuit.concat_vec_envs_v1(in_one(supersuit, duel), 2, num_cpus=2)


@pytest.mark.parametrize("make", [in_one, in_several, in_processes])
def test_supersuits_vectors_end_in_the_same_step_with_a_final_observation_of_each_agent(supersuit, make):
    env = make(supersuit, duel_class()())
    copies = env.num_envs // 2
    assert copies == (1 if make is in_one else 2)
    adapter = make_environments(env)
    assert (adapter.num_envs, adapter.autoreset_mode, adapter.observation_size) == (2 * copies, SAME, 3)
    sides = np.tile([0, 1], copies)
    np.testing.assert_array_equal(adapter.reset(7)[:, :2], np.stack([0 * sides, sides], axis=1))
    np.testing.assert_array_equal(adapter.reset(7)[:, 2], np.repeat([7, 8][:copies], 2))
    for t in (1, 2, 3, 4, 1):
        result = adapter.step(sides)
        np.testing.assert_array_equal(result.rewards, sides)
        assert not result.terminated.any()
        assert result.truncated.dtype == result.terminated.dtype == np.bool_
        np.testing.assert_array_equal(result.truncated, np.full(2 * copies, t == 4))
        np.testing.assert_array_equal(result.observations[:, 0], 0 if t == 4 else t)
        if t == 4:
            rows, indices = result.final_observations
            np.testing.assert_array_equal(indices, np.arange(2 * copies))
            np.testing.assert_array_equal(rows[:, :2], np.stack([0 * sides + 4, sides], axis=1))
        else:
            assert result.final_observations is None
        np.testing.assert_array_equal(adapter.action_masks[:, 1], t % 2 == 1)  # of the step that comes next
    twos = np.full(2 * copies, 2)
    result = adapter.step(twos)
    assert result.terminated.all()
    assert result.final_observations is None
    adapter.close()
    assert make_environments(env).num_envs == 2 * copies  # a user's, so left open
    env.close()


def test_an_agent_trains_on_supersuits_vector_and_says_that_it_cannot_be_made_again(supersuit):
    agent = TRPO(in_several(supersuit, duel_class()()), seed=0, **SMALL)
    agent.learn(64)
    assert agent.num_episodes > 0
    with pytest.raises(ValueError, match="cannot make new environments like ConcatVecEnv"):
        agent.evaluate(1)
    assert agent.evaluate(4, env=in_several(supersuit, duel_class()())).lengths.max() <= 4


def test_supersuits_black_death_is_refused_by_name(supersuit):
    from supersuit.vector import MarkovVectorEnv

    with pytest.raises(ValueError, match=r"black_death=True of MarkovVectorEnv hides the end.*black_death_v3"):
        make_environments(MarkovVectorEnv(duel_class()(), black_death=True))


def test_vec_envs_of_stable_baselines3_are_refused_with_what_takes_them():
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    with pytest.raises(TypeError, match=r"DummyVecEnv is a VecEnv of Stable-Baselines3; want .*trpo_fast.sb3.TRPO"):
        make_environments(DummyVecEnv([Walk]))


@pytest.mark.parametrize("kind", [Walk, Parts])
@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_tensors_are_taken_and_given(kind, mode):
    plain = play(make_environments(SyncVectorEnv([kind] * 3, autoreset_mode=mode)))
    torch_made = play(make_environments(InTensors(SyncVectorEnv([kind] * 3, autoreset_mode=mode))))
    for mine, other in zip(torch_made[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert torch_made[3] == plain[3]
    assert plain[2].any()


def tensors(value):
    import torch

    if isinstance(value, dict):
        return {key: tensors(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(tensors, value))
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype != object else value


class InTensors(VectorEnv):
    """Speaks torch on both sides, as simulators on a GPU do."""

    def __init__(self, inner):
        self.inner = inner
        self.num_envs = inner.num_envs
        self.single_observation_space = inner.single_observation_space
        self.single_action_space = inner.single_action_space
        self.metadata = inner.metadata

    def reset(self, *, seed=None, options=None):
        observations, _ = self.inner.reset(seed=seed)
        return tensors(observations), {}

    def step(self, actions):
        *answer, infos = self.inner.step(actions.numpy())
        finals = {key: infos[key] for key in ("final_obs", "_final_obs") if key in infos}
        return *map(tensors, answer), tensors(finals)


def test_tensors_from_gymnasiums_own_wrapper_work():
    pytest.importorskip("array_api_compat", reason="needs gymnasium[array-api]")
    from gymnasium.wrappers.vector import NumpyToTorch

    env = NumpyToTorch(SyncVectorEnv([Walk] * 3, autoreset_mode=NEXT))
    plain = play(make_environments(SyncVectorEnv([Walk] * 3, autoreset_mode=NEXT)))
    wrapped = play(make_environments(env))
    for mine, other in zip(wrapped[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_tensors_of_a_device_are_refused_by_name():
    import torch

    class Away(Ending):
        def reset(self, *, seed=None, options=None):
            return torch.zeros((2, 2, 2), device="meta"), {}

    with pytest.raises(TypeError, match="torch tensors on meta given; want the environment on the CPU"):
        make_environments(Away()).reset(0)


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (1, (2, 1), r"rewards: shape \(2, 1\) returned by step; want \(2,\), one for each environment$"),
        (1, (), r"rewards: shape \(\) returned by step; want \(2,\), one for each environment$"),
        (1, (2, 3), r"shape \(2, 3\) returned by step.*; several objectives have to become one$"),
        (2, (2, 1), r"terminated: .* returned by step; want \(2,\)"),
        (3, (), r"truncated: .* returned by step; want \(2,\)"),
    ],
)
def test_rewards_and_flags_of_another_shape_are_named(position, shape, message):
    class Odd(Ending):
        def step(self, actions):
            answer = list(super().step(actions))
            answer[position] = np.zeros(shape, answer[position].dtype)
            return tuple(answer)

    adapter = make_environments(Odd(mode=NEXT))
    adapter.reset(0)
    with pytest.raises(ValueError, match=message):
        adapter.step(np.zeros((2, 2)))


def test_an_object_that_is_used_like_a_vector_environment_serves():
    class Ducks:
        """No VectorEnv, and all that is needed of one."""

        num_envs = 3
        single_observation_space = Walk.observation_space
        single_action_space = Walk.action_space
        metadata = {"autoreset_mode": SAME}  # noqa: RUF012 -- as gymnasium has it

        def __init__(self):
            self.inner = SyncVectorEnv([Walk] * 3, autoreset_mode=SAME)

        def reset(self, *, seed=None, options=None):
            return self.inner.reset(seed=seed)

        def step(self, actions):
            return self.inner.step(actions)

    ours, theirs = (
        play(make_environments(Ducks())),
        play(make_environments(SyncVectorEnv([Walk] * 3, autoreset_mode=SAME))),
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[3] == theirs[3]
    with pytest.raises(TypeError, match="Spaceless has no single_observation_space"):
        make_environments(type("Spaceless", (Ducks,), {"single_observation_space": None})())


def test_actions_come_in_the_shape_and_dtype_of_the_action_space():
    adapter = VectorAdapter(Ending(mode=NEXT))  # which asserts that they lie in its space
    adapter.reset(0)
    for actions in pushes(adapter, 3):
        adapter.step(actions.astype(np.float32))
