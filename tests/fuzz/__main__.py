"""Coverage-guided fuzzing of what reads files, by Atheris; see `make fuzz`.

    python -m tests.fuzz                         every target: its corpus, the lines that reaches, then new inputs
    python -m tests.fuzz --target logs --seconds 3600 --keep    a long run; what reaches more joins the corpus
    python -m tests.fuzz --planted               a copy of the package that lacks one check: found within a minute

A target is a module here with `run(data, folder)`, which raises where something is wrong, and MODULES, whose lines it is to
reach. Its corpus is tests/fuzz/corpus/TARGET. Where Atheris is not installed the corpus runs all the same.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGETS = ("logs", "settings_files", "run_folders", "model_files")
LEAST = 85.0  # percent of the lines
LIMITS = ("-timeout=60", "-rss_limit_mb=4096", "-max_len=512", "-print_final_stats=1")


def lines_of(module: str) -> tuple[Path, set[int]]:
    """A file of trpo_fast and those of its lines that are meant: all, or of ``file.py:name`` one class or function."""
    name, _, part = module.partition(":")
    path = ROOT / "trpo_fast" / name
    body = ast.parse(path.read_text()).body
    chosen = [node for node in body if not part or getattr(node, "name", None) == part]
    return path, {line for node in chosen for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def run_corpus(name: str) -> bool:
    """Run every input of a target's corpus, and say which share of the lines they reach."""
    import coverage

    modules = [lines_of(module) for module in importlib.import_module(f"tests.fuzz.{name}").MODULES]
    script = "import sys; from pathlib import Path; from tests.fuzz.replaying import replay; replay(sys.argv[1], map(Path, sys.argv[2:]))"
    inputs = sorted((HERE / "corpus" / name).iterdir())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        include = ",".join({str(path) for path, _ in modules})
        Path(folder, "replay.py").write_text(script)
        command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}", f"--include={include}"]
        subprocess.run(
            [*command, f"{folder}/replay.py", name, *map(str, inputs)], cwd=ROOT, env=_environment(), check=True
        )
        measured = coverage.Coverage(data_file=data)
        measured.load()
        counted = reached = 0
        for path, wanted in modules:
            _, statements, _, missing, _ = measured.analysis2(str(path))
            counted += len(wanted & {*statements})
            reached += len(wanted & ({*statements} - {*missing}))
            print(f"   {path.relative_to(ROOT)}: not reached {sorted(wanted & {*missing})}")
    percent = 100 * reached / counted
    seconds = time.monotonic() - started
    print(
        f"{name}: {len(inputs)} inputs, {reached} of {counted} lines reached by the corpus, {percent:.1f}%, in {seconds:.0f} s"
    )
    return percent >= LEAST


def fuzz(name: str, seconds: int, *corpora: Path, path: Path = ROOT, found: Path | None = None) -> tuple[int, str]:
    """New inputs, from those of `corpora`, the first of which gets what is new; the exit status, and what it printed."""
    command = [sys.executable, "-P", "-m", "tests.fuzz.replaying", name, *LIMITS, f"-max_total_time={seconds}"]
    command += [f"-artifact_prefix={found or corpora[0].parent}/{name}-", *map(str, corpora)]
    # As long again for what is imported, and for the corpus.
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(path),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=2 * seconds + 300,
    )
    return done.returncode, done.stdout + done.stderr


def _environment(*paths: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])), "OMP_NUM_THREADS": "1"}


def stats(printed: str) -> str:
    """How many inputs were run, at what rate, in how much memory."""
    return ", ".join(
        f"{key} {value}" for key, value in re.findall(r"stat::(number_of_executed_units|peak_rss_mb): *(\d+)", printed)
    )


def new_inputs(name: str, seconds: int, *, keep: bool) -> bool:
    """Run a target for so long; whether nothing was wrong."""
    build = ROOT / "build" / "fuzz"
    fresh = build / name
    fresh.mkdir(parents=True, exist_ok=True)
    status, printed = fuzz(name, seconds, fresh, HERE / "corpus" / name)
    print(f"{name}: {stats(printed)} in {seconds} s")
    if status:
        print(printed[-6000:])
        print(f"{name}: the input is in {build}")
        return False
    if keep:
        merge(name, fresh)
    return True


def merge(name: str, fresh: Path) -> None:
    """Leave the smallest inputs, of the corpus and of what was found, that between them reach as many branches."""
    corpus = HERE / "corpus" / name
    script = "import sys; from tests.fuzz.replaying import reaching; print(*reaching(*sys.argv[1:]))"
    include = [str(lines_of(module)[0]) for module in importlib.import_module(f"tests.fuzz.{name}").MODULES]
    command = [sys.executable, "-c", script, name, ",".join(include), str(corpus), str(fresh)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), check=True, capture_output=True, text=True)
    kept = {
        hashlib.sha1(content).hexdigest()[:16]: content
        for content in map(Path.read_bytes, map(Path, done.stdout.split()))
    }
    shutil.rmtree(corpus)
    corpus.mkdir()
    for called, content in kept.items():
        (corpus / called).write_bytes(content)
    print(f"{name}: {len(kept)} inputs in the corpus")


def planted(name: str, folder: Path) -> bool:
    """Take one check from a copy of the package, and look for it from nothing but one empty input."""
    file, check, instead = importlib.import_module(f"tests.fuzz.{name}").PLANTED
    for path in (ROOT / "trpo_fast").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    content = (ROOT / "trpo_fast" / file).read_text()
    assert content.count(check) == 1, f"{file} has no such check: {check}"
    (folder / "trpo_fast" / file).unlink()
    (folder / "trpo_fast" / file).write_text(content.replace(check, instead))
    fresh = folder / "inputs"
    fresh.mkdir()
    started = time.monotonic()
    status, printed = fuzz(name, 60, fresh, path=folder, found=folder)
    took = time.monotonic() - started
    said = next((line for line in printed.splitlines() if "Error" in line), printed[-300:])
    print(
        f"{name}: {file} without a check: {'found' if status else 'NOT found'} in {took:.0f} s; {stats(printed)}; {said[:160]}"
    )
    return status != 0


def main() -> int:
    """See the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=4, help="of new inputs, each target")
    parser.add_argument("--keep", action="store_true", help="what is new joins the corpus")
    parser.add_argument("--planted", action="store_true")
    arguments = parser.parse_args()
    targets = [arguments.target] if arguments.target else TARGETS
    found = {name: importlib.util.find_spec(name) is not None for name in ("atheris", "coverage")}
    for name, purpose in ("coverage", "the lines that a corpus reaches"), ("atheris", "new inputs"):
        if not found[name]:
            print(
                f"== SKIPPED fuzzing of files, {purpose}: {name} is not installed here, or has no wheel for this Python"
            )
    sound = True
    for name in targets:
        if arguments.planted:
            if found["atheris"]:
                with tempfile.TemporaryDirectory() as folder:
                    sound &= planted(name, Path(folder))
            continue
        if found["coverage"]:
            sound &= run_corpus(name)
        if found["atheris"] and arguments.seconds:
            sound &= new_inputs(name, arguments.seconds, keep=arguments.keep)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
