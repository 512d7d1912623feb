import json
import os
import subprocess
import sys

import pytest

import trpo_fast
from trpo_fast import model_file
from trpo_fast.algorithm.trpo import TRPO


@pytest.fixture
def trained(command, small, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "128", "--out", "run", *small).code == 0
    return tmp_path / "run"


def test_eval_prints_one_json_line(command, trained):
    result = command("eval", "run", "--episodes", "5", "--seed", "3", "--json")
    assert result.code == 0
    (line,) = result.out.splitlines()
    values = json.loads(line)
    expected = TRPO.load(trained / "model.trpo").evaluate(5, seed=3)
    assert values["mean"] == expected.mean and values["std"] == expected.std
    assert (values["episodes"], values["seed"], values["env"]) == (5, 3, "CartPole-v1")
    assert values["deterministic"] is True and values["num_timesteps"] == 128


def test_eval_says_how_many_episodes_did_not_end(command, trained):
    with pytest.warns(UserWarning, match="3 of 3 episodes had not ended after 4 steps"):
        result = command("eval", "run", "--episodes", "3", "--max-steps", "4", "--json")
        line = command("eval", "run", "--episodes", "3", "--max-steps", "4").out
    values = json.loads(result.out)
    assert (values["unfinished"], values["max_steps"], values["mean_length"]) == (3, 4, 4.0)
    assert "over 3 deterministic episodes, 3 unfinished after 4 steps" in line
    assert "unfinished" not in command("eval", "run", "--episodes", "3").out


def test_train_says_how_many_episodes_of_its_evaluation_did_not_end(command, small):
    with pytest.warns(UserWarning, match="2 of 2 episodes had not ended after 3 steps"):
        result = command("train", "CartPole-v1", *small, "--timesteps", "64", "--evaluation-max-steps", "3")
    assert "over 2 deterministic episodes, 2 unfinished after 3 steps" in result.out


def test_eval_takes_a_model_file_and_stochastic_actions(command, trained):
    result = command("eval", "run/model.trpo", "--episodes", "2", "--stochastic")
    assert result.code == 0
    assert result.out.startswith("CartPole-v1: ") and "over 2 stochastic episodes" in result.out


def test_eval_of_a_foreign_file_is_an_error_without_traceback(command, tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    result = command("eval", "notes.txt")
    assert result.code == 2
    assert "notes.txt" in result.err and "Traceback" not in result.err


def test_eval_of_a_damaged_model_is_an_error_without_traceback(command, trained):
    tensors, metadata = model_file.read(trained / "model.trpo")
    del tensors["adam.first_moment"]
    model_file.write(trained / "model.trpo", tensors, metadata)
    result = command("eval", "run/model.trpo")
    assert result.code == 2
    assert "run/model.trpo: damaged" in result.err and "adam.first_moment: missing; want (" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "content",
    [
        b"time/total_timesteps\n1\n",
        b"time/total_timesteps,time/time_elapsed,rollout/ep_rew_mean\nx,1,1\n",
        b"a,b\n1,2\n",
        b"\xff\xfe\x00\x01",
        b"\x00\r\x00\n",
    ],
)
@pytest.mark.parametrize("arguments", [["plot", "run"], ["train", "--resume", "run", "--timesteps", "256"]])
def test_damaged_progress_is_one_line_naming_the_file(command, trained, content, arguments):
    (trained / "progress.csv").write_bytes(content)
    result = command(*arguments)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "run/progress.csv is damaged" in line
    assert (trained / "progress.csv").read_bytes() == content


def test_plot_of_a_config_without_an_environment_id_is_one_line_naming_the_file(command, trained):
    (trained / "config.json").write_text('{"environment": "x"}')
    result = command("plot", "run")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "run/config.json is damaged: environment: 'x' given; want an object with id" in line


