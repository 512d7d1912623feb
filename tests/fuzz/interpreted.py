"""The modules here that read files, to which Atheris, a libFuzzer for Python, gives inputs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import ROOT, Lines, Target, replaced

NAMES = ("logs", "settings_files", "run_folders", "model_files")


class Interpreted(Target):
    """One of them: a module with `run(data, folder)`, which raises where something is wrong.

    Its MODULES are files of trpo_fast whose lines it is to reach, or of ``file.py:name`` one class or function; its
    PLANTED are a file, a check in it, what stands there without it, and what is said then.
    """

    tool = "Atheris"
    longest = 512
    few_new = 500

    def __init__(self, name: str, package: Path = ROOT) -> None:
        super().__init__(name)
        self._package = package

    @property
    def corpus(self) -> Path:
        return ROOT / "tests" / "fuzz" / "corpus" / f"{self.name}.txt"

    def missing(self) -> str:
        for name in ("atheris", "coverage"):
            if importlib.util.find_spec(name) is None:
                return f"{name} is not installed here, or has no wheel for this Python"
        return ""

    def build(self) -> None:
        pass

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "tests.fuzz.replaying", self.name]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(map(str, (self._package, ROOT)))
        return {**super().environment(), "PYTHONPATH": path, "PYTHONHASHSEED": "0"}

    def lines(self, inputs: Path) -> Lines:
        found = self._measured("lines", inputs)
        for file, lines in found["missing"].items():
            print(f"{self.name}: {file}: not reached {lines}")
        return Lines(found["reached"], found["counted"])

    def fewest(self, *folders: Path) -> list[bytes]:
        return [bytes.fromhex(content) for content in self._measured("fewest", *folders)]

    def _measured(self, kind: str, *folders: Path) -> object:
        command = [sys.executable, "-P", "-m", "tests.fuzz.measuring", kind, self.name, *map(str, folders)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-6000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def without_a_check(self, folder: Path) -> tuple[Interpreted, str]:
        file, check, instead, said = importlib.import_module(f"tests.fuzz.{self.name}").PLANTED
        for path in (ROOT / "trpo_fast").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.symlink_to(path)
        replaced(folder / "trpo_fast" / file, check, instead)
        return Interpreted(self.name, folder), said
