import contextlib
import copy
import dataclasses
import json
import pickle
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import PendulumEnv

from tests.algorithm.conftest import SMALL
from trpo_fast import model_file
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import BUILT_BY, TRPOConfig
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.deploy import load_actor
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.state import packed, unpacked

STEPS = 3 * 64


def test_loaded_agent_has_every_bit_and_counter_of_the_saved_one(make_agent, bits, tmp_path):
    agent = make_agent().learn(3 * STEPS)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert bits(loaded) == bits(agent)
    saved, again = checkpoint.capture(agent), checkpoint.capture(loaded)
    assert again.counters == saved.counters
    assert saved.counters["num_timesteps"] == 3 * STEPS and saved.counters["adam"]["adam_step"] > 0
    assert list(again.arrays) == list(saved.arrays)
    for name, array in saved.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array, err_msg=name)
    assert (loaded.config, loaded.seed, loaded.recipe) == (agent.config, agent.seed, agent.recipe)


class Unknown(PendulumEnv):
    """A class of which nothing is known."""


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_resumed_training_goes_on_with_adam_statistics_random_streams_and_episodes(make_agent, bits, tmp_path, env):
    agent = make_agent(env).learn(2 * STEPS)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    for each in (agent, loaded):
        each.learn(2 * STEPS, reset_num_timesteps=False)
    assert bits(loaded) == bits(agent)
    assert loaded.num_timesteps == agent.num_timesteps == 4 * STEPS
    loaded.close()


def test_resumed_training_in_an_unknown_environment_begins_new_episodes(make_agent, bits, tmp_path):
    agent = make_agent(Unknown).learn(2 * STEPS)
    assert "Unknown" in agent.inexact
    agent.save(tmp_path / "a.trpo")
    _, metadata = model_file.read(tmp_path / "a.trpo")
    assert metadata["resume"] == f"statistical: {agent.inexact}"
    loaded = TRPO.load(tmp_path / "a.trpo", env=Unknown)
    checkpoint.put_back(agent, checkpoint.capture(agent), new_episodes=True)
    for each in (agent, loaded):
        each.learn(2 * STEPS, reset_num_timesteps=False)
    assert bits(loaded) == bits(agent)
    loaded.close()


def test_resumed_training_repeats_neither_noise_nor_seeds(make_agent, tmp_path):
    agent = make_agent(Unknown)
    fresh = checkpoint.capture(agent).counters["collector"]
    agent.learn(STEPS).save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", env=Unknown)
    loaded.learn(STEPS, reset_num_timesteps=False)
    later = checkpoint.capture(loaded).counters["collector"]
    loaded.close()
    assert later["step"] == fresh["step"] + 8 + 2 * 64  # warm-up once, then two rollouts
    assert later["resets"] == fresh["resets"] + 2


def test_save_in_a_callback_describes_the_moment_between_two_updates(make_agent, bits, tmp_path):
    make_agent().learn(3 * STEPS, callback=lambda agent: agent.save(tmp_path / f"{agent.num_updates}.trpo"))
    for updates in (1, 2, 3):
        loaded = TRPO.load(tmp_path / f"{updates}.trpo")
        assert bits(loaded) == bits(make_agent().learn(updates * STEPS))


def test_loaded_agent_predicts_and_evaluates_as_the_saved_one(make_agent, tmp_path):
    agent = make_agent().learn(STEPS)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    observations = np.random.default_rng(0).normal(size=(20, 3))
    for deterministic in (True, False):
        a, b = (each.predict(observations, deterministic=deterministic)[0] for each in (agent, loaded))
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(agent.evaluate(3).returns, loaded.evaluate(3).returns)
    loaded.close()


