from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Walk
from trpo_fast import TRPO, model_file
from trpo_fast.deploy import load_actor
from trpo_fast.environments.recipe import EnvironmentRecipe

SMALL = {"num_envs": 2, "steps_per_env": 8, "hidden_sizes": (4,), "critic_hidden_sizes": (4,), "seed": 0}
SMALL |= {"warm_up_steps": 2, "critic_epochs": 1}

MODULE = """
import gymnasium, pathlib
from tests.rollout.toys import Walk
pathlib.Path(__file__).with_suffix(".ran").touch()
gymnasium.register("Roaming-v0", Walk)
Same = gymnasium.Wrapper
def register():
    pass
"""


@pytest.fixture
def roams(tmp_path, monkeypatch):
    """Name of a module that leaves a file behind when its code runs."""
    (tmp_path / "roams_for_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "roams_for_a_test"
    sys.modules.pop("roams_for_a_test", None)
    gymnasium.registry.pop("Roaming-v0", None)


@pytest.fixture
def ran(tmp_path, roams):
    """Whether the module's code has run."""
    return lambda: (tmp_path / f"{roams}.ran").exists()


@pytest.fixture
def file_with(tmp_path):
    """``file_with(environment)``: a model file that says this of its environment, and nothing imported."""

    def write(environment):
        TRPO("CartPole-v1" if "CartPole" in environment.get("id", "") else Walk, **SMALL).save(tmp_path / "a.trpo")
        arrays, metadata = model_file.read(tmp_path / "a.trpo")
        defaults = {"vectorization": None, "env_kwargs": {}, "wrappers": [], "modules": []}
        model_file.write(tmp_path / "a.trpo", arrays, metadata | {"environment": defaults | environment})
        return tmp_path / "a.trpo"

    return write


CODE = [
    {"id": "roams_for_a_test:Roaming-v0"},
    {"id": "CartPole-v1", "modules": ["roams_for_a_test"]},
    {"id": "CartPole-v1", "modules": ["roams_for_a_test:register"]},
    {"id": "CartPole-v1", "wrappers": ["roams_for_a_test:Same"]},
]


@pytest.mark.parametrize("environment", CODE, ids=str)
def test_code_that_a_file_names_runs_only_when_it_is_trusted(environment, file_with, ran):
    path = file_with(environment)
    agent = TRPO.load(path)
    for use in (lambda: agent.evaluate(1), lambda: agent.learn(8), lambda: TRPO.load(path, env_kwargs={})):
        with pytest.raises(
            ValueError, match=r"the file would import roams_for_a_test, .*want imports=\['roams_for_a_te"
        ):
            use()
    with pytest.raises(ValueError, match="the file would import roams_for_a_test"):
        TRPO.load(path, imports=["tests.rollout"]).evaluate(1)
    assert not ran()
    observation = agent.observation_space.sample()
    np.testing.assert_array_equal(load_actor(path)(observation), agent.predict(observation, deterministic=True)[0])
    assert not ran()
    assert TRPO.load(path, imports=["roams_for_a_test"]).evaluate(1).returns.shape == (1,)
    assert ran()
    assert TRPO.load(path, trust_environment=True).evaluate(1).returns.shape == (1,)


def test_a_registered_id_and_wrappers_of_gymnasium_need_no_trust(file_with):
    path = file_with({"id": "CartPole-v1", "wrappers": ["gymnasium.wrappers:RecordEpisodeStatistics"]})
    assert TRPO.load(path).learn(8).num_timesteps == 16


def test_an_id_that_a_person_repeats_trusts_its_module_and_no_other(file_with, ran, roams):
    path = file_with({"id": f"{roams}:Roaming-v0"})
    assert TRPO.load(path, env=f"{roams}:Roaming-v0").evaluate(1).returns.shape == (1,)
    assert ran()
    path = file_with({"id": "CartPole-v1", "modules": ["somewhere_else"]})
    with pytest.raises(ValueError, match="the file would import somewhere_else"):
        TRPO.load(path, env="CartPole-v1")


def test_a_package_that_is_trusted_is_so_with_its_modules(file_with):
    recipe = EnvironmentRecipe.from_json(
        {"id": "a.b:X-v0", "vectorization": None, "env_kwargs": {}, "wrappers": ["a.c:W"], "modules": ["a"]}
    )
    assert recipe.code == ["a.b", "a", "a.c"]
    with pytest.raises(ValueError, match=r"would import a, and"):  # the package alone says it all
        recipe.require_trust()
    recipe.trusting(["a"]).require_trust()
    with pytest.raises(ValueError, match=r"would import a, and"):
        recipe.trusting(["ab"]).require_trust()


def test_what_a_person_wrote_is_trusted(roams, ran):
    assert EnvironmentRecipe(f"{roams}:Roaming-v0").make(1).num_envs == 1
    assert ran()


def test_imports_given_at_a_load_are_kept_in_the_next_file(file_with, roams, tmp_path):
    path = file_with({"id": "Roaming-v0"})
    agent = TRPO.load(path, imports=[roams])
    agent.save(tmp_path / "b.trpo")
    assert agent.evaluate(1).returns.shape == (1,)
    with pytest.raises(ValueError, match="the file would import roams_for_a_test"):
        TRPO.load(tmp_path / "b.trpo").evaluate(1)


@pytest.mark.parametrize("given", ["no", 1, None])
def test_trust_is_a_bool_and_nothing_that_counts_as_true(given, tmp_path):
    TRPO("CartPole-v1", num_envs=1, steps_per_env=16).save(tmp_path / "a.trpo")
    with pytest.raises(TypeError, match=r"trust_environment: .* given; want a bool"):
        TRPO.load(tmp_path / "a.trpo", trust_environment=given)
