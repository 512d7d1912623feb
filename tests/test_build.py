"""What setup.py builds: the compiler decides, and what the kernels are compiled with old compilers know."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = {
    "x86_64": ["x86_64_v2", "x86_64_v3", "x86_64_v4", "x86_64_v4_bfloat16"],
    "aarch64": ["aarch64", "aarch64_bfloat16"],
}

# Of https://gcc.gnu.org/onlinedocs/gcc-8.5.0/gcc/x86-Options.html, those that __builtin_cpu_supports takes there, too.
GCC_8 = {
    *("popcnt", "sse3", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "fma", "bmi", "bmi2"),
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi", "avx512ifma", "avx512vpopcntdq"),
    *("avx512vbmi2", "avx512vnni", "avx512bitalg", "gfni", "vpclmulqdq"),
}


@pytest.fixture(scope="module")
def setup() -> dict[str, Any]:
    pytest.importorskip("Cython", reason="setup.py needs Cython")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    return runpy.run_path(str(ROOT / "setup.py"))


def compiler(folder: Path, script: str) -> tuple[str, ...]:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return (str(path),)


def libraries(setup, command):
    return dict(setup["static_libraries"](setup["target_of"](command)))


def test_the_compiler_says_which_machine_is_built_for(setup, tmp_path):
    listed = 'case " $* " in *\' -E \'*) echo \'GLIBC TABLE aarch64 "aarch64" ""\';; esac'
    found = libraries(setup, compiler(tmp_path, listed))
    assert set(found) == {"trpo_base", "trpo_aarch64", "trpo_random"}
    assert found["trpo_aarch64"]["sources"] == ["csrc/isa/aarch64.c"]
    assert "csrc/include/trpo/glibc.h" in found["trpo_aarch64"]["cflags"]


@pytest.mark.parametrize(
    ("command", "machine"), [("aarch64-linux-gnu-gcc", "aarch64"), ("x86_64-linux-gnu-gcc", "x86_64")]
)
def test_a_cross_compiler_gets_its_own_tables(command, machine, setup):
    if shutil.which(command) is None:
        pytest.skip(f"no {command} here")
    assert setup["target_of"]((command,)).tables.keys() == set(TABLES[machine])


def test_another_c_library_than_glibc_is_not_taken_for_it(setup, tmp_path):
    listed = 'case " $* " in *\' -E \'*) echo \'TABLE aarch64 "aarch64" ""\';; esac'
    assert "-include" not in libraries(setup, compiler(tmp_path, listed))["trpo_base"]["cflags"]


def test_a_table_that_the_compiler_has_no_flags_for_is_left_out(setup, tmp_path):
    if setup["target_of"](("cc",)).tables.keys() != set(TABLES["x86_64"]):
        pytest.skip("needs an x86-64 compiler that knows AVX-512")
    found = libraries(setup, compiler(tmp_path, 'case " $* " in *\' -mavx512f \'*) exit 1;; esac\nexec cc "$@"'))
    assert set(found) == {"trpo_base", "trpo_x86_64_v2", "trpo_x86_64_v3", "trpo_random"}
    without = {f"-DTRPO_WITHOUT_{suffix}" for suffix in ("x86_64_v4", "x86_64_v4_bfloat16")}
    assert without <= set(found["trpo_base"]["cflags"])


def test_a_compiler_that_is_too_old_for_bf16_leaves_nothing_else_out(setup, tmp_path):
    if setup["target_of"](("cc",)).tables.keys() != set(TABLES["x86_64"]):
        pytest.skip("needs an x86-64 compiler that knows AVX-512")
    found = libraries(setup, compiler(tmp_path, 'case " $* " in *\' -mavx512bf16 \'*) exit 1;; esac\nexec cc "$@"'))
    assert set(found) == {"trpo_base", "trpo_x86_64_v2", "trpo_x86_64_v3", "trpo_x86_64_v4", "trpo_random"}
    assert "-DTRPO_WITHOUT_x86_64_v4_bfloat16" in found["trpo_base"]["cflags"]


def test_a_compiler_for_another_machine_is_refused_by_name(setup, tmp_path):
    command = compiler(tmp_path, "echo 'no kernels for m68k' >&2; exit 1")
    with pytest.raises(
        SystemExit, match=r"compiler does not compile for one of trpo_fast's machines:\nno kernels for m68k"
    ):
        setup["target_of"](command)
    with pytest.raises(SystemExit, match="trpo_fast needs a C compiler; /nowhere/cc does not run"):
        setup["target_of"](("/nowhere/cc",))


def test_every_feature_is_one_that_gcc_8_documents(setup):
    target = setup["target_of"](("cc",))
    if "aarch64" in target.tables:
        pytest.skip("needs an x86-64 compiler")
    assert not target.left_out
    for suffix, flags in target.tables.items():
        features = [flag.removeprefix("-m") for flag in flags if "=" not in flag]
        later = {"avx512bf16"} if suffix == "x86_64_v4_bfloat16" else set()  # gcc 10: left out by an older one
        assert set(features) - later <= GCC_8 and len(features) >= 5
        assert [flag for flag in flags if "=" in flag] in ([], ["-mprefer-vector-width=512"])
    assert not [flag for flag in setup["C_FLAGS"] if flag.startswith("-m")]


def test_an_archive_is_made_anew_so_that_objects_which_left_it_are_gone(setup, tmp_path, monkeypatch):
    dist = pytest.importorskip("setuptools").Distribution()
    command = setup["BuildLibraries"](dist)
    command.build_clib = str(tmp_path)
    command.compiler = pytest.importorskip("setuptools._distutils.ccompiler").new_compiler()
    stale = tmp_path / command.compiler.library_filename("trpo_base")
    stale.write_bytes(b"!<arch>\n")
    seen = []
    monkeypatch.setattr(
        setup["build_clib"], "build_libraries", lambda self, made: seen.append(([n for n, _ in made], stale.exists()))
    )
    command.build_libraries([])
    assert "trpo_base" in [name for names, _ in seen for name in names]
    assert not any(left for _, left in seen)
