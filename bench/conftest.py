from __future__ import annotations

import os

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
def limits(threads):
    """What this machine can do, measured in this very process."""
    from bench.limits import measure

    return measure()


@pytest.fixture
def library(request):
    """The baseline named by the parameter, or a skip where it is not installed."""
    from bench.baselines import load

    try:
        return load(request.param)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def record(benchmark, limits, threads):
    """Attach the figures to a benchmark that has run: ``record(flops)``.

    ``fraction_of_peak`` is of the multiply-add limit of the threads in use, ``fraction_of_sgemm`` of torch.mm. Both are
    None where the machine was busy: a short call fits between two interruptions and a long one does not, so their
    ratio would flatter the short one.
    """
    from trpo_fast._core.library import instruction_set

    def attach(flops: float) -> None:
        info = {"isa": instruction_set(), "threads": threads, "cpu_share": round(limits.cpu_share, 2)}
        info["peak_gflops"] = round(limits.fma * threads, 1) if limits.quiet else None
        info["sgemm_gflops"] = round(limits.sgemm, 1) if limits.quiet else None
        if benchmark.stats is not None:  # None under --benchmark-disable
            gflops = flops / benchmark.stats.stats.median / 1e9
            info["gflops"] = round(gflops, 2)
            info["fraction_of_peak"] = round(gflops / limits.fma / threads, 3) if limits.quiet else None
            info["fraction_of_sgemm"] = round(gflops / limits.sgemm, 3) if limits.quiet else None
            if limits.quiet:
                assert gflops <= 1.05 * limits.fma * threads, (
                    "faster than the machine can be: the count or the clock lies"
                )
        benchmark.extra_info.update(info)

    return attach
