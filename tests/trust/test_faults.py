"""A sample of `make trust-faults`, in one process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.trust import failing_calls, faults

SAMPLE = {
    **{f"allocations: {library}: native: {mode}": 1 for library in ("compiled core", "numpy") for mode in faults.MODES},
    "allocations: compiled core: recurrent: the k-th": 3,
    "allocations: torch: autograd: the k-th": 97,
    "allocations: numpy: critic beside the rollout: from the k-th on": 5,
    **dict.fromkeys(faults.KINDS, 12),
    "environments that return garbage": 40,
    "environments that hang": 3,
    "no fork": 3,
    "workers killed": 3,
}
ACROSS_THREADS = """
import numpy as np
from trpo_fast._core import library
from tests.engines.cases import make_case
from tests.trust.failing_calls import FOR_EVER, THREAD, Calls
from trpo_fast.engines import make_engine

def product():
    case = make_case(hidden=(64, 64), rows=4000)
    engine = make_engine(case.policy, "native")
    engine.bind(case.batch())
    return engine.fisher_operator().matvec(case.vector()).tobytes()

library.set_num_threads(3)
with Calls().failing(THREAD, 1, FOR_EVER) as failed:
    without = product()
assert failed[0] > 0 and product() == without
"""


@pytest.fixture
def preloaded(tmp_path):
    if sys.platform != "linux":
        pytest.skip("calls of the C library are replaced by LD_PRELOAD")
    return failing_calls.preloaded(tmp_path)


def test_whatever_fails_the_agent_is_in_the_state_after_its_last_complete_update_and_goes_on(preloaded, tmp_path):
    found = dict(faults.in_own_process(SAMPLE, tmp_path))
    for kind, one in found.items():
        assert one["trials"] >= (1 if kind.startswith("allocations") else SAMPLE[kind]), (kind, one)
    for mode in faults.MODES:  # every one of them is seen
        assert found[f"allocations: numpy: native: {mode}"]["outcomes"]["LackOfMemory"] > 20
        assert found[f"allocations: compiled core: native: {mode}"]["outcomes"]["LackOfMemory"] >= 4


def test_sections_without_threads_of_their_own_give_the_same_bits(preloaded):
    environment = {**os.environ, **preloaded, "PYTHONPATH": str(faults.ROOT)}
    subprocess.run([sys.executable, "-c", ACROSS_THREADS], check=True, env=environment, cwd=faults.ROOT)
