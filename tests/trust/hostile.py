"""Values that no caller should give and some do: `spoil(rng, value)` is like `value` but for one respect."""

import copy
import fractions
import math

import numpy as np
import torch


class Refusing:
    """Whatever it is asked for, it raises an error of its own."""

    def __index__(self):
        raise KeyError("of the caller's own")

    __float__ = __len__ = __iter__ = __array__ = __index__

    def __repr__(self):
        return "Refusing()"


class Subclass(np.ndarray):
    """What NumPy lets others derive."""


def refuse(*_, **__):
    """Whatever it is called with, it raises an error of its own."""
    raise KeyError("of the caller's own")


KINDS = {
    "None": lambda: None,
    "text": lambda: "text",
    "surrogate": lambda: "\ud800",
    "bytes": lambda: b"\0",
    "object": object,
    "refusing": Refusing,
    "class": lambda: Refusing,
    "function": lambda: refuse,
    "dict": dict,
    "set": set,
    "empty list": list,
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "nested": lambda: [[[]]],
    "recursive": lambda: recursive(),
    "complex": lambda: 1j,
    "generator": lambda: iter(()),
    "ellipsis": lambda: ...,
    "slice": lambda: slice(None),
    "module": lambda: math,
    "0-d": lambda: np.array(1.0),
    "array": lambda: np.ones(3),
    "tensor": lambda: torch.ones(3),
    "date": lambda: np.datetime64("2020-01-01"),
}
NUMBERS = [
    *(math.nan, math.inf, -math.inf, -1, 0, -0.0, 0.5, -1e-300, 5e-324, 1e308, 2**31, 2**32, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400), 10**5000),
    *(True, np.True_, np.float16(0.5), np.float32(0.5), np.longdouble(2), np.int8(-1), np.uint64(2**64 - 1)),
    *(np.array(2), np.array([2]), fractions.Fraction(1, 3), fractions.Fraction(10**400), 1j, "1", "nan", b"1"),
]
HUGE = 10**5  # numbers from here on, where they are legal, take as long as they say
ENTRIES = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e-300, -1e30, 1e300, 2.0**63]
DTYPES = [
    "e",
    "f",
    "d",
    "g",
    "F",
    "D",
    "b",
    "B",
    "h",
    "i",
    "q",
    "Q",
    "?",
    "O",
    "U3",
    "S3",
    "M8[s]",
    "m8[s]",
    ">f8",
    ">f4",
    "V4",
]


def recursive():
    own = []
    own.append(own)
    return own


def spoil(rng, value, dear=False):
    """(what was done, the spoiled value). dear: no huge numbers that may be legal, they would be obeyed."""
    try:
        return _spoiled(rng, value, dear)
    except (MemoryError, RuntimeError, TypeError, ValueError):  # no such array can be made of it
        return "None", None


def _spoiled(rng, value, dear):
    if rng.random() < 0.15:
        name = str(rng.choice(list(KINDS)))
        return name, KINDS[name]()
    if isinstance(value, np.ndarray):
        way = ARRAYS[rng.integers(len(ARRAYS))]
        return f"{way.__name__}", way(rng, value)
    if isinstance(value, torch.Tensor):
        way = ARRAYS[rng.integers(len(ARRAYS))]
        spoiled = np.array(way(rng, value.detach().numpy().copy()))
        try:
            return f"tensor {way.__name__}", torch.from_numpy(spoiled)
        except (TypeError, ValueError):
            return f"{way.__name__}", spoiled
    if value is None or isinstance(value, bool | int | float | np.number):
        while True:
            number = NUMBERS[rng.integers(len(NUMBERS))]
            if not (dear and isinstance(number, int | np.integer) and HUGE <= number < 2**63):
                return "number", number
    if isinstance(value, str):
        return "text", ["", value.upper(), value + " ", value * 1000, "auto", "\0", "float32", "fisher"][
            rng.integers(8)
        ]
    if isinstance(value, tuple | list):
        return items(rng, value, dear)
    if isinstance(value, dict):
        return entries(rng, value, dear)
    return instance(rng, value)


def items(rng, value, dear):
    """Of a tuple or a list."""
    way = rng.integers(6) if value else 3
    several = list(value)
    if way == 0:
        del several[rng.integers(len(several))]
    elif way == 1:
        several += several
    elif way == 2:
        array = np.empty(len(several), object)
        array[:] = several
        return "as an array", array
    elif way == 3:
        return "another kind", tuple(several) if isinstance(value, list) else several
    else:
        index = rng.integers(len(several))
        done, several[index] = spoil(rng, several[index], dear)
        return f"[{index}] {done}", getattr(type(value), "_make", type(value))(several)
    return "length", list(several) if isinstance(value, list) else tuple(several)


def entries(rng, value, dear):
    """Of a dict."""
    changed, keys = dict(value), list(value)
    if not keys or rng.random() < 0.2:
        return "a strange key", changed | {[b"key", 3, (), None][rng.integers(4)]: 0}
    key = keys[rng.integers(len(keys))]
    if rng.random() < 0.2:
        del changed[key]
        return f"without {key!r}", changed
    done, changed[key] = spoil(rng, changed[key], dear)
    return f"[{key!r}] {done}", changed


