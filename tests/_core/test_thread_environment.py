"""What the environment variables say about threads, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "from trpo_fast._core import library; print(library.get_num_threads())"


def threads_with(program: str = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


def test_openmps_variable_is_a_ceiling():
    free = int(threads_with().stdout)
    assert int(threads_with(OMP_NUM_THREADS="1").stdout) == 1
    assert int(threads_with(OMP_NUM_THREADS="1,4").stdout) == 1  # the first level of a list
    assert int(threads_with(OMP_NUM_THREADS=" 1 ").stdout) == 1
    assert int(threads_with(OMP_NUM_THREADS="200").stdout) == free


@pytest.mark.parametrize("value", ["", "0", "-3", "many", "1abc", "1.5"])
def test_openmps_variable_without_a_number_limits_nothing(value):
    assert threads_with(OMP_NUM_THREADS=value).stdout == threads_with().stdout


def test_our_own_variable_wins():
    assert int(threads_with(OMP_NUM_THREADS="1", TRPO_FAST_NUM_THREADS="3").stdout) == 3


@pytest.mark.parametrize("value", ["0", "257", "two", "2_5", "+2", "\uff12"])
def test_our_own_variable_is_refused_by_name_where_it_is_no_count(value):
    done = threads_with(TRPO_FAST_NUM_THREADS=value)
    assert done.returncode != 0
    assert f"ImportError: TRPO_FAST_NUM_THREADS='{value}' given; want 1 to 256" in done.stderr


@pytest.mark.parametrize(
    ("value", "ignored"), [("many", True), ("1abc", True), ("0", True), ("1", False), ("1,4", False), ("1 ,4", False)]
)
def test_info_says_where_openmps_variable_is_ignored(value, ignored):
    done = threads_with(program="from trpo_fast.cli.main import main; main(['info'])", OMP_NUM_THREADS=value)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("threads "))
    assert f"OMP_NUM_THREADS={value}{', which is no number from 1 to 255: ignored' if ignored else ''})" in line
