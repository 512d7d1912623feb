"""The programs of csrc/fuzz, which clang makes with libFuzzer in them."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.fuzz.targets import BUILD, ROOT, Lines, Target, replaced

# Of csrc: what a target is to reach; and a check that a copy lacks, with what is said then.
FILES = {
    "vectors": ("kernels/vector.h", "kernels/statistics.h", "kernels/elementary.h", "random.c"),
    "threads": ("threads.c",),
    "policy": (
        *("kernels/mlp.h", "kernels/jacobian.h", "kernels/distributions.h", "kernels/products.h", "kernels/policy.h"),
        *("kernels/policy_bfloat16.h", "kernels/mlp_bfloat16.h", "kernels/bfloat16.h", "kernels/packing.h"),
        *("kernels/product.h", "kernels/gemm.h", "kernels/act.h"),
        *("kernels/kfac_statistics.h", "kernels/kfac_inverse.h", "kernels/kfac_apply.h"),
    ),
    "critic": ("kernels/critic.h", "kernels/critic_bfloat16.h"),
    "recurrent": ("kernels/recurrent.h",),
}
PLANTED = {
    "vectors": ("kernels/statistics.h", "if (!isfinite(data[i])) return i + 1;", "{}", "merge_moments found 0"),
    "threads": ("threads.c", "if (quota <= 0 || period <= 0) return 0;", "", "division by zero"),
    "policy": (
        "kernels/act.h",
        "if (!finite || !isfinite(job->normalized[at])) return i;",
        "(void)finite;",
        "is not finite, and acted on",
    ),
    "critic": ("kernels/critic.h", "lost_parameter |= !(theta[i] - theta[i] == 0);", "", "of a step whose numbers say"),
    "recurrent": ("kernels/recurrent.h", "return job->starts && job->starts", "return job->starts", "starts_here"),
}


@functools.cache
def _missing() -> str:
    for name in ("make", "clang", "llvm-profdata", "llvm-cov"):
        if shutil.which(name) is None:
            return f"{name} is not installed here"
    with tempfile.TemporaryDirectory() as folder:
        program = "int LLVMFuzzerTestOneInput(void) { return 0; }"
        command = ["clang", "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", f"{folder}/probe"]
        built = subprocess.run(command, input=program, text=True, capture_output=True)
    return "" if built.returncode == 0 else "clang has no libFuzzer here, or it does not work"


class Compiled(Target):
    """One of them, of these sources."""

    tool = "libFuzzer"
    longest = 512
    few_new = 20

    def __init__(self, name: str, optimize: str, folder: Path = BUILD, csrc: Path = ROOT / "csrc") -> None:
        super().__init__(name)
        self._csrc, self._optimize = csrc, optimize
        self._build = folder / f"programs{optimize}"

    @property
    def corpus(self) -> Path:
        return ROOT / "csrc" / "fuzz" / "corpus" / f"{self.name}.txt"

    def missing(self) -> str:
        return _missing()

    def build(self) -> None:
        where = [f"CSRC={self._csrc}", f"BUILD={self._build}", f"OPTIMIZE={self._optimize}", "CC=clang"]
        command = [
            "make",
            f"-j{os.cpu_count()}",
            "-C",
            str(ROOT / "csrc" / "fuzz"),
            *where,
            f"{self._build}/{self.name}",
        ]
        # Without the options of a make that this may run in.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        self._build.mkdir(parents=True, exist_ok=True)
        with (self._build / "lock").open("w") as lock:  # targets at once have objects in common
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    def command(self) -> list[str]:
        return [str(self._build / self.name)]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "LLVM_PROFILE_FILE": str(self._build / f"{self.name}.profile")}

    def lines(self, inputs: Path) -> Lines:
        program, raw = self.command()[0], self.environment()["LLVM_PROFILE_FILE"]
        self._run(program, "-runs=0", str(inputs))
        self._run("llvm-profdata", "merge", "-o", f"{raw}.data", raw)
        told = self._run("llvm-cov", "export", "-summary-only", "-instr-profile", f"{raw}.data", program)
        files = json.loads(told)["data"][0]["files"]
        sums = {Path(file["filename"]).resolve(): file["summary"]["lines"] for file in files}
        wanted = [sums[(self._csrc / name).resolve()] for name in FILES[self.name]]
        return Lines(sum(one["covered"] for one in wanted), sum(one["count"] for one in wanted))

    def fewest(self, *folders: Path) -> list[bytes]:
        with tempfile.TemporaryDirectory() as merged:
            options = ("-set_cover_merge=1", "-use_counters=0", f"-max_len={self.longest}")
            self._run(*self.command(), *options, merged, *map(str, folders))
            return [path.read_bytes() for path in Path(merged).iterdir()]

    def without_a_check(self, folder: Path) -> tuple[Compiled, str]:
        file, check, instead, said = PLANTED[self.name]
        shutil.copytree(self._csrc, folder / "csrc", ignore=shutil.ignore_patterns("build", "fuzz", "tests"))
        replaced(folder / "csrc" / file, check, instead)
        return Compiled(self.name, self._optimize, folder, folder / "csrc"), said

    def _run(self, *command: str) -> str:
        # What libFuzzer finds slow it writes into the working folder.
        with tempfile.TemporaryDirectory() as scratch:
            environment = {**self.environment(), "TMPDIR": scratch}
            done = subprocess.run(
                command, cwd=self._build, env=environment, capture_output=True, text=True, errors="replace"
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-6000:]}")
        return done.stdout
