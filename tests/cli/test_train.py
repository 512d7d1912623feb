import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import gymnasium
import pytest
import torch

from trpo_fast import model_file
from trpo_fast._core import library
from trpo_fast.algorithm import sinks
from trpo_fast.algorithm.callbacks import CheckpointCallback
from trpo_fast.algorithm.training_environments import TrainingEnvironments
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import plot
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.progress import read_progress
from trpo_fast.run_models import checkpoint_name

UPDATE = 2 * 32


def test_train_leaves_a_complete_run_folder(command, small, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result = command("train", "CartPole-v1", "--timesteps", "200", "--out", "run", *small)
    assert result.code == 0, result.err
    names = {path.name for path in (tmp_path / "run").iterdir() if "tfevents" not in path.name}
    assert names == {"config.json", "progress.csv", "checkpoints", "model.trpo", "curve.png"}
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_progress(tmp_path / "run" / "progress.csv")) == 4
    assert "return " in result.out and "over 2 deterministic episodes" in result.out
    assert "model    run/model.trpo" in result.out and "curve    run/curve.png" in result.out
    assert "return=" in result.err and "kl=" in result.err and "step/s" in result.err
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["environment"]["id"] == "CartPole-v1"
    assert (content["seed"], content["timesteps"], content["config"]["num_envs"]) == (0, 200, 2)
    assert TRPO.load(tmp_path / "run" / "model.trpo").num_timesteps == 4 * UPDATE


def test_tensorboard_events_lie_in_the_run_folder(command, small, tmp_path):
    pytest.importorskip("tensorboard")
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_default_folder_is_named_for_environment_and_seed(command, small, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "64", "--seed", "7", *small).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("CartPole-v1-seed7-")


def test_settings_come_from_defaults_then_file_then_options(command, small, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"gamma": 0.5, "damping": 0.3}))
    command(
        "train", "CartPole-v1", "--timesteps", "64", "--out", "a", "--config", "settings.json", "--gamma", "0.7", *small
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())["config"]
    assert (config["gamma"], config["damping"], config["gae_lambda"]) == (0.7, 0.3, 0.9)
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "b", "--config", "a/config.json")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["config"] == config


def test_an_id_takes_its_preset_and_says_which(command, small, tmp_path):
    def trained(out, *options):
        result = command("train", "MountainCarContinuous-v0", "--timesteps", "64", "--out", out, *small, *options)
        assert result.code == 0, result.err
        content = json.loads((tmp_path / out / "config.json").read_text())
        return result.out, content["preset"], content["config"]["gamma"], content["config"]["gae_lambda"]

    name = "MountainCarContinuous-v0"
    (tmp_path / "settings.json").write_text(json.dumps({"gamma": 0.5}))
    out, *found = trained("a")
    assert f"preset {name} (log_std_init=0.0, gamma=0.999, gae_lambda=0.98, critic_gae_lambda=0.98)" in out
    assert found == [name, 0.999, 0.98]
    out, *found = trained("b", "--preset", "none")
    assert "preset" not in out
    assert found == [None, 0.99, 0.9]
    out, *found = trained("c", "--gamma", "0.9")
    assert f"preset {name} (log_std_init=0.0, gae_lambda=0.98, critic_gae_lambda=0.98)," in out, "what is in force"
    assert found == [name, 0.9, 0.98]
    assert trained("d", "--config", "settings.json")[1:] == (name, 0.5, 0.98)
    assert trained("e", "--config", "b/config.json")[1:] == (None, 0.99, 0.9), "a run says every setting"


def test_a_preset_of_other_actions_is_refused(command, small):
    result = command("train", "CartPole-v1", "--timesteps", "64", "--preset", "Pendulum-v1", *small)
    assert result.code == 2
    assert "preset: 'Pendulum-v1' given, which is for actions Box(1,); the environment has Discrete(2)" in result.err


