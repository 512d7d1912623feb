"""Training logs in a folder: ``progress.csv`` always, TensorBoard events where TensorBoard is installed.

Names are those of Stable-Baselines3 and sb3-contrib wherever they have one for the quantity.
"""

from __future__ import annotations

import csv
import errno
import io
import itertools
import math
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from trpo_fast.algorithm.events import Callback
from trpo_fast.algorithm.run_files import refuse_farther, refuse_others, require_writable, set_aside
from trpo_fast.algorithm.report import TIMINGS, UpdateReport
from trpo_fast.model_file import checked_path, replace_file
from trpo_fast.progress import read_progress
from trpo_fast.ranks import Traffic
from trpo_fast.run_models import newest_first

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

COLUMNS = (
    "time/iterations",
    "time/total_timesteps",
    "time/time_elapsed",
    "time/fps",
    "rollout/ep_rew_mean",  # of the 100 latest episodes
    "rollout/ep_len_mean",
    "rollout/episodes",
    "train/n_updates",
    "train/policy_objective",
    "train/predicted_objective",
    "train/kl_divergence_loss",
    "train/is_line_search_success",
    "train/backtracks",
    "train/status",
    "train/cg_status",
    "train/cg_iterations",
    "train/cg_residual",
    "train/gradient_norm",
    "train/step_norm",
    "train/entropy_loss",  # minus the entropy
    "train/std",  # mean standard deviation of Gaussian actions
    "train/explained_variance",
    "train/max_kl",
    "train/learning_rate",  # the critic's
    "train/value_loss",
    *(f"timings/{name}" for name in TIMINGS),
    *(f"ranks/{name}" for name in Traffic._fields),  # of an update, where several ranks train
)


class _Tail(NamedTuple):
    """How a file goes on."""

    end: int  # of its bytes that are whole
    waiting: bytes = b""  # what comes behind them

    def put(self, file: IO[bytes]) -> _Tail:
        """Write what waits; where that is interrupted, doing it again writes the same bytes to the same place."""
        try:
            file.seek(self.end)
            written = 0
            while written < len(self.waiting):
                written += file.write(self.waiting[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), self.end)  # a reader is to find no half row for as long as the disk is full
            raise
        return _Tail(self.end + len(self.waiting))


@dataclass(frozen=True)
class _Position:
    """How far a log has come. A signal may come between any two lines: a step is a new one, put in place at once."""

    rows: _Tail
    events: _Tail
    recorded: int  # updates that have a row, written or not
    unfinished: tuple[dict[str, Any], UpdateReport] | None = None  # the latest row, which lacks what its fit will say


