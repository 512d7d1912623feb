"""trpo_fast with a right-hand side and a product in JAX, which keeps threads of its own."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import trpo_fast
from bench.baselines import Solve
from bench.problems import LinearSystem


def solver(system: LinearSystem) -> Solve:
    """Every product by JAX, compiled, from JAX array to JAX array."""
    if system.b.dtype == np.float64:
        jax.config.update("jax_enable_x64", True)
    matrix: Any = jax.numpy.asarray(system.matrix)
    product = jax.jit(LinearSystem(matrix, system.b, system.iterations).product)
    b = jax.numpy.asarray(system.b)
    return lambda: np.asarray(trpo_fast.conjugate_gradient(product, b, max_iter=system.iterations, rtol=0.0).x)
