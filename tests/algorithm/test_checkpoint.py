import json

import gymnasium as gym
import numpy as np
import pytest

from trpo_fast import model_file
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.trpo import TRPO

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


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_resumed_training_goes_on_with_adam_statistics_and_random_streams(make_agent, bits, tmp_path, env):
    agent = make_agent(env).learn(2 * STEPS)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    # Environments start new episodes after a load; make the original do so as well, then both must go the same way.
    checkpoint.restore(agent, checkpoint.capture(agent))
    for each in (agent, loaded):
        each.learn(2 * STEPS, reset_num_timesteps=False)
    assert bits(loaded) == bits(agent)
    assert loaded.num_timesteps == agent.num_timesteps == 4 * STEPS
    loaded.close()


def test_resumed_training_repeats_neither_noise_nor_seeds(make_agent, tmp_path):
    agent = make_agent()
    fresh = checkpoint.capture(agent).counters["collector"]
    agent.learn(STEPS).save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
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
    with pytest.raises(ValueError, match=r"env: observation_space .* want .* the saved agent's"):
        TRPO.load(tmp_path / "a.trpo", env="CartPole-v1")


def test_file_holds_safetensors_and_json_only(make_agent, tmp_path):
    make_agent().learn(STEPS).save(tmp_path / "a.trpo")
    content = (tmp_path / "a.trpo").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {"policy.log_std", "policy.layers.0.weight", "critic.layers.0.bias", "adam.first_moment"} <= set(header)
    _, metadata = model_file.read(tmp_path / "a.trpo")
    assert metadata["environment"]["id"] == "Pendulum-v1"
    assert {"torch", "numpy", "gymnasium"} <= set(metadata["versions"])


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
    tensors, metadata = model_file.read(tmp_path / "a.trpo")
    model_file.write(tmp_path / "bare.trpo", tensors, {"kind": "TRPO"})
    with pytest.raises(model_file.ModelFileError, match="damaged description"):
        TRPO.load(tmp_path / "bare.trpo")
    for change, message in (({}, "missing"), ({"policy.layers.0.weight": np.zeros((2, 2), np.float32)}, r"\(2, 2\)")):
        kept = {name: array for name, array in tensors.items() if name != "policy.layers.0.weight"}
        model_file.write(tmp_path / "wrong.trpo", {**kept, **change}, metadata)
        with pytest.raises(ValueError, match=rf"policy\.layers\.0\.weight: .*{message}"):
            TRPO.load(tmp_path / "wrong.trpo")


def test_environment_arguments_that_json_cannot_hold_leave_the_recipe_out(make_agent, tmp_path):
    agent = make_agent("Pendulum-v1", env_kwargs={"g": np.float32(9.0)})
    agent.save(tmp_path / "a.trpo")
    assert TRPO.load(tmp_path / "a.trpo").recipe is None