class RunLogger(Callback):
    """Writes one row per update to ``folder/progress.csv``, and the same numbers as TensorBoard events.

    A row is complete when the critic's fit is, so it may be written one update later: logging never waits for a fit.
    ``time/total_timesteps`` are the agent's in all. Where the folder has a ``progress.csv`` of this run already, which
    is resumed or learned on with, the file goes on: rows beyond the agent's, of work that was lost, are dropped, and a
    last one that was cut off is, too. An agent that begins, where no model tells what was before, begins a new file;
    the one before becomes ``progress.csv.before``, ``.before-2`` and so on, and a warning says so.

    Rows and events that cannot be written, on a full disk for example, are kept, and written once that is possible,
    after the training by :meth:`write_waiting`; a warning says so.

    Parameters
    ----------
    folder : path
        Of one run alone; made if missing.
    tensorboard : bool, optional
        True raises ImportError where TensorBoard is missing; None uses it where it is installed.

    Raises
    ------
    ValueError
        When the training starts, before anything is changed: the folder is in use by another training; or what is in
        it is of another run: a model with another seed or environment, or that is farther than the agent is; the row at
        the agent's timesteps where it says something else than the agent knows of that moment; or rows that are
        farther, and neither a row nor a model as far as the agent is, which has begun.
    """

    of_first_rank = True

    def __init__(self, folder: str | os.PathLike[str], tensorboard: bool | None = None) -> None:
        self.folder = checked_path("folder", folder).absolute()  # an environment may change the working folder
        self._with_events = False if tensorboard is False else _has_tensorboard(required=bool(tensorboard))
        self._path = self.folder / "progress.csv"
        self._file: IO[bytes] | None = None
        self._events: IO[bytes] | None = None
        self._own: os.stat_result | None = None  # progress.csv, when it was opened
        self._position = _Position(_Tail(0), _Tail(0), 0)
        self._warned = False
        self._began = 0.0
        self._first_timestep = 0
        self._first_elapsed = 0.0

    @property
    def run_folder(self) -> Path:
        """Where the log is."""
        return self.folder

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where the folder is another run's."""
        done = agent.total_timesteps
        require_writable("folder", self.folder)
        models = newest_first(self.folder)
        refuse_others([path for path, _ in models], agent)
        refuse_farther([path for path, progress in models if progress.timesteps > done], agent)
        rows = self._rows()
        _refuse_another_moment(self._path, rows, agent)
        last = self._last_of_another_run(rows, agent)
        if last and done:
            raise ValueError(
                f"folder: {self._path} has rows up to {last:,} timesteps, and none at {done:,}, which this agent has: "
                "it is of another run; want a folder for each, or TRPO.load of that one's model to go on with it"
            )

    def _last_of_another_run(self, rows: list[dict[str, str]], agent: TRPO) -> int:
        """Timesteps of the last of the log's rows where they are not the agent's; 0 where they are."""
        done, steps = agent.total_timesteps, [int(row["time/total_timesteps"]) for row in rows]
        known = {*steps, *(progress.timesteps for _, progress in newest_first(self.folder))}
        return 0 if done in known else max((step for step in steps if step > done), default=0)

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Open the files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_waiting()  # of the training before
        done, rows = agent.total_timesteps, self._rows()
        if self._last_of_another_run(rows, agent):  # the agent begins, or it would have been refused
            aside = set_aside(self._path)
            warnings.warn(
                f"{self._path} has rows of another training, or of one that left no model: it is {aside.name} now, and "
                "a new one begins",
                stacklevel=2,
            )
            rows = []
        kept = _until(rows, done)
        self._first_timestep = done
        self._first_elapsed = float(kept[-1]["time/time_elapsed"] or 0.0) if kept else 0.0
        self._began = time.perf_counter()
        self._warned = False
        _rewrite(self._path, kept)
        try:
            self._file = self._path.open("r+b", buffering=0)
            begin = b""
            if self._with_events:
                self._events = _events_path(self.folder).open("xb", buffering=0)
                # Events that a lost run wrote after its last checkpoint would otherwise overlap the ones to come. In
                # the first session, too: TensorBoard takes the first purge that it finds for the run's beginning.
                begin = _first_events(purge_step=done + 1 if done else 0)
            self._own = os.fstat(self._file.fileno())
            self._position = _Position(_Tail(self._own.st_size), _Tail(0, begin), agent.num_updates)
            self._write_waiting()
        except BaseException:  # a callback that was not started is not ended either
            self._close()
            raise

    def on_update(self, agent: TRPO) -> None:
        """Write the update before this one; this one too where its critic fit is done."""
        self._record(agent)
        assert agent.last_update is not None
        if agent.last_update.fit.done():
            self._finish()
        self._write_waiting()

    def on_training_end(self, agent: TRPO) -> None:
        """Write what is left and close the files."""
        try:
            try:
                self._complete(agent)
            except KeyboardInterrupt:
                self._complete(agent)
                raise
        finally:
            self._close()

    def write_waiting(self) -> None:
        """Write rows that could not be before the end of the training; a warning says so where they still cannot."""
        if not self._position.rows.waiting:
            return
        self._warned = False
        with self._reported("the last rows of progress.csv were"):
            self._file = self._path.open("r+b", buffering=0)
            try:
                self._refuse_another_file()
                self._write_waiting()
            finally:
                self._close()

    def _refuse_another_file(self) -> None:
        """OSError where the log is not the one that was begun: a folder may have taken the name of its own."""
        assert self._file is not None and self._own is not None
        found = os.fstat(self._file.fileno())
        if not os.path.samestat(found, self._own) or found.st_size < self._position.rows.end:
            raise OSError(errno.ESTALE, f"{self._path} is another file than this training wrote")

    def _rows(self) -> list[dict[str, str]]:
        return read_progress(self._path) if self._path.exists() else []

    def _close(self) -> None:
        try:
            for file in (self._file, self._events):
                if file is not None:
                    file.close()
        finally:
            self._file = self._events = None

    def _row(self, agent: TRPO, report: UpdateReport) -> dict[str, Any]:
        elapsed = time.perf_counter() - self._began
        # What a module of the user's calls so may be a layer.
        log_std = dict(agent.policy.named_parameters(recurse=False)).get("log_std")
        return {
            **_moment(agent),
            "time/total_timesteps": agent.total_timesteps,
            "time/time_elapsed": self._first_elapsed + elapsed,
            "time/fps": (agent.total_timesteps - self._first_timestep) / elapsed,
            "train/n_updates": agent.num_updates,
            "train/policy_objective": report.improvement,
            "train/predicted_objective": report.predicted_improvement,
            "train/kl_divergence_loss": report.kl,
            "train/is_line_search_success": int(report.status == 0),
            "train/backtracks": report.backtracks,
            "train/status": int(report.status),
            "train/cg_status": int(report.cg_status),
            "train/cg_iterations": report.cg_iterations,
            "train/cg_residual": report.cg_residual,
            "train/gradient_norm": report.gradient_norm,
            "train/step_norm": report.step_norm,
            "train/entropy_loss": -report.entropy,
            "train/std": math.nan if log_std is None else float(log_std.detach().exp().mean()),
            "train/explained_variance": report.explained_variance,
            "train/max_kl": report.max_kl,
            "train/learning_rate": report.critic_learning_rate,
            **({} if report.traffic is None else _named("ranks", report.traffic._asdict())),
        }

    def _complete(self, agent: TRPO) -> None:
        if agent.num_updates > self._position.recorded:  # Ctrl-C came between an update and its row
            self._record(agent)
        self._finish()
        self._write_waiting()

    def _record(self, agent: TRPO) -> None:
        """Take the numbers of the latest update."""
        self._finish()
        assert agent.last_update is not None
        latest = self._row(agent, agent.last_update), agent.last_update
        self._position = replace(self._position, recorded=agent.num_updates, unfinished=latest)

    def _finish(self) -> None:
        """Make a line and an event of the latest row, after waiting for its fit."""
        position = self._position
        if position.unfinished is None:
            return
        row, report = position.unfinished
        if report.fit.exception() is None:  # a failed fit is learn's to report
            row = {**row, "train/value_loss": report.value_loss, **_named("timings", report.timings)}
        known = {name: value for name, value in row.items() if math.isfinite(value)}
        line, event = _line(known), b"" if self._events is None else _event(known)
        rows = position.rows._replace(waiting=position.rows.waiting + line)
        events = position.events._replace(waiting=position.events.waiting + event)
        self._position = replace(position, unfinished=None, rows=rows, events=events)

    def _write_waiting(self) -> None:
        """Put all rows and events into their files that are not there yet."""
        position = self._position
        if self._file is not None and position.rows.waiting:
            with self._reported("rows of progress.csv wait, as they were"):
                self._position = position = replace(position, rows=position.rows.put(self._file))
        if self._events is not None and position.events.waiting:
            with self._reported("TensorBoard events wait, as they were"):
                self._position = position = replace(position, events=position.events.put(self._events))
        if not (position.rows.waiting or position.events.waiting):
            self._warned = False

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Turn an OSError into a warning, one in a row."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{self.folder}: {what} not written: {error.strerror or error}; the training goes on", stacklevel=4
                )


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def _moment(agent: TRPO) -> dict[str, float]:
    """Of a row what the agent goes on to know, as its file does: by these a log is known to be its own."""
    return {
        "time/iterations": agent.num_updates,
        "rollout/ep_rew_mean": agent.episode_return_mean,
        "rollout/ep_len_mean": agent.episode_length_mean,
        "rollout/episodes": agent.num_episodes,
    }