def test_a_run_says_how_its_actions_were_mapped_and_one_that_is_older_was_clipped(command, small, tmp_path):
    assert command("train", "Pendulum-v1", "--timesteps", "64", "--out", "a", *small).code == 0
    content = json.loads((tmp_path / "a" / "config.json").read_text())
    assert content["config"]["action_map"] == "affine"
    (tmp_path / "new.json").write_text(json.dumps(content))
    del content["config"]["action_map"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    for name, found in ("new", "affine"), ("old", "clip"):
        command("train", "Pendulum-v1", "--timesteps", "64", "--out", name, "--config", f"{name}.json")
        assert json.loads((tmp_path / name / "config.json").read_text())["config"]["action_map"] == found
    command("train", "Pendulum-v1", "--timesteps", "64", "--out", "b", "--action-map", "clip", *small)
    assert TRPO.load(tmp_path / "b" / "model.trpo").config.action_map == "clip"


def test_same_command_gives_the_same_run(command, small, tmp_path):
    for out in ("a", "b"):
        assert command("train", "CartPole-v1", "--timesteps", "200", "--out", out, *small).code == 0
    a, b = (TRPO.load(tmp_path / out / "model.trpo") for out in "ab")
    assert a.policy.flat.numpy.tobytes() == b.policy.flat.numpy.tobytes()
    assert a.critic.flat.numpy.tobytes() == b.critic.flat.numpy.tobytes()


def test_curve_not_drawn_is_said_clearly_where_matplotlib_is_missing(command, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 0
    assert "not drawn: curves need matplotlib: pip install 'trpo-fast[plot]'; then: trpo-fast plot run" in result.out
    assert not (tmp_path / "run" / "curve.png").exists()


def test_used_folder_is_refused_and_left_alone(command, small, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("kept")
    result = command("train", "CartPole-v1", "--out", "run", *small)
    assert result.code == 2
    assert "--out: run exists and is not empty; want a new or empty folder, or --resume run" in result.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_two_starts_in_one_second_get_two_folders(command, small, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    for _ in range(2):
        assert command("train", "CartPole-v1", "--timesteps", "64", *small).code == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["CartPole-v1-seed0-20260101-000000", "CartPole-v1-seed0-20260101-000000-2"]


@pytest.mark.parametrize("arguments", [["CartPole-v1", "--out", "run"], ["--resume", "run"]])
def test_a_second_run_in_a_folder_is_refused_by_the_process_that_has_it(command, small, monkeypatch, arguments):
    answers = []
    learn = TRPO.learn

    def second(agent, *args, **kwargs):
        monkeypatch.setattr(TRPO, "learn", learn)
        answers.append(command("train", *arguments, "--timesteps", "128"))
        return agent.learn(*args, **kwargs)

    monkeypatch.setattr(TRPO, "learn", second)
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0
    (answer,) = answers
    assert answer.code == 2
    assert f"run is in use by process {os.getpid()}" in answer.err and "want one run in a folder" in answer.err
    assert command("train", "--resume", "run", "--timesteps", "128", "--eval-episodes", "0").code == 0


@pytest.mark.parametrize("write", range(1, 7))
def test_a_disk_that_is_full_at_the_start_leaves_no_folder_that_refuses_the_retry(
    command, small, tmp_path, monkeypatch, write
):
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) >= write:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    began = (tmp_path / "run").exists()  # and got as far as learning something, which can go on
    assert result.code == (1 if began else 2)
    assert "No space left on device" in result.err and "Traceback" not in result.err
    if began:
        assert command("train", "--resume", "run", "--timesteps", "64", "--eval-episodes", "0").code == 0
    else:
        assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0


def test_a_resumed_run_says_which_packages_are_others_by_now(command, small, tmp_path):
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["versions"] |= {"mujoco": "2.3.0", "ale-py": "0.1"}
    path.write_text(json.dumps(content))
    result = command("train", "--resume", "run", "--timesteps", "128", "--eval-episodes", "0")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert "run began with ale-py 0.1, now missing; mujoco 2.3.0, now " in line


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_a_resumed_run_says_what_else_of_the_machine_decides_its_bits_and_is_another_by_now(
    command, small, tmp_path, engine
):
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", "--engine", engine, *small)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    decides = {"native": {"instruction_set"}, "autograd": {"instruction_set", "device", "torch_threads"}}[engine]
    assert decides == {"instruction_set", "device", "torch_threads"} & content.keys()
    path.write_text(json.dumps(content | dict.fromkeys(decides, "another")))
    result = command("train", "--resume", "run", "--timesteps", "128", "--eval-episodes", "0")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    for name in decides:
        assert f"{name.replace('_', ' ')} another, now {content[name]}" in line
    path.write_text(json.dumps({name: value for name, value in content.items() if name not in decides}))
    assert "warning: " not in command("train", "--resume", "run", "--timesteps", "192", "--eval-episodes", "0").err


def test_a_resumed_run_whose_environment_has_changed_is_refused_in_a_line_and_left_alone(command, small, tmp_path):
    gymnasium.register("Changing-v0", lambda: gymnasium.make("CartPole-v1"))
    try:
        assert command("train", "Changing-v0", "--timesteps", "64", "--out", "run", *small).code == 0
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        gymnasium.registry["Changing-v0"].entry_point = lambda: gymnasium.make("Acrobot-v1")
        result = command("train", "--resume", "run", "--timesteps", "128")
        assert result.code == 2
        (line,) = result.err.splitlines()
        assert "--resume: run: " in line and "observation_space" in line
        assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    finally:
        del gymnasium.registry["Changing-v0"]


def test_folder_that_cannot_be_written_is_an_error_without_traceback(command, small, tmp_path):
    (tmp_path / "file").write_text("")
    result = command("train", "CartPole-v1", "--out", "file/run", *small)
    assert result.code == 2
    assert "file/run cannot be written" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "ENV: none given"),
        (["train", "CartPol-v1"], "CartPole-v1"),
        (["train", "CartPole-v1", "--config", "none.json"], "there is no file none.json"),
        (["train", "--resume", "nowhere"], "nowhere given; want a run's folder"),
        (["eval", "nowhere"], "nowhere given; want a run's folder"),
        (["plot", "nowhere"], "nowhere given; want a run's folder"),
    ],
)
def test_what_is_missing_is_named_without_traceback(command, arguments, message):
    result = command(*arguments)
    assert result.code == 2
    assert message in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON object: Expecting"),
        ("[1]", "is no JSON object: it holds a list"),
        ('{"max_kl": -1}', "max_kl: -1 given"),
        ('{"maxkl": 1}', "did you mean max_kl"),
    ],
)
def test_bad_settings_file_is_refused_by_what_is_wrong(command, tmp_path, content, message):
    (tmp_path / "settings.json").write_text(content)
    result = command("train", "CartPole-v1", "--config", "settings.json")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "--config: settings.json" in line and message in line
    assert not (tmp_path / "runs").exists()


