"""What a user reads where memory runs out."""

import gymnasium
import numpy as np
import pytest

from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.memory import LackOfMemory, lack_of_memory_named
from trpo_fast.algorithm.trpo import TRPO

TORCH = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 "
    "bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error",
    [
        *(MemoryError("no room"), RuntimeError(TORCH), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_the_settings_that_were_chosen_are_named(error):
    config = TRPOConfig(num_envs=512, steps_per_env=9999, gamma=0.9)
    message = "num_envs 512, steps_per_env 9999 given; want less: "
    with pytest.raises(LackOfMemory, match=message) as found, lack_of_memory_named(config):
        raise error
    assert str(error)[:7] in str(found.value)
    assert found.value.names == ("num_envs", "steps_per_env")
    assert found.value.__cause__ is error


def test_all_sizes_are_named_where_none_was_chosen():
    message = r"num_envs 8, steps_per_env 256, hidden_sizes \(64, 64\), critic_hidden"
    with pytest.raises(MemoryError, match=message), lack_of_memory_named(TRPOConfig()):
        raise MemoryError


def test_other_errors_travel_on():
    with pytest.raises(RuntimeError, match=r"^cannot allocate a texture$"), lack_of_memory_named(TRPOConfig()):
        raise RuntimeError("cannot allocate a texture")


class Wide(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (100_000,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)


def test_an_agent_that_does_not_fit_is_refused_with_its_settings(make_agent):
    with pytest.raises(MemoryError, match=r"num_envs 3, steps_per_env 16777216, .* given; want less"):
        make_agent(Wide, steps_per_env=2**24, hidden_sizes=(1,), critic_hidden_sizes=(1,))


def test_an_update_that_does_not_fit_leaves_the_agent_as_it_was(make_agent, bits):
    agent, other = make_agent(), make_agent()
    for one in (agent, other):
        one.learn(200)

    def bind(*arguments, **options):
        np.empty(2**60, np.uint8)

    agent.engine.bind, original = bind, agent.engine.bind
    with pytest.raises(MemoryError, match=r"steps_per_env 64.*given; want less"):
        agent.learn(200)
    agent.engine.bind = original
    assert bits(agent) == bits(other)


def test_a_fit_beside_the_rollout_that_finds_no_memory_is_lost_and_said_to_be(make_agent, tmp_path):
    agent = make_agent().learn(200)
    before, kernel = agent.critic_trainer.get_state(), agent.critic_trainer._kernel

    class NoMemory:
        values = kernel.values

        def fit(self, *arguments, **options):
            raise MemoryError("88 bytes")

    agent.critic_trainer._kernel = NoMemory()
    with pytest.raises(MemoryError, match=r"steps_per_env 64.*given; want less: .* \(88 bytes\)"):
        agent.learn(1, reset_num_timesteps=False)
    agent.critic_trainer._kernel = kernel
    assert agent.num_updates == 3 and agent.critic_trainer.get_state()["adam_step"] == before["adam_step"]
    assert agent.inexact == "1 of its critic's fits were lost, abandoned at an interruption or ended by an error"
    agent.save(tmp_path / "a.trpo")
    with TRPO.load(tmp_path / "a.trpo") as loaded:
        assert loaded.inexact == agent.inexact
    assert agent.learn(1, reset_num_timesteps=False).num_updates == 4


@pytest.mark.parametrize("look", [lambda agent: agent.predict(np.zeros(3)), lambda agent: agent.learn(1)])
def test_an_agent_that_memory_kept_from_being_put_back_is_put_back_by_who_looks_at_it_next(make_agent, bits, look):
    agent, other = make_agent().learn(200), make_agent().learn(200)
    for one in (agent, other):
        one.engine.bind = lambda *arguments, **options: np.empty(2**60, np.uint8)
    set_state = agent.reward_scaler.set_state
    agent.reward_scaler.set_state = lambda state: np.empty(2**60, np.uint8)
    for one in (agent, other):
        with pytest.raises(MemoryError):
            one.learn(200)
        del one.engine.bind
    assert bits(agent) != bits(other)
    agent.reward_scaler.set_state = set_state
    for one in (agent, other):
        look(one)
    assert bits(agent) == bits(other)
