from __future__ import annotations

import json
from pathlib import Path

import pytest

FIGURES = pytest.StashKey()
LIMITS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="threads for torch and for trpo_fast")
    parser.addoption("--grid", action="store_true", help="all widths, batches and dtypes; the better part of an hour")
    parser.addoption("--out", type=Path, help="JSON file for the medians, as bench.report reads them")
    parser.addoption("--quick", action="store_true", help="small cases and short rounds: whether it works")


def pytest_configure(config):
    config.stash[FIGURES] = []
    # What torch says about its own parts while it differentiates and compiles.
    for category in ("DeprecationWarning", "FutureWarning", "UserWarning:torch"):
        config.addinivalue_line("filterwarnings", f"ignore::{category}")
    # At least seven rounds, about half a second for each case.
    config.option.benchmark_min_rounds = 7
    config.option.benchmark_max_time = 0.05 if config.option.quick else 0.5
    config.option.benchmark_sort = "mean"
    config.option.benchmark_columns = ["median", "iqr", "rounds"]
    config.option.benchmark_group_by = "group"


def pytest_generate_tests(metafunc):
    # A module's CASES are (what is always run, what --grid adds).
    if "case" in metafunc.fixturenames:
        usual, grid = metafunc.module.CASES
        chosen = usual[:1] if metafunc.config.option.quick else usual + grid * metafunc.config.option.grid
        metafunc.parametrize("case", chosen, ids=lambda case: "-".join(map(str, case)).replace(" ", ""))


def pytest_report_header(config):
    return f"threads: {config.option.threads} for trpo_fast, torch and BLAS alike"


@pytest.fixture(scope="session", autouse=True)
def threads(request):
    import threadpoolctl
    import torch

    import trpo_fast

    count = request.config.getoption("--threads")
    torch.set_num_threads(count)
    trpo_fast.set_num_threads(count)
    with threadpoolctl.threadpool_limits(count):  # NumPy's BLAS, whatever has loaded it before
        pools = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        assert set(pools.values()) == {count}, pools
        assert torch.get_num_threads() == trpo_fast.get_num_threads() == count
        yield count


@pytest.fixture(scope="session")
def limits(threads):
    """What this machine can do on these threads, measured in this very process."""
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
def single_precision_only(request):
    """Call with a dtype: skips a library that has float32 alone."""
    from bench.baselines import SINGLE_PRECISION

    name = request.node.callspec.params["library"]

    def check(dtype):
        if name in SINGLE_PRECISION and dtype != "float32":
            pytest.skip(f"{name} computes in float32 only")

    return check


@pytest.fixture
def record(benchmark, request, limits, threads):
    """Attach the figures to a benchmark that has run: ``record(flops, bytes, dtype)``.

    ``fraction_of_peak`` is of the multiply-add limit of the threads in use. It is None where the machine was busy: a
    short call fits between two interruptions and a long one does not, so their ratio would flatter the short one.
    """

    def attach(flops: float, bytes: float | None = None, dtype: str = "float32") -> None:
        if benchmark.stats is None:  # under --benchmark-disable
            return
        peak, seconds = limits.fma[dtype], benchmark.stats.stats.median
        gflops = flops / seconds / 1e9
        if limits.quiet:
            assert gflops <= 1.05 * peak, "faster than the machine can be: the count or the clock lies"
        benchmark.extra_info["library"] = request.node.callspec.params.get("library", request.node.callspec.id)
        benchmark.extra_info |= {
            "dtype": dtype,
            "threads": threads,
            "flops": flops,
            "bytes": bytes,
            "gflops": gflops,
            "peak_gflops": peak,
            "fraction_of_peak": gflops / peak if limits.quiet else None,
        }
        request.config.stash[FIGURES].append(
            {
                "group": benchmark.group,
                "seconds": seconds,
                "rounds": benchmark.stats.stats.rounds,
                **benchmark.extra_info,
            }
        )
        request.config.stash[LIMITS] = limits

    return attach


def pytest_sessionfinish(session):
    config = session.config
    if config.option.out is None or not config.stash[FIGURES]:
        return
    from bench.machine import describe

    limits = config.stash[LIMITS]
    result = {
        "command": " ".join(["python -m pytest", *config.invocation_params.args]),
        "threads": config.option.threads,
        "machine": describe(),
        "limits": limits._asdict(),
        "cpu_share": limits.cpu_share,
        "quiet": limits.quiet,
        "figures": config.stash[FIGURES],
    }
    config.option.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
