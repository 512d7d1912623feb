from __future__ import annotations

import enum
import importlib.util
import json
import sys
from collections import OrderedDict
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.rollout.toys import Ending, Walk, make_environments
from trpo_fast.environments.recipe import EnvironmentRecipe

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def test_arguments_reach_the_environment():
    made = make_environments(Walk, num_envs=2, env_kwargs={"limit": 2})
    assert [env.limit for env in made.copies.envs] == [2, 2]
    spec = make_environments("CartPole-v1", num_envs=1, env_kwargs={"max_episode_steps": 9}).copies.envs[0].spec
    assert spec.max_episode_steps == 9


def test_own_vector_version_is_used_and_resets_in_the_next_step():
    adapter = make_environments("CartPole-v1", num_envs=3, vectorization="vector")
    assert (adapter.num_envs, adapter.autoreset_mode) == (3, NEXT)
    observations = adapter.reset(0)
    assert observations.shape == (3, 4)
    assert observations.flags.c_contiguous
    result = adapter.step(np.array([0, 1, 0]))
    assert result.observations.flags.c_contiguous
    assert result.rewards.dtype == np.float64


@pytest.mark.parametrize("id", ["HalfCheeta-v5", "halfcheetah", "HalfCheetah-v77"])
def test_unknown_id_suggests_near_names(id):
    with pytest.raises(ValueError, match=rf"no environment '{id}' is registered.*HalfCheetah-v5"):
        make_environments(id)


def test_unknown_module_and_namespace_are_named():
    with pytest.raises(ValueError, match=r"no environment 'nowhere_at_all:Thing-v0' is registered.*nowhere_at_all"):
        make_environments("nowhere_at_all:Thing-v0")
    for id in (":CartPole-v1", ".relative:CartPole-v1"):
        with pytest.raises(ValueError, match=f"no environment '{id}' is registered"):
            make_environments(id)
    with pytest.raises(ValueError, match="Nothing-v0"):
        make_environments("Nothing-v0")


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
        make_environments(id)


def test_known_environment_without_its_simulator_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    find = importlib.util.find_spec
    monkeypatch.setattr(gymnasium, "make", missing)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "mujoco" else find(name, *more)
    )
    with pytest.raises(ValueError, match=r"'Hopper-v5' cannot be made.*pip install 'trpo-fast\[mujoco\]'"):
        make_environments("Hopper-v5")


class OfAnotherPackage:
    """An environment, but not Gymnasium's: of gym, or of nobody's."""

    def reset(self):
        return np.zeros(1)

    def step(self, action):
        return np.zeros(1), 0.0, False, {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs: 0 given; want at least 1"),
        ({"num_envs": -2}, ValueError, "num_envs: -2 given; want at least 1"),
        ({"num_envs": 2.0}, TypeError, "num_envs: 2.0 given; want an integer"),
        ({"num_envs": True}, TypeError, "num_envs: True given; want an integer"),
        (
            {"vectorization": "threads"},
            ValueError,
            "'threads' given; want one of sync, workers, async, vector, envpool",
        ),
        ({"num_workers": 2}, ValueError, "num_workers: 2 given; want it with vectorization='workers' alone"),
        ({"vectorization": "workers", "num_workers": 0}, ValueError, "num_workers: 0 given; want at least 1"),
        ({"vectorization": "vector"}, ValueError, "vectorization='vector' given .*want a registered id"),
        ({"env_kwargs": 3}, TypeError, "env_kwargs: 3 given; want a mapping from names to values"),
        ({"env_kwargs": [("limit", 3)]}, TypeError, "env_kwargs: .* given; want a mapping"),
        ({"env": 3}, TypeError, "env: 3 given; want an id, a callable "),
        ({"env": Walk()}, TypeError, r"env: <.*Walk.* given; want an id, a callable .*write lambda: Walk\(\.\.\.\)"),
        ({"env": gymnasium.make("CartPole-v1")}, TypeError, r"write lambda: gymnasium\.make\('CartPole-v1'\)"),
        ({"env": OfAnotherPackage()}, TypeError, r"write lambda: OfAnotherPackage\(\.\.\.\)"),
        ({"env": "Pendulum-v1", "vectorization": "vector"}, ValueError, "Pendulum-v1 has no vector version"),
        (
            {"env": Ending(), "vectorization": "sync"},
            ValueError,
            "vectorization: 'sync' given; want it left out with a",
        ),
        ({"env": Ending(), "env_kwargs": {"limit": 3}}, ValueError, "env_kwargs: {'limit': 3} given; want it left out"),
        ({"env": Ending(), "modules": ["minigrid"]}, ValueError, r"imports: \('minigrid',\) given; want it left out"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        make_environments(**{"env": Walk, **options})


@pytest.mark.parametrize("vectorization", ["sync", "vector", "envpool"])
def test_modules_are_imported_for_an_id_however_it_is_vectorized(vectorization):
    with pytest.raises(ValueError, match="imports: 'no_such_module' cannot be imported"):
        make_environments("CartPole-v1", vectorization=vectorization, modules=["no_such_module"])


def test_unsupported_spaces_are_named():
    class Strange(Walk):
        action_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Text(5))

    class Reader(Walk):
        observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Text(5))

    with pytest.raises(ValueError, match=r"action\['a'\]: its space: Text.* given; want"):
        make_environments(Strange, num_envs=1)
    with pytest.raises(ValueError, match=r"observation\['a'\]: its space: Text.* given; want"):
        make_environments(Reader, num_envs=1)


