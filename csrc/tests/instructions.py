"""Instruction counts of the hot kernels, guarded: a regression shows on a busy machine and in no time.

    python3 instructions.py PROGRAM COMPILER [--update]

Counts what callgrind sees inside measured() of instructions.c and compares with instructions.json; more than 3% above
fails. Counts differ between compilers: with another one than that of the reference there is nothing to compare, which
is said and is no failure.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

REFERENCE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03


def compiler_of(command: str) -> str:
    """As in "gcc 12"."""
    run = [*command.split(), "--version"]
    text = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    version = re.search(r"(\d+)\.\d+\.\d+", text)
    return f"{'clang' if 'clang' in text else 'gcc'} {version.group(1) if version else '?'}"


def count(program: str, case: str) -> int:
    """Instructions of one case."""
    tool = ["valgrind", "--tool=callgrind", "--toggle-collect=measured", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, program, case], capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found or found.group(1) == "0":
        raise SystemExit(f"{case}: callgrind counted nothing\n{done.stderr}")
    return int(found.group(1))


def main(program: str, compiler: str, update: bool) -> int:
    """The exit code."""
    here = {"architecture": platform.machine(), "compiler": compiler_of(compiler)}
    if here["architecture"] != "x86_64":
        print(f"== SKIPPED instructions: counted on x86_64 only, this is {here['architecture']}")
        return 0
    reference = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {"counts": {}}
    if not update and any(reference.get(key) != value for key, value in here.items()):
        wanted = {key: reference.get(key) for key in here}
        print(f"== SKIPPED instructions: the reference counts are of {wanted}, this is {here}")
        return 0
    cases = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    counts = {case: count(program, case) for case in cases}
    failed = []
    for case, now in counts.items():
        before = reference["counts"].get(case)
        change = f"{now / before - 1:+8.2%}" if before else "     new"
        print(f"{case:<20} {now:>12,} {change}")
        if before is None or now > (1 + TOLERANCE) * before:
            failed.append(case)
    if update:
        REFERENCE.write_text(json.dumps({**here, "counts": counts}, indent=2) + "\n", encoding="utf-8")
    elif failed:
        print(f"more than {TOLERANCE:.0%} above {REFERENCE.name}, or not in it: {', '.join(failed)}")
        print("If that is meant: make instructions-update, and say in the commit why.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], "--update" in sys.argv[3:]))
