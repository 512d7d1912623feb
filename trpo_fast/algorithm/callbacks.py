"""What runs after every update of ``TRPO.learn``."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from tqdm.auto import tqdm

from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import (
    CHECKPOINT_SECONDS,
    CHECKPOINTS_KEPT,
    EPISODES_REMEMBERED,
    FINITE,
    POSITIVE_INTEGER,
    RECENT_EPISODES,
    SEED,
)
from trpo_fast.algorithm.evaluation import OWN_ENVIRONMENT
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.spaces import space_to_json
from trpo_fast.folder_lock import FolderInUse, FolderLock
from trpo_fast.model_file import ModelFileError, checked_path, link_file, read_array, read_metadata, remove_unfinished
from trpo_fast.run_models import BEST, checkpoint_name, progress_of, run_folder_of
from trpo_fast.settings import COUNT, POSITIVE, checked
from trpo_fast.state import State, copied

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

_EVALUATIONS_STREAM = 8  # of their seeds


class Callback:
    """Base of callbacks; override what is needed.

    At every call the agent is between two updates. ``agent.critic``, ``agent.save`` and the critic's part of
    ``agent.last_update`` first wait for the critic's fit; the policy's part does not, so a callback that reads only
    that leaves the fit hidden beside the next rollout.
    """

    runs_last = False
    """Whether it is called after those of a list that do not say so, whatever their order."""

    of_first_rank = False
    """Whether, of several ranks, the first one alone calls it, as it writes or prints; what ends the training on one
    ends it on all."""

    @property
    def run_folder(self) -> Path | None:
        """A folder that is this training's alone while it lasts, if there is one; made and locked before the start.

        ValueError where another training has it.
        """
        return None

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Raise what stands against the training, and change nothing; of all callbacks before the first starts."""

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Before the first rollout; ``total_timesteps`` is the count at which training ends."""

    def on_update(self, agent: TRPO) -> Any:
        """After an update; what equals False, of NumPy or torch as well, ends the training, None does not.

        ``agent.episode_return_mean`` is NaN before an episode has ended, and ``nan < goal`` is False: to end at a goal,
        take :class:`StopAtReturn`.
        """
        return None

    def on_training_end(self, agent: TRPO) -> None:
        """After the last update, also where an exception ended the training; only where the start went well."""

    def get_state(self) -> State:
        """What it goes on from when the training is resumed, as plain data (`trpo_fast.state`): in every file.

        Called when the training starts, whenever the agent is saved, by another callback perhaps, and at the end. What
        it returns is copied. What is no plain data is a TypeError when the training starts, and a warning later: files
        have the state of before then. A file that another callback saves in its ``on_update`` has, of those that are
        called behind it, the state before this update: such a callback comes last, by ``runs_last``.
        """
        return {}

    def set_state(self, state: State) -> None:
        """Go on from what `get_state` said, of an earlier training or in a file; before ``on_training_start``.

        Not called where timesteps are counted from 0 again, or nothing was said.
        """


# The agent's type is Any here, because the alias is evaluated and the agent imports this module.
CallbackLike = Callback | Callable[[Any], Any] | Sequence[Any] | None


class CallbackList(Callback):
    """Several callbacks as one; training ends when any of them says so, after all have run.

    Lists inside are unrolled, so that each callback is started, and ended, by itself. Their order is kept, but for
    those that run last (:class:`CheckpointCallback`).
    """

    def __init__(self, callbacks: Sequence[CallbackLike], *, first_rank: bool = True) -> None:
        self.callbacks: list[Callback] = []
        self._started: list[Callback] = []
        self._folders = ExitStack()
        self._locks: dict[Path, FolderLock] = {}  # on these folders, by their names
        self._states: State = {}  # of each the latest that was plain data, by name
        self._others: State = {}  # of callbacks that are not here
        self._spoilt: set[str] = set()  # names that a warning has told
        self._when_all_have_run: list[Callable[[], None]] = []
        for callback in map(as_callback, callbacks):
            self.callbacks += callback.callbacks if isinstance(callback, CallbackList) else [callback]
        if not first_rank:
            self.callbacks = [callback for callback in self.callbacks if not callback.of_first_rank]
        self.callbacks.sort(key=lambda callback: callback.runs_last)

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Call each in order."""
        for callback in self.callbacks:
            callback.check_training_start(agent, total_timesteps)

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Take their folders, ask each what stands against it, then start each in order."""
        self._started, self._locks = [], {}
        with ExitStack() as folders:
            for folder in dict.fromkeys(callback.run_folder for callback in self.callbacks):
                if folder is not None:
                    self._locks[folder] = folders.enter_context(_taken(folder, agent))
            self.check_training_start(agent, total_timesteps)
            self._folders = folders.pop_all()
        for callback in self.callbacks:
            callback.on_training_start(agent, total_timesteps)
            self._started.append(callback)
        self._states, self._spoilt = {}, set()
        for name, callback in self._named():  # what no file can have is not found out at the first one
            self._states[name] = _state_of(name, callback)
        self._run_what_waits()

    def is_in_place(self, path: Path) -> bool:
        """Whether the folders taken that `path` lies in still have their names: else it may be in another run's."""
        within = Path(os.path.abspath(path)).parents
        return all(lock.is_in_place for folder, lock in self._locks.items() if Path(os.path.abspath(folder)) in within)

    def get_state(self) -> State:
        """Copies of those of each that has one, by the name of its class, and a number from the second of a class on.

        Of one that fails, or is no plain data any more, the one before, which a warning says; nothing of a training is
        lost for it. Those of callbacks that are not here are kept as they were given.
        """
        for name, callback in self._named():
            try:
                self._states[name] = _state_of(name, callback)
            except Exception as error:
                if name not in self._spoilt:
                    self._spoilt.add(name)
                    warnings.warn(
                        f"callback {name}: {error!r}; its state of before is kept instead, also in files", stacklevel=2
                    )
        return {name: state for name, state in {**self._others, **self._states}.items() if state}

    def set_state(self, state: State) -> None:
        """Give each a copy of what is there under its name."""
        named = dict(self._named())
        self._others = {name: own for name, own in state.items() if name not in named}
        for name, callback in named.items():
            if state.get(name):
                callback.set_state(copied(state[name]))

    def _named(self) -> Iterator[tuple[str, Callback]]:
        counts: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            counts[name] += 1
            yield (name if counts[name] == 1 else f"{name} {counts[name]}"), callback

    def on_update(self, agent: TRPO) -> bool:
        """Call each in order."""
        # A list, so that every callback runs.
        ends = any([_ends_training(callback.on_update(agent)) for callback in self.callbacks])
        self._run_what_waits()
        return not ends

    def when_all_have_run(self, action: Callable[[], None]) -> None:
        """Call `action` once all callbacks have been called of this moment: a file that it saves has all their states.

        Where one of them raises, or Ctrl-C comes, when the training ends.
        """
        self._when_all_have_run.append(action)

    def _run_what_waits(self) -> None:
        waiting = self._when_all_have_run
        while waiting:
            try:
                waiting[0]()
            except Exception:
                waiting.pop(0)
                raise
            waiting.pop(0)  # after Ctrl-C it is still to be done, when the training ends

    def on_training_end(self, agent: TRPO) -> None:
        """Call each one that was started, in order, and give their folders back.

        The first exception travels on once all have been called.
        """
        first: BaseException | None = None
        with self._folders:
            ends = [self._run_what_waits]
            while ends or self._started:
                try:
                    ends.pop()() if ends else self._started.pop(0).on_training_end(agent)
                except BaseException as error:
                    if first is None:
                        first = error
                    else:
                        first.add_note(f"a later on_training_end raised {error!r}")
        if first is not None:
            raise first


