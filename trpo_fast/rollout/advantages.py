"""Advantages and returns of a rollout: generalized advantage estimation, or a function of the user's in its place.

References
----------
.. [1] Schulman, Moritz, Levine, Jordan, Abbeel, "High-Dimensional Continuous Control Using Generalized Advantage
   Estimation", ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.rollout import generalized_advantages
from trpo_fast.solvers.arrays import as_array, as_numpy


@dataclass(frozen=True, eq=False)
class AdvantageInputs:
    """What advantages are estimated from: T steps of E environments, in the order in which they were stepped.

    Arrays are read-only views; those of the rollout, all but values and rewards, are overwritten by the rollout after
    the next, so copy what is to be kept.
    """

    rewards: NDArray[Any]
    """(T, E) in the policy's dtype: scaled and clipped where the configuration says so; 0 in dummy rows."""
    values: NDArray[Any]
    """(T, E) V(s_t), in the policy's dtype."""
    next_values: NDArray[Any]
    """(T, E) V(s_{t+1}), of the final observation where the episode ended there; terminated ones count for nothing."""
    terminated: NDArray[np.bool_]
    """(T, E)"""
    truncated: NDArray[np.bool_]
    """(T, E)"""
    valid: NDArray[np.bool_]
    """(T, E) False in dummy rows: resets of a VectorEnv in NEXT_STEP mode. What is returned for them is dropped."""
    observations: NDArray[Any]
    """(T, E, D) flat, as the policy saw them: normalized where the configuration says so, images as their bytes."""
    actions: NDArray[Any]
    """(T, E, A) in the policy's dtype, as drawn, not clipped; (T, E) or (T, E, A) int64, from 0, where discrete."""
    log_probs: NDArray[Any]
    """(T, E) log pi_old(a|s)."""
    gamma: float
    gae_lambda: float
    """Of the advantages."""
    critic_gae_lambda: float | None = None
    """Of the returns; None: `gae_lambda`."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                view = value.view()
                view.flags.writeable = False
                object.__setattr__(self, entry.name, view)

    @property
    def done(self) -> NDArray[np.bool_]:
        """Whether the episode ended with this step, either way, ``(T, E)``."""
        return self.terminated | self.truncated

    def gae(
        self,
        rewards: NDArray[Any] | None = None,
        values: NDArray[Any] | None = None,
        next_values: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Generalized advantages [1]_, what an agent without a function of its own learns from.

        ``delta = r + gamma V(s') (1 - terminated) - V(s)`` and ``A = delta + gamma lambda (1 - done) A_next``,
        backwards; ``R = A + V(s)`` of an A with a lambda of its own, `critic_gae_lambda`.

        Parameters
        ----------
        rewards, values, next_values : (T, E), optional
            Others in place of those above, as of a cost with a value function of its own; converted to their dtype.

        Returns
        -------
        advantages, returns : (T, E)
            New arrays of the policy's dtype, not normalized.
        """

        def used(name: str, other: NDArray[Any] | None, own: NDArray[Any]) -> NDArray[Any]:
            if other is None:
                return own
            array = as_array(other, name)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{name}: {array.dtype} given; want real numbers")
            with np.errstate(over="ignore"):
                return np.ascontiguousarray(array, own.dtype)

        inputs = (
            used("rewards", rewards, self.rewards),
            used("values", values, self.values),
            used("next_values", next_values, self.next_values),
            self.terminated,
            self.truncated,
        )
        advantages, returns = np.empty_like(self.values), np.empty_like(self.values)
        generalized_advantages(*inputs, advantages, returns, gamma=self.gamma, gae_lambda=self.gae_lambda)
        critic_lambda = self.critic_gae_lambda
        if critic_lambda is not None and critic_lambda != self.gae_lambda:
            unused = np.empty_like(advantages)
            generalized_advantages(*inputs, unused, returns, gamma=self.gamma, gae_lambda=critic_lambda)
        return advantages, returns


AdvantageFunction = Callable[[AdvantageInputs], Any]
"""``function(inputs) -> (advantages, returns)``, two arrays or CPU tensors (T, E)."""


def estimated_by(
    function: AdvantageFunction, inputs: AdvantageInputs, first_step: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `function` returns, as new arrays of the policy's dtype.

    Raises
    ------
    TypeError, ValueError
        That is not two arrays of numbers of shape (T, E), finite wherever a row is valid; the message begins with
        "advantages". `first_step` is the number of the first step over the whole training.
    """
    answer = function(inputs)
    dtype, shape = inputs.values.dtype, inputs.values.shape
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        what = f"{len(answer)} items" if isinstance(answer, (tuple, list)) else type(answer).__name__
        raise TypeError(
            f"advantages: the function returned {what}; want (advantages, returns), arrays of shape {shape}"
        )
    found = []
    for name, given in zip(("advantages", "returns"), answer, strict=True):
        try:
            array = np.asarray(as_numpy(given, f"advantages: {name}"))
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"advantages: the function returned {name} that are no array: {error}") from error
        if array.dtype.kind not in "fiu":
            raise TypeError(f"advantages: the function returned {name} of {array.dtype}; want numbers of {dtype}")
        if array.shape != shape:
            raise ValueError(f"advantages: the function returned {name} of shape {array.shape}; want {shape}, (T, E)")
        with np.errstate(over="ignore"):
            kept = np.array(array, dtype)  # not the function's own, which is normalized in place
        wrong = np.argwhere(~np.isfinite(kept) & inputs.valid)
        if len(wrong):
            t, i = map(int, wrong[0])
            raise ValueError(
                f"advantages: the function returned {name} of {array[t, i]} at [{t}, {i}], for environment {i} "
                f"at step {first_step + t}; want finite numbers of {dtype}"
            )
        found.append(kept)
    return found[0], found[1]
