"""What ``trpo-fast envs`` asks of Gymnasium, in a process of its own: ``python -m trpo_fast.cli.survey REQUEST``.

The command itself then answers from what was kept without importing Gymnasium, and a simulator that crashes takes
nobody with it. The request is JSON; answers are lines of JSON, on the first process's pipe alone: packages print what
they like while they are imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from trpo_fast.environments import packages
from trpo_fast.environments.registry import (
    families,
    import_modules,
    is_installed,
    load_entry_point,
    missing_simulator,
)

_BRACES = str.maketrans("(|)", "{,}")  # a pattern as shells write it


def listed(imports: list[str]) -> Iterator[dict[str, Any]]:
    """Every id that is registered, then those that known packages which are installed register when imported.

    Each has ``id``, as ``train`` takes it, ``missing``, why it cannot be made or None, and ``newer``, an id or None.
    Of packages that are not installed there is one for all their ids, ``family`` the pattern that these begin with.
    """
    import_modules(imports)
    known: set[str] = set()
    yield from _new(known, "")
    for pattern, module, command in families():
        of_all = {"id": pattern.translate(_BRACES) + "*", "family": pattern, "newer": None}
        if not is_installed(module):
            yield {**of_all, "missing": f"{module} is not installed: {command}"}
            continue
        try:
            import_modules([module])
        except ValueError as error:
            yield {**of_all, "missing": str(error)}
        else:
            yield from _new(known, f"{module}:")


def _new(known: set[str], module: str) -> Iterator[dict[str, Any]]:
    """What has been registered besides what is `known`, to which it is added."""
    why: dict[Any, str | None] = {}
    specs = {id: spec for id, spec in gymnasium.registry.items() if id not in known}
    known |= specs.keys()
    newest: dict[tuple[Any, str], EnvSpec] = {}
    for spec in gymnasium.registry.values():
        own = newest.get((spec.namespace, spec.name))
        if spec.version is not None and (own is None or (own.version or 0) < spec.version):
            newest[spec.namespace, spec.name] = spec
    for id, spec in sorted(specs.items()):
        if spec.entry_point not in why:
            why[spec.entry_point] = _why_not(id, spec.entry_point)
        latest = newest.get((spec.namespace, spec.name), spec)
        newer = None if latest.id == id else latest.id
        yield {"id": f"{module}{id}", "missing": why[spec.entry_point], "newer": newer}


def _why_not(id: str, entry_point: Any) -> str | None:
    """Why what is registered cannot be loaded; None where it can."""
    try:
        if isinstance(entry_point, str):
            load_entry_point(entry_point)
        elif getattr(entry_point, "__name__", "").startswith("_raise_"):  # Gymnasium's for what it has no more
            entry_point()
    except Exception as error:  # of anyone's module
        text = str(error) if isinstance(error, ImportError) else packages.described(error)
        missing = missing_simulator(id, behind="; ")
        return f"{text.splitlines()[0] if text else type(error).__name__}{missing}"
    return None


def checked(id: str) -> dict[str, Any]:
    """What becomes of it in training: an agent is made, and its environment reset once."""
    from trpo_fast.algorithm.trpo import TRPO  # a second that a list without --check does not take

    try:
        agent = TRPO(id, num_envs=1, warm_up_steps=0, preset=None, ranks=None)
        try:
            if agent.environments is not None:
                agent.environments.reset(0)
            found = {"observations": str(agent.observation_space), "actions": str(agent.action_space)}
            found |= {"policy": type(agent.policy).__name__, "engine": agent.engine.name}
        finally:
            agent.close()
    except Exception as error:
        return {"id": id, "missing": packages.described(error).splitlines()[0]}
    return {"id": id, "missing": None, **found}


def main(request: Mapping[str, Any]) -> None:
    """Answer one request: ``imports`` and, where they are to be checked, ``ids``."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    imports = list(request["imports"])
    if "ids" in request:
        import_modules(imports)
        found: Iterator[dict[str, Any]] = map(checked, request["ids"])
    else:
        found = listed(imports)
    for one in found:
        print(json.dumps(one), file=answers, flush=True)
    print(json.dumps({"end": True}), file=answers, flush=True)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
