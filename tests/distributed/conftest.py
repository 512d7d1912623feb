"""What ranks found, of every number of ranks started once for all tests and test processes."""

from __future__ import annotations

import fcntl
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import training_scenarios
from tests.distributed.launcher import found_by

torch.set_num_threads(1)
SIZES = (1, 2, 3, 4)


def sized(size: int, *others: Any) -> Any:
    """A parameter set that ends with a number of ranks."""
    return pytest.param(*others, size, marks=[pytest.mark.long] if size > 3 else [])


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: Any, worker_id: str) -> Path:
    """A folder that all processes of this run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "ranks"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def found(common_folder: Path) -> Callable[..., list[Any]]:
    """``found("module:function", size)``: what each rank returned, of which the first to ask starts the ranks."""
    known: dict[tuple[str, int], list[Any]] = {}

    def ask(scenario: str, size: int, given: Any = None) -> list[Any]:
        folder = common_folder / f"{scenario.replace(':', '-')}-{size}"
        if (scenario, size) not in known:
            folder.mkdir(exist_ok=True)
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                kept = folder / "all"
                if not kept.exists():
                    kept.write_bytes(pickle.dumps("they failed, as the first test that asked for them says"))
                    kept.write_bytes(pickle.dumps(found_by(scenario, size, folder, given)))
            known[scenario, size] = pickle.loads(kept.read_bytes())
        answer = known[scenario, size]
        assert isinstance(answer, list), answer
        return answer

    return ask


@pytest.fixture(scope="session")
def alone(tmp_path_factory: Any) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """``alone(name)``: a file saved on the way of a training in this process, and what came of it."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def train(name: str) -> tuple[Path, dict[str, Any]]:
        return folder / f"{name}.trpo", training_scenarios.train(name, None, folder / f"{name}.trpo")

    return train


@pytest.fixture(scope="session")
def of_ranks(found: Callable[..., list[Any]], alone: Callable[..., Any]) -> Callable[[int], list[Any]]:
    """``of_ranks(size)``: what `scenarios.everything` found on each."""

    def ask(size: int) -> list[Any]:
        given = [alone(name)[0] for name in training_scenarios.SAVED]
        if size == 3:
            ask(2)  # whose files are gone on with
        return found("scenarios:everything", size, given[0].parent)

    return ask
