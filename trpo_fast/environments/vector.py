"""A Gymnasium VectorEnv, of any make, as `Environments`."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from types import SimpleNamespace
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray

from trpo_fast.environments import exact, foreign
from trpo_fast.environments.base import Environments, StepResult
from trpo_fast.environments.checks import late_mask, require_same_spaces
from trpo_fast.environments.closing import close_each, warn_of_failed_closes
from trpo_fast.environments.infos import column_of
from trpo_fast.environments.masks import without_mask
from trpo_fast.environments.worker_process import PATIENCE, WorkerError, how_it_ended
from trpo_fast.environments.wrappers import wrappings_of
from trpo_fast.gymnasium_spaces import action_structure
from trpo_fast.spaces import MASK_KEY, each_of
from trpo_fast.state import State

_FLOAT, _BOOL = np.dtype(np.float64), np.dtype(np.bool_)

# Vector environments that an exception, Ctrl-C for example, left in the middle of a call, or whose worker processes
# have ended, by their ids. A user's may be adapted again: by an evaluation, by another agent, after `close`.
_UNFINISHED: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

# Who reset a vector environment last, by its id; nobody where that one is gone. A user's may have several adapters.
_BEGUN: weakref.WeakValueDictionary[int, VectorAdapter] = weakref.WeakValueDictionary()


class VectorAdapter(Environments):
    """What collecting and evaluation see of a gymnasium VectorEnv, or of what `foreign` translates into one.

    Masks come from a method ``action_masks`` of the VectorEnv or of the environments in it, else from the observation
    where its mask is left out, else from ``info["action_mask"]``; the first reset decides.

    A VectorEnv that cannot be gone on with, since a call was left in the middle or a worker process has ended, is
    replaced by new environments; what a user handed in stays open where its workers live, which a UserWarning says.

    Parameters
    ----------
    env : VectorEnv
        Its autoreset mode must be SAME_STEP or NEXT_STEP.
    again : callable, optional
        Makes another VectorEnv of so many copies, of the same kind and mode; called where this one is replaced.
    owned : bool
        Whether `close` closes it: what a user handed in, a user closes.
    obeys_masks : bool
        As of :class:`Environments`.

    Raises
    ------
    RuntimeError
        It has to be replaced, and nobody knows how to make new ones.
    ValueError
        New ones have become others.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        again: Callable[[int], VectorEnv[Any, Any, Any]] | None = None,
        owned: bool = True,
        obeys_masks: bool = False,
    ) -> None:
        name = type(env).__name__
        env = foreign.translated(env)
        _require_different_copies(env, name)
        mode = foreign.autoreset_mode(env)
        spaces = env.single_observation_space, env.single_action_space
        super().__init__(*spaces, env.num_envs, mode, obeys_masks=obeys_masks)
        self._one_each = (self.num_envs,)
        self._observations_wanted = (self.num_envs, *(self.observation_space.shape or ()))
        self._observations_are_rows = len(self._observations_wanted) == 2
        self._dtype: np.dtype[Any] | None = None  # of the observations, once one has been looked at
        self._actions_as_env = (self.num_envs, *(self.action_space.shape or ())), self.action_space.dtype
        structure = action_structure(self.action_space)
        self._structure = structure if structure.is_nested else None
        self._name = name
        self._mask_source: Callable[[Any, dict[str, Any]], tuple[Any, Any]] | None = None
        self._steps = 0  # since the reset, for errors
        self._infos = np.empty((self.num_envs, 0))
        self._kinds: dict[str, set[bool]] = {}  # of infos by name: whether they were floats
        self._env = env
        self._again = again
        self._owned = owned
        self._not_kept: str | None = None  # what no file can have, once that has been seen
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        inner = env.unwrapped
        if isinstance(inner, AsyncVectorEnv) and not inner.shared_memory and not self._same_step:
            warnings.warn(
                f"env: {name} without shared memory does not forget in reset() that an episode has just ended: the "
                "first step after it resets that copy once more, so that an evaluation depends on the one before; want "
                "shared_memory=True or AutoresetMode.SAME_STEP",
                stacklevel=2,
            )
        exact.watch(env)
        self._replace_if_unusable()
        try:
            self.wrappings = wrappings_of(self._env)
        except BaseException as error:
            self._leave_unfinished(error)
            self.close()
            raise

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copies get different generators from one `seed`.

        Where a step or reset was left in the middle, and requests or answers of worker processes or threads may be
        lost or waiting, and where worker processes have ended, all is replaced by new environments; errors are those
        of the constructor.
        """
        self._replace_if_unusable()
        _BEGUN[id(self._env.unwrapped)] = self  # also where it fails halfway
        try:
            observations, infos = self._env.reset(seed=seed)
            self._env, observations, infos = foreign.in_arrays(self._env, observations, infos)
            self._require_infos(infos)
            if self._mask_format is not None and self._mask_source is None:
                self._mask_source = self._find_masks(infos)
            masks = None if self._mask_source is None else self._mask_source(observations, infos)
        except BaseException as error:
            self._leave_unfinished(error)
            raise
        _UNFINISHED.pop(id(self._env.unwrapped), None)
        self._steps = 0
        if masks is not None:
            self._take_masks(*masks, None)
        return self._flat(observations, "reset")

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every copy; see :class:`Environments`."""
        shape, dtype = self._actions_as_env
        given: Any = actions
        if self._structure is not None:
            given = self._structure.batch(actions)
        elif actions.dtype is not dtype or actions.shape != shape:
            given = actions.reshape(shape).astype(dtype, copy=False)
        try:
            observations, rewards, terminated, truncated, infos = self._env.step(given)
            self._require_infos(infos)
            masks = None if self._mask_source is None else self._mask_source(observations, infos)
        except BaseException as error:
            self._leave_unfinished(error)
            if isinstance(error, Exception):
                error.add_note(f"{self._name}, step {self._steps + 1} after the reset")
            raise
        self._steps += 1
        if not self._usual(rewards, terminated, truncated):
            rewards = self._one_for_each(rewards, "rewards", _FLOAT)
            terminated = self._one_for_each(terminated, "terminated", _BOOL)
            truncated = self._one_for_each(truncated, "truncated", _BOOL)
        if masks is not None:
            self._take_masks(*masks, None if self._same_step else terminated | truncated)
        elif "action_mask" in infos and self._mask_format is not None:
            raise late_mask()
        if self.asked:
            self._take_infos(infos, terminated | truncated)
        final = None
        if self._same_step and np.count_nonzero(truncated):
            final = self._final_observations(np.flatnonzero(truncated & ~terminated), infos)
        return StepResult(self._flat(observations, "step"), rewards, terminated, truncated, final)

    def _require_infos(self, infos: Any) -> None:
        """ValueError where they are no dict, as of the wrapper DictInfoToList."""
        if not isinstance(infos, Mapping):
            raise ValueError(
                f"infos of {self._name}: {type(infos).__name__} given; want a dict of arrays, an item for each "
                "environment, as Gymnasium's vector environments have without DictInfoToList"
            )

    def _look_for_cut_numbers(self, infos: Any, name: str) -> None:
        """Warn once where numbers of one name are floats in some steps and integers in others."""
        values = infos.get(name)
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            kinds = self._kinds.setdefault(name, set())
            before = len(kinds)
            kinds.add(values.dtype.kind == "f")
            if before < len(kinds) == 2:
                warnings.warn(
                    f"env: infos of {self._name} have {name!r} in integers in some steps and in floats in others: "
                    "Gymnasium gathers them in the dtype of the first copy that has one, which cuts the floats of the "
                    "others to integers; want a float in every info",
                    stacklevel=2,
                )

    def _take_infos(self, infos: Any, ended: NDArray[np.bool_]) -> None:
        self._infos = np.empty((self.num_envs, len(self.asked)))
        for k, name in enumerate(self.asked):
            self._look_for_cut_numbers(infos, name)
            column = column_of(infos, name, self.num_envs)
            if self._same_step and ended.any():  # what stands there is of the next episode's start
                column[ended] = column_of(infos.get("final_info"), name, self.num_envs)[ended]
            self._infos[:, k] = column

    @property
    def infos(self) -> NDArray[np.float64]:
        """See :class:`Environments`."""
        return self._infos

    @property
    def inexact(self) -> str | None:
        """Why the vector environment cannot be put back to the bit."""
        if self._has_workers():
            return f"the copies of {self._name} are in other processes, which tell nothing of their state"
        if foreign.is_translated(self._env):
            return f"nothing is known of the state of {self._name}"
        return self._not_kept or exact.reason_against(self._env)

    def get_state(self) -> State | None:
        """State of the vector environment; see :class:`Environments`."""
        masks = self.action_masks
        try:
            vector = exact.get_state(self._env, self._name)
        except exact.NotKept as error:
            self._not_kept = str(error)
            return None
        return {
            "vector": vector,
            "masks": None if masks is None else masks.copy(),
            "has_masks": self._mask_source is not None,
            "steps": self._steps,
        }

    def set_state(self, state: State, observations: NDArray[Any]) -> None:
        """Put the vector environment back; see :class:`Environments`."""
        self._replace_if_unusable()
        _BEGUN[id(self._env.unwrapped)] = self  # also where it fails halfway
        try:
            if "copies" in state:
                raise ValueError(
                    "saved of copies that were made one by one (vectorization='sync', 'workers' or 'async'); this is "
                    f"one vector environment, {self._name}"
                )
            vector, masks, has_masks, steps = (state[name] for name in ("vector", "masks", "has_masks", "steps"))
            exact.set_state(self._env, vector, self._name)
            self._steps = int(steps)
            if self._mask_format is not None and has_masks:
                if self._mask_source is None:
                    self._mask_source = self._find_masks({"action_mask": None})
                self.action_masks = None
                if masks is not None:
                    self._take_masks(masks, None, None)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a vector environment: {error!r}") from error
        _UNFINISHED.pop(id(self._env.unwrapped), None)

    @property
    def begun_by_others(self) -> bool:
        """Whether another adapter, of another agent or an evaluation, has reset the vector environment since."""
        return _BEGUN.get(id(self._env.unwrapped)) is not self

    @property
    def has_ended(self) -> bool:
        """Whether a worker process of the vector environment, which nobody has closed, is gone."""
        inner: Any = self._env.unwrapped
        return self._has_workers() and not inner.closed and _any_gone(inner.processes)

    def close(self) -> None:
        """Close the environments, unless a user handed them in; a UserWarning names copies that raise.

        Worker processes that do not answer within a second are ended; those in the middle of a call at once.
        """
        if self._owned:
            self._close()

    def _close(self) -> None:
        inner: Any = self._env.unwrapped
        said: list[str] = []
        arguments: dict[str, Any] = {}
        if type(inner) is SyncVectorEnv and not inner.closed:  # it stops at the first copy that raises
            said = close_each(inner.envs)
            inner.closed = True
        elif self._has_workers():
            unfinished = self._is_unfinished() or self.has_ended
            if unfinished:
                inner._state = AsyncState.DEFAULT  # or it waits for an answer, which a dead worker does not give
            arguments = {"timeout": 1.0, "terminate": unfinished}
        try:
            self._env.close(**arguments)
        except Exception as error:
            said.append(f"{self._name} raised {error!r} when it was closed")
        warn_of_failed_closes(said)

    def _leave_unfinished(self, error: BaseException) -> None:
        """Note that a call ended in `error`; WorkerError where that is what remains of an AsyncVectorEnv's process."""
        if isinstance(error, ClosedEnvironmentError):  # a user has closed it, and no call was begun
            return
        self._mark_unfinished()
        if not (self._has_workers() and isinstance(error, EOFError | ConnectionError)):
            return
        inner: Any = self._env.unwrapped
        for index, process in enumerate(inner.processes):
            process.join(PATIENCE / 2)
            if process.exitcode is not None:
                whose = f"worker {index} of {self._name} (process {process.pid}, copy {index})"
                raise WorkerError(f"{whose} {how_it_ended(process.exitcode)}") from error

    def _is_unfinished(self) -> bool:
        return _UNFINISHED.get(id(self._env.unwrapped)) is self._env.unwrapped

    def _mark_unfinished(self) -> None:
        with contextlib.suppress(TypeError):  # of what takes no weak references
            _UNFINISHED[id(self._env.unwrapped)] = self._env.unwrapped

    def _replace_if_unusable(self) -> None:
        inner: Any = self._env.unwrapped
        unfinished = self._is_unfinished() and foreign.leaves_answers(self._env)
        if not (unfinished or self.has_ended):
            return
        # A terminal's Ctrl-C goes to the workers, too, which may be about to end.
        gone = self._has_workers() and _any_gone(inner.processes, within=PATIENCE / 2)
        if self._again is None:
            what = f"worker processes of {self._name} have ended"
            if not gone:
                what = (
                    f"a step or reset of {self._name} was interrupted, so that its worker processes or threads cannot "
                    "be used any more"
                )
            raise RuntimeError(f"env: {what}, and nothing says how to make new ones")
        self._mark_unfinished()
        if self._owned or gone:  # whose own `close` would wait for them
            self._close()
        made = foreign.translated(self._again(self.num_envs))
        try:
            observed = made.single_observation_space
            if self.mask_left_out:
                observed, _ = without_mask(observed, made.single_action_space)
            spaces = SimpleNamespace(observation_space=observed, action_space=made.single_action_space)
            require_same_spaces(spaces, self, whose=f"env {self._name}", wanted_by="as at first")
        except BaseException:
            made.close()
            raise
        exact.watch(made)
        if not self._owned:
            left = "workers of it have ended, and it is closed" if gone else "it stays open, for you to close"
            warnings.warn(
                f"env: the {self._name} given was interrupted, so that it cannot be gone on with: {left}; new "
                "environments like it take its place here",
                stacklevel=3,
            )
        self._env = made
        self._owned, self._mask_source = True, None

    def _has_workers(self) -> bool:
        return isinstance(self._env.unwrapped, AsyncVectorEnv)

    def _flat(self, observations: Any, call: str) -> NDArray[Any]:
        if not self._layout.is_plain:
            rows = np.empty((self.num_envs, self.observation_size), self.observation_dtype)
            self._layout.flatten(observations, self.num_envs, rows, call)
            return rows
        wanted = self._observations_wanted
        if type(observations) is not np.ndarray:
            observations = np.asarray(observations)
        if observations.shape != wanted:
            raise ValueError(
                f"observations: shape {observations.shape} returned by {call}; want {wanted}, as their space says"
            )
        if observations.dtype is not self._dtype:
            self._layout.parts[0].check_kind(observations.dtype, "observations", call)
            self._dtype = observations.dtype
        array = np.ascontiguousarray(observations, self.observation_dtype)
        return array if self._observations_are_rows else array.reshape(self.num_envs, self.observation_size)

    def _usual(self, rewards: Any, terminated: Any, truncated: Any) -> bool:
        """Whether all are arrays of the shape and the dtypes that are wanted, and lie in one piece."""
        return bool(
            type(rewards) is type(terminated) is type(truncated) is np.ndarray
            and rewards.shape == terminated.shape == truncated.shape == self._one_each
            and rewards.dtype is _FLOAT
            and terminated.dtype is _BOOL
            and truncated.dtype is _BOOL
            and rewards.flags.c_contiguous
            and terminated.flags.c_contiguous
            and truncated.flags.c_contiguous
        )

    def _one_for_each(self, values: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        array = values if type(values) is np.ndarray else np.asarray(values)
        if array.shape != self._one_each:
            hint = "; several objectives have to become one" if array.ndim == 2 and array.shape[1] > 1 else ""
            raise ValueError(
                f"{name}: shape {array.shape} returned by step; want {self._one_each}, one for each environment{hint}"
            )
        return np.ascontiguousarray(array, dtype)

    def _find_masks(self, infos: dict[str, Any]) -> Callable[[Any, dict[str, Any]], tuple[Any, Any]] | None:
        """Where masks come from: a function of observations and infos to (masks of all, who has one or None)."""
        owner: Any = self._env
        while not callable(getattr(owner, "action_masks", None)) and owner is not self._env.unwrapped:
            owner = owner.env
        if callable(getattr(owner, "action_masks", None)):
            return lambda *_: (owner.action_masks(), None)
        if isinstance(owner, SyncVectorEnv | AsyncVectorEnv):
            have = owner.call("has_wrapper_attr", "action_masks")
            if all(have):
                return self._call_masks
            if any(have):
                raise ValueError(f"action_masks: environment {have.index(False)} has no such method, others have")
        if self.mask_left_out:
            return self._masks_in_observations
        if "action_mask" in infos:
            nothing = [None] * self.num_envs
            return lambda _, infos: (infos.get("action_mask", nothing), infos.get("_action_mask"))
        return None

    def _masks_in_observations(self, observations: Any, _: Any) -> tuple[Any, None]:
        try:
            return each_of(observations[MASK_KEY]), None
        except LookupError:
            raise ValueError(f"observations of {self._name} lack {MASK_KEY!r}, which their space has") from None

    def _call_masks(self, *_: Any) -> tuple[Any, None]:
        vector: Any = self._env.unwrapped
        return vector.call("action_masks"), None

    def _take_masks(self, masks: Any, present: Any, ended: NDArray[np.bool_] | None) -> None:
        assert self._mask_format is not None
        masks = self._mask_format.apart(masks, self.num_envs)
        if not hasattr(masks, "__len__") or len(masks) != self.num_envs:
            given = f"{len(masks)} masks" if hasattr(masks, "__len__") else repr(masks)
            raise ValueError(f"action_masks: {given} given; want one for each of {self.num_envs} environments")
        if ended is not None and ended.any():  # a finished game may well allow nothing
            present = np.logical_not(ended) if present is None else np.logical_and(present, np.logical_not(ended))
        self.action_masks = self._mask_format.rows(
            masks, present, name="environment", when=f" at step {self._steps} after the reset"
        )

    def _final_observations(
        self, indices: NDArray[np.int64], infos: dict[str, Any]
    ) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        if not len(indices):
            return None
        final: Any = infos.get("final_obs")
        present = np.asarray(infos.get("_final_obs", np.full(self.num_envs, final is not None)))
        if not present[indices].all():
            raise ValueError(
                f"environment {indices[~present[indices]][0]} was truncated without a final observation: in autoreset "
                "mode SAME_STEP it belongs in infos['final_obs'], where infos['_final_obs'] marks who has one"
            )
        return self._layout.flatten_some(final, indices), indices


def _any_gone(processes: Sequence[Any], *, within: float = 0.0) -> bool:
    """Whether one of the processes has ended, or does so in so many seconds."""
    about_to = wait([process.sentinel for process in processes], within)  # before the system has its exit code
    return bool(about_to) or any(process.exitcode is not None for process in processes)


def _require_different_copies(env: VectorEnv[Any, Any, Any], name: str) -> None:
    """ValueError where a SyncVectorEnv steps one environment several times."""
    inner: Any = env.unwrapped
    copies = [one.unwrapped for one in inner.envs] if isinstance(inner, SyncVectorEnv) else []
    if len({id(one) for one in copies}) < len(copies):
        raise ValueError(
            f"env: {name} holds the same {type(copies[0]).__name__} twice; want functions that make a new environment "
            "at every call"
        )
