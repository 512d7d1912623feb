"""Worker processes as the process that started them sees them: starting, asking, the death of one, the end of all."""

from __future__ import annotations

import contextlib
import copy
import mmap
import multiprocessing.spawn
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
import gymnasium
from numpy.typing import NDArray

from trpo_fast.environments.worker import (
    ATTACH,
    DONE,
    DONE_WITH_FINALS,
    ERROR,
    STEP,
    Layout,
    arrays_in,
    message,
    read_data,
    size_of,
    whose,
    write_all,
)

PATIENCE = 1.0
"""Seconds for a step that nobody waits for any more, and from asking to end to SIGTERM, and from there to SIGKILL."""
_WATCH = 500  # milliseconds between two looks at whether silent workers still live

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


class WorkerError(RuntimeError):
    """A worker process ended by itself, or raised what cannot be raised here."""


class _Worker:
    """One process and this end of its pipes."""

    def __init__(self, index: int, copies: slice, process: subprocess.Popen[bytes], commands: int, answers: int):
        self.index = index
        self.copies = copies
        self.process = process
        self.commands = commands
        self.answers = answers
        self.waiting = False  # for an answer
        self.torn = False  # a message may have been written or read in part
        self.poll = select.poll()
        self.poll.register(answers, select.POLLIN)

    @property
    def name(self) -> str:
        return whose(self.index, self.process.pid, self.copies.start, self.copies.stop - self.copies.start)


