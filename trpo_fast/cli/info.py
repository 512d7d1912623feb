"""``trpo-fast info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys

from trpo_fast._core import library
from trpo_fast.cli import output

_PACKAGES = (
    *("numpy", "torch", "gymnasium", "safetensors", "tqdm", "mujoco", "tensorboard", "matplotlib", "optuna"),
    *("stable-baselines3", "sb3-contrib", "onnx", "onnxruntime", "scipy", "jax"),
)


def run(arguments: argparse.Namespace) -> int:
    """Print what a bug report or a result needs to say about the machine."""
    sets = f"available: {', '.join(library.available_instruction_sets())}"
    if left_out := library.left_out_instruction_sets():
        sets += f"; without {', '.join(left_out)}, which the compiler of this build has no flags for"
    lines = {
        "trpo-fast": _version("trpo-fast"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction set": f"{library.instruction_set()} ({sets})",
        "bfloat16 products": library.bfloat16_products() or f"none: {library.bfloat16_obstacle()}",
        "threads": f"{library.get_num_threads()} ({', '.join(_limits())})",
    }
    lines |= {package: _version(package) for package in _PACKAGES}
    if arguments.json:
        output.answer(lines)
        return 0
    for name, value in lines.items():
        output.say(f"{name:<18} {value}", sys.stdout)
    return 0


def _limits() -> list[str]:
    """What the number of threads comes from."""
    granted = f"{library.usable_cores()} cores granted of {os.cpu_count()} processors"
    found = [granted]
    if os.environ.get("TRPO_FAST_NUM_THREADS"):
        found.append(f"TRPO_FAST_NUM_THREADS={os.environ['TRPO_FAST_NUM_THREADS']}")
    if text := os.environ.get("OMP_NUM_THREADS"):
        ignored = "" if library.openmp_limit() else f", which is no number from 1 to {library.MAX_THREADS - 1}: ignored"
        found.append(f"OMP_NUM_THREADS={text}{ignored}")
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
