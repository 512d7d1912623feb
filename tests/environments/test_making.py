from __future__ import annotations

import functools
import threading

import gymnasium
import numpy as np
import pytest

from tests.environments.worker_toys import Sum
from tests.rollout.toys import Walk, copies_of, make_environments
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.environments.recipe import EnvironmentRecipe


class Configured(Sum):
    """Takes its number out of a dict of its caller's, and observes it."""

    def __init__(self, cfg) -> None:
        self.number = cfg["numbers"].pop()

    def _observe(self):
        return np.array([self.number, self.steps], np.float64)


class Added(gymnasium.ObservationWrapper):
    """Takes what it adds to observations out of a dict of its caller's."""

    def __init__(self, env, cfg) -> None:
        super().__init__(env)
        self.number = cfg.pop("number")

    def observation(self, observation):
        return observation + self.number


def test_wrong_arguments_of_an_id_are_named_with_it():
    with pytest.raises(ValueError, match=r"env 'CartPole-v1' cannot be made: TypeError: .*'gravitation'"):
        make_environments("CartPole-v1", env_kwargs={"gravitation": 3})


@pytest.mark.parametrize("stepping", [{}, {"vectorization": "workers", "num_workers": 2}], ids=["sync", "workers"])
def test_every_copy_has_arguments_of_its_own_whatever_constructors_do_with_them(stepping):
    given, added = {"numbers": [1, 2, 3]}, {"number": 10}
    recipe = EnvironmentRecipe(
        Configured, env_kwargs={"cfg": given}, wrappers=[functools.partial(Added, cfg=added)], **stepping
    )
    given["numbers"].append(4)  # what a caller changes later is not the recipe's, either
    for _ in range(2):
        environments = recipe.make(3)
        assert environments.reset(0)[:, 0].tolist() == [13, 13, 13]
        environments.close()
    assert (given, added) == ({"numbers": [1, 2, 3, 4]}, {"number": 10})
    assert recipe.env_kwargs == {"cfg": {"numbers": [1, 2, 3]}}


def test_a_file_says_the_arguments_that_were_given(tmp_path):
    gymnasium.register("Configured-v0", Configured)
    try:
        given = {"cfg": {"numbers": [5]}}
        agent = TRPO("Configured-v0", env_kwargs=given, num_envs=2, steps_per_env=8, warm_up_steps=0, seed=0)
        agent.save(tmp_path / "agent.trpo")
        agent.close()
        assert TRPO.load(tmp_path / "agent.trpo").recipe.env_kwargs == given == {"cfg": {"numbers": [5]}}
    finally:
        gymnasium.registry.pop("Configured-v0")


def test_arguments_that_cannot_be_copied_are_shared_and_what_is_around_them_is_not():
    class Locked(Walk):
        def __init__(self, cfg) -> None:
            super().__init__()
            self.lock, self.limit = cfg["lock"], cfg.pop("limit")

    lock = threading.Lock()
    environments = make_environments(Locked, 2, env_kwargs={"cfg": {"lock": lock, "limit": 4}})
    assert [(env.lock, env.limit) for env in copies_of(environments)] == [(lock, 4), (lock, 4)]
    environments.close()


def test_a_vector_version_gets_arguments_of_its_own_each_time_it_is_made():
    gymnasium.register(
        "PoppingVector-v0", Walk, vector_entry_point=lambda num_envs, cfg: _vector(num_envs, cfg.pop("limit"))
    )
    try:
        recipe = EnvironmentRecipe("PoppingVector-v0", "vector", {"cfg": {"limit": 3}})
        for _ in range(2):
            environments = recipe.make(2)
            assert [env.limit for env in copies_of(environments)] == [3, 3]
            environments.close()
    finally:
        gymnasium.registry.pop("PoppingVector-v0")


def _vector(num_envs, limit):
    return gymnasium.vector.SyncVectorEnv([functools.partial(Walk, limit)] * num_envs)