class WorkerProcesses:
    """The processes that step some copies each, and the memory that they share with this one.

    Parameters
    ----------
    parts : sequence of slice
        Copies of each process.
    """

    def __init__(self, parts: Sequence[slice]) -> None:
        self._parts = tuple(parts)
        self._owner = os.getpid()
        self._memory, self._rollouts = _anonymous_file(), _anonymous_file()
        self._rollouts_size = 0
        self._workers: list[_Worker] = []
        self._any = select.poll()
        self._part_of: dict[int, int] = {}  # by the file descriptor of its answers
        self._ready: list[int] = []  # parts whose answers are there, found together with another's

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the processes; empty where none runs."""
        return tuple(worker.process.pid for worker in self._workers)

    def start(self, makers: Sequence[Callable[[], Any]]) -> list[Any]:
        """Start all at the same time; (observation space, action space, wrappings) of each one's copies.

        Raises
        ------
        TypeError
            `makers` cannot be pickled.
        Exception
            What the constructor of a copy raises, of the first that does; no process is left then.
        """
        registry, program = _registry(), _program()
        tasks = []
        for index, part in enumerate(self._parts):
            tasks.append(
                pickle.dumps(
                    {
                        "index": index,
                        "first": part.start,
                        "count": part.stop - part.start,
                        "makers": _pickled(makers[part]),
                        "registry": registry,
                        "argv": sys.argv,
                    }
                )
            )
        try:
            for index in range(len(self._parts)):
                self._launch(index, program)
            for worker, task in zip(self._workers, tasks, strict=True):
                worker.waiting = True
                self._write(worker, len(task).to_bytes(8, "little") + task)
            return [self._value_of(worker) for worker in self._workers]
        except BaseException:
            self.end()
            raise

    def share(self, layout: Layout) -> dict[str, NDArray[Any]]:
        """The arrays of a layout in memory that the workers can attach to."""
        os.ftruncate(self._memory, size_of(layout))
        return arrays_in(mmap.mmap(self._memory, size_of(layout)), layout)

    def share_rollouts(self, layout: Layout) -> dict[str, NDArray[Any]]:
        """The arrays of a layout in another memory of that kind, which grows as it has to."""
        if size_of(layout) > self._rollouts_size:
            self._rollouts_size = size_of(layout)
            os.ftruncate(self._rollouts, self._rollouts_size)
        return arrays_in(mmap.mmap(self._rollouts, size_of(layout)), layout)

    def attach(self, layout: Layout) -> None:
        """Let the workers use the arrays that `share` made."""
        self.ask(ATTACH, dict.fromkeys(range(len(self._parts)), layout))

    def ask(self, code: bytes, data: Mapping[int, Any]) -> dict[int, Any]:
        """Send something to some parts, all at the same time; what each answers."""
        self.tell(code, data)
        return {part: self._value_of(self._workers[part]) for part in data}

    def tell(self, code: bytes, data: Mapping[int, Any]) -> None:
        """Send something to some parts; `value_of` has what they answer."""
        for part, own in data.items():
            worker = self._running(part)
            worker.waiting = True
            self._write(worker, message(code, pickle.dumps(own)))

    def value_of(self, part: int) -> Any:
        """What a part answers; raises what it raised."""
        if part in self._ready:
            self._ready.remove(part)
        return self._value_of(self._running(part))

    def begin_step(self, part: int) -> None:
        """Let a part step."""
        worker = self._running(part)
        worker.waiting = True
        try:
            os.write(worker.commands, STEP)
        except BrokenPipeError:
            raise self._death_of(worker) from None

    def await_step(self, part: int) -> bool:
        """Wait for the end of a part's step; whether final observations came. Raises what an environment raised."""
        worker = self._running(part)
        if part in self._ready:
            self._ready.remove(part)
        else:
            self._await(worker)
        code = self._code_of(worker)
        if code in (DONE, DONE_WITH_FINALS):
            worker.waiting = worker.torn = False
            return code == DONE_WITH_FINALS
        self._interpret(worker, code)
        raise AssertionError(f"{worker.name} answered a step with {code!r}")

    def next_part(self) -> int:
        """Wait for the end of any part's step; the part, the same until `await_step` was called for it."""
        ready = self._ready
        while not ready:
            events = self._any.poll(_WATCH)
            for descriptor, _ in events:
                ready.append(self._part_of[descriptor])
            if not events:
                for worker in self._workers:
                    self._require_alive(worker)
                if not self._workers:
                    self._running(0)
        return ready[0]  # which stays until it is received

    def settle(self) -> bool:
        """Whether every worker lives and waits for a command, after a moment for those still in a step."""
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"env: these worker processes belong to process {self._owner}, and this is {os.getpid()}; want "
                "environments made in the process that uses them"
            )
        deadline = time.monotonic() + PATIENCE
        self._ready.clear()
        for worker in self._workers:
            if worker.torn or worker.process.poll() is not None:
                return False
            if worker.waiting:
                # Where the interruption came between a command and this process's note of it, there is no answer.
                if not worker.poll.poll(1e3 * max(0.0, deadline - time.monotonic())):
                    return False
                try:
                    self._take(worker, self._code_of(worker))
                except WorkerError:
                    return False
        return bool(self._workers)

    def end(self) -> None:
        """End every process: by closing its pipes, which lets it close its copies, then by SIGTERM, then by SIGKILL."""
        workers, self._workers = self._workers, []
        self._ready.clear()
        self._part_of.clear()
        self._any = select.poll()
        for worker in workers:
            os.close(worker.commands)
            os.close(worker.answers)
        if os.getpid() != self._owner:
            return
        running = [worker.process for worker in workers]
        for last in (signal.SIGTERM, signal.SIGKILL, None):
            deadline = time.monotonic() + PATIENCE
            running = [process for process in running if not _ends_by(process, deadline)]
            if last is not None:
                for process in running:
                    process.send_signal(last)

    def dispose(self) -> None:
        """`end`, for good."""
        self.end()
        os.close(self._memory)
        os.close(self._rollouts)

    def _launch(self, index: int, program: str) -> None:
        theirs, commands = os.pipe()
        answers, mine = os.pipe()
        # A worker is deaf to Ctrl-C from its first instruction on: it inherits what is blocked here, and ignores the
        # signal before it lets it through.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(
                [
                    multiprocessing.spawn.get_executable(),
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    "-c",
                    f"{program}; main({theirs}, {mine}, {self._memory}, {self._rollouts})",
                ],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs, mine, self._memory, self._rollouts),
            )
            self._workers.append(_Worker(index, self._parts[index], process, commands, answers))
        except BaseException:
            os.close(commands)
            os.close(answers)
            raise
        finally:
            os.close(theirs)
            os.close(mine)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._any.register(answers, select.POLLIN)
        self._part_of[answers] = index

    def _running(self, part: int) -> _Worker:
        if not self._workers:
            raise RuntimeError("env: the worker processes are closed; want a reset first, which makes new ones")
        return self._workers[part]

    def _write(self, worker: _Worker, data: bytes) -> None:
        worker.torn = True
        try:
            write_all(worker.commands, data)
        except BrokenPipeError:
            raise self._death_of(worker) from None
        worker.torn = False

    def _await(self, worker: _Worker) -> None:
        while not worker.poll.poll(_WATCH):
            self._require_alive(worker)

    def _value_of(self, worker: _Worker) -> Any:
        self._await(worker)
        return self._interpret(worker, self._code_of(worker))

    def _code_of(self, worker: _Worker) -> bytes:
        """What an answer begins with; until all of it is taken, nothing tells what would be read next."""
        worker.torn = True
        return os.read(worker.answers, 1)

    def _interpret(self, worker: _Worker, code: bytes) -> Any:
        """The value that an answer brings; raises the error that it brings."""
        data = self._take(worker, code)
        if code != ERROR:
            return pickle.loads(data)
        pickled, summary, notes, trace = pickle.loads(data)
        try:
            error = pickle.loads(pickled)
        except Exception:
            error = WorkerError(summary)
            for note in (*notes, trace):
                error.add_note(note)
        raise error

    def _take(self, worker: _Worker, code: bytes) -> bytes:
        """The rest of an answer that begins with `code`."""
        if not code:
            raise self._death_of(worker)
        data = b""
        if code not in (DONE, DONE_WITH_FINALS):
            try:
                data = read_data(worker.answers)
            except EOFError:
                raise self._death_of(worker) from None
        worker.waiting = worker.torn = False
        return data

    def _require_alive(self, worker: _Worker) -> None:
        # Something that the worker started may hold its pipe open, so that its end does not show there.
        if worker.process.poll() is not None and not worker.poll.poll(0):
            raise self._death_of(worker)

    def _death_of(self, worker: _Worker) -> WorkerError:
        worker.torn = True
        try:
            code = worker.process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            return WorkerError(f"{worker.name} has closed its pipes")
        if code >= 0:
            return WorkerError(f"{worker.name} exited with code {code}; its standard error may say why")
        with contextlib.suppress(ValueError):
            hint = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
            return WorkerError(f"{worker.name} was killed by {signal.Signals(-code).name}{hint}")
        return WorkerError(f"{worker.name} was killed by signal {-code}")


def _ends_by(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _anonymous_file() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trpo_fast")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


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
    cloudpickle.register_pickle_by_value(main)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        cloudpickle.unregister_pickle_by_value(main)


def _registry() -> bytes:
    """What is registered with Gymnasium here, each specification pickled by itself."""
    specs = {}
    for id, spec in list(gymnasium.registry.items()):
        entry_point = spec.entry_point
        if isinstance(entry_point, str) and entry_point.startswith("__main__:"):
            # A worker's main module is another one; what is defined in this one travels as it is.
            spec = copy.copy(spec)
            spec.entry_point = getattr(sys.modules["__main__"], entry_point.partition(":")[2], entry_point)
        with contextlib.suppress(Exception):  # of no other environment's concern
            specs[id] = pickle.dumps(spec) if isinstance(spec.entry_point, str) else _dumped(spec)
    return pickle.dumps(specs)
