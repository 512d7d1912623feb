"""What has to stand beside every figure: the machine and the versions of everybody compared."""

from __future__ import annotations

import subprocess
from pathlib import Path

import trpo_fast
from trpo_fast import benchmarks

PACKAGES = ("trpo-fast", "numpy", "torch", "gymnasium", "mujoco", "stable_baselines3", "sb3_contrib", "scipy")


def describe() -> dict[str, object]:
    """JSON-able."""
    return benchmarks.describe_machine(PACKAGES)


def source() -> str:
    """The commit of the trpo_fast that is imported; SystemExit where it is not what a commit has."""
    root = Path(trpo_fast.__file__).resolve().parent.parent
    sources = ["trpo_fast", "csrc", "setup.py"]
    try:
        git = ["git", "-C", str(root)]
        changed = subprocess.run([*git, "status", "--porcelain", "--", *sources], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return f"version {trpo_fast.__version__}"
    if changed.stdout:
        raise SystemExit(
            f"{root} has changes that no commit has; want a commit, as every row names the one it was made with"
        )
    return commit.stdout.strip()
