"""The compiled parts: csrc as static libraries, one per instruction set, and the extension modules over them."""

import os
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

from distutils.ccompiler import new_compiler  # isort: skip  # setuptools' own, which it puts there
from distutils.sysconfig import customize_compiler  # isort: skip

ROOT = Path(__file__).resolve().parent
C_FLAGS = ["-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
C_SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.c"))
# One binary for every CPython from 3.11 on. Free-threaded interpreters have no such interface before 3.15.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


class Target(NamedTuple):
    """What a compiler compiles for, which need not be the machine that it runs on."""

    glibc: bool
    tables: dict[str, list[str]]
    """Flags of each of csrc/isa's sources that it can compile."""
    left_out: list[str]
    """Those that it has no flags for."""


def command_of(compiler):
    """What objects are compiled with, flags of the environment included. compiler: setuptools', or its kind's name."""
    if compiler is None or isinstance(compiler, str):
        compiler = new_compiler(compiler=compiler)
        customize_compiler(compiler)
    return tuple(compiler.compiler_so)


def run(command):
    """Run the compiler, whatever comes of it."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"trpo_fast needs a C compiler; {command[0]} does not run: {error}") from error


@cache
def target_of(command):
    """Ask a compiler what it compiles for, and which instruction sets it has flags for; see csrc/isa/flags.h."""
    listed = run([*command, "-E", "-P", "-x", "c", "csrc/isa/flags.h"])
    if listed.returncode != 0:
        raise SystemExit(f"{' '.join(command)} does not compile for one of trpo_fast's machines:\n{listed.stderr}")
    glibc, *tables = listed.stdout.split("TABLE ")
    target, unwanted = Target("GLIBC" in glibc, {}, []), os.environ.get("TRPO_FAST_LEAVE_OUT", "").split()
    for table in tables:
        suffix, _, *flags = table.replace('"-m" "', '"-m').replace('"', "").split()
        if suffix not in unwanted and knows(command, flags):
            target.tables[suffix] = flags
        else:
            target.left_out.append(suffix)
    if not target.tables:
        raise SystemExit(f"{' '.join(command)} has flags for none of {', '.join(target.left_out)}")
    return target


def knows(command, flags):
    """Whether a compiler has these flags, and can ask the CPU for what they allow."""
    features = [flag[2:] for flag in flags if "=" not in flag]
    asked = " && ".join(f'__builtin_cpu_supports("{feature}")' for feature in features) or "1"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(f"int main(void) {{ return {asked}; }}\n")
        return run([*command, *flags, "-c", str(source), "-o", str(source.with_suffix(".o"))]).returncode == 0


def static_library(name, sources, target, flags):
    """One entry of setuptools' `libraries`, compiled with flags of its own."""
    return name, {
        "sources": sources,
        "include_dirs": ["csrc/include"],
        "cflags": [*C_FLAGS, *flags, "-fPIC", *(["-include", "csrc/include/trpo/glibc.h"] if target.glibc else [])],
        "obj_deps": {"": HEADERS},
    }


def static_libraries(target):
    """csrc: what all share, and the kernels once per instruction set."""
    left_out = [f"-DTRPO_WITHOUT_{suffix}" for suffix in target.left_out]
    return [
        static_library(
            "trpo_base", ["csrc/bfloat16.c", "csrc/dispatch.c", "csrc/threads.c"], target, ["-pthread", *left_out]
        ),
        *(
            static_library(f"trpo_{suffix}", [f"csrc/isa/{suffix}.c"], target, flags)
            for suffix, flags in target.tables.items()
        ),
        # noise has the same bits on every CPU
        static_library("trpo_random", ["csrc/random.c"], target, ["-ffp-contract=off"]),
    ]


def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_build(command):
    """Where this folder's own builds go: an editable install would compile everything again, elsewhere."""
    plain = build(command.distribution)
    plain.ensure_finalized()
    return plain


class BuildLibraries(build_clib):
    """Builds what the compiler in use can build: that is not known before one is wanted."""

    editable_mode = False  # pip install -e: set by setuptools

    def finalize_options(self):
        """As asked for, or with what was compiled in place."""
        super().finalize_options()
        if self.editable_mode:
            self.build_clib = self.build_temp = own_build(self).build_temp

    def get_library_names(self):
        """Of what extensions are linked to."""
        return [name for name, _ in static_libraries(target_of(command_of(self.compiler)))]

    def build_libraries(self, libraries):
        """Build csrc's, instead of the one that setup() was told of."""
        command = command_of(self.compiler)
        target = target_of(command)
        for suffix in target.left_out:
            self.warn(
                f"csrc/isa/{suffix}.c is left out: {command[0]} has no flags for it, or TRPO_FAST_LEAVE_OUT says so"
            )
        made = static_libraries(target)
        for name, _ in made:  # an archive that is added to keeps the objects of sources that have left it
            (Path(self.build_clib) / self.compiler.library_filename(name)).unlink(missing_ok=True)
        # Each takes half a minute: side by side where there are cores for it.
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(lambda library: super(BuildLibraries, self).build_libraries([library]), made))


class BuildExtensions(build_ext):
    """Links as the C library wants it; several extensions at once."""

    def finalize_options(self):
        """As asked for, or on all cores, with what was compiled in place."""
        super().finalize_options()
        if self.editable_mode:
            self.build_lib, self.build_temp = own_build(self).build_lib, own_build(self).build_temp
        if self.parallel is None:
            self.parallel = cores()

    def build_extension(self, ext):
        """Build one; see trpo/glibc.h."""
        if ext.name.endswith(".library") and target_of(command_of(self.compiler)).glibc:
            ext.extra_link_args += ["-Wl,--no-as-needed", "-l:libpthread.so.0", "-Wl,--as-needed"]
        super().build_extension(ext)


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
    "recurrent",
    "rollout",
    "stepping",
)


def extension(name):
    """One extension module. Only `library` refers to symbols of csrc; the others reach its tables through cimport."""
    return Extension(
        f"trpo_fast._core.{name}",
        [f"trpo_fast/_core/{name}.pyx"],
        include_dirs=["csrc/include"],
        # setuptools does not link again for a new static library alone
        depends=[*HEADERS, *C_SOURCES] if name == "library" else HEADERS,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
        py_limited_api=LIMITED_API,
        extra_compile_args=["-O2", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"],
        extra_link_args=["-pthread"],
    )


if __name__ == "__main__":
    setup(
        # Which there are BuildLibraries decides, once the compiler is known.
        libraries=[("trpo_base", {"sources": C_SOURCES})],
        ext_modules=cythonize(
            [extension(name) for name in EXTENSIONS],
            build_dir="build",
            compiler_directives={
                "language_level": 3,
                "cdivision": True,
                # Plain C functions: smaller, and quicker to call where the limited API is that of 3.11. Their
                # signatures are embedded, so that help() and inspect know them.
                "binding": False,
                "embedsignature": True,
                "embedsignature.format": "clinic",
                "auto_pickle": False,
                "freethreading_compatible": False,
            },
        ),
        cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtensions},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
    )