def test_folder_as_settings_file_is_refused_by_option(command, tmp_path):
    (tmp_path / "settings").mkdir()
    result = command("train", "CartPole-v1", "--config", "settings")
    assert result.code == 2
    assert "--config: settings is a folder; want a file, as config.json of a run's folder" in result.err


def test_too_many_threads_are_refused_by_option(command):
    result = command("train", "CartPole-v1", "--threads", "1000")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "--threads: 1000 given; want 1 to 256 threads" in line


def test_sizes_beyond_the_memory_are_refused_by_option(command, tmp_path):
    result = command("train", "CartPole-v1", "--hidden-sizes", "16777216,16777216")  # 2**50 bytes
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "--hidden-sizes: too large for the memory of this machine" in line
    assert not (tmp_path / "runs").exists()


def test_resume_with_a_truncated_checkpoint_goes_on_from_the_one_before_and_says_so(command, small, tmp_path):
    options = ("--timesteps", "192", "--out", "run", "--checkpoint-every", "64")
    assert command("train", "CartPole-v1", *options, *small).code == 0
    *_, old, new = sorted((tmp_path / "run" / "checkpoints").iterdir())
    for path in (new, tmp_path / "run" / "model.trpo"):
        path.write_bytes(path.read_bytes()[:100])
    said = rf"run/checkpoints/{new.name} is truncated.*taken instead: run/checkpoints/{old.name}, at 128 timesteps"
    with pytest.warns(UserWarning, match=said):
        evaluated = command("eval", "run", "--episodes", "1")
    assert f"(run/checkpoints/{old.name})" in evaluated.out
    with pytest.warns(UserWarning, match=said), pytest.warns(UserWarning, match=f"{new.name}.damaged now"):
        result = command("train", "--resume", "run", "--timesteps", "256")
    assert result.code == 0, result.err
    steps = [int(row["time/total_timesteps"]) for row in read_progress(tmp_path / "run" / "progress.csv")]
    assert steps == [64, 128, 192, 256]


def test_resumed_run_goes_on_to_its_total(command, small, tmp_path):
    command("train", "CartPole-v1", "--timesteps", "128", "--out", "run", *small)
    done = command("train", "--resume", "run")
    assert done.code == 2 and "has 128 of 128 timesteps; want more --timesteps" in done.err
    assert command("train", "--resume", "run", "--timesteps", "256", "--eval-episodes", "0").code == 0
    assert TRPO.load(tmp_path / "run" / "model.trpo").num_timesteps == 256
    rows = read_progress(tmp_path / "run" / "progress.csv")
    assert [int(row["time/total_timesteps"]) for row in rows] == [64, 128, 192, 256]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["timesteps"] == 256


