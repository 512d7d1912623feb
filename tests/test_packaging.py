"""What is shipped: the source distribution builds, the wheel holds the package and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import trpo_fast
from trpo_fast._core import library

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def setup(*command: str) -> None:
    pytest.importorskip("Cython", reason="setup.py needs Cython")
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def known_to_git() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository here")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.splitlines()]


@pytest.fixture(scope="module")
def in_sdist(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("egg")
    setup("egg_info", "--egg-base", str(folder))
    (listing,) = folder.glob("*.egg-info/SOURCES.txt")
    return set(listing.read_text().splitlines())


@pytest.fixture(scope="module")
def in_wheel(tmp_path_factory) -> set[Path]:
    """All but the compiled modules."""
    folder = tmp_path_factory.mktemp("lib")
    setup("build_py", "--build-lib", str(folder))
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_the_first_level_holds_folders_and_files_that_say_what_they_are(known_to_git):
    folders = {path.parts[0] for path in known_to_git if len(path.parts) > 1}
    assert folders == {".ci", ".github", "bench", "csrc", "docs", "examples", "findings", "tests", "trpo_fast"}
    files = {path for path in known_to_git if len(path.parts) == 1}
    assert {path.name for path in files if not path.suffix} == {".clang-format", ".gitignore", "LICENSE", "Makefile"}
    assert {path.suffix for path in files if path.suffix} <= {".in", ".md", ".py", ".toml", ".txt"}


def test_the_source_distribution_has_every_source(in_sdist, known_to_git):
    wanted = {
        str(path)
        for path in known_to_git
        if path.parts[0] == "trpo_fast" or (path.parts[0] == "csrc" and path.parts[1] not in ("fuzz", "tests"))
    }
    assert any(name.endswith(".pyx") for name in wanted) and "csrc/threads.c" in wanted
    assert wanted <= in_sdist, sorted(wanted - in_sdist)
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= in_sdist


def test_the_source_distribution_has_nothing_that_was_built(in_sdist):
    assert not {name for name in in_sdist if Path(name).suffix in {".so", ".o", ".a", ".pyc"} or "build/" in name}


def test_the_wheel_has_every_module_and_its_types_but_no_sources_of_compiled_code(in_wheel, known_to_git):
    wanted = {path for path in known_to_git if path.parts[0] == "trpo_fast" and path.suffix in {".py", ".pyi"}}
    assert in_wheel == wanted | {Path("trpo_fast/py.typed"), Path("trpo_fast/presets.toml")}


def test_there_is_a_stub_for_every_compiled_module_that_python_imports_from():
    core = ROOT / "trpo_fast" / "_core"
    for_python = {p.stem for p in core.glob("*.pyx") if re.search(r"^(def|cdef class) ", p.read_text(), re.MULTILINE)}
    assert {path.stem for path in core.glob("*.pyi")} == for_python


@pytest.mark.parametrize("stub", sorted((ROOT / "trpo_fast" / "_core").glob("*.pyi")), ids=lambda path: path.stem)
def test_compiled_functions_take_the_arguments_that_their_stubs_say(stub):
    module = importlib.import_module(f"trpo_fast._core.{stub.stem}")
    checked = 0
    for node in ast.walk(ast.parse(stub.read_text())):
        for function in getattr(node, "body", []) if isinstance(node, (ast.Module, ast.ClassDef)) else []:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("__") or function.decorator_list:
                continue
            owner = module if isinstance(node, ast.Module) else getattr(module, node.name)
            signature = inspect.signature(getattr(owner, function.name))
            positional, named = function.args.posonlyargs + function.args.args, function.args.kwonlyargs
            kinds = [parameter.kind for parameter in signature.parameters.values()]
            assert list(signature.parameters) == [argument.arg for argument in positional + named]
            assert kinds.count(inspect.Parameter.KEYWORD_ONLY) == len(named)
            optional = [p.default is not p.empty for p in signature.parameters.values()]
            assert sum(optional) == len(function.args.defaults) + sum(d is not None for d in function.args.kw_defaults)
            checked += 1
    assert checked


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="no limited API without a GIL")
def test_what_is_tested_is_the_build_for_every_python():
    assert Path(library.__file__).name.split(".", 1)[1] == "abi3.so"


def test_the_version_stands_in_one_place_where_no_import_is_needed_to_read_it():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "trpo_fast.__version__"}
    tree = ast.parse((ROOT / "trpo_fast" / "__init__.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]
    )
    assert isinstance(value, ast.Constant) and value.value == trpo_fast.__version__


def test_every_requirement_is_pinned_for_the_tests():
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normal(line.split("==")[0]) for line in lines if not line.startswith("#")}
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for requirements in project["optional-dependencies"].values():
        wanted += requirements
    names = {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in wanted} - {"trpo-fast"}
    assert names <= pinned, sorted(names - pinned)


def asked_of_libraries() -> dict[str, set[str]]:
    """What every compiled module asks shared libraries for, as nm says it: name, or name@version."""
    nm = shutil.which("nm")
    if nm is None or sys.platform != "linux":
        pytest.skip("no nm here, or other object files")
    asked = {}
    for module in (ROOT / "trpo_fast" / "_core").glob("*.so"):
        listed = subprocess.run([nm, "-D", "--undefined-only", module], capture_output=True, text=True, check=True)
        asked[module.name] = {line.split()[-1] for line in listed.stdout.splitlines()}
        assert any(name.startswith("Py") for name in asked[module.name]), "the list is empty"
    assert asked
    return asked


def test_no_compiled_module_asks_for_a_function_of_the_systems_libm():
    names = "exp exp2 expm1 log log2 log10 log1p pow sin cos tan sincos sinh cosh tanh erf erfc sqrt cbrt hypot fmod"
    libm = {name + suffix for name in names.split() for suffix in ("", "f", "l")}
    for module, asked in asked_of_libraries().items():
        found = libm & {name.split("@")[0] for name in asked}
        assert not found, f"{module} asks for {sorted(found)}"


def test_compiled_modules_load_with_the_oldest_c_library_that_is_promised():
    def version(name: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.search(r"GLIBC_([\d.]+)", name)[1].split("."))

    for module, asked in asked_of_libraries().items():
        newer = sorted(name for name in asked if "GLIBC_" in name and version(name) > (2, 17))
        assert not newer, f"{module} asks for {newer}; see csrc/include/trpo/glibc.h"


def test_actions_are_pinned_by_hash():
    used = [
        line.split("uses:")[1].strip()
        for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]
    assert len(used) > 10
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action
    hashes = {action.split("@")[0]: action for action in used}
    assert all(hashes[action.split("@")[0]] == action for action in used), "one version of each"


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed():
    allowed = dict(re.findall(r"^([\w-]+)>=([\w.]+)$", "\n".join(PROJECT["project"]["dependencies"]), re.M))
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert allowed.keys() - tested.keys() == {"torch"}
    for name, found in tested.items():
        assert found.removesuffix(".0").removesuffix(".0") == allowed[name].removesuffix(".0"), name
