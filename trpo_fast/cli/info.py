"""``trpo-fast info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

from trpo_fast._core import library

_PACKAGES = (
    *("numpy", "torch", "gymnasium", "safetensors", "tqdm", "mujoco", "tensorboard", "matplotlib"),
    *("stable-baselines3", "sb3-contrib", "onnx", "onnxruntime", "scipy", "jax"),
)


def run(arguments: argparse.Namespace) -> int:
    """Print what a bug report or a result needs to say about the machine."""
    available = ", ".join(library.available_instruction_sets())
    lines = {
        "trpo-fast": _version("trpo-fast"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction set": f"{library.instruction_set()} (available: {available})",
        "threads": f"{library.get_num_threads()} of {os.cpu_count()} processors",
    }
    lines |= {package: _version(package) for package in _PACKAGES}
    for name, value in lines.items():
        print(f"{name:<18} {value}")
    return 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
