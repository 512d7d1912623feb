"""A small agent that every test of the algorithm can afford."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.agents import shows_images
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.trpo import TRPO

SMALL: dict[str, Any] = {
    "num_envs": 3,
    "steps_per_env": 64,
    "warm_up_steps": 8,
    "hidden_sizes": (8, 8),
    "critic_hidden_sizes": (8,),
    "critic_epochs": 2,
    "critic_batch_size": 48,
    "max_kl_schedule": "constant",  # trainings of different lengths begin alike
}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a critic be fitted beside the rollout on machines with one core, too."""
    monkeypatch.setattr("trpo_fast.algorithm.critic.usable_cores", lambda: 2)


@pytest.fixture
def make_agent() -> Iterator[Callable[..., TRPO]]:
    """``make_agent(env="Pendulum-v1", **overrides)``: a small agent with seed 3, closed when the test ends."""
    made: list[TRPO] = []

    def make(env: Any = "Pendulum-v1", **overrides: Any) -> TRPO:
        seed = overrides.pop("seed", 3)
        settings = {**SMALL, **overrides}
        if shows_images(getattr(env, "observation_space", None)) and overrides.get("policy") != "mlp":
            settings = {name: value for name, value in settings.items() if name in overrides or "hidden" not in name}
            if not {"policy", "critic"} <= overrides.keys():
                settings.setdefault("device", "cpu")  # whose bits are compared
        for name, sizes in (("policy", "hidden_sizes"), ("critic", "critic_hidden_sizes")):
            if not isinstance(overrides.get(name, ""), str) and sizes not in overrides:
                settings.pop(sizes, None)
        if not isinstance(env, str) and not callable(env):
            del settings["num_envs"]
        names = ("vectorization", "num_workers", "env_kwargs", "wrappers", "imports")
        names += ("policy", "critic", "advantages", "step")
        arguments = {name: settings.pop(name) for name in names if name in settings}
        made.append(TRPO(env, seed=seed, config=TRPOConfig(**settings), **arguments))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


def _bits(agent: TRPO) -> bytes:
    arrays = [p.detach().numpy() for module in (agent.policy, agent.critic) for p in module.parameters()]
    adam = agent.critic_trainer.get_state()
    arrays += [adam["first_moment"], adam["second_moment"]]
    for statistics in (agent.observation_normalizer, agent.reward_scaler):
        if statistics is not None:
            arrays += statistics.get_state().values()
    return b"".join(np.asarray(array).tobytes() for array in arrays)


@pytest.fixture
def bits() -> Callable[[TRPO], bytes]:
    """Every learned bit of an agent: parameters, Adam's moments, statistics."""
    return _bits
