"""The compiled parts: csrc as static libraries, one per instruction set, and the extension modules over them."""

import platform
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

C_FLAGS = ["-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
INSTRUCTION_SETS = {
    "x86_64": {
        "x86_64_v2": ["-march=x86-64-v2"],
        "x86_64_v3": ["-march=x86-64-v3"],
        "x86_64_v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    },
    "aarch64": {"aarch64": []},
}
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
C_SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.c"))


def static_library(name, sources, flags):
    """One entry of setuptools' `libraries`, compiled with flags of its own."""
    return name, {
        "sources": sources,
        "include_dirs": ["csrc/include"],
        "cflags": [*C_FLAGS, *flags, "-fPIC"],
        "obj_deps": {"": HEADERS},
    }


def machine():
    """The architecture under one name everywhere."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def static_libraries():
    """csrc: what all share, and the kernels once per instruction set."""
    if machine() not in INSTRUCTION_SETS:
        raise SystemExit(f"trpo_fast has kernels for {', '.join(INSTRUCTION_SETS)}; this machine is {machine()}")
    base = static_library("trpo_base", ["csrc/dispatch.c", "csrc/random.c", "csrc/threads.c"], ["-pthread"])
    return [
        base,
        *(
            static_library(f"trpo_{isa}", [f"csrc/isa/{isa}.c"], flags)
            for isa, flags in INSTRUCTION_SETS[machine()].items()
        ),
    ]


def extension(name):
    """One extension module. Only `library` refers to symbols of csrc; the others reach its tables through cimport."""
    return Extension(
        f"trpo_fast._core.{name}",
        [f"trpo_fast/_core/{name}.pyx"],
        include_dirs=["csrc/include"],
        # setuptools does not link again for a new static library alone
        depends=[*HEADERS, *C_SOURCES] if name == "library" else HEADERS,
        extra_compile_args=["-O2", "-ffp-contract=off", "-fvisibility=hidden"],
        extra_link_args=["-pthread"],
    )


setup(
    libraries=static_libraries(),
    ext_modules=cythonize(
        [
            extension(name)
            for name in ("library", "operator", "cg", "linesearch", "policy", "preconditioner", "critic", "rollout")
        ],
        build_dir="build",
        compiler_directives={
            "language_level": 3,
            "cdivision": True,
            "binding": True,
            "embedsignature": False,
            "freethreading_compatible": False,
        },
    ),
)
