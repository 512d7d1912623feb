import json
import multiprocessing
import shlex
import sys

import gymnasium
import pytest

pytest.importorskip("optuna", reason="optuna is not installed")

from trpo_fast.algorithm import presets
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.tuning import study as studies
from trpo_fast.tuning import trial as trials

TUNE = ("tune", "CartPole-v1", "--study", "s.db", "--timesteps", "64", "--eval-episodes", "1")


@pytest.fixture
def tune(command, small, monkeypatch):
    """``tune`` of small agents; the probe takes one update."""
    monkeypatch.setattr(trials, "PROBE_SECONDS", 0.0)
    settings = small[: small.index("--eval-episodes")]

    def search(*options, env=TUNE[1]):
        return command(TUNE[0], env, *TUNE[2:], *settings, "--search", "max_kl,gamma", *options)

    return search


def test_a_study_makes_a_preset_that_train_takes_and_goes_on_to_more_trials(tune, command, tmp_path):
    made = ("--env-kwargs", '{"sutton_barto_reward": true}', "--wrapper", "int-actions", "--import", "json")
    result = tune("--trials", "2", "--seeds", "2", *made)
    assert result.code == 0, result.err
    assert "CartPole-v1: 2 trials, 64 timesteps of 2 seeds each; s.db" in result.out
    assert "cost     256 steps, less than two minutes with 1 worker, at " in result.out
    assert "trial 0: " in result.out and "trial 1: " in result.out
    (preset,) = presets.read_presets("s.toml").values()
    assert preset.settings["hidden_sizes"] == (8,)
    shown = result.out.rpartition("to train with it: ")[2].strip()
    assert (tmp_path / "s.toml").read_text().startswith(f"# {shown}\n")
    _, *words = shlex.split(shown)
    assert words == ["train", "CartPole-v1", "--preset", "s.toml", *made, "--num-envs", "2"]
    train = command(*words, "--timesteps", "64", "--out", "run")
    assert train.code == 0 and f"preset CartPole-v1 (max_kl={preset.settings['max_kl']!r}" in train.out
    assert json.loads((tmp_path / "run/config.json").read_text())["preset"] == "s.toml"
    assert command("presets", "s.toml", "--quiet").out == "CartPole-v1\n"

    result = tune("--trials", "3", "--seeds", "2", "--json", *made)
    assert result.code == 0 and "1 of 3 trials are left" in result.err
    found = json.loads(result.out)
    assert found["trials"] == {"complete": 3, "pruned": 0, "failed": 0}
    assert found["preset"] == "s.toml" and found["seeds"] == [0, 1] and len(found["best"]["means"]) == 2


def test_an_environment_that_changes_the_working_folder_takes_no_file_along(tune, command, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moving.py").write_text(
        """
import os
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Moving(CartPoleEnv):
    def __init__(self, **options):
        super().__init__(**options)
        os.chdir(PLACE)

gymnasium.register("Moving-v0", Moving)
""".replace("PLACE", repr(str(tmp_path / "elsewhere")))
    )
    options = ("--study", "s/my study?.db", "--import", "moving")
    result = tune("--trials", "1", *options, env="Moving-v0")
    assert result.code == 0 and "preset   s/my study?.toml; to train" in result.out, result.err
    made = {path.name for path in (tmp_path / "s").iterdir()}
    assert made == {f"my study?.{end}" for end in ("db", "db.lock", "toml")}
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    words = ("train", "Moving-v0", "--import", "moving", "--preset", "s/my study?.toml", "--num-envs", "2")
    result = command(*words, "--timesteps", "64", "--out", "run", "--eval-episodes", "0")
    assert result.code == 0 and "preset Moving-v0 (" in result.out, result.err
    gymnasium.registry.pop("Moving-v0")


def test_the_preset_of_an_id_goes_on_to_hold_where_it_is_not_searched(tune):
    known = presets.all_presets()["Pendulum-v1"].settings
    tune("--trials", "1", env="Pendulum-v1")
    (preset,) = presets.read_presets("s.toml").values()
    assert preset.settings.items() >= known.items() and "max_kl" in preset.settings