def _state_of(name: str, callback: Callback) -> Any:
    return copied(callback.get_state(), f"get_state() of {name}")


@contextmanager
def _taken(folder: Path, agent: TRPO) -> Iterator[FolderLock]:
    """Make a folder and have it for the training of `agent`; where that raises, what was made is removed again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = FolderLock(folder, agent)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except FolderInUse as error:
            raise ValueError(f"folder: {folder} is in use by {error}; want one training in a folder") from None
        except OSError as error:
            raise _unwritable("folder", folder, error) from error
        try:
            yield lock
        finally:
            lock.release()
    except BaseException:
        with suppress(OSError):  # those that are empty
            for path in missing:
                path.rmdir()
        raise


def _is_in_place(path: Path, agent: TRPO) -> bool:
    callbacks = agent.callbacks_under_way
    return callbacks is None or callbacks.is_in_place(path)


def _ends_training(answer: Any) -> bool:
    """Whether a callback's answer is a False, of whatever library."""
    if answer is None:
        return False
    try:
        return bool(answer == False)  # noqa: E712, NumPy's and torch's are other objects
    except (RuntimeError, TypeError, ValueError):  # several items
        raise TypeError(f"callback: {answer!r} returned; want True, False or None") from None


class _FunctionCallback(Callback):
    def __init__(self, function: Callable[[TRPO], Any]) -> None:
        self._function = function

    def on_update(self, agent: TRPO) -> Any:
        return self._function(agent)


