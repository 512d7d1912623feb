"""Acting at every step of a rollout and keeping what comes of it, with any actor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trpo_fast._core.acting import Actor
from trpo_fast._core.recording import Recorder


class SlicingRecorder:
    """What the compiled :class:`Recorder` does, with the same arguments, for every actor and dtype of observations."""

    def __init__(
        self,
        actor: Any,
        own: slice,
        *,
        first_step: int,
        env_action_dtype: DTypeLike,
        observations: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        rewards: NDArray[Any],
        terminated: NDArray[Any],
        truncated: NDArray[Any],
        raw: NDArray[Any] | None = None,
        action_masks: NDArray[Any] | None = None,
        first_row: int | None = None,
    ) -> None:
        self._first_row = own.start if first_row is None else first_row
        self._actor, self._own, self._first_step, self._env_dtype = actor, own, first_step, env_action_dtype
        self._observations, self._actions, self._log_probs = observations, actions, log_probs
        self._rewards, self._terminated, self._truncated = rewards, terminated, truncated
        self._raw, self._masks = raw, action_masks

    def act(self, t: int, observations: NDArray[Any], action_masks: NDArray[Any] | None = None) -> NDArray[Any]:
        """Act in step `t` of the rollout; what goes to the environments."""
        here = t, self._own
        normalized, actions, log_probs = self._observations[here], self._actions[here], self._log_probs[here]
        if self._raw is not None:
            self._raw[here] = observations
        masked = {}
        if self._masks is not None:
            self._masks[here] = action_masks
            masked["action_masks"] = self._masks[here]
        # New memory at every step, as environments may keep their last action.
        env_actions = np.empty(actions.shape, self._env_dtype)
        step, first = self._first_step + t, self._first_row
        self._actor.act(observations, step, normalized, actions, log_probs, env_actions, first_row=first, **masked)
        return env_actions

    def record(self, t: int, rewards: NDArray[Any], terminated: NDArray[Any], truncated: NDArray[Any]) -> None:
        """Keep what came of step `t`."""
        here = t, self._own
        self._rewards[here], self._terminated[here], self._truncated[here] = rewards, terminated, truncated


def make_recorder(actor: Any, own: slice, *, observations: NDArray[Any], **arrays: Any) -> Recorder | SlicingRecorder:
    """The compiled recorder where the actor is compiled and its observations are kept as it sees them."""
    compiled = isinstance(actor, Actor) and observations.dtype.kind == "f"
    return (Recorder if compiled else SlicingRecorder)(actor, own, observations=observations, **arrays)
