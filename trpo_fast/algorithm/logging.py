"""Training logs: rows of numbers, one for each update, and where they are written.

Names are those of Stable-Baselines3 and sb3-contrib wherever they have one for the quantity.
"""

from __future__ import annotations

import math
import numbers
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trpo_fast._core.library import in_words
from trpo_fast.algorithm.config import EPISODES_REMEMBERED, LOG
from trpo_fast.algorithm.events import Callback
from trpo_fast.algorithm.report import TIMINGS, UpdateReport
from trpo_fast.algorithm.run_files import refuse_farther, refuse_others, require_writable, set_aside
from trpo_fast.algorithm.sinks import (
    CsvSink,
    FileSink,
    JsonLinesSink,
    LiveSink,
    TableSink,
    Tail,
    TensorBoardSink,
    WandbSink,
    has_tensorboard,
)
from trpo_fast.model_file import checked_path
from trpo_fast.progress import read_progress
from trpo_fast.ranks import Traffic
from trpo_fast.run_models import newest_first
from trpo_fast.settings import FLAG, checked
from trpo_fast.state import State

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO
    from trpo_fast.rollout.rollout import Rollout

# Of a row what the agent goes on to know, as its file does: by these a log is known to be its own.
_MOMENT: Mapping[str, Callable[[Any], float]] = {
    "time/iterations": lambda agent: agent.num_updates,
    "rollout/ep_rew_mean": lambda agent: agent.episode_return_mean,  # of the 100 latest episodes
    "rollout/ep_len_mean": lambda agent: agent.episode_length_mean,
    "rollout/episodes": lambda agent: agent.num_episodes,
}
_UPDATE: Mapping[str, Callable[[UpdateReport], float]] = {
    "train/policy_objective": lambda report: report.improvement,
    "train/predicted_objective": lambda report: report.predicted_improvement,
    "train/kl_divergence_loss": lambda report: report.kl,
    "train/is_line_search_success": lambda report: int(report.status == 0),
    "train/backtracks": lambda report: report.backtracks,
    "train/status": lambda report: int(report.status),
    "train/cg_status": lambda report: int(report.cg_status),
    "train/cg_iterations": lambda report: report.cg_iterations,
    "train/cg_residual": lambda report: report.cg_residual,
    "train/cg_damping": lambda report: report.cg_damping,
    "train/gradient_norm": lambda report: report.gradient_norm,
    "train/step_norm": lambda report: report.step_norm,
    "train/entropy_loss": lambda report: -report.entropy,
    "train/std": lambda report: math.nan,  # mean standard deviation of Gaussian actions, which the policy has
    "train/explained_variance": lambda report: report.explained_variance,
    "train/max_kl": lambda report: report.max_kl,
    "train/learning_rate": lambda report: report.critic_learning_rate,
}
COLUMNS = (
    "time/iterations",
    "time/total_timesteps",
    "time/time_elapsed",
    "time/fps",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/episodes",
    "train/n_updates",
    *_UPDATE,
    "train/value_loss",
    *(f"timings/{name}" for name in TIMINGS),
    *(f"ranks/{name}" for name in Traffic._fields),  # of an update, where several ranks train
)
_SUCCESS = "is_success"  # of the last info of an episode, as Stable-Baselines3 has it


