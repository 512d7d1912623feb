"""`--reset-on-checkpoint`: a run that is killed or stopped has, once it has ended, the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trpo_fast.model_file import read, read_metadata
from trpo_fast.progress import read_progress

WALK = """
import gymnasium
import numpy as np


class CutWalk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    kept = 0  # from episode to episode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where = self.np_random.normal(size=2)
        return self.where.astype(np.float32), {}

    def step(self, action):
        self.kept += 1
        self.where = self.where + (2 * action - 1) * self.np_random.normal(size=2)
        ended = bool(self.np_random.random() < 0.05)
        return self.where.astype(np.float32), float(self.where.sum()) + 0.1 * self.kept, ended, False, {}


gymnasium.register("CutWalk-v0", CutWalk)
"""
# Ends the process, or sends it a signal, in the rollout of an update that is counted in this process.
KILLED = """
import os, sys
from trpo_fast.rollout.collector import Collector
from trpo_fast.cli.main import main

number, left = int(sys.argv[1]), [int(sys.argv[2])]
collect = Collector.collect


def counted(self, **arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), number)
    return collect(self, **arguments)


Collector.collect = counted
sys.exit(main(sys.argv[3:]))
"""
UPDATE, UPDATES, PERIOD = 2 * 16, 8, 3
OPTIONS = (
    *("--num-envs", "2", "--steps-per-env", "16", "--warm-up-steps", "4", "--eval-episodes", "0"),
    *("--hidden-sizes", "4", "--critic-hidden-sizes", "4", "--critic-epochs", "1", "--critic-batch-size", "16"),
    *("--timesteps", str(UPDATES * UPDATE), "--reset-on-checkpoint", str(PERIOD)),
)


@pytest.fixture(autouse=True)
def walk(command, tmp_path, monkeypatch):
    (tmp_path / "cut_walk.py").write_text(WALK)
    monkeypatch.setitem(sys.modules, "tensorboard", None)


def ended_by(number, update, *arguments):
    """Exit code and output of a process that a signal reaches in the rollout of its `update`-th update."""
    command = [sys.executable, "-c", KILLED, str(int(number)), str(update), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return found.returncode, found.stdout + found.stderr


def bits_of(run):
    """Of the model, and of the rows but for their times."""
    arrays, metadata = read(Path(run) / "model.trpo")
    named = {name: array.tobytes() for name, array in arrays.items()}
    rows = [
        {name: value for name, value in row.items() if not name.startswith(("time/", "timings/"))}
        for row in read_progress(Path(run) / "progress.csv")
    ]
    return named, metadata["counters"], json.dumps(rows)


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_a_run_that_was_killed_and_stopped_ends_with_the_same_bits(vectorization, command):
    asked = ("cut_walk:CutWalk-v0", *OPTIONS, "--vectorization", vectorization)
    whole = command("train", *asked, "--out", "whole")
    assert whole.code == 0, whole.err
    assert f"every {PERIOD} updates all episodes are cut" in whole.out

    code, said = ended_by(signal.SIGKILL, 6, "train", *asked, "--out", "run")
    assert code == -signal.SIGKILL, said
    files = sorted(Path("run/checkpoints").glob("0*.trpo"))
    assert [int(path.stem) // UPDATE for path in files] == [0, PERIOD]
    assert {read_metadata(path)["resume"] for path in files} == {"exact"}

    trusted = ("--import", "cut_walk")
    code, said = ended_by(signal.SIGTERM, 2, "train", "--resume", "run", *trusted)  # in update 5
    assert code == 128 + signal.SIGTERM, said
    assert f"at {4 * UPDATE} steps, of which the checkpoint at {3 * UPDATE} is gone on from" in said
    assert not Path("run/model.trpo").exists()

    resumed = command("train", "--resume", "run", *trusted)
    assert resumed.code == 0, resumed.err
    assert bits_of("run") == bits_of("whole")


def test_the_run_says_that_its_episodes_are_others(command):
    asked = ("cut_walk:CutWalk-v0", *OPTIONS)
    assert command("train", *asked, "--out", "run").code == 0
    content = json.loads(Path("run/config.json").read_text())
    assert content["config"]["reset_on_checkpoint"] == PERIOD
    assert content["resume"].startswith("exact: all episodes are cut every 3 updates, which trains another sequence")
    assert "between two of the cuts" in read_metadata(Path("run/model.trpo"))["resume"]
    further = command("train", "--resume", "run", "--import", "cut_walk", "--timesteps", str((UPDATES + 1) * UPDATE))
    assert further.code == 0, further.err
    assert "new episodes begin, other ones than without an end: it goes on from after update 8" in further.out


def test_nothing_is_cut_where_the_environments_are_put_back(command):
    done = command("train", "CartPole-v1", *OPTIONS, "--out", "run")
    assert done.code == 0, done.err
    assert "nothing is cut, these environments are put back to the bit" in done.out
    assert json.loads(Path("run/config.json").read_text())["resume"] == "exact"
