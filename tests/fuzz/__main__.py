"""Coverage-guided fuzzing; see `make fuzz` and docs/reliability.md.

python -m tests.fuzz                  every target: a few new inputs, and the lines that its corpus reaches
python -m tests.fuzz --target logs --minutes 60
                                      a long run; what reaches more joins the corpus, and what was done and found
                                      is added to bench/results/trust/fuzz.json
python -m tests.fuzz --planted        copies of the sources that lack one check: found within a minute
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.compiled import FILES, Compiled
from tests.fuzz.interpreted import NAMES, Interpreted
from tests.fuzz.targets import BUILD, ROOT, Lines, Run, Target

TARGETS = (*FILES, *NAMES)
LEAST = 85.0  # percent of the lines
SLICE = 10  # minutes: what a long run has done is kept so often
RESULTS = ROOT / "bench" / "results" / "trust" / "fuzz.json"


def say(*words: object) -> None:
    print(*words, flush=True)


def fuzz(target: Target, minutes: float) -> bool:
    """Some new inputs, or those of so many minutes, and the lines that the corpus reaches; whether all was right."""
    target.build()
    folder = BUILD / target.name
    inputs, fresh = target.unpacked(folder / "corpus"), folder / "new"
    fresh.mkdir(exist_ok=True)
    left = 60 * minutes
    while True:
        run = target.fuzz(min(left, 60 * SLICE), folder, fresh, inputs) if minutes else target.few(folder, inputs)
        left -= 60 * SLICE
        said = f"{run.executions:,} inputs in {run.seconds:.0f} s"
        if run.found:
            say(f"{target.name}: {said}; FOUND by {run.found['input']}\n{run.found['said']}")
        elif minutes:
            target.renew_corpus(inputs, fresh)
            target.unpacked(inputs)
        lines = target.lines(inputs)
        reached = f"{lines.reached} of {lines.counted} lines reached by {len(os.listdir(inputs))} inputs"
        say(f"{target.name}: {said}; {reached}, {lines.percent:.1f}%; want {LEAST:.0f}%")
        if minutes:
            record(target, run, lines)
        if run.found or left <= 0:
            return not run.found and lines.percent >= LEAST


def planted(target: Target) -> bool:
    """Take a check from a copy of the sources, and look for it for a minute, from no corpus."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy, words = target.without_a_check(folder)
        copy.build()
        fresh = folder / "new"
        fresh.mkdir()
        run = copy.fuzz(60, folder, fresh, seed=1)
    found = run.found is not None and words in run.found["said"]
    said = f"{'found' if found else 'NOT found'} in {run.executions:,} inputs and {run.seconds:.0f} s, {words!r}"
    say(f"{target.name}: without a check: {said}")
    if run.found and not found:
        say(run.found["said"])
    return found


@functools.cache
def _machine() -> dict[str, Any]:
    from bench import machine

    described = machine.describe()
    clang = subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    tools = {name: importlib.metadata.version(name) for name in ("atheris", "coverage")}
    return {**described, "versions": {**described["versions"], **tools, "clang": clang}}


def _in_short(said: str) -> str:
    """The error of what was said, without its paths."""
    error = re.search(r"Uncaught Python exception: ===\n(.*)|SUMMARY: (.*)", said)
    return next(filter(None, error.groups()))[:200] if error else ""


def record(target: Target, run: Run, lines: Lines, path: Path = RESULTS) -> None:
    """Add a run to the file; several processes may."""
    machine = _machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        kept = json.loads(file.read() or '{"targets": {}}')["targets"]
        old = kept.get(target.name, {"seconds": 0, "executions": 0, "found": []})
        kept[target.name] = {
            "tool": target.tool,
            "seconds": round(old["seconds"] + run.seconds),
            "executions": old["executions"] + run.executions,
            "lines": lines.counted,
            "reached": lines.reached,
            "found": old["found"] + [{**run.found, "said": _in_short(run.found["said"])}]
            if run.found
            else old["found"],
        }
        targets = {name: kept[name] for name in TARGETS if name in kept}
        file.truncate(0)
        said = {"command": "make fuzz MINUTES=60", "machine": machine, "targets": targets}
        file.write(json.dumps(said, indent=2) + "\n")


def main() -> int:
    """See the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--planted", action="store_true")
    given = parser.parse_args()
    if not 0 <= given.minutes < float("inf"):
        parser.error(f"--minutes: {given.minutes} given; want a finite number >= 0")
    able: list[Target] = []
    optimize = "-O1" if given.minutes or given.planted else "-O0"  # what takes longer to compile, and less to run
    for name in [given.target] if given.target else TARGETS:
        target = Compiled(name, optimize) if name in FILES else Interpreted(name)
        if why := target.missing():
            say(f"== SKIPPED fuzzing of {target.name}: {why}")
            if given.target:
                return 1
        else:
            able.append(target)
    one = planted if given.planted else functools.partial(fuzz, minutes=given.minutes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return 0 if all(list(pool.map(one, able))) else 1


if __name__ == "__main__":
    sys.exit(main())
