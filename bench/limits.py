"""What the machine can do at best, in this very process: multiply-adds, memory, and torch's matrix product.

`torch.mm` is the yardstick of the project's goals, but not the limit of every machine: MKL takes a slower path on CPUs
that are not Intel's. So the limit itself is measured too, with multiply-adds in registers.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

import torch

import trpo_fast
from trpo_fast.benchmarks import DTYPES, QUIET, measure_bandwidth, measure_peak, timed


class Limits(NamedTuple):
    """On the threads in use."""

    fma: dict[str, float]  # GFLOP/s of multiply-adds in registers, by dtype: nothing is faster
    sgemm: float  # GFLOP/s of torch.mm of 1024 x 1024 matrices in float32
    bandwidth: float  # GB/s of c = a + b
    cpu_share: float

    @property
    def quiet(self) -> bool:
        """Whether figures measured now mean anything."""
        return self.cpu_share >= QUIET


def measure() -> Limits:
    """Takes about two seconds."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    torch.mm(a, b)
    mm = timed(lambda: torch.mm(a, b), 25)
    peaks = {dtype: [measure_peak(dtype, rounds=5_000_000) for _ in range(9)] for dtype in DTYPES}
    shares = [peak.cpu_share for several in peaks.values() for peak in several]
    return Limits(
        {dtype: statistics.median(peak.gflops for peak in several) for dtype, several in peaks.items()},
        2 * 1024**3 / mm.seconds / 1e9,
        measure_bandwidth(trpo_fast.get_num_threads()),
        statistics.median(shares),
    )