def test_plot_draws_one_run_into_its_folder_and_several_here(command, small, trained, tmp_path):
    (trained / "curve.png").unlink()
    assert command("plot", "run").out.strip() == "run/curve.png"
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "other", *small)
    assert command("plot", "run", "other").out.strip() == "curves.png"
    assert command("plot", "run", "other", "--out", "both.png").out.strip() == "both.png"
    assert (tmp_path / "both.png").stat().st_size > 1000
    result = command("plot", "run", "--out", "none/both.png")
    assert result.code == 2 and "none/both.png cannot be written" in result.err


def test_plot_without_matplotlib_says_what_to_install(command, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = command("plot", "run")
    assert result.code == 2
    assert "pip install 'trpo-fast[plot]'" in result.err


def test_info_names_versions_instruction_set_and_threads(command):
    result = command("info")
    assert result.code == 0
    for name in (
        "trpo-fast",
        "python",
        "instruction set",
        "bfloat16 products",
        "threads",
        "torch",
        "gymnasium",
        "sb3-contrib",
    ):
        assert f"{name:<18} " in result.out
    assert command("--version").out == f"trpo-fast {trpo_fast.__version__}\n"


def test_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "trpo_fast", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("train", "eval", "plot", "info"))


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
@pytest.mark.parametrize("package", ["numpy", "torch"])
@pytest.mark.parametrize("program", ["trpo-fast", "-m trpo_fast"])
def test_ctrl_c_while_packages_are_imported_is_one_line(tmp_path, program, package):
    script = tmp_path / "trpo-fast"  # as installers write it
    script.write_text("import sys\nfrom trpo_fast.cli.main import main\nsys.exit(main())\n")
    # A shell that starts the tests in the background makes its children deaf to SIGINT; this one is to hear it.
    (tmp_path / "sitecustomize.py").write_text("import signal\nsignal.signal(2, signal.default_int_handler)\n")
    (tmp_path / f"{package}.py").write_text("import os, signal\nos.kill(os.getpid(), 2)\nprint('still here')\n")
    done = subprocess.run(
        [sys.executable, *(program.split() if program.startswith("-m") else [script]), "train", "CartPole-v1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "trpo-fast: interrupted\n")


WARNS = """
import sys, types, warnings
from gymnasium.spaces import Dict, Discrete, MultiBinary
from trpo_fast.cli import main
from trpo_fast.environments.masks import warn_of_unheeded_mask

def run(arguments):
    warnings.warn("an old way", DeprecationWarning)
    warn_of_unheeded_mask(Dict(action_mask=MultiBinary(2)), Discrete(2))
    return 0

main._command = lambda module: types.SimpleNamespace(run=run)
sys.exit(main.main(["info"]))
"""


def test_a_warning_of_this_package_is_a_line_and_one_of_others_is_as_it_was():
    # In a process of its own, as pytest keeps warnings for itself.
    done = subprocess.run([sys.executable, "-W", "default", "-c", WARNS], capture_output=True, text=True, check=True)
    theirs, *_, ours = done.stderr.splitlines()  # newer Pythons show the source line of -c, too
    assert theirs == "<string>:8: DeprecationWarning: an old way"
    assert ours.startswith("warning: env: observation['action_mask'] looks like an action mask")


def test_help_and_mistakes_are_answered_without_loading_torch():
    program = (
        "import sys\nfrom trpo_fast.cli.main import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


@pytest.mark.parametrize("command", ["trpo-fast", "-m trpo_fast"])
def test_an_instruction_set_that_is_not_there_is_one_line(tmp_path, command):
    script = tmp_path / "trpo-fast"  # as installers write it
    script.write_text("import sys\nfrom trpo_fast.cli.main import main\nsys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, *(command.split() if command.startswith("-m") else [script]), "info"],
        env={**os.environ, "TRPO_FAST_ISA": "x86-64-v9", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("trpo-fast: error: TRPO_FAST_ISA='x86-64-v9' is not available here; want one of ")