def test_a_runs_folder_is_loaded_as_its_model_or_its_latest_checkpoint(make_agent, bits, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    agent = make_agent().learn(STEPS)
    agent.save(tmp_path / "checkpoints" / "000000000001.trpo")
    assert bits(TRPO.load(tmp_path)) == bits(agent)
    agent.learn(STEPS).save(tmp_path / "model.trpo")
    assert bits(TRPO.load(tmp_path)) == bits(agent)
    assert TRPO.load(tmp_path / "checkpoints").total_timesteps < agent.total_timesteps
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder .* given; want a model file, or the folder of a run"):
        TRPO.load(tmp_path / "empty")


def test_agent_of_a_callable_loads_to_predict_and_asks_for_its_environment_to_learn(make_agent, tmp_path):
    make_agent(lambda: gym.make("Pendulum-v1")).save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert loaded.predict(np.zeros(3))[0].shape == (1,)
    loaded.save(tmp_path / "b.trpo")
    with pytest.raises(ValueError, match=r"want TRPO.load\(path, env=...\)"):
        loaded.learn(1)
    again = TRPO.load(tmp_path / "b.trpo", env="Pendulum-v1")
    again.learn(1)
    again.close()


def test_load_takes_another_number_of_environments(make_agent, tmp_path):
    make_agent().learn(STEPS).save(tmp_path / "a.trpo")
    env = gym.make_vec("Pendulum-v1", 2, vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP})
    loaded = TRPO.load(tmp_path / "a.trpo", env=env)
    loaded.learn(1, reset_num_timesteps=False)
    assert loaded.num_timesteps == STEPS + 2 * 64
    loaded.close()


def test_load_refuses_an_environment_with_other_spaces(make_agent, tmp_path):
    make_agent().save(tmp_path / "a.trpo")
    with pytest.raises(ValueError, match=r"(?s)env CartPole-v1: observation_space .* want .*, the agent's"):
        TRPO.load(tmp_path / "a.trpo", env="CartPole-v1")


def test_file_holds_safetensors_and_json_only(make_agent, tmp_path):
    make_agent().learn(STEPS).save(tmp_path / "a.trpo")
    content = (tmp_path / "a.trpo").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {"policy.log_std", "policy.layers.0.weight", "critic.layers.0.bias", "adam.first_moment"} <= set(header)
    _, metadata = model_file.read(tmp_path / "a.trpo")
    assert metadata["environment"]["id"] == "Pendulum-v1"
    assert {"torch", "numpy", "gymnasium"} <= set(metadata["versions"])


@pytest.fixture(scope="module")
def saved_file(tmp_path_factory):
    """Tensors and metadata of a saved agent; copy before changing."""
    path = tmp_path_factory.mktemp("saved") / "a.trpo"
    agent = TRPO("Pendulum-v1", seed=3, config=TRPOConfig(**SMALL))
    agent.learn(STEPS)
    agent.predict(np.zeros(3))
    agent.save(path)
    agent.close()
    return model_file.read(path)


TENSORS = (
    *("policy.log_std", "policy.layers.0.weight", "policy.layers.0.bias", "policy.layers.1.weight"),
    *("policy.layers.1.bias", "policy.layers.2.weight", "policy.layers.2.bias"),
    *("critic.layers.0.weight", "critic.layers.0.bias", "critic.layers.1.weight", "critic.layers.1.bias"),
    *("adam.first_moment", "adam.second_moment"),
    *("observation_normalizer.count", "observation_normalizer.mean", "observation_normalizer.m2"),
    *("reward_scaler.count", "reward_scaler.mean", "reward_scaler.m2"),
    *("episodes.returns", "episodes.lengths"),
)
COUNTERS = (
    *("num_timesteps", "earlier_timesteps", "num_updates", "num_episodes", "num_predictions", "adam", "collector"),
    *("adam.adam_step", "adam.epochs", "adam.failed_fits", "adam.abandoned_fits"),
    *("collector.step", "collector.resets", "horizon", "schedules_from"),
)
# What a file lacks that was written before it was counted.
LATER = (
    *("num_predictions", "earlier_timesteps", "horizon", "schedules_from"),
    *("adam.failed_fits", "adam.abandoned_fits"),
)


def test_the_lists_of_what_may_be_damaged_are_complete(saved_file):
    tensors, metadata = saved_file
    counters = metadata["counters"]
    nested = {f"{group}.{name}" for group in ("adam", "collector") for name in counters[group]}
    assert set(tensors) == {*TENSORS, "episodes_under_way"}
    assert set(counters) | nested == set(COUNTERS)


def _missing(array):
    return None


def _reshaped(array):
    return np.zeros((2, *array.shape), array.dtype)


def _of_another_dtype(array):
    return np.zeros(array.shape, np.float16)


def _not_finite(array):
    spoilt = array.copy()
    spoilt[(0,) * array.ndim] = np.nan
    return spoilt


