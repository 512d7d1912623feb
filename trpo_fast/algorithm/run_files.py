"""Whose the files are that callbacks find in a folder, before any of them is changed."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trpo_fast.algorithm import checkpoint
from trpo_fast.gymnasium_spaces import space_to_json
from trpo_fast.model_file import ModelFileError, read_metadata
from trpo_fast.run_models import progress_of

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


def require_writable(name: str, folder: Path) -> None:
    """OSError, about the argument `name`, where no file could be made in a folder, or in the one to make it in."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):  # permission bits do not tell for root or network drives
            pass
    except OSError as error:
        raise unwritable(name, folder, error) from error


def unwritable(name: str, folder: Path, error: OSError) -> OSError:
    """What to raise, about the argument `name`, where a folder cannot be written."""
    return OSError(error.errno, f"{name}: {folder} cannot be written: {error.strerror or error}")


def set_aside(path: Path) -> Path:
    """Give a file a name that says that it was before, and that no other has; the new path."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.before{'' if number == 1 else f'-{number}'}")
        if not aside.exists():
            return path.replace(aside)
    raise AssertionError  # there are more numbers than files


def refuse_farther(paths: Sequence[Path], agent: TRPO) -> list[tuple[Path, ModelFileError]]:
    """ValueError where one of the files, which are farther than the agent, is sound; the damaged ones are nobody's."""
    damaged = []
    for path in paths:
        error = damage_of(path)
        if error is not None:
            damaged.append((path, error))
        else:
            raise ValueError(
                f"folder: {path} is farther than this agent, which has {agent.total_timesteps:,} timesteps: it is "
                "of another run; want a folder for each, or TRPO.load of that one to go on with it"
            )
    return damaged


def refuse_others(paths: Iterable[Path], agent: TRPO, name: str = "folder", want: str = "a folder for each") -> None:
    """ValueError, about the argument `name`, where one of the files is of another run."""
    for path in paths:
        difference = _another_run(path, agent)
        if difference:
            raise ValueError(f"{name}: {path} is of another run: {difference}; want {want}")


def _another_run(path: Path, agent: TRPO) -> str:
    """Of a file's seed and environment what is not this agent's; "" where that is none, or the file cannot be read."""
    try:
        saved = read_metadata(path)
    except (OSError, ModelFileError):
        return ""
    if saved.get("seed") != agent.seed:
        return f"its seed is {saved.get('seed')}, this agent's {agent.seed}"
    ids = [recipe.get("id") if recipe else None for recipe in (saved.get("environment"), _recipe_of(agent))]
    if None not in ids and ids[0] != ids[1]:
        return f"its environment is {ids[0]}, this agent's {ids[1]}"
    for kind, space in ("observation", agent.observation_space), ("action", agent.action_space):
        if saved.get(f"{kind}_space") != json.loads(json.dumps(space_to_json(space))):
            return f"its {kind}s are other ones"
    return ""


def _recipe_of(agent: TRPO) -> Mapping[str, Any] | None:
    return None if agent.recipe is None else agent.recipe.to_json()


def damage_of(path: Path) -> ModelFileError | None:
    """What is wrong with the file of an agent; None for a sound one."""
    try:
        checkpoint.read(path)
    except ModelFileError as error:
        return error
    return None


def timesteps_of(path: Path) -> float:
    """Of the agent in a file; infinity where that cannot be read."""
    try:
        return progress_of(path).timesteps
    except ModelFileError:
        return math.inf
