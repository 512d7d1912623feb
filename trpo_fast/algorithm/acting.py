"""A policy acting on rows of raw observations outside training: prediction and evaluation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from trpo_fast.gymnasium_spaces import action_layout, action_structure
from trpo_fast.normalizers import ObservationNormalizer
from trpo_fast.recurrence import begin_at


class AgentActor:
    """The current policy with the frozen observation statistics, and the arrays that acting writes into.

    Parameters
    ----------
    engine : NativeEngine or AutogradEngine
        Owner of the policy; parameters are read at every call.
    action_map : str
        How the policy's actions become those of a Box.
    normalizer : ObservationNormalizer or None
        Read at every call, never updated.
    seed, stream : int
        Key of the noise; it is further keyed by the step given to :meth:`act` and by the row.
    narrow : bool
        Act with vectors of at most 256 bits, see `Environments.narrow_acting`.

    Attributes
    ----------
    state : ndarray, shape (N, S), or None
        Of a recurrent policy after the latest :meth:`act`; None of any other.
    """

    def __init__(
        self,
        engine: Any,
        action_space: gym.Space[Any],
        normalizer: ObservationNormalizer | None,
        *,
        action_map: str = "clip",
        seed: int,
        stream: int,
        narrow: bool = False,
    ) -> None:
        self._shape = action_layout(action_space).shape
        self._env_dtype = action_structure(action_space).row_dtype
        self._engine = engine
        self._dtype = engine.dtype
        self._actor = engine.actor(
            action_space,
            action_map=action_map,
            observation_mean=None if normalizer is None else normalizer.mean,
            observation_scale=None if normalizer is None else normalizer.scale,
            observation_clip=np.inf if normalizer is None else normalizer.clip,
            seed=seed,
            stream=stream,
            narrow=narrow,
        )
        self._arrays: tuple[NDArray[Any], ...] = ()
        self.state: NDArray[Any] | None = None

    def act(
        self,
        observations: NDArray[Any],
        step: int,
        *,
        deterministic: bool,
        action_masks: NDArray[np.bool_] | None = None,
        state: NDArray[Any] | None = None,
        episode_starts: NDArray[np.bool_] | None = None,
    ) -> NDArray[Any]:
        """Actions for the environment.

        Parameters
        ----------
        observations : ndarray, shape (N, D), float32 or float64, C-contiguous
            Raw; ValueError names a row that is not finite, or whose action is not, and a policy that can no longer
            serve.
        step : int
            Counter of the noise.
        action_masks : bool, shape (N, K), optional
            True where an action is allowed, as `MaskFormat` has it.
        state : ndarray, shape (N, S), optional
            Of a recurrent policy, what `self.state` was after the call before; not modified. None: every row starts an
            episode.
        episode_starts : bool, shape (N,), optional
            Rows that start one whatever `state` is; none by default. Both are not looked at for any other policy.

        Returns
        -------
        ndarray, shape (N,) or (N, A)
            As `Environments.step` takes them, inside their bounds; a new array at every call.
        """
        self._engine.refresh()
        if not self._arrays or self._arrays[0].shape != observations.shape:
            self._arrays = self._make_arrays(*observations.shape)
        normalized, actions, log_probs = self._arrays
        env_actions = np.empty(actions.shape, self._env_dtype)
        if self._engine.recurrent:
            begin_at(self._actor, len(observations), state, episode_starts)
        try:
            self._actor.act(
                observations, step, normalized, actions, log_probs, env_actions, deterministic, 0, action_masks
            )
        except FloatingPointError as error:
            raise ValueError(f"observations: {error}") from error
        if self._engine.recurrent:
            self.state = self._actor.state
        return env_actions

    def _make_arrays(self, rows: int, width: int) -> tuple[NDArray[Any], ...]:
        actions = np.empty((rows, *self._shape), self._dtype if self._env_dtype.kind == "f" else np.int64)
        return np.empty((rows, width), self._dtype), actions, np.empty(rows, self._dtype)