@pytest.mark.parametrize("damage", [_missing, _reshaped, _of_another_dtype, _not_finite])
@pytest.mark.parametrize("name", TENSORS)
def test_damaged_tensor_is_refused_when_loaded_by_file_name_and_want(saved_file, tmp_path, name, damage):
    tensors, metadata = saved_file
    if damage is _not_finite and tensors[name].dtype.kind == "i":
        pytest.skip("integers are finite")
    changed = damage(tensors[name] if tensors[name].size else np.zeros(1))
    kept = {key: array for key, array in tensors.items() if key != name}
    model_file.write(tmp_path / "bad.trpo", kept if changed is None else {**kept, name: changed}, metadata)
    for read in (TRPO.load, load_actor):
        with pytest.raises(model_file.ModelFileError, match=rf"bad\.trpo: .*{re.escape(name)}: .*; want "):
            read(tmp_path / "bad.trpo")


def test_schedules_that_begin_behind_what_was_learned_are_refused_when_loaded(saved_file, tmp_path):
    tensors, metadata = saved_file
    counters = {**metadata["counters"], "schedules_from": metadata["counters"]["num_timesteps"] + 1}
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "counters": counters})
    for read in (TRPO.load, load_actor):
        with pytest.raises(model_file.ModelFileError, match=r"counters\.schedules_from: .* given; want at most num_"):
            read(tmp_path / "bad.trpo")


@pytest.mark.parametrize(
    "name", ["adam.second_moment", "observation_normalizer.count", "reward_scaler.m2", "episodes.lengths"]
)
def test_negative_sum_of_squares_or_count_is_refused_when_loaded(saved_file, tmp_path, name):
    tensors, metadata = saved_file
    like = tensors[name]
    changes = {name: np.full(like.shape or (), -1, like.dtype)}
    if name == "episodes.lengths":
        changes = {name: np.array([-1]), "episodes.returns": np.zeros(1)}
    model_file.write(tmp_path / "bad.trpo", {**tensors, **changes}, metadata)
    for read in (TRPO.load, load_actor):
        with pytest.raises(
            model_file.ModelFileError, match=rf"bad\.trpo: .*{re.escape(name)}: -1.* given; want numbers >= 0"
        ):
            read(tmp_path / "bad.trpo")


def test_episodes_with_returns_and_lengths_of_different_number_are_refused(saved_file, tmp_path):
    tensors, metadata = saved_file
    model_file.write(tmp_path / "bad.trpo", {**tensors, "episodes.lengths": np.ones(99, np.int64)}, metadata)
    for read in (TRPO.load, load_actor):
        with pytest.raises(model_file.ModelFileError, match=r"episodes\.lengths: 99 given; want "):
            read(tmp_path / "bad.trpo")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in COUNTERS
        for value in ("missing", None, "7", -1, 1.5, True, [], 2**63)
        if not (name in LATER and value == "missing")
    ],
)
def test_damaged_counter_is_refused_when_loaded_by_file_name_and_want(saved_file, tmp_path, name, value):
    tensors, metadata = copy.deepcopy(saved_file)
    *groups, last = name.split(".")
    where = metadata["counters"]
    for group in groups:
        where = where[group]
    where[last] = value
    if value == "missing":
        del where[last]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    # That one is missing, only the parts of an agent know.
    for read in (TRPO.load,) if value == "missing" else (TRPO.load, load_actor):
        with pytest.raises(model_file.ModelFileError, match=rf"bad\.trpo: .*counters\.{re.escape(name)}: .*; want "):
            read(tmp_path / "bad.trpo")


# A file without own_networks is from before an agent could have some, and is read.
@pytest.mark.parametrize("value", [None, "text", 3, [], {"policy": 3}, {"critic": ["name"]}])
def test_damaged_names_of_own_networks_are_refused_when_loaded(saved_file, tmp_path, value):
    tensors, metadata = saved_file
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "own_networks": value})
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*own_networks: .*; want an object"):
        TRPO.load(tmp_path / "bad.trpo")


@pytest.mark.parametrize("value", [None, "text", [], {"policy": 3}, {"actor": {}}])
def test_damaged_settings_of_own_networks_are_refused_when_loaded(saved_file, tmp_path, value):
    tensors, metadata = saved_file
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "own_settings": value})
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*own_settings: .*; want an object"):
        TRPO.load(tmp_path / "bad.trpo")


