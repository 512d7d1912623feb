"""A study: its file, and trials that any number of processes take from it, one each at a time.

The file is a sqlite database of Optuna's, made whole or not at all. Beside it lies ``FILE.lock``, never removed: its
first byte is locked by whoever looks at the trials in order to take one, and byte 1 + k by the `Study` that trial k is
of. The kernel drops these with the process, however that ends, so that a trial whose process was killed is seen by the
next one, which asks for it again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sqlite3
import struct
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias
from weakref import WeakSet

from numpy.random import SeedSequence

from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.presets import Preset, rendered
from trpo_fast.model_file import replace_file
from trpo_fast.tuning.space import Space, as_json, as_parameters, suggested
from trpo_fast.tuning.trial import Task, scored

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError as missing:
    raise ImportError("tuning needs optuna: pip install 'trpo-fast[tune]'") from missing

Trial: TypeAlias = FrozenTrial
State: TypeAlias = TrialState
NAME = "trpo-fast tune"
STARTUP_TRIALS = 5  # that end before any is pruned
WARM_UP = 0.25  # part of a training before which none is pruned
_WAIT = 100.0  # seconds for another process to finish writing

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Pruned(Exception):
    """A trial is behind the others."""


class StudyError(Exception):
    """The study's file cannot be read or written."""


@dataclass(frozen=True)
class Plan:
    """A study as it is asked for."""

    path: Path
    """Its file, as it was given."""
    place: Path
    """The same from the root on, as an environment may change the working folder."""
    task: Task
    space: Space
    base: Mapping[str, Any]
    """Settings that the first trial has: the defaults, or the environment's preset."""
    actions: str
    """The action space in words, for the preset."""
    prune: bool = True
    seed: int = 0

    def described(self) -> dict[str, Any]:
        """What has to be the same for trials to be compared, as JSON has it."""
        task = self.task
        wrappers = None if task.wrappers is None else list(task.wrappers)
        said = {
            "environment": {"id": task.env, "env_kwargs": dict(task.env_kwargs), "wrappers": wrappers},
            "timesteps": task.timesteps,
            "seeds": list(task.seeds),
            "eval_episodes": task.episodes,
            "search": as_json(self.space),
            "fixed": dict(task.fixed),
            "prune": self.prune,
        }
        found: dict[str, Any] = json.loads(json.dumps(said))
        return found


