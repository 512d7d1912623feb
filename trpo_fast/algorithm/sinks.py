"""Where rows of numbers go, chosen by name: files of a run's folder, the terminal, Weights & Biases."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from trpo_fast.files import read_regular
from trpo_fast.model_file import replace_file
from trpo_fast.progress import as_columns
from trpo_fast.state import State

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

Row = Mapping[str, Any]
"""Numbers of an update by name, those that are finite; "time/total_timesteps" among them."""


class Tail(NamedTuple):
    """How a file goes on."""

    end: int  # of its bytes that are whole
    waiting: bytes = b""  # what comes behind them
    columns: tuple[str, ...] = ()  # of a CSV
    anew: bool = False  # whether `waiting` is all of the file, in place of the one that is there

    def put(self, file: IO[bytes]) -> Tail:
        """Write what waits; where that is interrupted, doing it again writes the same bytes to the same place."""
        size = os.fstat(file.fileno()).st_size if self.anew else self.end
        ahead = size - self.end  # bytes in place of those that are there; what is behind them needs room: that first
        try:
            for start, content in (size, self.waiting[ahead:]), (self.end, self.waiting[:ahead]):
                file.seek(start)
                written = 0
                while written < len(content):
                    written += file.write(content[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)  # a reader is to find no half row for as long as the disk is full
            raise
        return Tail(self.end + len(self.waiting), b"", self.columns)


class FileSink(ABC):
    """Rows as bytes at the end of a file, in which nothing is written but by `Tail.put`."""

    what: str
    """How its rows are called."""
    path: Path
    file: IO[bytes] | None = None
    """Open in a training."""
    own: os.stat_result | None = None
    """Which file was begun."""
    _folder: os.stat_result | None = None

    @abstractmethod
    def begin(self, folder: Path, kept: Sequence[Row], late: Row, done: int) -> Tail:
        """Open the file.

        Parameters
        ----------
        kept : sequence of Row
            What it is to hold from earlier trainings, values as text.
        late : Row
            What of these the last one got only now.
        done : int
            Timesteps of the agent.
        """

    @abstractmethod
    def extended(self, tail: Tail, row: Row) -> Tail:
        """`tail` with one row more; nothing else changes."""

    def open(self, mode: str = "r+b") -> int:
        """Open the file at `path`, in place of the one that is open; its size."""
        file = self.path.open(mode, buffering=0)
        self.close()
        self.file, self.own = file, os.fstat(file.fileno())
        self._folder = self.path.parent.stat()
        return self.own.st_size

    def put(self, tail: Tail) -> Tail:
        """Write what waits. OSError, and nothing is half written, where that is not possible."""
        assert self.file is not None
        # In a folder that was renamed the file is written where it is: what has its name by now is another's.
        if tail.anew and self._is_in_place():
            replace_file(self.path, tail.waiting)
            return Tail(self.open(), b"", tail.columns)
        return tail.put(self.file)

    def _is_in_place(self) -> bool:
        try:
            return self._folder is not None and os.path.samestat(self.path.parent.stat(), self._folder)
        except OSError:
            return False

    def open_again(self, tail: Tail) -> None:
        """Open what was begun and is closed; OSError where that is another file by now."""
        size = self.path.stat().st_size
        if self.own is None or not os.path.samestat(self.path.stat(), self.own) or size < tail.end:
            raise OSError(errno.ESTALE, f"{self.path} is another file than this training wrote")
        self.open()

    def close(self) -> None:
        """Close the file, if it is open."""
        file, self.file = self.file, None
        if file is not None:
            file.close()


class CsvSink(FileSink):
    """``progress.csv``. A name that no column has yet gets one: the file is made again with it.

    Parameters
    ----------
    columns : sequence of str
        That it has in any case, the first ones.
    """

    what = "rows of progress.csv"

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._content = bytearray()  # of the file, which cannot be read where somebody cut it off

    def begin(self, folder: Path, kept: Sequence[Row], late: Row, done: int) -> Tail:
        """See `FileSink`."""
        self.path = folder / "progress.csv"
        columns = tuple(dict.fromkeys([*self._columns, *(name for row in kept for name in row)]))
        content = _csv(columns, kept)
        replace_file(self.path, content)
        self._content = bytearray(content)
        return Tail(self.open(), b"", columns)

    def extended(self, tail: Tail, row: Row) -> Tail:
        """See `FileSink`."""
        new = tuple(name for name in row if name not in tail.columns)
        if not new:
            return tail._replace(waiting=tail.waiting + _csv(tail.columns, [row], header=False))
        columns = tail.columns + new
        content = (self._content[: tail.end] + tail.waiting).decode()
        rows = [*csv.DictReader(io.StringIO(content, newline="")), row]
        return Tail(0, _csv(columns, rows), columns, anew=True)

    def put(self, tail: Tail) -> Tail:
        """See `FileSink`."""
        assert self.file is not None
        self._content[tail.end :] = tail.waiting
        if os.fstat(self.file.fileno()).st_size < tail.end:
            tail = Tail(0, bytes(self._content), tail.columns, anew=True)
        return super().put(tail)


def _csv(columns: Sequence[str], rows: Iterable[Row], *, header: bool = True) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class JsonLinesSink(FileSink):
    """``progress.jsonl``: an object a line, with the names that have a finite number."""

    what = "rows of progress.jsonl"

    def begin(self, folder: Path, kept: Sequence[Row], late: Row, done: int) -> Tail:
        """See `FileSink`."""
        self.path = folder / "progress.jsonl"
        begun = self.path.exists()
        lines = read_regular(self.path).splitlines() if begun else []
        rows = {row["time/total_timesteps"]: row for row in map(_object, lines) if row is not None}
        # Of a row whose line is lost, as a kill or an editor leaves it, the numbers are known.
        found = [rows.get(int(row["time/total_timesteps"])) or _of_text(row) for row in kept] if begun else []
        if found:
            found[-1] |= late
        replace_file(self.path, b"".join(map(_json, found)))
        return Tail(self.open())

    def extended(self, tail: Tail, row: Row) -> Tail:
        """See `FileSink`."""
        return tail._replace(waiting=tail.waiting + _json(row))


def _json(row: Row) -> bytes:
    return (json.dumps(dict(row), allow_nan=False) + "\n").encode()


def _object(line: bytes) -> dict[str, Any] | None:
    """A line of the file, its finite numbers; None where it is none, as a kill or a power cut leaves it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("time/total_timesteps")) is not int:
        return None
    return {name: value for name, value in row.items() if _is_number(value)}


