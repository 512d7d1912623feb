"""Which lines of trpo_fast a target's inputs reach, and which of the inputs reach all that any does, as a line of JSON.

Usage: python -m tests.fuzz.measuring lines|fewest TARGET FOLDER-OF-INPUTS...
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path

import coverage

from tests.fuzz.replaying import one_at_a_time
from tests.fuzz.targets import ROOT, cover

PACKAGE = ROOT / "trpo_fast"


def meant(module: str) -> tuple[Path, set[int]]:
    """A file, and those of its lines that are meant; see `tests.fuzz.interpreted.Interpreted`."""
    name, _, part = module.partition(":")
    body = ast.parse((PACKAGE / name).read_text()).body
    chosen = [node for node in body if not part or getattr(node, "name", None) == part]
    return PACKAGE / name, {line for node in chosen for line in range(node.lineno, node.end_lineno + 1)}


def lines(name: str, paths: list[Path]) -> dict[str, object]:
    """Lines that are there, that all of the inputs reach between them, and that none does."""
    measured = coverage.Coverage(data_file=None, include=[f"{PACKAGE}/*"])
    with measured.collect():  # importing reaches lines, too
        target = importlib.import_module(f"tests.fuzz.{name}")
        run = one_at_a_time(target.run)
        for path in paths:
            try:
                run(path.read_bytes())
            except BaseException as error:
                error.add_note(f"input {path.read_bytes().hex()}")
                raise
    counted, missing = 0, {}
    for file, wanted in map(meant, target.MODULES):
        _, statements, _, left, _ = measured.analysis2(str(file))
        counted += len(wanted.intersection(statements))
        missing.setdefault(str(file.relative_to(ROOT)), []).extend(sorted(wanted.intersection(left)))
    return {"reached": counted - sum(map(len, missing.values())), "counted": counted, "missing": missing}


def fewest(name: str, paths: list[Path]) -> list[str]:
    """Inputs that between them reach every branch of the files that any reaches, in hexadecimal digits."""
    target = importlib.import_module(f"tests.fuzz.{name}")
    run = one_at_a_time(target.run)
    include = sorted({str(meant(module)[0]) for module in target.MODULES})
    reached = []
    for path in paths:
        content = path.read_bytes()
        measured = coverage.Coverage(data_file=None, branch=True, include=include)
        with measured.collect():
            run(content)
        data = measured.get_data()
        reached.append((content, {(file, arc) for file in data.measured_files() for arc in data.arcs(file) or ()}))
    return [content.hex() for content in cover(reached)]


def main() -> None:
    kind, name, *folders = sys.argv[1:]
    paths = [path for folder in folders for path in sorted(Path(folder).iterdir())]
    print("\n" + json.dumps({"lines": lines, "fewest": fewest}[kind](name, paths)))


if __name__ == "__main__":
    main()
