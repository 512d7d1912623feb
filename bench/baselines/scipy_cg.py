"""scipy.sparse.linalg.cg."""

from __future__ import annotations

from scipy.sparse.linalg import LinearOperator, cg

from bench.baselines import Solve
from bench.problems import LinearSystem


def solver(system: LinearSystem) -> Solve:
    """CG on a LinearOperator; every iteration is spent (rtol=0)."""
    size = system.b.size
    operator = LinearOperator((size, size), matvec=system.product, dtype=system.b.dtype)
    return lambda: cg(operator, system.b, rtol=0.0, maxiter=system.iterations)[0]
