"""Runs the inputs that Atheris makes.

Usage: python -m tests.fuzz.replaying TARGET ARGUMENT-OF-LIBFUZZER...
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# What is instrumented: to instrument all that is imported takes minutes.
_WATCHED = (
    *("model_file", "saved_state", "saved_policy", "state", "spaces.descriptions", "run_models", "folder_lock"),
    *("progress", "settings", "cli.run_folder", "cli.values", "cli.resuming"),
    *("algorithm.presets", "algorithm.config", "algorithm.sinks", "algorithm.checkpoint"),
)


def one_at_a_time(run: Callable[[bytes, Path], None]) -> Callable[[bytes], None]:
    """`run` in a folder that is empty each time, in that of temporary files."""

    def run_one(data: bytes) -> None:
        folder = Path(tempfile.mkdtemp(prefix="trpo-fuzz-"))
        try:
            run(data, folder)
        finally:
            shutil.rmtree(folder)

    return run_one


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