@pytest.mark.parametrize("value", [None, "env_kwargs", ["vectorization"], [1], {}])
def test_damaged_names_of_arguments_that_were_not_kept_are_refused_when_loaded(saved_file, tmp_path, value):
    tensors, metadata = saved_file
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "arguments_not_kept": value})
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*arguments_not_kept: .*; want a list"):
        TRPO.load(tmp_path / "bad.trpo")


@pytest.mark.parametrize("value", ["missing", None, "text", -1, 1.5, True, [1], {"id": 3}])
@pytest.mark.parametrize("name", ["config", "seed", "observation_space", "action_space", "environment", "counters"])
def test_damaged_description_is_refused_when_loaded_by_file_and_name(saved_file, tmp_path, name, value):
    if (name, value) == ("environment", None):
        pytest.skip("an agent without a recipe")
    tensors, metadata = copy.deepcopy(saved_file)
    metadata[name] = value
    if value == "missing":
        del metadata[name]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: damaged description of an agent: "):
        TRPO.load(tmp_path / "bad.trpo")


@pytest.mark.parametrize("name", ["activation", "dtype", "gamma", "hidden_sizes", "max_kl", "num_envs"])
def test_a_file_that_lacks_a_setting_is_refused(saved_file, tmp_path, name):
    tensors, metadata = copy.deepcopy(saved_file)
    del metadata["config"][name]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    with pytest.raises(model_file.ModelFileError, match=rf"bad\.trpo: .*config\.{name}: missing; want "):
        TRPO.load(tmp_path / "bad.trpo")


@pytest.mark.parametrize("moment", ["first_moment", "second_moment"])
def test_save_refuses_moments_of_adam_that_could_not_be_loaded_and_writes_nothing(make_agent, tmp_path, moment):
    agent = make_agent().learn(STEPS)
    agent.critic_trainer.get_state()[moment][0] = np.inf
    with pytest.raises(ValueError, match=rf"adam\.{moment}: inf given; want finite numbers"):
        agent.save(tmp_path / "a.trpo")
    assert not list(tmp_path.iterdir())


def test_a_report_that_is_kept_keeps_nothing_of_the_size_of_the_networks(make_agent):
    agent = make_agent(critic_hidden_sizes=(64, 64))
    kept = []
    agent.learn(3 * STEPS, callback=lambda agent: kept.append(agent.last_update))
    assert [report.value_loss > 0 for report in kept] == [True] * len(kept)
    assert len(pickle.dumps([dataclasses.replace(report, fit=report.fit.result()) for report in kept])) < 10_000


@pytest.mark.parametrize("damage", ["cut", "dtype", "text", "kind"])
def test_damaged_episodes_under_way_are_refused_when_loaded(saved_file, tmp_path, damage):
    tensors, metadata = copy.deepcopy(saved_file)
    whole = tensors["episodes_under_way"]
    tensors["episodes_under_way"] = {
        "cut": whole[:-9],
        "dtype": whole.astype(np.int16),
        "text": np.frombuffer(b"\x02\0\0\0\0\0\0\0{]", np.uint8),
        "kind": packed([1, 2]),
    }[damage]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*episodes_under_way: .*; want "):
        TRPO.load(tmp_path / "bad.trpo")


def test_episodes_of_other_environments_are_not_gone_on_with_and_why_is_said(saved_file, tmp_path):
    tensors, metadata = copy.deepcopy(saved_file)
    episodes = unpacked(tensors["episodes_under_way"])
    episodes["environments"]["copies"].pop()
    model_file.write(tmp_path / "a.trpo", {**tensors, "episodes_under_way": packed(episodes)}, metadata)
    loaded = TRPO.load(tmp_path / "a.trpo")
    with pytest.warns(UserWarning, match="new episodes begin, .*: saved of 2 copies; these are 3"):
        loaded.learn(1, reset_num_timesteps=False)
    loaded.close()


def test_a_reason_for_new_episodes_that_is_no_text_is_refused(saved_file, tmp_path):
    tensors, metadata = saved_file
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "begun_anew": 3})
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*begun_anew: 3 given; want a string, or null"):
        TRPO.load(tmp_path / "bad.trpo")