class Logger:
    """Numbers that are written with the row of the update under way, ``agent.logger``.

    What is recorded after the row of the latest update goes to that of the next one. Where there is no
    :class:`RunLogger`, or on another rank than the first, nobody reads it.
    """

    def __init__(self) -> None:
        self._values: dict[str, tuple[int, float]] = {}
        self._of_update: tuple[int, dict[str, float]] = 0, {}
        self.count = 0
        """Calls of `record` so far."""

    def record(self, name: str, value: Any) -> None:
        """Have a number written; of several under one name the latest.

        Parameters
        ----------
        name : str
            Of a column, with its group in front: "rollout/distance". Not one of the log's own.
        value : int, float, bool, or what holds one such item: a NumPy number, an array or tensor of no axes
            What is not finite leaves the row empty there.

        Raises
        ------
        ValueError, TypeError
            Another name or value, which are named.
        """
        if not isinstance(name, str) or not name or not name.isprintable():
            raise TypeError(f"name: {in_words(name)} given; want a string of a line, e.g. 'rollout/distance'")
        if name in COLUMNS:
            raise ValueError(f"name: {in_words(name)} given, which is a column of the log's own; want another")
        number = value
        if not isinstance(value, numbers.Real) and getattr(value, "shape", None) == () and hasattr(value, "item"):
            number = value.item()
        if not isinstance(number, numbers.Real):
            raise TypeError(f"value: {in_words(value)} given for {name!r}; want a number")
        try:
            float(number)
        except OverflowError:
            raise ValueError(f"value: a number beyond a float's given for {name!r}; want a smaller one") from None
        self.count += 1
        self._values[name] = self.count, int(number) if isinstance(number, numbers.Integral) else float(number)

    def take(self, since: int = 0) -> dict[str, float]:
        """What was recorded, behind so many calls of `record`, and is not taken yet."""
        taken = {name: value for name, (at, value) in self._values.items() if at > since}
        self._values = {name: kept for name, kept in self._values.items() if name not in taken}
        return taken

    def of_update(self, number: int) -> dict[str, float]:
        """What was recorded for the row of this update: the same for every log, the first of which takes it."""
        before = self._of_update[1] if self._of_update[0] == number else {}
        self._of_update = number, before | self.get_state()
        self._values = {}
        return self._of_update[1]

    def get_state(self) -> State:
        """What is not taken yet."""
        return {name: value for name, (_, value) in self._values.items()}

    def set_state(self, state: State) -> None:
        """Have recorded exactly this."""
        self._of_update = 0, {}
        self._values = {name: (self.count, value) for name, value in state.items()}


@dataclass(frozen=True)
class _Position:
    """How far a log has come. A signal may come between any two lines: a step is a new one, put in place at once."""

    tails: tuple[Tail, ...]  # of the files
    recorded: int  # updates that have a row, written or not
    unfinished: tuple[dict[str, Any], UpdateReport] | None = None  # the latest row, which lacks what its fit will say
    unshown: tuple[dict[str, Any], ...] = ()  # rows that what is live has not had yet


