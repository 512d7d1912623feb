"""A Gymnasium VectorEnv, of any make, as `Environments`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from trpo_fast.environments.base import Environments, StepResult


class VectorAdapter(Environments):
    """What collecting and evaluation see of a gymnasium VectorEnv.

    Masks come from a method ``action_masks`` of the VectorEnv or of the environments in it, else from
    ``info["action_mask"]``; the first reset decides.

    Parameters
    ----------
    env : VectorEnv
        Its ``metadata["autoreset_mode"]`` must be SAME_STEP or NEXT_STEP.
    again : callable, optional
        Makes another VectorEnv of the same kind and mode; called where worker processes have become useless.
    owned : bool
        Whether `close` closes it: what a user handed in, a user closes.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        again: Callable[[], VectorEnv[Any, Any, Any]] | None = None,
        owned: bool = True,
    ) -> None:
        super().__init__(env.single_observation_space, env.single_action_space, env.num_envs, _autoreset_mode(env))
        self._observations_wanted = (self.num_envs, *(self.observation_space.shape or ()))
        self._actions_as_env = (self.num_envs, *(self.action_space.shape or ())), self.action_space.dtype
        self._mask_source: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None
        self._steps = 0  # since the reset, for errors
        self._env = env
        self._again = again
        self._owned = owned
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._in_call = False  # still true after a call that an exception, Ctrl-C for example, left unfinished

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copies get different generators from one `seed`.

        Worker processes that were left in the middle of a step or reset are replaced by new ones, as requests or
        answers may be lost; RuntimeError where nobody knows how to make them.
        """
        if self._in_call and self._has_workers():
            self._replace()
        self._in_call = True
        observations, infos = self._env.reset(seed=seed)
        if self._mask_format is not None and self._mask_source is None:
            self._mask_source = self._find_masks(infos)
        masks = None if self._mask_source is None else self._mask_source(infos)
        self._in_call = False
        self._steps = 0
        if masks is not None:
            self._take_masks(*masks, None)
        return self._flat(observations, "reset")

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every copy; see :class:`Environments`."""
        shape, dtype = self._actions_as_env
        actions = actions.reshape(shape).astype(dtype, copy=False)
        self._in_call = True
        observations, rewards, terminated, truncated, infos = self._env.step(actions)
        masks = None if self._mask_source is None else self._mask_source(infos)
        self._in_call = False
        self._steps += 1
        if masks is not None:
            self._take_masks(*masks, None if self._same_step else np.logical_or(terminated, truncated))
        elif "action_mask" in infos and self._mask_format is not None:
            raise ValueError(
                "info['action_mask'] came with a step, but with no reset before it, so that the first actions went "
                "unmasked; want it in the info of reset, too"
            )
        final = None
        if self._same_step and np.any(truncated):
            cut = np.logical_and(truncated, np.logical_not(terminated))
            final = self._final_observations(np.flatnonzero(cut), infos)
        return StepResult(
            self._flat(observations, "step"),
            np.asarray(rewards, np.float64),
            np.asarray(terminated, np.bool_),
            np.asarray(truncated, np.bool_),
            final,
        )

    def close(self) -> None:
        """Close the environments, unless a user handed them in.

        Worker processes that do not answer within a second are ended; those in the middle of a call at once.
        """
        if self._owned:
            self._close()

    def _close(self) -> None:
        if self._has_workers():
            self._env.close(timeout=1.0, terminate=self._in_call)
        else:
            self._env.close()

    def _replace(self) -> None:
        if self._again is None:
            raise RuntimeError(
                f"env: a step or reset of {type(self._env).__name__} was interrupted, so that its worker processes "
                "cannot be used any more, and nothing says how to make new ones"
            )
        self._close()
        self._env = self._again()
        self._owned, self._mask_source = True, None

    def _has_workers(self) -> bool:
        return isinstance(self._env.unwrapped, AsyncVectorEnv)

    def _flat(self, observations: Any, call: str) -> NDArray[Any]:
        if not self._layout.is_plain:
            rows = np.empty((self.num_envs, self.observation_size), self.observation_dtype)
            self._layout.flatten(observations, self.num_envs, rows, call)
            return rows
        wanted, shape = self._observations_wanted, np.shape(observations)
        if shape != wanted:
            raise ValueError(f"observations must have shape {wanted}, as their space says; {call} returned {shape}")
        array = np.asarray(observations)
        self._layout.parts[0].check_kind(array.dtype, "observations", call)
        return np.ascontiguousarray(array, self.observation_dtype).reshape(self.num_envs, self.observation_size)

    def _find_masks(self, infos: dict[str, Any]) -> Callable[[dict[str, Any]], tuple[Any, Any]] | None:
        """Where masks come from: a function of the infos to (one mask for each environment, who has one or None)."""
        owner: Any = self._env
        while not callable(getattr(owner, "action_masks", None)) and owner is not self._env.unwrapped:
            owner = owner.env
        if callable(getattr(owner, "action_masks", None)):
            return lambda _: (owner.action_masks(), None)
        if isinstance(owner, SyncVectorEnv | AsyncVectorEnv):
            have = owner.call("has_wrapper_attr", "action_masks")
            if all(have):
                return self._call_masks
            if any(have):
                raise ValueError(f"action_masks: environment {have.index(False)} has no such method, others have")
        if "action_mask" in infos:
            nothing = [None] * self.num_envs
            return lambda infos: (infos.get("action_mask", nothing), infos.get("_action_mask"))
        return None

    def _call_masks(self, _: dict[str, Any]) -> tuple[Any, None]:
        vector: Any = self._env.unwrapped
        return vector.call("action_masks"), None

    def _take_masks(self, masks: Any, present: Any, ended: NDArray[np.bool_] | None) -> None:
        if not hasattr(masks, "__len__") or len(masks) != self.num_envs:
            given = f"{len(masks)} masks" if hasattr(masks, "__len__") else repr(masks)
            raise ValueError(f"action_masks: {given} given; want one for each of {self.num_envs} environments")
        if ended is not None and ended.any():  # a finished game may well allow nothing
            present = np.logical_not(ended) if present is None else np.logical_and(present, np.logical_not(ended))
        assert self._mask_format is not None
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


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    declared = env.metadata.get("autoreset_mode")
    try:
        mode = AutoresetMode(declared)
    except ValueError:
        raise ValueError(
            f"env: metadata['autoreset_mode'] of {type(env).__name__} must be AutoresetMode.SAME_STEP or NEXT_STEP, "
            f"got {declared!r}"
        ) from None
    if mode is AutoresetMode.DISABLED:
        raise ValueError(
            f"env: autoreset mode DISABLED of {type(env).__name__} is not supported; make it with "
            "AutoresetMode.SAME_STEP or NEXT_STEP"
        )
    return mode
