"""Acting with a recurrent policy without torch: NumPy, a compiled cell and the compiled actor behind it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.acting import Actor
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.recurrent import Cell

CELLS = ("gru", "lstm")


class CellParameters(NamedTuple):
    """Of a GRU or LSTM, as torch.nn.GRUCell and LSTMCell have them; G gates, H units, D inputs."""

    weight_ih: NDArray[Any]
    """(G H, D)"""
    weight_hh: NDArray[Any]
    """(G H, H)"""
    bias_ih: NDArray[Any]
    """(G H,)"""
    bias_hh: NDArray[Any]
    """(G H,)"""


class CellActor:
    """Acts as `trpo_fast._core.acting.Actor` does, with a cell between the normalized observations and its network.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    parameters : CellParameters
        Live, as `head_parameters` are: read at every call.
    head : PolicyKernel
        From the cell's h to the distribution.
    head_parameters : ndarray (n,)
        Of `head`.
    observation_mean, observation_scale : float64, shape (D,), optional
        Read at every call.
    observation_clip : float
        Bound on normalized observations.
    options
        Of `Actor`.

    Attributes
    ----------
    state : ndarray (E, S)
        Of every row, before the next call; each call puts another array there.
    episode_starts : bool ndarray (E,)
        Where the next call starts an episode, whose state begins at zero. The caller's to keep.
    """

    def __init__(
        self,
        kind: str,
        parameters: CellParameters,
        head: PolicyKernel,
        head_parameters: NDArray[Any],
        *,
        observation_mean: NDArray[np.float64] | None = None,
        observation_scale: NDArray[np.float64] | None = None,
        observation_clip: float = math.inf,
        **options: Any,
    ) -> None:
        self._parameters = parameters
        self._cell = Cell(kind, head.widths[0], head.dtype)
        self._dtype = np.dtype(head.dtype)
        self._actor = Actor(head, head_parameters, **options)
        self._mean, self._scale, self._clip = observation_mean, observation_scale, observation_clip
        self._hidden = np.empty((0, head.widths[0]), self._dtype)
        self.begin(1)

    def begin(self, count: int) -> None:
        """Let `count` rows start an episode at the next call."""
        self.state = np.zeros((count, self._cell.state_items), self._dtype)
        self.episode_starts = np.ones(count, np.bool_)

    def act(
        self,
        observations: NDArray[Any],
        step: int,
        normalized: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        env_actions: NDArray[Any],
        deterministic: bool = False,
        first_row: int = 0,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """One environment step of E rows, from `state`; parameters and errors as of `Actor.act`."""
        if self._mean is None or self._scale is None:
            np.copyto(normalized, observations, casting="same_kind")
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = (observations - self._mean) * self._scale
                np.clip(scaled, -self._clip, self._clip, out=normalized, casting="same_kind")
        if not math.isfinite(np.dot(normalized.reshape(-1), normalized.reshape(-1))):
            check_finite("observation", observations, first_row)
            check_finite("observation", normalized, first_row)
        weight_ih, weight_hh, bias_ih, bias_hh = self._parameters
        inputs = normalized @ weight_ih.T
        inputs += bias_ih
        state, _ = self._cell.forward(weight_hh, bias_hh, inputs, self.episode_starts, self.state)
        hidden = state if state.shape[1] == self._cell.units else np.ascontiguousarray(state[:, : self._cell.units])
        if len(self._hidden) != len(hidden):
            self._hidden = np.empty_like(hidden)
        self._actor.act(
            hidden, step, self._hidden, actions, log_probs, env_actions, deterministic, first_row, action_masks
        )
        self.state = state


def check_finite(what: str, array: NDArray[Any], first_row: int) -> None:
    """FloatingPointError naming the first row of `array` that is not finite."""
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise FloatingPointError(f"{what} {row + first_row} is not finite in {array.dtype}: {array[row]}")


def checked_episode_starts(episode_start: Any, count: int) -> NDArray[np.bool_] | None:
    """`episode_start` for `count` observations as an array (count,); None stays None. ValueError names it."""
    if episode_start is None:
        return None
    array = np.atleast_1d(np.asarray(episode_start))
    if array.shape != (count,) or not (array.dtype.kind == "b" or np.isin(array, (0, 1)).all()):
        raise ValueError(f"episode_start: {episode_start!r} given; want {count} bools, one for each observation")
    return np.ascontiguousarray(array, np.bool_)
