"""What is known of recurrent policies without torch: their cells, and what says where episodes start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import in_words
from trpo_fast.solvers.arrays import as_array

CELLS = ("gru", "lstm")
CELL_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""As torch.nn.GRUCell and LSTMCell call them, in their order."""


def checked_episode_starts(episode_start: Any, count: int) -> NDArray[np.bool_] | None:
    """`episode_start` for `count` observations as an array (count,); None stays None. ValueError names it."""
    if episode_start is None:
        return None
    array = np.atleast_1d(as_array(episode_start, "episode_start"))
    if array.shape != (count,) or not (
        array.dtype.kind == "b" or (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all())
    ):
        raise ValueError(
            f"episode_start: {in_words(episode_start)} given; want {count} bools, one for each observation"
        )
    return np.ascontiguousarray(array, np.bool_)


def begin_at(actor: Any, count: int, state: Any, episode_starts: NDArray[np.bool_] | None) -> None:
    """Let the next call of a recurrent `actor` be for `count` rows at `state`, (count, S); None: all start episodes.

    Rows of `state` where an episode starts are not looked at. ValueError where it is not what a call returned.
    """
    known = actor.state
    if (
        episode_starts is None
        and type(state) is np.ndarray
        and state.shape == (count, known.shape[1])
        and state.dtype == known.dtype
        and state.flags.c_contiguous
        and math.isfinite(np.dot(state.reshape(-1), state.reshape(-1)))
    ):  # as almost always
        actor.state, actor.episode_starts = state, np.zeros(count, np.bool_)
        return
    actor.begin(count)
    if state is None:
        return
    wanted, array = actor.state, as_array(state, "state")
    fits = array.shape == wanted.shape and array.dtype.kind == "f"
    if fits and episode_starts is not None and episode_starts.any():
        array = np.where(episode_starts[:, None], wanted, array)
    flat = array.reshape(-1)
    # A sum of squares is quicker than a look at each; where it overflows the look decides.
    with np.errstate(over="ignore"):
        fits = fits and bool(np.isfinite(flat @ flat) or np.isfinite(flat).all())
    if not fits:
        raise ValueError(
            f"state: {array.dtype} of shape {array.shape} given; want finite numbers of shape {wanted.shape}, what the "
            "call before returned, or None where every episode starts"
        )
    actor.state = np.ascontiguousarray(array, wanted.dtype)
    actor.episode_starts = np.zeros(count, np.bool_) if episode_starts is None else episode_starts