class RunLogger(Callback):
    """Writes one row per update to ``folder/progress.csv``, and the same numbers to other sinks.

    A row is complete when the critic's fit is, so it may be written one update later: logging never waits for a fit.
    It has what callbacks, but for those that run last, recorded by ``agent.logger`` until then: a name that is new gets
    a column of its own. ``time/total_timesteps`` are the agent's in all. Where the folder has a ``progress.csv`` of
    this run already, which is resumed or learned on with, the file goes on: rows beyond the agent's, of work that was
    lost, are dropped, and a last one that was cut off is, too. An agent that begins, where no model tells what was
    before, begins a new file; the one before becomes ``progress.csv.before``, ``.before-2`` and so on, and a warning
    says so.

    Rows and events that cannot be written, on a full disk for example, are kept, and written once that is possible,
    after the training by :meth:`write_waiting`; a warning says so. Where the terminal or Weights & Biases fail a
    warning says so, and they get no more rows.

    Environments whose infos have "is_success" give ``rollout/success_rate``, of the 100 latest episodes that say it.

    Parameters
    ----------
    folder : path, optional
        Of one run alone; made if missing. None where no sink is a file.
    tensorboard : bool, optional
        True raises ImportError where TensorBoard is missing; None uses it where it is installed.
    log : str or sequence of str, optional
        Names of sinks, in place of `tensorboard`: "csv", which a folder has in any case, as what goes on from it and
        draws it reads that; "jsonl", ``folder/progress.jsonl``; "tensorboard"; "wandb", Weights & Biases; "table", on
        the terminal.

    Raises
    ------
    ValueError
        When the training starts, before anything is changed: the folder is in use by another training; or what is in
        it is of another run: a model with another seed or environment, or that is farther than the agent is; the row at
        the agent's timesteps where it says something else than the agent knows of that moment; or rows that are
        farther, and neither a row nor a model as far as the agent is, which has begun.
    ImportError
        A sink's package is not installed.
    """

    of_first_rank = runs_behind = True
    infos = (_SUCCESS,)

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        tensorboard: bool | None = None,
        *,
        log: str | Sequence[str] | None = None,
    ) -> None:
        if log is not None and tensorboard is not None:
            raise ValueError(
                f"tensorboard: {in_words(tensorboard)} given with log={log!r}; want 'tensorboard' in log, or not"
            )
        if tensorboard is not None:
            checked("tensorboard", tensorboard, FLAG)
        names = (
            ("csv", *(["tensorboard"] if tensorboard is not False else [])) if log is None else checked("log", log, LOG)
        )
        of_files = [name for name in names if name in ("csv", "jsonl", "tensorboard")]
        if folder is None and of_files:
            raise ValueError(f"folder: None given; want a path, for {', '.join(of_files)}")
        # An environment may change the working folder.
        self.folder = None if folder is None else checked_path("folder", folder).absolute()
        self._files: list[FileSink] = [] if self.folder is None else [CsvSink(COLUMNS)]
        self._live: list[LiveSink] = []
        for name in names:
            if name == "jsonl":
                self._files.append(JsonLinesSink())
            elif name == "tensorboard" and (tensorboard or log is not None or has_tensorboard()):
                if not has_tensorboard():
                    raise ImportError(f"{name}: it is not installed; want pip install tensorboard, or a log without it")
                self._files.append(TensorBoardSink())
            elif name in ("table", "wandb"):
                self._live.append(TableSink() if name == "table" else WandbSink())
        self._off: list[LiveSink] = []  # that failed
        self._position = _Position((), 0)
        self._warned = False
        self._began = self._first_elapsed = 0.0
        self._first_timestep = self._recorded_before = 0
        self._logger = Logger()  # the agent's
        self._successes: deque[float] = deque(maxlen=EPISODES_REMEMBERED)
        self._of_rollout: list[float] = []  # of the update under way
        self._resumed: State = {}

    @property
    def run_folder(self) -> Path | None:
        """Where the log is."""
        return self.folder

    def get_state(self) -> State:
        """What no row has yet, and of what the success rate is the mean."""
        state: State = {"recorded": self._logger.get_state(), "successes": list(self._successes)}
        for sink in self._live:
            state |= sink.get_state()
        return {name: value for name, value in state.items() if value}

    def set_state(self, state: State) -> None:
        """Go on with these."""
        self._resumed = state

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where the folder is another run's."""
        self._recorded_before = agent.logger.count
        if self.folder is None:
            return
        done = agent.total_timesteps
        require_writable("folder", self.folder)
        models = newest_first(self.folder)
        refuse_others([path for path, _ in models], agent)
        refuse_farther([path for path, progress in models if progress.timesteps > done], agent)
        rows = self._rows()
        _refuse_another_moment(self.folder / "progress.csv", rows, agent)
        last = self._last_of_another_run(rows, agent)
        if last and done:
            raise ValueError(
                f"folder: {self.folder / 'progress.csv'} has rows up to {last:,} timesteps, and none at {done:,}, "
                "which this agent has: it is of another run; want a folder for each, or TRPO.load of that one's model "
                "to go on with it"
            )

    def _last_of_another_run(self, rows: list[dict[str, str]], agent: TRPO) -> int:
        """Timesteps of the last of the log's rows where they are not the agent's; 0 where they are."""
        assert self.folder is not None
        done, steps = agent.total_timesteps, [int(row["time/total_timesteps"]) for row in rows]
        known = {*steps, *(progress.timesteps for _, progress in newest_first(self.folder))}
        return 0 if done in known else max((step for step in steps if step > done), default=0)

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Open the files."""
        self.write_waiting()  # of the training before
        done = agent.total_timesteps
        resumed, self._resumed = self._resumed, {}
        self._logger = agent.logger
        # What was recorded since, by an evaluation that is made up for, is of the moment that the last row is of.
        late = agent.logger.take(self._recorded_before)
        agent.logger.set_state({**resumed.get("recorded", {}), **agent.logger.get_state()})
        if done == 0 or resumed:
            self._successes = deque(resumed.get("successes", ()), maxlen=EPISODES_REMEMBERED)
        kept = [] if self.folder is None else self._kept(agent)
        if late and kept and int(kept[-1]["time/total_timesteps"]) == done:
            known = {name: value for name, value in late.items() if math.isfinite(value)}
            kept[-1] |= {name: str(value) for name, value in known.items()}
        else:
            known = {}
            agent.logger.set_state({**agent.logger.get_state(), **late})
        self._first_timestep = done
        self._first_elapsed = float(kept[-1]["time/time_elapsed"] or 0.0) if kept else 0.0
        self._warned, self._off = False, []
        try:
            # One by one: a file that is begun has its place in the position.
            self._position = _Position((), agent.num_updates)
            for sink in self._files:
                assert self.folder is not None
                tails = *self._position.tails, sink.begin(self.folder, kept, known, done)
                self._position = replace(self._position, tails=tails)
            late = {"time/total_timesteps": done, **known} if known else {}
            for live in self._live:
                with self._told(live):
                    live.begin(agent, self.folder, late, resumed)
            self._began = time.perf_counter()
            self._write_waiting()
        except BaseException:  # a callback that was not started is not ended either
            self._close()
            raise

    def _kept(self, agent: TRPO) -> list[dict[str, str]]:
        """Rows that stay of the log that is there; one of another run is set aside."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._rows()
        if self._last_of_another_run(rows, agent):  # the agent begins, or it would have been refused
            path = self.folder / "progress.csv"
            aside = set_aside(path)
            warnings.warn(
                f"{path} has rows of another training, or of one that left no model: it is {aside.name} now, and a new "
                "one begins",
                stacklevel=3,
            )
            lines = self.folder / "progress.jsonl"
            if lines.exists():
                set_aside(lines)
            rows = []
        return _until(rows, agent.total_timesteps)

    def on_rollout_end(self, agent: TRPO, rollout: Rollout) -> None:
        """Take which of its episodes were a success, where that is said."""
        found = rollout.infos[_SUCCESS][rollout.ended] if _SUCCESS in rollout.infos else ()
        self._of_rollout = [float(value) for value in found if not math.isnan(value)]

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
        for sink, tail in zip(self._files, self._position.tails, strict=False):
            if not tail.waiting:
                continue
            self._warned = False
            with self._reported(f"the last {sink.what} were"):
                try:
                    sink.open_again(tail)
                    self._write_waiting()
                finally:
                    sink.close()

    def _rows(self) -> list[dict[str, str]]:
        assert self.folder is not None
        path = self.folder / "progress.csv"
        return read_progress(path) if path.exists() else []

    def _close(self) -> None:
        for live in self._live:
            with self._told(live):
                live.end()
        for sink in self._files:
            sink.close()

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
            **{name: number(report) for name, number in _UPDATE.items()},
            **({} if log_std is None else {"train/std": float(log_std.detach().exp().mean())}),
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
        row = self._row(agent, agent.last_update)
        successes = [*self._successes, *self._of_rollout][-EPISODES_REMEMBERED:]
        if successes:
            row["rollout/success_rate"] = sum(successes) / len(successes)
        row |= agent.logger.of_update(agent.num_updates)
        self._position = replace(self._position, recorded=agent.num_updates, unfinished=(row, agent.last_update))
        self._successes.extend(self._of_rollout)
        self._of_rollout = []

    def _finish(self) -> None:
        """Make a line and an event of the latest row, after waiting for its fit."""
        position = self._position
        if position.unfinished is None:
            return
        row, report = position.unfinished
        if report.fit.exception() is None:  # a failed fit is learn's to report
            row = {**row, "train/value_loss": report.value_loss, **_named("timings", report.timings)}
        known = {name: value for name, value in row.items() if math.isfinite(value)}
        known = {name: known[name] for name in dict.fromkeys([*COLUMNS, *known]) if name in known}
        extended = tuple(sink.extended(tail, known) for sink, tail in zip(self._files, position.tails, strict=True))
        shown = (*position.unshown, known) if self._live else ()
        self._position = replace(position, unfinished=None, tails=extended, unshown=shown)

    def _write_waiting(self) -> None:
        """Put all rows and events into their files that are not there yet, and show those that were not."""
        for i, sink in enumerate(self._files):
            tails = self._position.tails
            if sink.file is not None and tails[i].waiting:
                with self._reported(f"{sink.what} wait, as they were"):
                    self._position = replace(self._position, tails=(*tails[:i], sink.put(tails[i]), *tails[i + 1 :]))
        while self._position.unshown:
            row, *others = self._position.unshown
            self._position = replace(self._position, unshown=tuple(others))
            for live in self._live:
                if live not in self._off:
                    with self._told(live):
                        live.write(row)
        if not any(tail.waiting for tail in self._position.tails):
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

    @contextmanager
    def _told(self, live: LiveSink) -> Iterator[None]:
        """Turn what a sink raises into a warning, one of a training; it gets no more rows of this one."""
        try:
            yield
        except Exception as error:
            if live in self._off:
                return
            self._off.append(live)
            name = type(live).__name__
            warnings.warn(f"log: {name} gets no more rows, as it raised {error!r}; the training goes on", stacklevel=4)


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def _moment(agent: TRPO) -> dict[str, float]:
    return {name: number(agent) for name, number in _MOMENT.items()}


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


def _until(rows: Iterable[dict[str, str]], timesteps: int) -> list[dict[str, str]]:
    """Rows until so many timesteps, one for each number of them: earlier versions may have doubled some."""
    kept = {int(row["time/total_timesteps"]): row for row in rows}
    return [row for steps, row in kept.items() if steps <= timesteps]
