"""Discrete actions out of logits in NumPy, for rows that are longer than the compiled sampler takes.

The noise is the compiled sampler's, and so are the choices, but for rounding of the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import uniform

_ROWS = 64  # at a time: bounds the memory that the float64 probabilities of long rows take


def draw_choices(
    logits: NDArray[Any],
    nvec: Sequence[int] | None,
    *,
    seed: int,
    stream: int,
    step: int,
    first_row: int = 0,
    deterministic: bool = False,
) -> NDArray[np.int64]:
    """A draw from each row's distributions, or their modes.

    Parameters
    ----------
    logits : float32 or float64, shape (E, K)
        Of all components one after the other, -inf where something is not allowed; of Bernoullis with `nvec` None,
        where +inf allows nothing but 1.
    nvec : sequence of int, optional
        Choices of each categorical component, which add up to K.
    seed, stream, step, first_row : int
        Key of the noise, as of `trpo_fast._core.acting.sample`.
    deterministic : bool
        The modes: the first of the most likely choices, and 0 where 0 and 1 are as likely.

    Returns
    -------
    int64, shape (E, components)
    """
    rows, components = len(logits), logits.shape[1] if nvec is None else len(nvec)
    choices = np.empty((rows, components), np.int64)
    for first in range(0, rows, _ROWS):
        some, chosen = logits[first : first + _ROWS], choices[first : first + _ROWS]
        noise = None
        if not deterministic:
            key = {"seed": seed, "stream": stream, "step": step, "first_row": first_row + first}
            noise = uniform(len(some), components, **key)
        if nvec is None:
            chosen[:] = some > 0 if noise is None else noise <= _sigmoid(some.astype(np.float64))
            continue
        at = 0
        for k, count in enumerate(nvec):
            block = some[:, at : at + count]
            at += count
            chosen[:, k] = block.argmax(1) if noise is None else _drawn(block.astype(np.float64), noise[:, k])
    return choices


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _drawn(logits: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first choice of each row whose cumulative probability reaches the noise on (0, 1]: no impossible one."""
    sums = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
    found: NDArray[np.int64] = (sums < (noise * sums[:, -1])[:, None]).sum(1)
    return found
