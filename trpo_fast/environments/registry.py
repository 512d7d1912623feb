"""Registered ids: the specification behind one, and what to say where there is none or its simulator is missing."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re

import gymnasium
from gymnasium.envs.registration import EnvSpec

# Family of environments that gymnasium registers without bringing the simulator: the module it needs, how to get it.
_SIMULATORS = {
    "mujoco": ("mujoco", "pip install 'trpo-fast[mujoco]'"),
    "box2d": ("Box2D", "pip install 'gymnasium[box2d]'"),
    "phys2d": ("jax", "pip install 'gymnasium[jax]'"),
    "tabular": ("jax", "pip install 'gymnasium[jax]'"),
    "ALE": ("ale_py", "pip install 'gymnasium[atari]'"),
}


def find_spec(id: str) -> EnvSpec:
    """The specification registered as `id`; ``"module:Name-v0"`` imports the module first. ValueError without one."""
    module, colon, name = id.rpartition(":")
    try:
        if colon:  # which registers the name, as in gymnasium.make; gymnasium.spec knows no modules
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:  # the last two for a bad module name
        raise ValueError(f"env: no environment {id!r} is registered. {error}{hint(id)}") from error


def load_entry_point(entry_point: str) -> None:
    """ImportError where what an id is registered with does not exist, which gymnasium leaves to an AttributeError."""
    module, _, name = entry_point.partition(":")
    if not hasattr(importlib.import_module(module), name):
        raise ImportError(f"it is registered with {entry_point!r}, but {module} has no {name!r}")


def hint(id: str) -> str:
    """Near names of an id, and the command that installs the simulator it lacks, as far as either is known."""
    id = id.rpartition(":")[2]
    near = [name for name in difflib.get_close_matches(id, gymnasium.registry, n=4, cutoff=0.6) if name != id]
    text = f" Near names: {', '.join(near)}." if near else ""
    spec = gymnasium.registry.get(id) or (gymnasium.registry[near[0]] if near else None)
    home = f"{id}/{spec.entry_point if spec else ''}"
    for family, (module, command) in _SIMULATORS.items():
        if re.search(rf"(^|[./]){family}[./]", home) and importlib.util.find_spec(module) is None:
            return f"{text} {module} is not installed: {command}"
    return text
