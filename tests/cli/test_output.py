"""--json, --quiet, --debug, exit codes, helps, and what commands import."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trpo_fast.algorithm import presets
from trpo_fast.cli import output
from trpo_fast.cli.arguments import make_parser
from trpo_fast.cli.errors import EXIT_CODES

PARSERS = next(action for action in make_parser()._actions if action.dest == "command").choices
HEAVY = {"torch", "gymnasium", "matplotlib", "optuna", "sqlalchemy", "scipy", "jax", "tensorboard"}
PROGRAM = """
import sys
from trpo_fast.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [["info"], ["presets"], ["envs", "CartPole"], ["--help"], *([name, "--help"] for name in PARSERS)],
    ids=" ".join,
)
def test_what_only_tells_imports_no_heavy_package(arguments, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kept"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, modules = done.stderr.splitlines()
    assert "trpo_fast.cli.main" in modules and not HEAVY & set(modules.split())


def test_beside_json_nothing_else_is_on_stdout_whoever_prints():
    program = """
import os, subprocess, sys
from trpo_fast.cli import output
for number in range(2):
    with output.mode(json=True):
        print("printed")
        os.write(1, b"written\\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        output.answer({"number": number})
    print("after", number)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == '{"number": 0}\nafter 0\n{"number": 1}\nafter 1\n', done.stderr
    assert sorted(done.stderr.split("\n")) == ["", *["by a child"] * 2, *["printed"] * 2, *["written"] * 2]


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_says_its_default_and_a_reason(name):
    for action in PARSERS[name]._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            assert re.search(r"\(default .+: .+\)", action.help or "", re.DOTALL), (action.option_strings, action.help)


def test_the_page_has_every_exit_code():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in EXIT_CODES.items()}


def test_the_page_names_every_command():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in PARSERS:
        assert f"trpo-fast {name}" in page, name


def test_train_for_a_program_is_one_line_of_json_and_quietly_nothing(command, small):
    result = command("train", "CartPole-v1", "--timesteps", "128", "--out", "a", "--json", "--log", "table", *small)
    assert result.code == 0 and "trained  128 steps" in result.err and "| rollout/" in result.err
    found = json.loads(result.out)
    assert (found["run"], found["model"], found["num_timesteps"]) == ("a", "a/model.trpo", 128)
    assert found["evaluation"]["episodes"] == 2 and found["exit_code"] == 0
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "b", "--quiet", *small)
    assert tuple(result) == (0, "", "")
    assert tuple(command("train", "--resume", "a", "--timesteps", "192", "--quiet")) == (0, "", "")
    mean = command("eval", "b", "--quiet").out
    assert float(mean) == json.loads(command("eval", "b", "--json").out)["mean"]


def test_info_and_presets_for_a_program(command):
    assert json.loads(command("info", "--json").out)["numpy"]
    (only,) = json.loads(command("presets", "Pendulum-v1", "--json").out)
    assert only["name"] == "Pendulum-v1" and only["settings"] == {"log_std_init": 0.0}
    known = [*presets.all_presets()]
    assert known[0] == "Pendulum-v1" and command("presets", "--quiet").out.split() == known
    assert "--log-std-init 0" in command("presets", "some_module:Pendulum-v1").out
    result = command("presets", "Pendulu-v1")
    assert result.code == 2 and "Pendulu-v1 given, which has no preset: it takes the defaults; did you m" in result.err


def test_bench_quietly_says_by_its_exit_code_alone_whether_answers_are_right(command, monkeypatch):
    result = command("bench", "cg", "--quick", "--quiet", "--threads", "1", "--dtype", "float32")
    assert tuple(result) == (0, "", "")


def test_nobody_reading_any_more_is_no_error(command, small, monkeypatch, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", "--quiet", *small).code == 0
    for arguments in (["report", "run", "--text"], ["plot", "run"]):
        here, there = os.pipe()
        os.close(here)
        with os.fdopen(there, "w") as closed, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", closed)
            result = command(*arguments)
        assert tuple(result) == (0, "", ""), arguments


def test_what_is_not_finite_is_null(capsys):
    output.answer({"a": [float("nan"), 1.0], "b": float("-inf")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": None}


def test_progress_is_shown_on_a_terminal_alone(capsys, monkeypatch):
    assert list(output.progress([1, 2], "run")) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(output.progress([1, 2], "run")) == [1, 2]
    assert "0/2" in capsys.readouterr().err
    with output.mode(quiet=True):
        assert list(output.progress([1, 2], "run")) == [1, 2]
    assert capsys.readouterr().err == ""


BREAKS = """
import gymnasium

class Breaks(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    left = 3

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action):
        Breaks.left -= 1
        if Breaks.left < 0:
            raise KeyError("out of fuel")
        return self.observation_space.low, 0.0, True, False, {}

gymnasium.register("Breaks-v0", Breaks)
"""


@pytest.mark.parametrize("debug", [False, True])
def test_what_an_environment_raises_is_a_line_but_for_debug(command, small, tmp_path, monkeypatch, debug):
    (tmp_path / "breaking.py").write_text(BREAKS)
    options = ["--debug"] if debug else []
    result = command("train", "breaking:Breaks-v0", "--timesteps", "64", "--out", "run", *small, *options)
    assert result.code == 1 and ("Traceback" in result.err) is debug
    said = f"breaking.py:{1 + BREAKS[: BREAKS.index('raise')].count(chr(10))} in step (environment "
    assert "KeyError: 'out of fuel'" in result.err and (debug or said in result.err)
    result = command("eval", "run", "--import", "breaking", *options) if not debug else result
    assert result.code == 1 and ("Traceback" in result.err) is debug
    if not debug:
        *_, line = result.err.splitlines()
        assert line.startswith("trpo-fast eval: error: KeyError: 'out of fuel' at ") and line.endswith("the traceback")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["presets"]], ids=" ".join)
def test_an_answer_that_a_full_disk_did_not_take_is_a_failure(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trpo_fast", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "error: stdout, some of which is missing: No space left on device" in done.stderr
