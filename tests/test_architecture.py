"""The house stands as drawn: imports point down the floors, low floors need no torch, kernels need no Python.

Read from the sources alone, so that a branch that no test runs counts too.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trpo_fast"

# A room is a module or package directly under trpo_fast. An import may stay on its floor or go down.
FLOORS = {
    "_core": 1,
    "settings": 2,
    "caches": 2,
    "solvers": 2,
    "files": 2,
    "model_file": 2,
    "run_models": 2,
    "progress": 2,
    "folder_lock": 2,
    "normalizers": 2,
    "recurrence": 2,
    "spaces": 2,
    "saved_policy": 2,
    "sampling": 2,
    "numpy_actor": 2,
    "saved_state": 2,
    "deploy": 2,
    "onnx_export": 2,
    "onnx_graph": 2,
    "threadpool": 2,
    "starting": 2,
    "state": 2,
    "statistics": 2,
    "streams": 2,
    "symptoms": 2,
    "benchmarks": 2,
    "selftest": 2,
    "gymnasium_spaces": 3,
    "policies": 3,
    "engines": 3,
    "environments": 3,
    "ranks": 3,
    "rollout": 3,
    "algorithm": 4,
    "tuning": 5,
    "sb3": 5,
    "cli": 6,
    "__main__": 6,
    "__init__": 6,
}
# Floors 1 and 2 run where torch and gymnasium are not installed.
# threadpoolctl is optional: registered with where it is installed.
LOW_FLOOR_PACKAGES = {"numpy", "safetensors", "threadpoolctl", "trpo_fast"}
# What one of them needs besides, from an extra.
EXTRA_PACKAGES = {"onnx_export": {"onnxruntime"}, "onnx_graph": {"onnx"}}

SOURCES = sorted(p for pattern in ("*.py", "*.pyi", "*.pyx", "*.pxd") for p in PACKAGE.rglob(pattern))
CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<base>[.\w]+)\s+c?import\s+(?P<names>[^#\n]+)|c?import\s+(?P<plain>[^#\n]+))"
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].split(".")[0]


def imports_of(path: Path) -> Iterator[str]:
    """Absolute dotted names of everything that `path` imports or cimports."""
    package = ["trpo_fast", *path.relative_to(PACKAGE).parts[:-1]]

    def absolute(base: str, level: int) -> str:
        anchor = package[: len(package) - (level - 1)] if level else []
        return ".".join([*anchor, *([base] if base else [])])

    text = path.read_text()
    if path.suffix in {".py", ".pyi"}:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = absolute(node.module or "", node.level)
                yield from (f"{base}.{alias.name}" for alias in node.names)
        return
    text = re.sub(r"\(\s*([^()]*?)\s*\)", lambda m: " ".join(m[1].split()) if "\n" in m[0] else m[0], text)
    for line in text.splitlines():
        found = CYTHON_IMPORT.match(line)
        if found is None:
            continue
        if found["plain"]:
            yield from (name.split()[0] for name in found["plain"].split(","))
            continue
        stripped = found["base"].lstrip(".")
        base = absolute(stripped, len(found["base"]) - len(stripped))
        yield from (f"{base}.{name.split()[0]}" for name in found["names"].strip("() ").split(",") if name.strip())


def rooms_imported_by(path: Path) -> Iterator[str]:
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "trpo_fast":
            yield parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"


def test_the_sources_are_found():
    assert {room_of(p) for p in SOURCES} >= {"_core", "solvers", "engines", "algorithm", "cli"}


def test_every_room_has_a_floor():
    rooms = {room_of(p) for p in SOURCES}
    assert rooms <= set(FLOORS), f"say on which floor they stand: {sorted(rooms - set(FLOORS))}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    upward = {other for other in rooms_imported_by(path) if FLOORS[other] > FLOORS[room]}
    assert not upward, f"{room} (floor {FLOORS[room]}) imports {sorted(upward)} from above"


def test_rooms_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(room_of(path), set()).update(set(rooms_imported_by(path)) - {room_of(path)})
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if FLOORS.get(room_of(p), 9) <= 2], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_low_floors_import_neither_torch_nor_gymnasium(path):
    outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
    # Cython's own namespaces
    outside -= {"libc", "cpython", "cython"}
    assert outside <= LOW_FLOOR_PACKAGES | EXTRA_PACKAGES.get(room_of(path), set())


@pytest.fixture
def bare_python(tmp_path):
    """Run Python where nothing but the standard library, numpy, safetensors and this package can be found."""
    for name in ("numpy", "numpy.libs", "safetensors"):
        installed = Path(np.__file__).parent.parent / name
        if installed.exists():
            (tmp_path / name).symlink_to(installed)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-S", *arguments]  # -S: without site-packages
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


def test_low_floors_run_where_torch_and_gymnasium_are_not_installed(bare_python):
    program = """