class Study:
    """The file, opened or made.

    Raises
    ------
    ValueError
        It is no study, or was made for something else; the message names what.
    StudyError
        The file cannot be read or written; so do all methods.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        if plan.place.exists():  # what is another's gets no file beside it
            _require_own(plan)
        with self._errors():
            self._locks = _Locks(plan.place)
        self._storage: Any = None
        try:
            with self._locks.alone():
                if not plan.place.exists():
                    with self._errors():
                        _make(plan)
                else:
                    _require_own(plan)  # another process may just have made it
            with self._errors():
                self._storage = _storage(plan.place)
                self._study = optuna.load_study(study_name=NAME, storage=self._storage, pruner=self._pruner())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go, and trials that are under way, which the next one asks for again."""
        if self._storage is not None:
            _dispose(self._storage)
        self._locks.close()

    def _errors(self) -> AbstractContextManager[None]:
        return _errors_of_the_file(self.plan.path)

    def _pruner(self) -> Any:
        if not self.plan.prune:
            return optuna.pruners.NopPruner()
        warm_up = int(WARM_UP * self.plan.task.timesteps)
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warm_up)

    def trials(self) -> list[Trial]:
        """Those that count: done, pruned, failed, or under way; what was interrupted is asked for again."""
        with self._errors():
            found: list[Trial] = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if trial.state != State.WAITING and not _is_interrupted(trial)]

    def finished(self) -> list[Trial]:
        """Those that have ended."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def best(self) -> Trial | None:
        """That of the highest score; None before one was trained to its end."""
        done = [trial for trial in self.finished() if trial.state == State.COMPLETE]
        return max(done, key=lambda trial: (trial.value, -trial.number), default=None)

    def claim(self, trials: int) -> Any:
        """A trial of one's own, if there are fewer than `trials` yet; else None."""
        with self._errors(), self._locks.alone():
            for trial in self._study.get_trials(deepcopy=False, states=(State.RUNNING,)):
                if not self._locks.is_taken(trial.number):  # its process was killed, or has just ended it
                    self._ask_again(trial.number)
            count = len(self.trials())
            if count >= trials:
                return None
            # By the trials before: a study that was killed goes on with those that it would have had.
            self._study.sampler = _sampler([self.plan.seed, count])
            asked = self._study.ask()
            self._locks.take(asked.number)
            return asked

    def carry_out(self, trial: Any) -> None:
        """Train and score one that was claimed; what it raises is the trial's failure, and noted, but for Ctrl-C."""
        began = time.perf_counter()
        try:
            with self._errors():
                settings = suggested(trial, self.plan.space)
                trial.set_user_attr("settings", {**settings, **self.plan.task.fixed})

            def report(timesteps: int, value: float) -> None:
                with self._errors():
                    trial.report(value, timesteps)
                    if trial.should_prune():
                        raise Pruned

            state, value, said = State.FAIL, None, dict[str, Any]()
            try:
                score = scored(self.plan.task, settings, report)
            except Pruned:
                state = State.PRUNED
            except StudyError:
                raise
            except Exception as error:
                said["reason"] = f"{type(error).__name__}: {error}"
            else:
                state, value = State.COMPLETE, score.value
                said["means"] = score.means
            said["seconds"] = round(time.perf_counter() - began, 3)
            with self._errors():
                for name, found in said.items():
                    trial.set_user_attr(name, found)
                self._study.tell(trial, value, state)
        except (KeyboardInterrupt, SystemExit):
            with suppress(StudyError), self._errors(), self._locks.alone():  # else the next one to claim does it
                self._ask_again(trial.number)
            raise
        finally:
            self._locks.release(trial.number)

    def _ask_again(self, number: int) -> None:
        """End one that was interrupted, and let the next one have its settings, if it had not failed before."""
        trial = self._study.get_trials(deepcopy=False)[number]
        if trial.state.is_finished():
            return
        self._study.tell(number, state=State.FAIL)
        if "reason" in trial.user_attrs:
            return
        parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if parameters:
            first = {"first": True} if _is_first(trial) else {}
            self._study.enqueue_trial(parameters, user_attrs=first)

    def preset(self) -> Preset | None:
        """The settings of the best trial, with their evidence; None before there is one."""
        best = self.best()
        if best is None:
            return None
        task, finished = self.plan.task, self.finished()
        counts = ", ".join(
            f"{sum(trial.state == state for trial in finished)} {word}"
            for state, word in ((State.COMPLETE, "trained to the end"), (State.PRUNED, "pruned"))
        )
        failed = sum(trial.state == State.FAIL for trial in finished)
        first = next((trial for trial in finished if _is_first(trial) and trial.state == State.COMPLETE), None)
        with_envs = f", --num-envs {task.fixed['num_envs']}" if "num_envs" in task.fixed else ""
        evidence = (
            f"trpo-fast tune, study {self.plan.path.name}: trial {best.number}, the best of {len(finished)} ({counts}, "
            f"{failed} failed){with_envs}; {task.timesteps:,} timesteps, {task.episodes} final deterministic episodes, "
            f"training seeds {', '.join(map(str, task.seeds))}: {_listed(best.user_attrs['means'])}"
        )
        if first is not None and first.number != best.number:
            evidence += f", where the settings that the study began with leave {_listed(first.user_attrs['means'])}"
        evidence += "; chosen on these seeds, and not yet confirmed on others"
        said = best.user_attrs["settings"]
        config = TRPOConfig(**said)  # which has tuples where JSON has lists
        settings = {name: getattr(config, name) for name in said if name != "num_envs"}
        return Preset(task.env.rpartition(":")[2], self.plan.actions, settings, evidence)

    def write_preset(self, path: Path, shown: Path) -> Preset | None:
        """Write the best settings for ``train --preset SHOWN``; None where there are none yet."""
        preset = self.preset()
        if preset is not None:
            replace_file(path, rendered(preset, self.train_command(shown)).encode())
        return preset

    def train_command(self, preset: Path) -> str:
        """What trains with a preset in the environments that the trials had."""
        task = self.plan.task
        words = ["trpo-fast", "train", task.env, "--preset", str(preset)]
        if task.env_kwargs:
            words += ["--env-kwargs", json.dumps(dict(task.env_kwargs))]
        for option, values in (("--wrapper", task.wrappers or ()), ("--import", task.imports)):
            words += [word for value in values for word in (option, value)]
        if "num_envs" in task.fixed:
            words += ["--num-envs", str(task.fixed["num_envs"])]
        return shlex.join(words)


def _is_interrupted(trial: Trial) -> bool:
    return trial.state == State.FAIL and "reason" not in trial.user_attrs


