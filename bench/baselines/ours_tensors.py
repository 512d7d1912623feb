"""trpo_fast with a right-hand side and a product in torch."""

from __future__ import annotations

import torch

import trpo_fast
from bench.baselines import Solve
from bench.problems import LinearSystem


def solver(system: LinearSystem) -> Solve:
    """Every product by torch, from tensor to tensor."""
    tensors = LinearSystem(torch.from_numpy(system.matrix), system.b, system.iterations)  # type: ignore[arg-type]
    b = torch.from_numpy(system.b)
    return lambda: trpo_fast.conjugate_gradient(tensors.product, b, max_iter=system.iterations, rtol=0.0).x.numpy()
