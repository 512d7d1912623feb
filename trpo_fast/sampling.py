"""Discrete actions out of logits in NumPy, for rows that are longer than the compiled sampler takes.

The noise is the compiled sampler's, and so are the choices, but for rounding of the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import normal, uniform

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
    parts = [("bernoulli" if nvec is None else "multicategorical", logits.shape[1], nvec)]
    key = {"seed": seed, "stream": stream, "step": step, "first_row": first_row}
    return draw_parts(logits, parts, **key, deterministic=deterministic).astype(np.int64)


def draw_parts(
    parameters: NDArray[Any],
    parts: Sequence[tuple[str, int, Sequence[int] | None]],
    *,
    seed: int,
    stream: int,
    step: int,
    first_row: int = 0,
    deterministic: bool = False,
) -> NDArray[np.float64]:
    """A draw from each row's product of distributions, or its mode; unit noise, or 0, for the Gaussians.

    Parameters
    ----------
    parameters : float32 or float64, shape (E, K)
        Of all parts one after the other, logits as of `draw_choices`; those of Gaussians are not read.
    parts : sequence of (str, int, sequence of int or None)
        Distribution ("gaussian", "multicategorical" or "bernoulli"), columns of `parameters` and nvec of each part.
    seed, stream, step, first_row, deterministic
        As of `draw_choices`.

    Returns
    -------
    float64, shape (E, components)
    """
    gaussians = sum(outputs for name, outputs, _ in parts if name == "gaussian")
    sizes = [outputs if nvec is None else len(nvec) for _, outputs, nvec in parts]
    # Where the noise of the choices begins: behind the block that has the last of the Gaussians'.
    skipped = gaussians + gaussians % 2
    drawn = np.zeros((len(parameters), sum(sizes)))
    for first in range(0, len(parameters), _ROWS):
        some, into = parameters[first : first + _ROWS], drawn[first : first + _ROWS]
        normals = uniforms = None
        if not deterministic:
            key = {"seed": seed, "stream": stream, "step": step, "first_row": first_row + first}
            normals = normal(len(some), gaussians, **key)
            uniforms = uniform(len(some), skipped + sum(sizes) - gaussians, **key)[:, skipped:]
        output = component = mean = 0
        for (name, outputs, nvec), size in zip(parts, sizes, strict=True):
            own = into[:, component : component + size]
            if name != "gaussian":
                at = component - mean
                noise = None if uniforms is None else uniforms[:, at : at + size]
                own[:] = _chosen(some[:, output : output + outputs], nvec, noise)
            else:
                if normals is not None:
                    own[:] = normals[:, mean : mean + size]
                mean += size
            output, component = output + outputs, component + size
    return drawn


def _chosen(logits: NDArray[Any], nvec: Sequence[int] | None, noise: NDArray[np.float64] | None) -> NDArray[Any]:
    """Choices (E, components) for the noise, modes for None."""
    if nvec is None:
        return logits > 0 if noise is None else noise <= _sigmoid(logits.astype(np.float64))
    choices = np.empty((len(logits), len(nvec)), np.int64)
    at = 0
    for k, count in enumerate(nvec):
        block = logits[:, at : at + count]
        at += count
        choices[:, k] = block.argmax(1) if noise is None else _drawn(block.astype(np.float64), noise[:, k])
    return choices


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _drawn(logits: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first choice of each row whose cumulative probability reaches the noise on (0, 1]: no impossible one."""
    sums = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
    found: NDArray[np.int64] = (sums < (noise * sums[:, -1])[:, None]).sum(1)
    return found
