"""A policy's mathematics over the samples of all ranks, each of which has a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.operator import CallableOperator, Operator
from trpo_fast.ranks import Ranks

from .autograd import AutogradEngine
from .native import NativeEngine

if TYPE_CHECKING:
    from trpo_fast.rollout.batch import Batch


class SummedOperator(CallableOperator):
    """F v as the sum of the ranks' products, one reduction of an array of n numbers each.

    Attributes
    ----------
    local : Operator or None
        This rank's own, which leaves out the samples of the others; None where it has no row.
    """

    def __init__(self, local: Operator | None, ranks: Ranks, size: int, dtype: np.dtype[Any], weight: float) -> None:
        def product(v: NDArray[Any]) -> NDArray[Any]:
            out = np.zeros(size, dtype) if local is None else local.matvec(v)
            if weight != 1.0:
                out *= weight
            ranks.add(out)
            return out

        super().__init__(product, size, dtype, "the sum over ranks")
        self.local = local


class DistributedEngine:
    """`trpo_fast.solvers.engine.Engine` for one policy on several ranks: `trust_region_step` takes it as any other.

    Gradient, Fisher products, improvements and KLs are sums over the ranks' samples divided by the number of all, so
    that every rank finds the same numbers, takes the same decisions and has the same parameters afterwards. Each rank
    calls every method, in the same order. How often they meet: once each for `bind`, `entropy`, `surrogate_gradient`,
    `preconditioner`, a product and `evaluate`, and once for a `fisher_operator` of some rows.

    Parameters
    ----------
    engine : NativeEngine or AutogradEngine
        This rank's, over a policy with the same parameters as the others'.
    ranks : Ranks

    Attributes
    ----------
    name, reason : str
        Of `engine`.
    size : int
        n, number of parameters.
    dtype : numpy.dtype
    local : NativeEngine or AutogradEngine
        The engine given.
    ranks : Ranks
    """

    def __init__(self, engine: NativeEngine | AutogradEngine, ranks: Ranks) -> None:
        self.local, self.ranks = engine, ranks
        self.name, self.reason, self.size, self.dtype = engine.name, engine.reason, engine.size, engine.dtype
        self._share = 1.0  # of all samples, this rank's

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer of this rank's policy, (n,)."""
        return self.local.parameters()

    def parameters_changed(self) -> None:
        """Say that `parameters()` was written."""
        self.local.parameters_changed()

    def refresh(self) -> None:
        """Make sure that the parameters are those that the policy has now; see `PolicyEngine.refresh`."""
        self.local.refresh()

    def bind(self, batch: Batch, *, total: int | None = None, entropy_coefficient: float = 0.0) -> None:
        """Cache the forward pass of this rank's samples at the current parameters.

        Parameters
        ----------
        batch : Batch
        total : int, optional
            Samples of all ranks; added up by default.
        entropy_coefficient : float

        Raises
        ------
        ValueError
            As `bind` of the engine.
        """
        if total is None:
            count = np.array([batch.samples], np.int64)
            self.ranks.add(count)
            total = int(count[0])
        self.local.bind(batch, total=total, entropy_coefficient=entropy_coefficient)
        self._share = batch.samples / total

    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the objective at theta_old, (n,)."""
        gradient = self.local.surrogate_gradient()
        self.ranks.add(gradient)
        return gradient

    def fisher_operator(self, rows: NDArray[np.int64] | None = None) -> SummedOperator:
        """The undamped Fisher matrix at theta_old.

        With `rows`, increasing numbers of this rank's rows, which may be none, the mean is over those of all ranks.
        """
        if rows is None:
            return SummedOperator(self.local.fisher_operator(), self.ranks, self.size, self.dtype, 1.0)
        count = np.array([len(rows)], np.int64)
        self.ranks.add(count)
        if not count[0]:
            raise ValueError("rows: none given on any rank, wanted one at least")
        # The rank's own operator is the mean over its rows, times its share of all samples.
        weight = len(rows) / int(count[0]) / self._share
        local = self.local.fisher_operator(rows) if len(rows) else None
        return SummedOperator(local, self.ranks, self.size, self.dtype, weight)

    def preconditioner(self, kind: str, *, damping: float, rows: NDArray[np.int64] | None = None) -> Operator:
        """About (F + damping I)^-1, from the statistics of all ranks: see `NativeEngine.preconditioner`.

        Raises
        ------
        ValueError
            The engine is not native.
        FloatingPointError
            A statistic that is not finite.
        """
        if not isinstance(self.local, NativeEngine):
            return self.local.preconditioner(kind, damping=damping, rows=rows)
        rows = None if rows is not None and not len(rows) else rows
        statistics = self.local.kronecker_statistics(rows)
        share = self.dtype.type(self._share)
        flat = np.concatenate([part.ravel() for A, G in statistics for part in (A * share, G)])
        self.ranks.add(flat)
        summed, start = [], 0
        for A, G in statistics:
            pair = []
            for part in (A, G):
                pair.append(np.ascontiguousarray(flat[start : start + part.size].reshape(part.shape)))
                start += part.size
            summed.append((pair[0], pair[1]))
        return self.local.preconditioner(kind, damping=damping, statistics=summed)

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """(improvement, KL) of the current parameters against theta_old over all samples."""
        found = np.array(self.local.evaluate(kl_direction))
        self.ranks.add(found)
        return float(found[0]), float(found[1])

    def entropy(self) -> float:
        """Mean entropy over all samples at theta_old, in nats."""
        found = np.array([self.local.entropy() * self._share])
        self.ranks.add(found)
        return float(found[0])
