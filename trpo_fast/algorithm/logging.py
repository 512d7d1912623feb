"""Training logs in a folder: ``progress.csv`` always, TensorBoard events where TensorBoard is installed.

Names are those of Stable-Baselines3 and sb3-contrib wherever they have one for the quantity.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trpo_fast.algorithm.callbacks import Callback
from trpo_fast.algorithm.report import TIMINGS, UpdateReport
from trpo_fast.model_file import checked_path, replace_file

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
)

_NEEDED = ("time/total_timesteps", "time/time_elapsed", "rollout/ep_rew_mean")  # by going on, and by curves


class RunLogger(Callback):
    """Writes one row per update to ``folder/progress.csv``, and the same numbers as TensorBoard events.

    A row is complete when the critic's fit is, so it may be written one update later: logging never waits for a fit.
    ``time/total_timesteps`` are the agent's in all. Where the folder has a ``progress.csv`` already and the agent has
    timesteps, of a run that is resumed or an earlier call of ``learn``, rows beyond the agent's are dropped, a last one
    that was cut off is, too, and the file goes on. An agent that has none begins a new file.

    Rows that cannot be written, on a full disk for example, are kept, and written once that is possible, after the
    training by :meth:`write_waiting`; a warning says so. Events are dropped then.

    Parameters
    ----------
    folder : path
        Made if missing.
    tensorboard : bool, optional
        True raises ImportError where TensorBoard is missing; None uses it where it is installed.
    """

    def __init__(self, folder: str | os.PathLike[str], tensorboard: bool | None = None) -> None:
        self.folder = checked_path("folder", folder)
        self._writer_type = None if tensorboard is False else _summary_writer(required=bool(tensorboard))
        self._file: IO[bytes] | None = None
        self._events: Any = None
        self._unwritten: tuple[dict[str, Any], UpdateReport] | None = None
        self._lines = b""  # of complete rows that are not in the file yet
        self._warned = False
        self._recorded = 0  # updates that have a row, written or not
        self._began = 0.0
        self._first_timestep = 0
        self._first_elapsed = 0.0

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Open the files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "progress.csv"
        done = agent.total_timesteps
        self.write_waiting()  # of the training before, with this very logger
        kept = [] if done == 0 else _rows_until(path, done)
        self._recorded = agent.num_updates
        self._first_timestep = done
        self._first_elapsed = float(kept[-1]["time/time_elapsed"] or 0.0) if kept else 0.0
        self._began = time.perf_counter()
        self._unwritten, self._lines, self._warned = None, b"", False
        _rewrite(path, kept)
        try:
            self._file = path.open("ab", buffering=0)
            if self._writer_type is not None:
                # Events that a lost run wrote after its last checkpoint would otherwise overlap the ones to come. In
                # the first session, too: TensorBoard takes the first purge that it finds for the run's beginning.
                self._events = self._writer_type(log_dir=str(self.folder), purge_step=done + 1 if done else 0)
        except BaseException:  # a callback that was not started is not ended either
            self._close()
            raise

    def on_update(self, agent: TRPO) -> None:
        """Write the update before this one; this one too where its critic fit is done."""
        self._write_out()
        assert agent.last_update is not None
        row, number = (self._row(agent, agent.last_update), agent.last_update), agent.num_updates
        self._unwritten, self._recorded = row, number  # at once: Ctrl-C comes before or behind both
        if agent.last_update.fit.done():
            self._write_out()

    def on_training_end(self, agent: TRPO) -> None:
        """Write what is left and close the files."""
        if agent.num_updates > self._recorded:  # Ctrl-C came between an update and its row
            self.on_update(agent)
        try:
            self._write_out()
        finally:
            self._close()

    def write_waiting(self) -> None:
        """Write rows that could not be before the end of the training; a warning says so where they still cannot."""
        if not self._lines:
            return
        self._warned = False
        with self._reported("the last rows of progress.csv were"):
            self._file = (self.folder / "progress.csv").open("ab", buffering=0)
            try:
                self._append()
            finally:
                self._close()

    def _close(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._events is not None:
                with self._reported("the last TensorBoard events were"):
                    self._events.close()
            self._file = self._events = None

    def _row(self, agent: TRPO, report: UpdateReport) -> dict[str, Any]:
        elapsed = time.perf_counter() - self._began
        # What a module of the user's calls so may be a layer.
        log_std = dict(agent.policy.named_parameters(recurse=False)).get("log_std")
        return {
            "time/iterations": agent.num_updates,
            "time/total_timesteps": agent.total_timesteps,
            "time/time_elapsed": self._first_elapsed + elapsed,
            "time/fps": (agent.total_timesteps - self._first_timestep) / elapsed,
            "rollout/ep_rew_mean": agent.episode_return_mean,
            "rollout/ep_len_mean": agent.episode_length_mean,
            "rollout/episodes": agent.num_episodes,
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
        }

    def _write_out(self) -> None:
        if self._unwritten is not None and self._file is not None:
            row, report = self._unwritten
            if report.fit.exception() is None:  # a failed fit is learn's to report
                row["train/value_loss"] = report.value_loss
                row |= {f"timings/{name}": seconds for name, seconds in report.timings.items()}
            known = {name: value for name, value in row.items() if math.isfinite(value)}
            lines = self._lines + _line(known)
            self._lines, self._unwritten = lines, None  # at once: Ctrl-C neither loses the row nor doubles it
            if self._events is not None:
                with self._reported("TensorBoard events were"):
                    self._events.file_writer.add_summary(_summary(known), row["time/total_timesteps"])
        self._append()

    def _append(self) -> None:
        """Put all rows into the file that are not there yet, or leave it as it was."""
        if not self._lines or self._file is None:
            return
        end = os.fstat(self._file.fileno()).st_size
        with self._reported("rows of progress.csv wait, as they were"):
            try:
                written = 0
                while written < len(self._lines):
                    written += self._file.write(self._lines[written:])
            except BaseException:
                os.ftruncate(self._file.fileno(), end)  # not half a row that the next would be appended to
                raise
            self._lines = b""
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


def _line(values: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, extrasaction="ignore").writerow(values)
    return text.getvalue().encode()


def _summary(values: dict[str, Any]) -> Any:
    """One event for all numbers of an update: one for each, as ``add_scalar`` writes them, takes five times as long."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _summary_writer(*, required: bool) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        if required:
            raise
        return None
    return SummaryWriter


