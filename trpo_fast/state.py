"""State that something goes on from, as plain data: how parts say it, and how it becomes bytes that hold no code.

Every part that a training goes on from has the pair of :class:`Stateful`. A state is a dict of names to plain data:
arrays, NumPy's and Python's numbers, strings, bytes, booleans, None, and lists, tuples and dicts (with strings as keys)
of these. Types and dtypes are kept exactly: a simulator may well compute other bits from a float64 than from a float.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

State = dict[str, Any]

_KINDS = "biufcSU"
_DTYPE = re.compile(r"\|b1|[<>|][iu][1248]|[<>]f(2|4|8|16)|[<>]c(8|16|32)|\|S\d{1,9}|[<>]U\d{1,9}")
_MOST_BITS = 14_284  # 4,300 digits: Python reads and writes no more
_ALIGNMENT = 8
_LENGTH = 8  # bytes of the number in front of the description


class Stateful(Protocol):
    """What says its state, and takes it back."""

    def get_state(self) -> State:
        """All that it goes on from: a copy, which nothing changes afterwards."""

    def set_state(self, state: State) -> None:
        """Go on as what said `state`, to the bit; ValueError where that is not a state of this."""


def copied(value: Any, name: str = "state") -> Any:
    """`value` again, sharing no memory with it; TypeError names what in it is no plain data."""
    kind = type(value)
    if kind is int and value.bit_length() > _MOST_BITS:
        raise TypeError(f"{name}: an integer of over 4,300 digits given; want a smaller one, or its bytes")
    if value is None or kind in (bool, int, float, str, bytes):
        return value
    if kind is np.ndarray and value.dtype.kind in _KINDS:
        return value.copy()
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return value
    if kind in (list, tuple):
        return kind([copied(item, f"{name}[{i}]") for i, item in enumerate(value)])
    if kind is dict and all(type(key) is str for key in value):
        return {key: copied(item, f"{name}[{key!r}]") for key, item in value.items()}
    what = f"an array of {value.dtype}" if kind is np.ndarray else "keys that are no str" if kind is dict else kind
    raise TypeError(
        f"{name}: {what} given; want arrays, numbers, strings, bytes, None, and lists, tuples or dicts of these"
    )


def packed(value: Any) -> NDArray[np.uint8]:
    """Plain data as bytes; TypeError names what is none."""
    parts: list[bytes] = []
    size = 0

    def keep(data: bytes) -> int:
        nonlocal size
        offset = size
        padded = data + bytes(-len(data) % _ALIGNMENT)
        parts.append(padded)
        size += len(padded)
        return offset

    def described(value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is list:
            return [described(item) for item in value]
        if kind is dict:
            return {"dict": {key: described(item) for key, item in value.items()}}
        if kind is tuple:
            return {"tuple": [described(item) for item in value]}
        if kind is bytes:
            return {"bytes": [keep(value), len(value)]}
        return {
            "array" if kind is np.ndarray else "number": [value.dtype.str, list(value.shape), keep(value.tobytes())]
        }

    description = json.dumps(described(copied(value))).encode()
    description += b" " * (-len(description) % _ALIGNMENT)
    content = len(description).to_bytes(_LENGTH, "little") + description + b"".join(parts)
    return np.frombuffer(content, np.uint8)


def unpacked(content: NDArray[np.uint8]) -> Any:
    """What :func:`packed` was given; ValueError where the bytes are not its."""
    data = memoryview(content.tobytes())
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or end > len(data):
        raise ValueError(f"{len(data)} bytes given; want a length of {_LENGTH} bytes, and as many")
    rest = data[end:]
    position = 0

    def taken(offset: Any, count: int) -> memoryview:
        # Each byte once, in the order they were written in: many descriptions of the same bytes would be a state that
        # is larger than its file.
        nonlocal position
        if not (type(offset) is int and offset == position and offset + count <= len(rest)):
            raise ValueError(f"{count} bytes from {offset!r} on are not there")
        position += count + -count % _ALIGNMENT
        return rest[offset : offset + count]

    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [made(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise ValueError(f"{sorted(value)} given; want one of dict, tuple, bytes, array, number")
        ((kind, about),) = value.items()
        if kind == "dict" and isinstance(about, dict):
            return {key: made(item) for key, item in about.items()}
        if kind == "tuple" and isinstance(about, list):
            return tuple(made(item) for item in about)
        if kind == "bytes" and isinstance(about, list) and len(about) == 2 and _is_size(about[1]):
            return bytes(taken(*about))
        if kind in ("array", "number") and isinstance(about, list) and len(about) == 3:
            array = _array(about[0], about[1], about[2], taken)
            if kind == "array":
                return array
            if array.ndim == 0:
                return array[()]
        raise ValueError(f"{kind!r} of {about!r:.100} is not what this writes")

    try:
        return made(json.loads(bytes(data[_LENGTH:end])))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _array(dtype: Any, shape: Any, offset: Any, taken: Any) -> NDArray[Any]:
    if not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
        raise ValueError(f"{dtype!r:.100} is no dtype that this writes")
    kind = np.dtype(dtype)
    if not (isinstance(shape, list) and all(map(_is_size, shape)) and len(shape) <= 32):
        raise ValueError(f"{shape!r:.100} is no shape")
    return np.ndarray(shape, kind, bytes(taken(offset, math.prod(shape) * kind.itemsize))).copy()


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48