def test_a_file_of_before_episodes_were_kept_is_read(saved_file, tmp_path):
    tensors, metadata = copy.deepcopy(saved_file)
    del tensors["episodes_under_way"], metadata["resume"], metadata["counters"]["horizon"]
    del metadata["counters"]["adam"]["failed_fits"]
    model_file.write(tmp_path / "old.trpo", tensors, metadata)
    loaded = TRPO.load(tmp_path / "old.trpo")
    loaded.learn(1, reset_num_timesteps=False)
    assert loaded.num_timesteps == 2 * STEPS
    loaded.close()


def test_load_of_a_damaged_file_closes_the_environment_that_it_made(saved_file, tmp_path, monkeypatch):
    tensors, metadata = copy.deepcopy(saved_file)
    del metadata["counters"]["num_updates"]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    closed = []
    monkeypatch.setattr(InProcessEnvironments, "close", lambda self: closed.append(self))
    with pytest.raises(model_file.ModelFileError, match=r"num_updates: missing"):
        TRPO.load(tmp_path / "bad.trpo", env="Pendulum-v1")
    assert len(closed) == 1


def test_loaded_agent_goes_on_with_the_noise_of_its_predictions(make_agent, tmp_path):
    agent = make_agent()
    for _ in range(3):
        agent.predict(np.zeros(3))
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert loaded.num_predictions == 3
    np.testing.assert_array_equal(loaded.predict(np.zeros(3))[0], agent.predict(np.zeros(3))[0])


def test_save_to_a_folder_names_the_argument(make_agent, tmp_path):
    with pytest.raises(ValueError, match=r"path: the folder .* given; want the name of a file"):
        make_agent().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [3, True, None, b"a.trpo"])
def test_what_is_no_path_is_named_and_writes_nothing(make_agent, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    agent = make_agent()
    for call in (agent.save, TRPO.load):
        with pytest.raises(TypeError, match=f"^path: {re.escape(repr(given))} given; want a path, a str or an os.Path"):
            call(given)
    assert list(tmp_path.iterdir()) == []


def _to_double(network):
    network.double()


def _not_finite(network):
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))


@pytest.mark.parametrize("spoil", [_to_double, _not_finite])
@pytest.mark.parametrize("network", ["policy", "critic"])
def test_save_refuses_networks_that_could_not_be_loaded_and_writes_nothing(make_agent, tmp_path, network, spoil):
    agent = make_agent()
    spoil(getattr(agent, network))
    with pytest.raises(ValueError, match=r"float64|double|finite|dtype"):
        agent.save(tmp_path / "model.trpo")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            lambda agent: setattr(agent.critic.layers[-1], "weight", torch.nn.Parameter(torch.zeros(7, 3))),
            "critic.layers",
        ),
        (lambda agent: setattr(agent.critic, "extra", torch.nn.Linear(2, 2)), r"critic\.extra"),
        (lambda agent: agent.critic.register_buffer("extra", torch.ones(1)), r"critic\.extra"),
        (lambda agent: agent.policy.register_buffer("extra", torch.ones(1)), r"policy\.extra"),
    ],
)
def test_save_refuses_an_agent_whose_networks_load_would_not_take(make_agent, tmp_path, change, name):
    agent = make_agent()
    change(agent)
    with pytest.raises(ValueError, match=f"agent: no file could give it back: {name}"):
        agent.save(tmp_path / "model.trpo")
    assert not list(tmp_path.iterdir())


