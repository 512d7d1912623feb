"""A run is a folder; this is what lies where, and how a folder is taken for a new run or an old one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from trpo_fast import folder_lock, model_file
from trpo_fast.algorithm.config import CHECKPOINTS_KEPT, POSITIVE_INTEGER
from trpo_fast.cli.arguments import EVAL_EPISODES, TIMESTEPS
from trpo_fast.cli.errors import CommandError, user_errors
from trpo_fast.folder_lock import FolderInUse, FolderLock
from trpo_fast.run_models import CHECKPOINTS, MODEL, checkpoint_name, read_latest
from trpo_fast.settings import COUNT, Rule, checked

Read = TypeVar("Read")

RUN_OPTIONS: Mapping[str, tuple[Rule, int | None]] = {
    "timesteps": (POSITIVE_INTEGER, TIMESTEPS),
    "checkpoint_every": (POSITIVE_INTEGER, None),
    "keep_checkpoints": (COUNT, CHECKPOINTS_KEPT),
    "eval_episodes": (COUNT, EVAL_EPISODES),
    "threads": (POSITIVE_INTEGER, None),
}
"""Options of ``train`` that ``config.json`` keeps beside the settings, and that may change on resume: rule, default."""


class RunFolder:
    """Paths of one run, and the folder's being one process's alone."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.progress = self.path / "progress.csv"
        self.checkpoints = self.path / CHECKPOINTS
        self.model = self.path / MODEL
        self.curve = self.path / "curve.png"
        self._lock: FolderLock | None = None
        self._made = False
        self._new = False

    @property
    def is_new(self) -> bool:
        """Whether all that lies here is this process's: the folder was claimed for a new run."""
        return self._new

    def refuse_if_used(self) -> None:
        """CommandError where a new run would mix with what lies here already."""
        with user_errors():
            if self.path.exists() and not self.path.is_dir():
                raise CommandError(f"--out: {self.path} is a file; want a new or empty folder")
            if not self.path.exists() or self._is_unused():
                return
            if self.config.exists() and (self.path / folder_lock.NAME).exists():
                self._take("--out")  # names the process where there is one
                self.release()
            raise CommandError(
                f"--out: {self.path} exists and is not empty; want a new or empty folder, or --resume {self.path}"
            )

    def _is_unused(self) -> bool:
        """Whether nothing lies here but what a start that was killed before its end has left."""
        left = {path.name for path in self.path.iterdir()} - {folder_lock.NAME}
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
            if not self.path.is_dir():
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
        """Remove what a new run left here, so that the folder serves for another try; an old run is only let go."""
        if not self._new:
            self.release()
            return
        names = ("config.json", "config.json.new", "progress.csv", "progress.csv.new", MODEL)
        with suppress(OSError):
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            for path in (*(self.path / name for name in names), *self.path.glob("events.out.tfevents.*")):
                with suppress(OSError):
                    path.unlink()
        self.release()
        if self._made:
            with suppress(OSError):
                self.path.rmdir()

    def _make(self) -> None:
        with self._named_if_unwritable():
            try:
                self.path.mkdir(parents=True)
                self._made = True
            except FileExistsError:
                if not self.path.is_dir():
                    raise

    def _take(self, option: str) -> None:
        lock = FolderLock(self.path, self)
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
            for folder in (self.path, self.checkpoints):
                model_file.remove_unfinished(folder)
            with tempfile.TemporaryFile(dir=self.path):  # permission bits do not tell for root or network drives
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
            content = json.loads(self.config.read_text())
        except FileNotFoundError:
            raise CommandError(f"run: {self.path} holds no config.json, so it is no run of trpo-fast train") from None
        except OSError as error:
            raise CommandError(f"{self.config} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise CommandError(f"{self.config} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise CommandError(f"{self.config} is damaged: a JSON object is wanted")
        return content

    def options(self) -> dict[str, int | None]:
        """Each of RUN_OPTIONS as ``config.json`` has it, the default where it does not; CommandError for no number."""
        content, found = self.read_config(), {}
        try:
            for name, (rule, default) in RUN_OPTIONS.items():
                value = content.get(name, default)
                found[name] = None if value is None and default is None else checked(name, value, rule)
        except ValueError as error:
            raise CommandError(f"{self.config} is damaged: {error}") from error
        return found

    def environment_id(self) -> str:
        """The environment as ``config.json`` names it, "environment" where it does not; CommandError for no name."""
        environment = self.read_config().get("environment")
        if environment is None:
            return "environment"
        if not isinstance(environment, dict) or not isinstance(environment.get("id"), str):
            raise CommandError(f"{self.config} is damaged: environment: {environment!r} given; want an object with id")
        return str(environment["id"])

    def write_config(self, content: dict[str, Any]) -> None:
        """Write ``config.json``; CommandError where that fails."""
        try:
            model_file.replace_file(self.config, (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            raise CommandError(f"{self.config} cannot be written: {error.strerror or error}") from error


def claimed_by_name(path: Path) -> RunFolder:
    """A new folder called `path`, or, as another run may be called so, `path` with a number behind it."""
    for number in itertools.count(1):
        folder = RunFolder(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        if not folder.path.exists():
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
