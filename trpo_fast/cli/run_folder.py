"""A run is a folder; this is what lies where, and how a folder is taken for a new run or an old one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from trpo_fast.algorithm.config import POSITIVE_INTEGER
from trpo_fast.cli.arguments import TIMESTEPS
from trpo_fast.cli.errors import CommandError, user_errors
from trpo_fast.settings import checked


class RunFolder:
    """Paths of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.progress = self.path / "progress.csv"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model.trpo"
        self.curve = self.path / "curve.png"

    def refuse_if_used(self) -> None:
        """CommandError where a new run would mix with what lies here already."""
        with user_errors():
            if self.path.exists() and not self.path.is_dir():
                raise CommandError(f"--out: {self.path} is a file; want a new or empty folder")
            if self.path.exists() and any(self.path.iterdir()):
                raise CommandError(
                    f"--out: {self.path} exists and is not empty; want a new or empty folder, or --resume {self.path}"
                )

    def make(self) -> None:
        """Create the folder; CommandError where it cannot be written."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):  # permission bits do not tell for root or network drives
                pass
        except OSError as error:
            raise CommandError(f"folder {self.path} cannot be written: {error.strerror or error}") from error

    def latest_checkpoint(self) -> Path:
        """The checkpoint with the most timesteps; CommandError where there is none."""
        with user_errors():
            if not self.path.is_dir():
                raise CommandError(f"run: {self.path} given; want a run's folder, and there is none")
            # Names are zero-padded timesteps.
            found = max(self.checkpoints.glob("*.trpo"), default=self.model if self.model.exists() else None)
        if found is None:
            raise CommandError(f"run: {self.path} holds neither checkpoints/*.trpo nor model.trpo")
        return found

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

    def timesteps(self) -> int:
        """Steps of the whole run as ``config.json`` says; CommandError where that is no number of steps."""
        try:
            return int(checked("timesteps", self.read_config().get("timesteps", TIMESTEPS), POSITIVE_INTEGER))
        except ValueError as error:
            raise CommandError(f"{self.config} is damaged: {error}") from error

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
        temporary = self.config.with_suffix(".json.new")
        try:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
            os.replace(temporary, self.config)
        except OSError as error:
            raise CommandError(f"{self.config} cannot be written: {error.strerror or error}") from error


def model_of(run: str) -> Path:
    """The model file that a RUN argument means: the file itself, the run's model.trpo, or its latest checkpoint."""
    path = Path(run)
    with user_errors():
        if path.is_file():
            return path
        folder = RunFolder(path)
        return folder.model if folder.model.exists() else folder.latest_checkpoint()