@pytest.mark.parametrize(
    ("given", "has"),
    [
        (["Acrobot-v1"], "CartPole-v1"),
        (["--seed", "1"], "0"),
        (["--gamma", "0.5"], "0.99"),
        (["--out", "x"], "run"),
        (["--vectorization", "vector"], "sync"),
        (["--env-kwargs", '{"a": 1}'], "{}"),
        (["--preset", "Pendulum-v1"], "none"),
    ],
)
def test_resumed_run_refuses_what_would_change_it_and_says_what_it_has(command, small, tmp_path, given, has):
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    result = command("train", "--resume", "run", "--timesteps", "256", *given)
    assert result.code == 2
    name = given[0] if given[0].startswith("--") else "ENV"
    (line,) = result.err.splitlines()
    assert f"{name}: " in line and f" given, the run has {has}; want --resume without: a resumed run keeps" in line
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_resumed_run_may_be_told_again_what_it_has(command, small, tmp_path):
    again = ("CartPole-v1", "--out", "run", *small, "--eval-episodes", "0")
    assert command("train", *again, "--timesteps", "64").code == 0
    result = command("train", "--resume", "run", "--timesteps", "128", "--seed", "0", "--wrapper", "none", *again)
    assert result.code == 0, result.err
    (tmp_path / "kinds.json").write_text('{"action_map": "auto", "fisher_subsample": null}')
    by_kind = ("--preset", "auto", "--action-map", "auto", "--config", "kinds.json")
    result = command("train", "--resume", "run", "--timesteps", "192", *by_kind)
    assert result.code == 0, result.err


def test_a_run_with_a_preconditioner_refuses_to_go_on_without_it(command, small):
    run = ("Pendulum-v1", "--out", "run", *small, "--eval-episodes", "0", "--timesteps", "64")
    assert command("train", *run, "--preconditioner", "kfac").code == 0
    result = command("train", "--resume", "run", "--timesteps", "128", "--preconditioner", "none")
    assert result.code == 2 and "--preconditioner: None given, the run has kfac" in result.err


def test_a_run_without_its_preset_refuses_what_would_take_it(command, small):
    run = ("MountainCarContinuous-v0", "--out", "run", *small, "--eval-episodes", "0", "--timesteps", "64")
    assert command("train", *run, "--preset", "none").code == 0
    result = command("train", "--resume", "run", "--timesteps", "128", "--preset", "auto")
    assert result.code == 2 and "--preset: MountainCarContinuous-v0 given, the run has none" in result.err


def test_a_config_that_says_something_else_than_its_run_is_refused_and_nothing_is_touched(command, small, tmp_path):
    def change(**changes):
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in content.items() if value != "left out"}))

    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0
    path = tmp_path / "run" / "config.json"
    good = path.read_text()
    content = json.loads(good)
    for changes, said in (
        (
            {"seed": 77, "config": {**content["config"], "gamma": 0.5}},
            "run/config.json was changed: seed is 77, of its model 0; config.gamma is 0.5, of its model 0.99; want it",
        ),
        ({"environment": {**content["environment"], "id": "Acrobot-v1"}}, "environment.id is 'Acrobot-v1', of its"),
        ({"environment": {**content["environment"], "env_kwargs": {"a": 1}}}, "environment.env_kwargs is {'a': 1}, of"),
        ({"environment": {**content["environment"], "wrappers": ["a:B"]}}, "environment.wrappers is ['a:B'], of its"),
        ({"environment": {**content["environment"], "vectorization": "vector"}}, "vectorization is 'vector', of its"),
        ({"config": {**content["config"], "foo": 1}}, "run/config.json is damaged: 'foo' is no field"),
        ({"config": {"seed": 1}}, "run/config.json is damaged: "),
        ({"preset": [3]}, "run/config.json is damaged: preset: [3] given; want an environment's id or null"),
        ({"seed": "left out"}, "run/config.json is damaged: seed: missing; want what the run began with"),
        ({"config": 3}, "run/config.json is damaged: config: 3 given; want what the run began with"),
        ({"config": "left out"}, "run/config.json is damaged: config: missing"),
        ({"timesteps": "left out"}, "run/config.json is damaged: timesteps: missing"),
        (dict.fromkeys(content, "left out"), "run/config.json is damaged: timesteps: missing"),
    ):
        change(**changes)
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        result = command("train", "--resume", "run", "--timesteps", "128")
        assert result.code == 2 and said in result.err and len(result.err.splitlines()) == 1, result.err
        assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        path.write_text(good)
    without = {name: value for name, value in content["config"].items() if name != "gamma"}
    change(config=without)
    result = command("train", "--resume", "run", "--timesteps", "128")
    assert result.code == 2 and "run/config.json is damaged: config.gamma: missing" in result.err
    config = {name: value for name, value in content["config"].items() if name != "fisher_precision"}
    change(config=config)  # as an older version wrote it
    assert command("train", "--resume", "run", "--timesteps", "128").code == 0


def test_rows_that_a_log_lacks_are_named_where_the_run_goes_on(command, small, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "128", "--out", "run", *small).code == 0
    log = tmp_path / "run" / "progress.csv"
    header, first, _ = log.read_text().splitlines(keepends=True)
    log.write_text(header + first)
    result = command("train", "--resume", "run", "--timesteps", "192")
    assert result.code == 0
    assert "run/progress.csv has no row from 64 to 128 timesteps, where the run goes on" in result.out


