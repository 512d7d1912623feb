"""What has to stand beside every figure: the machine and the versions of everybody compared."""

from __future__ import annotations

from trpo_fast import benchmarks

PACKAGES = ("trpo-fast", "numpy", "torch", "gymnasium", "mujoco", "stable_baselines3", "sb3_contrib", "scipy")


def describe() -> dict[str, object]:
    """JSON-able."""
    return benchmarks.describe_machine(PACKAGES)
