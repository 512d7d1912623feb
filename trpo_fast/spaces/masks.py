"""Action masks as environments give them, brought into one form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .actions import action_layout
from .descriptions import Box, Dict, MultiBinary, Space, Tuple

MASK_KEY = "action_mask"
"""Under which many environments hand out the mask as a part of a Dict observation."""


def _mask_beside(observation: Any, space: Space) -> Any:
    """The mask, of one observation or of each of a batch, that has one beside the parts that `space` is of; else None.

    A policy that obeys it does not see it: `space` is then the Dict without.
    """
    is_beside = isinstance(space, Dict) and MASK_KEY not in space.spaces and isinstance(observation, Mapping)
    return observation.get(MASK_KEY) if is_beside else None


def each_of(masks: Any) -> Any:
    """One mask for each of a batch, of a part of the batch's observations: a Tuple is one of arrays there."""
    return list(zip(*masks, strict=True)) if isinstance(masks, tuple) else masks


class MaskFormat:
    """What a mask of an action space looks like, and how it becomes a row of K bools (True: allowed).

    Accepted, as 0 and 1 of any number type or as bools:

    - Discrete: n items.
    - MultiDiscrete: a tuple with an array for each component, as Gymnasium has it, or these one after the other.
    - MultiBinary: one item each, 0 or 1 where the action has to be that and 2 where it is free, as Gymnasium has it; or
      two items each, (may be 0, may be 1).

    Parameters
    ----------
    space : Discrete, MultiDiscrete or MultiBinary
        Other supported spaces have no masks: `size` is 0.

    Attributes
    ----------
    size : int
        K.
    """

    def __init__(self, space: Space) -> None:
        layout = action_layout(space)
        self._space = space
        self.size = layout.mask_size
        self._counts = np.array(layout.nvec or (2,) * (self.size // 2), np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._binaries = layout.outputs if layout.distribution == "bernoulli" else 0

    def fits(self, space: Space) -> bool:
        """Whether a part of an observation with this space is a mask of the actions by its shape.

        K items, or an array for each component of a MultiDiscrete, or an item, 0, 1 or 2, for each of a MultiBinary.
        """
        if not self.size:
            return False
        if isinstance(space, Tuple):
            sizes = [math.prod(part.shape) if isinstance(part, Box | MultiBinary) else -1 for part in space.spaces]
            return not self._binaries and sizes == self._counts.tolist()
        if not isinstance(space, Box | MultiBinary):
            return False
        size = math.prod(space.shape)
        has_free = isinstance(space, Box) and self._binaries > 0 and bool((space.high == 2).all())
        return size == self.size or (has_free and size == self._binaries)

    def rows_for(
        self, action_masks: Any, observation: Any, space: Space, count: int, single: bool
    ) -> NDArray[np.bool_] | None:
        """Rows (N, K) of what accompanies an `observation`, one, or `count` of them; None where nothing does.

        That is `action_masks`, or else the mask that the observation has beside the parts that `space` is of.
        ValueError names what was given and what is wanted where that does not fit.
        """
        if action_masks is None and self.size:
            beside = _mask_beside(observation, space)
            action_masks = beside if single else each_of(beside)
        if action_masks is None:
            return None
        if not self.size:
            raise ValueError(f"action_masks: given for {self._space}; want None, masks are for discrete actions")
        masks = [action_masks] if single else action_masks
        if not hasattr(masks, "__len__") or len(masks) != count:
            given = f"{len(masks)} masks" if hasattr(masks, "__len__") else repr(masks)
            raise ValueError(f"action_masks: {given} given; want one for each of {count} observations")
        return self.rows(masks, name="observation")

    def rows(
        self, masks: Any, present: NDArray[np.bool_] | None = None, *, name: str, when: str = "", first: int = 0
    ) -> NDArray[np.bool_]:
        """One row for each of `masks`: an array with an axis in front, or a sequence.

        Parameters
        ----------
        masks : array or sequence, E items
            None among them: everything is allowed.
        present : bool, shape (E,), optional
            Everything is allowed where this is False, too.
        name, when : str
            How errors call the owner of a mask, and its time.
        first : int
            Number of the first mask's owner, for errors.

        Returns
        -------
        bool, shape (E, K), C-contiguous
            A new array.

        Raises
        ------
        ValueError
            A mask of another length or with other values, or one that forbids everything.
        """
        rows = self._together(masks)
        if rows is None:
            rows = np.ones((len(masks), self.size), np.bool_)
            for i, mask in enumerate(masks):
                if mask is not None and (present is None or present[i]):
                    rows[i] = self._row(mask, f"{name} {first + i}{when}")
        elif present is not None:
            rows[np.logical_not(present)] = True
        possible = np.logical_or.reduceat(rows, self._starts, axis=1)
        if not possible.all():
            i, component = np.argwhere(~possible)[0]
            where = f" of component {component}" if len(self._starts) > 1 else ""
            raise ValueError(
                f"action mask of {name} {first + i}{when} forbids every choice{where}; want at least one allowed"
            )
        return rows

    def _together(self, masks: Any) -> NDArray[np.bool_] | None:
        """`masks` in one go where they make up one array of the usual form."""
        try:
            array = self._joined(masks) if all(type(mask) is tuple for mask in masks) else np.asarray(masks)
        except (TypeError, ValueError):  # of different lengths, or no masks at all
            return None
        if array.dtype.kind not in "biuf" or not len(array):
            return None
        if array.size == len(array) * self._binaries and array.dtype.kind != "b":
            array = array.reshape(len(array), -1)
            return _pairs(array) if ((array >= 0) & (array <= 2)).all() else None
        # A tuple of arrays of one size is an axis more here; components of several sizes would be mistaken for it.
        if array.ndim > 2 and (self._counts != array.shape[-1]).any():
            return None
        if array.size != len(array) * self.size or (
            array.dtype.kind != "b" and not ((array == 0) | (array == 1)).all()
        ):
            return None
        return array.reshape(len(array), self.size).astype(np.bool_)

    def _joined(self, masks: Any) -> NDArray[Any]:
        """Tuples with an array for each component, one after the other; ValueError where they are something else."""
        columns = [np.asarray(column) for column in zip(*masks, strict=True)]
        if [column.shape[1:] for column in columns] != [(count,) for count in self._counts]:
            raise ValueError("not an array for each component")
        return np.concatenate(columns, axis=1)

    def _row(self, mask: Any, name: str) -> NDArray[np.bool_]:
        arrays = list(_arrays(mask))
        if any(array.dtype.kind not in "biuf" for array in arrays):
            raise ValueError(f"action mask of {name}: {mask!r} given; want {self._wanted()}")
        sizes = [array.size for array in arrays]
        row = np.concatenate([array.ravel() for array in arrays])
        if self._binaries and len(row) == self._binaries and row.dtype.kind != "b":
            if not ((row == 0) | (row == 1) | (row == 2)).all():
                raise ValueError(f"action mask of {name}: {row} given; want {self._wanted()}")
            return _pairs(row[None])[0]
        if len(row) != self.size or (len(sizes) > 1 and sizes != self._counts.tolist()):
            given = "of sizes " + ", ".join(map(str, sizes)) if len(sizes) > 1 else f"of {sizes[0]} items"
            raise ValueError(f"action mask of {name}: {row.dtype} {given} given; want {self._wanted()}")
        if not ((row == 0) | (row == 1)).all():
            raise ValueError(f"action mask of {name}: {row} given; want {self._wanted()}")
        return row.astype(np.bool_)

    def _wanted(self) -> str:
        if self._binaries:
            return f"{self._binaries} numbers 0, 1 or 2 (free), or {self.size} of 0 and 1, for {self._space}"
        sizes = ", ".join(map(str, self._counts))
        parts = f", or a tuple of arrays of sizes {sizes}," if len(self._counts) > 1 else ""
        return f"{self.size} items of 0 and 1{parts} for {self._space}"


def _pairs(masks: NDArray[Any]) -> NDArray[np.bool_]:
    """(may be 0, may be 1) of each item, (E, 2n), from masks (E, n) of 0, 1 and 2."""
    return np.stack([masks != 1, masks != 0], axis=-1).reshape(len(masks), -1)


def _arrays(mask: Any) -> Iterator[NDArray[Any]]:
    """The arrays of a mask, which may be a nested tuple of them."""
    nested = isinstance(mask, tuple | list) and any(isinstance(part, tuple | list | np.ndarray) for part in mask)
    if nested or (isinstance(mask, np.ndarray) and mask.dtype == object and mask.ndim):
        for part in mask:
            yield from _arrays(part)
    else:
        yield np.asarray(mask)
