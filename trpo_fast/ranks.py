"""The processes of one training: what they add up and tell each other, and which of them failed.

The collectives are gloo's, over TCP between CPUs. It gives the same bits on every rank and in every run, though for
three ranks and more not those of a sum in the order of the ranks.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pickle
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
from torch.distributed.rendezvous import rendezvous

from trpo_fast._core.library import in_words
from trpo_fast.settings import checked, real

TIMEOUT = 1800.0  # seconds, torch's own
SECONDS = real("a positive number of seconds", lambda v: 0 < v < 1e9)
_CHUNK = timedelta(seconds=0.5)  # of a wait, after each of which Python looks at signals
_GRACE = 3.0  # seconds in which a rank has to say that it noticed a failure, too
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_STOPPED = "stopped"
_MADE = itertools.count()  # groups of this process; all ranks make the same ones


class RankError(RuntimeError):
    """Another rank failed, is gone or does not answer; the message names it."""


class Traffic(NamedTuple):
    """What was exchanged with other ranks."""

    rounds: int
    bytes: int
    """Of this rank's own arrays: what a reduction takes from it, or it gives to a gathering."""
    seconds: float
    """In which this rank was in a collective, waiting for slower ranks included."""

    def since(self, before: Traffic) -> Traffic:
        """What came after `before`."""
        return Traffic(self.rounds - before.rounds, self.bytes - before.bytes, self.seconds - before.seconds)


