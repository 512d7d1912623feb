"""Copies stepped in turn in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast.environments.base import Environments, StepResult
from trpo_fast.environments.copies import Copies, copies_in, seeds_from
from trpo_fast.environments.shared_state import SharedState, shared_state
from trpo_fast.state import State


class InProcessEnvironments(Environments):
    """Copies stepped one after the other; an episode's end and the next one's start fall in one step (SAME_STEP).

    Parameters
    ----------
    makers : sequence of callables
        Each makes one environment.
    obeys_masks : bool
        As of :class:`Environments`.
    first : int
        Number, among all of a training, of the first copy, for what is said of one.
    """

    narrow_acting = True

    def __init__(self, makers: Sequence[Callable[[], Any]], *, obeys_masks: bool = False, first: int = 0) -> None:
        self.copies = Copies(makers, first, obeys_masks=obeys_masks)
        try:
            super().__init__(self.copies.observation_space, self.copies.action_space, len(makers))
        except BaseException:
            self.copies.close()
            raise
        self._shared_state: SharedState | None = None
        self.wrappings = self.copies.wrappings
        self.left_out, self.mask_left_out = self.copies.left_out, self.copies.mask_left_out
        self._rows = np.empty((self.num_envs, self.observation_size), self.observation_dtype)
        self._finals = np.empty_like(self._rows)
        self._rewards = np.zeros(self.num_envs)
        self._terminated = np.zeros(self.num_envs, np.bool_)
        self._truncated = np.zeros(self.num_envs, np.bool_)
        self.copies.bind(self._rows, self._rewards, self._terminated, self._truncated, self._finals)

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copy i is seeded with ``seed + i``."""
        self._shared_state = self._shared_state or SharedState(None, "not looked at before the first reset")
        self.copies.reset(seeds_from(seed, 0, self.num_envs))
        self.action_masks = self.copies.masks
        return self._rows

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every copy; see :class:`Environments`."""
        written = self.copies.step(actions)
        self.action_masks = self.copies.masks
        final = (self._finals[written], np.array(written, np.int64)) if written else None
        return StepResult(self._rows, self._rewards, self._terminated, self._truncated, final)

    def ask(self, names: Sequence[str]) -> None:
        """See :class:`Environments`."""
        super().ask(names)
        self.copies.ask(names)

    @property
    def infos(self) -> NDArray[np.float64]:
        """See :class:`Environments`."""
        return self.copies.infos

    def expect_masks(self) -> None:
        """See :class:`Environments`."""
        self.action_masks = self.copies.expect_masks()

    @property
    def inexact(self) -> str | None:
        """Why the copies cannot be put back to the bit."""
        return self.copies.inexact

    def get_state(self) -> State | None:
        """State of every copy; see :class:`Environments`."""
        states = self.copies.get_state()
        return None if states is None else {"copies": states}

    def set_state(self, state: State, observations: NDArray[Any]) -> None:
        """Put every copy back; see :class:`Environments`."""
        self._shared_state = self._shared_state or SharedState(None, "not looked at before the first reset")
        self.copies.set_state(copies_in(state, self.num_envs))
        self._rows[...] = observations
        self.action_masks = self.copies.masks

    def shared_state(self, seed: int) -> SharedState:
        """Steps two of the copies, once, and only before their first reset; see `shared_state`."""
        if self._shared_state is None:
            self._shared_state = shared_state(self.copies.envs, seeds_from(seed, 0, self.num_envs))
        return self._shared_state

    def close(self) -> None:
        """Close every copy."""
        self.copies.close()
