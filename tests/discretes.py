"""Discrete spaces of other dtypes than int64, which Gymnasium has since 1.2.2."""

import inspect
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

_HAS_DTYPE = "dtype" in inspect.signature(Discrete.__init__).parameters


def discrete(n: int, start: int = 0, dtype: Any = np.int32) -> Discrete:
    """One of this dtype, or of int64 where Gymnasium knows no other."""
    return Discrete(n, start=start, dtype=dtype) if _HAS_DTYPE else Discrete(n, start=start)