def _of_text(row: Row) -> dict[str, Any]:
    """The numbers of a row of ``progress.csv``, those that are finite."""
    numbers = {name: float(values[0]) for name, values in as_columns([row]).items()}
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return {**finite, "time/total_timesteps": int(row["time/total_timesteps"])}


def _is_number(value: object) -> bool:
    # An integer of hundreds of digits is finite, and math.isfinite has no float for it.
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


class TensorBoardSink(FileSink):
    """Events for TensorBoard, one of all numbers of an update.

    They are written here, not by TensorBoard's writer: that has a thread and a queue, and a Ctrl-C between the two
    keeps it from ending for two minutes.
    """

    what = "TensorBoard events"

    def begin(self, folder: Path, kept: Sequence[Row], late: Row, done: int) -> Tail:
        """See `FileSink`."""
        for number in itertools.count():
            # What TensorBoard finds, in the order of their names.
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
            self.path = folder / name
            if not self.path.exists():
                break
        self.open("xb")
        # Events that a lost run wrote after its last checkpoint would otherwise overlap the ones to come. In the first
        # session, too: TensorBoard takes the first purge that it finds for the run's beginning.
        return Tail(0, _first_events(purge_step=done + 1 if done else 0) + (_event(late, done) if late else b""))

    def extended(self, tail: Tail, row: Row) -> Tail:
        """See `FileSink`."""
        return tail._replace(waiting=tail.waiting + _event(row, row["time/total_timesteps"]))


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        return False
    return True


