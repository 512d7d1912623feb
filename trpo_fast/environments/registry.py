"""Registered ids: the modules that register them, the specification behind one, and what to say where there is none."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from trpo_fast.environments import packages

# Family of environments that gymnasium registers without bringing the simulator: the module it needs, how to get it.
_SIMULATORS = {
    "mujoco": ("mujoco", "pip install 'trpo-fast[mujoco]'"),
    "box2d": ("Box2D", "pip install 'gymnasium[box2d]'"),
    "phys2d": ("jax", "pip install 'gymnasium[jax]'"),
    "tabular": ("jax", "pip install 'gymnasium[jax]'"),
    "ALE": ("ale_py", "pip install 'gymnasium[atari]'"),
}
# How ids of other packages begin, which make them of parts, so that no source holds them: the module, how to get it.
_FAMILIES = {
    "ALE/": ("ale_py", "pip install 'gymnasium[atari]'"),
    "(MiniGrid|BabyAI)-": ("minigrid", "pip install minigrid"),
    "(Fetch|Hand(Reach|Manipulate)|AdroitHand|FrankaKitchen|(Ant|Point)Maze_)": (
        "gymnasium_robotics",
        "pip install gymnasium-robotics",
    ),
    "dm_control/": ("shimmy", "pip install 'shimmy[dm-control]'"),
    "MinAtar/": ("minatar", "pip install minatar"),
    "PyFlyt/": ("PyFlyt.gym_envs", "pip install pyflyt"),
    "(highway|merge|roundabout|parking|intersection|racetrack|u-turn)-": ("highway_env", "pip install highway-env"),
    "mo-": ("mo_gymnasium", "pip install mo-gymnasium"),
}


def families() -> Iterator[tuple[str, str, str]]:
    """(pattern of how ids begin, the module that registers them, the command that installs it) of known packages."""
    for start, (module, command) in _FAMILIES.items():
        yield start, module, command


def import_modules(modules: Iterable[str]) -> None:
    """Import what registers environments: ``"module"``, or ``"module:function"``, which is called, too.

    ValueError names one that cannot be imported, has no such function, or fails.
    """
    for name in modules:
        module, colon, function = name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            if colon and name not in _called:
                getattr(found, function)()
                _called.add(name)
        except Exception as error:  # a module of anyone's may raise anything
            raise ValueError(f"imports: {name!r} cannot be imported: {packages.described(error)}") from error


_called: set[str] = set()  # registering twice brings a warning for every id


def find_spec(id: str) -> EnvSpec:
    """The specification registered as `id`; ``"module:Name-v0"`` imports the module first. ValueError without one."""
    module, colon, name = id.rpartition(":")
    try:
        if colon:  # which registers the name, as in gymnasium.make; gymnasium.spec knows no modules
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:  # the last two for a bad module name
        raise ValueError(
            f"env: no environment {id!r} is registered. {error}{hint(id)}{_unregistered(id, error)}"
        ) from error
    except Exception as error:
        raise ValueError(
            f"env: {module}, which {id!r} names, cannot be imported: {packages.described(error)}"
        ) from error


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
    game = id.replace("-ram", "", 1)
    if game != id and game in gymnasium.registry:  # how ale-py called it before version 5
        text = f""" What a game of ale-py shows is an argument: {game!r} with env_kwargs={{"obs_type": "ram"}}."""
    return text + missing_simulator(id, like=near[0] if near else None)


def missing_simulator(id: str, like: str | None = None, *, behind: str = " ") -> str:
    """The command that installs the simulator that an id, or else a near one, needs; nothing where it is installed.

    `behind` stands before it, where there is something to say.
    """
    id = id.rpartition(":")[2]
    spec = gymnasium.registry.get(id) or gymnasium.registry.get(like or "")
    home = f"{id}/{spec.entry_point if spec else ''}"
    for family, (module, command) in _SIMULATORS.items():
        if re.search(rf"(^|[./]){family}[./]", home) and not is_installed(module):
            return f"{behind}{module} is not installed: {command}"
    return ""


def _unregistered(id: str, error: BaseException) -> str:
    """What to type for an id that nothing has registered, where an installed package would."""
    given, _, name = id.rpartition(":")
    if of_gym := _of_gym(name, error):
        return of_gym
    module, command = next((home for start, home in _FAMILIES.items() if re.match(start, name)), ("", ""))
    if not given:
        if module and not is_installed(module):
            return "" if module == "ale_py" else f" {module} is not installed: {command}"  # `hint` has said it
        module = module or packages.naming(name) or ""
    call = None if _has_registered(given or module) else _call_of(given or module)
    if call is not None and (given or module in sys.modules):
        return (
            f" Importing {given or module} registers nothing of this name; want imports=[{call!r}] (--import {call})."
        )
    return f" {module} is installed, but was not imported; want {f'{module}:{name}'!r}." if module and not given else ""


def _of_gym(name: str, error: BaseException) -> str:
    """What to type for an id of gym, Gymnasium's predecessor, that is registered there, or is to be; else nothing."""
    registry = getattr(getattr(sys.modules.get("gym"), "envs", None), "registry", {})
    known = getattr(registry, "env_specs", registry)  # before its version 0.26
    if getattr(error, "name", None) != "gym" and name not in known:
        return ""
    return (
        f" {name!r} is of gym, Gymnasium's predecessor: pip install 'shimmy[gym-v26]'; want "
        f"""'shimmy:GymV26Environment-v0' with env_kwargs={{"env_id": "{name}"}}, or 'shimmy:GymV21Environment-v0' """
        "where its reset takes no seed."
    )


def _has_registered(module: str) -> bool:
    """Whether ids are registered that the package of `module` makes."""
    top = module.partition(".")[0]
    points = (str(spec.entry_point) for spec in gymnasium.registry.values())
    return any(re.match(rf"{re.escape(top)}[.:]", point) for point in points) if top else False


def _call_of(module: str) -> str | None:
    """``module:function`` of what registers the environments of an imported module, where one is found."""
    if not module:
        return None
    declared = packages.registering(module)
    if declared is not None:
        return declared
    values = vars(sys.modules[module]) if module in sys.modules else {}
    names = sorted(name for name, value in values.items() if _registers(name, value))
    return f"{module}:{names[0]}" if names else None


def _registers(name: str, value: Any) -> bool:
    return callable(value) and re.fullmatch(r"register(_\w*)?envs?(ironments)?|register_all", name) is not None


def is_installed(module: str) -> bool:
    """Whether its package can be found; it is not imported."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None
