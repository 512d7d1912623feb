"""A run is a folder; this is what lies where, and how a folder is taken for a new run or an old one."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from trpo_fast import folder_lock, model_file
from trpo_fast.algorithm.config import CHECKPOINTS_KEPT, LOG, POSITIVE_INTEGER
from trpo_fast.cli.arguments import EVAL_EPISODES, TIMESTEPS
from trpo_fast.cli.errors import CommandError, user_errors
from trpo_fast.cli.values import read_json_object
from trpo_fast.folder_lock import FolderInUse, FolderLock
from trpo_fast.run_models import CHECKPOINTS, MODEL, checkpoint_name, read_latest
from trpo_fast.settings import COUNT, Rule, checked

Read = TypeVar("Read")

RUN_OPTIONS: Mapping[str, tuple[Rule, Any]] = {
    "timesteps": (POSITIVE_INTEGER, TIMESTEPS),
    "checkpoint_every": (POSITIVE_INTEGER, None),
    "keep_checkpoints": (COUNT, CHECKPOINTS_KEPT),
    "eval_episodes": (COUNT, EVAL_EPISODES),
    "threads": (POSITIVE_INTEGER, None),
    "log": (LOG, None),
}
"""Options of ``train`` that ``config.json`` keeps beside the settings, and that may change on resume: rule, default."""


def usual_path(before: str, env: str, behind: str) -> Path:
    """Below ``runs``: the environment's id as a file may be called, between these words, and the time."""
    name = env.replace("/", "-").replace(":", "-")
    return Path("runs") / f"{before}{name}{behind}-{time.strftime('%Y%m%d-%H%M%S')}"


