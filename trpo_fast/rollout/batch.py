"""The samples that one policy update learns from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast.solvers.arrays import as_array, is_tensor
from trpo_fast.solvers.validation import require_count, require_items, require_kind


@dataclass(frozen=True, eq=False)
class Sequences:
    """How the rows of a batch follow each other: T steps of E sequences, time-major, row t E + e of them."""

    starts: NDArray[np.bool_]
    """(T, E) whether an episode starts with the step."""
    valid: NDArray[np.bool_]
    """(T, E) whether the row is a sample: what a vector environment does in the step after an episode's end is none."""
    state: NDArray[Any]
    """(E, S) of the recurrent policy before the first step, in its dtype."""

    @property
    def rows(self) -> NDArray[np.int64] | None:
        """Rows that are samples; None where all are."""
        return None if self.valid.all() else np.flatnonzero(self.valid)

    def of(self, sequences: slice) -> Sequences:
        """Those of some of the E sequences."""
        return Sequences(
            np.ascontiguousarray(self.starts[:, sequences]),
            np.ascontiguousarray(self.valid[:, sequences]),
            self.state[sequences],
        )


class CriticSequences(NamedTuple):
    """What a recurrent critic sees of a rollout of T steps of E environments."""

    observations: NDArray[Any]
    """(T E, D), time-major."""
    others: NDArray[Any]
    """(E + F, D): those after the last step, then the F final ones of truncated episodes."""
    final_rows: NDArray[np.int64]
    """(F,) rows that each final observation follows."""
    starts: NDArray[np.bool_]
    """(T, E) whether an episode starts with the step."""
    valid: NDArray[np.bool_]
    """(T, E) whether the row is a sample."""


class Batch:
    """B samples, as arrays or CPU tensors; C-contiguous input is kept without a copy.

    Parameters
    ----------
    observations : float or uint8, shape (B, D)
        As the policy sees them; more axes are flattened into D. The bytes of images stay bytes, which the engine
        converts to the policy's dtype.
    actions : (B, A) or (B,)
        Floating, or integer, which becomes int64. Of a Product rows of floats, choices as whole numbers.
    advantages : float, shape (B,)
        Used as they are; normalize them before if wanted.
    log_probs : float, shape (B,), optional
        log pi_old(a|s) written while acting. Without them those of the policy at binding time are used.
    action_masks : bool, shape (B, K), optional
        True where an action is allowed.
    sequences : Sequences, optional
        For a recurrent policy, and for no other: how the B rows follow each other, and which of them are samples.
    part_starts : sequence of int
        Rows at which parts begin that a `DistributedEngine` adds up in order; the first is 0.

    Attributes
    ----------
    samples : int
        Rows that are samples: B, or as many as `sequences` says.

    Raises
    ------
    TypeError
        A dtype that cannot serve.
    ValueError
        A shape that does not fit, no samples, an entry that is not finite, a tensor that is not on the CPU.
    """

    __slots__ = (
        "action_masks",
        "actions",
        "advantages",
        "log_probs",
        "observations",
        "part_starts",
        "samples",
        "sequences",
    )

    observations: NDArray[Any]
    actions: NDArray[Any]
    advantages: NDArray[Any]
    log_probs: NDArray[Any] | None
    action_masks: NDArray[np.bool_] | None

    def __init__(
        self,
        observations: Any,
        actions: Any,
        advantages: Any,
        log_probs: Any = None,
        action_masks: Any = None,
        sequences: Sequences | None = None,
        part_starts: Iterable[int] = (0,),
    ) -> None:
        rows = _array("observations", observations, "fB")
        if rows.ndim < 2 or len(rows) == 0:
            raise ValueError(f"observations: shape {rows.shape} given; want (B, D) with B >= 1")
        size = len(rows)
        self.observations = rows.reshape(size, -1)
        self.actions = _array("actions", actions, "fiu")
        if self.actions.ndim not in (1, 2) or len(self.actions) != size:
            raise ValueError(f"actions: shape {self.actions.shape} given; want ({size},) or ({size}, A)")
        self.advantages = _array("advantages", advantages, "f", (size,))
        self.log_probs = None if log_probs is None else _array("log_probs", log_probs, "f", (size,))
        self.action_masks = None if action_masks is None else _array("action_masks", action_masks, "b")
        if self.action_masks is not None and (self.action_masks.ndim != 2 or len(self.action_masks) != size):
            raise ValueError(f"action_masks: shape {self.action_masks.shape} given; want ({size}, K)")
        self.sequences = None if sequences is None else require_kind("sequences", sequences, Sequences)
        self.samples = size if sequences is None else int(sequences.valid.sum())
        if sequences is not None and (
            sequences.starts.size != size
            or sequences.valid.shape != sequences.starts.shape
            or sequences.starts.shape[1:] != sequences.state.shape[:1]
            or not self.samples
        ):
            raise ValueError(
                f"sequences: starts {sequences.starts.shape}, valid {sequences.valid.shape} with {self.samples} "
                f"samples, state {sequences.state.shape} given; want {size} rows, samples among them"
            )

        rows_of_parts = require_items("part_starts", part_starts, "a sequence of rows")
        self.part_starts = tuple(require_count("part_starts", row, low=0) for row in rows_of_parts)
        if self.part_starts[:1] != (0,) or any(a > b for a, b in pairwise((*self.part_starts, size))):
            raise ValueError(f"part_starts: {self.part_starts} given; want rows from 0 to {size}, not falling")

    def part(self, index: int) -> Batch | None:
        """The rows of one part, without a copy; None where it has none."""
        require_count("index", index, low=0, most=len(self.part_starts) - 1)
        rows = slice(self.part_starts[index], (*self.part_starts, len(self))[index + 1])
        if rows.start == rows.stop:
            return None
        part = Batch.__new__(Batch)  # the whole has been checked
        for name in ("observations", "actions", "advantages", "log_probs", "action_masks"):
            array = getattr(self, name)
            setattr(part, name, None if array is None else array[rows])
        part.sequences, part.samples, part.part_starts = None, rows.stop - rows.start, (0,)
        return part

    def __len__(self) -> int:
        """Return B."""
        return len(self.observations)


_KINDS = {"f": "floating", "fB": "floating or uint8", "fiu": "floating or integer", "b": "bool"}


def _array(name: str, value: Any, kinds: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    if is_tensor(value) and value.device.type != "cpu":
        raise ValueError(f"{name}: a tensor on {value.device} given; want one on the CPU")
    array = np.ascontiguousarray(as_array(value, name))
    if "B" in kinds and array.dtype == np.uint8:
        return array
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: dtype {array.dtype} given; want {_KINDS[kinds]}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {array.max()} given; want numbers below 2**63")
    if array.dtype.kind in "iu":
        array = array.astype(np.int64, copy=False)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape} given; want {shape}, as there are observations")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: {array[where]} at {where} given; want finite numbers")
    return array
