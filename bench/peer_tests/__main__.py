"""Other libraries' own tests on what takes their place here, from their pinned source distributions.

    python -m bench.peer_tests [scipy] [sb3-contrib] [stable-baselines3] [theirs]       (make peer-tests)

scipy's tests of `scipy.sparse.linalg.cg` on `conjugate_gradient`, sb3-contrib's of TRPO and Stable-Baselines3's of PPO
on `trpo_fast.sb3.TRPO`; `theirs` are the latter on sb3-contrib's TRPO, which cannot do all that PPO does either. Counts
and the tests that fail are printed and written to bench/results/trust/peer_tests.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import scipy

from bench.machine import RESULTS, describe

ROOT = Path(__file__).resolve().parents[2]
WHICH = ("scipy", "sb3-contrib", "stable-baselines3", "theirs")
DISTRIBUTIONS = {"sb3-contrib": "sb3-contrib", "stable-baselines3": "stable-baselines3", "theirs": "stable-baselines3"}


def tests_of(which: str, folder: Path) -> Path:
    """Where they are: in scipy's wheel, and in the source distributions of the others, of the installed version."""
    if which == "scipy":
        return Path(scipy.__file__).parent / "sparse" / "linalg" / "_isolve" / "tests" / "test_iterative.py"
    name = DISTRIBUTIONS[which]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-binary", ":all:", "--dest", str(folder), f"{name}=={version(name)}"]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    (found,) = folder.glob("*/tests")
    return found


def run(which: str) -> dict[str, Any]:
    """Counts, and the names of what fails, each with the first line of its error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests, report = tests_of(which, folder), folder / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.peer_tests.stand_in", "-p", "no:cacheprovider"]
        command += ["--rootdir", str(tests.parent), "--junit-xml", str(report), str(tests)]
        folders = [str(ROOT), str(tests.parent), os.environ.get("PYTHONPATH", "")]
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "STAND_IN": which}
        done = subprocess.run(
            command, cwd=tests.parent, env={**os.environ, **paths}, check=False, capture_output=True, text=True
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{which}: pytest ended with code {done.returncode}\n{done.stdout[-3000:]}")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = {}
    for case in cases:
        for fault in (*case.findall("failure"), *case.findall("error")):
            file = str(case.get("classname", "")).rpartition(".")[2]
            failed[f"{file}::{case.get('name')}"] = str(fault.get("message", "")).splitlines()[0][:200]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"tests": len(cases), "passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write; 1 where something fails that the committed file does not know to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", metavar="WHICH", help=f"of {', '.join(WHICH)}; all by default")
    options = parser.parse_args(arguments)
    options.which = options.which or list(WHICH)
    if unknown := set(options.which) - set(WHICH):
        parser.error(f"{', '.join(sorted(unknown))} given; want one of {', '.join(WHICH)}")
    file = RESULTS / "trust" / "peer_tests.json"
    known = json.loads(file.read_text())["found"] if file.exists() else {}
    found, new = {}, []
    for which in options.which:
        found[which] = one = run(which)
        print(f"{which}: {one['passed']} pass, {one['skipped']} skip, {len(one['failed'])} fail")
        for name, message in one["failed"].items():
            print(f"    {name}: {message}")
        new += [f"{which}: {name}" for name in one["failed"] if name not in known.get(which, {}).get("failed", {})]
    file.parent.mkdir(exist_ok=True)
    content = {
        "command": "python -m bench.peer_tests",
        "machine": describe(),
        "scipy": version("scipy"),
        "found": found,
    }
    if set(options.which) == set(WHICH):
        file.write_text(json.dumps(content, indent=1) + "\n")
        print(f"  written to {file}")
    for name in new:
        print(f"FAILS and did not: {name}")
    return int(bool(new))


if __name__ == "__main__":
    sys.exit(main())
