"""Copies stepped in turn in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast.environments.base import Environments, StepResult
from trpo_fast.environments.copies import Copies, seeds_from


class InProcessEnvironments(Environments):
    """Copies stepped one after the other; an episode's end and the next one's start fall in one step (SAME_STEP).

    Parameters
    ----------
    makers : sequence of callables
        Each makes one environment.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]]) -> None:
        self.copies = Copies(makers)
        try:
            super().__init__(self.copies.observation_space, self.copies.action_space, len(makers))
        except BaseException:
            self.copies.close()
            raise
        self.wrappings = self.copies.wrappings
        self._rows = np.empty((self.num_envs, self.observation_size), self.observation_dtype)
        self._finals = np.empty_like(self._rows)
        self._rewards = np.zeros(self.num_envs)
        self._terminated = np.zeros(self.num_envs, np.bool_)
        self._truncated = np.zeros(self.num_envs, np.bool_)

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copy i is seeded with ``seed + i``."""
        self.copies.reset(seeds_from(seed, 0, self.num_envs), self._rows)
        self.action_masks = self.copies.masks
        return self._rows

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every copy; see :class:`Environments`."""
        self.copies.step(actions, self._rows, self._rewards, self._terminated, self._truncated, self._finals)
        self.action_masks = self.copies.masks
        final = final_rows(self._finals, self._terminated, self._truncated)
        return StepResult(self._rows, self._rewards, self._terminated, self._truncated, final)

    def close(self) -> None:
        """Close every copy."""
        self.copies.close()


def final_rows(
    finals: NDArray[Any], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], first: int = 0
) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Rows of `finals` (n, D), copied, where an episode was truncated and not terminated, and the copies' indices."""
    if not truncated.any():
        return None
    cut = np.flatnonzero(truncated & ~terminated)
    return (finals[cut], cut + first) if len(cut) else None
