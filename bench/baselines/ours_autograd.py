"""trpo_fast's engine for any torch module, on the same policy."""

from __future__ import annotations

from bench.baselines import Product, ours
from bench.problems import PolicyProblem


def fisher_product(problem: PolicyProblem) -> Product:
    """J'MJ with torch's forward and reverse mode."""
    return ours.fisher_product(problem, "autograd")
