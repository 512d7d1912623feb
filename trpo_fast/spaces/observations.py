"""Observations of any space as flat rows of floats, in the order of ``gymnasium.spaces.utils.flatten``.

A batch is what a Gymnasium VectorEnv returns: the structure of one observation with an axis more in front of every
array. It is flattened part by part, without a loop over the environments.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..solvers.arrays import as_array
from .descriptions import Box, Dict, Discrete, Leaf, MultiDiscrete, Space, Tuple, flat_size, leaves, values_of


@dataclass(frozen=True)
class Part:
    """Where the observations of one space without parts lie in a row."""

    space: Leaf
    shape: tuple[int, ...]
    """Of one observation of it."""
    columns: slice
    counts: NDArray[np.int64] | None
    """(m,) choices of each of its one-hot components; None where the values stay as they are."""
    starts: NDArray[np.int64]
    """(m,) first choice of each component."""
    offsets: NDArray[np.int64]
    """(m,) column of each component's first choice, counted from the part's first."""

    @classmethod
    def of(cls, space: Leaf, first_column: int) -> Part:
        """The part that begins at `first_column`."""
        columns = slice(first_column, first_column + flat_size(space))
        if not isinstance(space, Discrete | MultiDiscrete):
            none = np.empty(0, np.int64)
            return cls(space, space.shape, columns, None, none, none)
        counts = np.array(space.n if isinstance(space, Discrete) else space.nvec, np.int64).reshape(-1)
        starts = np.array(space.start, np.int64).reshape(-1)
        return cls(space, space.shape, columns, counts, starts, np.cumsum(counts) - counts)

    def check_kind(self, dtype: np.dtype[Any], name: str, call: str) -> None:
        """TypeError where values of `dtype` would lose something as numbers of the space: fractions, or a sign."""
        wanted = np.dtype(self.space.dtype)
        if not np.can_cast(dtype, wanted, "same_kind"):
            raise TypeError(f"{name}: {dtype} returned by {call}; want {wanted}, as its space says")

    def write(self, values: NDArray[Any], out: NDArray[Any], name: str) -> None:
        """Flatten `values` ``(N, *shape)`` into this part's columns of `out` (N, D); ValueError for no choice of it."""
        rows = out[:, self.columns]
        if self.counts is None:
            rows[...] = values.reshape(rows.shape)
            return
        if values.dtype.kind not in "iub":
            raise TypeError(f"{name}: dtype {values.dtype} given; want the integers of {self.space}")
        choices = values.reshape(len(rows), self.starts.size).astype(np.int64) - self.starts
        strange = (choices < 0) | (choices >= self.counts)
        if strange.any():
            raise ValueError(f"{name}: {(choices + self.starts)[strange][0]} is no choice of {self.space}")
        rows[...] = 0
        np.put_along_axis(rows, choices + self.offsets, 1, axis=1)


