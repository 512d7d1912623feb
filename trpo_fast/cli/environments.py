"""What commands do with the environment that a file names: nothing unseen, and no code that was not named here."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.output import say
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.ranks import Ranks

ANY_CPU: dict[str, Any] = {"fisher_precision": "float32", "critic_precision": "float32"}
"""What to load an agent with that only acts."""


def import_from_here() -> None:
    """Let modules of the working folder be imported by name, as ``python -m`` does; installed ones come first."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)


def loaded(
    path: Path,
    arguments: argparse.Namespace,
    env_kwargs: Any = None,
    wrappers: Any = None,
    *,
    quiet: bool = False,
    ranks: Ranks | None = None,
    **settings: Any,
) -> TRPO:
    """The agent in `path`, whose environment can be made: what is known of it has been printed to stderr.

    `env_kwargs` and `wrappers`, as a person gives them, and `settings` take the place of the file's. ValueError where
    the file names code that ``--import`` and ``--trust`` do not allow, or no environment that they could be of.
    """
    agent = TRPO.load(path, imports=arguments.imports, trust_environment=arguments.trust, ranks=ranks, **settings)
    if agent.recipe is not None:
        agent.recipe = agent.recipe.with_changes(None, env_kwargs, wrappers)
        if not quiet:
            show(agent.recipe)
        agent.recipe.require_trust()
    elif env_kwargs is not None or wrappers is not None:
        name, value = ("--wrapper", wrappers) if env_kwargs is None else ("--env-kwargs", env_kwargs)
        raise ValueError(
            f"{name}: {value} given, but {path} names no environment; want agent.evaluate(env=...) in Python"
        )
    return agent


def show(recipe: EnvironmentRecipe) -> None:
    """Print what a file says of making an environment, where that is more than an id."""
    parts = {
        "env_kwargs": dict(recipe.env_kwargs),
        "wrappers": list(recipe.wrappers or ()),
        "imports": list(recipe.modules),
    }
    said = ", ".join(f"{name} {value}" for name, value in parts.items() if value)
    if said:
        say(f"{recipe.name}: {said}", sys.stderr)


def require_said_again(recipe: EnvironmentRecipe, env: str, env_kwargs: Any, wrappers: Any) -> None:
    """CommandError where `env` takes the place of a run's environment and nothing is said in place of its arguments."""
    unsaid = recipe.unsaid(env_kwargs, wrappers)
    nothing = {"env_kwargs": "--env-kwargs '{}'", "wrappers": "--wrapper none"}
    options = [nothing[name].partition(" ")[0] for name in unsaid]
    if unsaid:
        raise CommandError(
            f"{', '.join(options)}: none given for {env}; the run's {recipe.name} was made with "
            f"{' and '.join(map(str, unsaid.values()))}; want {' and '.join(options)} for this one, "
            f"{' '.join(nothing[name] for name in unsaid)} for none"
        )


def require_workers(vectorization: str | None, num_workers: int | None) -> None:
    """CommandError where a number of workers is given, and none step the environments."""
    if num_workers is not None and vectorization != "workers":
        raise CommandError(f"--num-workers: {num_workers} given; want it with --vectorization workers alone")


def import_options(recipe: EnvironmentRecipe | None) -> str:
    """``--import`` for each module that a file with this recipe would ask for, with a space in front."""
    if recipe is None:
        return ""
    called = [name for name in recipe.modules if ":" in name]
    modules = [name for name in recipe.code if name not in {call.partition(":")[0] for call in called}]
    return "".join(f" --import {shlex.quote(name)}" for name in (*called, *modules))
