"""Action masks as environments give them, brought into one form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.library import in_words
from ..solvers.arrays import as_array
from ..solvers.validation import require_items
from .actions import action_layout
from .descriptions import Box, Dict, Leaf, MultiBinary, Space, Tuple, leaves, named_leaves

MASK_KEY = "action_mask"
"""Under which many environments hand out the mask as a part of a Dict observation."""


def _mask_beside(observation: Any, space: Space) -> Any:
    """The mask, of one observation or of each of a batch, that has one beside the parts that `space` is of; else None.

    A policy that obeys it does not see it: `space` is then the Dict without.
    """
    is_beside = isinstance(space, Dict) and MASK_KEY not in space.spaces and isinstance(observation, Mapping)
    return observation.get(MASK_KEY) if is_beside else None


def mask_in(part: Any) -> Any:
    """The mask that a part of one observation is: an array of any shape there, one row here."""
    return part.ravel() if isinstance(part, np.ndarray) else part


def each_of(masks: Any) -> Any:
    """One mask for each of a batch, of a part of the batch's observations: a Tuple is one of arrays there."""
    if isinstance(masks, tuple):
        return list(zip(*masks, strict=True))
    is_array = isinstance(masks, np.ndarray) and masks.dtype != object and masks.ndim > 0
    return masks.reshape(len(masks), math.prod(masks.shape[1:])) if is_array else masks


