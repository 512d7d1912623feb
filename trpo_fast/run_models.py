"""The model files in the folder of a run, and the one rule for which of them is the latest.

The latest is the one whose metadata count the most timesteps, be it ``model.trpo`` or one of ``checkpoints/*.trpo``, at
the same count ``model.trpo``; of a folder of checkpoints alone, one of those that are called by a number.
``checkpoints/best.trpo`` is a copy of one of them, and never the latest. What cannot be read is passed over, for the
next, and named in a warning where it may have been newer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from trpo_fast import model_file
from trpo_fast._core.library import in_words
from trpo_fast.model_file import ModelFileError
from trpo_fast.settings import COUNTER, checked

MODEL = "model.trpo"
CHECKPOINTS = "checkpoints"
BEST = "best.trpo"

Read = TypeVar("Read")


def checkpoint_name(timesteps: int) -> str:
    """Of the checkpoint after so many timesteps: zeros in front let names sort as numbers do."""
    return f"{timesteps:012d}.trpo"


def run_folder_of(checkpoints: Path) -> Path:
    """The folder of the run whose checkpoints lie here: the one around it, where that is what a run calls it."""
    return checkpoints.parent if checkpoints.name == CHECKPOINTS else checkpoints


class Progress(NamedTuple):
    """How far training had come when a file was written; a later moment compares as greater."""

    timesteps: int  # in all, also before a call of learn counted from 0 again
    updates: int


def read_latest(path: str | os.PathLike[str], read: Callable[[Path], Read], name: str = "path") -> Read:
    """``read(file)`` for the model file that `path` means: the file itself, or of a run's folder the latest.

    Of a folder the latest is the newest that `read` takes: what it refuses by a ModelFileError is passed over. Errors
    call the argument `name`.

    Raises
    ------
    TypeError
        No path is given.
    FileNotFoundError
        The folder holds no model.
    ModelFileError
        None of those that it holds can be read, or the file given cannot.
    """
    given = model_file.checked_path(name, path)
    if not given.is_dir():
        return read(given)
    damaged: list[tuple[Path, ModelFileError]] = []
    for file, progress in newest_first(given, damaged):
        try:
            found = read(file)
        except FileNotFoundError:
            if file.exists():
                raise  # something else than the file is missing
            continue  # removed since it was listed, as old checkpoints of a run under way are
        except ModelFileError as error:
            damaged.append((file, error))
            continue
        _warn_of(damaged, file, progress)
        return found
    best = "".join(f"; {path}, the best of training, can be: give its path to take it" for path in _sound_bests(given))
    if damaged:
        said = "; ".join(str(error) for _, error in damaged)
        raise ModelFileError(f"{name}: the folder {given} holds no model that can be read: {said}{best}")
    raise FileNotFoundError(
        f"{name}: the folder {given} given; want a model file, or the folder of a run with {MODEL} or "
        f"{CHECKPOINTS}/*.trpo in it, or of checkpoints{best}"
    )


def _sound_bests(folder: Path) -> list[Path]:
    """Of files that are never the latest those whose metadata can be read."""
    found = []
    for path in (folder / CHECKPOINTS / BEST, folder / BEST):
        with suppress(OSError, ModelFileError):
            progress_of(path)
            found.append(path)
    return found


def newest_first(folder: Path, damaged: list[tuple[Path, ModelFileError]] | None = None) -> list[tuple[Path, Progress]]:
    """Model files of a run and how far each had come; those whose metadata cannot be read are added to `damaged`."""
    found = []
    files = [
        folder / MODEL,
        *(path for path in folder.glob(f"{CHECKPOINTS}/*.trpo") if path.name != BEST),
        *(path for path in folder.glob("*.trpo") if path.stem.isdecimal()),  # a folder of checkpoints
    ]
    for path in files:
        try:
            found.append((path, progress_of(path)))
        except FileNotFoundError:
            continue
        except ModelFileError as error:
            if damaged is not None:
                damaged.append((path, error))
    return sorted(found, key=lambda one: (one[1], one[0].name == MODEL, one[0].name), reverse=True)


def progress_of(path: Path) -> Progress:
    """What a file's metadata say; ModelFileError where they say nothing that counts."""
    metadata = model_file.read_metadata(path)
    with model_file.damage_named(path):
        counters = metadata.get("counters")
        if not isinstance(counters, Mapping):
            raise ValueError(f"counters: {in_words(counters)} given; want an object with num_timesteps")
        names = ("num_timesteps", "earlier_timesteps", "num_updates")
        # Those written before some of them was counted lack it.
        counted = [checked(f"counters.{name}", counters.get(name, 0), COUNTER) for name in names]
    return Progress(counted[0] + counted[1], counted[2])


def _warn_of(damaged: list[tuple[Path, ModelFileError]], taken: Path, progress: Progress) -> None:
    """Name what may be newer than the file that was taken: all but checkpoints whose name has fewer timesteps."""
    newer = [
        str(error) for file, error in damaged if not (file.stem.isdecimal() and int(file.stem) < progress.timesteps)
    ]
    if newer:
        warnings.warn(f"{'; '.join(newer)}; taken instead: {taken}, at {progress.timesteps:,} timesteps", stacklevel=3)
