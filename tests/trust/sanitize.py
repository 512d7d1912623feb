"""The extension modules built of instrumented code, and what runs on them.

``python -m tests.trust.sanitize`` runs the tests of core, engines and solvers under the address and undefined-behaviour
sanitizers, leaks checked when each process ends; ``--threads`` runs `tests.trust.threads` under the thread sanitizer.
The interpreter, NumPy and torch are what they are, not instrumented: of their memory the allocations alone are watched
(with PYTHONMALLOC=malloc every object of Python's is one), of their threads the locks. A leak counts where a function
of this package is among those that asked for the memory: what an interpreter and its libraries keep until the end is
none of ours.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from trpo_fast._core.library import available_instruction_sets

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
COMPILER = os.environ.get("CC", "cc").split()
TESTS = ["tests/_core", "tests/engines", "tests/solvers"]
OURS = re.compile(r"trpo_fast/_core/|\bcsrc/|/kernels/|/isa/")
"""Of a frame of a stack: functions of this package's."""
SAMPLE = ["tests/_core/test_arguments.py", "tests/_core/test_half_made.py", "tests/_core/test_rollout.py"]
"""What `.ci/run` has time for: every compiled function, with arrays that fit and with those that do not."""


def said(*arguments):
    """What the compiler answers."""
    return subprocess.run([*COMPILER, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def libraries(kind):
    """The run-time libraries of a sanitizer, to be loaded before all others; None where the compiler has none."""
    # A C++ library that throws needs its own, which no program has loaded before it.
    names = ["libtsan.so"] if kind == "thread" else ["libasan.so", "libubsan.so", "libstdc++.so"]
    paths = [Path(said(f"-print-file-name={name}")) for name in names]
    return [path.resolve() for path in paths] if all(path.is_absolute() for path in paths) else None


def build(kind):
    """Build the package of instrumented code; the folder to import it from.

    Kernels take minutes to compile: those of `make asan` and `make tsan` are taken over, of the instruction sets that
    this CPU runs.
    """
    folder = ROOT / "build" / f"sanitized-{kind.replace(',', '-')}"
    runs = [name.replace("-", "_") for name in available_instruction_sets()]
    sets = sorted(path.stem for path in (ROOT / "csrc" / "isa").glob("*.c"))
    wanted = [suffix for suffix in sets if suffix.removesuffix("_bfloat16") in runs]
    objects = [f"build/{said('-dumpmachine')}-{kind}/isa/{suffix}.o" for suffix in wanted]
    jobs = str(len(os.sched_getaffinity(0)))
    subprocess.run(["make", "-s", "-j", jobs, "-C", "csrc/tests", f"SANITIZE={kind}", *objects], cwd=ROOT, check=True)
    own = folder / "temp" / "csrc" / "isa"
    own.mkdir(parents=True, exist_ok=True)
    for path in objects:  # setuptools compiles what is older than its source, and so none of these
        shutil.copyfile(ROOT / "csrc" / "tests" / path, own / Path(path).name)
    flags = f"-g1 -fno-omit-frame-pointer -fsanitize={kind} -fno-sanitize-recover=all"
    subprocess.run(
        [
            *(sys.executable, "setup.py", "--quiet", "build"),
            *(f"--build-temp={folder / 'temp'}", f"--build-lib={folder / 'lib'}"),
        ],
        cwd=ROOT,
        check=True,
        env={
            **os.environ,
            "TRPO_FAST_LEAVE_OUT": " ".join(set(sets) - set(wanted)),
            "CFLAGS": flags,
            "LDFLAGS": flags,
        },
    )
    return folder / "lib"


def environment(lib, preloaded, reports):
    """Of a process that imports from `lib`, and of its children; what sanitizers say is written into `reports`."""
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(str, preloaded)),
        "PYTHONPATH": f"{lib}{os.pathsep}{ROOT}",
        "PYTHONSAFEPATH": "1",  # not the checkout's package, which stands in the working folder
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "1",
        # Not detect_stack_use_after_return: gcc 12 lays vectors of 64 bytes out of line there (its PR 110027).
        "ASAN_OPTIONS": f"detect_leaks=1:allocator_may_return_null=1:log_path={reports}/report",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/report",
        "LSAN_OPTIONS": "exitcode=0",  # `found` says which are ours
        "TSAN_OPTIONS": f"suppressions={HERE / 'races.supp'}:exitcode=66:history_size=4:die_after_fork=0",
    }


