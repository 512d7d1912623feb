"""What a rollout is, and the memory that it is recorded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast.environments.base import Environments
from trpo_fast.rollout.batch import CriticSequences, Sequences


@dataclass(frozen=True)
class Rollout:
    """T steps of E environments. Arrays are views of a buffer that the second `collect` from now overwrites."""

    observations: NDArray[Any]
    """(T, E, D) as the policy saw them: normalized, in its dtype, or bytes of images as they are."""
    actions: NDArray[Any]
    """(T, E, A) as the policy drew them, in its dtype; (T, E) or (T, E, A) int64, counted from 0, where discrete. Of a
    Tuple or Dict all parts in one row of its dtype."""
    log_probs: NDArray[Any]
    """(T, E)"""
    rewards: NDArray[np.float64]
    """(T, E) raw"""
    terminated: NDArray[np.bool_]
    """(T, E)"""
    truncated: NDArray[np.bool_]
    """(T, E)"""
    valid: NDArray[np.bool_]
    """(T, E) False on the dummy row after an episode's end (NEXT_STEP)."""
    value_inputs: NDArray[Any]
    """(T E + E + F, D): the observations, those after the last step, and the F final ones of truncated episodes."""
    final_rows: NDArray[np.int64]
    """(F,) row in (T E) order that each final observation follows."""
    reward_scale: float
    """What rewards are multiplied with, frozen during the rollout."""
    first_step: int
    """Of every environment, counted over the whole training."""
    steps: int
    """Valid transitions."""
    episode_returns: NDArray[np.float64]
    """Sum of raw rewards of every episode that ended in this rollout, in order."""
    episode_lengths: NDArray[np.int64]
    action_masks: NDArray[np.bool_] | None
    """(T, E, K) what was allowed; None where the environments have no masks."""
    ended: NDArray[np.bool_]
    """(T, E) True where an episode ended, by itself: `episode_returns` are theirs, in this order."""
    infos: Mapping[str, NDArray[np.float64]]
    """(T, E) by name, what the infos of the steps have that callbacks ask for (`Callback.infos`), NaN where there is no
    number; where an episode ended its own last one."""
    sequences: Sequences
    """Which steps start an episode, which are samples, and where a recurrent policy began: its state is (E, 0) of any
    other."""

    def read_only(self) -> Rollout:
        """The same rollout, of arrays that cannot be written."""
        found: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        sealed = {name: _sealed(value) for name, value in found.items() if isinstance(value, np.ndarray)}
        infos = {name: _sealed(array) for name, array in self.infos.items()}
        own = self.sequences
        sequences = Sequences(_sealed(own.starts), _sealed(own.valid), _sealed(own.state))
        return Rollout(**{**found, **sealed, "infos": infos, "sequences": sequences})

    @property
    def samples(self) -> NDArray[Any]:
        """(B, D) observations of the rows that are samples."""
        rows = self.sequences.rows
        flat = self.observations.reshape(self.valid.size, -1)
        return flat if rows is None else flat[rows]

    @property
    def critic_sequences(self) -> CriticSequences:
        """What a recurrent critic sees."""
        size = self.valid.size
        return CriticSequences(
            self.value_inputs[:size], self.value_inputs[size:], self.final_rows, self.sequences.starts, self.valid
        )


def _sealed(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


class Buffer:
    """The arrays of one rollout: what every step writes a row of, and room for the observations that close it."""

    def __init__(
        self,
        steps: int,
        num_envs: int,
        adapter: Environments,
        dtype: np.dtype[Any],
        observation_dtype: np.dtype[Any],
    ) -> None:
        rows = (steps, num_envs)
        size = steps * num_envs
        # Room for every step to be truncated; memory that is never written is never really allocated.
        self.inputs = np.empty((2 * size + num_envs, adapter.observation_size), observation_dtype)
        self.observations = self.inputs[:size].reshape(*rows, adapter.observation_size)
        continuous = adapter.action_dtype.kind == "f"
        self.actions = np.empty((*rows, *adapter.action_shape[1:]), dtype if continuous else np.int64)
        self.log_probs = np.empty(rows, dtype)
        self.rewards = np.empty(rows)
        self.terminated = np.empty(rows, np.bool_)
        self.truncated = np.empty(rows, np.bool_)
        self.action_masks: NDArray[np.bool_] | None = None  # until the environments are found to have some
        self.infos: NDArray[np.float64] | None = None  # (T, E, K), where some are asked for

    @property
    def stepped(self) -> dict[str, NDArray[Any]]:
        """By name, the arrays that every step writes a row of."""
        names = ("observations", "actions", "log_probs", "rewards", "terminated", "truncated", "action_masks", "infos")
        return {name: array for name in names if (array := getattr(self, name)) is not None}
