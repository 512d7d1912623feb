"""What the machine can do at best, and whether it was ours alone while it was measured.

`torch.mm` is the yardstick of the project's goals, but not the limit of every machine: MKL takes a slower path on CPUs
that are not Intel's. So the limit itself is measured too, with multiply-adds in registers.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

SOURCE = Path(__file__).with_name("peak.c")
# Below this share of a core, wall-clock times of long calls are stretched and those of short ones are not.
QUIET = 0.95


class Timing(NamedTuple):
    """Of one function called repeatedly."""

    seconds: float  # median, wall clock
    cpu_share: float  # CPU time of this thread / wall clock: 1 on a quiet machine


class Limits(NamedTuple):
    """GFLOP/s of one thread in float32."""

    fma: float  # multiply-adds in registers: nothing is faster
    sgemm: float  # torch.mm of 1024 x 1024 matrices, with torch's threads
    cpu_share: float

    @property
    def quiet(self) -> bool:
        """Whether figures measured now mean anything."""
        return self.cpu_share >= QUIET


def timed(function: Callable[[], object], repeats: int) -> Timing:
    """Median wall-clock time, and this thread's share of a core over all repeats."""
    seconds = []
    cpu = time.thread_time()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), (time.thread_time() - cpu) / sum(seconds))


def measure() -> Limits:
    """Takes about a second; needs the C compiler that built the package."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    torch.mm(a, b)
    mm = timed(lambda: torch.mm(a, b), 25)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        compiler = os.environ.get("CC", "cc")
        flags = ["-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
        run = ctypes.CDLL(str(library)).trpo_bench_multiply_adds
        run.restype, run.argtypes = ctypes.c_double, [ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)]
        sink = ctypes.c_float()
        rounds = 1_000_000
        operations = run(rounds, ctypes.byref(sink))
        fma = timed(lambda: run(rounds, ctypes.byref(sink)), 25)
    return Limits(operations / fma.seconds / 1e9, 2 * 1024**3 / mm.seconds / 1e9, min(mm.cpu_share, fma.cpu_share))