def as_callback(callback: CallbackLike) -> Callback:
    """A Callback from what ``learn(callback=)`` accepts; TypeError for anything else."""
    if callback is None:
        return CallbackList([])
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, Sequence) and not isinstance(callback, str | bytes):
        return CallbackList(callback)
    if callable(callback):
        return _FunctionCallback(callback)
    raise TypeError(
        f"callback: {callback!r} given; want a Callback, a function of the agent, a sequence of these, or None"
    )


def require_writable(name: str, folder: Path) -> None:
    """OSError, about the argument `name`, where no file could be made in a folder, or in the one to make it in."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):  # permission bits do not tell for root or network drives
            pass
    except OSError as error:
        raise _unwritable(name, folder, error) from error


def _unwritable(name: str, folder: Path, error: OSError) -> OSError:
    return OSError(error.errno, f"{name}: {folder} cannot be written: {error.strerror or error}")


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
        self.every: int | None = None if every is None else checked("every", every, POSITIVE_INTEGER)
        self._by_time = seconds is not None
        if seconds is None:
            seconds = CHECKPOINT_SECONDS if every is None else None
        self.seconds: float = math.inf if seconds is None else checked("seconds", seconds, POSITIVE)
        self.keep: int = checked("keep", (CHECKPOINTS_KEPT if every is None else 0) if keep is None else keep, COUNT)
        self.best = best
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
        if not _is_in_place(path, agent):
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
        if not (self.folder.is_dir() and _is_in_place(path, agent)):  # not made again: its run would be in two folders
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
            if _is_in_place(path, agent):
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
        return next((path for path in reversed(self._numbered()) if _damage_of(path) is None), None)

    def _farther(self, agent: TRPO) -> list[Path]:
        """Files that are farther than the agent, by their names and by what they say, where that can be read."""
        done = agent.total_timesteps
        return [path for path in self._numbered() if int(path.stem) > done and _timesteps_of(path) > done]

    def _numbered(self) -> list[Path]:
        return sorted((p for p in self.folder.glob("*.trpo") if p.stem.isdecimal()), key=lambda p: int(p.stem))

    def _plan(self, agent: TRPO) -> None:
        if self.every is not None:
            self._due = (agent.total_timesteps // self.every + 1) * self.every


def set_aside(path: Path) -> Path:
    """Give a file a name that says that it was before, and that no other has; the new path."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.before{'' if number == 1 else f'-{number}'}")
        if not aside.exists():
            return path.replace(aside)
    raise AssertionError  # there are more numbers than files


def refuse_farther(paths: Sequence[Path], agent: TRPO) -> list[tuple[Path, ModelFileError]]:
    """ValueError where one of the files, which are farther than the agent, is sound; the damaged ones are nobody's."""
    damaged = []
    for path in paths:
        error = _damage_of(path)
        if error is not None:
            damaged.append((path, error))
        else:
            raise ValueError(
                f"folder: {path} is farther than this agent, which has {agent.total_timesteps:,} timesteps: it is "
                "of another run; want a folder for each, or TRPO.load of that one to go on with it"
            )
    return damaged


def refuse_others(paths: Iterable[Path], agent: TRPO, name: str = "folder", want: str = "a folder for each") -> None:
    """ValueError, about the argument `name`, where one of the files is of another run."""
    for path in paths:
        difference = _another_run(path, agent)
        if difference:
            raise ValueError(f"{name}: {path} is of another run: {difference}; want {want}")


def _another_run(path: Path, agent: TRPO) -> str:
    """Of a file's seed and environment what is not this agent's; "" where that is none, or the file cannot be read."""
    try:
        saved = read_metadata(path)
    except (OSError, ModelFileError):
        return ""
    if saved.get("seed") != agent.seed:
        return f"its seed is {saved.get('seed')}, this agent's {agent.seed}"
    ids = [recipe.get("id") if recipe else None for recipe in (saved.get("environment"), _recipe_of(agent))]
    if None not in ids and ids[0] != ids[1]:
        return f"its environment is {ids[0]}, this agent's {ids[1]}"
    for kind, space in ("observation", agent.observation_space), ("action", agent.action_space):
        if saved.get(f"{kind}_space") != json.loads(json.dumps(space_to_json(space))):
            return f"its {kind}s are other ones"
    return ""