class RunFolder:
    """Paths of one run, and the folder's being one process's alone.

    Attributes
    ----------
    path
        As it was given, to be read and typed.
    place
        The same from the root on, as all files below: an environment may change the working folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.place = self.path.absolute()
        self.config = self.place / "config.json"
        self.progress = self.place / "progress.csv"
        self.checkpoints = self.place / CHECKPOINTS
        self.model = self.place / MODEL
        self.curve = self.place / "curve.png"
        self.error = self.place / "error.txt"  # what ended the training, where that failed
        self._lock: FolderLock | None = None
        self._made = False
        self._new = False

    def shown(self, file: Path) -> Path:
        """A file of the run, as the run was given."""
        return self.path / file.relative_to(self.place)

    @property
    def is_in_place(self) -> bool:
        """Whether the folder that was taken still has its name: it may be renamed or removed while a run is in it."""
        return self._lock is not None and self._lock.is_in_place

    @property
    def is_new(self) -> bool:
        """Whether all that lies here is this process's: the folder was claimed for a new run."""
        return self._new

    def refuse_if_used(self) -> None:
        """CommandError where a new run would mix with what lies here already."""
        with user_errors():
            if self.place.exists() and not self.place.is_dir():
                raise CommandError(f"--out: {self.path} is a file; want a new or empty folder")
            if not self.place.exists() or self._is_unused():
                return
            if self.config.exists() and (self.place / folder_lock.NAME).exists():
                self._take("--out")  # names the process where there is one
                self.release()
            raise CommandError(
                f"--out: {self.path} exists and is not empty; want a new or empty folder, or --resume {self.path}"
            )

    def _is_unused(self) -> bool:
        """Whether nothing lies here but what a start that was killed before its end has left."""
        left = {path.name for path in self.place.iterdir()} - {folder_lock.NAME}
        if left - {CHECKPOINTS} or not (left and self.checkpoints.is_dir()):
            return not left
        first = checkpoint_name(0)
        return all(path.name == first or path.name.startswith(f".{first}.") for path in self.checkpoints.iterdir())

    def claim_new(self) -> None:
        """Make the folder and take it for this process, or take an empty one; CommandError where it is another's."""
        self._make()
        self._take("--out")
        try:
            with user_errors():
                if not self._is_unused():
                    raise CommandError(f"--out: {self.path} is a run by now; want a new or empty folder")
        except BaseException:
            self.release()
            raise
        self._new = True
        try:
            self.prepare()
        except BaseException:
            self.discard()
            raise

    def claim_old(self) -> None:
        """Take the folder of a run that is to go on; CommandError where another process has it, or it is no run's.

        Nothing is changed in it but its lock: what follows is :meth:`prepare`.
        """
        with user_errors():
            if not self.place.is_dir():
                raise CommandError(f"run: {self.path} given; want a run's folder, and there is none")
            if not self._is_unused():  # a start under way has the lock before config.json
                self.read_config()  # in another folder a lock of that name is another program's
        self._take("--resume")

    def share_with(self, agent: Any) -> None:
        """Let the callbacks of this agent's training take the folder, too."""
        if self._lock is not None:
            self._lock.pass_to(agent)

    def release(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Remove what a new run left here, so that the folder serves for another try; an old run is only let go.

        So is a folder that was renamed, or removed: one that has its name now is another's.
        """
        if not self._new or not self.is_in_place:
            self.release()
            return
        names = (
            "config.json",
            "config.json.new",
            "progress.csv",
            "progress.csv.new",
            "progress.jsonl",
            "error.txt",
            MODEL,
        )
        with suppress(OSError):
            model_file.remove_unfinished(self.checkpoints)
            first = self.checkpoints / checkpoint_name(0)
            for path in (first, *(self.place / name for name in names), *self.place.glob("events.out.tfevents.*")):
                with suppress(OSError):
                    path.unlink()
            self.checkpoints.rmdir()
        self.release()
        if self._made:
            with suppress(OSError):
                self.place.rmdir()

    def numbered(self, number: int) -> RunFolder:
        """The folder beside this one that has a number behind its name."""
        folder = RunFolder(self.place.with_name(f"{self.path.name}-{number}"))
        folder.path = self.path.with_name(folder.place.name)
        return folder

    def _make(self) -> None:
        with self._named_if_unwritable():
            try:
                self.place.mkdir(parents=True)
                self._made = True
            except FileExistsError:
                if not self.place.is_dir():
                    raise

    def _take(self, option: str) -> None:
        lock = FolderLock(self.place, self)
        with self._named_if_unwritable():
            try:
                lock.acquire()
            except FolderInUse as error:
                raise CommandError(f"{option}: {self.path} is in use by {error}; want one run in a folder") from None
        self._lock = lock

    def prepare(self) -> None:
        """Make ready for files: remove what saves of a killed process left; CommandError where none can be written."""
        with self._named_if_unwritable():
            self.checkpoints.mkdir(exist_ok=True)
            for folder in (self.place, self.checkpoints):
                model_file.remove_unfinished(folder)
            with tempfile.TemporaryFile(dir=self.place):  # permission bits do not tell for root or network drives
                pass

    @contextmanager
    def _named_if_unwritable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(f"folder {self.path} cannot be written: {error.strerror or error}") from error

    def read_config(self) -> dict[str, Any]:
        """What ``config.json`` says; CommandError where it is missing, damaged or unreadable."""
        try:
            return read_json_object(self.config, self.shown(self.config))
        except FileNotFoundError:
            raise CommandError(f"run: {self.path} holds no config.json, so it is no run of trpo-fast train") from None

    def options(self) -> dict[str, Any]:
        """Each of RUN_OPTIONS as ``config.json`` has it; CommandError for no number.

        The default where it does not have it, as it is older; but for the timesteps, which every one has.
        """
        content, found = self.read_config(), {}
        try:
            if "timesteps" not in content:
                raise ValueError("timesteps: missing; want the steps of the whole run")
            for name, (rule, default) in RUN_OPTIONS.items():
                value = content.get(name, default)
                found[name] = None if value is None and default is None else checked(name, value, rule)
        except ValueError as error:
            raise CommandError(f"{self.shown(self.config)} is damaged: {error}") from error
        return found

    def environment_id(self) -> str:
        """The environment as ``config.json`` names it; CommandError for no name.

        "environment" where it does not, or where there is none: RunLogger alone writes no such file.
        """
        environment = self.read_config().get("environment") if self.config.exists() else None
        if environment is None:
            return "environment"
        if not isinstance(environment, dict) or not isinstance(environment.get("id"), str):
            raise CommandError(
                f"{self.shown(self.config)} is damaged: environment: {environment!r} given; want an object with id"
            )
        return str(environment["id"])

    def write_config(self, content: dict[str, Any]) -> None:
        """Write ``config.json``; CommandError where that fails."""
        try:
            model_file.replace_file(self.config, (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            raise CommandError(f"{self.shown(self.config)} cannot be written: {error.strerror or error}") from error


def claimed_by_name(first: RunFolder) -> RunFolder:
    """`first`, as a new folder, or, as another run may be called so, one with a number behind its name."""
    for number in itertools.count(1):
        folder = first if number == 1 else first.numbered(number)
        if not folder.place.exists():
            folder._make()
            if folder._made:
                folder.claim_new()
                return folder
    raise AssertionError  # there are more numbers than folders


def latest_of(run: str, read: Callable[[Path], Read]) -> Read:
    """``read(file)`` of the file that a RUN argument means, itself or of a folder the latest; CommandError for none."""
    with user_errors():
        if not Path(run).exists():
            raise CommandError(f"run: {run} given; want a run's folder, or a model file, and there is none")
        return read_latest(run, read, "run")
