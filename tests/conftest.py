"""One thread for other people's libraries: small problems gain nothing from more, and the cores may be shared."""

import os
from collections import Counter
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ.setdefault("TRPO_FAST_NUM_THREADS", "2")  # but the compiled core's own threads are tested

import hypothesis  # noqa: E402  # after the variables above, as all that follows
import pytest  # noqa: E402

from trpo_fast._core import library  # noqa: E402

hypothesis.settings.register_profile("without a clock", deadline=None)  # cores may have other work
hypothesis.settings.load_profile("without a clock")


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


@pytest.fixture
def portable_bfloat16():
    """Products of bf16 numbers in plain C, on any machine."""
    library.choose_bfloat16("portable")
    yield
    library.choose_bfloat16(None)
