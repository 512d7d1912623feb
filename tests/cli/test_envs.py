import importlib.util
import json
import sys

import pytest

from trpo_fast.cli import envs


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory, monkeypatch):
    """The list is made once for all tests here: a second each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kept"))


def test_ids_are_listed_with_what_is_missing_for_the_rest(command):
    result = command("envs", "--json")
    assert result.code == 0, result.err
    found = {one["id"]: one for one in json.loads(result.out)}
    assert found["CartPole-v1"] == {"id": "CartPole-v1", "missing": None, "newer": None, "preset": False}
    assert found["Pendulum-v1"]["preset"] is True
    assert found["CartPole-v0"]["newer"] == "CartPole-v1"
    if importlib.util.find_spec("gymnasium.envs.mujoco.mujoco_py_env") is None:  # as Gymnasium 1.1 has it
        assert found["Hopper-v2"]["missing"]  # Gymnasium knows the id, and has no more than that
    for id, module in (("Hopper-v5", "mujoco"), ("LunarLander-v3", "Box2D"), ("phys2d/CartPole-v1", "jax")):
        missing = found[id]["missing"]
        assert (missing is None) == (importlib.util.find_spec(module) is not None), missing
        assert missing is None or f"{module} is not installed: pip install" in missing
    if importlib.util.find_spec("minigrid") is None:
        assert found["{MiniGrid,BabyAI}-*"]["missing"] == "minigrid is not installed: pip install minigrid"
    if importlib.util.find_spec("gymnasium_robotics") is None:
        (robots,) = (id for id in found if "AdroitHand" in id)
        assert robots == "{Fetch,Hand{Reach,Manipulate},AdroitHand,FrankaKitchen,{Ant,Point}Maze_}*"
        assert robots in command("envs", "fetchreach-v4").out


def test_a_word_finds_ids_in_any_case(command):
    assert command("envs", "cartPOLE-V", "--quiet").out.split()[:2] == ["CartPole-v0", "CartPole-v1"]
    lines = command("envs", "cartpole").out.splitlines()
    assert lines[0].split() == ["CartPole-v0", "CartPole-v1", "is", "newer"]
    result = command("envs", "no such thing")
    assert result.code == 1 and "nothing that is known here has 'no such thing' in its id" in result.err


def test_no_module_of_the_working_folder_is_imported_that_nobody_named(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "random.py").write_text("raise SystemExit('not asked for')")
    (tmp_path / "minigrid.py").write_text("raise SystemExit('not asked for')")
    result = command("envs", "cartpole", "--refresh")
    assert result.code == 0, result.err
    (tmp_path / "minigrid.py").unlink()
    (tmp_path / "of_mine.py").write_text("import gymnasium\ngymnasium.register('OfMine-v0', 'nowhere:At')")
    assert "OfMine-v0" in command("envs", "ofmine", "--import", "of_mine").out


def test_a_process_that_ends_badly_behind_its_last_answer_has_given_it(monkeypatch):
    def asked(request):
        yield from ({"id": name, "missing": None} for name in request["ids"])
        raise envs._Crashed("signal 11")

    monkeypatch.setattr(envs, "_asked", asked)
    assert [one["id"] for one in envs._checked(["A-v0", "B-v0"], [])] == ["A-v0", "B-v0"]


def test_the_list_is_kept_until_a_package_changes(command, monkeypatch, tmp_path):
    kept = envs._kept_at()
    command("envs", "x")
    assert kept.exists()
    monkeypatch.setattr(envs, "_asked", lambda request: iter([{"id": "New-v0", "missing": None, "newer": None}]))
    assert "New-v0" not in command("envs", "--quiet").out
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert command("envs", "--quiet").out == "New-v0\n"
    for damaged in ("damaged", "[" * 100_000):
        (tmp_path / "trpo-fast/environments.json").write_text(damaged)
        assert command("envs", "--quiet").out == "New-v0\n"
    monkeypatch.setattr(envs, "_asked", lambda request: iter([{"id": "Newer-v0", "missing": None, "newer": None}]))
    assert command("envs", "--quiet").out == "New-v0\n"
    assert command("envs", "--quiet", "--refresh").out == "Newer-v0\n"
    (tmp_path / "package-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(envs, "_asked", lambda request: iter([{"id": "Newest-v0", "missing": None, "newer": None}]))
    assert command("envs", "--quiet").out == "Newest-v0\n"


OWN = """
import gymnasium, os

class Fine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.low, {}

class Crashes(Fine):
    def __init__(self):
        os._exit(7)

class Unfit(Fine):
    action_space = gymnasium.spaces.Text(3)

for kind in (Fine, Crashes, Unfit):
    gymnasium.register(f"Own{kind.__name__}-v0", kind)
gymnasium.register("OwnGone-v0", "own_envs:Gone")
print("noise of a package" * 10_000)
"""


def test_what_a_module_of_ones_own_registers_is_made_and_judged(command, tmp_path):
    (tmp_path / "own_envs.py").write_text(OWN)
    result = command("envs", "Own", "--import", "own_envs", "--check", "--json")
    found = {one["id"]: one for one in json.loads(result.out)}
    assert found["OwnFine-v0"]["policy"] == "MLPPolicy" and found["OwnFine-v0"]["actions"] == "Discrete(2)"
    assert found["OwnFine-v0"]["missing"] is None
    assert found["OwnCrashes-v0"]["missing"] == "its process ended with exit code 7"
    assert "Text" in found["OwnUnfit-v0"]["missing"]
    assert "own_envs has no 'Gone'" in found["OwnGone-v0"]["missing"]


def test_a_module_that_cannot_be_imported_is_one_line(command):
    result = command("envs", "--import", "nowhere_at_all")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith("trpo-fast envs: error: imports: 'nowhere_at_all' cannot be imported: ModuleNotFoundError")
