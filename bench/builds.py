"""Another build of the package beside this one, and processes that do a round of work when they are asked to.

What compares builds alternates between such processes: each waits while another works.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "8f97cf5"  # the last build before environments were shared out to workers and the core was made anew


@contextmanager
def checkout(against: str) -> Iterator[Path]:
    """A folder with a built package: `against` itself, or the revision of that name, built for as long as it takes."""
    if _is_checkout(against):
        yield Path(against).resolve()
        return
    # An archive, not a worktree: the repository knows nothing of it, however this process ends.
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=zip", against], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise SystemExit(f"--against: {against} given; want a revision, or a checkout that is built")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
            archive.extractall(tree)
        build = [sys.executable, "setup.py", "--quiet", "build_clib", "build_ext", "--inplace"]
        subprocess.run(build, cwd=tree, check=True)
        yield tree


def revision(against: str) -> str:
    """The commit of a checkout, or the revision that was named."""
    where, name = (Path(against), "HEAD") if _is_checkout(against) else (ROOT, against)
    found = subprocess.run(["git", "-C", str(where), "rev-parse", "--short", name], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def _is_checkout(against: str) -> bool:
    return (Path(against) / "trpo_fast").is_dir()


class Worker:
    """A process that runs a file of this folder with the package of `checkout`, and answers lines of JSON with such.

    Its command is `python`, by default this interpreter, the file, and `arguments`.
    """

    def __init__(
        self,
        stack: ExitStack,
        file: Path,
        checkout: Path,
        environment: Mapping[str, str] | None = None,
        *,
        python: Sequence[str] = (sys.executable, "-P"),
        arguments: Sequence[str] = (),
    ) -> None:
        self._file = file
        self._process = stack.enter_context(
            subprocess.Popen(
                [*python, str(file), *arguments],
                env={**os.environ, **(environment or {}), "PYTHONPATH": str(checkout)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self._process.kill)

    def ask(self, request: Any) -> None:
        """Say what is wanted, and do not wait for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._ended()

    def answer(self) -> Any:
        """Wait for what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._ended()
        return json.loads(line)

    def _ended(self) -> None:
        raise SystemExit(f"{self._file.name}: one of the sides ended; what it wrote says why")