def _recipe_of(agent: TRPO) -> Mapping[str, Any] | None:
    return None if agent.recipe is None else agent.recipe.to_json()


def _damage_of(path: Path) -> ModelFileError | None:
    """What is wrong with the file of an agent; None for a sound one."""
    try:
        checkpoint.read(path)
    except ModelFileError as error:
        return error
    return None


def _timesteps_of(path: Path) -> float:
    """Of the agent in a file; infinity where that cannot be read."""
    try:
        return progress_of(path).timesteps
    except ModelFileError:
        return math.inf


def _evaluated_mean(path: Path) -> float:
    """The mean return that the evaluation of an agent in a file had; -inf where it says none."""
    try:
        evaluation = read_metadata(path).get("evaluation")
    except (OSError, ModelFileError):
        return -math.inf
    mean = evaluation.get("mean") if isinstance(evaluation, dict) else None
    return mean if isinstance(mean, float) and math.isfinite(mean) else -math.inf


def _best_mean(path: Path) -> float:
    """Mean return of the 100 latest episodes in an agent's file; -inf where there are fewer, or it cannot be read."""
    try:
        returns = read_array(path, "episodes.returns")
    except (OSError, ModelFileError):
        return -math.inf
    return float(returns.mean()) if returns.size == EPISODES_REMEMBERED else -math.inf


class StopAtReturn(Callback):
    """Ends the training once the latest ``episodes`` training episodes have a mean undiscounted return of ``value``.

    Never before that many episodes have ended. At most 100, as many as the agent remembers; those of an earlier
    ``learn`` count, too.
    """

    def __init__(self, value: float, episodes: int = 100) -> None:
        self.value: float = checked("value", value, FINITE)
        self.episodes: int = checked("episodes", episodes, RECENT_EPISODES)

    def on_update(self, agent: TRPO) -> bool:
        """False when the goal is reached."""
        returns = [value for value, _ in agent.recent_episodes][-self.episodes :]
        return len(returns) < self.episodes or sum(returns) / len(returns) < self.value


_keepers: WeakValueDictionary[Path, TRPO] = WeakValueDictionary()  # of a best model, the latest to train