def test_missing_truncated_and_foreign_files_are_refused_by_what_is_wrong(make_agent, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.trpo"):
        TRPO.load(tmp_path / "none.trpo")
    make_agent().save(tmp_path / "a.trpo")
    content = (tmp_path / "a.trpo").read_bytes()
    (tmp_path / "cut.trpo").write_bytes(content[: len(content) // 2])
    with pytest.raises(model_file.ModelFileError, match="truncated"):
        TRPO.load(tmp_path / "cut.trpo")
    model_file.write(tmp_path / "other.trpo", {"x": np.zeros(3)}, {"kind": "weights"})
    with pytest.raises(model_file.ModelFileError, match="holds 'weights'; want an agent"):
        TRPO.load(tmp_path / "other.trpo")
    tensors, _ = model_file.read(tmp_path / "a.trpo")
    model_file.write(tmp_path / "bare.trpo", tensors, {"kind": "TRPO"})
    with pytest.raises(model_file.ModelFileError, match="damaged description"):
        TRPO.load(tmp_path / "bare.trpo")


def test_environment_arguments_that_json_cannot_hold_leave_the_recipe_out_and_are_said_once(make_agent, tmp_path):
    agent = make_agent("Pendulum-v1", env_kwargs={"g": np.float32(9.0)})
    with pytest.warns(
        UserWarning, match=r"does not say how Pendulum-v1 is made, as its env_kwargs .*load it with env="
    ):
        agent.save(tmp_path / "a.trpo")
    agent.save(tmp_path / "a.trpo")  # no second warning
    assert TRPO.load(tmp_path / "a.trpo").recipe is None


@pytest.mark.parametrize("make", ["Pendulum-v1", PendulumEnv], ids=["id", "callable"])
def test_arguments_and_wrappers_that_a_file_cannot_keep_are_asked_for_when_it_is_loaded(make_agent, tmp_path, make):
    agent = make_agent(make, env_kwargs={"g": np.float32(9.0)}, wrappers=[gym.wrappers.RecordEpisodeStatistics])
    with pytest.warns(UserWarning, match="does not say how") if isinstance(make, str) else contextlib.nullcontext():
        agent.save(tmp_path / "a.trpo")
    both = r"env_kwargs, wrappers: none given for env=.*could not keep; want .*\{\} and \['none'\] for none"
    with pytest.raises(ValueError, match=both):
        TRPO.load(tmp_path / "a.trpo", env=make)
    with pytest.raises(ValueError, match=r"wrappers: none given for env=.*could not keep; want .*\['none'\] for none"):
        TRPO.load(tmp_path / "a.trpo", env=make, env_kwargs={})
    loaded = TRPO.load(tmp_path / "a.trpo", env=make, env_kwargs={"g": 8.0}, wrappers=["none"])
    assert loaded.learn(1).environments.copies.envs[0].unwrapped.g == 8.0
    vector = gym.vector.SyncVectorEnv([PendulumEnv], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    assert TRPO.load(tmp_path / "a.trpo", env=vector).environments.num_envs == 1


def test_a_callable_without_arguments_is_loaded_without_being_asked(make_agent, tmp_path):
    make_agent(PendulumEnv).save(tmp_path / "a.trpo")
    assert TRPO.load(tmp_path / "a.trpo", env=PendulumEnv).learn(1).environments.num_envs == 3


def test_load_makes_one_environment_for_its_spaces_and_the_others_where_they_are_trained_in(make_agent, tmp_path):
    make_agent(PendulumEnv).save(tmp_path / "a.trpo")
    made, closed = [], []

    class Counted(PendulumEnv):
        def __init__(self):
            super().__init__()
            made.append(self)

        def close(self):
            closed.append(self)

    loaded = TRPO.load(tmp_path / "a.trpo", env=Counted)
    assert len(made) == 1 and closed == made and loaded.environments is None
    with pytest.warns(UserWarning, match="1 of 1 episodes"):  # without a limit of its own
        loaded.evaluate(1, max_steps=2)
    assert len(made) == 2 and closed == made
    loaded.learn(1)
    assert len(made) == 5 and len(closed) == 2
    loaded.close()
    assert len(closed) == 5


def test_how_environments_are_stepped_is_the_files_or_what_is_given(make_agent, tmp_path):
    make_agent("Pendulum-v1", vectorization="workers", num_workers=2).save(tmp_path / "a.trpo")

    def stepped(**given):
        recipe = TRPO.load(tmp_path / "a.trpo", **given).recipe
        return recipe.vectorization, recipe.num_workers

    assert stepped() == ("workers", 2)
    assert stepped(num_workers=1) == ("workers", 1)
    assert stepped(vectorization="workers") == ("workers", 2)
    assert stepped(vectorization="sync") == ("sync", None)
    assert stepped(env=PendulumEnv) == (None, None)
    loaded = TRPO.load(tmp_path / "a.trpo", env=PendulumEnv, vectorization="workers", num_workers=1)
    assert loaded.learn(1).environments.num_workers == 1
    loaded.close()
    make_agent(PendulumEnv).save(tmp_path / "a.trpo")
    with pytest.raises(ValueError, match=r"vectorization: 'workers' given, but the file names no environment; want"):
        stepped(vectorization="workers")


def test_a_number_of_environments_that_a_vector_environment_has_not_is_refused_and_it_stays_open(make_agent, tmp_path):
    make_agent().save(tmp_path / "a.trpo")
    vector = gym.vector.SyncVectorEnv([PendulumEnv] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match=r"num_envs: 3 given; want it left out or 2, the VectorEnv's own"):
        TRPO.load(tmp_path / "a.trpo", env=vector, num_envs=3)
    assert not vector.closed
    assert TRPO.load(tmp_path / "a.trpo", env=vector, num_envs=2).config.num_envs == 2


def test_arguments_and_wrappers_are_made_again_from_the_file(make_agent, tmp_path):
    wrappers = ["gymnasium.wrappers:RecordEpisodeStatistics"]
    agent = make_agent("Pendulum-v1", env_kwargs={"g": 9.0}, wrappers=wrappers)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert loaded.recipe == agent.recipe
    assert loaded.learn(8).environments.copies.envs[0].unwrapped.g == 9.0
    changed = TRPO.load(tmp_path / "a.trpo", env_kwargs={"g": 8.0}, wrappers=["none"])
    (first, *_) = changed.learn(8).environments.copies.envs
    assert first.unwrapped.g == 8.0
    assert not isinstance(first, gym.wrappers.RecordEpisodeStatistics)
    with pytest.raises(ValueError, match=r"wrappers: none given for env='CartPole-v1'; .*\['none'\] for none"):
        TRPO.load(tmp_path / "a.trpo", env="CartPole-v1", env_kwargs={})


@pytest.mark.parametrize("field", ["hidden_sizes", "critic_hidden_sizes"])
def test_a_file_that_asks_for_larger_networks_than_it_holds_is_refused_before_they_are_built(
    make_agent, tmp_path, monkeypatch, field
):
    make_agent().save(tmp_path / "a.trpo")
    arrays, metadata = model_file.read(tmp_path / "a.trpo")
    metadata["config"][field] = [30_000, 30_000]
    model_file.write(tmp_path / "a.trpo", arrays, metadata)
    monkeypatch.setattr("trpo_fast.algorithm.trpo.make_networks", lambda *_, **__: pytest.fail("networks were built"))
    with pytest.raises(model_file.ModelFileError, match=r"layers.0.weight: \(.*\) of float32 given; want \(30000, "):
        TRPO.load(tmp_path / "a.trpo")


def test_settings_can_be_others_after_a_load_but_not_what_networks_are_built_by(make_agent, tmp_path):
    agent = make_agent().learn(8)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", gamma=0.5, max_kl=0.1, num_envs=4)
    assert (loaded.config.gamma, loaded.config.max_kl, loaded.config.num_envs) == (0.5, 0.1, 4)
    assert loaded.config.replace(gamma=agent.config.gamma, max_kl=agent.config.max_kl, num_envs=3) == agent.config
    assert loaded.learn(8).environments.num_envs == 4
    for name in BUILT_BY:
        value = getattr(agent.config, name)
        words = f"{name}: {value!r} given; want it left out: the saved agent's .* were built by {value!r}"
        with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
            TRPO.load(tmp_path / "a.trpo", **{name: value})
    with pytest.raises(ValueError, match=r"^hidden_sizes: \[3\] given; want .* were built by \(8, 8\); a new TRPO"):
        TRPO.load(tmp_path / "a.trpo", hidden_sizes=[3])
    with pytest.raises(ValueError, match=r"^policy: 'cnn' given; want none, this agent was saved with the built-in"):
        TRPO.load(tmp_path / "a.trpo", policy="cnn")
    with pytest.raises(TypeError, match="'gama' is no field of TRPOConfig; did you mean gamma"):
        TRPO.load(tmp_path / "a.trpo", gama=0.5)


def test_settings_that_do_not_fit_are_not_called_a_damaged_file(make_agent, tmp_path):
    make_agent().save(tmp_path / "a.trpo")
    with pytest.raises(ValueError, match=r"^preconditioner: 'kfac' given; want None with the autograd engine"):
        TRPO.load(tmp_path / "a.trpo", engine="autograd", preconditioner="kfac")


def test_what_networks_are_built_by_are_fields():
    assert {entry.name for entry in dataclasses.fields(TRPOConfig)} >= BUILT_BY


def test_the_configuration_cannot_be_replaced(make_agent):
    agent = make_agent()
    before = agent.config
    with pytest.raises(AttributeError, match=r"config: cannot be replaced.*TRPO.load\(path, gamma="):
        agent.config = agent.config.replace(gamma=0.5)
    assert agent.config is before