@pytest.mark.parametrize("how", ["--resume", "--config"])
def test_a_description_that_is_nested_too_deeply_is_refused_in_one_line(how, command, small, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "32", "--out", "run", *small).code == 0
    path = tmp_path / "run" / "config.json"
    path.write_text("[" * 100_000)
    arguments = ("--resume", "run") if how == "--resume" else ("CartPole-v1", "--config", str(path))
    result = command("train", *arguments)
    assert result.code == 2 and "nested too deeply" in result.err and len(result.err.splitlines()) == 1


def after_update(monkeypatch, number, action):
    """Call `action` after an update of the training to come."""
    update = TRPO._update

    def then(agent, collector):
        update(agent, collector)
        if agent.num_updates == number:
            action()

    monkeypatch.setattr(TRPO, "_update", then)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced", "taken"])
def test_a_folder_that_goes_while_its_run_is_in_it_is_said_and_the_model_is_saved(
    command, small, tmp_path, monkeypatch, how
):
    def go():
        if how == "removed":
            shutil.rmtree(tmp_path / "run")
        else:
            (tmp_path / "run").rename(tmp_path / "moved")
        if how == "replaced":
            (tmp_path / "run").mkdir()
        if how == "taken":
            other.claim_new()
            for number in (64, 256, 320):
                (other.checkpoints / checkpoint_name(number)).write_text("another's")
            taken.update(content(other.place))

    other, taken = RunFolder(tmp_path / "run"), {}
    after_update(monkeypatch, 2, go)
    told = ("--timesteps", "320", "--checkpoint-every", "64", "--out", "run", *small)
    said = "run/checkpoints is not there any more, it was renamed or removed: no checkpoint is written until it is back"
    with pytest.warns(UserWarning, match=said) as warned:
        result = command("train", "CartPole-v1", *told)
    place = "run-2" if how in ("replaced", "taken") else "run"
    assert len(warned) == 1 and result.code == 1
    assert f"run was renamed or removed while this run was in it: the end of the run is in {place}, its" in result.err
    assert f"model    {place}/model.trpo" in result.out and "deterministic episodes" in result.out
    assert "Traceback" not in result.err and "curve" not in result.out
    if how == "replaced":
        assert list((tmp_path / "run").iterdir()) == []
    if how == "taken":
        assert content(other.place) == taken and len(taken) == 4
    other.release()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command("train", "--resume", place, "--timesteps", "384").code == 0
    if how != "removed":
        assert len(read_progress(tmp_path / "moved" / "progress.csv")) == 5


@pytest.mark.parametrize("when", ["learn", "evaluate"])
def test_a_folder_that_another_run_takes_before_the_training_or_behind_it_is_left_to_it(
    command, small, tmp_path, monkeypatch, when
):
    other, taken, do = RunFolder(tmp_path / "run"), {}, getattr(TRPO, when)

    def go(agent, *args, **kwargs):
        (tmp_path / "run").rename(tmp_path / "moved")
        other.claim_new()
        other.write_config({})
        (other.checkpoints / checkpoint_name(0)).write_text("another's")
        taken.update(content(other.place))
        return do(agent, *args, **kwargs)

    monkeypatch.setattr(TRPO, when, go)
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    assert content(other.place) == taken and len(taken) == 3
    assert "Traceback" not in result.err
    if when == "learn":
        assert result.code == 2 and "run is in use by process" in result.err
    else:
        assert result.code == 1 and "curve    not drawn: run was renamed or removed" in result.out
    other.release()


def test_a_folder_that_is_gone_before_the_training_begins_is_said_and_not_made_again(
    command, small, tmp_path, monkeypatch
):
    learn = TRPO.learn

    def go(agent, *args, **kwargs):
        (tmp_path / "run").rename(tmp_path / "moved")
        return learn(agent, *args, **kwargs)

    monkeypatch.setattr(TRPO, "learn", go)
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 2 and "folder run was renamed or removed before the training began" in result.err
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_to_the_end_is_said_with_the_checkpoint_and_the_command_that_goes_on(
    command, small, tmp_path, monkeypatch
):
    def fill():
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(model_file, "_locked_new_file", full)

    after_update(monkeypatch, 3, fill)
    told = ("--timesteps", "320", "--checkpoint-every", "64", "--out", "run", *small)
    with pytest.warns(UserWarning, match="was not written: .*No space left"):
        result = command("train", "CartPole-v1", *told)
    assert result.code == 1
    assert "error: the agent at 320 steps cannot be saved in run: No space left on device" in result.err
    assert "to go on from the checkpoint at 64 steps:\ntrpo-fast train --resume run\n" in result.out
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command("train", "--resume", "run").code == 0
    assert len(read_progress(tmp_path / "run" / "progress.csv")) == 5


