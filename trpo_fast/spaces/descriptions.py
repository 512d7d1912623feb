"""The supported spaces as plain data, named and printed as Gymnasium's, and how they are written to JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import in_words
from trpo_fast.solvers.validation import require_count

_MOST_ITEMS = 2**26
"""Of a Box or MultiBinary in a file: far above every observation, and below what exhausts memory if it is damage."""
_NAME = re.compile(r"[<>=|]?[A-Za-z_]+\d{0,3}")  # of a dtype


@dataclass(frozen=True, eq=False, repr=False)
class Box:
    """Arrays of numbers between two bounds."""

    low: NDArray[Any]
    high: NDArray[Any]
    """Of one shape and dtype, those of the values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value."""
        return self.low.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.low.dtype

    def __repr__(self) -> str:
        return f"Box({_short(self.low)}, {_short(self.high)}, {self.shape}, {self.dtype})"


@dataclass(frozen=True, eq=False, repr=False)
class Discrete:
    """The `n` integers from `start` on."""

    n: int
    start: int
    dtype: np.dtype[Any]
    shape = ()

    def __repr__(self) -> str:
        start = f", start={self.start}" if self.start else ""
        return f"Discrete({self.n}{start}{'' if self.dtype == np.int64 else f', dtype={self.dtype}'})"


@dataclass(frozen=True, eq=False, repr=False)
class MultiDiscrete:
    """Arrays of integers, `nvec` choices for each, from `start` on."""

    nvec: NDArray[np.integer[Any]]
    start: NDArray[np.integer[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value."""
        return self.nvec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.nvec.dtype

    def __repr__(self) -> str:
        return f"MultiDiscrete({self.nvec}, start={self.start})" if self.start.any() else f"MultiDiscrete({self.nvec})"


