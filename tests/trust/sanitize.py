"""The extension modules built of instrumented code, and what runs on them.

``python -m tests.trust.sanitize`` runs the tests of core, engines and solvers under the address and undefined-behaviour
sanitizers, leaks checked when each process ends; ``--threads`` runs `tests.trust.threads` under the thread sanitizer.
The interpreter, NumPy and torch are what they are, not instrumented: of their memory the allocations alone are watched
(with PYTHONMALLOC=malloc every object of Python's is one), of their threads the locks.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from trpo_fast._core.library import available_instruction_sets

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
TESTS = ["tests/_core", "tests/engines", "tests/solvers"]
SAMPLE = ["tests/_core/test_arguments.py", "tests/_core/test_half_made.py", "tests/_core/test_rollout.py"]
"""What `.ci/run` has time for: every compiled function, with arrays that fit and with those that do not."""


def library(name):
    """Where the compiler has the run-time library of a sanitizer, or None."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = Path(found.stdout.strip())
    return path.resolve() if path.is_absolute() else None


def build(kind):
    """Build the package of instrumented code; the folder to import it from.

    Kernels take minutes to compile: those of `make asan` and `make tsan` are taken over, of the instruction sets that
    this CPU runs.
    """
    folder = ROOT / "build" / f"sanitized-{kind.replace(',', '-')}"
    runs = [name.replace("-", "_") for name in available_instruction_sets()]
    sets = sorted(path.stem for path in (ROOT / "csrc" / "isa").glob("*.c"))
    wanted = [suffix for suffix in sets if suffix.removesuffix("_bfloat16") in runs]
    machine = subprocess.run(["cc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    objects = [f"build/{machine}-{kind}/isa/{suffix}.o" for suffix in wanted]
    jobs = str(len(os.sched_getaffinity(0)))
    subprocess.run(["make", "-s", "-j", jobs, "-C", "csrc/tests", f"SANITIZE={kind}", *objects], cwd=ROOT, check=True)
    own = folder / "temp" / "csrc" / "isa"
    own.mkdir(parents=True, exist_ok=True)
    for path in objects:  # setuptools compiles what is older than its source, and so none of these
        shutil.copyfile(ROOT / "csrc" / "tests" / path, own / Path(path).name)
    left_out = {"TRPO_FAST_LEAVE_OUT": " ".join(set(sets) - set(wanted))}
    flags = f"-g1 -fno-omit-frame-pointer -fsanitize={kind} -fno-sanitize-recover=all"
    command = [sys.executable, "setup.py", "--quiet", "build", f"--build-temp={folder / 'temp'}"]
    subprocess.run(
        [*command, f"--build-lib={folder / 'lib'}"],
        cwd=ROOT,
        check=True,
        env={**os.environ, **left_out, "CFLAGS": flags, "LDFLAGS": flags},
    )
    return folder / "lib"


def environment(lib, libraries, **options):
    """Of a process that imports from `lib`, children of it too, with these libraries before all others."""
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(str, libraries)),
        "PYTHONPATH": f"{lib}{os.pathsep}{ROOT}",
        "PYTHONSAFEPATH": "1",  # not the checkout's package, which stands in the working folder
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "1",
        **options,
    }


def main(arguments=None):
    """Of the command line; the exit code is the program's that ran."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--sample", action="store_true", help="what .ci/run has time for")
    parser.add_argument("--out", type=Path, help="JSON of counts and seconds")
    parser.add_argument("others", nargs="*", help="other tests; options of pytest after --")
    given = parser.parse_args(arguments)
    kind = "thread" if given.threads else "address,undefined"
    own = library("libtsan.so" if given.threads else "libasan.so")
    if own is None:
        print(f"== SKIPPED: {os.environ.get('CC', 'cc')} has no sanitizer {kind} here")
        return 0
    start = time.monotonic()
    lib = build(kind)
    built = time.monotonic()
    if given.threads:
        command = [sys.executable, "-m", "tests.trust.threads", *given.others]
        options = {"TSAN_OPTIONS": f"suppressions={HERE / 'races.supp'}:halt_on_error=0:exitcode=66:history_size=4"}
    else:
        tests = given.others or (SAMPLE if given.sample else TESTS)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:benchmark",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
        ]
        command += ["-o", f"pythonpath={lib} .", *tests]
        # A library in C++ that throws needs its own, which no program before it has loaded.
        own = own, library("libubsan.so"), library("libstdc++.so")
        options = {
            "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "LSAN_OPTIONS": f"suppressions={HERE / 'leaks.supp'}:print_suppressions=0",
        }
    variables = environment(lib, own if isinstance(own, tuple) else (own,), **options)
    where = [sys.executable, "-c", "import trpo_fast._core.library as own; print(own.__file__)"]
    found = subprocess.run(where, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if str(lib) not in found.stdout:
        raise SystemExit(f"the instrumented package cannot be imported:\n{found.stdout}{found.stderr[-3000:]}")
    done = subprocess.run(command, cwd=ROOT, env=variables, check=False)
    ended = time.monotonic()
    print(f"{kind}: built in {built - start:.0f} s, ran in {ended - built:.0f} s, exit code {done.returncode}")
    if given.out:
        from bench import machine

        result = {
            "command": "python -m tests.trust.sanitize" + " --threads" * given.threads,
            "machine": machine.describe(),
            "compiler": subprocess.run(
                ["cc", "--version"], capture_output=True, text=True, check=True
            ).stdout.partition("\n")[0],
            "ran": command[3:] if given.threads else tests,
            "build_seconds": round(built - start),
            "seconds": round(ended - built),
            "exit_code": done.returncode,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
