"""One thread for other people's libraries: small problems gain nothing from more, and the cores may be shared."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ.setdefault("TRPO_FAST_NUM_THREADS", "2")  # but the compiled core's own threads are tested

import pytest  # noqa: E402  # after the variables above, as all that follows

from trpo_fast._core import library  # noqa: E402


@pytest.fixture
def portable_bfloat16():
    """Products of bf16 numbers in plain C, on any machine."""
    library.choose_bfloat16("portable")
    yield
    library.choose_bfloat16(None)
