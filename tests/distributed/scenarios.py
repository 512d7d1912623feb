"""Everything that tests ask of one number of ranks, so that their processes are started once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.distributed import engine_scenarios, training_scenarios
from trpo_fast.ranks import Ranks


def everything(given: Path) -> dict[str, Any]:
    """What engines of sums found, and trainings; `given` is where one process saved its own."""
    ranks = Ranks(timeout=120)
    return {
        "engines": engine_scenarios.everything(ranks),
        "trainings": training_scenarios.everything(ranks, given),
        "schedulers": schedulers(),
    }


def schedulers() -> dict[str, set[int]]:
    """By name the scheduling policies of this process's threads."""
    found: dict[str, set[int]] = {}
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found.setdefault((thread / "comm").read_text().strip(), set()).add(os.sched_getscheduler(int(thread.name)))
    return found