class Spaces(NamedTuple):
    observation_space: gymnasium.Space
    action_space: gymnasium.Space


def spaces_of(env):
    space = "single_" if isinstance(env, VectorEnv) else ""
    return Spaces(getattr(env, f"{space}observation_space"), getattr(env, f"{space}action_space"))


def test_copies_made_again_are_new_ones_with_the_same_arguments():
    recipe = EnvironmentRecipe(Walk, env_kwargs={"limit": 4})
    training, again = recipe.make(2), recipe.make_again(3, like=spaces_of(Walk))
    assert [env.limit for env in again.copies.envs] == [4, 4, 4]
    assert not {id(env) for env in again.copies.envs} & {id(env) for env in training.copies.envs}


class Other(Walk):
    pass


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_a_plain_vector_environment_is_made_again_in_its_kind_and_mode(kind, mode):
    given = kind([Walk, Other], autoreset_mode=mode)
    again = EnvironmentRecipe(given).make_again(3, like=spaces_of(Walk))
    assert type(again._env) is kind
    assert again.autoreset_mode is AutoresetMode(again._env.metadata["autoreset_mode"]) is mode
    if kind is SyncVectorEnv:
        assert [type(env) for env in again._env.envs] == [Walk, Other, Walk]
    again.close()
    assert again._env.closed
    given.close()


def test_a_vector_environment_from_make_vec_is_made_again_from_its_spec():
    given = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    recipe = EnvironmentRecipe(given)
    again = recipe.make_again(4, like=spaces_of(given))
    assert (again.num_envs, recipe.id, type(again._env)) == (4, "CartPole-v1", SyncVectorEnv)


class Doubled(SyncVectorEnv):
    """Changes the rewards, which nothing that only knows the functions could make again."""

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, 2 * rewards, *rest


@pytest.mark.parametrize(
    "make",
    [Ending, lambda: RecordEpisodeStatistics(SyncVectorEnv([Walk])), lambda: Doubled([Walk], autoreset_mode=SAME)],
)
def test_what_cannot_be_made_again_says_why_and_what_is_wanted(make):
    env = make()
    recipe = EnvironmentRecipe(env)
    assert "carries no recipe" in recipe.reason_against_making_again
    with pytest.raises(ValueError, match=r"cannot make new environments like .*pass an id or a callable"):
        recipe.make_again(2, like=spaces_of(env))


def test_what_can_be_made_again_gives_no_reason_against_it():
    assert EnvironmentRecipe(Walk).reason_against_making_again is None
    with pytest.raises(ValueError, match="num_envs: 0 given; want at least 1"):
        EnvironmentRecipe(Walk).make_again(0, like=spaces_of(Walk))


def test_a_vector_environment_handed_in_stays_open():
    env = SyncVectorEnv([Walk], autoreset_mode=SAME)
    EnvironmentRecipe(env).make(1).close()
    assert not env.closed


Box, Dict, Tuple = gymnasium.spaces.Box, gymnasium.spaces.Dict, gymnasium.spaces.Tuple
Discrete, MultiBinary = gymnasium.spaces.Discrete, gymnasium.spaces.MultiBinary
ONE, TWO = Box(-1, 1, (2,), np.float64), Box(0, 5, (1,), np.float64)


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (Dict([("a", ONE), ("b", TWO)]), Dict([("b", TWO), ("a", ONE)]), "the order of its keys, b, a instead of a, b"),
        (Dict([("a", ONE)]), Dict([("c", ONE)]), "its keys, c instead of a"),
        (Tuple([Dict([("a", ONE), ("b", ONE)])]), Tuple([Dict([("b", ONE), ("a", ONE)])]), "the order of its keys"),
        (Tuple([ONE]), Tuple([ONE, ONE]), "observation has 2 parts instead of 1"),
        (ONE, Box(-1, 2, (2,), np.float64), r"high of observation is 2.0 instead of 1.0 at item 0"),
        (ONE, Box(-1, 1, (3,), np.float64), r"observation has shape \(3,\) instead of \(2,\)"),
        (Box(0, 255, (2,), np.uint8), Box(0, 255, (2,), np.float32), "observation is of float32 instead of uint8"),
        (Dict(a=Discrete(3)), Dict(a=Discrete(3, start=1)), r"observation\['a'\] is Discrete\(3, start=1\) instead of"),
        (MultiBinary(3), ONE, "observation is Box"),
    ],
    ids=str,
)
def test_an_environment_whose_spaces_changed_is_refused_when_it_is_made_again(before, after, difference):
    class Changing(Walk):
        observation_space = before

    recipe = EnvironmentRecipe(Changing)
    made = recipe.make(1)
    recipe.make_again(1, like=made).close()
    Changing.observation_space = after
    with pytest.raises(
        ValueError, match=rf"env Changing: observation_space .* given; want .*, the agent's: {difference}"
    ):
        recipe.make_again(1, like=made)


