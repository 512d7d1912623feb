"""One Fisher product, at the sizes that training meets."""

from __future__ import annotations

import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy
from bench.problems import BATCHES, CHEETAH, HUMANOID, WIDTHS, PolicyProblem
from bench.recurrent import RecurrentProblem
from trpo_fast.benchmarks import DTYPES, relative_error

USUAL = [
    (CHEETAH, 2_048, "float32"),
    (CHEETAH, 50_000, "float32"),
    (CHEETAH, 2_048, "float64"),
    ((17, 256, 256, 6), 2_048, "float32"),
    (HUMANOID, 2_048, "float32"),
]
GRID = [(widths, batch, dtype) for widths in WIDTHS for batch in BATCHES for dtype in DTYPES]
CASES = USUAL, [case for case in GRID if case not in USUAL]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize("library", OFFERS["fisher_product"], indirect=True)
def test_fisher_product(request, benchmark, record, single_precision_only, library, case):
    widths, batch, dtype = case
    single_precision_only(dtype)
    problem = PolicyProblem(widths, batch, dtype)
    benchmark.group = f"fisher {problem.name} B={batch:,} {dtype}"
    product = library.fisher_product(problem)
    try:
        answer = product(problem.direction)
    except Exception as error:
        if request.node.callspec.params["library"] != "torch-compile":
            raise
        reason = next(iter(str(error).splitlines()), "")
        pytest.skip(f"torch.compile does not run here: {type(error).__name__}: {reason}")
    exact = ExactPolicy(problem).fisher_product(problem.direction)
    assert relative_error(answer, exact) < TOLERANCE[dtype]
    benchmark(product, problem.direction)
    record(problem.fisher_flops, problem.fisher_bytes, dtype)


@pytest.mark.parametrize("library", ["trpo_fast", "torch-double-backward"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_fisher_product(benchmark, record, library, kind):
    problem, exact = RecurrentProblem(kind), RecurrentProblem(kind, dtype="float64")
    benchmark.group = f"fisher {kind}-64 B=2,048 float32"
    product = problem.by_engine() if library == "trpo_fast" else problem.by_double_backward()
    answer = product(problem.direction)
    exact.policy.load_state_dict({name: t.double() for name, t in problem.policy.state_dict().items()})
    assert relative_error(answer, exact.by_double_backward()(problem.direction.astype("float64"))) < 1e-5
    benchmark(product, problem.direction)
    record(problem.flops, None, "float32")