def _is_first(trial: Trial) -> bool:
    return bool(trial.user_attrs.get("first"))


def _listed(scores: Any) -> str:
    """Each with four digits, or all of those before the point."""
    return ", ".join(f"{score:,.0f}" if abs(score) >= 1_000 else f"{score:.4g}" for score in scores)


def _sampler(seed: list[int]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        number = int(SeedSequence(seed).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=number, multivariate=True, constant_liar=True)


def _storage(path: Path) -> Any:
    # A URL would be taken apart at characters that a path may have: the connection is made here.
    def connection() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_WAIT, check_same_thread=False)

    return optuna.storages.RDBStorage("sqlite:///study", engine_kwargs={"creator": connection})


def _dispose(storage: Any) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _make(plan: Plan) -> None:
    """Make the file, with what it is for and its first trial in it."""
    new = plan.place.with_name(f"{plan.place.name}.new")
    new.unlink(missing_ok=True)
    storage = _storage(new)
    try:
        study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
        study.set_user_attr("plan", plan.described())
        study.set_user_attr("versions", checkpoint.versions())
        study.enqueue_trial(as_parameters(plan.base, plan.space), user_attrs={"first": True})
    finally:
        _dispose(storage)
    os.replace(new, plan.place)


def _require_own(plan: Plan) -> None:
    """ValueError where the file is another's, which is only read."""
    path = plan.path
    query = "select key, value_json from study_user_attributes join studies using (study_id) where study_name = ?"
    try:
        with closing(sqlite3.connect(f"{plan.place.as_uri()}?mode=ro", uri=True, timeout=_WAIT)) as database:
            said = {key: json.loads(value) for key, value in database.execute(query, (NAME,))}
    except (sqlite3.Error, ValueError) as error:
        raise ValueError(f"study: {path} given, which is no study of trpo-fast tune ({error}); want one") from error
    if "plan" not in said:
        raise ValueError(f"study: {path} given, a database without a study of trpo-fast tune; want one, or a new file")
    before, now = _flat(said["plan"]), _flat(plan.described())
    differing = [
        f"{name} {before.get(name, 'left out')}, now {now.get(name, 'left out')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name, "left out") != now.get(name, "left out")
    ]
    if differing:
        raise ValueError(
            f"study: {path} given, which was made with {'; '.join(differing)}; want the same, or another file"
        )
    versions = checkpoint.versions()
    then = said.get("versions", versions)
    others = [
        f"{name} {then.get(name)}, now {versions.get(name)}" for name in versions if then.get(name) != versions[name]
    ]
    if others:
        warnings.warn(f"{path} began with {'; '.join(others)}: its trials are not quite alike", stacklevel=4)


def _flat(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in described.items():
        if isinstance(value, dict) and (value or not prefix):
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@contextmanager
def _errors_of_the_file(path: Path) -> Iterator[None]:
    try:
        yield
    except (Pruned, StudyError, ImportError):
        raise
    except Exception as error:  # of sqlite, SQLAlchemy or Optuna
        raise StudyError(
            f"study: {path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


class _Locks:
    """Locks on bytes of a file beside the study's, which has no other use: of this object, until it is closed.

    Those of fcntl(2) on an open file description: the kernel's others are a process's, for which two objects in it are
    one. A child that is forked closes the handle that it inherits.
    """

    _open: ClassVar[WeakSet[_Locks]] = WeakSet()

    def __init__(self, path: Path) -> None:
        if not sys.platform.startswith("linux"):
            raise StudyError(f"study: a system of {sys.platform} given, whose locks differ; want Linux")
        self._file = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
        self._own = set[int]()
        self._open.add(self)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else looks at the trials."""
        self._set(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, 0)
        try:
            yield
        finally:
            self._set(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0)

    def take(self, number: int) -> None:
        self._set(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 1 + number)
        self._own.add(number)

    def release(self, number: int) -> None:
        self._own.discard(number)
        self._set(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 1 + number)

    def is_taken(self, number: int) -> bool:
        """Whether a living one has it, this one included."""
        if number in self._own:
            return True
        try:
            self._set(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 1 + number)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return True
        self.release(number)
        return False

    def close(self) -> None:
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def _set(self, how: int, kind: int, byte: int) -> None:
        fcntl.fcntl(self._file, how, struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0))  # a struct flock


def _leave_to_parent() -> None:
    for locks in _Locks._open:
        locks.close()


os.register_at_fork(after_in_child=_leave_to_parent)
