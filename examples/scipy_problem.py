"""A sparse system of scipy's, solved by the compiled loop; and a compiled operator, solved by scipy.

python examples/scipy_problem.py [side]        100 by default: 10,000 unknowns
"""

import sys

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as splinalg

import trpo_fast


def poisson(side: int) -> sp.csc_array:
    """The five-point Laplacian on a square grid: symmetric, positive definite, badly conditioned."""
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    unit = sp.eye_array(side)
    return sp.csc_array(sp.kron(line, unit) + sp.kron(unit, line))


def main(side: int) -> None:
    """Solve it plainly, preconditioned, and by scipy."""
    A = poisson(side)
    b = np.random.default_rng(0).normal(size=A.shape[0])
    exact = splinalg.spsolve(A, b)

    # A sparse array is an operator as it is; so is whatever else has a shape and a product.
    plain = trpo_fast.conjugate_gradient(A, b, max_iter=10 * side, rtol=1e-8)
    # An incomplete factorization, as scipy makes it, approximates the inverse. This one is symmetric.
    factors = splinalg.spilu(A, drop_tol=1e-3, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    fast = trpo_fast.conjugate_gradient(A, b, max_iter=10 * side, rtol=1e-8, preconditioner=factors.solve)
    iterations: list[int] = []
    theirs, info = splinalg.cg(A, b, rtol=1e-8, callback=lambda _: iterations.append(1))

    for name, x, count in (
        ("conjugate_gradient", plain.x, plain.iterations),
        ("preconditioned by spilu", fast.x, fast.iterations),
        ("scipy.sparse.linalg.cg", theirs, len(iterations)),
    ):
        error = np.linalg.norm(x - exact) / np.linalg.norm(exact)
        print(f"{name:<24} {count:4d} iterations, error {error:.1e}")
        assert error < 1e-5
    assert plain.status == fast.status == info == 0
    assert fast.iterations < plain.iterations / 3

    # The other way round: a compiled operator is a LinearOperator to scipy, here as a preconditioner of its MINRES.
    jacobi = trpo_fast.KroneckerPreconditioner([], A.shape[0], A.dtype, damping=0.0, diagonal=A.diagonal())
    x, info = splinalg.minres(A, b, rtol=1e-10, M=jacobi)
    assert info == 0 and np.linalg.norm(x - exact) < 1e-4 * np.linalg.norm(exact)
    print("all agree")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
