from __future__ import annotations

import subprocess
import sys

import pytest

from tests.rollout.toys import Walk, make_environments
from trpo_fast.environments import making


def test_wrong_arguments_of_an_id_are_named_with_it():
    with pytest.raises(ValueError, match=r"env 'CartPole-v1' cannot be made: TypeError: .*'gravitation'"):
        make_environments("CartPole-v1", env_kwargs={"gravitation": 3})


def test_mujocos_warnings_are_printed_once_and_written_nowhere(tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed")
    program = (
        "from trpo_fast.environments.recipe import EnvironmentRecipe\n"
        "made = EnvironmentRecipe('HalfCheetah-v5').make(3)\n"
        "import mujoco, sys\n"
        "for _ in range(2):\n    mujoco.get_mju_user_warning()('a warning of a test')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stderr.splitlines()
    assert lines.count("mujoco: a warning of a test") == 1
    assert len(set(lines)) == len(lines)
    assert not list(tmp_path.iterdir())


def test_mujocos_warnings_about_a_model_are_printed_by_one_of_several_workers(tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed")
    program = (
        "from trpo_fast.environments.recipe import EnvironmentRecipe\n"
        "made = EnvironmentRecipe('HalfCheetah-v5', 'workers', num_workers=2).make(2)\nmade.reset(0)\nmade.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stderr.splitlines()
    assert len(set(lines)) == len(lines)
    assert not list(tmp_path.iterdir())


def test_what_is_unsaid_meanwhile_counts_as_said(capsys, monkeypatch):
    monkeypatch.setattr(making, "_said", set())
    with making.unsaid():
        making._say_once("one")
    for message in ("one", "two", "two"):
        making._say_once(message)
    assert capsys.readouterr().err == "mujoco: two\n"


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
    assert MuJoCo.handler is making._say_once