@dataclass(frozen=True, eq=False, repr=False)
class MultiBinary:
    """Arrays of 0 and 1."""

    n: int | tuple[int, ...]
    """Items, or the shape."""
    dtype = np.dtype(np.int8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value."""
        return (self.n,) if isinstance(self.n, int) else self.n

    def __repr__(self) -> str:
        return f"MultiBinary({self.n})"


@dataclass(frozen=True, eq=False, repr=False)
class Dict:
    """A value of every space, by key."""

    spaces: Mapping[Any, Space]
    """In the order of their columns."""

    def __repr__(self) -> str:
        return f"Dict({', '.join(f'{key!r}: {space}' for key, space in self.spaces.items())})"


@dataclass(frozen=True, eq=False, repr=False)
class Tuple:
    """A value of every space, in order."""

    spaces: tuple[Space, ...]

    def __repr__(self) -> str:
        return f"Tuple({', '.join(map(str, self.spaces))})"


Leaf = Box | Discrete | MultiDiscrete | MultiBinary
Space = Leaf | Dict | Tuple


def leaves(space: Space) -> Iterator[Leaf]:
    """The spaces without parts inside `space`, in the order of their columns."""
    if isinstance(space, Leaf):
        yield space
        return
    for part in space.spaces.values() if isinstance(space, Dict) else space.spaces:
        yield from leaves(part)


def named_leaves(space: Space, name: str, place: str = "[{!r}]") -> Iterator[tuple[str, Leaf]]:
    """`leaves` with what to call each where a value of `space` is `name`: ``action['arm'][0]`` for example.

    `place` formats a key or index within.
    """
    if isinstance(space, Leaf):
        yield name, space
        return
    for key, part in space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces):
        yield from named_leaves(part, name + place.format(key), place)


def nested(space: Space, values: Iterator[Any]) -> Any:
    """A value of `space`, of which `values` are the parts in the order of `leaves`; or one for each of a batch."""
    if isinstance(space, Dict):
        return {key: nested(part, values) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(nested(part, values) for part in space.spaces)
    return next(values)


def flat_size(leaf: Leaf) -> int:
    """Columns that an observation of `leaf` takes: one for each item of a Box, one for each choice of the discrete."""
    if isinstance(leaf, Discrete):
        return leaf.n
    return int(leaf.nvec.sum()) if isinstance(leaf, MultiDiscrete) else math.prod(leaf.shape)


def numeric_columns(space: Space) -> NDArray[np.bool_]:
    """Which of the D columns are numbers (of a Box), and not one-hot or binary: those worth normalizing."""
    return np.concatenate([np.full(flat_size(leaf), isinstance(leaf, Box)) for leaf in leaves(space)])


def to_json(space: Space) -> dict[str, Any]:
    """Describe `space` by what ``json.dumps`` accepts; infinite bounds become strings, as JSON has none."""
    if isinstance(space, Box):
        return {
            "type": "Box",
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
            "shape": list(space.shape),
            "dtype": space.dtype.name,
        }
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": space.n, "start": space.start, "dtype": space.dtype.name}
    if isinstance(space, MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": space.dtype.name,
        }
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, Tuple):
        return {"type": "Tuple", "spaces": [to_json(part) for part in space.spaces]}
    check_keys(space.spaces, "space")
    # A list, because the order of the keys is the order of the columns.
    return {"type": "Dict", "spaces": [[key, to_json(part)] for key, part in space.spaces.items()]}


def check_keys(parts: Mapping[Any, Any], name: str) -> None:
    """ValueError where a Dict, called `name`, has keys that a file cannot keep: others than strings and integers."""
    for key in parts:
        if type(key) not in (str, int):
            raise ValueError(
                f"{name}: key {in_words(key)} given; want strings or integers as keys, a file keeps no others"
            )
    if len(set(map(str, parts))) < len(parts):
        raise ValueError(f"{name}: keys {list(parts)} given; want keys that differ as text, too")


def from_json(description: Mapping[str, Any], most: int | None = None) -> Space:
    """Inverse of `to_json`; ValueError when `description` is not one of its results.

    A few words can describe a space of gigabytes: one of more than `most` numbers, as an observation is flattened, is
    refused before any memory is taken.
    """
    if most is not None:
        most = require_count("most", most, low=0, most=2**63 - 1)
    try:
        items = _items(description)
        if most is not None and items > most:
            raise ValueError(f"{items:,} numbers given; want at most {most:,}, with networks of this size")
        return _read(description)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        # Of a description that is nested without end, as damage may be, no text can be made.
        given = type(description).__name__ if isinstance(error, RecursionError) else in_words(description)
        raise ValueError(f"damaged description of a space, {error!r}: {given}") from error


def _read(description: Mapping[str, Any]) -> Space:
    kind = description["type"]
    if kind not in _FROM_JSON:
        raise ValueError(f"type {in_words(kind)} given; want one of {', '.join(_FROM_JSON)}")
    return _FROM_JSON[kind](description)


def _items(description: Mapping[str, Any]) -> int:
    """Numbers in a flattened member."""
    if not isinstance(description, Mapping):
        raise TypeError("no mapping given")
    kind = description["type"]
    if kind == "Dict":
        return sum(_items(part) for _, part in description["spaces"])
    if kind == "Tuple":
        return sum(map(_items, description["spaces"]))
    if kind == "Discrete":
        return int(_integers(description["n"], least=1))
    if kind == "MultiDiscrete":
        return sum(_integers(description["nvec"], least=1).ravel().tolist())
    return math.prod(_shape(description["n" if kind == "MultiBinary" else "shape"], least=0))


def most_items(arrays: Mapping[str, NDArray[Any]], *, own: bool = False) -> int:
    """What a space may have at most that is said to be of networks with these arrays, `own` where a user made them.

    A network that is built here has more weights than inputs, and than outputs. Convolutions of a user's own may have
    few: hence the factor.
    """
    items = sum(array.size for array in arrays.values())
    return 2**20 + 64 * items if own else items


def _box_from_json(description: Mapping[str, Any]) -> Box:
    shape, dtype = _shape(description["shape"], least=0), _dtype(description["dtype"])
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype} given; want one of numbers")
    low, high = (_bounds_from_json(description[name], shape, dtype) for name in ("low", "high"))
    if not (low <= high).all():
        raise ValueError(f"low {low} and high {high} given; want low <= high")
    return Box(low, high)


def _discrete_from_json(description: Mapping[str, Any]) -> Discrete:
    dtype = _integer_dtype(description.get("dtype", "int64"))  # files written before it was noted are of this one
    return Discrete(int(_integers(description["n"], least=1)), int(_integers(description["start"])), dtype)


def _multi_discrete_from_json(description: Mapping[str, Any]) -> MultiDiscrete:
    dtype = _integer_dtype(description["dtype"])
    nvec, start = _integers(description["nvec"], least=1), _integers(description["start"])
    if nvec.shape != start.shape:
        raise ValueError(f"start {start} and nvec {nvec} given; want as many starts as choices")
    return MultiDiscrete(nvec.astype(dtype), start.astype(dtype))


def _multi_binary_from_json(description: Mapping[str, Any]) -> MultiBinary:
    shape = _shape(description["n"], least=1)
    return MultiBinary(shape if isinstance(description["n"], list) else shape[0])


def _tuple_from_json(description: Mapping[str, Any]) -> Tuple:
    return Tuple(tuple(_read(part) for part in description["spaces"]))


def _dict_from_json(description: Mapping[str, Any]) -> Dict:
    parts = [(key, _read(part)) for key, part in description["spaces"]]
    if len({str(key) for key, _ in parts}) < len(parts) or not all(type(key) in (str, int) for key, _ in parts):
        raise ValueError(
            f"keys of a Dict: {[key for key, _ in parts]!r:.100} given; want different strings or integers"
        )
    return Dict(dict(parts))


_FROM_JSON: dict[str, Callable[[Mapping[str, Any]], Space]] = {
    "Box": _box_from_json,
    "Discrete": _discrete_from_json,
    "MultiDiscrete": _multi_discrete_from_json,
    "MultiBinary": _multi_binary_from_json,
    "Dict": _dict_from_json,
    "Tuple": _tuple_from_json,
}
KINDS = ", ".join(_FROM_JSON)
"""Names of the supported spaces, for messages."""


def _integers(described: Any, least: float = -math.inf) -> NDArray[np.int64]:
    array = np.array(described)
    if array.size and (array.dtype.kind != "i" or (array < least).any()):
        raise ValueError(f"{described} given; want integers{f' >= {least}' if math.isfinite(least) else ''}")
    return array.astype(np.int64)


def _shape(described: Any, least: int) -> tuple[int, ...]:
    shape = tuple(_integers(described, least).ravel().tolist())
    if math.prod(shape) > _MOST_ITEMS:
        raise ValueError(f"{described} given; want at most {_MOST_ITEMS} items")
    return shape


def _dtype(name: Any) -> np.dtype[Any]:
    # NumPy takes None for float64, and parses a text with commas or brackets as Python.
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise TypeError(f"{in_words(name)} given; want the name of a dtype")
    return np.dtype(name)


def _integer_dtype(name: Any) -> np.dtype[Any]:
    dtype = _dtype(name)
    if dtype.kind not in "iu":
        raise ValueError(f"dtype {dtype} given; want one of integers")
    return dtype


def _bounds_to_json(bounds: NDArray[Any]) -> Any:
    # One number where all are equal: images have thousands.
    values = bounds.ravel()[:1] if bounds.size and (bounds == bounds.flat[0]).all() else bounds.ravel()
    described = [value if math.isfinite(value) else str(value) for value in values.tolist()]
    return described[0] if len(described) == 1 else described


def _bounds_from_json(described: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    values = described if isinstance(described, list) else [described]
    bounds = np.array([float(value) if isinstance(value, str) else value for value in values], dtype=dtype)
    return bounds.reshape(shape) if isinstance(described, list) else np.full(shape, bounds[0])


def _short(bounds: NDArray[Any]) -> str:
    return str(bounds.flat[0] if bounds.size and (bounds == bounds.flat[0]).all() else bounds)


def values_of(space: Space, observation: Any, name: str) -> Iterator[tuple[Any, str]]:
    """The value of each leaf of `space` in what is nested as it is, and what to call it where the whole is `name`.

    ValueError where it is not nested so; the values themselves are not looked at.
    """
    if isinstance(space, Dict):
        if not isinstance(observation, Mapping) or not observation.keys() >= space.spaces.keys():
            keys = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
            raise ValueError(f"{name}: {keys} given; want a dict with {', '.join(map(str, space.spaces))}")
        for key, part in space.spaces.items():
            yield from values_of(part, observation[key], f"{name}[{key!r}]")
    elif isinstance(space, Tuple):
        if not isinstance(observation, tuple) or len(observation) != len(space.spaces):
            given = f"a {type(observation).__name__}" + (
                f" of {len(observation)} items" if isinstance(observation, Sequence) else ""
            )
            raise ValueError(f"{name}: {given} given; want a tuple of {len(space.spaces)} items")
        for index, part in enumerate(space.spaces):
            yield from values_of(part, observation[index], f"{name}[{index}]")
    else:
        yield observation, name