def _refuse_another_moment(path: Path, rows: list[dict[str, str]], agent: TRPO) -> None:
    """ValueError where the log's row at the agent's timesteps does not say what the agent knows of that moment."""
    done = agent.total_timesteps
    row = next((row for row in reversed(rows) if int(row["time/total_timesteps"]) == done), {})
    for name, value in _moment(agent).items():
        said, own = row.get(name), str(value) if math.isfinite(value) else ""
        if said not in (None, own):
            raise ValueError(
                f"folder: {path} has {name} {said or 'unknown'} at {done:,} timesteps, this agent {own or 'unknown'}: "
                "it is of another run; want a folder for each, or TRPO.load of that one's model to go on with it"
            )


def _line(values: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, extrasaction="ignore").writerow(values)
    return text.getvalue().encode()


def _has_tensorboard(*, required: bool) -> bool:
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        if required:
            raise
        return False
    return True


# Event files are written here, not by TensorBoard's writer: that has a thread and a queue, and a Ctrl-C between the two
# keeps it from ending for two minutes.


def _events_path(folder: Path) -> Path:
    for number in itertools.count():
        # What TensorBoard finds, in the order of their names.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
        if not (folder / name).exists():
            break
    return folder / name


def _first_events(purge_step: int) -> bytes:
    """The format, and that all of this step and later is abandoned that earlier files have."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = Event(step=purge_step, session_log=SessionLog(status=SessionLog.START), wall_time=time.time())
    return _records([Event(file_version="brain.Event:2", wall_time=time.time()), start])


def _event(values: Mapping[str, Any]) -> bytes:
    """One event for all numbers of an update: one for each, as ``add_scalar`` writes them, takes five times as long."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    return _records([Event(summary=summary, step=values["time/total_timesteps"], wall_time=time.time())])


def _records(events: Iterable[Any]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    for event in events:
        RecordWriter(content).write(event.SerializeToString())
    return content.getvalue()


def _until(rows: Iterable[dict[str, str]], timesteps: int) -> list[dict[str, str]]:
    """Rows until so many timesteps, one for each number of them: earlier versions may have doubled some."""
    kept = {int(row["time/total_timesteps"]): row for row in rows}
    return [row for steps, row in kept.items() if steps <= timesteps]


def _rewrite(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS).writeheader()
    replace_file(path, text.getvalue().encode() + b"".join(map(_line, rows)))
