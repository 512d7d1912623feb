"""The peers' runs of the learning study, small."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import pytest

pytest.importorskip("sb3_contrib", reason="the peers are Stable-Baselines3's")

from bench import peer_learning
from bench.study import CURVE_COLUMNS


@pytest.fixture(params=["trpo", "ppo"])
def trained(request, tmp_path, monkeypatch):
    small = {"n_envs": 2, "n_steps": 64, "batch_size": 64, "gamma": 0.9}
    monkeypatch.setattr(peer_learning, "settings", lambda algorithm, task: dict(small))
    options = ["--algorithm", request.param, "--timesteps", "256", "--seed", "3", "--out", str(tmp_path / "run")]
    assert peer_learning.main(["train", "CartPole-v1", *options]) == 0
    return tmp_path / "run"


def evaluated(capsys, folder, seed):
    assert peer_learning.main(["eval", str(folder), "--episodes", "4", "--seed", str(seed)]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_peer_leaves_the_columns_of_the_study_and_a_score_of_raw_rewards(trained, capsys):
    with (trained / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    # PPO has no std where actions are discrete, and its own name for the KL.
    wanted = {CURVE_COLUMNS[name] for name in ("timesteps", "seconds", "return", "length", "explained_variance")}
    assert wanted <= set(rows[0]) and rows[-1]["time/total_timesteps"] == "256"
    capsys.readouterr()
    found = evaluated(capsys, trained, 1_000_000)
    assert found["mean"] == found["mean_length"] and found["num_timesteps"] == 256  # CartPole pays 1 a step
    assert evaluated(capsys, trained, 1_000_000) == found  # statistics stay frozen


def test_the_discount_is_that_of_the_reward_normalization_too(trained):
    with (trained / "normalization.pkl").open("rb") as file:
        assert pickle.load(file).gamma == 0.9


ZOO = json.loads((Path(__file__).parent / "data" / "zoo_settings.json").read_text())


@pytest.mark.parametrize(("algorithm", "task"), [(kind, task) for kind in ("trpo", "ppo") for task in ZOO[kind]])
def test_settings_are_those_that_the_zoo_publishes_for_the_task_of_before(algorithm, task):
    ours = peer_learning.recorded_settings(algorithm, task.replace("-v4", "-v5"))
    assert ours == {"n_envs": 1} | ZOO[algorithm][task]


def test_tasks_that_the_zoo_does_not_list_get_its_mujoco_settings():
    assert peer_learning.settings("trpo", "Pusher-v5") == peer_learning.MUJOCO
    assert peer_learning.settings("trpo", "HalfCheetah-v5") == {**peer_learning.MUJOCO, "target_kl": 0.04}
    with pytest.raises(SystemExit, match=r"Pusher-v5 given; want one of Ant-v5"):
        peer_learning.settings("ppo", "Pusher-v5")
