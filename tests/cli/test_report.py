"""What a run's report says, and where; what counts as a symptom is in test_symptoms."""

import json
import re

import pytest

NAN_REWARD = """
import os
import gymnasium as gym
import numpy as np


class Walk(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        bad = self.steps > 40 and os.path.exists("bad")
        return np.zeros(1, np.float32), float("nan") if bad else 1.0, False, self.steps % 5 == 0, {}


gym.register("Walk-v0", Walk)
"""


@pytest.fixture
def trained(command, small):
    assert (
        command("train", "CartPole-v1", "--timesteps", "384", "--out", "run", "--eval-episodes", "0", *small[:-2]).code
        == 0
    )
    return "run"


def test_a_report_is_a_page_that_loads_nothing_and_the_same_in_words(command, trained, tmp_path):
    result = command("report", trained)
    assert result.code == 0, result.err
    title, *lines = result.out.splitlines()
    assert title == "CartPole-v1, seed 0: 384 timesteps, 6 updates"
    heads = [line.split("  ")[0] for line in lines if "  " in line[:13]]
    assert heads[:7] == ["return", "KL", "line search", "solve", "critic", "exploration", "time"]
    assert lines[-1] == "run/report.html"
    page = (tmp_path / "run" / "report.html").read_text()
    for panel in ("Return", "KL against its bound", "Backtracks", "How updates ended", "Residual of the solve", "Time"):
        assert f"<h3>{panel}</h3>" in page
    assert "<td>hidden_sizes</td><td>[8]</td>" in page  # a setting that is not the default
    for name in "action_map", "fisher_subsample":  # what the defaults are by the kind of network is none
        assert f"<td>{name}</td>" not in page
    assert not re.search(r"<(script|link|img|iframe|image)|@import|url\((?!#)|src=|href=\"(?!#)", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 50


def test_words_alone_write_nothing_and_need_no_matplotlib(command, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert command("report", trained, "--text").code == 0
    assert not (tmp_path / "run" / "report.html").exists()
    result = command("report", trained)  # says what it can, and then what is missing
    assert result.code == 2 and "6 updates" in result.out and "pip install 'trpo-fast[plot]'" in result.err


def test_json_has_what_the_words_have(command, trained):
    told = json.loads(command("report", trained, "--json", "--text").out)
    assert told["env"] == "CartPole-v1" and told["num_timesteps"] == 384 and told["updates"] == 6
    assert told["findings"] == [] and "explained variance" in told["facts"]["critic"]


def test_a_training_that_failed_says_why_until_it_goes_on(command, small, tmp_path):
    (tmp_path / "walk.py").write_text(NAN_REWARD)
    (tmp_path / "bad").touch()
    run = ("Walk-v0", "--import", "walk", "--timesteps", "256", "--out", "run", *small)
    assert command("train", *run).code == 1
    result = command("report", "run", "--text")
    assert "1. The training failed. The training ended with: " in result.out and "nan" in result.out
    assert "   try: Mend what the message names" in result.out
    (tmp_path / "bad").unlink()
    assert command("train", "--resume", "run", "--import", "walk").code == 0
    assert "The training failed" not in command("report", "run", "--text").out


def test_what_is_no_run_is_named(command, make_empty):
    result = command("report", "nothing")
    assert result.code == 2 and "run: nothing given; want a run's folder with progress.csv" in result.err
    result = command("report", make_empty)
    assert result.code == 2 and "empty has no row yet" in result.err
    result = command("report", make_empty, "--out", "x.pdf")
    assert result.code == 2 and "--out: x.pdf given; want a name that ends in .html or .htm" in result.err


@pytest.fixture
def make_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "progress.csv").write_text("time/total_timesteps,time/time_elapsed,rollout/ep_rew_mean\n")
    return "empty"


def test_what_no_row_has_a_number_of_is_left_out(command, trained, tmp_path):
    log = tmp_path / "run" / "progress.csv"
    header, *rows = [line.split(",") for line in log.read_text().splitlines()]
    for name in "train/value_loss", "train/backtracks", "train/cg_iterations":
        for row in rows:
            row[header.index(name)] = "nan"
    log.write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    facts = json.loads(command("report", trained, "--json", "--text").out)["facts"]
    assert facts["critic"].endswith("(median of the second half)")
    assert facts["line search"] == "6 of 6 updates accepted"
    assert facts["solve"].endswith(" (medians)") and "products" not in facts["solve"]


def test_a_training_that_failed_says_how_long_it_took(command, small, tmp_path):
    (tmp_path / "walk.py").write_text(NAN_REWARD)
    (tmp_path / "bad").touch()
    result = command("train", "Walk-v0", "--import", "walk", "--timesteps", "256", "--out", "run", "--json", *small)
    told = json.loads(result.out)
    assert told["exit_code"] == 1 and told["seconds"] > 0


def test_a_page_is_not_asked_for_beside_words_alone(command, trained, tmp_path):
    result = command("report", trained, "--text", "--out", "page.html")
    assert result.code == 2 and "--out: page.html given with --text" in result.err
    assert not (tmp_path / "page.html").exists()


def test_a_file_is_no_run(command, trained):
    result = command("report", f"{trained}/model.trpo", "--text")
    assert result.code == 2 and "run: run/model.trpo given; want a run's folder with progress.csv" in result.err