def read_progress(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a ``progress.csv``, values as text, empty where there was none.

    FileNotFoundError where it is missing; ValueError, naming it, where it is not what RunLogger writes; TypeError where
    ``path`` is none.
    """
    path = checked_path("path", path)
    content = path.read_bytes()
    # A killed run may leave half a row, which has no end, and a power cut zeros.
    complete = content.rstrip(b"\0")
    complete = complete[: complete.rfind(b"\n") + 1]
    try:
        if content and not complete:
            raise ValueError("no complete line")
        reader = csv.DictReader(io.StringIO(complete.decode(), newline=""))
        rows = list(reader)
        missing = [name for name in _NEEDED if name not in reader.fieldnames] if reader.fieldnames else []
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        rows = [row for row in rows if None not in row.values()]  # as earlier versions left a row on a full disk
        for row in rows:
            int(row["time/total_timesteps"])
            for name in _NEEDED[1:]:
                float(row[name] or "nan")
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; want the columns of trpo-fast train") from error
    return rows


def _rows_until(path: Path, timesteps: int) -> list[dict[str, str]]:
    if not path.exists():
        return []
    return [row for row in read_progress(path) if int(row["time/total_timesteps"]) <= timesteps]


def _rewrite(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS).writeheader()
    replace_file(path, text.getvalue().encode() + b"".join(map(_line, rows)))
