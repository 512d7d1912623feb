"""Cases timed in alternating rounds, and what came of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from .._core import library
from .._core.library import in_words, require_choice
from ..solvers.validation import require_count
from .cases import KINDS, Case, make_cases
from .limits import QUIET, Peak, measure_bandwidth, measure_peak
from .machine import describe_machine
from .problems import DTYPES

SCHEMA = "trpo_fast.benchmarks/1"


@dataclass(frozen=True)
class Figure:
    """One case on one number of threads; a case of unit "iteration" with rate 100 does 100 iterations a second."""

    kind: str
    name: str
    size: int
    """n, the number of parameters."""
    batch: int
    """B; 0 where there is none."""
    dtype: str
    threads: int
    seconds: float
    """Of one call: median over the rounds of the mean of the calls in a round."""
    unit: str
    rate: float
    """Units a second."""
    gflops: float
    peak_gflops: float
    """The multiply-add limit on as many threads, median of the same rounds."""
    fraction_of_peak: float
    bytes: int
    """Of one call, by the model in this module's documentation."""
    gbytes_per_second: float
    error: float
    """Relative to float64 NumPy."""
    cpu_share: float
    """Share of its cores that the process got while this was measured."""

    @property
    def quiet(self) -> bool:
        """Whether the machine was ours, so that the figure means something."""
        return self.cpu_share >= QUIET


@dataclass(frozen=True)
class Limit:
    """What one number of threads can do at most."""

    threads: int
    dtype: str
    gflops: float
    gbytes_per_second: float
    cpu_share: float


@dataclass
class Report:
    """All that a run found."""

    machine: dict[str, Any]
    limits: list[Limit] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what the fields mean stands at `Figure` and `Limit`."""
        figures = [asdict(figure) | {"quiet": figure.quiet} for figure in self.figures]
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "limits": [asdict(x) for x in self.limits],
            "figures": figures,
        }


class _Variant(NamedTuple):
    """A case on one number of threads, and what its rounds gave."""

    threads: int
    work: Callable[[], Any]
    error: float
    calls: int  # a round
    seconds: list[float]
    peaks: list[Peak]
    shares: list[float]


def measure(case: Case, threads: Sequence[int], rounds: int = 9, round_seconds: float = 0.02) -> list[Figure]:
    """Figures of one case, one for each number of threads, from alternating rounds.

    Raises WrongAnswer before anything is timed. The number of threads in use is afterwards what it was.
    """
    before = library.get_num_threads()
    try:
        variants = [_prepared(case, count, round_seconds) for count in (threads if case.threaded else threads[:1])]
        for _ in range(rounds):
            for variant in variants:
                _one_round(case, variant)
    finally:
        library.set_num_threads(before)
    return [_figure(case, variant) for variant in variants]


def _prepared(case: Case, threads: int, round_seconds: float) -> _Variant:
    library.set_num_threads(threads)
    work = case.make()
    error = case.check(work())
    start = time.perf_counter()
    work()
    calls = max(1, round(round_seconds / (time.perf_counter() - start)))
    return _Variant(threads, work, error, calls, [], [], [])


def _one_round(case: Case, variant: _Variant) -> None:
    library.set_num_threads(variant.threads)
    variant.peaks.append(measure_peak(case.dtype))
    cpu, start = time.thread_time(), time.perf_counter()
    for _ in range(variant.calls):
        variant.work()
    seconds = time.perf_counter() - start
    variant.seconds.append(seconds / variant.calls)
    variant.shares.append((time.thread_time() - cpu) / seconds)


def _figure(case: Case, variant: _Variant) -> Figure:
    seconds = statistics.median(variant.seconds)
    peak = statistics.median(peak.gflops for peak in variant.peaks)
    # On several threads this one sleeps while the last of the others ends; the peak's threads all end together.
    own = statistics.median(variant.shares) if variant.threads == 1 else 1.0
    gflops = case.flops / seconds / 1e9
    return Figure(
        kind=case.kind,
        name=case.name,
        size=case.size,
        batch=case.batch,
        dtype=case.dtype,
        threads=variant.threads,
        seconds=seconds,
        unit=case.unit,
        rate=case.count / seconds,
        gflops=gflops,
        peak_gflops=peak,
        fraction_of_peak=gflops / peak,
        bytes=round(case.bytes),
        gbytes_per_second=case.bytes / seconds / 1e9,
        error=variant.error,
        cpu_share=min(own, statistics.median(peak.cpu_share for peak in variant.peaks)),
    )


def run(
    kind: str = "all",
    *,
    threads: Sequence[int] | None = None,
    dtypes: Sequence[str] = DTYPES,
    quick: bool = False,
    progress: Callable[[Limit | Figure], object] | None = None,
) -> Report:
    """Measure the cases of `kind` on this machine.

    Parameters
    ----------
    kind : {"all", "cg", "fisher", "update", "rollout"}
        "cg": iterations of conjugate gradient, on a diagonal and on Fisher matrices; "fisher": single Fisher products;
        "update": a whole policy step, and the critic's fit; "rollout": acting and values, without any simulator.
    threads : sequence of int, optional
        Numbers of threads to measure on; by default 1 and all that are in use.
    dtypes : sequence of {"float32", "float64"}
    quick : bool
        A few small cases in shorter rounds: whether it works, rather than how fast.
    progress : callable, optional
        Gets every `Limit` and `Figure` as soon as it is known.

    Raises
    ------
    WrongAnswer
        An answer is not what float64 NumPy says.
    """
    require_choice("kind", kind, (*KINDS, "all"))
    _require_sequence("dtypes", dtypes)
    if unknown := set(dtypes) - set(DTYPES):
        raise ValueError(f"dtypes: {', '.join(sorted(map(str, unknown)))} given; want some of {', '.join(DTYPES)}")
    counts = [1, library.get_num_threads()]
    if threads is not None:
        _require_sequence("threads", threads)
        counts = [require_count("threads", count, low=1, most=library.MAX_THREADS) for count in threads]
    counts = sorted(set(counts))
    report = Report(describe_machine())

    def add(known: list[Any], one: Limit | Figure) -> None:
        known.append(one)
        if progress is not None:
            progress(one)

    for limit in _limits(counts, dtypes, quick):
        add(report.limits, limit)
    for one in KINDS if kind == "all" else (kind,):
        for case in make_cases(one, dtypes, quick):
            for figure in measure(case, counts, rounds=7 if quick else 9, round_seconds=0.002 if quick else 0.02):
                add(report.figures, figure)
    return report


def _require_sequence(name: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, Iterable) or not list(value):
        raise TypeError(f"{name}: {in_words(value)} given; want a sequence of at least one")


def _limits(counts: Sequence[int], dtypes: Sequence[str], quick: bool) -> Iterator[Limit]:
    before = library.get_num_threads()
    try:
        for count in counts:
            library.set_num_threads(count)
            bandwidth = measure_bandwidth(count, items=1_000_000 if quick else 8_000_000)
            for dtype in dtypes:
                peaks = [measure_peak(dtype) for _ in range(9)]
                gflops, share = (statistics.median(column) for column in zip(*peaks, strict=True))
                yield Limit(count, dtype, gflops, bandwidth, share)
    finally:
        library.set_num_threads(before)
