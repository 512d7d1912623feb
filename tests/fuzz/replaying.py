"""Runs inputs of a target: those of files, or, as a program, those that Atheris makes.

Usage: python -m tests.fuzz.replaying TARGET ARGUMENT-OF-LIBFUZZER...
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

# What is instrumented: to instrument all that is imported takes minutes.
_WATCHED = [
    *(
        "model_file",
        "saved_state",
        "saved_policy",
        "state",
        "spaces.descriptions",
        "run_models",
        "folder_lock",
        "progress",
    ),
    *(
        "settings",
        "cli.run_folder",
        "cli.values",
        "cli.resuming",
        "algorithm.presets",
        "algorithm.config",
        "algorithm.sinks",
    ),
    "algorithm.checkpoint",
]


def one_at_a_time(run: Callable[[bytes, Path], None]) -> Callable[[bytes], None]:
    """`run` in a folder that is empty each time."""
    base = Path(tempfile.mkdtemp(prefix="trpo-fuzz-"))

    def run_one(data: bytes) -> None:
        folder = base / "one"
        folder.mkdir()
        try:
            run(data, folder)
        finally:
            shutil.rmtree(folder)

    return run_one


def replay(name: str, paths: Iterable[Path]) -> None:
    """Run inputs of files; what one raises has its name."""
    run = one_at_a_time(importlib.import_module(f"tests.fuzz.{name}").run)
    for path in paths:
        try:
            run(path.read_bytes())
        except Exception as error:
            error.add_note(f"input {path}")
            raise


def reaching(name: str, include: str, *folders: str) -> list[Path]:
    """Of the inputs in folders, the smallest first, those that reach a branch of these files that none before did."""
    import coverage

    run = one_at_a_time(importlib.import_module(f"tests.fuzz.{name}").run)
    known: set[tuple[str, tuple[int, int]]] = set()
    kept = []
    paths = [path for folder in folders for path in Path(folder).iterdir()]
    for path in sorted(paths, key=lambda path: (path.stat().st_size, path.name)):
        measured = coverage.Coverage(data_file=None, branch=True, include=include.split(","))
        with measured.collect():
            run(path.read_bytes())
        data = measured.get_data()
        found = {(file, arc) for file in data.measured_files() for arc in data.arcs(file) or ()}
        if found - known:
            known |= found
            kept.append(path)
    return kept


def main() -> None:
    """See the top of this file."""
    import atheris

    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=[f"trpo_fast.{module}" for module in _WATCHED]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup([sys.argv[0], *arguments], one_at_a_time(target.run))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
