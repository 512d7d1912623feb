"""A short `make trust-soak`: what grows by far more than noise is found, and in nothing of ours."""

from __future__ import annotations

import sys

import pytest

from tests.trust.soak import KINDS, SAMPLE_SLACK_BLOCKS, SAMPLE_SLACK_BYTES, in_own_process


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_updates_and_set_ups_leave_nothing_behind_and_what_leaks_is_found():
    seen = in_own_process({kind: sample for kind, (_, _, sample) in KINDS.items()})
    found = {kind: one.faults(SAMPLE_SLACK_BYTES, SAMPLE_SLACK_BLOCKS) for kind, one in seen.items()}
    leaks = found.pop("leaks")
    assert {fault.partition(":")[0] for fault in leaks} == {
        "memory",
        "Python's blocks",
        "descriptors",
        "threads",
        "shared",
    }
    assert not any(found.values()), found
