"""What has to stand beside every figure: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from trpo_fast._core.library import instruction_set

PACKAGES = ("trpo-fast", "numpy", "torch", "gymnasium", "mujoco", "stable_baselines3", "sb3_contrib", "scipy")


def describe() -> dict[str, object]:
    """JSON-able."""
    return {
        "cpu": _cpu_model(),
        "processors": os.cpu_count(),
        "instruction_set": instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
