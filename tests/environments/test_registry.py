from __future__ import annotations

import sys

import gymnasium
import pytest

from tests.rollout.toys import Walk, copies_of, make_environments
from trpo_fast.environments import packages
from trpo_fast.environments.recipe import EnvironmentRecipe


def test_modules_are_imported_before_an_environment_is_made(wanders):
    with pytest.raises(ValueError, match="no environment 'Wandering-v0' is registered"):
        make_environments("Wandering-v0")
    made = make_environments("Wandering-v0", num_envs=2, modules=[wanders])
    assert [type(env.unwrapped) for env in copies_of(made)] == [Walk, Walk]


def test_a_function_that_registers_is_called_once(wanders):
    recipe = EnvironmentRecipe("Called-v0", modules=[f"{wanders}:register_envs"])
    recipe.make(1)
    recipe.make_again(1, like=recipe.make(1))
    assert sys.modules[wanders].calls == [1]


def test_an_id_that_a_call_would_register_names_the_call(wanders):
    with pytest.raises(ValueError, match=rf"want imports=\['{wanders}:register_envs'\] \(--import {wanders}:reg"):
        make_environments(f"{wanders}:Called-v0")


def test_a_wrong_name_of_a_module_that_has_registered_ids_gets_near_names_and_no_call(wanders, monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("Wandering-v1", f"{wanders}:Longer")
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    with pytest.raises(ValueError, match="Near names: Wandering-v1") as caught:
        make_environments(f"{wanders}:Wanderign-v1")
    assert "register_envs" not in str(caught.value)


def test_a_game_s_ram_is_said_to_be_an_argument(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("Ponging-v5", "nowhere:at_all")
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    with pytest.raises(ValueError, match=r"""'Ponging-v5' with env_kwargs=\{"obs_type": "ram"\}"""):
        make_environments("Ponging-ram-v5")


@pytest.mark.parametrize("name", ["fails_for_a_test", "wanders_for_a_test:absent", "nowhere_at_all"])
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(wanders, name):
    with pytest.raises(
        ValueError, match=rf"imports: '{name}' cannot be imported: (RuntimeError|AttributeError|Module)"
    ):
        make_environments(Walk, modules=[name])


def test_a_module_in_an_id_that_fails_is_named_with_the_reason(wanders):
    with pytest.raises(ValueError, match=r"fails_for_a_test.*cannot be imported: RuntimeError: not on this machine"):
        make_environments("fails_for_a_test:Thing-v0")


def test_modules_have_to_be_names():
    for modules in ("ale_py", [3], [""], 3):
        with pytest.raises(TypeError, match=r"imports: .* given; want a sequence of names of modules"):
            EnvironmentRecipe("CartPole-v1", modules=modules)


@pytest.mark.parametrize(
    ("id", "package", "line"),
    [
        ("ALE/Pong-v5", "ale_py", "ale_py:ALE/Pong-v5"),
        ("MiniGrid-Empty-8x8-v0", "minigrid", "minigrid:MiniGrid-Empty-8x8-v0"),
        ("FetchReach-v4", "gymnasium_robotics", "gymnasium_robotics:FetchReach-v4"),
        ("minecart-v0", "mo_gymnasium", "mo_gymnasium:minecart-v0"),
    ],
)
def test_an_id_of_a_package_that_was_not_imported_names_the_line_to_type(id, package, line, monkeypatch):
    if packages.version_of(package.replace("_", "-")) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    for name in [name for name in gymnasium.registry if name.startswith(id.partition("-")[0])]:
        monkeypatch.delitem(gymnasium.registry, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=f"{package} is installed, but was not imported; want '{line}'"):
        make_environments(id)


def test_the_source_of_an_installed_package_is_searched_for_an_id(tmp_path, monkeypatch):
    (tmp_path / "hermits").mkdir()
    (tmp_path / "hermits" / "__init__.py").write_text("register('Hermit-v3', None)")
    info = tmp_path / "hermits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: hermits\nVersion: 1.0\nRequires-Dist: gymnasium>=1.0\n"
    )
    (info / "RECORD").write_text("hermits/__init__.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="hermits is installed, but was not imported; want 'hermits:Hermit-v3'"):
        make_environments("Hermit-v3")


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    if packages.version_of("minigrid") is not None:
        pytest.skip("minigrid is installed")
    with pytest.raises(ValueError, match="minigrid is not installed: pip install minigrid"):
        make_environments("MiniGrid-Empty-8x8-v0")
