"""What the machine can do at most, and whether it was ours alone while that was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from .._core import library

# Below this share of a core, wall-clock times of long calls are stretched and those of short ones are not.
QUIET = 0.95
# Whose multiply-adds have a limit of their own.
PRECISIONS = ("float32", "float64", "bfloat16")


class Timing(NamedTuple):
    """Of one function called repeatedly."""

    seconds: float  # median, wall clock
    cpu_share: float  # CPU time of this thread / wall clock: 1 on a quiet machine


def timed(function: Callable[[], object], repeats: int) -> Timing:
    """Median wall-clock time, and this thread's share of a core over all repeats."""
    seconds = []
    cpu = time.thread_time()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), (time.thread_time() - cpu) / sum(seconds))


class Peak(NamedTuple):
    """One measurement of the multiply-add limit."""

    gflops: float
    cpu_share: float  # of all its threads


def measure_peak(dtype: str, rounds: int = 500_000) -> Peak:
    """The multiply-add limit of the instruction set in use on the threads in use, once; about two milliseconds."""
    cpu, start = _processor_seconds(), time.perf_counter()
    operations = library.multiply_adds(dtype, rounds)
    seconds = time.perf_counter() - start
    return Peak(operations / seconds / 1e9, (_processor_seconds() - cpu) / seconds / library.get_num_threads())


def _processor_seconds() -> float:
    """Of all threads of this process, once the pool's have left their cores.

    Linux brings the account of a thread that runs on another core up to date at its next tick, milliseconds later, but
    at once when it sleeps, as the pool's do 50 microseconds after a section.
    """
    if library.get_num_threads() > 1:
        time.sleep(5e-4)
    return time.process_time()


def multiply_add_limits(repeats: int = 9) -> dict[str, float | None]:
    """GFLOP/s of one thread's multiply-adds by precision, the best of `repeats`; None where CPU or build has it not."""
    before = library.get_num_threads()
    library.set_num_threads(1)
    try:
        return {precision: _limit(precision, repeats) for precision in PRECISIONS}
    finally:
        library.set_num_threads(before)


def _limit(precision: str, repeats: int) -> float | None:
    try:
        return max(measure_peak(precision).gflops for _ in range(repeats))
    except (TypeError, ValueError):
        return None


def measure_bandwidth(threads: int, repeats: int = 7, items: int = 8_000_000) -> float:
    """GB/s of ``c = a + b`` on arrays that no cache holds (64 MB each), counting the three of them; median."""
    a, b, c = (np.full(items, value) for value in (1.0, 2.0, 0.0))
    parts = [slice(i * items // threads, (i + 1) * items // threads) for i in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            list(pool.map(lambda part: np.add(a[part], b[part], out=c[part]), parts))
            seconds.append(time.perf_counter() - start)
    return 3 * a.nbytes / statistics.median(seconds[1:]) / 1e9  # the first touches the pages
