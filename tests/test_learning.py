"""The study that bench/learning.py makes: restart, refusals, and what its report says. Training is stood in for."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="the study locks its folder with POSIX locks")

import trpo_fast
from bench import learning, learning_report
from bench.machine import source
from bench.study import CURVE_COLUMNS, RESULTS, RUN_COLUMNS, Arm, Run, Study
from trpo_fast._core import library
from trpo_fast.statistics import interquartile_mean

PLAN = """
tasks = ["Hopper-v5", "CartPole-v1"]
seeds = "0-2"
timesteps = 2000

[arms]
default = ""
wide = "--max-kl 0.05"
"""


class FakeCommands:
    """Stands in for the processes: a training is a progress.csv and a model of so many timesteps."""

    def __init__(self):
        self.calls = []
        self.scores = {}  # by (arm, task, seed); an exception is raised
        self.stop_after = 10**9

    def __call__(self, workers, arguments, log):
        self.calls.append(list(arguments))
        if len(self.calls) > self.stop_after:
            raise KeyboardInterrupt
        option = dict(pairwise(arguments))
        if arguments[1] == "train":
            folder = Path(option.get("--resume") or option["--out"])
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            rows = [
                f"{steps},{steps / 100},{steps / 10},9,0.01,0.5,1.0"
                for steps in range(0, int(option["--timesteps"]) + 1, 500)
            ]
            text = "\n".join([",".join(CURVE_COLUMNS.values()), *rows])
            (folder / "progress.csv").write_text(text + "\n")
            (folder / "checkpoints" / "1.trpo").write_text("")
            (folder / "model.trpo").write_text(option["--timesteps"])
            return ""
        folder = Path(arguments[2])
        task, _, seed = folder.name.partition("-seed")
        seed = seed.partition("-")[0]  # from the timesteps
        score = self.scores.get((folder.parent.name, task, int(seed)), 100.0 + int(seed))
        if isinstance(score, Exception):
            raise score
        steps = int((folder / "model.trpo").read_text())
        return json.dumps({"mean": score, "std": 1.0, "num_timesteps": steps, "episodes": int(option["--episodes"])})


@pytest.fixture
def commands(monkeypatch):
    fake = FakeCommands()
    monkeypatch.setattr(learning.Workers, "call", lambda self, arguments, log, threads: fake(self, arguments, log))
    monkeypatch.setattr(learning, "source", lambda: "abc")
    monkeypatch.setattr(learning.signal, "signal", lambda *_: None)
    return fake


@pytest.fixture
def go_on(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)

    def run(*options):
        return learning.main([str(tmp_path), "--work", str(tmp_path / "work"), "--processes", "1", *options])

    return run


def trainings(commands):
    return [call for call in commands.calls if call[1] == "train"]


def test_every_run_of_the_plan_has_a_row_and_a_curve(commands, go_on, tmp_path):
    go_on()
    study = Study(tmp_path)
    rows = study.runs()
    assert len(rows) == len({tuple(row[name] for name in RUN_COLUMNS[:4]) for row in rows}) == 12
    row = next(row for row in rows if (row["arm"], row["task"], row["seed"]) == ("wide", "Hopper-v5", "2"))
    assert float(row["mean"]) == 102 and row["commit"] == "abc" and float(row["seconds"]) == 20
    assert float(row["training_last"]) == 200 and float(row["training_mean"]) == 100
    curve = [row for row in study.curves("Hopper-v5") if (row["arm"], row["seed"]) == ("wide", "2")]
    assert [int(row["timesteps"]) for row in curve] == [0, 500, 1000, 1500, 2000]
    assert {call[call.index("--max-kl") + 1] for call in trainings(commands) if "--max-kl" in call} == {"0.05"}


def test_what_a_training_imports_is_said_again_to_whoever_reads_its_files(tmp_path):
    arm = Arm("arm", ("--import", "some.module", "--gamma", "0.9"))
    for command in (arm.evaluate("Hopper-v5", tmp_path), arm.resume(1000, tmp_path)):
        assert command[-2:] == ["--import", "some.module"] and "--gamma" not in command
    assert "--import" not in Arm("arm", ("--gamma", "0.9")).evaluate("Hopper-v5", tmp_path)


def test_classic_control_is_evaluated_over_a_hundred_episodes_and_mujoco_over_twenty(commands, go_on, tmp_path):
    go_on("--seeds", "0", "--arms", "default")
    episodes = {row["task"]: row["episodes"] for row in Study(tmp_path).runs()}
    assert episodes == {"Hopper-v5": "20", "CartPole-v1": "100"}


def test_a_study_that_was_stopped_makes_only_what_is_missing(commands, go_on, tmp_path):
    commands.stop_after = 7  # in the fourth run, after its training: train and eval are two calls
    with pytest.raises(KeyboardInterrupt):
        go_on()
    assert len(Study(tmp_path).runs()) == 3
    commands.calls.clear()
    commands.stop_after = 10**9
    go_on()
    assert len(Study(tmp_path).runs()) == 12
    # The fourth run had been trained: it is only evaluated.
    assert len(trainings(commands)) == 8
    commands.calls.clear()
    go_on()
    assert not commands.calls


@pytest.mark.parametrize("left", ["killed", "stopped"])
def test_an_interrupted_training_goes_on_from_its_checkpoint(commands, go_on, tmp_path, left):
    selection = ["--seeds", "0", "--arms", "default", "--tasks", "Hopper-v5"]
    commands.stop_after = 1  # in the evaluation
    with pytest.raises(KeyboardInterrupt):
        go_on(*selection)
    folder = tmp_path / "work" / "default" / "Hopper-v5-seed0-2000"
    if left == "killed":
        (folder / "model.trpo").unlink()
    else:
        (folder / "model.trpo").write_text("1000")  # a training that is stopped leaves its model
    commands.calls.clear()
    commands.stop_after = 10**9
    go_on(*selection)
    (call,) = trainings(commands)
    assert call[call.index("--resume") + 1] == str(folder) and "--seed" not in call
    assert commands.calls[-1][1] == "eval" and len(Study(tmp_path).runs()) == 1


def test_a_peers_settings_are_recorded_and_others_refused(commands, go_on, tmp_path, monkeypatch):
    peer_learning = pytest.importorskip("bench.peer_learning", reason="the peers are Stable-Baselines3's")
    (tmp_path / "plan.toml").write_text(
        "threads = 3\npeer_threads = 2\n" + PLAN.replace("CartPole", "Swimmer") + "[peers]\npeer = 'trpo'\n"
    )
    go_on("--seeds", "0", "--arms", "peer", "--tasks", "Hopper-v5")
    go_on("--seeds", "0", "--arms", "peer", "--tasks", "Swimmer-v1")
    assert all(call[:5] == ["bench.peer_learning", "train", call[2], "--threads", "2"] for call in trainings(commands))
    described = json.loads((tmp_path / "study.json").read_text())["peer"]
    assert set(described["settings"]) == {"Hopper-v5", "Swimmer-v1"} and described["commit"] == ""
    assert described["settings"]["Hopper-v5"]["cg_max_steps"] == 25
    assert "sb3_contrib" in described["versions"] and "trpo-fast" not in described["versions"]
    assert {row["commit"] for row in Study(tmp_path).runs()} == {""}
    monkeypatch.setattr(learning, "source", lambda: "def")
    go_on("--seeds", "1", "--arms", "peer")  # whatever trpo_fast it was
    monkeypatch.setitem(peer_learning.TRPO, "Hopper-v5", {"target_kl": 0.04})
    with pytest.raises(SystemExit, match=r"arm peer: .* settings Hopper-v5 target_kl was None, is 0.04"):
        go_on("--seeds", "2", "--arms", "peer")
    monkeypatch.delitem(peer_learning.TRPO, "Hopper-v5")
    monkeypatch.setattr(peer_learning, "MUJOCO", {"n_envs": 2})
    with pytest.raises(SystemExit, match=r"arm peer: .* settings Hopper-v5 gamma was 0.99, is None"):
        go_on("--seeds", "2", "--arms", "peer", "--tasks", "Hopper-v5")
    go_on("--seeds", "2", "--arms", "default")  # which has nothing to do with it


def test_a_peers_run_that_was_killed_starts_again(commands, go_on, tmp_path):
    pytest.importorskip("bench.peer_learning", reason="the peers are Stable-Baselines3's")
    (tmp_path / "plan.toml").write_text(PLAN + "[peers]\npeer = 'trpo'\n")
    selection = ["--seeds", "0", "--arms", "peer", "--tasks", "Hopper-v5"]
    commands.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        go_on(*selection)
    folder = tmp_path / "work" / "peer" / "Hopper-v5-seed0-2000"
    (folder / "model.trpo").rename(folder / "new.zip")  # as if while it was written
    commands.calls.clear()
    commands.stop_after = 10**9
    go_on(*selection)
    (call,) = trainings(commands)
    assert "--resume" not in call and not (folder / "new.zip").exists()


@pytest.mark.parametrize("left", ["model.trpo", "checkpoints/1.trpo"])
def test_what_was_left_by_other_settings_or_commits_is_not_gone_on_from(commands, go_on, tmp_path, monkeypatch, left):
    selection = ["--seeds", "0", "--arms", "wide", "--tasks", "Hopper-v5"]
    commands.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        go_on(*selection)
    folder = tmp_path / "work" / "wide" / "Hopper-v5-seed0-2000"
    assert (folder / left).exists() and not Study(tmp_path).runs()
    if left != "model.trpo":
        (folder / "model.trpo").unlink()
    commands.stop_after = 10**9
    (tmp_path / "plan.toml").write_text(PLAN.replace("0.05", "0.04"))
    with pytest.raises(SystemExit, match=r"seed0-2000: its files .*max-kl 0.05', is .*0.04'; want .*no such folder"):
        go_on(*selection)
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.setattr(learning, "source", lambda: "def")
    with pytest.raises(SystemExit, match=r"commit was 'abc', is 'def'"):
        go_on(*selection)
    assert not Study(tmp_path).runs()
    shutil.rmtree(folder)
    go_on(*selection)
    assert [row["commit"] for row in Study(tmp_path).runs()] == ["def"]


def test_files_that_nothing_is_said_of_are_not_gone_on_from(commands, go_on, tmp_path):
    folder = tmp_path / "work" / "default" / "Hopper-v5-seed0-2000"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "1.trpo").write_text("")
    go_on("--seeds", "0", "--arms", "default", "--tasks", "Hopper-v5")
    (call,) = trainings(commands)
    assert "--resume" not in call


def test_a_longer_or_a_shorter_run_is_another_one_and_the_longest_leaves_its_curve(commands, go_on, tmp_path):
    selection = ["--seeds", "0", "--arms", "default", "--tasks", "Hopper-v5"]
    for timesteps in ("2000", "1e4", "1e3"):  # a schedule ends with its training: none is a part of another
        commands.calls.clear()
        go_on(*selection, "--timesteps", timesteps)
        (call,) = trainings(commands)
        assert "--resume" not in call and float(call[call.index("--timesteps") + 1]) == float(timesteps)
    assert [row["timesteps"] for row in Study(tmp_path).runs()] == ["2000", "10000", "1000"]
    assert [float(row["seconds"]) for row in Study(tmp_path).runs()] == [20, 100, 10]
    assert [row["timesteps"] for row in Study(tmp_path).curves("Hopper-v5")][-1] == "10000"


def test_a_changed_arm_is_refused_with_what_differs(commands, go_on, tmp_path, monkeypatch):
    go_on("--seeds", "0")
    (tmp_path / "plan.toml").write_text(PLAN.replace("0.05", "0.04"))
    with pytest.raises(SystemExit, match=r"arm wide: .*train was .*--max-kl 0.05', is .*--max-kl 0.04'; want"):
        go_on()
    go_on("--arms", "default")  # which did not change
    monkeypatch.setattr(learning, "source", lambda: "def")
    with pytest.raises(SystemExit, match=r"arm default: .*commit was 'abc', is 'def'"):
        go_on("--arms", "default", "--seeds", "3")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("tasks = [", "plan.toml: "),
        ("tasks = ['x']", "KeyError.'seeds'"),
        (PLAN + "\n[armz]\na = ''", "armz given; want tasks, seeds, .*, goals, arms and peers"),
        (PLAN + "'a b' = ''", "arm 'a b' given; want a name of letters"),
        (PLAN + "[peers]\nwide = 'trpo'", "arms and peers share a name"),
        (PLAN.replace('["Hopper-v5", "CartPole-v1"]', '"Hopper-v5"'), "tasks = 'Hopper-v5'.*want tasks in a list"),
        (PLAN.replace("0-2", "2-0"), "seeds: 2-0 given; want the first one first"),
        (PLAN.replace("2000", "0"), "timesteps = 0 given; want at least 1"),
    ],
)
def test_a_plan_that_means_nothing_is_refused(go_on, tmp_path, plan, message):
    (tmp_path / "plan.toml").write_text(plan)
    with pytest.raises(SystemExit, match=message):
        go_on()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "default", "narrow"], "--arms: narrow given; want some of default, wide"),
        (["--tasks", "Ant-v5"], "--tasks: Ant-v5 given; want some of Hopper-v5, CartPole-v1"),
        (["--timesteps", "0"], "--timesteps: 0 given; want at least 1"),
    ],
)
def test_what_is_not_in_the_plan_is_refused(go_on, options, message):
    with pytest.raises(SystemExit, match=message):
        go_on(*options)


def test_a_folder_without_a_plan_is_refused_with_the_studies_that_there_are(tmp_path):
    with pytest.raises(SystemExit, match=r"nothing given; want a folder with plan.toml, or one of .*search"):
        learning.main([str(tmp_path / "nothing")])


def test_runs_that_are_at_work_keep_a_second_study_out(commands, go_on, tmp_path):
    (tmp_path / "work").mkdir()
    with (tmp_path / "work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="is at work already"):
            go_on()
    assert not commands.calls


def test_seeds_in_the_wrong_order_are_refused(go_on, capsys):
    with pytest.raises(SystemExit):
        go_on("--seeds", "4-0")
    assert "argument --seeds: seeds: 4-0 given; want the first one first, as 0-4" in capsys.readouterr().err


def test_plan_and_hours_are_said_before_anything_runs(commands, go_on, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "RESULTS", tmp_path / "others")
    go_on("--seeds", "0", "--plan-only")
    said = capsys.readouterr().out
    assert "4 runs are missing, 8,000 steps" in said and "4 runs like which there is none" in said
    assert not commands.calls
    go_on("--seeds", "0", "--arms", "default")  # 20 seconds for 2,000 steps
    capsys.readouterr()
    go_on("--seeds", "1-2", "--timesteps", "360000", "--plan-only")  # wide goes by default, as it has no runs
    assert "8.0 hours of training by 1 process" in capsys.readouterr().out  # 8 runs of 3,600 seconds
    path = tmp_path / "curves" / "Hopper-v5.csv"
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].replace(",20.0,", ",100000.0,").replace(",20,", ",100000,")  # it was stopped for a day
    assert lines != path.read_text().splitlines()
    path.write_text("\n".join(lines) + "\n")
    go_on("--seeds", "1-2", "--timesteps", "360000", "--plan-only")
    assert "8.0 hours" in capsys.readouterr().out


def test_hours_go_by_other_studies_where_a_study_has_no_run_and_never_from_a_peer_to_ours(
    commands, go_on, capsys, tmp_path, monkeypatch
):
    other = tmp_path / "others" / "earlier"
    other.mkdir(parents=True)
    (other / "plan.toml").write_text(PLAN + "[peers]\npeer = 'trpo'\n")
    monkeypatch.setattr(learning, "RESULTS", tmp_path / "others")
    points = [{"timesteps": t, "seconds": t / 10} for t in (0, 1000, 2000)]
    arms = [Arm("default", ()), Arm("peer", ("--algorithm", "trpo"), peer=True)]
    for arm, task in zip(arms, ("Hopper-v5", "CartPole-v1"), strict=True):
        run = Run(arm, task, 0, 2000)
        row = dict(zip(RUN_COLUMNS, run.key, strict=False))
        Study(other).add(run, row, points, {"settings": {}} if arm.peer else {})
    go_on("--seeds", "0", "--timesteps", "36000", "--arms", "default", "--plan-only")
    said = capsys.readouterr().out
    assert "1.0 hours of training by 1 process" in said and "and 1 runs like which there is none" in said


def test_the_plan_says_how_large_updates_are_and_which_presets_an_arm_does_without():
    tasks = ["LunarLander-v3", "Walker2d-v5"]
    assert Arm("a", ()).described(tasks) == (
        "the defaults; 8 x 256 = 2,048 timesteps an update; without the presets of LunarLander-v3"
    )
    larger = Arm("b", ("--preset", "auto", "--steps-per-env", "1024", "--num-envs", "4"))
    assert larger.described(tasks) == (
        "--preset auto --steps-per-env 1024 --num-envs 4; 4 x 1024 = 4,096 timesteps an update"
    )
    assert Arm("c", ("--algorithm", "trpo"), peer=True).described(tasks) == "--algorithm trpo"


def test_rows_of_two_studies_at_once_are_all_there(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    arm = Arm("default", ())

    def add(seed):
        run = Run(arm, "Hopper-v5", seed, 2000)
        row = dict(zip(RUN_COLUMNS, run.key, strict=False))
        Study(tmp_path).add(run, row, [{"timesteps": "2000"}], {"commit": "abc"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {int(row["seed"]) for row in Study(tmp_path).runs()} == set(range(40))
    assert {int(row["seed"]) for row in Study(tmp_path).curves("Hopper-v5")} == set(range(40))


def test_a_run_that_met_nan_is_the_lowest_score_of_its_task_and_named(commands, go_on, tmp_path):
    failure = learning.Failure("ValueError: returns: inf given; want finite ones", not_finite=True)
    commands.scores = {("wide", "Hopper-v5", 0): failure, ("default", "Hopper-v5", 1): -7.0}
    go_on("--tasks", "Hopper-v5")
    (row,) = [row for row in Study(tmp_path).runs() if row["mean"] == "nan"]
    assert (row["arm"], row["task"], row["seed"]) == ("wide", "Hopper-v5", "0")
    found = learning_report.scores(Study(tmp_path).runs())
    assert sorted(found["wide", "Hopper-v5"]) == [-7.0, 101.0, 102.0]
    page = learning_report.render(f"<!-- begin {tmp_path.name} -->\n<!-- end {tmp_path.name} -->", tmp_path.parent)
    assert "NaN, counted as the task's lowest score: wide Hopper-v5 seed 0." in page


def test_any_other_failure_ends_the_study(commands, go_on, tmp_path):
    commands.scores = {("default", "Hopper-v5", 0): learning.Failure("No space left on device", not_finite=False)}
    with pytest.raises(learning.Failure, match="No space left"):
        go_on()
    made = [(row["arm"], row["task"], row["seed"]) for row in Study(tmp_path).runs()]
    assert ("default", "Hopper-v5", "0") not in made  # others may have ended before the failure was seen


@pytest.mark.parametrize(
    ("program", "not_finite"),
    [
        ("raise ValueError('reward of environment 0 at step 3: inf given; want a finite number')", True),
        ("raise OSError('No space left on device')", False),
        ("raise ValueError('the matrix is not positive definite')", False),
        ("raise FloatingPointError('the action is not finite in float32')", True),
        ("import sys; sys.stderr.write('--max-kl: 0 given; want a finite number > 0'); sys.exit(2)", False),
        ("import os, signal, sys; sys.stderr.write('return=nan'); os.kill(os.getpid(), signal.SIGTERM)", False),
    ],
)
def test_only_what_a_command_says_of_its_numbers_makes_a_score_of_nan(tmp_path, monkeypatch, program, not_finite):
    (tmp_path / "failing_command.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (tmp_path / "lock").open("w") as lock, pytest.raises(learning.Failure) as raised:
        learning.Workers(lock).call(["failing_command"], tmp_path / "log")
    assert raised.value.not_finite is not_finite


def test_tables_have_the_interquartile_mean_and_no_interval_for_fewer_than_three_seeds(commands, go_on, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace('"CartPole-v1"', '"Walker2d-v5"'))
    commands.scores = {("default", "Hopper-v5", seed): value for seed, value in enumerate((0.0, 1734.0, 3450.0))}
    go_on("--arms", "default")
    go_on("--arms", "wide", "--seeds", "0-1")
    mark = tmp_path.name
    page = learning_report.render(f"<!-- begin {mark} -->\n<!-- end {mark} -->", tmp_path.parent)
    default, wide = (line for line in page.splitlines() if line.startswith(("| default", "| wide")))
    assert f"{float(interquartile_mean([0.0, 1734.0, 3450.0])):,.0f} [0, 3,450], worst 0 (3)" in default
    assert wide.startswith("| wide | 100 no interval, worst 100 (2) |")  # 100.5, rounded to even
    low, high = learning_report.SCALES["Hopper-v5"]
    hopper = [(value - low) / (high - low) for value in (0.0, 1734.0, 3450.0)]
    low, high = learning_report.SCALES["Walker2d-v5"]
    walker = [(value - low) / (high - low) for value in (100.0, 101.0, 102.0)]
    assert f"{float(interquartile_mean(hopper + walker)):.2f} [" in default


def _recorded(folder, arm, scores):
    """A study with its rows, as runs have left them."""
    folder.mkdir()
    (folder / "plan.toml").write_text((RESULTS / folder.name / "plan.toml").read_text())
    study = Study(folder)
    for task, values in scores.items():
        for seed, value in enumerate(values, study.seeds[0]):
            run = Run(Arm(arm, ()), task, seed, study.timesteps)
            row = dict(zip(RUN_COLUMNS, run.key, strict=False)) | {"mean": value, "commit": "abc"}
            study.add(run, row, [], {"commit": "abc"})


def test_the_published_table_has_the_peer_beside_each_task(tmp_path):
    _recorded(tmp_path / "final_hopper", "frozen", {"Hopper-v5": [3400.0, 3500.0, 3600.0, 2100.0]})
    _recorded(tmp_path / "final_swimmer", "frozen", {"Swimmer-v5": [10.0, 20.0, 30.0]})
    _recorded(tmp_path / "final_presets", "frozen", {})
    _recorded(tmp_path / "final", "frozen", {"Ant-v5": [1.0, 2.0]})
    _recorded(tmp_path / "final_control", "frozen", {"Acrobot-v1": [-80.0, -90.0, -70.0]})
    _recorded(tmp_path / "final_cartpole", "frozen", {})
    theirs = {"Hopper-v5": [3000.0, 3100.0, 3200.0], "Swimmer-v5": [300.0, 301.0, 302.0], "Ant-v5": [5.0, 5.0, 5.0]}
    _recorded(tmp_path / "peers", "sb3-contrib-trpo", theirs)
    rows = (tmp_path / "final" / "runs.csv").read_text().splitlines()
    earlier = rows[1].replace("Ant-v5", "Hopper-v5").replace(",1.0,", ",1700.0,")
    (tmp_path / "final" / "runs.csv").write_text("\n".join([*rows, earlier]) + "\n")
    page = learning_report._final(tmp_path)
    assert page[-1] == "Commits: abc (final_swimmer); abc (final_hopper); abc (final); abc (final_control)."
    lines = {line.split(" | ")[0].strip("| "): line for line in page if line.startswith("|")}
    hopper = lines["Hopper-v5"].split(" | ")
    assert (
        hopper[2] == "3,150"
        and hopper[3].startswith("3,450 [")
        and hopper[4:7]
        == [
            "2,100",
            "4",
            "3,450, none under 2,000",
        ]
    )
    assert hopper[7] == "3,100" and hopper[-1] == "overlap |"
    assert lines["Swimmer-v5"].endswith("| lower |")
    ant = lines["Ant-v5"].split(" | ")
    assert ant[3] == "1.5 no interval" and ant[-1] == " |", "two seeds: nothing is said of intervals"
    assert lines["Acrobot-v1"].startswith("| Acrobot-v1 | 500,000 | -80 | ")
    assert lines["CartPole-v1"] == "| CartPole-v1 | 100,000 |  |  |  |  | 475, none under 475 |  |  |  |  |  |"
    assert lines["Hopper-v5, earlier (final)"].startswith("| Hopper-v5, earlier (final) | 1,000,000 | 1,700 | ")
    assert len(lines) == 18  # fifteen tasks and one twice, under two lines of header


def test_the_published_table_names_runs_that_met_nan_which_count_as_the_lowest_of_both(tmp_path):
    nan = float("nan")
    for name in ("final_hopper", "final_presets"):
        _recorded(tmp_path / name, "frozen", {})
    _recorded(tmp_path / "final_swimmer", "frozen", {"Swimmer-v5": [nan, 20.0, 30.0]})
    _recorded(tmp_path / "final", "frozen", {"Ant-v5": [nan]})
    _recorded(tmp_path / "final_control", "frozen", {})
    _recorded(tmp_path / "final_cartpole", "frozen", {})
    _recorded(
        tmp_path / "peers", "sb3-contrib-trpo", {"Swimmer-v5": [10.0, 301.0, nan], "Walker2d-v5": [nan, nan, nan]}
    )
    page = learning_report._final(tmp_path)
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in page}
    assert lines["Swimmer-v5"][4] == "10" and lines["Swimmer-v5"][9] == "10"
    assert lines["Ant-v5"][2:6] == ["NaN", "NaN", "NaN", "1"] and lines["Walker2d-v5"][7] == "NaN"
    named = "frozen Swimmer-v5 seed 100, sb3-contrib-trpo Swimmer-v5 seed 2, frozen Ant-v5 seed 100"
    assert any(f"NaN, counted as the task's lowest score: {named}" in line for line in page)


def test_a_plan_with_threads_gives_them_to_its_runs_and_runs_fewer_at_a_time(
    commands, go_on, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    (tmp_path / "plan.toml").write_text("threads = 2\nprocesses = 1\n" + PLAN)
    assert Study(tmp_path).processes == 1
    (tmp_path / "plan.toml").write_text("threads = 2\n" + PLAN)
    learning.main([str(tmp_path), "--work", str(tmp_path / "work"), "--seeds", "0", "--tasks", "Hopper-v5"])
    assert {call[call.index("--threads") + 1] for call in trainings(commands)} == {"2"}
    assert "hours of training by 2 processes" in capsys.readouterr().out
    with (tmp_path / "lock").open("w") as lock:
        said = tmp_path / "threads"
        program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['OMP_NUM_THREADS'])"
        monkeypatch.undo()
        (tmp_path / "say_threads.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        learning.Workers(lock).call(["say_threads", str(said)], tmp_path / "log", threads=3)
    assert said.read_text() == "3"


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("threads = 0", "threads = 0 given; want at least 1"),
        ("processes = 0", "processes = 0 given"),
        ("goals = {Ant-v5 = 1}", "goals of Ant-v5 given"),
    ],
)
def test_threads_and_goals_that_mean_nothing_are_refused(tmp_path, addition, message):
    (tmp_path / "plan.toml").write_text(f"{addition}\n{PLAN}")
    with pytest.raises(SystemExit, match=message):
        Study(tmp_path)


def _curves(*rates, end=1000):
    """Rows of a curve for each (seconds a step, return a step), whose first episode ends at step 10."""
    return [
        [
            {"timesteps": str(t), "seconds": str(t * pace), "return": "" if t == 0 else str(t * slope)}
            for t in range(0, end + 1, 10)
        ]
        for pace, slope in rates
    ]


def _study_of(tmp_path, curves, scores, cpus=("",) * 9, shares=("",) * 9):
    plan = PLAN.replace('["Hopper-v5", "CartPole-v1"]', '["Hopper-v5"]').replace("2000", "1000")
    (tmp_path / "plan.toml").write_text(plan)
    for seed, (curve, score) in enumerate(zip(curves, scores, strict=True)):
        run = Run(Arm("default", ()), "Hopper-v5", seed, 1000)
        row = dict(zip(RUN_COLUMNS, run.key, strict=False)) | {"mean": score}
        Study(tmp_path).add(run, row | {"cpu": cpus[seed], "cpu_share": shares[seed]}, curve, {})
    return Study(tmp_path)


def test_the_time_to_a_goal_is_of_the_seeds_average_and_at_least_all_of_it_where_it_is_never_passed(tmp_path):
    study = _study_of(tmp_path, _curves((0.1, 1.0), (0.3, 3.0)), (1.0, 1.0))  # together 0.2 seconds and 2.0 a step
    curves = learning_report.curves_of(study, study.arms[0], "Hopper-v5")
    seconds, passed = learning_report.seconds_to(1000.0, curves)
    assert passed and seconds == pytest.approx(0.2 * 500, rel=0.02)
    assert learning_report.seconds_to(2001.0, curves) == (pytest.approx(200.0), False)
    assert learning_report.seconds_to(1000.0, curves, of="timesteps")[0] == pytest.approx(500, rel=0.02)


def test_a_run_that_met_nan_counts_with_the_lowest_return_and_all_of_its_time(tmp_path):
    """Two that pass 600 at step 600, and one that is at an end at step 100: what is averaged goes on without it."""
    curves = [*_curves((0.1, 1.0), (0.1, 1.0)), *_curves((0.1, 1.0), end=100)]
    study = _study_of(tmp_path, curves, (1.0, 1.0, "nan"))
    found = learning_report.curves_of(study, study.arms[0], "Hopper-v5")
    assert [curve.timesteps[-1] for curve in found] == [1000, 1000, 1000]
    seconds, passed = learning_report.seconds_to(600.0, found)  # (2 t + 10) / 3 is 600 at step 895
    assert passed and seconds == pytest.approx(89.5, rel=0.02)
    assert learning_report.seconds_to(700.0, found) == (pytest.approx(100.0), False)


def test_a_run_that_met_nan_in_its_evaluation_has_its_curve_as_it_is_and_was_not_paused(tmp_path):
    curves = _curves((100.0, 1.0), (100.0, 1.0)) + _curves((100.0, 1.0), end=100)
    study = _study_of(tmp_path, curves, (1.0, "nan", "nan"))
    study.goals = {"Hopper-v5": 2000.0}
    _, whole, cut = learning_report.curves_of(study, study.arms[0], "Hopper-v5")
    assert whole.timesteps == [float(t) for t in range(10, 1001, 10)] and cut.timesteps[-2:] == [101, 1000]
    assert list(learning_report._times_of(study))[-2] == "| default | \u2265 100,000 (3) |"


def test_a_short_run_that_met_nan_says_nothing_of_the_long_one(tmp_path):
    (long,) = _curves((0.1, 1.0))
    (short,) = _curves((0.1, 1.0), end=100)
    study = _study_of(tmp_path, [long], (1.0,))
    run = Run(Arm("default", ()), "Hopper-v5", 0, 500)
    study.add(run, dict(zip(RUN_COLUMNS, run.key, strict=False)) | {"mean": "nan"}, short, {})
    (curve,) = learning_report.curves_of(study, study.arms[0], "Hopper-v5")
    assert curve.timesteps[-1] == 1000 and curve.returns[-1] == 1000


def test_a_run_without_the_end_of_an_episode_has_the_lowest_return(tmp_path):
    curves = _curves((0.1, 1.0), (0.1, 0.0))
    for row in curves[1]:
        row["return"] = ""
    study = _study_of(tmp_path, curves, (1.0, 1.0))
    found = learning_report.curves_of(study, study.arms[0], "Hopper-v5")
    assert learning_report.seconds_to(400.0, found)[1] and not learning_report.seconds_to(600.0, found)[1]


def test_seconds_of_a_run_that_was_stopped_for_a_while_are_said_to_be_none(tmp_path):
    (curve,) = _curves((0.1, 1.0))
    for row in curve[50:]:
        row["seconds"] = str(float(row["seconds"]) + 3600)
    study = _study_of(tmp_path, [curve], (1.0,))
    study.goals = {"Hopper-v5": 900.0}
    *_, line, _, note, _ = learning_report._times_of(study)
    assert line == "| default | 3,690 (1; paused) |" and note.startswith("Paused: ")
    study.goals = {"Hopper-v5": 400.0}  # passed before
    assert list(learning_report._times_of(study))[-2] == "| default | 40 (1) |"


def test_seconds_of_a_busy_machine_and_of_two_kinds_of_cpu_are_told_apart(tmp_path):
    curves = _curves((0.1, 1.0), (0.1, 1.0), (0.4, 1.0))
    study = _study_of(tmp_path, curves, (1.0,) * 3, ("one", "one", "other"), ("0.99", "0.5", "1"))
    study.goals = {"Hopper-v5": 900.0}
    lines = list(learning_report._times_of(study))
    first, second = lines.index("one:"), lines.index("other:")
    assert "| default | 90 (2; BUSY) |" in lines[first:second]
    assert any(line.startswith("BUSY: ") for line in lines[first:second])
    assert "| default | 360 (1) |" in lines[second:]
    assert not any(line.startswith("BUSY: ") for line in lines[second:])


def test_a_run_that_two_have_made_counts_once(tmp_path):
    (curve,) = _curves((0.1, 1.0))
    study = _study_of(tmp_path, [curve], (1.0,))
    run = Run(Arm("default", ()), "Hopper-v5", 0, 1000)
    study.add(run, dict(zip(RUN_COLUMNS, run.key, strict=False)) | {"mean": 2.0}, curve, {})
    assert [row["mean"] for row in study.runs()] == ["1.0"]


def test_a_run_whose_time_is_compared_begins_at_its_start_and_says_what_share_of_its_cores_it_got(
    commands, go_on, tmp_path, monkeypatch
):
    (tmp_path / "plan.toml").write_text(PLAN.replace("[arms]", "[goals]\nHopper-v5 = 1\n[arms]"))
    shares = iter([0.9, 0.7])
    monkeypatch.setattr(learning, "share_of_cores", lambda threads: next(shares))
    commands.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        go_on("--seeds", "0", "--arms", "wide", "--tasks", "Hopper-v5")
    commands.stop_after, shares = 10**9, iter([0.9, 0.7])
    go_on("--seeds", "0", "--arms", "wide", "--tasks", "Hopper-v5")
    assert [("--resume" in call) for call in trainings(commands)] == [False, False]
    assert [row["cpu_share"] for row in Study(tmp_path).runs()] == ["0.7"]


def test_times_to_goals_are_beside_those_of_the_first_arm(tmp_path):
    plan = PLAN.replace('["Hopper-v5", "CartPole-v1"]', '["Hopper-v5"]').replace(
        "[arms]", "[goals]\nHopper-v5 = 500\n[arms]"
    )
    (tmp_path / "plan.toml").write_text(plan)
    (tmp_path / "curves").mkdir()
    lines = ["arm,seed,timesteps,seconds,return"]
    for arm, pace, slope in (("default", 0.1, 1.0), ("wide", 0.4, 0.1)):
        lines += [f"{arm},{seed},{t},{t * pace},{t * slope}" for seed in range(3) for t in range(0, 1001, 10)]
    (tmp_path / "curves" / "Hopper-v5.csv").write_text("\n".join(lines) + "\n")
    rows = [
        f"{arm},Hopper-v5,{seed},1000,1000,0,1000,1000,9,20,1000,500,100,abc,CPU,1"
        for arm in ("default", "wide")
        for seed in range(3)
    ]
    (tmp_path / "runs.csv").write_text("\n".join([",".join(RUN_COLUMNS), *rows]) + "\n")
    page = learning_report.render(f"<!-- begin {tmp_path.name} -->\n<!-- end {tmp_path.name} -->", tmp_path.parent)
    assert "| default | 50 (3) |" in page
    assert "| wide | \u2265 400, \u2265 8.0 times (3) |" in page


def test_curves_are_thinned_evenly_and_keep_their_end():
    rows = [{"step": str(i)} for i in range(1000)]
    kept = [int(row["step"]) for row in learning.thinned(rows, 150)]
    assert len(kept) == 150 and kept[-1] == 999
    assert {b - a for a, b in pairwise(kept)} <= {6, 7}
    assert learning.thinned(rows[:150], 150) == rows[:150]


def test_changes_that_no_commit_has_are_refused(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "trpo_fast").mkdir()
    (tmp_path / "trpo_fast" / "__init__.py").write_text("")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    monkeypatch.setattr(trpo_fast, "__file__", str(tmp_path / "trpo_fast" / "__init__.py"))
    assert len(source()) == 12
    (tmp_path / "trpo_fast" / "__init__.py").write_text("changed = True\n")
    with pytest.raises(SystemExit, match="has changes that no commit has"):
        source()


def test_a_study_trains_and_evaluates_for_real(tmp_path, monkeypatch):
    small = "--num-envs 2 --steps-per-env 32 --warm-up-steps 4 --hidden-sizes 8 --critic-hidden-sizes 8"
    (tmp_path / "plan.toml").write_text(
        f"tasks = ['CartPole-v1']\nseeds = '0'\ntimesteps = 128\n[arms]\nsmall = '{small} --critic-epochs 1'\n"
    )
    monkeypatch.setattr(learning, "source", lambda: "abc")
    monkeypatch.setattr(learning.signal, "signal", lambda *_: None)
    learning.main([str(tmp_path), "--work", str(tmp_path / "work"), "--processes", "1"])
    (row,) = Study(tmp_path).runs()
    assert 8 <= float(row["mean"]) <= 500 and row["episodes"] == "100" and library.instruction_set() in row["cpu"]
    assert [point["timesteps"] for point in Study(tmp_path).curves("CartPole-v1")] == ["64", "128"]
    described = json.loads((tmp_path / "study.json").read_text())["small"]
    assert described["commit"] == "abc" and described["versions"]["numpy"]
