"""Numbers in the infos of environments, which are anything: those that somebody has asked for by name."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 16
"""Names that can be asked for at once."""


def number_of(value: Any) -> float:
    """A number, a bool or an array of one item as a float; NaN for anything else."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, numbers.Real | np.bool_):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def column_of(infos: Any, name: str, count: int) -> NDArray[np.float64]:
    """(count,) what the infos of a Gymnasium VectorEnv have under a name; NaN for copies that have no number there."""
    values = infos.get(name) if isinstance(infos, Mapping) else None
    if not isinstance(values, np.ndarray | list | tuple) or len(values) != count:
        return np.full(count, np.nan)
    column = np.array([number_of(value) for value in values])
    present = infos.get(f"_{name}")
    return column if present is None else np.where(present, column, np.nan)
