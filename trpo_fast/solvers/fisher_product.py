"""How a solve computes F v, of compiled operators: through the weights or with Jacobians, and of which numbers.

Through the weights, a product passes every row forwards and backwards. With cached output Jacobians
(`FisherOperator.cache_jacobians`) it needs up to half the operations less, but first they have to be made, by a
backward pass for each output, and every product reads them: where they come from further away than the L2 cache, that
may cost more than it saves. `jacobians_pay` estimates, from nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from .._core import library
from .._core.operator import Operator
from .._core.policy import FisherOperator
from ..caches import data_cache_bytes
from ..settings import UnavailableError

# In multiply-adds, as measured on the Cascade Lake of docs/benchmarks.md: what both products have in common takes
# longer than its multiply-adds; so does making Jacobians; an item of one comes from the L3 cache in the time of some.
_COMMON, _MAKING, _FAR_ITEM = 0.35, 1.4, 16
_LEAST_GAIN = 1.15  # of all products of a solve together: a busy machine takes a tenth off the gain


def jacobians_pay(widths: Sequence[int], rows: int, item_size: int, products: int, l2: int, l3: int) -> bool:
    """Whether making output Jacobians once is estimated to make all products together 1.15 times as fast.

    With P weights, P1 of the first layer and Pn of the last, A outputs, H hidden units, h of them below the last hidden
    layer, and k products, the question is, in multiply-adds a row,

        1.15 (k (U' + c) + 1.4 A (P - P1 - Pn)) < k (U + c),
        U = 4 P - 2 P1,   c = 0.35 U,   U' = 2 P + 2 A H + A h + 16 A h q

    where q, the part of the Jacobians that is read from beyond the L2 cache, is min(s / l2, 1), for s bytes of
    Jacobians, activations and observations: A h + A + H + inputs items a row. Where s is more than both l2 and half of
    l3, the answer is no.

    Parameters
    ----------
    widths : sequence of int
        Layer sizes, inputs first.
    rows, products : int
        Samples; products that are to come.
    item_size : int
        Bytes of a number: 4 or 8.
    l2, l3 : int
        Bytes of the caches; 0: not known, which counts as none.
    """
    weights = [a * b for a, b in pairwise(widths)]
    hidden, outputs = widths[1:-1], widths[-1]
    if len(hidden) < 2:
        return False
    cached = outputs * sum(hidden[:-1])
    read = rows * item_size * (cached + sum(widths))
    if read > max(l2, l3 / 2):
        return False
    far = min(read / l2, 1.0) if l2 else 1.0
    usual = 4 * sum(weights) - 2 * weights[0]
    with_jacobians = 2 * sum(weights) + 2 * outputs * sum(hidden) + cached * (1 + _FAR_ITEM * far)
    making = _MAKING * outputs * sum(weights[1:-1])
    common = _COMMON * usual
    return _LEAST_GAIN * (products * (with_jacobians + common) + making) < products * (usual + common)


def prepare_fisher(
    operator: Operator, products: int, jacobians: str = "auto", precision: str = "float32", rows: int = 0
) -> tuple[str, str]:
    """Tell a Fisher operator that about `products` products are to come, so that it may do work for all of them first.

    Parameters
    ----------
    operator : Operator
        Of ``engine.fisher_operator()``; one that is not compiled stays as it is. Of one that adds up the products of
        several it is these, its `parts`, that are prepared, all alike, for its own number of `rows`.
    products : int
    jacobians : {"auto", "always", "never"}
        "auto" asks `jacobians_pay`, with the caches that Linux tells of this machine's first processor; "always" is
        wherever `operator.jacobian_bytes` is not 0.
    rows : int
        Samples that a product passes, where the operator's are a part of them.
    precision : {"float32", "bfloat16"}
        "bfloat16" rounds what products multiply, and then there are no Jacobians to cache.

    Returns
    -------
    product, precision : str
        "jacobians" or "weights", how products are computed from now on, and of which numbers: "float32", "float64" or
        "bfloat16". Both "" of an operator that is not compiled.

    Raises
    ------
    ValueError
        There are no bfloat16 products of this operator; UnavailableError where there are none on this machine.
    """
    parts, every = (getattr(operator, name, None) for name in ("parts", "rows"))
    if parts is not None and every is not None:
        found = [prepare_fisher(part, products, jacobians, precision, every) for part in parts]
        return max(found, default=("", ""))
    if precision == "bfloat16":
        require_bfloat16("fisher_precision", bfloat16_obstacle(operator))
    if not isinstance(operator, FisherOperator):
        return "", ""
    if precision == "bfloat16" and operator.precision != "bfloat16":
        operator.use_bfloat16()
    if jacobians != "never" and operator.product == "weights" and operator.jacobian_bytes:
        pay = jacobians == "always" or jacobians_pay(
            operator.widths, max(rows, operator.rows), operator.dtype.itemsize, products, *_cache_sizes()
        )
        if pay:
            operator.cache_jacobians()
    return operator.product, operator.precision


def bfloat16_obstacle(operator: Operator | None = None, *, dtype: Any = np.float32) -> str | None:
    """Why `operator`, or any compiled one of `dtype`, cannot multiply bf16 numbers here; None where it can."""
    if operator is not None and not isinstance(operator, FisherOperator):
        return f"{type(operator).__name__} is not of the native engine"
    found = np.dtype(dtype) if operator is None else operator.dtype
    if found != np.float32:
        return f"the dtype is {found}"
    return library.bfloat16_obstacle()


def require_bfloat16(name: str, obstacle: str | None) -> None:
    """ValueError with the obstacle, if there is one, to "bfloat16" for the setting `name`; see `prepare_fisher`."""
    if obstacle:
        error = UnavailableError if obstacle == library.bfloat16_obstacle() else ValueError
        raise error(f"{name}: 'bfloat16' given, but {obstacle}; want 'float32'")


@lru_cache(maxsize=1)
def _cache_sizes() -> tuple[int, int]:
    return data_cache_bytes(2), data_cache_bytes(3)
