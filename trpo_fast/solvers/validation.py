"""Checks of arguments that several solvers share."""

import math
import numbers
from typing import Any


def require_number(name: str, value: Any, *, low: float, inclusive: bool = True, high: float = math.inf) -> float:
    """`value` as a float, or an error that names it: wanted finite or `high`, and >= (or >) `low`, <= `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: wanted a number, got {value!r}")
    number = float(value)
    if math.isnan(number) or not (number >= low if inclusive else number > low) or number > high:
        bound = f"{'>=' if inclusive else '>'} {low:g}" + (f" and <= {high:g}" if math.isfinite(high) else "")
        raise ValueError(f"{name}: wanted a number {bound}, got {value!r}")
    return number


def require_count(name: str, value: Any, *, low: int) -> int:
    """`value` as an int >= `low`, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: wanted an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name}: wanted at least {low}, got {value}")
    return int(value)


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, or an error that names it."""
    if value not in choices:
        raise ValueError(f"{name}: wanted one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)
