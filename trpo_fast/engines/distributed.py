"""A policy's mathematics over the samples of all ranks, each of which has a part of them, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import in_words
from trpo_fast._core.operator import CallableOperator, Operator
from trpo_fast.ranks import Ranks

from .autograd import AutogradEngine
from .native import NativeEngine

if TYPE_CHECKING:
    from trpo_fast.rollout.batch import Batch


MOST_PARTS = 16
# Parameters up to which the sums of parts are gathered: beyond, that takes more than a tenth of an update.
MOST_ORDERED = 2**15


def parts_of(ranks: Ranks | None, num_envs: int, engine: NativeEngine | AutogradEngine) -> int | None:
    """How many `parts` a rank of a training has; None where sums are reduced.

    The whole training has as many as the largest divisor of the number of environments up to 16, however many ranks
    there are, so that these have to divide that; a policy has to act to the same bits in any company, and to be small
    enough that gathering is cheap.
    """
    if ranks is None or not isinstance(engine, NativeEngine) or engine.size > MOST_ORDERED:
        return None
    whole = max(count for count in range(1, MOST_PARTS + 1) if num_envs % count == 0)
    return None if whole % ranks.size else whole // ranks.size


class SummedOperator(CallableOperator):
    """F v as the sum of products over parts of the samples; all ranks meet once for each.

    Attributes
    ----------
    parts : list of Operator
        This rank's own.
    rows : int
        Samples of all ranks that a product passes: what does not depend on how many ranks there are.
    """

    def __init__(
        self, parts: Sequence[Operator | None], weights: Sequence[float], engine: DistributedEngine, rows: int
    ) -> None:
        size, dtype = engine.size, engine.dtype

        def product(v: NDArray[Any]) -> NDArray[Any]:
            products = np.zeros((len(parts), size), dtype)
            for part, weight, out in zip(parts, weights, products, strict=True):
                if part is not None:
                    part.matvec(v, out)
                    if weight != 1.0:
                        out *= weight
            return engine.sum_of_parts(products)

        super().__init__(product, size, dtype, "the sum over ranks")
        self.parts = [part for part in parts if part is not None]
        self.rows = rows


class DistributedEngine:
    """`trpo_fast.solvers.engine.Engine` for one policy on several ranks: `trust_region_step` takes it as any other.

    Gradient, Fisher products, improvements and KLs are sums over the ranks' samples divided by the number of all, so
    that every rank finds the same numbers, takes the same decisions and has the same parameters afterwards. Each rank
    calls every method, in the same order. How often they meet: once each for `bind` without a total, `entropy`,
    `surrogate_gradient`, `preconditioner`, a product and `evaluate`, and once for a `fisher_operator` of some rows.

    Parameters
    ----------
    engine : NativeEngine or AutogradEngine
        This rank's, over a policy with the same parameters as the others'.
    ranks : Ranks
    parts : int, optional
        Of a native engine, how many parts this rank's samples have, the same number on every rank: what is computed of
        each part is gathered and added in the order of ranks and parts. The same parts then give the same bits on any
        number of ranks. By default the sums of ranks are reduced, which takes a round as well, of fewer bytes, and
        gives the same bits on all ranks, but other last ones for another number of them.

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

    def __init__(self, engine: NativeEngine | AutogradEngine, ranks: Ranks, *, parts: int | None = None) -> None:
        if parts is not None and (isinstance(parts, bool) or not isinstance(parts, int) or parts < 1):
            raise ValueError(f"parts: {in_words(parts)} given; want an integer >= 1, or None")
        if parts is not None and not isinstance(engine, NativeEngine):
            raise ValueError(f"parts: {parts} given; want None for the {engine.name} engine")
        self.local, self.ranks = engine, ranks
        self.name, self.reason, self.size, self.dtype = engine.name, engine.reason, engine.size, engine.dtype
        self._in_order = parts is not None
        self._engines: list[NativeEngine | AutogradEngine] = [engine]
        if isinstance(engine, NativeEngine):
            self._engines += [NativeEngine(engine.policy) for _ in range(1, parts or 1)]
        self._shares: list[float] = [1.0] * len(self._engines)  # of all samples, those of each part
        self._starts: list[int] = [0]
        self._total = 0  # samples of all ranks

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
            Its `part_starts` say where the parts begin, where there are several.
        total : int, optional
            Samples of all ranks; added up by default.
        entropy_coefficient : float

        Raises
        ------
        ValueError
            As `bind` of the engine; another number of parts.
        """
        if len(batch.part_starts) != len(self._engines):
            raise ValueError(f"batch: {len(batch.part_starts)} parts given; want {len(self._engines)}")
        if total is None:
            count = np.array([batch.samples], np.int64)
            self.ranks.add(count)
            total = int(count[0])
        self._total = total
        self._starts = [*batch.part_starts, len(batch)]
        if not isinstance(self.local, NativeEngine):
            self._shares = [batch.samples / total]
            self.local.bind(batch, total=total, entropy_coefficient=entropy_coefficient)
            return
        self.local.require_served()
        for index, engine in enumerate(self._engines):
            part = batch.part(index)
            self._shares[index] = 0.0 if part is None else part.samples / total
            if part is not None and isinstance(engine, NativeEngine):
                engine.bind_served(part, total, entropy_coefficient)

    def surrogate_gradient(self) -> NDArray[Any]:
        """Gradient of the objective at theta_old, (n,)."""
        return self._sum(lambda engine, *_: engine.surrogate_gradient(), self.size, self.dtype)

    def fisher_operator(self, rows: NDArray[np.int64] | None = None) -> SummedOperator:
        """The undamped Fisher matrix at theta_old.

        With `rows`, increasing numbers of this rank's rows, which may be none, the mean is over those of all ranks.
        """
        if rows is None:
            operators = [engine.fisher_operator() if share else None for engine, share in self._parts]
            return SummedOperator(operators, [1.0] * len(operators), self, self._total)
        count = np.array([len(rows)], np.int64)
        self.ranks.add(count)
        if not count[0]:
            raise ValueError("rows: none given on any rank; want one at least")
        bounds = np.searchsorted(rows, self._starts)
        some = [rows[first:last] - start for first, last, start in zip(bounds, bounds[1:], self._starts, strict=False)]
        # The operator of some rows is the mean over them, times the part's share of all samples.
        weights = [
            len(own) / int(count[0]) / share if share else 1.0
            for own, (_, share) in zip(some, self._parts, strict=True)
        ]
        operators = [
            engine.fisher_operator(own) if len(own) else None
            for own, (engine, _) in zip(some, self._parts, strict=True)
        ]
        return SummedOperator(operators, weights, self, int(count[0]))

    def preconditioner(self, kind: str, *, damping: float, rows: NDArray[np.int64] | None = None) -> Operator:
        """About (F + damping I)^-1, from the statistics of all ranks: see `NativeEngine.preconditioner`.

        `rows` are not looked at: of every part a spread over its own rows is taken.

        Raises
        ------
        ValueError
            The engine is not native.
        FloatingPointError
            A statistic that is not finite.
        """
        if not isinstance(self.local, NativeEngine):
            return self.local.preconditioner(kind, damping=damping, rows=rows)
        shapes = [shape for inputs, outputs in self.local.layers for shape in ((inputs + 1,) * 2, (outputs,) * 2)]
        sizes = [int(np.prod(shape)) for shape in shapes]

        def of_part(engine: Any, share: float, number: int) -> NDArray[Any]:
            found = engine.kronecker_statistics(number)
            return np.concatenate([part.ravel() for A, G in found for part in (A * self.dtype.type(share), G)])

        flat = self._sum(of_part, sum(sizes), self.dtype)
        pieces = np.split(flat, np.cumsum(sizes)[:-1])
        squares = [np.ascontiguousarray(piece.reshape(shape)) for piece, shape in zip(pieces, shapes, strict=True)]
        statistics = list(zip(squares[::2], squares[1::2], strict=True))
        bound = next(engine for engine, share in self._parts if share)
        assert isinstance(bound, NativeEngine)
        return bound.preconditioner(kind, damping=damping, statistics=statistics)

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """Improvement and KL divergence of the current parameters against theta_old over all samples."""
        improvement, kl = self._sum(lambda engine, *_: engine.evaluate(kl_direction), 2, np.dtype(np.float64))
        return float(improvement), float(kl)

    def entropy(self) -> float:
        """Mean entropy over all samples at theta_old, in nats."""
        return float(self._sum(lambda engine, share, _: engine.entropy() * share, 1, np.dtype(np.float64))[0])

    def sum_of_parts(self, values: NDArray[Any]) -> NDArray[Any]:
        """Sum ``values`` (parts, m) of all ranks, which are overwritten, into (m,)."""
        if not self._in_order:
            self.ranks.add(values)
            return values[0]
        every = self.ranks.gather(values).reshape(-1, values.shape[1])
        return every.sum(0, dtype=np.float64).astype(values.dtype)

    @property
    def _parts(self) -> list[tuple[NativeEngine | AutogradEngine, float]]:
        return list(zip(self._engines, self._shares, strict=True))

    def _sum(self, of_part: Callable[[Any, float, int], Any], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        values = np.zeros((len(self._engines), size), dtype)
        first = self.ranks.rank * len(self._engines)
        for index, (engine, share) in enumerate(self._parts):
            if share:
                values[index] = of_part(engine, share, first + index)
        return self.sum_of_parts(values)