def instance(rng, value):
    """Of any class: half-made, by `__new__` alone, or a copy."""
    if isinstance(value, type) or (callable(value) and not hasattr(value, "__dict__")):
        return "not called", KINDS["object"]()
    way = rng.integers(3)
    try:
        if way == 0:
            return "by a subclass", type("Forgetful", (type(value),), {"__init__": lambda self, *_, **__: None})()
        if way == 1:
            return "copied", copy.copy(value)
    except TypeError:
        pass
    try:
        return "by __new__", type(value).__new__(type(value))
    except TypeError:
        return "None", None


def other_dtype(rng, array):
    with np.errstate(all="ignore"):
        kind = DTYPES[rng.integers(len(DTYPES))]
        try:
            return array.astype(kind)
        except (TypeError, ValueError):
            return np.zeros(array.shape, kind)


def other_shape(rng, array):
    return [
        lambda: array[None],
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: array.T,
        lambda: array[:0],
        lambda: array[:-1] if array.ndim else array,
        lambda: np.concatenate([array, array]) if array.ndim else array[None],
        lambda: np.zeros((0, *array.shape), array.dtype),
        lambda: array[..., :0] if array.ndim else array,
        lambda: array[(0,) * array.ndim] if array.size else array,
        lambda: np.zeros((1,) * 40, array.dtype),
        lambda: np.broadcast_to(np.zeros((), array.dtype), (2**40,)),
    ][rng.integers(12)]()


def strided(rng, array):
    """The same numbers, laid out in another way; aligned for bytes alone in one of them."""
    if not array.ndim:
        return array
    twice = np.repeat(array, 2, axis=0)
    way = rng.integers(5)
    if way == 0:
        return twice[::2]
    if way == 1:
        return array[::-1].copy()[::-1]
    if way == 2:
        return np.asfortranarray(array)
    if way == 3:
        memory = np.zeros(array.nbytes + 1, np.uint8)
        view = memory[1:].view(array.dtype).reshape(array.shape) if array.nbytes else array
        if array.nbytes:
            view[...] = array
        return view
    return np.broadcast_to(array[:1], array.shape)


def read_only(rng, array):
    own = array.copy()
    own.flags.writeable = False
    return own


def strange_entry(rng, array):
    own = array.copy()
    if own.size and own.dtype.kind in "fiub":
        entry = ENTRIES[rng.integers(len(ENTRIES))]
        if own.dtype.kind in "iu":
            entry = [-1, 2**31, np.iinfo(own.dtype).max, np.iinfo(own.dtype).min, 7][rng.integers(5)]
            entry = np.array(entry).astype(own.dtype)
        elif own.dtype.kind == "b":
            entry = bool(rng.integers(2))
        with np.errstate(all="ignore"):
            if rng.random() < 0.3:
                own[...] = entry
            else:
                own.reshape(-1)[rng.integers(own.size)] = entry
        if own.dtype.kind == "b" and rng.random() < 0.5:  # bytes that are neither 0 nor 1
            own.view(np.uint8)[...] = 255
    return own


def as_list(rng, array):
    return [array.tolist, lambda: tuple(array), lambda: memoryview(array), lambda: list(array)][
        rng.integers(4) if array.ndim else 0
    ]()


def as_tensor(rng, array):
    try:
        tensor = torch.from_numpy(np.array(array))
    except TypeError:
        return array
    way = rng.integers(4)
    if way == 0 and tensor.is_floating_point():
        return tensor.requires_grad_()
    if way == 1:
        return tensor.to("meta")
    if way == 2 and tensor.ndim == 2:
        return tensor.to_sparse()
    return tensor.to(torch.bfloat16) if way == 3 else tensor


def of_a_subclass(rng, array):
    return [array.view(Subclass), np.ma.masked_invalid(array) if array.dtype.kind == "f" else np.ma.array(array)][
        rng.integers(2)
    ]


ARRAYS = [other_dtype, other_shape, strided, read_only, strange_entry, strange_entry, as_list, as_tensor, of_a_subclass]


def share(rng, arguments):
    """Two of the arguments, arrays, lie in one memory from now on; their names, or None where there are no two."""
    names = [
        name
        for name, value in arguments.items()
        if isinstance(value, np.ndarray) and value.ndim and 0 < value.nbytes < 2**20
    ]
    if len(names) < 2:
        return None
    first, second = (str(name) for name in rng.choice(names, 2, replace=False))
    one, other = arguments[first], arguments[second]
    if one.dtype.hasobject or other.dtype.hasobject:
        return None
    offset = 8 * int(rng.integers(2))
    memory = np.zeros(max(one.nbytes, other.nbytes) + 8, np.uint8)
    for name, array, start in ((first, one, 0), (second, other, offset)):
        view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        arguments[name] = view
    return first, second