class Ranks:
    """The ranks of one training, of which this process is one.

    Every method that exchanges something has to be called by all ranks, in the same order.

    Parameters
    ----------
    timeout : float
        Seconds after which a rank that does not answer is given up, with a RankError that names it: more than what the
        slowest rollout, evaluation and save take together.

    Raises
    ------
    ValueError
        The variables that torchrun sets are not all there, or hold something else; `timeout` is no positive number.

    Attributes
    ----------
    rank, size : int
        This process's number, and how many there are.
    restarts : int
        How often torchrun has started all of them anew, as one had failed.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout: float = checked("timeout", timeout, SECONDS)
        limit = timedelta(seconds=self._timeout)
        self.restarts = _whole("TORCHELASTIC_RESTART_COUNT", 0)
        self._own_default = not dist.is_initialized()
        if self._own_default:
            missing = [name for name in _VARIABLES if not os.environ.get(name)]
            if missing:
                given = ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name))
                raise ValueError(
                    f"ranks: {given or 'none of the variables'} given without {', '.join(missing)}; want torchrun, "
                    "which sets them, e.g. torchrun --nproc-per-node=2 -m trpo_fast train ..."
                )
            size = _whole("WORLD_SIZE", 1)
            _whole("RANK", 0, size - 1)
            _whole("MASTER_PORT", 0, 65535)
            try:
                store, self.rank, self.size = next(rendezvous("env://", timeout=limit))
                self._job: Any = PrefixStore("trpo_fast_job", store)
                self._store: Any = PrefixStore(self._prefix(), store)
                self._meet()
                with _modest_receivers():
                    dist.init_process_group(
                        "gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=limit
                    )
            except RuntimeError as error:
                raise RankError(self._who_is_missing(error)) from error
            self._group: Any = dist.group.WORLD
        else:
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            self._job = PrefixStore("trpo_fast_job", _get_default_store())
            self._store = PrefixStore(self._prefix(), _get_default_store())
            with _modest_receivers():
                self._group = dist.new_group(backend="gloo", timeout=limit)
        atexit.register(self.close)  # while what the connections need is still there
        self._ended: str | None = None
        self._rounds = self._bytes = 0
        self._seconds = 0.0

    @classmethod
    def if_started(cls, timeout: float = TIMEOUT) -> Ranks | None:
        """The ranks that torchrun started, or torch.distributed was initialized for; None in a process by itself.

        ValueError where there is only a part of what torchrun sets: a rank that trained alone would not be noticed.
        """
        timeout = checked("timeout", timeout, SECONDS)
        alone = os.environ.get("WORLD_SIZE", "1") in ("", "1") and not os.environ.get("RANK")
        return None if alone and not dist.is_initialized() else cls(timeout)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    @property
    def traffic(self) -> Traffic:
        """All so far."""
        return Traffic(self._rounds, self._bytes, self._seconds)

    def add(self, array: NDArray[Any]) -> None:
        """Replace `array` by the sum over all ranks, with the same bits on each (an all-reduce).

        Parameters
        ----------
        array : C-contiguous ndarray of float32, float64 or int64
            The same shape and dtype on all ranks.
        """
        if self.size > 1 and array.size:
            tensor = torch.from_numpy(array)
            self._run(lambda: dist.all_reduce(tensor, group=self._group, async_op=True), array.nbytes)

    def any(self, condition: bool) -> bool:
        """Whether it is so on any rank."""
        count = np.array([condition], np.int64)
        self.add(count)
        return bool(count[0])

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """The arrays of all ranks, (size, ...), in their order (an all-gather); `array` as `add` takes it, or bytes."""
        gathered = np.empty((self.size, *array.shape), array.dtype)
        if self.size == 1 or not array.size:
            gathered[...] = array
            return gathered
        given, rows = torch.from_numpy(array), [torch.from_numpy(row) for row in gathered.reshape(self.size, -1)]
        self._run(lambda: dist.all_gather(rows, given.reshape(-1), group=self._group, async_op=True), array.nbytes)
        return gathered

    def gather_objects(self, value: Any) -> list[Any]:
        """What each rank gave, which pickle has to take, in the order of ranks."""
        if self.size == 1:
            return [value]
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = self.gather(np.array([len(data)], np.int64))[:, 0]
        padded = np.zeros(lengths.max(), np.uint8)
        padded[: len(data)] = data
        return [pickle.loads(row[:length]) for row, length in zip(self.gather(padded), lengths, strict=True)]

    def of_first(self, value: Any) -> Any:
        """What rank 0 gave (a broadcast)."""
        if self.size == 1:
            return value
        data = np.frombuffer(bytearray(pickle.dumps(value)), np.uint8) if self.first else np.empty(0, np.uint8)
        length = np.array([len(data)], np.int64)
        self._broadcast(length)
        data = data if self.first else np.empty(int(length[0]), np.uint8)
        self._broadcast(data)
        return value if self.first else pickle.loads(data.tobytes())

    def _broadcast(self, array: NDArray[Any]) -> None:
        tensor = torch.from_numpy(array)
        self._run(lambda: dist.broadcast(tensor, 0, group=self._group, async_op=True), array.nbytes)

    def require_same(self, fields: Mapping[str, Any]) -> None:
        """ValueError naming the first of `fields` that another rank has otherwise, and the rank; on every rank."""
        told = {name: repr(value) for name, value in fields.items()}
        every = self.gather_objects(told)
        for rank, other in enumerate(every):
            for name in {**every[0], **other}:
                mine, its = every[0].get(name, "missing"), other.get(name, "missing")
                if mine != its:
                    raise ValueError(f"{name}: {mine} on rank 0, {its} on rank {rank}; want the same on every rank")

    def require_equal_bits(self, what: str, arrays: Iterable[NDArray[Any]]) -> None:
        """RankError naming a rank that has other bits in `arrays`, contiguous ones, than rank 0."""
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(array.tobytes(), checksum)
        every = self.gather(np.array([checksum], np.int64))[:, 0]
        parted = np.flatnonzero(every != every[0])
        if len(parted):
            raise RankError(
                f"rank {parted[0]}: {what} are not those of rank 0; want the same kind of CPU and the same packages "
                "everywhere, and nothing that changes them on one rank alone"
            )

    def leave(self, error: BaseException) -> None:
        """End the group, as this rank is out of step with the others, who are told why; nothing more is exchanged."""
        if self._ended is not None or self.size == 1:
            return
        kind = _STOPPED if isinstance(error, KeyboardInterrupt) else "error"
        words = "stopped" if kind == _STOPPED else f"{type(error).__name__}: {error}"
        self._ended = words
        with suppress(Exception):  # the machine that keeps it may be what is gone
            self._store.compare_set("ended", "", f"{kind} rank {self.rank}: {words}")
        self.close()

    def close(self) -> None:
        """Close the connections: of others, who wait for this rank, the collectives fail at once."""
        self._ended = self._ended or "it was left"
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            with suppress(Exception):
                dist.destroy_process_group(None if self._own_default else group)

    def remember(self, name: str, value: str) -> None:
        """Keep a word where the ranks met, which torchrun does beyond a restart."""
        self._job.set(name, value)

    def remembered(self, name: str) -> str | None:
        """What `remember` kept, also before a restart; None where there is nothing."""
        return self._job.get(name).decode() if self._job.check([name]) else None

    def _run(self, start: Callable[[], Any], count: int) -> None:
        """Wait for the collective that `start` begins; between pieces of the wait signals are heard."""
        if self._ended is not None:
            raise RankError(f"this group of ranks has ended: {self._ended}; want new processes to train on")
        began, work, failed = time.perf_counter(), None, None
        try:
            work = start()
            while failed is None and not _done(work):
                if time.perf_counter() - began > self._timeout:
                    failed = f"no answer within {self._timeout:g} s"
        except RuntimeError as error:
            failed = _line(error)
            error.__traceback__ = None  # it holds the work, and that the connections
        finally:
            self._seconds += time.perf_counter() - began
        if failed is not None:
            del work
            raise self._lost(failed)
        self._rounds += 1
        self._bytes += count

    def _lost(self, what: str) -> BaseException:
        """Why a collective failed here, as far as can be known; the connections are closed, so that all notice."""
        size = self.size
        try:
            self._store.set(f"noticed/{self.rank}", "")
            self._store.add("noticed", 1)
            self._ended = what
            self.close()
            until = time.monotonic() + _GRACE
            while time.monotonic() < until and self._store.add("noticed", 0) < size:
                if self._store.check(["ended"]):
                    kind, _, words = self._store.get("ended").decode().partition(" ")
                    return KeyboardInterrupt(words) if kind == _STOPPED else RankError(words)
                time.sleep(0.05)
            silent = [rank for rank in range(size) if not self._store.check([f"noticed/{rank}"])]
        except Exception:  # the store is on a machine that is gone, too
            self.close()
            return RankError(f"the connection to the other ranks has failed: {what}")
        if not silent:
            return RankError(f"a connection between ranks has failed: {what}")
        names = ", ".join(map(str, silent))
        whose = "its process has" if len(silent) == 1 else "their processes have"
        return RankError(f"rank {names}: {whose} ended, hangs or is busy ({what})")

    def _prefix(self) -> str:
        """Of this group's names in a store that outlives groups, and torchrun's also the processes that it restarts.

        Addresses and failures of a group before are not to be taken for this one's.
        """
        return f"trpo_fast/{self.restarts}/{next(_MADE)}"

    def _meet(self) -> None:
        """Wait until all are here; between pieces of the wait signals are heard."""
        self._store.set(f"here/{self.rank}", "")
        until = time.monotonic() + self._timeout
        if self._store.add("here", 1) == self.size:
            self._store.set("all", "")
        while not self._store.check(["all"]):
            if time.monotonic() > until:
                raise RuntimeError("not all ranks have come")
            time.sleep(0.02)

    def _who_is_missing(self, error: RuntimeError) -> str:
        """Which ranks have not come, where they do not all meet."""
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        what = f"{_line(error)}; within {self._timeout:g} s at {address}"
        try:
            missing = [rank for rank in range(self.size) if not self._store.check([f"here/{rank}"])]
        except Exception:  # where they were to meet nobody answers
            return f"the ranks have not met: {what}"
        if not missing:
            return f"the ranks have met, but one does not answer: {what}"
        return f"rank {', '.join(map(str, missing))}: not started, or hangs ({what})"


@contextmanager
def _modest_receivers() -> Iterator[None]:
    """Let the threads that gloo starts in the block to receive with not take a core from one that computes (Linux).

    Such a thread asks again and again for the lock of a connection on which something came, and gets no answer while
    the thread that has the lock waits for the core: until the next tick, 4 ms, where a round takes .5 (findings).
    """
    before = set(_receivers())
    yield
    for thread in set(_receivers()) - before:
        with suppress(OSError):  # forbidden here, or at its end: slower, no worse
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _receivers() -> Iterator[int]:
    """Numbers of this process's threads of gloo's that receive; none where there is no Linux."""
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):
            if (thread / "comm").read_text() == "gloo_tcp_loop\n":
                yield int(thread.name)


def _whole(name: str, least: int, most: int | None = None) -> int:
    """The number that a variable holds."""
    text = os.environ.get(name, "0")
    value = int(text) if text.isdecimal() else -1
    if value < least or (most is not None and value > most):
        numbers = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: {in_words(text)} given; want a whole number, {numbers}, as torchrun sets it")
    return value


def share_of(ranks: Ranks | None, count: int, name: str = "num_envs") -> slice:
    """Which of `count` things, equally shared out in the order of ranks, are this rank's; all where there are none.

    ValueError, by `name`, where they cannot be shared out equally.
    """
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    if count % size:
        raise ValueError(f"{name}: {count} given; want a multiple of {size}, the number of ranks: each has as many")
    own = count // size
    return slice(rank * own, (rank + 1) * own)


def count_of(ranks: Ranks | None, own: int) -> int:
    """How many things there are where each rank has `own` of them."""
    return own if ranks is None else own * ranks.size


@contextmanager
def left_on_error(ranks: Ranks | None) -> Iterator[None]:
    """Let `ranks` be left where the block raises, so that the others do not wait for this one."""
    try:
        yield
    except BaseException as error:
        if ranks is not None:
            ranks.leave(error)
        raise


def as_ranks(given: Any) -> Ranks | None:
    """What the argument `ranks` means: "auto", `Ranks` or None."""
    if isinstance(given, str) and given == "auto":
        return Ranks.if_started()
    if given is not None and not isinstance(given, Ranks):
        raise TypeError(f"ranks: {in_words(given)} given; want 'auto', Ranks(...) or None")
    return given


def _line(error: BaseException) -> str:
    """The first sentence of what `error` says, without the file of torch's that says it."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.split(r"\. (?=[A-Z])", re.sub(r"^\[[^\]]*\] ", "", first))[0]


def _done(work: Any) -> bool:
    """Whether `work` has ended, after waiting for it for a moment; what it failed with is raised."""
    try:
        work.wait(_CHUNK)
    except RuntimeError:
        if not work.is_completed():
            return False
        work.wait()  # it may have ended well since
    return True
