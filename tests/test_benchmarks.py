"""The benchmark refuses wrong answers; its own oracle agrees with the tests' oracle. No figure is asserted."""

import numpy as np
import pytest

from tests import reference
from trpo_fast import benchmarks
from trpo_fast._core import library
from trpo_fast.benchmarks import Case, ExactPolicy, PolicyProblem, WrongAnswer, cases, measuring

SMALL = PolicyProblem((5, 8, 7, 3), 50, "float64")
ORACLE = reference.Policy(SMALL.widths, "tanh", "gaussian")


def test_the_oracle_is_the_tests_oracle():
    exact, theta = ExactPolicy(SMALL), SMALL.parameters
    data = SMALL.observations, SMALL.actions, SMALL.advantages
    np.testing.assert_allclose(exact.gradient(), ORACLE.surrogate_gradient(theta, *data), rtol=1e-10)
    product = ORACLE.fisher_product(theta, SMALL.observations, SMALL.direction)
    np.testing.assert_allclose(exact.fisher_product(SMALL.direction), product, rtol=1e-10)
    trial = theta + 0.01 * SMALL.direction
    np.testing.assert_allclose(exact.evaluate(trial), ORACLE.evaluate(trial, theta, *data), rtol=1e-10)


def test_the_oracle_goes_through_the_batch_in_blocks():
    problem = PolicyProblem((3, 4, 2), 20_000, "float64")
    product = reference.Policy(problem.widths, "tanh", "gaussian").fisher_product(
        problem.parameters, problem.observations, problem.direction
    )
    np.testing.assert_allclose(ExactPolicy(problem).fisher_product(problem.direction), product, rtol=1e-10)


def test_exact_solution_solves():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    matrix, b = root @ root.T + np.eye(12), rng.standard_normal(12)
    x = benchmarks.exact_solution(lambda v: matrix @ v, b, 12, damping=0.5)
    np.testing.assert_allclose(x, np.linalg.solve(matrix + 0.5 * np.eye(12), b), rtol=1e-8)


def test_counts_are_those_of_the_layers():
    problem = PolicyProblem((3, 4, 2), 10, "float32")
    assert problem.size == len(problem.parameters) == 2 + 4 * 4 + 2 * 5
    assert problem.fisher_flops == 10 * (8 * (12 + 8) - 4 * 12)
    assert problem.fisher_bytes == 4 * (10 * (3 + 4) + 3 * problem.size)


@pytest.mark.parametrize("dtype", benchmarks.DTYPES)
def test_generated_data_is_not_degenerate(dtype):
    problem = PolicyProblem((5, 8, 3), 400, dtype)
    for values in (problem.observations, problem.actions, problem.advantages, problem.returns, problem.parameters):
        assert values.dtype == dtype and np.isfinite(values).all() and values.std() > 0.1
    assert abs(problem.advantages.mean()) < 1e-6 and problem.advantages.std() == pytest.approx(1, rel=1e-5)


class _Broken:
    """Wraps a kernel; `spoil` is applied to what `method` gives."""

    def __init__(self, made, method, spoil):
        self._made, self._method, self._spoil = made, method, spoil

    def __getattr__(self, name):
        attribute = getattr(self._made, name)
        if name != self._method:
            return attribute
        return lambda *arguments, **options: self._spoil(attribute(*arguments, **options))


def _spoiled(x):
    x *= 1 + 1e-3
    return x


