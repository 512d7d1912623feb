"""Checks of arguments that several solvers share."""

import math
import numbers
from typing import Any

import numpy as np

from .._core.library import as_double, in_words

LARGEST_COUNT = 2**31 - 1  # the compiled loops count in C ints


def require_number(name: str, value: Any, *, low: float, inclusive: bool = True, finite: bool = True) -> float:
    """`value` as a float, or an error that names it.

    Wanted is a number ``>= low``, or ``> low`` if not `inclusive`; infinity only if not `finite`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: wanted a number, got {value!r}")
    number = as_double(value, name)
    if not (number >= low if inclusive else number > low) or (finite and number == math.inf):
        kind = "finite number" if finite else "number"
        raise ValueError(f"{name}: wanted a {kind} {'>=' if inclusive else '>'} {low:g}, got {in_words(value)}")
    return number


def require_fraction(name: str, value: Any) -> float:
    """`value` as a float in (0, 1), or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: wanted a number, got {value!r}")
    number = as_double(value, name)
    if not 0 < number < 1:
        raise ValueError(f"{name}: wanted a number in (0, 1), got {in_words(value)}")
    return number


def require_count(name: str, value: Any, *, low: int, most: int = LARGEST_COUNT) -> int:
    """`value` as an int in `low` to `most`, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: wanted an integer, got {value!r}")
    count = int(value)
    if count < low:
        raise ValueError(f"{name}: wanted at least {low}, got {in_words(value)}")
    if count > most:
        raise ValueError(f"{name}: wanted at most {most}, got {in_words(value)}")
    return count


def require_bool(name: str, value: Any) -> bool:
    """`value` as a bool if it is one, or an error that names it."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: wanted True or False, got {value!r}")
    return bool(value)


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, or an error that names it."""
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)
