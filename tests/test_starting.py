"""Ctrl-C before a command begins; tests/cli/test_commands.py has it in processes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trpo_fast import starting

PROGRAM = """
import os
try:
    import trpo_fast
    os.kill(os.getpid(), 2)
    import time; time.sleep(5)
finally:
    print("cleaned up")
"""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("bench-trpo-fast", []), ("trpo-fast/__main__.py", []), ("trainer.py", ["--algo", "trpo_fast"])],
)
def test_a_program_that_imports_the_package_keeps_its_ctrl_c(tmp_path, name, arguments):
    program = tmp_path / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    run = program.parent if name.endswith("__main__.py") else program
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # children ignore what we do, as under nohup
    try:
        done = subprocess.run([sys.executable, run, *arguments], capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, ours)
    assert done.stdout == "cleaned up\n"
    assert "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize(
    ("argv", "orig_argv", "wanted"),
    [
        (["/usr/bin/trpo-fast", "train"], ["python", "/usr/bin/trpo-fast", "train"], True),
        (["trpo-fast.exe"], ["trpo-fast.exe"], True),
        (["-m", "train"], ["python", "-m", "trpo_fast", "train"], True),
        ([str(Path(starting.__file__).with_name("__main__.py"))], ["python", "-m", "trpo_fast"], True),
        (["-m"], ["python", "-m", "trainer", "--algo", "trpo_fast"], False),
        (["trpo_fast/__main__.py"], ["python", "-m", "trainer"], False),
        (["my-trpo-fast"], ["python", "my-trpo-fast"], False),
        ([""], ["python"], False),
        ([], ["python"], False),
    ],
)
def test_what_the_command_is(monkeypatch, argv, orig_argv, wanted):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert starting.is_command() is wanted


def test_ctrl_c_raises_again_once_everything_is_loaded_and_stays_ignored_where_it_is(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trpo-fast"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        starting.begin()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        starting.end()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        starting.begin()
        starting.end()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