def test_bounds_of_actions_that_changed_are_refused():
    class Changing(Walk):
        action_space = Box(-1, 1, (1,), np.float32)

    recipe = EnvironmentRecipe(Changing)
    made = recipe.make(1)
    Changing.action_space = Box(np.float32(-0.1), np.float32(1), (1,), np.float32)
    with pytest.raises(ValueError, match=r"action_space .* low of action is -0.1\d* instead of -1.0 at item 0"):
        recipe.make_again(1, like=made)


def test_the_type_of_floats_may_differ():
    class Wide(Walk):
        action_space = Box(np.float64(-0.1), np.float64(0.1), (1,), np.float64)

    class Narrow(Walk):
        action_space = Box(np.float32(-0.1), np.float32(0.1), (1,), np.float32)

    wide = EnvironmentRecipe(Wide).make(1)
    assert EnvironmentRecipe(Narrow).make_again(1, like=wide).action_dtype == np.float32


class Mode(enum.IntEnum):
    FAST = 1


class Modes(enum.IntFlag):
    A = 1
    B = 2


class Name(enum.StrEnum):
    LONG = "long"


@pytest.mark.parametrize(
    "arguments",
    [
        *({"bonus": {0: 1.0, 1: -1.0}}, {"size": (2, 3)}, {"g": np.float32(9.0)}, {"f": print}, {"x": float("nan")}),
        # What equals its copy in JSON, and is of another type.
        *({"mode": Mode.FAST}, {"modes": [1, {"all": Modes.A | Modes.B}]}, {"name": Name.LONG}, {Name.LONG: 1}),
        *({"nested": {Name.LONG: 1}}, {"g": np.float64(9.0)}, {"name": np.str_("long")}, {"on": np.True_}),
        {"bonus": OrderedDict(a=1)},
    ],
    ids=str,
)
def test_arguments_that_a_file_cannot_keep_exactly_are_not_written(arguments):
    assert EnvironmentRecipe("CartPole-v1", env_kwargs=arguments).to_json() is None


def test_what_is_written_is_what_is_read():
    arguments = {"a": 1, "b": [1.5, None, {"c": "d", "z": {}, "y": [True, 0.0, 1e300, 2**70]}]}
    recipe = EnvironmentRecipe("CartPole-v1", "vector", arguments)
    assert recipe.to_json()["env_kwargs"] == arguments
    assert EnvironmentRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert EnvironmentRecipe(Walk).to_json() is None
    for damaged in ({}, {"id": 3, "vectorization": None, "env_kwargs": {}}, [1], {"id": "CartPole-v1"}):
        with pytest.raises(ValueError, match=r"environment: .* given; want an object with id"):
            EnvironmentRecipe.from_json(damaged)


def test_a_recipe_cannot_be_changed():
    arguments = {"limit": 4}
    recipe = EnvironmentRecipe(Walk, env_kwargs=arguments)
    arguments["limit"] = 5
    assert recipe.env_kwargs == {"limit": 4}
    with pytest.raises(TypeError):
        recipe.env_kwargs["limit"] = 6


REGISTERS = """
import gymnasium
from tests.rollout.toys import Ending, Walk, make_environments
from trpo_fast.environments.recipe import EnvironmentRecipe
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
    adapter = make_environments(f"{strolls}:Strolling-v0", num_envs=2, env_kwargs={"limit": 3})
    assert adapter.reset(0).shape == (2, 3)
    assert [env.unwrapped.limit for env in adapter.copies.envs] == [3, 3]
    with pytest.raises(ValueError, match=r"no environment 'strolls_for_a_test:Stroling-v0' .*Near names: Strolling-v0"):
        make_environments(f"{strolls}:Stroling-v0")


def test_entry_point_that_is_missing_is_named(strolls):
    with pytest.raises(ValueError, match=r"Nowhere-v0' cannot be made: .*strolls_for_a_test has no 'Missing'"):
        make_environments(f"{strolls}:Nowhere-v0")