class ObservationLayout:
    """How the observations of a space become rows.

    Parameters
    ----------
    space : Space
        Of one environment. ValueError where it has no item.

    Attributes
    ----------
    size : int
        D.
    dtype : numpy.dtype
        float32 where that holds every value of the space (float16, uint8, one-hot columns), float64 where it does not.
    is_plain : bool
        A Box: observations are arrays themselves, and rows a view of them where they have `dtype`.
    parts : tuple of Part
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.is_plain = isinstance(space, Box)
        parts: list[Part] = []
        for leaf in leaves(space):
            parts.append(Part.of(leaf, parts[-1].columns.stop if parts else 0))
        self.parts = tuple(parts)
        self._paths = list(_paths(space))
        self.size: int = parts[-1].columns.stop if parts else 0
        if self.size == 0:
            raise ValueError(f"observation space: {space} given; want at least one item")
        wide = np.result_type(np.float32, *[part.space.dtype for part in parts if isinstance(part.space, Box)])
        self.dtype = np.dtype(np.float64 if wide.itemsize > 4 else np.float32)

    def values(self, observation: Any, name: str) -> Iterator[tuple[Part, Any, str]]:
        """Each part with its value in `observation`, one or a batch, and what to call it where `observation` is `name`.

        ValueError where the observation is not built as the space is; the values themselves are not looked at.
        """
        if self.is_plain:
            return iter(((self.parts[0], observation, name),))
        return zip(self.parts, *zip(*values_of(self.space, observation, name), strict=True), strict=True)

    def flatten(self, observations: Any, count: int, out: NDArray[Any], call: str) -> None:
        """Write a batch of `count` observations, which `call` returned, into `out` (count, D); ValueError names it."""
        for part, value, name in self.values(observations, "observations"):
            wanted, shape = (count, *part.shape), np.shape(value)
            if shape != wanted:
                raise ValueError(f"{name}: shape {shape} returned by {call}; want {wanted}, as their space says")
            array = np.asarray(value)
            part.check_kind(array.dtype, name, call)
            part.write(array, out, name)

    def flatten_each(self, observations: Sequence[Any], out: NDArray[Any], call: str, first: int = 0) -> None:
        """Write single observations, which `call` of environment `first` and the next ones returned, into `out` (n, D).

        ValueError or TypeError names the environment whose observation does not fit.
        """
        for part, path in zip(self.parts, self._paths, strict=True):
            try:
                array = np.array([functools.reduce(operator.getitem, path, one) for one in observations])
                fits = array.shape == (len(observations), *part.shape)
            except (LookupError, TypeError, ValueError):  # another structure; lists of different lengths
                fits = False
            if not fits or not np.can_cast(array.dtype, part.space.dtype, "same_kind"):
                for index, observation in enumerate(observations, first):
                    self.check(observation, f"observation of environment {index}", call)
            try:
                part.write(array, out, "observations")
            except (TypeError, ValueError):
                each = range(first, first + len(observations))
                self._write_singly(observations, out, [f"observation of environment {i}" for i in each])
                raise

    def check(self, observation: Any, name: str, call: str) -> None:
        """ValueError or TypeError where a part of one observation has not the shape and kind that its space says."""
        for part, value, part_name in self.values(observation, name):
            try:
                shape: Any = np.shape(value)
            except ValueError:
                shape = "lists of different lengths"
            if shape != part.shape:
                raise ValueError(
                    f"{part_name}: {type(value).__name__} of shape {shape} returned by {call}; want {part.shape}, as "
                    "its space says"
                )
            part.check_kind(np.asarray(value).dtype, part_name, call)

    def flatten_some(self, observations: Any, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of the environments at `indices`, of a batch or of a sequence with one observation for each."""
        rows = np.empty((len(indices), self.size), self.dtype)
        is_batch = (
            observations.dtype != object if isinstance(observations, np.ndarray) else self._is_batch(observations)
        )
        if is_batch:
            for part, value, name in self.values(observations, "final observations"):
                part.write(np.asarray(value)[indices], rows, name)
            return rows
        self._write_singly(
            [observations[index] for index in indices], rows, [f"final observation of environment {i}" for i in indices]
        )
        return rows

    def _write_singly(self, observations: Sequence[Any], out: NDArray[Any], names: Sequence[str]) -> None:
        """Write each of `observations` into its row of `out` (n, D); ValueError or TypeError has its name."""
        for observation, row, whole in zip(observations, out, names, strict=True):
            for part, value, name in self.values(observation, whole):
                part.write(np.asarray(value)[None], row[None], name)

    def _is_batch(self, observations: Any) -> bool:
        return isinstance(observations, Mapping) or (isinstance(observations, tuple) and isinstance(self.space, Tuple))

    def flatten_any(self, observation: Any) -> tuple[NDArray[np.float64], bool]:
        """Rows (N, D) of one observation or a batch of them; also whether it was a single one.

        Arrays may be lists. ValueError names what was given and what is wanted where it is neither.
        """
        named = []
        for part, value, name in self.values(observation, "observation"):
            array = as_array(value, name)
            if array.shape != part.shape and array.shape[1:] != part.shape:
                batch = ", ".join(["n", *map(str, part.shape)]) + ("" if part.shape else ",")
                raise ValueError(
                    f"{name}: shape {array.shape} given; want {part.shape} for one observation or ({batch}) for several"
                )
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{name}: dtype {array.dtype} given; want real numbers")
            named.append((part, array, name))
        first, array, _ = named[0]
        single = array.shape == first.shape
        count = 1 if single else len(array)
        rows = np.empty((count, self.size))
        for part, array, name in named:
            wanted = part.shape if single else (count, *part.shape)
            if array.shape != wanted:
                raise ValueError(
                    f"{name}: shape {array.shape} given; want {wanted}, as of the observation's first part"
                )
            part.write(array.reshape(count, *part.shape), rows, name)
        return rows, single

    def finite_rows(self, observation: Any) -> tuple[NDArray[np.float64], bool]:
        """`flatten_any`; ValueError names the first entry that is not finite, too."""
        if _is_of_reset(self.space, observation):
            raise ValueError(
                "observation: an observation and an info given, as env.reset() returns; want the first of the two"
            )
        rows, single = self.flatten_any(observation)
        finite = np.isfinite(rows)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            where = "" if single else f"row {row}, "
            raise ValueError(f"observation: {where}column {column} is {rows[row, column]}; want finite numbers")
        return rows, single


def _is_of_reset(space: Space, observation: Any) -> bool:
    pair = isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], Mapping)
    return pair and not isinstance(space, Tuple)


def _paths(space: Space) -> Iterator[tuple[Any, ...]]:
    """Keys and indices that lead to each part of an observation."""
    parts: Iterable[tuple[Any, Space]] = ()
    if isinstance(space, Dict):
        parts = space.spaces.items()
    elif isinstance(space, Tuple):
        parts = enumerate(space.spaces)
    else:
        yield ()
    for key, part in parts:
        yield from ((key, *rest) for rest in _paths(part))