@pytest.mark.parametrize(
    ("kind", "what", "method", "spoil"),
    [
        ("fisher", "PolicyKernel", "fisher_operator", lambda F: _Broken(F, "matvec", _spoiled)),
        ("fisher", "PolicyKernel", "fisher_operator", lambda F: _Broken(F, "matvec", lambda x: x * np.nan)),
        ("cg", "conjugate_gradient", None, lambda result: result._replace(x=result.x * 1.001)),
        ("update", "PolicyKernel", "surrogate_gradient", lambda g: g + np.float64(0.1 * np.abs(g).max())),
        ("update", "ValueKernel", "values", None),
        ("rollout", "ValueKernel", "values", _spoiled),
    ],
)
def test_a_wrong_answer_has_no_time(monkeypatch, kind, what, method, spoil):
    made = getattr(cases, what)
    if spoil is None:
        # a fit that stops after its first epoch
        class OneEpoch:
            def __init__(self, *arguments):
                self._kernel = made(*arguments)

            def fit(self, *arguments, **options):
                return self._kernel.fit(*arguments, **options | {"epochs": 1})

        monkeypatch.setattr(cases, what, OneEpoch)
    elif method is None:
        monkeypatch.setattr(cases, what, lambda *arguments, **options: spoil(made(*arguments, **options)))
    else:
        monkeypatch.setattr(cases, what, lambda *arguments: _Broken(made(*arguments), method, spoil))
    timed = []
    monkeypatch.setattr(measuring, "_one_round", lambda case, variant: timed.append(case.name))
    monkeypatch.setattr(measuring, "_figure", lambda case, variant: None)
    with pytest.raises(WrongAnswer):
        for case in benchmarks.make_cases(kind, ["float64"], quick=True):
            timed.clear()
            benchmarks.measure(case, [1])
    assert not timed


def test_rounds_alternate_between_the_threads_and_leave_their_number_alone(monkeypatch):
    met = []
    case = Case(
        "fisher", "toy", 1, 1, "float64", lambda: lambda: met.append(library.get_num_threads()), lambda _: 0.0,
        "product", 1, 1.0, 1.0,
    )  # fmt: skip
    before = library.get_num_threads()
    one, two = benchmarks.measure(case, [1, 2], rounds=7, round_seconds=0.0)
    assert library.get_num_threads() == before
    assert met[-14:] == [1, 2] * 7
    assert (one.threads, two.threads) == (1, 2)


def test_a_busy_machine_is_marked():
    figure = benchmarks.Figure(
        "cg", "x", 1, 0, "float32", 1, 0.5, "iteration", 2.0, 1.0, 2.0, 0.5, 8, 1.0, 0.0, cpu_share=0.5
    )
    assert not figure.quiet and benchmarks.line(figure).endswith("BUSY")


def test_unknown_kinds_and_dtypes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"kind: 'speed'.* given; want one of 'cg', 'fisher'"):
        benchmarks.run("speed")
    with pytest.raises(ValueError, match=r"dtypes: float16.* given; want some of float32, float64"):
        benchmarks.run("cg", dtypes=["float16"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"threads": 2}, TypeError, "threads: 2.* given; want a sequence of at least one"),
        ({"threads": []}, TypeError, r"threads: \[\].* given; want a sequence of at least one"),
        ({"threads": [0]}, ValueError, "threads: 0.* given; want at least 1"),
        ({"threads": [257]}, ValueError, "threads: 257.* given; want at most 256"),
        ({"threads": ["2"]}, TypeError, "threads: '2'.* given; want an integer"),
        ({"dtypes": "float32"}, TypeError, "dtypes: 'float32'.* given; want a sequence of at least one"),
        ({"dtypes": ()}, TypeError, r"dtypes: \(\).* given; want a sequence of at least one"),
    ],
)
def test_what_to_measure_on_is_checked_before_anything_is_measured(change, error, message):
    with pytest.raises(error, match=message):
        benchmarks.run("cg", quick=True, progress=lambda _: pytest.fail("measured"), **change)


@pytest.mark.parametrize("dtype", benchmarks.DTYPES)
def test_peak_counts_what_it_does(dtype):
    assert library.multiply_adds(dtype, 2_000) == 2 * library.multiply_adds(dtype, 1_000) > 0
    with pytest.raises(ValueError, match=r"rounds: 0.* given; want 1 to 2\*\*32"):
        library.multiply_adds(dtype, 0)
    with pytest.raises(TypeError, match=r"rounds: 1\.5 given; want an integer"):
        library.multiply_adds(dtype, 1.5)
    with pytest.raises(TypeError, match=r"dtype: int64.* given; want float32 or float64"):
        library.multiply_adds("int64", 1)
