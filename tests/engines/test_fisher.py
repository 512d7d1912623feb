import numpy as np
import pytest
import torch

from tests import reference
from tests.engines.cases import make_case
from trpo_fast.engines import fisher_matrix, make_engine


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("distribution", ["gaussian", "categorical"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (6,), (5, 4)], ids=str)
def test_the_matrix_is_the_oracles_entry_by_entry(hidden, activation, distribution, dtype):
    case = make_case(distribution, hidden, activation, dtype, rows=40, inputs=3)
    matrix, expected = (
        fisher_matrix(case.policy, case.observations),
        case.oracle.fisher(case.theta, case.observations),
    )
    assert matrix.dtype == np.float64
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(matrix - expected) <= 1e-10 * scale + 1e-15).all()
    np.testing.assert_array_equal(matrix, matrix.T)


def test_the_matrix_is_positive_semidefinite_and_fits_the_operator():
    case = make_case("categorical", (5,), rows=40)
    matrix = fisher_matrix(case.policy, torch.from_numpy(case.observations))
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-14 * eigenvalues[-1]
    engine = make_engine(case.policy)
    engine.bind(case.batch())
    v = case.vector()
    np.testing.assert_allclose(matrix @ v, engine.fisher_operator() @ v, rtol=1e-9, atol=1e-13)


def test_computing_it_leaves_the_policy_as_it_was():
    case = make_case(dtype="float32", rows=5)
    before = case.policy.flat.numpy.copy()
    fisher_matrix(case.policy, case.observations)
    np.testing.assert_array_equal(case.policy.flat.numpy, before)
    assert case.policy.flat.is_intact()
    assert all(parameter.grad is None for parameter in case.policy.parameters())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_observations_that_are_not_finite_are_named(value):
    case = make_case(rows=5)
    case.observations[3, 2] = value
    with pytest.raises(ValueError, match=rf"observations: {value} at \(3, 2\)"):
        fisher_matrix(case.policy, case.observations)