def test_an_environment_that_changes_the_working_folder_moves_nothing_of_its_run(command, small, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wanders.py").write_text(
        "import os, gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Wanders(CartPoleEnv):\n"
        "    def __init__(self, **arguments):\n"
        f"        os.chdir({str(tmp_path / 'elsewhere')!r})\n"
        "        super().__init__(**arguments)\n"
        "gymnasium.register('Wanders-v0', Wanders, max_episode_steps=50)\n"
    )
    for arguments in (("--out", "run"), ()):
        monkeypatch.chdir(tmp_path)
        result = command("train", "wanders:Wanders-v0", *arguments, "--timesteps", "64", *small)
        assert result.code == 0, result.err
    monkeypatch.chdir(tmp_path)
    result = command("train", "--resume", "run", "--timesteps", "128", "--import", "wanders")
    assert result.code == 0 and "model    run/model.trpo" in result.out, result.err
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"elsewhere", "run", "runs"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_resumed_run_goes_on_with_the_options_that_it_was_told_and_options_of_the_resume_win(command, small, tmp_path):
    def kept():
        content = json.loads((tmp_path / "run" / "config.json").read_text())
        return [content[name] for name in ("checkpoint_every", "keep_checkpoints", "eval_episodes", "threads")]

    def names():
        return sorted(path.stem for path in (tmp_path / "run" / "checkpoints").glob("0*.trpo"))

    threads = library.get_num_threads(), torch.get_num_threads()
    try:
        told = ("--checkpoint-every", "64", "--keep-checkpoints", "0", "--threads", "1")
        assert command("train", "CartPole-v1", "--timesteps", "320", "--out", "run", *small, *told).code == 0
        assert len(names()) == 6 and kept() == [64, 0, 2, 1]
        library.set_num_threads(2)
        result = command("train", "--resume", "run", "--timesteps", "448")
        assert "over 2 deterministic episodes" in result.out
        assert len(names()) == 8 and kept() == [64, 0, 2, 1]
        assert library.get_num_threads() == 1
        other = ("--checkpoint-every", "128", "--keep-checkpoints", "2", "--eval-episodes", "0", "--threads", "2")
        result = command("train", "--resume", "run", "--timesteps", "704", *other)
        assert "deterministic" not in result.out
        assert [int(name) for name in names()] == [640, 704] and kept() == [128, 2, 0, 2]
        assert library.get_num_threads() == 2
    finally:
        library.set_num_threads(threads[0])
        torch.set_num_threads(threads[1])


def test_resumed_run_may_step_in_workers_or_not_to_the_same_bits_and_goes_on_so(command, small, tmp_path):
    def bits(out):
        agent = TRPO.load(tmp_path / out / "model.trpo")
        return agent.policy.flat.numpy.tobytes(), agent.critic.flat.numpy.tobytes()

    alike = (*small, "--max-kl-schedule", "constant")  # whatever the timesteps
    assert command("train", "Pendulum-v1", "--timesteps", "256", "--out", "whole", *alike).code == 0
    assert command("train", "Pendulum-v1", "--timesteps", "64", "--out", "run", *alike).code == 0
    refused = command("train", "--resume", "run", "--timesteps", "128", "--num-workers", "2")
    assert refused.code == 2 and "--num-workers: 2 given; want it with --vectorization workers alone" in refused.err
    for timesteps, options, stepping in [
        (128, ("--vectorization", "workers", "--num-workers", "2"), ("workers", 2)),
        (192, ("--num-workers", "1"), ("workers", 1)),
        (256, ("--vectorization", "sync"), ("sync", None)),
    ]:
        result = command("train", "--resume", "run", "--timesteps", str(timesteps), *options)
        assert result.code == 0, result.err
        said = json.loads((tmp_path / "run" / "config.json").read_text())["environment"]
        assert (said["vectorization"], said["num_workers"]) == stepping
        recipe = TRPO.load(tmp_path / "run").recipe
        assert (recipe.vectorization, recipe.num_workers) == stepping
    assert bits("run") == bits("whole")


