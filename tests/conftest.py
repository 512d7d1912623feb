"""One thread for other people's libraries: small problems gain nothing from more, and the cores may be shared."""

import os
from collections import Counter
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ.setdefault("TRPO_FAST_NUM_THREADS", "2")  # but the compiled core's own threads are tested


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how often trainings were disturbed, by what tests record as "survival: ..."."""
    counts: Counter[str] = Counter()
    for reported in terminalreporter.getreports("passed"):
        for name, value in reported.user_properties:
            if name.startswith("survival: "):
                counts[name.removeprefix("survival: ")] += value
    if counts:
        terminalreporter.section("gone on with, to the same bits and rows")
        for name, count in sorted(counts.items()):
            terminalreporter.line(f"{count:5} {name}")
