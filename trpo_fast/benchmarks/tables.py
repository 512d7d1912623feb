"""Figures as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from .limits import QUIET
from .measuring import Figure, Limit

_COLUMNS = (
    ("case", -26), ("n", 9), ("B", 6), ("dtype", 7), ("threads", 7), ("time", 9), ("rate", 17), ("GFLOP/s", 8),
    ("of peak", 7), ("GB/s", 6), ("error", 7), ("", -4),
)  # fmt: skip


def _row(texts: Sequence[str]) -> str:
    cells = (
        f"{text:<{-width}}" if width < 0 else f"{text:>{width}}"
        for text, (_, width) in zip(texts, _COLUMNS, strict=True)
    )
    return "  ".join(cells).rstrip()


def header() -> str:
    """Of the table whose lines `line` makes."""
    return _row([name for name, _ in _COLUMNS])


def line(figure: Figure | Limit) -> str:
    """One figure as a line of an aligned table, a limit as its caption."""
    if isinstance(figure, Limit):
        threads = f"{figure.threads} thread{'s' if figure.threads > 1 else ''}"
        busy = "" if figure.cpu_share >= QUIET else "  BUSY"
        return (
            f"limit on {threads}, {figure.dtype}: {figure.gflops:.1f} GFLOP/s of multiply-adds, "
            f"{figure.gbytes_per_second:.1f} GB/s of c = a + b{busy}"
        )
    rate = f"{figure.rate:,.0f}" if figure.rate >= 100 else f"{figure.rate:.1f}"
    short = {"iteration": "it/s", "product": "/s", "step": "steps/s", "minibatch": "batches/s"}[figure.unit]
    return _row(
        [
            figure.name,
            f"{figure.size:,}",
            f"{figure.batch:,}" if figure.batch else "-",
            figure.dtype,
            str(figure.threads),
            duration(figure.seconds),
            f"{rate} {short}",
            f"{figure.gflops:.1f}",
            f"{figure.fraction_of_peak:.0%}",
            f"{figure.gbytes_per_second:.1f}",
            f"{figure.error:.0e}",
            "" if figure.quiet else "BUSY",
        ]
    )


def duration(seconds: float) -> str:
    """As in "1.23 ms"."""
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3)) if seconds * s >= 1), ("us", 1e6))
    return f"{seconds * scale:.3g} {unit}"
