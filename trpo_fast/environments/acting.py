"""A compiled actor on its way to where environments are stepped, and what comes back of a rollout there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.acting import Actor
from trpo_fast._core.policy import PolicyKernel
from trpo_fast.state import State


@dataclass(frozen=True, eq=False)
class ActorPlan:
    """All that a compiled actor is made from, as of the moment when this is pickled."""

    kernel: tuple[Any, ...]
    """Arguments of `PolicyKernel`."""
    narrow: bool
    """Vectors of at most 256 bits."""
    parameters: NDArray[Any]
    """(n,) the policy's own, live."""
    options: Mapping[str, Any]
    """Arguments of `Actor`; statistics among them are live."""
    first_copy: int = 0
    """Number, among all of the training, of the first copy that is acted for: the row of its noise."""

    def make(self) -> Actor:
        """An actor on these arrays."""
        return Actor(PolicyKernel(*self.kernel, narrow=self.narrow), self.parameters, **self.options)


class RolledOut(NamedTuple):
    """T steps of E copies in which they acted where they are; the arrays are valid until the next ones."""

    raw: NDArray[Any]
    """(T, E, D) observations as the environments gave them."""
    observations: NDArray[Any]
    """(T, E, D) as the policy saw them."""
    actions: NDArray[Any]
    log_probs: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    action_masks: NDArray[np.bool_] | None
    last: NDArray[Any]
    """(E, D) observations after the last step."""
    finals: list[tuple[int, NDArray[Any], NDArray[np.int64]]]
    """Step, rows and copies of the final observations of episodes that were truncated and not terminated."""
    infos: NDArray[np.float64]
    """(T, E, K) what was asked for, see `Environments.infos`."""
    state: State | None
    """What `get_state` has after the last step, where it was asked for."""
    failure: tuple[int, slice, str] | None
    """The first step in which a row could not be acted on, the copies among which it is, and the actor's words."""
