"""What stands beside every figure: the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._core import library
from ..caches import caches
from .limits import multiply_add_limits

PACKAGES = ("trpo-fast", "numpy")
CPUINFO = Path("/proc/cpuinfo")
# What Linux calls a CPU's numbers: on x86, on ARM. Without a name for its models, ARM's part is the model.
_IDENTITY = {
    "vendor": ("vendor_id", "CPU implementer"),
    "family": ("cpu family", "CPU architecture"),
    "model": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
}
_BFLOAT16 = ("avx512_bf16", "bf16")


def describe_machine(packages: Sequence[str] = PACKAGES, *, measure: bool = True) -> dict[str, Any]:
    """Machine and versions, JSON-able.

    Where the system does not say what a field is, it is None; ``vendor``, ``family``, ``model`` and ``stepping`` tell
    apart what one name ("AMD EPYC") covers. ``caches`` are bytes of an instance, by level and type, and ``shared_by``
    the processors that share it. ``bfloat16`` says whether the CPU multiplies such numbers. With `measure`, which takes
    a twentieth of a second, ``multiply_adds`` are one thread's limits in GFLOP/s, by precision; None for a precision
    that the CPU or this build has not.
    """
    info = _cpu_info()
    described: dict[str, Any] = {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        **{name: _first(info, keys) for name, keys in _IDENTITY.items()},
        "caches": caches() or None,
        "bfloat16": any(flag in _flags(info) for flag in _BFLOAT16) if info else None,
    }
    if measure:
        described["multiply_adds"] = multiply_add_limits()
    return described | {
        "processors": os.cpu_count(),
        "threads": library.get_num_threads(),
        "instruction_set": library.instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
    }


def _cpu_info() -> dict[str, str]:
    """Of the first processor."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in lines}


def _first(info: Mapping[str, str], keys: Sequence[str]) -> int | str | None:
    value = next((info[key] for key in keys if key in info), None)
    try:
        return value if value is None else int(value, 0)
    except ValueError:
        return value


def _flags(info: Mapping[str, str]) -> list[str]:
    return (info.get("flags") or info.get("Features") or "").split()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
