"""The compiled parts: csrc as static libraries, one per instruction set, and the extension modules over them."""

import platform
import sysconfig
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
GLIBC = platform.libc_ver()[0] == "glibc"
# One binary for every CPython from 3.11 on. Free-threaded interpreters have no such interface before 3.15.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def static_library(name, sources, flags):
    """One entry of setuptools' `libraries`, compiled with flags of its own."""
    return name, {
        "sources": sources,
        "include_dirs": ["csrc/include"],
        "cflags": [*C_FLAGS, *flags, "-fPIC", *(["-include", "csrc/include/trpo/glibc.h"] if GLIBC else [])],
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


EXTENSIONS = (
    "library",
    "operator",
    "cg",
    "linesearch",
    "layouts",
    "policy",
    "acting",
    "recording",
    "preconditioner",
    "critic",
    "rollout",
    "stepping",
)


def extension(name):
    """One extension module. Only `library` refers to symbols of csrc; the others reach its tables through cimport."""
    link_args = ["-pthread", "-lm"]
    if name == "library" and GLIBC:
        link_args += ["-Wl,--no-as-needed", "-l:libpthread.so.0", "-Wl,--as-needed"]  # see trpo/glibc.h
    return Extension(
        f"trpo_fast._core.{name}",
        [f"trpo_fast/_core/{name}.pyx"],
        include_dirs=["csrc/include"],
        # setuptools does not link again for a new static library alone
        depends=[*HEADERS, *C_SOURCES] if name == "library" else HEADERS,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
        py_limited_api=LIMITED_API,
        extra_compile_args=["-O2", "-ffp-contract=off", "-fvisibility=hidden"],
        extra_link_args=link_args,
    )


setup(
    libraries=static_libraries(),
    ext_modules=cythonize(
        [extension(name) for name in EXTENSIONS],
        build_dir="build",
        compiler_directives={
            "language_level": 3,
            "cdivision": True,
            # Plain C functions: smaller, and quicker to call where the limited API is that of 3.11. Their signatures
            # are embedded, so that help() and inspect know them.
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "auto_pickle": False,
            "freethreading_compatible": False,
        },
    ),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
