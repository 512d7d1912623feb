"""One thread for other people's libraries: small problems gain nothing from more, and the cores may be shared."""

import ast
import functools
import os
import sys
import threading
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


if sys.version_info < (3, 11, 8):
    # There it fails where two threads parse at once (CPython's gh-106905), as Hypothesis, inspect and np.load do.
    _parse, _parsing = ast.parse, threading.Lock()

    @functools.wraps(_parse)
    def _parse_alone(*args: Any, **kwargs: Any) -> Any:
        with _parsing:
            return _parse(*args, **kwargs)

    ast.parse = _parse_alone


# What is one for the whole process: tests that name it run in one thread under `make test-threads`; `ulps` asks mpmath.
FOR_THE_PROCESS = {"set_num_threads", "get_num_threads", "bits_by_threads", "raise_signal", "signal", "fork", "ulps"}


@pytest.hookimpl(tryfirst=True)  # before the plugin looks
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests that are not for several threads."""
    test = getattr(item, "function", None)
    test = getattr(getattr(test, "hypothesis", None), "inner_test", test)
    named = FOR_THE_PROCESS & set(test.__code__.co_names if hasattr(test, "__code__") else ())
    if named:
        item.add_marker(pytest.mark.thread_unsafe(reason=f"{', '.join(sorted(named))}: one for the process"))


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