def test_several_workers_make_the_trials_of_one_study_and_not_one_more(tune):
    result = tune("--trials", "3", "--workers", "2", "--quiet")
    assert (result.code, result.out) == (0, ""), result.err
    assert json.loads(tune("--trials", "3", "--json").out)["trials"]["complete"] == 3


def test_a_worker_that_is_killed_is_told_of_while_the_others_go_on(tune, monkeypatch):
    real, told = studies.Study.finished, []

    def killing(study):  # asked while workers work
        children = multiprocessing.active_children()
        if len(children) == 2 and not told:
            told.append(children[0].name)
            children[0].kill()
        return real(study)

    monkeypatch.setattr(studies.Study, "finished", killing)
    result = tune("--trials", "2", "--workers", "2")
    assert result.code == 1 and result.err.count(f"trpo-fast tune: {told[0]} ended with -9") == 1
    assert json.loads(tune("--trials", "2", "--json").out)["trials"]["complete"] == 2


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tune, monkeypatch):
    def scored(task, settings, report):
        if settings["max_kl"] != TRPOConfig().max_kl:
            raise KeyboardInterrupt
        return trials.Score(1.0, [1.0])

    monkeypatch.setattr(studies, "scored", scored)
    result = tune("--trials", "2")
    assert result.code == 130
    assert "interrupted after 1 trial; to go on, the same command with --study s.db" in result.out
    assert "preset   s.toml" in result.out
    monkeypatch.setattr(studies, "scored", lambda task, settings, report: trials.Score(2.0, [2.0]))
    result = tune("--trials", "2")
    assert result.code == 0 and "1 of 2 trials are left" in result.out and "2.0: --" in result.out


def test_a_study_of_failed_trials_alone_has_no_preset(tune, monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "scored", lambda *_: 1 / 0)
    result = tune("--trials", "2")
    assert result.code == 1 and result.out.count("failed: ZeroDivisionError: division by zero") == 2
    assert "no trial has come to its end" in result.err and not (tmp_path / "s.toml").exists()


def test_the_cost_alone_leaves_nothing(tune, tmp_path):
    result = tune("--trials", "7", "--plan-only")
    assert result.code == 0 and "cost     448 steps" in result.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "argument --trials: '0' given; want an integer >= 1"),
        (["--workers", "0"], "argument --workers: '0' given; want an integer >= 1"),
        (["--search", "gamm"], "search: 'gamm' given; did you mean gamma"),
        (["--search", "gamma", "--gamma", "0.9"], "search: 'gamma' given, which has a value given, too"),
        (["--search", "log_std_init"], "search: 'log_std_init' given, which is for gaussian agents alone"),
        (["--out", "best.json"], "--out: best.json given; want a file whose name ends with .toml"),
        (["--study", "s.toml"], "--study: s.toml given, the name of a preset; want another, e.g. s.db"),
        (["--seed", "1000000"], "--seed: 1000000 given; want less than 1,000,000"),
        (["--log-std-init", "100"], "log_std_init: 100.0 given; want it left out: no action here"),
        (["--wrapper", "nowhere:X"], "wrappers: 'nowhere:X' cannot be applied"),
        (["--study", "notes.txt"], "study: notes.txt given, which is no study of trpo-fast tune"),
    ],
)
def test_what_cannot_be_searched_is_one_line(tune, tmp_path, options, message):
    (tmp_path / "notes.txt").write_text("no study")
    result = tune(*options)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if "error: " in line]
    assert message in line and "Traceback" not in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


def test_a_study_of_another_environment_is_refused_by_name(tune, command, small):
    assert tune("--trials", "1").code == 0
    result = command("tune", "Acrobot-v1", "--study", "s.db", "--timesteps", "64", *small[:4])
    assert result.code == 2
    assert "study: s.db given, which was made with environment id CartPole-v1, now Acrobot-v1; " in result.err
    assert result.err.rstrip().endswith("want the same, or another file")


def test_without_optuna_it_says_what_to_install(command, monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "optuna" or name in ("trpo_fast.cli.tune", "trpo_fast.tuning.study"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = command("tune", "CartPole-v1")
    assert (result.code, result.err) == (
        2,
        "trpo-fast tune: error: tuning needs optuna: pip install 'trpo-fast[tune]'\n",
    )
