"""``trpo-fast envs``: what can be trained here; Gymnasium is asked in another process, and its answer kept.

The list holds as long as no installed package changes, which the names and times of their metadata's folders tell
without reading them. What a module of one's own registers (``--import``), and ``--check``, is asked every time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trpo_fast
from trpo_fast.algorithm.presets import all_presets, plain_id
from trpo_fast.cli import output
from trpo_fast.cli.errors import CommandError
from trpo_fast.files import read_regular
from trpo_fast.model_file import replace_file

Found = dict[str, Any]
_KEPT = ("id", "family", "missing", "newer")


def run(arguments: argparse.Namespace) -> int:
    """List ids, those first that can be trained; exit code 1 where there is none of WORD."""
    word = (arguments.word or "").lower()
    everything = [(one, one.pop("family", None)) for one in _all(arguments)]
    found = [one for one, family in everything if word in one["id"].lower() or _would_be_of(family, word)]
    if arguments.check:
        ids = [one["id"] for one in found if one["missing"] is None]
        checked = {one["id"]: one for one in output.progress(_checked(ids, arguments.imports), "making", len(ids))}
        found = [one | checked.get(one["id"], {}) for one in found]
    found.sort(key=lambda one: one["missing"] is not None)
    for one in found:
        one["preset"] = plain_id(one["id"]) in all_presets()
    if arguments.json:
        output.answer(found)
    elif arguments.quiet:
        for one in found:
            if one["missing"] is None:
                output.say(one["id"], sys.stdout)
    else:
        _print(found)
    if not found:
        output.say(
            f"trpo-fast envs: nothing that is known here has {arguments.word!r} in its id; want --import MODULE "
            "for what a module of yours registers",
            sys.stderr,
        )
        return 1
    return 0


def _would_be_of(family: str | None, word: str) -> bool:
    """Whether ids of a package that is not installed begin so."""
    return family is not None and word != "" and re.match(family, word, re.IGNORECASE) is not None


def _print(found: Sequence[Found]) -> None:
    width = max((len(one["id"]) for one in found if one["missing"] is None), default=0)
    for one in found:
        notes = [f"{one['newer']} is newer"] if one["newer"] and not one["missing"] else []
        notes += ["has a preset"] if one["preset"] else []
        if "policy" in one:
            spaces = " ".join(f"{one['observations']} -> {one['actions']}".split())
            notes.append(f"{spaces}; {one['policy']}, {one['engine']} engine")
        said = f"missing: {one['missing']}" if one["missing"] else "; ".join(notes)
        output.say(f"{one['id']:<{width}}  {said}".rstrip(), sys.stdout)
    count = sum(one["missing"] is None for one in found)
    output.say(f"{count} can be trained here, {len(found) - count} cannot", sys.stderr)


def _all(arguments: argparse.Namespace) -> list[Found]:
    """Every id that is known, from the list that was kept where it still holds."""
    if arguments.imports:
        return list(_asked({"imports": arguments.imports}))
    path, key = _kept_at(), _key()
    if not arguments.refresh:
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            kept = json.loads(read_regular(path).decode())
            if kept["key"] == key:
                return [{name: one[name] for name in _KEPT if name in one} for one in kept["found"]]
    found = list(_asked({"imports": []}))
    with suppress(OSError):  # without a home it is asked every time
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"key": key, "found": found}).encode())
    return found


def _checked(ids: Sequence[str], imports: Sequence[str]) -> Iterator[Found]:
    """What becomes of each in training; the one that a process crashes at is named, and another goes on behind it."""
    left = list(ids)
    while left:
        try:
            for one in _asked({"imports": imports, "ids": left}):
                yield one
                left.remove(one["id"])
        except _Crashed as crash:
            if not left:  # behind its last answer
                return
            yield {"id": left.pop(0), "missing": f"its process ended with {crash}"}


class _Crashed(Exception):
    """The other process ended before its answer did."""


def _asked(request: dict[str, Any]) -> Iterator[Found]:
    """The answers to a request; CommandError where it is refused, _Crashed where the process ends on the way."""
    # -P: without the working folder, whose modules nobody has named.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "trpo_fast.cli.survey", json.dumps(request)]
    path = os.pathsep.join([*filter(None, sys.path), *([os.getcwd()] if request["imports"] else [])])
    # A file takes whatever modules print; a pipe that is read at the end would be full.
    with (
        tempfile.TemporaryFile("w+", errors="replace") as printed,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=printed if "ids" not in request else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                one = json.loads(line)
                if "end" in one:
                    return
                yield one
        finally:
            if sys.exc_info()[0] is not None:
                process.terminate()
        code = process.wait()
        printed.seek(0)
        said = printed.read().strip().splitlines()
    if "ids" in request:
        raise _Crashed(f"signal {-code}" if code < 0 else f"exit code {code}")
    raise CommandError(said[-1] if said else f"Gymnasium cannot be asked: its process ended with {code}")


def _kept_at() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "trpo-fast" / "environments.json"


def _key() -> str:
    """Changes with every package that is installed, removed or replaced, and with this one and Python."""
    said: list[Any] = [
        sys.prefix,
        sys.version,
        trpo_fast.__version__,
        Path(__file__).with_name("survey.py").stat().st_mtime_ns,
    ]
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError), os.scandir(folder or ".") as entries:
            said += sorted(
                (entry.path, entry.stat().st_mtime_ns)
                for entry in entries
                if entry.name.endswith((".dist-info", ".egg-info", ".egg-link", ".pth"))
            )
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
