from __future__ import annotations

import os
import statistics
import time

import pytest

# One thread for everybody, before anything loads a BLAS; --threads gives more to all alike.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="threads for torch and for trpo_fast")


@pytest.fixture(scope="session", autouse=True)
def threads(request):
    import torch

    import trpo_fast

    count = request.config.getoption("--threads")
    torch.set_num_threads(count)
    trpo_fast.set_num_threads(count)
    return count


@pytest.fixture(scope="session")
def peak(threads):
    """GFLOP/s of torch's float32 matrix product, 1024^3, in this very process."""
    import torch

    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    seconds = []
    for _ in range(25):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(seconds[5:]) / 1e9


@pytest.fixture
def library(request):
    """The baseline named by the parameter, or a skip where it is not installed."""
    from bench.baselines import load

    try:
        return load(request.param)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def record(benchmark, peak, threads):
    """Attach the figures to a benchmark that has run: ``record(flops)``."""
    from trpo_fast._core.library import instruction_set

    def attach(flops: float) -> None:
        benchmark.extra_info.update(isa=instruction_set(), threads=threads, peak_gflops=round(peak, 1))
        if benchmark.stats is not None:  # None under --benchmark-disable
            gflops = flops / benchmark.stats.stats.median / 1e9
            benchmark.extra_info.update(gflops=round(gflops, 2), fraction_of_peak=round(gflops / peak, 3))

    return attach