class EvaluationCallback(Callback):
    """Evaluates the agent about every ``every`` timesteps and keeps the best model.

    ``results`` collects ``(num_timesteps, EvaluationResult)``; the model of the highest mean is saved at ``best_path``.
    ``env`` and ``max_steps`` are those of :meth:`TRPO.evaluate`: without ``env`` the training's environments are made
    again. One is made and closed when the training starts, so that what stands against it is said then. What an
    evaluation raises later is reported in a warning, as is a file that cannot be written; the training goes on.

    Without ``seed`` every evaluation has other episodes: their seed is drawn from the agent's and its number of
    updates, so that a resumed run evaluates as it would have. One that was interrupted is made up for when the training
    goes on. The file at ``best_path`` is written when all callbacks of the update have been called; it says its mean,
    and a resumed run keeps it until a better one comes. An agent that begins sets aside one that is there, as
    `RunLogger` does its log.
    """

    of_first_rank = True

    def __init__(
        self,
        every: int,
        *,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
        max_steps: int | None = None,
        best_path: str | Path | None = None,
    ) -> None:
        self.every: int = checked("every", every, POSITIVE_INTEGER)
        self.results: list[tuple[int, Any]] = []
        self._arguments: dict[str, Any] = {
            "episodes": checked("episodes", episodes, POSITIVE_INTEGER),
            "deterministic": deterministic,
            "seed": None if seed is None else checked("seed", seed, SEED),
            "env": env,
            "max_steps": None if max_steps is None else checked("max_steps", max_steps, POSITIVE_INTEGER),
        }
        self._recipe = None if env is None else EnvironmentRecipe(env)
        self._best_path = None if best_path is None else checked_path("best_path", best_path).absolute()
        self._refuse_folder()  # not hours in
        self._best = float("-inf")
        self._missing = False  # the folder of the best model, and a warning has said so
        self._due = 0  # in timesteps; in the past where an evaluation was interrupted
        self._resumed: State = {}

    def get_state(self) -> State:
        """When the next evaluation is due."""
        return {"every": self.every, "due": self._due}

    def set_state(self, state: State) -> None:
        """Go on with the plan of before, where `every` is the same."""
        self._resumed = state

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where an evaluation will not be possible, or the file at ``best_path`` is another training's."""
        self._refuse_folder()
        if self._best_path is not None:
            other = _keepers.get(self._best_path)
            if other is not None and other is not agent and self._is_kept_by(other):
                raise ValueError(
                    f"best_path: {self._best_path} is another agent's, which trains at this moment; want another path"
                )
            refuse_others([self._best_path], agent, "best_path", "another path, or the file removed")
            require_writable("best_path", self._best_path.parent)
        if agent.recipe is not None and agent.recipe.steps_in(self._arguments["env"]):
            raise ValueError(OWN_ENVIRONMENT)
        if self._recipe is not None:
            self._recipe.make_like(1, like=agent).close()
        elif agent.recipe is not None:
            agent.recipe.make_again(1, like=agent).close()

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first evaluation at the next multiple of ``every``; make up for one that was interrupted."""
        if self._best_path is not None:
            _keepers[self._best_path] = agent
            self._best_path.parent.mkdir(parents=True, exist_ok=True)
            if agent.total_timesteps:
                self._best = max(self._best, _evaluated_mean(self._best_path))
            elif self._best_path.exists() and _timesteps_of(self._best_path) > 0:
                aside = set_aside(self._best_path)
                warnings.warn(
                    f"{self._best_path} is the best of another training, this one begins: it is {aside.name} now",
                    stacklevel=2,
                )
        resumed, self._resumed = self._resumed, {}
        self._due = resumed["due"] if resumed.get("every") == self.every else self._after(agent)
        self.on_update(agent)

    def on_update(self, agent: TRPO) -> None:
        """Evaluate when due."""
        if agent.num_timesteps >= self._due:
            self._evaluate(agent)
            self._due = self._after(agent)  # also in the best model's file, which is written later

    def _is_kept_by(self, agent: TRPO) -> bool:
        assert self._best_path is not None
        callbacks = agent.callbacks_under_way
        if callbacks is None or not callbacks.is_in_place(self._best_path):  # its folder has another name now
            return False
        kept = (one._best_path for one in callbacks.callbacks if isinstance(one, EvaluationCallback))
        return self._best_path in kept

    def _refuse_folder(self) -> None:
        if self._best_path is not None and self._best_path.is_dir():
            raise ValueError(
                f"best_path: the folder {self._best_path} given; want the name of a file, e.g. best.trpo in it"
            )

    def _after(self, agent: TRPO) -> int:
        return (agent.num_timesteps // self.every + 1) * self.every

    def _evaluate(self, agent: TRPO) -> None:
        at = f"at {agent.num_timesteps:,} timesteps"
        seed = self._arguments["seed"]
        if seed is None:
            key = [agent.seed, _EVALUATIONS_STREAM, agent.num_updates]
            seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        try:
            result = agent.evaluate(**{**self._arguments, "seed": seed})
        except Exception as error:
            warnings.warn(f"the evaluation {at} failed: {error!r}; the training goes on", stacklevel=2)
            return
        self.results.append((agent.num_timesteps, result))
        if result.mean > self._best:
            self._best = result.mean
            callbacks = agent.callbacks_under_way
            if callbacks is None:
                self._save_best(agent, at, result.mean)
            else:
                callbacks.when_all_have_run(lambda: self._save_best(agent, at, result.mean))

    def _save_best(self, agent: TRPO, at: str, mean: float) -> None:
        if self._best_path is None:
            return
        if not _is_in_place(self._best_path, agent):
            if not self._missing:
                warnings.warn(
                    f"{self._best_path.parent} is not there any more, it was renamed or removed: the best model is not "
                    "written until it is back; the training goes on",
                    stacklevel=2,
                )
            self._missing = True
            return
        self._missing = False
        try:
            checkpoint.save(agent, self._best_path, evaluation={"mean": mean})
        except OSError as error:
            warnings.warn(f"the best model, {at}, was not written: {error}; the training goes on", stacklevel=2)


class ProgressBar(Callback):
    """A tqdm bar of timesteps with the return of recent episodes, the KL of the last update and steps per second."""

    of_first_rank = True

    def __init__(self) -> None:
        self._bar: Any = None

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Open the bar."""
        self._bar = tqdm(
            total=total_timesteps,
            initial=agent.num_timesteps,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def on_update(self, agent: TRPO) -> None:
        """Advance the bar; reads nothing of the critic, so it never waits for the fit."""
        assert agent.last_update is not None
        shown = {"return": f"{agent.episode_return_mean:.1f}", "kl": f"{agent.last_update.kl:.4f}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(agent.num_timesteps - self._bar.n)

    def on_training_end(self, agent: TRPO) -> None:
        """Close the bar, leaving its last state on the screen."""
        self._bar.close()
