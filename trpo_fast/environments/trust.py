"""What a file may make this process import: nothing but what a person has named.

A model file says which environment its agent was trained in. An id that is registered already, Gymnasium's own among
them, is only a name; one like ``"module:Name-v0"``, a module to import or a wrapper is code, which runs as it is
imported or called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def code_named(id: object, modules: Iterable[str], wrappers: Iterable[object]) -> list[str]:
    """What an environment would import, by the modules' full names: of its id, of `modules`, of wrappers."""
    named = [id.rpartition(":")[0]] if isinstance(id, str) else []
    named += [name.partition(":")[0] for name in modules]
    named += [name.rpartition(":")[0] for name in wrappers if isinstance(name, str)]
    return [name for name in dict.fromkeys(named) if name not in ("", "gymnasium.wrappers")]


def require_trust(code: Sequence[str], trusted: Iterable[str] | None) -> None:
    """ValueError where `code` names a module that is not among the `trusted`; None trusts all."""
    if trusted is None:
        return
    allowed = {name.partition(":")[0] for name in trusted}
    unknown = [name for name in code if not allowed & set(_and_above(name))]
    if unknown:
        unknown = [
            name for name in unknown if set(_and_above(name)) & set(unknown) == {name}
        ]  # packages, not their parts
        options = " ".join(f"--import {name}" for name in unknown)
        raise ValueError(
            f"environment: the file would import {', '.join(unknown)}, and a file is not trusted with code; want "
            f"imports={unknown}, or trust_environment=True for all that it names (on the command line {options}, or "
            "--trust)"
        )


def _and_above(module: str) -> Iterator[str]:
    """A module and the packages it lies in."""
    while module:
        yield module
        module = module.rpartition(".")[0]
