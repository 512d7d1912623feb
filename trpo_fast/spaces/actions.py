"""How the actions of a space are produced by a policy, stored, and handed to the environment."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core.library import as_double, in_words, require_choice
from ..solvers.arrays import as_array
from ..solvers.validation import require_count
from .descriptions import Box, Discrete, Leaf, MultiDiscrete, Space, leaves, named_leaves, nested, values_of

ACTION_MAPS = ("auto", "affine", "clip")
"""How a Gaussian action becomes one of a Box: see `resolved_action_map`."""

REACH = 3.0
"""Standard deviations: one draw in 740 goes farther to either side. The wide boxes of MuJoCo's tasks end at 3."""

_WHOLE = "the action"

_NO_BOUND = 1e9
"""Bounds of this size are a way of writing none: the largest float, for example."""


class ActionLayout(NamedTuple):
    """How the actions of a space are produced by a policy, stored, and handed to the environment.

    A stored action is the policy's own, and its log-probability is of that. The environment gets
    ``clip(scale * action + offset, low, high)`` of a Gaussian one, and ``action + start`` of any other.

    The parts of a Tuple or a Dict, or of such inside, are independent of each other: a product. All that is stored of
    it, outputs, actions and masks stand one after the other in the order of `leaves`; its actions are floats, choices
    as whole numbers from 0 on.
    """

    distribution: str
    """"gaussian" (Box), "categorical" (Discrete), "multicategorical" (MultiDiscrete), "bernoulli" (MultiBinary) or
    "product" (Tuple, Dict)."""
    shape: tuple[int, ...]
    """Of one stored action: () for Discrete, otherwise (number of components,)."""
    outputs: int
    """Of the policy network: one for each dimension, or the logits of all components one after the other."""
    nvec: tuple[int, ...]
    """Choices of each categorical component; empty for a Box, for MultiBinary and for a product."""
    mask_size: int
    """K, items of one action mask: the choices of all components; (may be 0, may be 1) of each for MultiBinary."""
    start: NDArray[np.int64]
    """What is added to a stored action for the environment, one item per component; empty for a Box, 0 in a product."""
    low: NDArray[np.float64] | None
    """Bounds that a Gaussian action is clipped to for the environment, flat; None where actions are discrete, infinite
    for the choices of a product."""
    high: NDArray[np.float64] | None
    scale: NDArray[np.float64] | None
    """Of the affine map from [-1, 1] to the bounds, flat; None where an action is only clipped, and where discrete; 1
    for the choices of a product."""
    offset: NDArray[np.float64] | None
    parts: tuple[ActionLayout, ...] = ()
    """Of a product."""

    @property
    def log_std_size(self) -> int:
        """Log standard deviations: one for each dimension of a Gaussian."""
        return sum(part.outputs for part in self.parts or (self,) if part.distribution == "gaussian")

    @property
    def kernel_arguments(self) -> tuple[tuple[int, ...] | None, tuple[tuple[Any, ...], ...] | None]:
        """``nvec`` and ``parts`` as `trpo_fast._core.policy.PolicyKernel` takes them."""
        nvec = self.nvec if self.distribution == "multicategorical" else None
        parts = tuple((part.distribution, part.outputs, part.kernel_arguments[0]) for part in self.parts)
        return nvec, parts or None


def action_layout(space: Space, action_map: str = "clip") -> ActionLayout:
    """The layout of a supported action space; a ValueError names any other, and an `action_map` that it cannot have."""
    resolved_action_map(space, action_map)  # which may fit no part
    if isinstance(space, Leaf):
        return _layout_of(space, action_map, "action space")
    maps = [action_map if isinstance(leaf, Box) else "clip" for leaf in leaves(space)]
    named = named_leaves(space, "action")
    parts = tuple(_layout_of(leaf, word, f"{name}: its space") for (name, leaf), word in zip(named, maps, strict=True))
    if not parts:
        raise ValueError(f"action space: {space} given; want at least one item")
    sizes = [math.prod(part.shape) for part in parts]

    def joined(name: str, otherwise: float) -> NDArray[np.float64]:
        values = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.full(n, otherwise) if one is None else one for one, n in zip(values, sizes, strict=True)]
        )

    is_mapped = any(part.scale is not None for part in parts)
    return ActionLayout(
        "product",
        (sum(sizes),),
        sum(part.outputs for part in parts),
        (),
        sum(part.mask_size for part in parts),
        np.zeros(sum(sizes), np.int64),
        joined("low", -np.inf),
        joined("high", np.inf),
        joined("scale", 1.0) if is_mapped else None,
        joined("offset", 0.0) if is_mapped else None,
        parts,
    )


