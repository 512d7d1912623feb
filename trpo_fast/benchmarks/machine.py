"""What stands beside every figure: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._core import library

PACKAGES = ("trpo-fast", "numpy")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Machine and versions, JSON-able."""
    return {
        "cpu": _cpu_model(),
        "processors": os.cpu_count(),
        "threads": library.get_num_threads(),
        "instruction_set": library.instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
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
