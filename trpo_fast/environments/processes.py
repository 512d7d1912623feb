"""The conversation with worker processes: what they are told, what they answer, and the memory that all share."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import select
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from trpo_fast.environments.closing import warn_of_failed_closes
from trpo_fast.environments.worker import (
    ATTACH,
    CLOSED,
    DONE,
    DONE_WITH_FINALS,
    ERROR,
    STEP,
    Layout,
    arrays_in,
    message,
    read_data,
    size_of,
    split_data,
    write_all,
)
from trpo_fast.environments.worker_process import (
    PATIENCE,
    WorkerError,
    WorkerProcess,
    deaf_to_interrupts,
    end_all,
    tasks,
)

_WATCH = 500  # milliseconds between two looks at whether silent workers still live
_GLANCE = 50  # the same, while workers end


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
        self._workers: list[WorkerProcess] = []
        self._any = select.poll()
        self._part_of: dict[int, int] = {}  # by the file descriptor of its answers
        self._ready: list[int] = []  # parts whose answers are there, found together with another's

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the processes; empty where none runs."""
        return tuple(worker.process.pid for worker in self._workers)

    def start(self, makers: Sequence[Callable[[], Any]], **options: Any) -> list[Any]:
        """Start all at the same time, with copies that have these `options`; what each worker says about its own.

        Raises
        ------
        TypeError
            `makers` cannot be pickled.
        Exception
            What the constructor of a copy raises, of the first that does; no process is left then.
        """
        given = tasks(self._parts, makers, options)
        try:
            with deaf_to_interrupts():
                for index, part in enumerate(self._parts):
                    worker = WorkerProcess(index, part, (self._memory, self._rollouts))
                    self._workers.append(worker)
                    self._any.register(worker.answers, select.POLLIN)
                    self._part_of[worker.answers] = index
            for worker, task in zip(self._workers, given, strict=True):
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
        # All is ready before the first part begins, so that the last begins hardly later.
        messages = {part: message(code, pickle.dumps(own)) for part, own in data.items()}
        for part, words in messages.items():
            worker = self._running(part)
            worker.waiting = True
            self._write(worker, words)

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
            raise worker.death() from None

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
        part = self.next_part_until(math.inf)
        assert part is not None
        return part

    def next_part_until(self, deadline: float) -> int | None:
        """`next_part`; None where no step has ended by `deadline`, of `time.monotonic`."""
        ready = self._ready
        while not ready:
            left = 1e3 * (deadline - time.monotonic())
            events = self._any.poll(max(0.0, min(_WATCH, left)))
            for descriptor, _ in events:
                ready.append(self._part_of[descriptor])
            if not events:
                if left <= 0:
                    return None
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
            if worker.torn or worker.has_ended:
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
        """End every process: by closing its pipes, which lets it close its copies, then by SIGTERM, then by SIGKILL.

        A UserWarning names copies that raise when they are closed.
        """
        workers, self._workers = self._workers, []
        self._ready.clear()
        self._part_of.clear()
        self._any = select.poll()
        for worker in workers:
            os.close(worker.commands)
        said: list[str] = []
        deadline = time.monotonic() + PATIENCE
        try:
            if os.getpid() == self._owner:
                for worker in workers:
                    said += _last_words(worker, deadline)
        finally:
            for worker in workers:
                os.close(worker.answers)
            if os.getpid() == self._owner:
                end_all(workers, deadline)
        warn_of_failed_closes(said)

    def dispose(self) -> None:
        """`end`, for good."""
        try:
            self.end()
        finally:
            os.close(self._memory)
            os.close(self._rollouts)

    def _running(self, part: int) -> WorkerProcess:
        if not self._workers:
            raise RuntimeError("env: the worker processes are closed; want a reset first, which makes new ones")
        return self._workers[part]

    def _write(self, worker: WorkerProcess, data: bytes) -> None:
        worker.torn = True
        try:
            write_all(worker.commands, data)
        except BrokenPipeError:
            raise worker.death() from None
        worker.torn = False

    def _await(self, worker: WorkerProcess) -> None:
        while not worker.poll.poll(_WATCH):
            self._require_alive(worker)

    def _value_of(self, worker: WorkerProcess) -> Any:
        self._await(worker)
        return self._interpret(worker, self._code_of(worker))

    def _code_of(self, worker: WorkerProcess) -> bytes:
        """What an answer begins with; until all of it is taken, nothing tells what would be read next."""
        worker.torn = True
        return os.read(worker.answers, 1)

    def _interpret(self, worker: WorkerProcess, code: bytes) -> Any:
        """The value that an answer brings; raises the error that it brings."""
        data = self._take(worker, code)
        if code != ERROR:
            return pickle.loads(data)
        raise error_in(data)

    def _take(self, worker: WorkerProcess, code: bytes) -> bytes:
        """The rest of an answer that begins with `code`."""
        if not code:
            raise worker.death()
        data = b""
        if code not in (DONE, DONE_WITH_FINALS):
            try:
                data = read_data(worker.answers)
            except EOFError:
                raise worker.death() from None
        worker.waiting = worker.torn = False
        return data

    def _require_alive(self, worker: WorkerProcess) -> None:
        # Something that the worker started may hold its pipe open, so that its end does not show there.
        if worker.has_ended and not worker.poll.poll(0):
            raise worker.death()


def error_in(data: bytes) -> Exception:
    """What an environment raised in a worker; WorkerError where it cannot be made again."""
    pickled, summary, notes, trace = pickle.loads(data)
    try:
        error: Exception = pickle.loads(pickled)
    except Exception:
        error = WorkerError(summary)
        for note in (*notes, trace):
            error.add_note(note)
    return error


def _last_words(worker: WorkerProcess, deadline: float) -> list[str]:
    """What a worker whose commands are closed says of closing its copies; waits for its end until `deadline`."""
    data = b""
    while not worker.torn:
        left = 1e3 * max(0.0, deadline - time.monotonic())
        if worker.poll.poll(min(left, _GLANCE)):
            piece = os.read(worker.answers, 1 << 16)
            if not piece:
                break
            data += piece
        elif left == 0 or worker.has_ended:  # something that it started may hold its pipe open
            break
    while data:  # answers that nobody waited for any more come first
        code, data = data[:1], data[1:]
        if code not in (DONE, DONE_WITH_FINALS):
            value, data = split_data(data)
            if code == CLOSED and value:
                said: list[str] = pickle.loads(value)
                return said
    return []


def _anonymous_file() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trpo_fast")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