def _layout_of(space: Leaf, action_map: str, whose: str) -> ActionLayout:
    if isinstance(space, Box) and space.dtype.kind != "f":
        raise ValueError(f"{whose}: {space} given; want a Box of floats, not of integers")
    size = math.prod(space.shape)
    if size == 0:
        raise ValueError(f"{whose}: {space} given; want at least one item")
    if isinstance(space, Box):
        low, high = _bounds(space)
        mapped = resolved_action_map(space, action_map) == "affine"
        # Halves first: the difference of two finite bounds may overflow.
        scale, offset = (high / 2 - low / 2, high / 2 + low / 2) if mapped else (None, None)
        return ActionLayout("gaussian", (size,), size, (), 0, np.empty(0, np.int64), low, high, scale, offset)
    discrete = None, None, None, None
    if isinstance(space, Discrete):
        start = np.array([space.start], np.int64)
        return ActionLayout("categorical", (), space.n, (space.n,), space.n, start, *discrete)
    if isinstance(space, MultiDiscrete):
        nvec = tuple(int(n) for n in space.nvec.ravel())
        start = np.array(space.start, np.int64).ravel()
        return ActionLayout("multicategorical", (len(nvec),), sum(nvec), nvec, sum(nvec), start, *discrete)
    return ActionLayout("bernoulli", (size,), size, (), 2 * size, np.zeros(size, np.int64), *discrete)


