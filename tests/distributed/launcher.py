"""Ranks without torchrun: processes that find each other by the variables that it sets."""

from __future__ import annotations

import importlib
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TRPO_FAST_NUM_THREADS")
_LIMIT = 300.0  # seconds, for what takes a few on a machine without other work


class Ended(NamedTuple):
    """A process that is gone."""

    code: int
    said: str
    """Standard output and error."""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what a launcher of its own may have set; one thread for every library."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "PYTEST"))}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        own.pop(name, None)
    return {**own, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": str(ROOT), **more}


def free_port() -> int:
    """A port of this machine that nobody listens on, below those that connections get by themselves.

    Until a rank listens there seconds go by, in which the connections of other tests take ports.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def finish(processes: Sequence[subprocess.Popen[Any]], files: Sequence[Path]) -> list[Ended]:
    """Wait for all; after the limit they are killed, with what they started, and what they said is the error."""
    until = time.monotonic() + _LIMIT
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise AssertionError("not all had ended:\n" + "\n".join(file.read_text() for file in files)) from None
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return [Ended(one.returncode, file.read_text()) for one, file in zip(processes, files, strict=True)]


def start(command: Sequence[str], said: Path, **variables: str) -> subprocess.Popen[Any]:
    """A process in a session of its own, in the folder of `said`, which takes what it prints."""
    with said.open("w") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=said.parent,
            env=environment(**variables),
            start_new_session=True,
        )


def launch(
    scenario: str, size: int, folder: Path, given: Any = None, *, variables: Mapping[str, str] | None = None
) -> list[Ended]:
    """Let `size` ranks call "module:function" of this folder with `given`; how they ended."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **(variables or {})}
    (folder / "given").write_bytes(pickle.dumps((scenario, given)))
    files = [folder / f"said-{rank}" for rank in range(size)]
    command = [sys.executable, "-m", "tests.distributed.launcher"]
    return finish([start(command, file, RANK=str(rank), **shared) for rank, file in enumerate(files)], files)


def found_by(scenario: str, size: int, folder: Path, given: Any = None) -> list[Any]:
    """What the function returned on each rank; an error of one is the error, with what all said."""
    ended = launch(scenario, size, folder, given)
    assert not any(one.code for one in ended), "\n".join(f"rank {r}: {one.said}" for r, one in enumerate(ended))
    return [pickle.loads((folder / f"found-{rank}").read_bytes()) for rank in range(size)]


def _be_a_rank() -> None:
    import torch

    torch.set_num_threads(1)
    scenario, given = pickle.loads(Path("given").read_bytes())
    module, function = scenario.split(":")
    found = getattr(importlib.import_module(f"tests.distributed.{module}"), function)(given)
    Path(f"found-{os.environ['RANK']}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    _be_a_rank()
