"""The events of a training, the callbacks that hear of them, and a list of these that is one."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trpo_fast._core.library import in_words
from trpo_fast.algorithm.run_files import unwritable
from trpo_fast.folder_lock import FolderInUse, FolderLock
from trpo_fast.state import State, copied

if TYPE_CHECKING:
    from trpo_fast.algorithm.evaluation import EvaluationResult
    from trpo_fast.algorithm.trpo import TRPO
    from trpo_fast.rollout.rollout import Rollout


class Callback:
    """Base of callbacks; override what is needed.

    The events, in the order of a training (docs/callbacks.md):

    `check_training_start`, `on_training_start`, then for every update `on_rollout_end` and `on_update`, of an
    :class:`EvaluationCallback` `on_evaluation` and `on_new_best`, and `on_training_end`.

    At every call but `on_rollout_end` the agent is between two updates. ``agent.critic``, ``agent.save`` and the
    critic's part of ``agent.last_update`` first wait for the critic's fit; the policy's part does not, so a callback
    that reads only that leaves the fit hidden beside the next rollout.

    What equals False, of NumPy or torch as well, ends the training, where an event says so; None does not.
    """

    runs_last = False
    """Whether it is called after those of a list that do not say so, whatever their order."""

    runs_behind = False
    """Whether it is called after those of a list that do not say so, and before those that run last: it writes what
    the others have recorded."""

    of_first_rank = False
    """Whether, of several ranks, the first one alone calls it, as it writes or prints; what ends the training on one
    ends it on all."""

    infos: Sequence[str] = ()
    """Names of what the environments' infos are asked for, "is_success" for example: numbers, in `Rollout.infos`.
    Looked at when a training starts; of several ranks those that callbacks of the first one ask for."""

    @property
    def run_folder(self) -> Path | None:
        """A folder that is this training's alone while it lasts, if there is one; made and locked before the start.

        ValueError where another training has it.
        """
        return None

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Raise what stands against the training, and change nothing; of all callbacks before the first starts."""

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> Any:
        """Before the first rollout; ``total_timesteps`` is the count at which training ends. False: it ends now."""

    def on_rollout_end(self, agent: TRPO, rollout: Rollout) -> None:
        """After a rollout, and before the update that is made of it.

        This is inside of the update: what is raised here undoes it, and the episodes of the rollout with it, and
        ``agent.save`` is refused. ``agent`` has the policy that acted. The rollout's arrays, ``rewards`` and the rest,
        are those that the update is computed from, and are read-only here: `advantages=` of :class:`TRPO` is for what
        is to be learned otherwise. They are overwritten by the second rollout from now. Of several ranks it has the
        steps of all.
        """

    def on_update(self, agent: TRPO) -> Any:
        """After an update; False ends the training.

        Everything of the agent may be changed that can be changed between two calls of ``learn``: the parameters of its
        networks, for example, on all ranks alike.

        ``agent.episode_return_mean`` is NaN before an episode has ended, and ``nan < goal`` is False: to end at a goal,
        take :class:`StopAtReturn`.
        """
        return None

    def on_evaluation(self, agent: TRPO, result: EvaluationResult) -> Any:
        """After an evaluation by an :class:`EvaluationCallback`, of several ranks on the first; False ends it all.

        Of one before the first update, once all callbacks have started.
        """

    def on_new_best(self, agent: TRPO, result: EvaluationResult) -> Any:
        """After `on_evaluation` of all callbacks, where the mean is the highest so far; False ends the training.

        The file at ``best_path`` is written when all callbacks of the update have been called.
        """

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
    those that run behind the others (:class:`RunLogger`) or last (:class:`CheckpointCallback`).
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
        self._early: list[Callable[[Callback], Any]] | None = None  # events of the start, for when all have started
        for callback in map(as_callback, callbacks):
            if isinstance(callback.infos, str) or not isinstance(callback.infos, Sequence):
                example = [callback.infos] if isinstance(callback.infos, str) else ["is_success"]
                raise TypeError(f"infos: {in_words(callback.infos)} given; want a sequence of names, {example} e.g.")
            self.callbacks += callback.callbacks if isinstance(callback, CallbackList) else [callback]
        if not first_rank:
            self.callbacks = [callback for callback in self.callbacks if not callback.of_first_rank]
        self.callbacks.sort(key=lambda callback: (callback.runs_last, callback.runs_behind))

        names = (name for callback in self.callbacks for name in callback.infos)
        self.infos = tuple(dict.fromkeys(names))

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Call each in order."""
        for callback in self.callbacks:
            callback.check_training_start(agent, total_timesteps)

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> bool:
        """Take their folders, ask each what stands against it, then start each in order."""
        self._started, self._locks, self._early = [], {}, []
        with ExitStack() as folders:
            for folder in dict.fromkeys(callback.run_folder for callback in self.callbacks):
                if folder is not None:
                    self._locks[folder] = folders.enter_context(_taken(folder, agent))
            self.check_training_start(agent, total_timesteps)
            self._folders = folders.pop_all()
        ends = False
        for callback in self.callbacks:
            ends |= _ends_training(callback.on_training_start(agent, total_timesteps))
            self._started.append(callback)
        early, self._early = self._early, None
        for event in early:
            ends |= not self._tell(event)
        self._states, self._spoilt = {}, set()
        for name, callback in self._named():  # what no file can have is not found out at the first one
            self._states[name] = _state_of(name, callback)
        self._run_what_waits()
        return not ends

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

    def on_rollout_end(self, agent: TRPO, rollout: Rollout) -> None:
        """Call each in order."""
        for callback in self.callbacks:
            callback.on_rollout_end(agent, rollout)

    def on_update(self, agent: TRPO) -> bool:
        """Call each in order."""
        goes_on = self._tell(lambda callback: callback.on_update(agent))
        self._run_what_waits()
        return goes_on

    def on_evaluation(self, agent: TRPO, result: EvaluationResult) -> bool:
        """Call each in order, once all have started."""
        return self._tell(lambda callback: callback.on_evaluation(agent, result))

    def on_new_best(self, agent: TRPO, result: EvaluationResult) -> bool:
        """Call each in order, once all have started."""
        return self._tell(lambda callback: callback.on_new_best(agent, result))

    def _tell(self, event: Callable[[Callback], Any]) -> bool:
        if self._early is not None:
            self._early.append(event)
            return True
        return not any([_ends_training(event(callback)) for callback in self.callbacks])  # a list, so that all run

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
            raise unwritable("folder", folder, error) from error
        try:
            yield lock
        finally:
            lock.release()
    except BaseException:
        with suppress(OSError):  # those that are empty
            for path in missing:
                path.rmdir()
        raise


def is_in_place(path: Path, agent: TRPO) -> bool:
    """Whether the folders that the agent's training has taken, and `path` lies in, still have their names."""
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
    if isinstance(callback, type):
        raise TypeError(
            f"callback: the class {callback.__name__} given; want one that is made, {callback.__name__}(...)"
        )
    if callable(callback):
        return _FunctionCallback(callback)
    raise TypeError(
        f"callback: {in_words(callback)} given; want a Callback, a function of the agent, a sequence of these, or None"
    )
