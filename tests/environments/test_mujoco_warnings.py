from __future__ import annotations

import subprocess
import sys

import pytest

from tests.rollout.toys import Walk
from trpo_fast.environments import making, mujoco_warnings


def run(program, folder):
    """Lines that a program in an empty folder prints to stderr, where it has to leave no file behind."""
    pytest.importorskip("mujoco", reason="mujoco is not installed")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=True)
    assert not list(folder.iterdir())
    return done.stderr.splitlines()


def test_mujocos_warnings_are_printed_once_and_written_nowhere(tmp_path):
    lines = run(
        "from trpo_fast.environments.recipe import EnvironmentRecipe\n"
        "made = EnvironmentRecipe('HalfCheetah-v5').make(3)\n"
        "import mujoco\n"
        "for _ in range(2):\n    mujoco.get_mju_user_warning()('a warning of a test')\n",
        tmp_path,
    )
    assert lines.count("mujoco: a warning of a test") == 1
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("vectorization", ["sync", "workers", "async"])
@pytest.mark.parametrize("source", ["function", "id"])
def test_a_warning_is_printed_once_by_a_training_and_its_evaluations_and_written_nowhere(
    tmp_path, vectorization, source
):
    lines = run(
        "import gymnasium\n"
        "from trpo_fast.environments.recipe import EnvironmentRecipe\n"
        "def function():\n"
        "    return gymnasium.make(id)\n"
        "id = 'HalfCheetah-v5'\n"
        f"recipe = EnvironmentRecipe({source}, {vectorization!r})\n"
        "training = recipe.make(3)\ntraining.reset(0)\n"
        "for _ in range(2):\n"
        "    evaluation = recipe.make_again(2, like=training)\n    evaluation.reset(0)\n    evaluation.close()\n"
        "    evaluation = EnvironmentRecipe(function).make(2)\n    evaluation.reset(0)\n    evaluation.close()\n"
        "training.close()\n",
        tmp_path,
    )
    assert len(set(lines)) == len(lines)
    assert all(line.startswith("mujoco: ") for line in lines)


def test_what_is_unsaid_meanwhile_counts_as_said(capsys, monkeypatch):
    monkeypatch.setattr(mujoco_warnings, "_said", set())
    with mujoco_warnings.unsaid():
        mujoco_warnings._say_once("one")
    mujoco_warnings.take_as_said(["three"])
    for message in ("one", "two", "two", "three"):
        mujoco_warnings._say_once(message)
    assert capsys.readouterr().err == "mujoco: two\n"
    assert mujoco_warnings.said() == ["one", "three", "two"]


def test_a_handler_of_the_users_for_mujocos_warnings_stays(monkeypatch):
    class MuJoCo:
        handler = print

        @classmethod
        def get_mju_user_warning(cls):
            return cls.handler

        @classmethod
        def set_mju_user_warning(cls, handler):
            cls.handler = handler

    monkeypatch.setitem(sys.modules, "mujoco", MuJoCo)
    making.make_copy(Walk, {}, (), ())
    assert MuJoCo.handler is print
    MuJoCo.handler = None
    making.make_copy(Walk, {}, (), ())
    assert MuJoCo.handler is mujoco_warnings._say_once


def test_mujoco_that_is_imported_meanwhile_has_the_handler_before_anything_is_made(monkeypatch, tmp_path):
    (tmp_path / "mujoco.py").write_text(
        "handler = None\ndef get_mju_user_warning():\n    return handler\n"
        "def set_mju_user_warning(given):\n    global handler\n    handler = given\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    before = list(sys.meta_path)

    def make():
        import mujoco

        handlers.append(mujoco.handler)
        return Walk()

    handlers = []
    making.make_copy(make, {}, (), ())
    assert handlers == [mujoco_warnings._say_once]
    assert sys.meta_path == before
