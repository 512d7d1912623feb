"""One Fisher product, at the sizes that training meets."""

from __future__ import annotations

import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy, relative_error
from bench.problems import PolicyProblem


@pytest.mark.parametrize("library", OFFERS["fisher_product"], indirect=True)
@pytest.mark.parametrize(("batch", "hidden"), [(2_048, 64), (50_000, 64), (2_048, 256)])
def test_fisher_product(benchmark, record, library, batch, hidden):
    benchmark.group = f"fisher 17-{hidden}-{hidden}-6 B={batch:,}"
    problem = PolicyProblem(batch, hidden)
    product = library.fisher_product(problem)
    exact = ExactPolicy(problem).fisher_product(problem.direction)
    assert relative_error(product(problem.direction), exact) < 1e-5
    benchmark(product, problem.direction)
    record(problem.fisher_flops)