def found(reports):
    """What sanitizers have said: errors, and leaks of this package's; each as text."""
    texts = [path.read_text(errors="replace") for path in sorted(Path(reports).glob("report.*"))]
    errors = [text for text in texts if "ERROR: AddressSanitizer" in text or "runtime error" in text]
    blocks = [block for text in texts for block in text.split("\n\n") if " leak of " in block]
    return [*errors, *(block for block in blocks if OURS.search(block))]


def starts(preloaded):
    """Whether an interpreter does, with these."""
    with tempfile.TemporaryDirectory() as reports:
        return subprocess.run([sys.executable, "-c", ""], env=environment(ROOT, preloaded, reports)).returncode == 0


def require_planted(preloaded):
    """SystemExit where a leak or an error that is planted is not found."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "trpo_fast", "_core", "planted.c")
        library = source.with_suffix(".so")
        source.parent.mkdir(parents=True)
        shutil.copyfile(HERE / "planted.c", source)
        flags = ["-g1", "-O0", "-fno-omit-frame-pointer", "-shared", "-fPIC", "-fsanitize=address,undefined"]
        subprocess.run([*COMPILER, *flags, "-o", str(library), str(source)], check=True)
        for call, words in {"leak()": "12345 byte", "overrun(4)": "heap-buffer-overflow"}.items():
            reports = tempfile.mkdtemp(dir=folder)
            command = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r}).{call}"]
            subprocess.run(command, env=environment(ROOT, preloaded, reports), capture_output=True, check=False)
            if not any(words in text for text in found(reports)):
                raise SystemExit(f"what is planted is not found: {call}")


def main(arguments=None):
    """Of the command line; the exit code is the program's that ran."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--sample", action="store_true", help="what .ci/run has time for")
    parser.add_argument("--out", type=Path, help="JSON of counts and seconds")
    parser.add_argument("others", nargs="*", help="other tests")
    given = parser.parse_args(arguments)
    kind = "thread" if given.threads else "address,undefined"
    preloaded = libraries(kind)
    # Where the kernel lays memory out at random in more bits than the thread sanitizer knows, it cannot start.
    if preloaded is None or not starts(preloaded):
        print(f"== SKIPPED: {COMPILER[0]} has no sanitizer {kind} here, or it does not work")
        return 0
    start = time.monotonic()
    lib = build(kind)
    built = time.monotonic()
    if not given.threads:
        require_planted(preloaded)
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(lib, preloaded, folder)
        where = [sys.executable, "-c", "import trpo_fast._core.library as own; print(own.__file__)"]
        said_where = subprocess.run(where, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if str(lib) not in said_where.stdout:
            what = f"{said_where.stdout}{said_where.stderr[-3000:]}"
            raise SystemExit(f"the instrumented package cannot be imported:\n{what}")
        counts = Path(folder) / "junit.xml"
        tests = ["-m", "tests.trust.threads"]
        if not given.threads:
            # Reports are not Python's to catch.
            tests = ["-m", "pytest", "-q", "--capture=sys", f"--junit-xml={counts}"]
            tests += [f"-pno:{plugin}" for plugin in ("benchmark", "cacheprovider", "xdist", "run-parallel")]
            tests += ["-o", f"pythonpath={lib} .", *(given.others or (SAMPLE if given.sample else TESTS))]
        code = subprocess.run([sys.executable, *tests], cwd=ROOT, env=variables, check=False).returncode
        ended = time.monotonic()
        reports = found(folder)
        print(*reports, sep="\n\n")
        code = code or int(bool(reports))
        suite = re.search("<testsuite [^>]*>", counts.read_text(encoding="utf-8")) if counts.exists() else None
    print(f"{kind}: built in {built - start:.0f} s, ran in {ended - built:.0f} s, exit code {code}")
    if given.out:
        result = {
            "command": f"make trust-{'threads' if given.threads else 'sanitize'}",
            "machine": machine.describe(),
            "compiler": said("--version").partition("\n")[0],
            "instruction_sets": available_instruction_sets(),
            "build_seconds": round(built - start),
            "seconds": round(ended - built),
            "exit_code": code,
            "reports": len(reports),
        }
        if suite:
            pairs = re.findall(r'\b(tests|failures|errors|skipped)="(\d+)"', suite.group())
            result |= {name: int(number) for name, number in pairs}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