def _first_events(purge_step: int) -> bytes:
    """The format, and that all of this step and later is abandoned that earlier files have."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = Event(step=purge_step, session_log=SessionLog(status=SessionLog.START), wall_time=time.time())
    return _records([Event(file_version="brain.Event:2", wall_time=time.time()), start])


def _event(values: Row, step: int) -> bytes:
    """One event for all numbers of an update: one for each, as ``add_scalar`` writes them, takes five times as long."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    return _records([Event(summary=summary, step=step, wall_time=time.time())])


def _records(events: Iterable[Any]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    for event in events:
        RecordWriter(content).write(event.SerializeToString())
    return content.getvalue()


class LiveSink:
    """Takes every row once; what it raises is told in a warning, and it gets no more."""

    def get_state(self) -> State:
        """What it goes on from when the training is resumed."""
        return {}

    def begin(self, agent: TRPO, folder: Path | None, late: Row, state: State) -> None:
        """Before the first row; `late` is what the last one of before got only now, perhaps nothing."""

    def write(self, row: Row) -> None:
        """Take a row."""

    def end(self) -> None:
        """After the last row."""


class TableSink(LiveSink):
    """A table on standard output for every update, as Stable-Baselines3 prints it; a progress bar stays below."""

    def begin(self, agent: TRPO, folder: Path | None, late: Row, state: State) -> None:
        """See `LiveSink`."""
        if late:
            self.write(late)

    def write(self, row: Row) -> None:
        """See `LiveSink`."""
        lines: list[tuple[str, str]] = []
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, value in row.items():
            group, _, key = name.rpartition("/")
            groups.setdefault(group, []).append((key, str(value) if isinstance(value, int) else f"{value:.5g}"))
        for group, pairs in groups.items():
            lines += [(f"{group}/", "")] if group else []
            lines += [(f"   {key}" if group else key, value) for key, value in pairs]
        left, right = (max(len(line[i]) for line in lines) for i in (0, 1))
        rule = "-" * (left + right + 7)
        tqdm.write("\n".join([rule, *(f"| {key:<{left}} | {value:<{right}} |" for key, value in lines), rule]))


class WandbSink(LiveSink):
    """A run of Weights & Biases, by its own environment variables: ``WANDB_MODE=offline``, ``WANDB_PROJECT``.

    One that is under way is taken and left open; else one is begun, with the agent's settings, and ended. A training
    that goes on does so in the same run.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError(f"log: 'wandb' given, which is not installed: {error}; want pip install wandb") from error
        self._wandb: Any = wandb
        self._run: Any = None
        self._own = False
        self._id: str | None = None

    def get_state(self) -> State:
        """See `LiveSink`."""
        return {} if self._id is None else {"wandb": self._id}

    def begin(self, agent: TRPO, folder: Path | None, late: Row, state: State) -> None:
        """See `LiveSink`."""
        self._own = self._wandb.run is None
        self._run = self._wandb.run
        if self._own:
            self._id = state.get("wandb")
            env = agent.recipe.name if agent.recipe else None
            self._run = self._wandb.init(
                **({} if folder is None else {"dir": str(folder), "name": folder.name}),
                **({} if self._id is None else {"id": self._id, "resume": "allow"}),
                config={**agent.config.to_dict(), "seed": agent.seed, "env": env},
            )
            self._id = str(self._run.id)
        if late:  # a run that goes on takes no step of before
            self._run.log(dict(late), step=max(late["time/total_timesteps"], self._run.starting_step))

    def write(self, row: Row) -> None:
        """See `LiveSink`."""
        self._run.log(dict(row), step=row["time/total_timesteps"])

    def end(self) -> None:
        """See `LiveSink`."""
        run, self._run = self._run, None
        if run is not None and self._own:
            run.finish()
