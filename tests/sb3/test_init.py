"""Importing the drop-in where Stable-Baselines3 is missing or too old."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def import_with(versions):
    """What ``import trpo_fast.sb3`` says where packages have `versions`; None: not installed."""
    program = f"""
import importlib.metadata as metadata
versions = {versions!r}
def version(name):
    if versions.get(name) is None:
        raise metadata.PackageNotFoundError(name)
    return versions[name]
metadata.version = version
try:
    import trpo_fast.sb3
except ImportError as error:
    print(error.name, "|", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({}, "stable-baselines3 | trpo_fast.sb3: stable-baselines3 none found; want >= 2.7:"),
        ({"stable-baselines3": "2.9.2"}, "sb3-contrib | trpo_fast.sb3: sb3-contrib none found; want >= 2.7:"),
        (
            {"stable-baselines3": "2.6.1a2", "sb3-contrib": "2.9.2"},
            "stable-baselines3 | trpo_fast.sb3: stable-baselines3 2.6.1a2 found; want >= 2.7:",
        ),
        (
            {"stable-baselines3": "2.10.0", "sb3-contrib": "1.8.0"},
            "sb3-contrib | trpo_fast.sb3: sb3-contrib 1.8.0 found; want >= 2.7:",
        ),
    ],
)
def test_what_is_missing_or_too_old_is_named_with_the_command_that_helps(versions, message):
    assert import_with(versions) == f"{message} pip install 'trpo-fast[sb3]'"


def test_a_later_version_will_do():
    pytest.importorskip("sb3_contrib")
    assert import_with({"stable-baselines3": "2.10.0", "sb3-contrib": "3.0.1"}) == ""


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sb3_contrib")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[2] / "docs" / "sb3.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    names = {}
    exec(compile(block.replace("10_000", "2_048"), "sb3.md", "exec"), names)
    assert names["model"].update_engine == "compiled"
    assert (tmp_path / "cartpole.zip").exists()


def test_trpo_fast_itself_does_not_load_it():
    program = "import sys, trpo_fast; trpo_fast.make_engine; assert 'stable_baselines3' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
