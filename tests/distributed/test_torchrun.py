"""Runs under torchrun that are killed, stopped or broken at a counted step of an environment on one rank."""

import sys
import time

import numpy as np
import pytest

from tests.distributed.command_toys import ENV, VARIABLE
from tests.distributed.launcher import finish, start
from tests.environments.pids import gone, wait_until
from trpo_fast import model_file
from trpo_fast.run_models import checkpoint_name

COPIES, STEPS, UPDATES = 6, 8, 6
UPDATE = COPIES * STEPS
# Of a rank's copies, in the rollout of the fourth update, behind the checkpoint of the third: by the number of ranks.
DISTURBED_AT = {size: COPIES // size * (3 * STEPS + 3) for size in (2, 3)}
OPTIONS = (
    *("--import", "tests.distributed.command_toys", "--num-envs", str(COPIES), "--steps-per-env", str(STEPS)),
    *("--warm-up-steps", "0", "--hidden-sizes", "4", "--critic-hidden-sizes", "4", "--critic-epochs", "1"),
    *("--eval-episodes", "0", "--checkpoint-every", str(UPDATE), "--timesteps", str(UPDATES * UPDATE)),
    *("--seed", "5", "--dtype", "float64"),
)


def torchrun(folder, *arguments, restarts=0, size=2, disturbed=""):
    """The end of a command under torchrun, in the folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command += [f"--max-restarts={restarts}", "-m", "trpo_fast", "train", *arguments]
    said = folder / f"said-{len(list(folder.iterdir()))}"
    return finish([start(command, said, **{VARIABLE: disturbed})], [said])[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = torchrun(folder, ENV, "--out", "run", *OPTIONS, "--keep-checkpoints", str(UPDATES))
    assert ended.code == 0, ended.said
    return folder / "run"


def assert_same_bits(file, other, prefix=""):
    found, expected = (
        {name: tensor for name, tensor in model_file.read(path)[0].items() if name.startswith(prefix)}
        for path in (file, other)
    )
    assert found.keys() == expected.keys()
    assert found
    for name, tensor in expected.items():
        assert np.asarray(found[name]).tobytes() == np.asarray(tensor).tobytes(), name


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_a_killed_rank_is_started_anew_and_the_run_ends_with_the_same_bits(undisturbed, tmp_path, size):
    disturbed = f"1:{DISTURBED_AT[size]}:SIGKILL"
    ended = torchrun(tmp_path, ENV, "--out", "run", *OPTIONS, restarts=1, size=size, disturbed=disturbed)
    assert (tmp_path / "SIGKILL").exists()
    assert ended.code == 0, ended.said
    assert_same_bits(tmp_path / "run" / "model.trpo", undisturbed / "model.trpo")


# Who gets it, of how many ranks, and what: one rank alone, or torchrun itself.
STOPS = {"rank 1": (2, "1:{}:SIGTERM"), "torchrun": (3, "1:{}:terminate"), "Ctrl-C": (2, "0:{}:interrupt")}


@pytest.mark.parametrize(
    "who", ["Ctrl-C", *(pytest.param(who, marks=pytest.mark.long) for who in ("rank 1", "torchrun"))]
)
def test_a_signal_ends_all_and_saves(undisturbed, tmp_path, who):
    size, disturbed = STOPS[who]
    disturbed = disturbed.format(DISTURBED_AT[size])
    ended = torchrun(tmp_path, ENV, "--out", "run", *OPTIONS, size=size, disturbed=disturbed)
    signalled = tmp_path / disturbed.rpartition(":")[2]
    assert time.time() - signalled.stat().st_mtime < 60  # a second or two where nothing else runs
    pid = int(signalled.read_text())
    assert ended.code != 0
    assert wait_until(lambda: gone(pid))
    assert f"at {3 * UPDATE:,} steps, saved; to go on" in ended.said, ended.said
    saved = tmp_path / "run" / "model.trpo"
    # The critic's fit may have been given up: whoever stops waits.
    assert_same_bits(saved, undisturbed / "checkpoints" / checkpoint_name(3 * UPDATE), "policy.")
    if who == "rank 1":
        ended = torchrun(tmp_path, "--resume", "run", *OPTIONS[:2])
        assert ended.code == 0, ended.said
        assert_same_bits(saved, undisturbed / "model.trpo")


@pytest.mark.long
def test_an_environment_that_raises_on_one_rank_ends_all_and_its_error_is_shown(tmp_path):
    ended = torchrun(tmp_path, ENV, "--out", "run", *OPTIONS, disturbed=f"1:{DISTURBED_AT[2]}:raise")
    assert ended.code != 0
    assert "error on rank 1: the cable is out" in ended.said, ended.said
    assert "rank 1: OSError: the cable is out" in ended.said
    assert f"failed after {3 * UPDATE:,} steps, saved" in ended.said


def test_a_rank_that_hangs_is_named_and_the_run_is_saved(tmp_path):
    options = (*OPTIONS, "--rank-timeout", "20")
    ended = torchrun(tmp_path, ENV, "--out", "run", *options, size=3, disturbed=f"1:{DISTURBED_AT[3]}:hang")
    pid = int((tmp_path / "hang").read_text())
    assert ended.code != 0
    assert "error: rank 1: its process has ended, hangs or is busy (" in ended.said, ended.said
    assert f"failed after {3 * UPDATE:,} steps, saved" in ended.said
    assert wait_until(lambda: gone(pid))  # torchrun ends it


def test_bad_input_is_told_once_and_leaves_no_folder(tmp_path):
    few = torchrun(tmp_path, ENV, "--out", "run", *OPTIONS, "--num-envs", "1")
    assert few.code != 0
    assert few.said.count("num_envs: 1 given; want a multiple of 2, the number of ranks") == 1, few.said
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes").write_text("mine")
    used = torchrun(tmp_path, ENV, "--out", "used", *OPTIONS)
    assert used.code != 0
    assert used.said.count("--out: used exists") == 1, used.said
    assert "Traceback" not in few.said.partition("torch/distributed")[0]
    assert not (tmp_path / "run").exists()
