"""Checks of arguments that several solvers share."""

import math
import numbers
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._core.library import as_double, in_words

Kind = TypeVar("Kind")
LARGEST_COUNT = 2**31 - 1  # the compiled loops count in C ints


def require_number(name: str, value: Any, *, low: float, inclusive: bool = True, finite: bool = True) -> float:
    """`value` as a float, or an error that names it.

    Wanted is a number ``>= low``, or ``> low`` if not `inclusive`; infinity only if not `finite`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: {in_words(value)} given; want a number")
    number = as_double(value, name)
    if not (number >= low if inclusive else number > low) or (finite and number == math.inf):
        kind = "finite number" if finite else "number"
        raise ValueError(f"{name}: {in_words(value)} given; want a {kind} {'>=' if inclusive else '>'} {low:g}")
    return number


def require_fraction(name: str, value: Any) -> float:
    """`value` as a float in (0, 1), or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: {in_words(value)} given; want a number")
    number = as_double(value, name)
    if not 0 < number < 1:
        raise ValueError(f"{name}: {in_words(value)} given; want a number in (0, 1)")
    return number


def require_count(name: str, value: Any, *, low: int, most: int = LARGEST_COUNT) -> int:
    """`value` as an int in `low` to `most`, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: {in_words(value)} given; want an integer")
    count = int(value)
    if count < low:
        raise ValueError(f"{name}: {in_words(value)} given; want at least {low}")
    if count > most:
        raise ValueError(f"{name}: {in_words(value)} given; want at most {most}")
    return count


def require_bool(name: str, value: Any) -> bool:
    """`value` as a bool if it is one, or an error that names it."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {in_words(value)} given; want True or False")
    return bool(value)


def require_rows(name: str, value: Any) -> NDArray[np.int64] | None:
    """`value` as increasing row numbers, each once, or an error that names it; None as it is.

    How many rows there are is known to the engine alone.
    """
    if value is None:
        return None
    want = "increasing row numbers, an ndarray of int64 of shape (S,)"
    if not isinstance(value, np.ndarray) or value.dtype != np.int64 or value.ndim != 1:
        of = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: {of} given; want {want}")
    wrong = value < 0
    wrong[1:] |= value[1:] <= value[:-1]  # their differences may be beyond int64
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{name}: item {index} is {value[index]}; want {want}")
    return np.ascontiguousarray(value)


def require_kind(name: str, value: Any, kind: type[Kind]) -> Kind:
    """`value` if it is an instance of `kind`, or a TypeError that names it."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: {in_words(value)} given; want a {kind.__name__}")
    return value


def require_items(name: str, value: Any, want: str) -> list[Any]:
    """The items of `value`, or a TypeError that names it and says what is wanted; a 0-d array and bytes have none."""
    try:
        if isinstance(value, bytes | bytearray):
            raise TypeError
        return list(value)
    except (NotImplementedError, TypeError) as error:  # what has none; a memoryview of several axes
        raise TypeError(f"{name}: {in_words(value)} given; want {want}") from error