def test_a_trained_run_that_counts_from_0_again_loses_nothing_where_its_resume_fails(
    command, small, tmp_path, monkeypatch
):
    assert command("train", "CartPole-v1", "--timesteps", "320", "--out", "run", *small).code == 0
    agent = TRPO.load(tmp_path / "run")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as first:
        first.setattr(TRPO, "_update", stop)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(320)
    agent.save(tmp_path / "run" / "model.trpo")
    assert (agent.num_timesteps, agent.total_timesteps) == (0, 320)
    done = command("train", "--resume", "run")
    assert done.code == 2 and "has 320 of 320 timesteps; want more --timesteps" in done.err
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.trpo")}

    def fail(*_):
        raise RuntimeError("simulator gone")

    def full(agent, path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(TRPO, "_update", fail)
        broken.setattr(TRPO, "save", full)
        result = command("train", "--resume", "run", "--timesteps", "640")
    assert result.code == 1 and "the agent at 320 steps cannot be saved in run: " in result.err
    assert "to go on from the checkpoint at 320 steps:\ntrpo-fast train --resume run\n" in result.out
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.trpo")} == before
    assert command("train", "--resume", "run", "--timesteps", "448").code == 0
    assert TRPO.load(tmp_path / "run").total_timesteps == 448


@pytest.mark.parametrize("value", ["abc", None, -1])
def test_run_with_damaged_timesteps_is_refused_without_traceback(command, small, tmp_path, value):
    command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "timesteps": value}))
    result = command("train", "--resume", "run")
    assert result.code == 2
    assert f"timesteps: {value!r} given; want an integer >= 1" in result.err and "Traceback" not in result.err


def test_agent_that_cannot_be_saved_is_an_error_without_traceback(command, small, tmp_path, monkeypatch):
    def full(agent, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(TRPO, "save", full)
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 2
    assert "No space left on device" in result.err and "cannot be saved in run" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("words", ["'x\\udcff'", "Wordless()"])
def test_a_failure_whose_words_cannot_be_written_loses_nothing(command, small, tmp_path, words):
    (tmp_path / "worded.py").write_text(WORDED.replace("WORDS", words))
    run = ("Worded-v0", "--import", "worded", "--timesteps", "512", "--out", "run", *small)
    result = command("train", *run)
    assert result.code == 1 and "saved; to go on:" in result.out, result.err
    assert (tmp_path / "run" / "model.trpo").exists()
    assert (tmp_path / "run" / "error.txt").read_bytes().decode().strip()


def test_failure_while_training_saves_and_says_how_to_go_on(command, small, tmp_path, monkeypatch):
    update = TRPO._update

    def fail(agent, collector):
        if agent.num_updates == 2:
            raise RuntimeError("simulator gone")
        update(agent, collector)

    monkeypatch.setattr(TRPO, "_update", fail)
    result = command("train", "CartPole-v1", "--timesteps", "1000", "--out", "run", *small)
    assert result.code == 1
    assert "simulator gone" in result.err
    assert "failed after 128 steps" in result.out and "trpo-fast train --resume run" in result.out
    monkeypatch.undo()
    assert TRPO.load(tmp_path / "run").num_timesteps == 128


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("evaluate", "return   not known; once the reason is mended: trpo-fast eval run --episodes 2"),
        ("draw", "curve    not drawn; once the reason is mended: trpo-fast plot run"),
    ],
)
def test_what_fails_after_the_training_is_said_with_the_command_for_it_and_the_rest_is_there(
    command, small, tmp_path, monkeypatch, where, said
):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TRPO if where == "evaluate" else plot, where, fail)
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 1
    assert said in result.out.splitlines()
    assert "trpo-fast train: error: No space left on device" in result.err and "Traceback" not in result.err
    assert "model    run/model.trpo" in result.out
    assert ("curve    run/curve.png" in result.out) == (where == "evaluate")
    assert ("over 2 deterministic episodes" in result.out) == (where == "draw")


