"""Runs whose episodes are cut at checkpoints go on with the same bits, in environments that nothing else puts back."""

import hashlib
import warnings

import gymnasium as gym
import numpy as np
import pytest

from tests.agents import SHORT
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.callbacks import Callback, CheckpointCallback
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.model_file import read_metadata

T, COPIES = 16, 2
UPDATE = T * COPIES
PERIOD = 3


class Unknown(gym.Env):
    """A walk that says no state, keeps something from episode to episode, and is seldom at an end."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.kept = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = self.np_random.normal(size=2) + 0.01 * self.kept
        return self.where.astype(np.float32), {}

    def step(self, action):
        self.kept += 1.0
        self.where = self.where + (2 * action - 1) * self.np_random.normal(size=2)
        ended = bool(self.np_random.random() < 0.03)
        return self.where.astype(np.float32), float(self.where.sum() + 0.1 * self.kept), ended, False, {}


gym.register("ResetOnCheckpointWalk-v0", Unknown)


def settings(**others):
    given = {"env": Unknown, "num_envs": COPIES, "steps_per_env": T, "reset_on_checkpoint": PERIOD}
    return {**given, **SHORT, **others}


def everything(agent):
    """A digest of every bit that training goes on from."""
    now = checkpoint.capture(agent)
    sha = hashlib.sha256(repr(sorted(now.counters.items())).encode())
    for name, array in sorted(now.arrays.items()):
        sha.update(name.encode() + array.tobytes())
    return sha.hexdigest()


class Digests(Callback):
    """What an agent is after each update."""

    def __init__(self):
        self.seen = {}

    def on_update(self, agent):
        agent.critic_trainer.wait()
        self.seen[agent.num_updates] = everything(agent)


def trained(folder, updates=8, **others):
    agent, digests = TRPO(**settings(**others)), Digests()
    callbacks = [digests] if folder is None else [digests, CheckpointCallback(folder, keep=0)]
    agent.learn(updates * UPDATE, callback=callbacks)
    agent.close()
    return digests.seen


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("workers", marks=pytest.mark.long)])
def test_a_run_resumed_from_any_of_its_checkpoints_ends_with_the_same_bits(vectorization, tmp_path):
    seen = trained(tmp_path, vectorization=vectorization)
    files = sorted(tmp_path.glob("*.trpo"))
    assert [int(path.stem) for path in files] == [3 * UPDATE, 6 * UPDATE]
    for path in files:
        assert read_metadata(path)["resume"] == "exact"
        agent, digests = TRPO.load(path, env=Unknown, vectorization=vectorization), Digests()
        assert agent.inexact is None
        agent.learn(8 * UPDATE - agent.num_timesteps, callback=digests, reset_num_timesteps=False)
        agent.close()
        assert digests.seen == {update: seen[update] for update in digests.seen}
        assert max(digests.seen) == 8


def test_nothing_but_the_setting_decides_where_episodes_are_cut(tmp_path):
    assert trained(None) == trained(tmp_path)
    assert trained(None) == trained(None, vectorization="workers", num_workers=1)
    assert trained(None) != trained(None, reset_on_checkpoint=0)


def test_episodes_are_cut_as_truncations_that_do_not_count_as_ended():
    given = []

    def estimate(inputs):
        given.append((inputs.truncated.copy(), inputs.terminated.copy(), inputs.next_values.copy(), inputs.values))
        return inputs.gae()

    agent = TRPO(**settings(advantages=estimate))
    agent.learn(4 * UPDATE)
    for update, (truncated, terminated, following, _) in enumerate(given, 1):
        cut = update % PERIOD == 0
        assert np.array_equal(truncated[-1], ~terminated[-1] if cut else np.zeros(COPIES, bool))
        assert not truncated[:-1].any()
        assert (following[-1] != 0).all()  # bootstrapped
    assert agent.num_episodes == sum(int(terminated.sum()) for _, terminated, *_ in given)
    agent.close()


def test_a_file_from_between_two_cuts_says_that_it_is_not_exact(tmp_path):
    agent = TRPO(**settings())
    assert agent.inexact is None
    agent.learn(4 * UPDATE)
    agent.save(tmp_path / "between.trpo")
    assert "after update 4, between two of the cuts" in read_metadata(tmp_path / "between.trpo")["resume"]
    agent.close()
    for env in (Unknown, None):
        assert TRPO.load(tmp_path / "between.trpo", env=env).inexact is not None


def test_environments_that_can_be_put_back_are_not_cut(tmp_path):
    with_it = trained(None, env="CartPole-v1")
    assert with_it[8] == trained(None, env="CartPole-v1", reset_on_checkpoint=0)[8]
    agent = TRPO(**settings(env="CartPole-v1"))
    agent.learn(UPDATE, callback=CheckpointCallback(tmp_path, seconds=60))  # changes no bit there
    agent.close()


def test_a_checkpoint_by_time_is_refused_by_name(tmp_path):
    agent = TRPO(**settings())
    with pytest.raises(ValueError, match="seconds: 60 given with reset_on_checkpoint=3, which cuts"):
        agent.learn(UPDATE, callback=CheckpointCallback(tmp_path / "checkpoints", seconds=60))
    assert not (tmp_path / "checkpoints").exists()
    agent.close()


def test_checkpoints_by_number_fall_on_the_next_cut(tmp_path):
    agent = TRPO(**settings())
    agent.learn(13 * UPDATE, callback=CheckpointCallback(tmp_path, 4 * UPDATE))
    agent.close()
    assert [int(path.stem) // UPDATE for path in sorted(tmp_path.glob("*.trpo"))] == [6, 9, 12]


def test_a_vector_environment_that_was_handed_in_is_not_cut_and_the_reason_is_said():
    env = gym.vector.SyncVectorEnv([Unknown] * COPIES)
    agent = TRPO(**settings(env=env, num_envs=None))
    assert "nothing is known of the state of Unknown" in agent.inexact
    assert "reset_on_checkpoint=3 does not help: a SyncVectorEnv was given" in agent.inexact
    agent.learn(PERIOD * UPDATE)
    agent.close()


class Raising(Unknown):
    """Raises once, when it is told to."""

    at = None

    def step(self, action):
        if Raising.at is not None:
            Raising.at -= 1
            if Raising.at < 0:
                Raising.at = None
                raise KeyboardInterrupt
        return super().step(action)


@pytest.mark.parametrize("at", [9, 30])  # when new environments are looked at, and in the rollout
def test_training_after_ctrl_c_in_the_update_behind_a_cut_is_the_undisturbed_one(at):
    falling = {"env": Raising, "max_kl_schedule": "linear"}
    seen = trained(None, **falling)
    agent, digests = TRPO(**settings(**falling)), Digests()
    agent.learn(PERIOD * UPDATE, horizon=8 * UPDATE)
    Raising.at = at
    with pytest.raises(KeyboardInterrupt):
        agent.learn(5 * UPDATE, reset_num_timesteps=False)
    assert agent.is_at_a_cut
    agent.learn(5 * UPDATE, callback=digests, reset_num_timesteps=False)
    agent.close()
    assert digests.seen == {update: seen[update] for update in range(4, 9)}


class Broken(Unknown):
    """Raises in the episode that a seed gives."""

    def step(self, action):
        if self.np_random_seed == Broken.seed:
            raise ValueError("this episode cannot be played")
        return super().step(action)


def test_after_an_exception_in_the_update_behind_a_cut_other_episodes_begin():
    Broken.seed = None
    agent = TRPO(**settings(env=Broken))
    agent.learn(PERIOD * UPDATE)
    other = TRPO(**settings(env=Broken))
    other.learn((PERIOD + 1) * UPDATE)
    Broken.seed = int(other.environments.copies.envs[0].np_random_seed)
    other.close()
    with pytest.raises(ValueError, match="cannot be played"):
        agent.learn(UPDATE, reset_num_timesteps=False)
    agent.learn(UPDATE, reset_num_timesteps=False)
    agent.close()
    assert agent.num_updates == PERIOD + 1
    assert agent.inexact == "an update raised, so that new episodes began"


class Failing(Callback):
    """Raises once, in the update behind so many."""

    def __init__(self, updates, error):
        self.updates, self.error = updates, error

    def on_rollout_end(self, agent, rollout):
        if agent.num_updates == self.updates and self.error is not None:
            error, self.error = self.error, None
            raise error


@pytest.mark.parametrize(("updates", "error"), [(4, KeyboardInterrupt()), (3, RuntimeError()), (4, RuntimeError())])
def test_new_episodes_between_two_cuts_are_told_of_from_then_on(tmp_path, updates, error):
    agent = TRPO(**settings())
    with pytest.raises(type(error)):
        agent.learn(2 * PERIOD * UPDATE, callback=Failing(updates, error))
    agent.learn((2 * PERIOD - updates) * UPDATE, reset_num_timesteps=False)
    assert agent.num_updates == 2 * PERIOD
    raised = "an update raised, so that new episodes began"
    between = "after update 4, between two of the cuts that reset_on_checkpoint=3 makes, new episodes began"
    assert agent.inexact == (raised if updates == PERIOD else between)
    agent.save(tmp_path / "cut.trpo")
    agent.close()
    assert read_metadata(tmp_path / "cut.trpo")["resume"] == f"statistical: {agent.inexact}"


def test_an_agent_that_begins_between_two_cuts_says_so_behind_the_next(tmp_path):
    agent = TRPO(**settings())
    agent.learn(4 * UPDATE)
    agent.save(tmp_path / "between.trpo")
    agent.close()
    agent = TRPO.load(tmp_path / "between.trpo", env=Unknown)
    agent.learn(2 * UPDATE, reset_num_timesteps=False)
    agent.close()
    assert agent.num_updates == 2 * PERIOD
    assert agent.inexact.startswith("after update 4, between two of the cuts")


def test_cuts_say_nothing_again():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(None)


def resumed_from_the_first_cut(folder, env=None, id=None, **others):
    """Digests of a training, from its first cut on, and of one that goes on from the checkpoint there."""
    seen = trained(folder, updates=5, env=id if env is None else env(), **others)
    path = min(folder.glob("*.trpo"))
    assert read_metadata(path)["resume"] == "exact"
    agent, digests = TRPO.load(path, env=None if env is None else env(), trust_environment=True), Digests()
    agent.learn(5 * UPDATE - agent.num_timesteps, callback=digests, reset_num_timesteps=False)
    agent.close()
    assert min(digests.seen) == PERIOD + 1 < max(digests.seen)
    return {update: digest for update, digest in seen.items() if update > PERIOD}, digests.seen


CNN = {"hidden_sizes": (64, 64), "critic_hidden_sizes": (64, 64)}  # which it does not have


@pytest.mark.parametrize("handed_in", [False, True])
def test_the_vector_environment_of_ale_py_goes_on_with_the_same_bits(handed_in, tmp_path):
    ale_py = pytest.importorskip("ale_py")
    vector_env = pytest.importorskip("ale_py.vector_env")
    gym.register_envs(ale_py)
    small = {"img_height": 36, "img_width": 36}
    if handed_in:
        made = []

        def env():
            made.append(vector_env.AtariVectorEnv("breakout", COPIES, **small))
            return made[-1]

        seen, found = resumed_from_the_first_cut(tmp_path, env, num_envs=None, **CNN)
        for one in made:
            one.close()
    else:
        arguments = {"vectorization": "vector", "env_kwargs": small, **CNN}
        seen, found = resumed_from_the_first_cut(tmp_path, id="ALE/Breakout-v5", **arguments)
    assert found == seen


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
def test_envpool_goes_on_with_the_same_bits(tmp_path):
    pytest.importorskip("envpool")
    seen, found = resumed_from_the_first_cut(tmp_path, id="CartPole-v1", vectorization="envpool")
    assert found == seen


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_a_box2d_world_that_lives_across_episodes_goes_on_with_the_same_bits(vectorization, tmp_path):
    pytest.importorskip("Box2D")
    arguments = {"env_kwargs": {"max_episode_steps": 20}, "vectorization": vectorization}
    seen, found = resumed_from_the_first_cut(tmp_path, id="BipedalWalker-v3", **arguments)
    assert found == seen
