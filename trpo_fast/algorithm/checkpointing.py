"""Saving the agent now and then while it learns."""

from __future__ import annotations

import errno
import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import CHECKPOINT_SECONDS, CHECKPOINTS_KEPT, EPISODES_REMEMBERED, checked_timesteps
from trpo_fast.algorithm.events import Callback, is_in_place
from trpo_fast.algorithm.run_files import damage_of, refuse_farther, refuse_others, require_writable, timesteps_of
from trpo_fast.model_file import ModelFileError, checked_path, link_file, read_array, remove_unfinished
from trpo_fast.run_models import BEST, checkpoint_name, run_folder_of
from trpo_fast.settings import COUNT, FLAG, POSITIVE, checked

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


class CheckpointCallback(Callback):
    """Saves the agent now and then as ``folder/<total timesteps>.trpo``, by time, by number or both.

    What is saved is the moment right after an update, when that is due. It is written at the next update, or at the end
    of the training, when the critic's fit is done that belongs to it: nothing waits for a fit. A callback of a list
    that comes before or after this one, a :class:`RunLogger` for example, has run by then: the row of an update is
    written before the checkpoint that has it.

    Where `TRPOConfig.reset_on_checkpoint` cuts episodes the moments are those, as no others can be gone on from to the
    bit: all of them, or the first after every `every` timesteps.

    A checkpoint that cannot be written, on a full disk for example, is reported in a warning; training goes on, and so
    do the ones before.

    Parameters
    ----------
    folder : path
        Of one run alone; made if missing. Left-overs of saves that were killed are removed from it.
    every : int, optional
        Timesteps between two checkpoints, rounded up to an update.
    seconds : float, optional
        The most training that a killed process may lose; 60 where `every` is not given. Two updates that take longer
        are the least.
    keep : int >= 0, optional
        How many of the latest stay, 0 for all; 3 where `every` is not given, else all.
    best : bool
        Keep the checkpoint with the highest mean return of 100 training episodes as ``folder/best.trpo``, too.

    Raises
    ------
    ValueError
        When the training starts: the folder is in use by another training, or holds checkpoints of another run, whose
        seed or environment is not the agent's, or which are farther than the agent is; or `seconds` is given where
        `reset_on_checkpoint` cuts episodes: what is learned may not depend on time.
    """

    runs_last = of_first_rank = True

    def __init__(
        self,
        folder: str | Path,
        every: int | None = None,
        *,
        seconds: float | None = None,
        keep: int | None = None,
        best: bool = False,
    ) -> None:
        self.folder = checked_path("folder", folder).absolute()  # an environment may change the working folder
        self.every: int | None = None if every is None else checked_timesteps("every", every)
        self._by_time = seconds is not None
        if seconds is None:
            seconds = CHECKPOINT_SECONDS if every is None else None
        self.seconds: float = math.inf if seconds is None else checked("seconds", seconds, POSITIVE)
        self.keep: int = checked("keep", (CHECKPOINTS_KEPT if every is None else 0) if keep is None else keep, COUNT)
        self.best: bool = checked("best", best, FLAG)
        self._clock = time.monotonic
        self._best_mean = -math.inf
        self._due = math.inf  # in timesteps
        self._saved_at = self._updated_at = 0.0  # by the clock
        self._taken: checkpoint.Snapshot | None = None  # that is to be written
        self._missing = False  # the folder, and a warning has said so

    @property
    def run_folder(self) -> Path:
        """Of the run whose checkpoints these are: the one around a folder that is called ``checkpoints``."""
        return run_folder_of(self.folder)

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where the folder is another run's, or a time would change what is learned."""
        cuts = agent.training_environments.cuts
        if cuts and self._by_time:
            raise ValueError(
                f"seconds: {self.seconds:g} given with reset_on_checkpoint={cuts}, which cuts episodes at checkpoints; "
                "want it left out: they fall on numbers of updates, so that no time changes what is learned"
            )
        require_writable("folder", self.folder)
        refuse_others([*self._numbered(), self.folder / BEST], agent)
        refuse_farther(self._farther(agent), agent)

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first checkpoint at the next multiple of ``every``, or after ``seconds``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        for path, error in refuse_farther(self._farther(agent), agent):
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            warnings.warn(f"{error}: it is {aside.name} now; the training goes on without it", stacklevel=2)
        self._best_mean = _best_mean(self.folder / BEST) if self.best else -math.inf
        self._taken = None
        self._saved_at = self._updated_at = self._clock()
        self._plan(agent)

    def on_update(self, agent: TRPO) -> None:
        """Write what was taken at the update before; take this moment where that is due."""
        self._write(agent)
        now = self._clock()
        update, self._updated_at = now - self._updated_at, now
        if agent.training_environments.cuts:
            due = agent.is_at_a_cut and (self.every is None or agent.total_timesteps >= self._due)
        else:
            # Until the next moment that could be taken is written two updates will have passed.
            due = agent.total_timesteps >= self._due or now - self._saved_at + 2 * update >= self.seconds
        if due:
            self._taken = checkpoint.capture_for_file(agent)
            self._saved_at = now
            self._plan(agent)

    def on_training_end(self, agent: TRPO) -> None:
        """Write what was taken at the last update, after waiting for its fit where an exception came."""
        self._write(agent)

    def save(self, agent: TRPO) -> Path:
        """Save now, after waiting for the critic's fit; the path written. OSError where that fails."""
        path = self.folder / checkpoint_name(agent.total_timesteps)
        if not is_in_place(path, agent):
            raise FileNotFoundError(errno.ENOENT, "renamed or removed while a training is in it", str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        agent.save(path)
        self._taken = None
        self._tidy(path)
        return path

    def _write(self, agent: TRPO) -> None:
        taken = self._taken
        if taken is None:
            return
        timesteps = taken.counters["num_timesteps"] + taken.counters["earlier_timesteps"]
        path = self.folder / checkpoint_name(timesteps)
        if not (self.folder.is_dir() and is_in_place(path, agent)):  # not made again: its run would be in two folders
            self._taken = None
            if not self._missing:
                warnings.warn(
                    f"{self.folder} is not there any more, it was renamed or removed: no checkpoint is written until "
                    "it is back; the training goes on",
                    stacklevel=2,
                )
            self._missing = True
            return
        self._missing = False
        try:
            checkpoint.save(agent, path, taken)
            if is_in_place(path, agent):
                self._tidy(path)
        except OSError as error:
            warnings.warn(
                f"the checkpoint at {timesteps:,} timesteps was not written: {path}: {error.strerror or error}; the "
                "training goes on, the checkpoints before it are as they were",
                stacklevel=2,
            )
        except Exception:
            self._taken = None
            raise
        self._taken = None  # after Ctrl-C it is still to be written, when the training ends

    def _tidy(self, path: Path) -> None:
        """Keep the best and the last; `path` has just been written."""
        mean = _best_mean(path) if self.best else -math.inf
        if mean > self._best_mean:
            link_file(path, self.folder / BEST)
            self._best_mean = mean
        if self.keep:
            for old in [one for one in self._numbered() if int(one.stem) <= int(path.stem)][: -self.keep]:
                old.unlink(missing_ok=True)

    @property
    def latest(self) -> Path | None:
        """The checkpoint with the most timesteps that can be read; None where there is none."""
        return next((path for path in reversed(self._numbered()) if damage_of(path) is None), None)

    def _farther(self, agent: TRPO) -> list[Path]:
        """Files that are farther than the agent, by their names and by what they say, where that can be read."""
        done = agent.total_timesteps
        return [path for path in self._numbered() if int(path.stem) > done and timesteps_of(path) > done]

    def _numbered(self) -> list[Path]:
        return sorted((p for p in self.folder.glob("*.trpo") if p.stem.isdecimal()), key=lambda p: int(p.stem))

    def _plan(self, agent: TRPO) -> None:
        if self.every is not None:
            self._due = (agent.total_timesteps // self.every + 1) * self.every


def _best_mean(path: Path) -> float:
    """Mean return of the 100 latest episodes in an agent's file; -inf where there are fewer, or it cannot be read."""
    try:
        returns = read_array(path, "episodes.returns")
    except (OSError, ModelFileError):
        return -math.inf
    return float(returns.mean()) if returns.size == EPISODES_REMEMBERED else -math.inf