@pytest.mark.parametrize("resumed", [False, True])
def test_a_training_that_fails_before_it_begins_does_not_say_that_it_was_saved(
    command, small, tmp_path, monkeypatch, resumed
):
    arguments = ("CartPole-v1", "--out", "run", *small)
    if resumed:
        assert command("train", *arguments, "--timesteps", "64").code == 0
        arguments = ("--resume", "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    def fail(*_):
        raise RuntimeError("no simulator")

    monkeypatch.setattr(TrainingEnvironments, "ready", fail)
    result = command("train", *arguments, "--timesteps", "128")
    assert result.code == 1
    kept = "run is as it was" if resumed else "nothing is kept"
    assert f"failed before the training began: {kept}" in result.out and "saved" not in result.out
    assert "no simulator" in result.err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert (tmp_path / "run").exists() == resumed


@pytest.mark.parametrize("moment", ["save", "evaluate", "draw"])
def test_a_signal_after_the_last_update_leaves_a_model_and_says_so(command, small, tmp_path, monkeypatch, moment):
    def signalled(*arguments, **options):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    place = {"save": CheckpointCallback, "evaluate": TRPO, "draw": plot}[moment]
    original = getattr(place, moment)
    monkeypatch.setattr(place, moment, signalled)
    result = command("train", "CartPole-v1", "--timesteps", "128", "--out", "run", *small)
    assert result.code == 143
    assert "terminated after all 128 steps, saved; to evaluate:\ntrpo-fast eval run\n" in result.out
    assert "Traceback" not in result.err
    assert TRPO.load(tmp_path / "run" / "model.trpo").num_timesteps == 128
    assert command("eval", "run", "--episodes", "1").code == 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_while_the_callbacks_start_stops_and_saves(command, small, tmp_path, monkeypatch):
    replace = sinks.replace_file

    def interrupt(path, content):
        replace(path, content)
        os.kill(os.getpid(), signal.SIGINT)  # progress.csv has just appeared

    monkeypatch.setattr(sinks, "replace_file", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children are deaf to it
    try:
        result = command("train", "CartPole-v1", "--timesteps", "256", "--out", "run", *small)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert "stopped at 0 steps, saved" in result.out and "Traceback" not in result.err
    assert TRPO.load(tmp_path / "run" / "model.trpo").num_timesteps == 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
@pytest.mark.parametrize("settings", [[], ["--critic-epochs", "20000"]], ids=["defaults", "a long critic fit"])
def test_ctrl_c_stops_within_a_second_saves_and_says_how_to_go_on(tmp_path, settings):
    # A shell that starts the tests in the background makes its children deaf to SIGINT; this one is to hear it.
    hear = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = [sys.executable, "-c", hear + "from trpo_fast.cli.main import main; sys.exit(main())"]
    out = tmp_path / "a run"  # the printed command must survive a shell
    errors = tmp_path / "errors"
    progress = out / "progress.csv"
    with (
        errors.open("w") as sink,
        subprocess.Popen(
            [*program, "train", "CartPole-v1", "--timesteps", "1e8", "--out", str(out), *settings],
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        ) as process,
    ):
        deadline = time.monotonic() + 60
        # With the long fit, no row is written before the second rollout has waited for it.
        rows = 1 if settings else 3
        while time.monotonic() < deadline and not (progress.exists() and progress.read_text().count("\n") >= rows):
            time.sleep(0.05)
        if settings:
            time.sleep(3.0)  # the first update is over, its fit is not
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # an impatient second one spoils nothing
        while not (line := process.stdout.readline()).startswith("stopped at "):
            assert line, errors.read_text()
        assert time.monotonic() - began < 1
        printed = process.stdout.read()
    assert process.returncode == 130, errors.read_text()
    assert "Traceback" not in errors.read_text()
    resume = printed.strip().splitlines()[-1]
    assert resume == f"trpo-fast train --resume {shlex.quote(str(out))}"
    steps = TRPO.load(out).num_timesteps
    assert steps == int(read_progress(progress)[-1]["time/total_timesteps"]) > 0

    if settings:
        return  # the resumed run would have the long fits, too
    more = ["--timesteps", str(steps + 1), "--eval-episodes", "1"]
    resumed = subprocess.run([*program, *shlex.split(resume)[1:], *more], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert int(read_progress(progress)[-1]["time/total_timesteps"]) > steps


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here_is_refused_by_name(command, tmp_path):
    result = command("train", "CartPole-v1", "--device", "cuda")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "device: 'cuda' given; want 'auto' or 'cpu': torch finds no CUDA device here" in line
    assert not (tmp_path / "runs").exists()


def test_rows_go_where_log_says_and_a_resumed_run_remembers(command, small, tmp_path):
    refused = command("train", "CartPole-v1", "--log", "csv,excel", "--out", "run")
    assert refused.code == 2 and "'csv,excel' given; want some of csv, jsonl" in refused.err
    result = command("train", "CartPole-v1", "--timesteps", "64", "--log", "jsonl,table", "--out", "run", *small)
    assert result.code == 0 and "| rollout/" in result.out, result.err
    assert command("train", "--resume", "run", "--timesteps", "128").code == 0
    lines = (tmp_path / "run" / "progress.jsonl").read_text().splitlines()
    steps = [json.loads(line)["time/total_timesteps"] for line in lines]
    assert steps == [64, 128] and not list((tmp_path / "run").glob("events*"))


WORDED = """
import gymnasium as gym
import numpy as np


class Wordless(str):
    def __str__(self):
        raise RuntimeError("no words")


class Broken(RuntimeError):
    def __str__(self):
        return str(self.args[0])


class Worded(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 60:
            raise Broken(WORDS)
        return np.zeros(1, np.float32), 1.0, False, self.steps % 5 == 0, {}


gym.register("Worded-v0", Worded)
"""
