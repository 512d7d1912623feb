"""Properties of the Fisher metric M, of F = J'MJ and of the KL, for every distribution and random problems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.cases import KINDS, improvement_scale, make_case, relative_error
from trpo_fast.engines import make_engine

cases = st.builds(
    make_case,
    st.sampled_from(KINDS),
    st.sampled_from([(), (4,), (3, 5)]),
    st.sampled_from(
        ["tanh", "elu", "sigmoid", "silu", "gelu", "softplus"]
    ),  # smooth: differences mean nothing at a kink
    rows=st.integers(1, 12),
    inputs=st.integers(1, 4),
    outputs=st.integers(2, 6),
    seed=st.integers(0, 2**16),
)
# Derandomized: a run is the same everywhere.
properties = settings(max_examples=40, deadline=None, derandomize=True)
# Activations whose derivatives the kernels keep, over what decides where: depth, widths, precision, tiles of 96 rows.
kept_derivatives = st.builds(
    make_case,
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 20), max_size=4).map(tuple),
    st.sampled_from(["silu", "gelu", "softplus"]),
    st.sampled_from(["float32", "float64"]),
    rows=st.integers(1, 200),
    inputs=st.integers(1, 20),
    outputs=st.integers(2, 20),
    seed=st.integers(0, 2**16),
)


@pytest.fixture(params=["native", "autograd"], scope="module")
def name(request):
    return request.param


def bound(case, name):
    engine = make_engine(case.policy, name)
    engine.bind(case.batch())
    return engine


def dense(case):
    return case.oracle.fisher(case.theta, case.observations, masks=case.masks)


@properties
@given(case=cases)
def test_products_are_those_with_the_dense_matrix(case, name):
    operator, v, expected = bound(case, name).fisher_operator(), case.vector(), dense(case)
    size = np.abs(expected).sum() * np.abs(v).max()
    np.testing.assert_allclose(operator @ v, expected @ v, rtol=0, atol=1e-13 * size + 1e-300)


@properties
@given(case=cases)
def test_fisher_products_are_linear_and_symmetric(case, name):
    operator = bound(case, name).fisher_operator()
    u, v = case.vector(), case.vector()
    size = np.abs(dense(case)).sum() * np.abs(u).max() * np.abs(v).max()
    assert u @ (operator @ v) == pytest.approx(v @ (operator @ u), rel=0, abs=1e-13 * size + 1e-300)
    combined = 2.5 * (operator @ u) - (operator @ v)
    scale = np.abs(dense(case)).sum() * (2.5 * np.abs(u).max() + np.abs(v).max())
    np.testing.assert_allclose(operator @ (2.5 * u - v), combined, rtol=0, atol=1e-13 * scale + 1e-300)


@properties
@given(case=cases)
def test_the_fisher_matrix_is_positive_semidefinite(case, name):
    operator = bound(case, name).fisher_operator()
    columns = np.stack([operator @ unit for unit in np.eye(operator.size)], axis=1)
    eigenvalues = np.linalg.eigvalsh((columns + columns.T) / 2)
    assert eigenvalues[0] >= -1e-13 * np.abs(columns).sum()


@properties
@given(case=cases, direction=st.sampled_from(["new_old", "old_new"]))
def test_the_fisher_matrix_is_the_kls_hessian_by_finite_differences(case, direction, name):
    engine, v = bound(case, name), case.vector()
    v /= np.linalg.norm(v)
    curvature, step = v @ (engine.fisher_operator() @ v), 1e-4
    theta, total = engine.parameters().copy(), 0.0
    for sign in (1, -1):
        engine.parameters()[:] = theta + sign * step * v
        engine.parameters_changed()
        kl = engine.evaluate(direction)[1]
        assert kl >= 0
        total += kl
    # The error is step^2 times fourth derivatives, which the size of F bounds well enough.
    bound_of_error = 1e-5 * (np.abs(dense(case)).max() + 1e-12)
    assert total / step**2 == pytest.approx(curvature, rel=0, abs=bound_of_error)


@properties
@given(case=cases, size=st.sampled_from([1e-9, 1e-5, 0.1, 3.0]))
def test_kl_is_never_negative_and_the_oracles(case, size, name):
    engine, theta = bound(case, name), case.theta
    case.move(size)
    for direction in ("new_old", "old_new"):
        kl = engine.evaluate(direction)[1]
        expected = case.oracle.evaluate(case.theta, theta, *case.data, direction, masks=case.masks)[1]
        assert kl >= 0
        assert kl == pytest.approx(expected, rel=1e-10 + 1e-14 / size, abs=1e-300)


@properties
@given(case=kept_derivatives)
def test_where_derivatives_are_kept_gradient_product_and_trial_are_the_oracles(case):
    engine, theta, v = bound(case, "native"), case.theta, case.vector()
    expected = case.oracle.surrogate_gradient(theta, *case.data, masks=case.masks)
    # Advantages of both signs cancel in the gradient: rounding is relative to what their sizes alone would give.
    observations, actions, advantages = case.data
    size = case.oracle.surrogate_gradient(theta, observations, actions, np.abs(advantages), masks=case.masks)
    scale = max(np.linalg.norm(expected), np.linalg.norm(size), np.finfo(float).tiny)
    assert np.linalg.norm(engine.surrogate_gradient() - expected) <= 10 * case.tolerance * scale
    expected = case.oracle.fisher_product(theta, observations, v, masks=case.masks)
    assert relative_error(engine.fisher_operator() @ v, expected) <= 10 * case.tolerance
    case.move()
    improvement, kl = engine.evaluate("new_old")
    expected_improvement, expected_kl = case.oracle.evaluate(
        case.theta, theta, observations, actions, advantages, "new_old", masks=case.masks
    )
    assert kl == pytest.approx(expected_kl, rel=10 * case.tolerance, abs=1e-300)
    bound_of_error = 10 * case.tolerance * (improvement_scale(case, case.theta, theta) + 1e-300)
    assert improvement == pytest.approx(expected_improvement, rel=0, abs=bound_of_error)