class MaskFormat:
    """What a mask of an action space looks like, and how it becomes a row of K bools (True: allowed).

    Accepted, as 0 and 1 of any number type or as bools:

    - Discrete: n items.
    - MultiDiscrete: a tuple with an array for each component, as Gymnasium has it, or these one after the other.
    - MultiBinary: one item each, 0 or 1 where the action has to be that and 2 where it is free, as Gymnasium has it; or
      two items each, (may be 0, may be 1).
    - Tuple, Dict: a tuple or dict of these, nested as the space, with None for a Box and wherever all is allowed; what
      a dict leaves out is allowed. Or all of them one after the other: K items in one array.

    Parameters
    ----------
    space : Discrete, MultiDiscrete, MultiBinary, or a Tuple or Dict with one of these inside
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
        self._parts: list[MaskFormat] = []
        if isinstance(space, Leaf):
            self._counts = np.array(layout.nvec or (2,) * (self.size // 2), np.int64)
        else:
            self._parts = [MaskFormat(leaf) for leaf in leaves(space)]
            self._counts = np.concatenate([part._counts for part in self._parts])
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
            return not self._binaries and not self._parts and sizes == self._counts.tolist()
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
            action_masks = mask_in(beside) if single else each_of(beside)
        if action_masks is None:
            return None
        if not self.size:
            raise ValueError(f"action_masks: given for {self._space}; want None, masks are for discrete actions")
        masks = [action_masks] if single else self.apart(action_masks, count)
        given = _length(masks)
        if given != count:
            what = in_words(masks) if given is None else f"{given} masks"
            raise ValueError(f"action_masks: {what} given; want one for each of {count} observations")
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
        rows = None if self._parts else self._together(masks)
        if rows is None:
            several = require_items("action_masks", masks, "a mask for each")
            rows = np.ones((len(several), self.size), np.bool_)
            for i, mask in enumerate(several):
                if mask is not None and (present is None or present[i]):
                    rows[i] = self._row(mask, f"{name} {first + i}{when}")
        elif present is not None:
            rows[np.logical_not(present)] = True
        possible = np.logical_or.reduceat(rows, self._starts, axis=1)
        if not possible.all():
            i, component = np.argwhere(~possible)[0]
            where = self._where(int(component))
            raise ValueError(
                f"action mask of {name} {first + i}{when} forbids every choice{where}; want at least one allowed"
            )
        return rows

    def apart(self, masks: Any, count: int) -> Any:
        """One mask for each of `count` owners where `masks` is a dict of their parts, as vector environments have it.

        That is arrays or sequences by key, and who has one by ``"_" + key``, as Gymnasium gathers infos.
        """
        return _apart(self._space, masks, count) if isinstance(masks, Mapping) and self._parts else masks

    def _where(self, component: int) -> str:
        if not self._parts:
            return f" of component {component}" if len(self._starts) > 1 else ""
        for (place, _), part in zip(named_leaves(self._space, ""), self._parts, strict=True):
            if component < len(part._counts):
                return f" of part {place}{part._where(component)}"
            component -= len(part._counts)
        return ""

    def _row_of_parts(self, mask: Any, name: str) -> NDArray[np.bool_]:
        if isinstance(mask, np.ndarray) and mask.dtype != object:
            if mask.shape != (self.size,) or mask.dtype.kind not in "biuf" or not ((mask == 0) | (mask == 1)).all():
                raise ValueError(f"action mask of {name}: {mask} given; want {self._wanted()}")
            return mask.astype(np.bool_)
        rows = []
        for (place, value), part in zip(_parts_of(self._space, mask, "", name), self._parts, strict=True):
            if value is None:
                rows.append(np.ones(part.size, np.bool_))
            elif not part.size:
                raise ValueError(
                    f"action mask of {name}, part {place}: {in_words(value)} given; want None for {part._space}, masks "
                    "are for discrete actions"
                )
            else:
                rows.append(part._row(value, f"{name}, part {place}"))
        return np.concatenate(rows)

    def _together(self, masks: Any) -> NDArray[np.bool_] | None:
        """`masks` in one go where they make up one array of the usual form."""
        try:
            array = self._joined(masks) if all(type(mask) is tuple for mask in masks) else np.asarray(masks)
        except (NotImplementedError, TypeError, ValueError):  # of different lengths, or no masks at all
            return None
        if array.dtype.kind not in "biuf" or not len(array):
            return None
        if self._binaries and array.size == len(array) * self._binaries and array.dtype.kind != "b":
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
        if self._parts:
            return self._row_of_parts(mask, name)
        arrays = list(_arrays(mask, f"action mask of {name}"))
        if any(array.dtype.kind not in "biuf" for array in arrays):
            raise ValueError(f"action mask of {name}: {in_words(mask)} given; want {self._wanted()}")
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
        if self._parts:
            return f"a mask or None for each part of {self._space}, nested as it is, or {self.size} items of 0 and 1"
        if self._binaries:
            return f"{self._binaries} numbers 0, 1 or 2 (free), or {self.size} of 0 and 1, for {self._space}"
        sizes = ", ".join(map(str, self._counts))
        parts = f", or a tuple of arrays of sizes {sizes}," if len(self._counts) > 1 else ""
        return f"{self.size} items of 0 and 1{parts} for {self._space}"


def _parts_of(space: Space, mask: Any, place: str, name: str) -> Iterator[tuple[str, Any]]:
    """Each part's place and mask, in the order of `leaves`; ValueError where `mask` is not nested as the space."""
    if isinstance(space, Leaf):
        yield place, mask
        return
    if isinstance(space, Dict):
        given = {} if mask is None else mask
        if not isinstance(given, Mapping) or not given.keys() <= space.spaces.keys():
            keys = list(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(
                f"action mask of {name}{f', part {place}' if place else ''}: {keys} given; want a dict with some of "
                f"{', '.join(map(str, space.spaces))}"
            )
        for key, part in space.spaces.items():
            yield from _parts_of(part, given.get(key), f"{place}[{key!r}]", name)
        return
    several = [None] * len(space.spaces) if mask is None else mask
    if not isinstance(several, tuple | list) or len(several) != len(space.spaces):
        kind = f"a {type(several).__name__}" + (f" of {len(several)} items" if hasattr(several, "__len__") else "")
        raise ValueError(
            f"action mask of {name}{f', part {place}' if place else ''}: {kind} given; want a tuple of "
            f"{len(space.spaces)} items"
        )
    for index, (part, own) in enumerate(zip(space.spaces, several, strict=True)):
        yield from _parts_of(part, own, f"{place}[{index}]", name)


def _apart(space: Space, masks: Any, count: int) -> Any:
    if not (isinstance(space, Dict) and isinstance(masks, Mapping)):
        return masks
    single: list[dict[Any, Any]] = [{} for _ in range(count)]
    presence = {f"_{key}" for key in space.spaces} - space.spaces.keys()
    for key, values in masks.items():
        if key in presence:
            continue
        own = _apart(space.spaces[key], values, count) if key in space.spaces else values
        present = masks.get(f"_{key}") if f"_{key}" in presence else None
        given = _length(own)
        if given != count:
            what = in_words(own) if given is None else f"{given} masks"
            raise ValueError(f"action_masks: {what} given for {key!r}; want one for each of {count}")
        for i in range(count):
            if present is None or present[i]:
                single[i][key] = own[i]
    return single


def _pairs(masks: NDArray[Any]) -> NDArray[np.bool_]:
    """(may be 0, may be 1) of each item, (E, 2n), from masks (E, n) of 0, 1 and 2."""
    return np.stack([masks != 1, masks != 0], axis=-1).reshape(len(masks), -1)


def _arrays(mask: Any, name: str) -> Iterator[NDArray[Any]]:
    """The arrays of a mask, which may be a nested tuple of them."""
    nested = isinstance(mask, tuple | list) and any(isinstance(part, tuple | list | np.ndarray) for part in mask)
    if nested or (isinstance(mask, np.ndarray) and mask.dtype == object and mask.ndim):
        for part in mask:
            yield from _arrays(part, name)
    else:
        yield as_array(mask, name)


def _length(masks: Any) -> int | None:
    """None of what has none, a 0-d array among it."""
    try:
        return len(masks)
    except TypeError:
        return None
