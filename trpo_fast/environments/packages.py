"""Installed packages, as their metadata describes them: looked at only where something has failed, as it takes time."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from types import TracebackType

ENTRY_POINTS = "gymnasium.envs"
"""Group in which a package may declare the function that registers its environments."""
_SIMULATORS = ("mujoco", "dm-control", "pybullet", "box2d", "box2d-py", "ale-py", "jax")
# (package, its newest version known to fail, simulator, the simulator's first version that it fails on, way out)
_INCOMPATIBLE = (
    ("dm-control", (1, 0, 50), "mujoco", (4,), "pip install 'mujoco<4'"),
    ("gymnasium-robotics", (1, 4, 2), "mujoco", (3, 12), "pip install 'mujoco<3.12'"),
)
_LARGEST_SOURCE = 2**20  # bytes; a file that registers ids is a list of them
_FOLDERS = re.compile(r"[\\/](?:site|dist)-packages[\\/]")


def version_of(package: str) -> str | None:
    """Of an installed package; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except PackageNotFoundError:
        return None


def is_of_a_package(module: str) -> bool:
    """Whether an imported module belongs to an installed package, and is no user's own."""
    return _FOLDERS.search(getattr(sys.modules.get(module), "__file__", None) or "") is not None


def holding_back(package: str, wanted: tuple[int, ...]) -> list[str]:
    """ "some-package 1.2 (gymnasium==1.0.0)" for each installed one that asks for less than `wanted` of `package`."""
    found = []
    for distribution in importlib.metadata.distributions():
        for requirement in _requirements(distribution):
            bounds = re.findall(r"(==|~=|<=?)\s*([\d.]+\*?)", requirement) if _name_in(requirement) == package else []
            if any(_is_below(kind, bound, wanted) for kind, bound in bounds):
                found.append(f"{distribution.name} {distribution.version} ({requirement})")
    return sorted(found)


def described(error: BaseException) -> str:
    """An exception in one line: its kind and words, versions of the packages behind it, and the way out if known."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    found = {_normalized(distribution.name): distribution.version for distribution in behind(error)}
    if found:
        text += f" (with {', '.join(f'{name} {version}' for name, version in found.items())})"
    for package, last, simulator, first, command in _INCOMPATIBLE:
        both = package in found and simulator in found
        if both and _numbers(found[package]) <= last and _numbers(found[simulator]) >= first:
            known, since = (".".join(map(str, version)) for version in (last, first))
            text += f"; {package} up to {known} does not run on {simulator} from {since} on: {command}"
    return text


def behind(error: BaseException) -> list[Distribution]:
    """The installed packages whose code `error` came through, and the simulators that these need.

    Gymnasium alone is no one's simulator: without another package the list is empty.
    """
    modules = set()
    cause: BaseException | None = error
    while cause is not None:
        modules |= set(_modules(cause.__traceback__))
        cause = cause.__cause__ or cause.__context__
    owners = importlib.metadata.packages_distributions()
    names = {_normalized(name) for module in modules for name in owners.get(module, ())} - {"gymnasium", "trpo-fast"}
    if not names:
        return []
    found = {name: importlib.metadata.distribution(name) for name in names}
    for distribution in list(found.values()):
        for name in {_name_in(requirement) for requirement in _requirements(distribution, extras=True)}:
            if name in _SIMULATORS and name not in found and version_of(name) is not None:
                found[name] = importlib.metadata.distribution(name)
    return [found[name] for name in sorted(found)]


def registering(module: str) -> str | None:
    """The entry point, ``module:function``, by which the package of `module` registers its environments, if any."""
    top = module.partition(".")[0]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry.module.partition(".")[0] == top and entry.attr:
            return f"{entry.module.removesuffix('.__init__')}:{entry.attr}"
    return None


def naming(id: str) -> str | None:
    """The module of an installed package that needs Gymnasium and in whose source `id` stands; None without one."""
    pattern = re.compile(rf"""["']{re.escape(id)}["']""")
    for distribution in importlib.metadata.distributions():
        if any(_name_in(requirement) == "gymnasium" for requirement in _requirements(distribution, extras=True)):
            for module, path in _sources(distribution):
                if pattern.search(path.read_text(errors="replace")):
                    return module
    return None


def _sources(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """(top-level module, file) of the Python files of a package, its tests left out."""
    for file in distribution.files or ():
        top = file.parts[0]
        if file.suffix == ".py" and len(file.parts) > 1 and top.isidentifier() and "test" not in str(file):
            path = Path(str(distribution.locate_file(file)))
            if path.is_file() and path.stat().st_size <= _LARGEST_SOURCE:
                yield top, path


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    """Top-level modules of installed packages in a traceback."""
    while traceback is not None:
        frame = traceback.tb_frame
        if _FOLDERS.search(frame.f_code.co_filename):
            yield str(frame.f_globals.get("__name__", "")).partition(".")[0]
        traceback = traceback.tb_next


def _requirements(distribution: Distribution, extras: bool = False) -> list[str]:
    """Requirements without their markers; those of extras only where wanted."""
    parts = [requirement.partition(";") for requirement in distribution.requires or ()]
    return [name.strip() for name, _, marker in parts if extras or "extra" not in marker]


def _name_in(requirement: str) -> str:
    return _normalized(re.split(r"[\s\[(<>=!~;]", requirement, maxsplit=1)[0])


def _is_below(kind: str, bound: str, wanted: tuple[int, ...]) -> bool:
    """Whether a bound, "<" and "1.1" for example, leaves out `wanted` and all versions after it."""
    numbers = _numbers(bound)
    if kind == "~=" or bound.endswith("*"):  # as many numbers as say which versions: "~=1.0" is "==1.*"
        numbers = numbers[:-1] if kind == "~=" else numbers
        return numbers < wanted[: len(numbers)]
    while numbers and numbers[-1] == 0:
        numbers = numbers[:-1]
    return numbers < wanted or (kind == "<" and numbers == wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
