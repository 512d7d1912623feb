"""What has to stand beside every figure: the machine and the versions of everybody compared.

Every benchmark that writes figures writes `describe()` with them, so that two CPUs that have one name are told apart.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trpo_fast
from trpo_fast import benchmarks

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("trpo-fast", "numpy", "torch", "gymnasium", "mujoco", "stable_baselines3", "sb3_contrib", "scipy")


class Core(NamedTuple):
    """A kind of core."""

    name: str
    pipes: int | None  # 512-bit multiply-adds of float32 that it begins in a cycle; None where it has no such vectors


_ZEN_3, _ZEN_4, _ZEN_5 = Core("Zen 3", None), Core("Zen 4", 1), Core("Zen 5", 2)
# Vendor, family, models, steppings: the CPUs that figures were made on, and their neighbours.
_CORES = (
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)), range(16), _ZEN_4),
    ("AuthenticAMD", 25, range(256), range(16), _ZEN_3),
    ("AuthenticAMD", 26, range(256), range(16), _ZEN_5),
    ("GenuineIntel", 6, (85,), range(5), Core("Skylake", 2)),
    ("GenuineIntel", 6, (85,), range(5, 8), Core("Cascade Lake", 2)),
    ("GenuineIntel", 6, (85,), range(10, 12), Core("Cooper Lake", 2)),
    ("GenuineIntel", 6, (106, 108), range(16), Core("Ice Lake", 2)),
    ("GenuineIntel", 6, (143,), range(16), Core("Sapphire Rapids", 2)),
    ("GenuineIntel", 6, (207,), range(16), Core("Emerald Rapids", 2)),
    ("GenuineIntel", 6, (173, 174), range(16), Core("Granite Rapids", 2)),
)


def describe() -> dict[str, Any]:
    """JSON-able; see `trpo_fast.benchmarks.describe_machine`. And the commit of the trpo_fast that is imported."""
    commit, changed = built_from(Path(trpo_fast.__file__).resolve().parent.parent)
    return {**benchmarks.describe_machine(PACKAGES), "commit": f"{commit}, with changes" if changed else commit}


def core_of(machine: Mapping[str, Any]) -> Core | None:
    """What kind of core a described machine has; None where its numbers are not known or were not recorded."""
    known = machine.get("vendor"), machine.get("family")
    for vendor, family, models, steppings, core in _CORES:
        if known == (vendor, family) and machine.get("model") in models and machine.get("stepping") in steppings:
            return core
    return None


def kind_of(machine: Mapping[str, Any]) -> str:
    """The heading of its figures' column: the same for two machines only if they have the same kind of CPU."""
    name = str(machine["cpu"]).replace("(R)", "").replace("(TM)", "")
    if machine.get("family") is None:
        return f"{name}, family not recorded"
    core = core_of(machine)
    numbers = f"family {machine['family']}, model {machine['model']}, stepping {machine['stepping']}"
    return f"{name}, {core.name} ({numbers})" if core else f"{name} ({numbers})"


def caches_of(machine: Mapping[str, Any]) -> str:
    """As in "L1d 32 KiB, L2 1 MiB, L3 35.8 MiB"."""
    shown = []
    for cache in machine.get("caches") or ():
        if cache["type"] != "Instruction":
            size = cache["bytes"] / 2**10
            text = f"{size:.3g} KiB" if size < 1024 else f"{size / 1024:.3g} MiB"
            shown.append(f"L{cache['level']}{'d' if cache['type'] == 'Data' else ''} {text}")
    return ", ".join(shown)


def write_figures(out: Path, result: Mapping[str, Any]) -> None:
    """Write the JSON file of a benchmark; `quiet` and `cpu_share` say whether its figures may be quoted."""
    if not result["quiet"]:
        share = result["cpu_share"]
        print(f"  NOT TO BE QUOTED: the machine was busy, this had {share:.0%} of its cores")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"  written to {os.path.relpath(out)}")


def result_path(name: str) -> Path:
    """Where figures of this CPU go by default: into the file of `name`, unless another kind of CPU has its there."""
    path, machine = RESULTS / f"{name}.json", benchmarks.describe_machine(measure=False)
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))["machine"]
        if kind_of(known) != kind_of(machine):
            core = core_of(machine)
            kind = core.name if core is not None else kind_of(machine)
            return RESULTS / f"{name}-{'-'.join(re.findall('[a-z0-9]+', kind.lower()))}.json"
    return path


def share_of_cores(threads: int) -> float:
    """What so many busy threads get of as many cores, just now: 1 on a quiet machine."""
    before = trpo_fast.get_num_threads()
    trpo_fast.set_num_threads(threads)
    try:
        return benchmarks.measure_peak("float32", rounds=20_000_000).cpu_share
    finally:
        trpo_fast.set_num_threads(before)


def source() -> str:
    """The commit of the trpo_fast that is imported; SystemExit where it is not what a commit has."""
    root = Path(trpo_fast.__file__).resolve().parent.parent
    commit, changed = built_from(root)
    if changed:
        raise SystemExit(
            f"{root} has changes that no commit has; want a commit, as every row names the one it was made with"
        )
    return commit


def built_from(root: Path) -> tuple[str, bool]:
    """The commit that a checkout stands at, and whether its sources have changes that no commit has."""
    sources = ["trpo_fast", "csrc", "setup.py"]
    try:
        git = ["git", "-C", str(root)]
        changed = subprocess.run([*git, "status", "--porcelain", "--", *sources], capture_output=True, check=True)
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return f"version {trpo_fast.__version__}", False
    return commit.stdout.strip(), bool(changed.stdout)
