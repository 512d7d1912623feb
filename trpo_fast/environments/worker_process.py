"""One worker process as the one that starts it sees it: what it is given, how it begins, and how it ends."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing.spawn
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle
import gymnasium

from trpo_fast._core.library import floating_mode
from trpo_fast.environments.mujoco_warnings import said
from trpo_fast.environments.worker import whose

PATIENCE = 1.0
"""Seconds for a step that nobody waits for any more, and from asking to end to SIGTERM, and from there to SIGKILL."""

# One thread each: there is a worker for every core.
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "TRPO_FAST_NUM_THREADS",
    ),
    "1",
)

# Held while a module is registered with cloudpickle, whose table all threads share; what is pickled may pickle, too.
_BY_VALUE = threading.RLock()


class WorkerError(RuntimeError):
    """A worker process ended by itself, or raised what cannot be raised here."""


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start workers in here, and note them: Ctrl-C comes before or after.

    A worker is deaf to it from its first instruction on: it inherits what is blocked here, and ignores the signal
    before it lets it through.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which may raise a Ctrl-C that came before
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerProcess:
    """A process that runs :mod:`trpo_fast.environments.worker`, and this end of its pipes; see `deaf_to_interrupts`.

    Parameters
    ----------
    index : int
    copies : slice
        Those that it steps.
    memory : int, int
        File descriptors of what it shares with others, which it inherits.

    Attributes
    ----------
    commands, answers : int
        File descriptors, to write to and to read from.
    poll : select.poll
        Of the answers.
    waiting : bool
        For an answer.
    torn : bool
        A message may have been written or read in part.
    """

    def __init__(self, index: int, copies: slice, memory: tuple[int, int]) -> None:
        self.index = index
        self.copies = copies
        self.waiting = self.torn = False
        theirs, self.commands = os.pipe()
        self.answers, mine = os.pipe()
        try:
            self.process = subprocess.Popen(
                [
                    multiprocessing.spawn.get_executable(),
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    "-c",
                    f"{_program()}; main({theirs}, {mine}, {memory[0]}, {memory[1]})",
                ],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs, mine, *memory),
            )
        except BaseException:
            os.close(self.commands)
            os.close(self.answers)
            raise
        finally:
            os.close(theirs)
            os.close(mine)
        self.poll = select.poll()
        self.poll.register(self.answers, select.POLLIN)

    @property
    def name(self) -> str:
        """How errors call it."""
        return whose(self.index, self.process.pid, self.copies.start, self.copies.stop - self.copies.start)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def death(self) -> WorkerError:
        """What to raise where it answers no more."""
        self.torn = True
        try:
            code = self.process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            return WorkerError(f"{self.name} has closed its pipes")
        return WorkerError(f"{self.name} {how_it_ended(code)}")


def how_it_ended(code: int) -> str:
    """In words, from a process's exit code, which is negative after a signal."""
    if code >= 0:
        return f"exited with code {code}; its standard error may say why"
    with contextlib.suppress(ValueError):
        hint = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"was killed by signal {-code}"


def end_all(workers: Sequence[WorkerProcess], deadline: float) -> None:
    """Wait for the end of workers whose pipes are closed; who has not by `deadline` gets SIGTERM, then SIGKILL."""
    running = [worker.process for worker in workers]
    for last in (signal.SIGTERM, signal.SIGKILL, None):
        running = [process for process in running if not _ends_by(process, deadline)]
        deadline = time.monotonic() + PATIENCE
        if last is not None:
            for process in running:
                process.send_signal(last)


def tasks(parts: Sequence[slice], makers: Sequence[Callable[[], Any]], options: Mapping[str, Any]) -> list[bytes]:
    """The first thing that the worker of each part reads: how its copies are made, and what is known in this process.

    TypeError where `makers` cannot be pickled.
    """
    registry = _registry()
    return [
        pickle.dumps(
            {
                "index": index,
                "first": part.start,
                "count": part.stop - part.start,
                "makers": _pickled(makers[part]),
                "options": dict(options),
                "registry": registry,
                "said": said(),
                "argv": sys.argv,
                "floating_mode": floating_mode(),
            }
        )
        for index, part in enumerate(parts)
    ]


def _ends_by(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _program() -> str:
    paths = [path for path in sys.path if isinstance(path, str)]
    return f"import sys; sys.path[:] = {paths!r}; from trpo_fast.environments.worker import main"


def _pickled(makers: Sequence[Callable[[], Any]]) -> bytes:
    try:
        return _dumped(list(makers))
    except Exception as error:
        raise TypeError(
            f"env: cannot be sent to a worker process, since cloudpickle does not take it ({type(error).__name__}: "
            f"{error}); want a function that makes everything itself, or vectorization='sync'"
        ) from error


def _dumped(value: Any) -> bytes:
    # Where multiprocessing has started this process, what is to be its main module is importable here alone, too.
    main = sys.modules.get("__mp_main__")
    if main is None:
        return bytes(cloudpickle.dumps(value))
    with _BY_VALUE:
        if main.__name__ in cloudpickle.list_registry_pickle_by_value():  # by a user, whose it stays
            return bytes(cloudpickle.dumps(value))
        cloudpickle.register_pickle_by_value(main)
        try:
            return bytes(cloudpickle.dumps(value))
        finally:
            cloudpickle.unregister_pickle_by_value(main)


def _registry() -> bytes:
    """What is registered with Gymnasium here, each specification pickled by itself.

    A class or function that can be imported travels by its name, as Gymnasium takes it: a worker imports the module,
    and all that this does, where it makes that environment and not where it makes others.
    """
    specs = {}
    for id, spec in list(gymnasium.registry.items()):
        entry_point = spec.entry_point
        if isinstance(entry_point, str) and entry_point.startswith("__main__:"):
            # A worker's main module is another one; what is defined in this one travels as it is.
            entry_point = getattr(sys.modules["__main__"], entry_point.partition(":")[2], entry_point)
        elif not isinstance(entry_point, str):
            entry_point = _name_of(entry_point) or entry_point
        if entry_point is not spec.entry_point:
            spec = copy.copy(spec)
            spec.entry_point = entry_point
        with contextlib.suppress(Exception):  # of no other environment's concern
            specs[id] = pickle.dumps(spec) if isinstance(spec.entry_point, str) else _dumped(spec)
    return pickle.dumps(specs)


def _name_of(entry_point: Any) -> str | None:
    """The "module:name" under which an import finds this; None in a main module, or inside of something else."""
    module, name = str(getattr(entry_point, "__module__", "")), getattr(entry_point, "__qualname__", "")
    if module in ("__main__", "__mp_main__") or not name.isidentifier():
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is entry_point else None