import importlib.util, numpy as np, trpo_fast
assert not any(map(importlib.util.find_spec, ("torch", "gymnasium", "scipy", "tqdm", "threadpoolctl")))
import trpo_fast.benchmarks, trpo_fast.model_file, trpo_fast.normalizers, trpo_fast.solvers
M = trpo_fast.KroneckerPreconditioner([(np.eye(2), np.ones((1, 1)), 0, None)], 2, "float64", 0.0)
result = trpo_fast.conjugate_gradient(np.diag([1.0, 2.0]), np.array([1.0, 1.0]), preconditioner=M)
assert abs(result.x - [1.0, 0.5]).max() < 1e-12, result
theta = np.zeros(2)
search = trpo_fast.backtracking_line_search(lambda x: (1.0, x @ x), theta, result.x, max_kl=1.0)
assert search.status == 0 and search.backtracks == 1 and theta[0] == 0.8, search
benchmarks = trpo_fast.benchmarks.run("update", threads=[1], dtypes=["float32"], quick=True)  # trust_region_step, too
assert benchmarks.figures
try:
    trpo_fast.TRPO
except ImportError as error:
    print(error)
"""
    done = bare_python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "trpo_fast.TRPO needs " in done.stdout and "pip install torch gymnasium" in done.stdout


def test_commands_that_need_numpy_alone_run_where_nothing_else_is_installed(bare_python):
    bench = bare_python("-m", "trpo_fast", "bench", "fisher", "--quick", "--dtype", "float32", "--threads", "1")
    assert bench.returncode == 0, bench.stderr
    assert "F v 17-64-64-6" in bench.stdout
    info = bare_python("-m", "trpo_fast", "info")
    assert info.returncode == 0, info.stderr
    assert re.search(r"^torch +not installed$", info.stdout, re.M)
    train = bare_python("-m", "trpo_fast", "train", "CartPole-v1")
    assert train.returncode == 2
    (line,) = train.stderr.splitlines()
    assert re.fullmatch(r"trpo-fast train: error: needs (torch|gymnasium|tqdm), which is not installed", line)


def test_kernels_know_neither_python_nor_the_allocator():
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        if path.parent.name == "tests":
            continue
        text = path.read_text()
        assert "Python.h" not in text and "numpy/" not in text, path
        if path.parent.name in {"kernels", "isa"}:
            code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
            assert not re.search(r"\b(malloc|calloc|realloc|free|alloca)\s*\(", code), path


def test_programs_in_c_need_one_header():
    headers = ROOT / "csrc" / "include" / "trpo"
    included = set(re.findall(r'^#include "trpo/(.*)"$', (headers / "trpo.h").read_text(), re.MULTILINE))
    # glibc.h is for building wheels
    assert included == {path.name for path in headers.glob("*.h")} - {"trpo.h", "glibc.h"}


def test_nothing_imports_what_lies_beside_the_project():
    for path in [*SOURCES, *(ROOT / "bench").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "shared" for name in names), path