class ActionStructure:
    """From the rows that acting writes for the environment to what the environment takes.

    Parameters
    ----------
    space : Space
        Of one action, supported.

    Attributes
    ----------
    space : Space
    is_nested : bool
        A Tuple or Dict.
    row_dtype : numpy.dtype
        Of the rows: int64 where actions are discrete, else float64 where a bound may need it, or float32.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        layout = action_layout(space)
        wide = np.float64 if layout.parts or (isinstance(space, Box) and space.dtype == np.float64) else np.float32
        self.row_dtype: np.dtype[Any] = np.dtype(np.int64 if layout.low is None else wide)
        self._parts = layout.parts or (layout,)
        self._edges = np.cumsum([0, *(math.prod(part.shape) for part in self._parts)])
        self._leaves = list(leaves(space))
        self.is_nested = bool(layout.parts)

    def batch(self, rows: NDArray[Any]) -> Any:
        """N actions as a vector environment takes them: arrays ``(N, *shape)`` of each space's dtype, nested as it is.

        `rows` (N, K), or (N,), are as `trpo_fast._core.acting.Actor` writes ``env_actions``, of `row_dtype`.
        """
        return nested(self.space, iter(self._arrays(rows)))

    def each(self, rows: NDArray[Any]) -> list[Any]:
        """The same actions, one by one, as single environments take them: those of a Discrete are NumPy integers."""
        arrays = self._arrays(rows)
        return [nested(self.space, (_item(array, i) for array in arrays)) for i in range(len(rows))]

    def rows(self, actions: Any, count: int | None) -> NDArray[Any]:
        """Actions as the environment takes them, one (None) or `count` of a batch, as rows (N, K) of the policy's.

        Choices are counted from 0, in int64, or in float64 beside numbers of a Box, which stay the environment's.
        ValueError, about "actions", where they are not of the space.
        """
        several = 1 if count is None else require_count("count", count, low=0)
        columns = []
        named = zip(self._leaves, self._parts, values_of(self.space, actions, "actions"), strict=True)
        for leaf, part, (value, name) in named:
            array, wanted = as_array(value, name), (() if count is None else (count,)) + leaf.shape
            if array.shape != wanted:
                raise ValueError(f"{name}: shape {array.shape} given; want {wanted}, an action for each observation")
            rows = array.reshape(several, math.prod(leaf.shape))
            if part.low is not None:
                inside = array.dtype.kind in "fiub" and np.isfinite(array).all()
            else:
                inside = array.dtype.kind in "iub"
                rows = rows.astype(np.int64) - part.start if inside else rows
                sizes = np.array(part.nvec or (2,) * rows.shape[1], np.int64)
                inside = inside and bool(((rows >= 0) & (rows < sizes)).all())
            if not inside:
                raise ValueError(f"{name}: {in_words(value)} given; want actions of {leaf}")
            columns.append(rows if part.low is None else rows.astype(np.float64))
        return np.concatenate(columns, axis=1)

    def _arrays(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        if not self.is_nested:
            (leaf,) = self._leaves
            return [rows.reshape(len(rows), *leaf.shape).astype(leaf.dtype)]
        arrays = []
        for leaf, part, first, last in zip(self._leaves, self._parts, self._edges[:-1], self._edges[1:], strict=True):
            columns = rows[:, first:last]
            if part.low is None:
                columns = columns.astype(np.int64) + part.start
            arrays.append(columns.reshape(len(rows), *leaf.shape).astype(leaf.dtype))
        return arrays


def _item(array: NDArray[Any], index: int) -> Any:
    return array[index] if array.ndim == 1 and array.dtype.kind in "iu" else array[index, ...]


def resolved_action_map(space: Space, action_map: str) -> str:
    """What `action_map` means for `space`: "affine" or "clip".

    - "affine": the policy's [-1, 1] is the box. Every side must be finite.
    - "clip": the policy's numbers are the environment's. All that there is for discrete actions, whose numbers nothing
      changes.
    - "auto": "affine" for a box with all sides finite, "clip" for every other space, and for [-1, 1] in all dimensions,
      where both are the same. One word for the whole box, so that log_std_init and the entropy mean the same in every
      dimension of a task.

    Of a Tuple or a Dict each Box has a map of its own: "auto" where they are not all the same.

    Raises
    ------
    ValueError
        No such map; or an affine one where a side is infinite, which is named, or where actions are discrete.
    """
    require_choice("action_map", action_map, ACTION_MAPS)
    boxes = [leaf for leaf in leaves(space) if isinstance(leaf, Box)]
    if not boxes and action_map == "affine":
        raise ValueError(f"action_map: 'affine' given for {space}; want 'auto' or 'clip', only a Box has sides")
    maps = {_resolved(box, action_map) for box in boxes} or {"clip"}
    return maps.pop() if len(maps) == 1 else "auto"


def _resolved(space: Box, action_map: str) -> str:
    low, high = _bounds(space)
    if action_map == "affine":
        infinite = np.flatnonzero(np.isinf(low) | np.isinf(high))
        if len(infinite):
            j = infinite[0]
            raise ValueError(
                f"action_map: 'affine' given, but {_name(space, j)} of {space} goes from {low[j]:g} to {high[j]:g}; "
                "want 'clip', or finite sides"
            )
    if action_map != "auto":
        return action_map
    bounded = (np.maximum(abs(low), abs(high)) < _NO_BOUND).all()
    return "affine" if bounded and not ((low == -1).all() and (high == 1).all()) else "clip"


def unreached_sides(space: Space, reach: float = REACH, action_map: str = "clip") -> list[tuple[str, float]]:
    """Sides of a Box that a policy of mean 0 does not make use of: dimension, as an error calls it, and bound.

    A side is unreached where it lies farther than `reach` from 0, so that hardly a draw gets there, and where 0 lies
    beyond it, so that most draws become that very bound. Infinite sides, and those of 1e9 and more, are none; nor are
    those of a box that `action_map` makes affine.
    """
    if not isinstance(space, Leaf):
        return [
            (name if side == _WHOLE else f"{side} of {name}", bound)
            for name, leaf in named_leaves(space, "action")
            for side, bound in unreached_sides(leaf, reach, action_map)
        ]
    if not isinstance(space, Box) or _resolved(space, action_map) == "affine":
        return []
    found, reach = [], as_double(reach, "reach")
    for bound, outward in zip(_bounds(space), (-1, 1), strict=True):
        distance = outward * bound  # from 0 to the side; negative: 0 lies beyond it
        where = np.flatnonzero((abs(bound) < _NO_BOUND) & ((distance > reach) | (distance < 0)))
        found += [(int(j), float(bound[j])) for j in where]
    return [(_name(space, j), bound) for j, bound in sorted(found)]


def _bounds(space: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(space.low, np.float64).ravel(), np.array(space.high, np.float64).ravel()


def _name(space: Box, index: int) -> str:
    place = np.unravel_index(index, space.shape) if space.shape else ()
    return f"dimension {', '.join(str(int(i)) for i in place)}" if place else _WHOLE
