"""What people write who come from other libraries."""

import dataclasses
import functools

import gymnasium as gym
import pytest

from trpo_fast.algorithm import config
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.trpo import TRPO


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("n_steps", "want steps_per_env"),
        ("batch_size", "want steps_per_env times num_envs, or critic_batch_size"),
        ("target_kl", "want max_kl"),
        ("cg_max_steps", "want cg_iterations"),
        ("ent_coef", "want entropy_coefficient"),
        ("policy_kwargs", "want hidden_sizes, activation"),
        ("verbose", r"want learn\(..., progress_bar=True\)"),
        ("tensorboard_log", "want learn.*RunLogger"),
        ("use_sde", "want trpo_fast.sb3.TRPO"),
    ],
)
def test_words_of_other_libraries_say_what_they_are_called_here(name, want):
    with pytest.raises(TypeError, match=f"'{name}' is no field of TRPOConfig; {want}"):
        TRPO("CartPole-v1", **{name: 1})


def test_what_other_libraries_words_point_at_is_there():
    fields = {entry.name for entry in dataclasses.fields(TRPOConfig)}
    for name, said in config._OTHERS.items():
        assert name not in fields
        first = said.partition(" ")[0].rstrip(",")
        assert first in fields or first in {"it", "trpo_fast.sb3.TRPO"} or first.startswith("learn("), first


def test_a_policy_in_front_of_the_environment_is_refused():
    with pytest.raises(TypeError, match=r"env: 'MlpPolicy' and 'CartPole-v1' given; want the environment alone"):
        TRPO("MlpPolicy", "CartPole-v1")
    with pytest.raises(ValueError, match=r"env: 'CnnPolicy' given, a policy of Stable-Baselines3; want an environment"):
        TRPO("CnnPolicy")
    with pytest.raises(ValueError, match=r"policy: 'MlpLstmPolicy' given, Stable-Baselines3's name; want 'lstm'"):
        TRPO("CartPole-v1", policy="MlpLstmPolicy")


def test_a_function_for_a_setting_is_pointed_to_where_functions_go():
    for name in ("max_kl", "max_kl_schedule", "entropy_coefficient"):
        setting = name.removesuffix("_schedule")
        with pytest.raises(ValueError, match=rf"^{name}: .* want a function .* schedules=\{{'{setting}': function\}}"):
            TRPO("CartPole-v1", **{name: lambda progress: 0.1})


def test_a_callable_that_brings_the_arguments_of_what_it_wraps_is_one():
    @functools.wraps(gym.make)
    def make():
        return gym.make("CartPole-v1")

    TRPO(make, num_envs=1).close()


def test_a_callable_that_needs_arguments_is_named():
    with pytest.raises(TypeError, match=r"^env: .*make.* given, which cannot be called without arguments \(missing"):
        TRPO(gym.make)
    with pytest.raises(TypeError, match=r"^env: .* cannot be called with env_kwargs \{'size': 3\} \(got an unexpected"):
        TRPO(lambda: gym.make("CartPole-v1"), env_kwargs={"size": 3})


def test_a_string_is_no_callback(make_agent):
    with pytest.raises(TypeError, match="callback: 'x' given; want a Callback, a function"):
        make_agent().learn(100, callback="x")


def test_what_reset_returns_is_no_observation(make_agent):
    agent = make_agent()
    pair = gym.make("Pendulum-v1").reset(seed=0)
    with pytest.raises(ValueError, match=r"observation: an observation and an info given, as env.reset\(\) returns"):
        agent.predict(pair)
    agent.predict(pair[0])
