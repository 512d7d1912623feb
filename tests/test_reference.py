"""The oracle's own derivatives, against finite differences: a wrong oracle would bless a wrong library."""

import numpy as np
import pytest

from tests import reference


@pytest.mark.parametrize("distribution", ["gaussian", "categorical"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_the_oracles_derivatives_are_finite_differences_of_its_values(activation, distribution):
    policy = reference.Policy((3, 5, 4, 2), activation, distribution)
    rng = np.random.default_rng(0)
    theta, observations = rng.normal(size=policy.size), rng.normal(size=(7, 3))
    actions = rng.normal(size=(7, 2)) if distribution == "gaussian" else rng.integers(0, 2, 7)
    advantages = rng.normal(size=7)
    v, step = rng.normal(size=policy.size), 1e-6

    def surrogate(parameters):
        return policy.evaluate(parameters, theta, observations, actions, advantages)[0]

    slope = (surrogate(theta + step * v) - surrogate(theta - step * v)) / (2 * step)
    gradient = policy.surrogate_gradient(theta, observations, actions, advantages)
    assert slope == pytest.approx(gradient @ v, rel=1e-7)

    change = (
        (policy.forward(theta + step * v, observations) - policy.forward(theta - step * v, observations)) / 2 / step
    )
    np.testing.assert_allclose(policy.jacobian(theta, observations) @ v, change, rtol=1e-6, atol=1e-7)

    product = policy.fisher(theta, observations) @ v
    np.testing.assert_allclose(policy.fisher_product(theta, observations, v), product, rtol=1e-12, atol=1e-13)
    for pair in ((theta + 1e-4 * v, theta), (theta, theta + 1e-4 * v)):
        assert policy.kl(*pair, observations).mean() == pytest.approx(0.5e-8 * (v @ product), rel=3e-3)


def test_the_oracles_conjugate_gradient_solves_in_as_many_steps_as_there_are_eigenvalues():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    matrix = basis @ np.diag(np.repeat([0.0, 1.0, 3.0, 50.0], 5)) @ basis.T
    b = rng.normal(size=20)
    x = reference.conjugate_gradient(lambda v: matrix @ v, b, 4, damping=0.5)
    np.testing.assert_allclose((matrix + 0.5 * np.eye(20)) @ x, b, rtol=1e-9, atol=1e-9)


def test_the_oracles_value_fit_is_adam():
    network, rng = reference.MLP((2, 3, 1), "tanh"), np.random.default_rng(2)
    theta, observations, returns = rng.normal(size=network.size), rng.normal(size=(5, 2)), rng.normal(size=5)
    zeros, order = np.zeros(network.size), np.arange(5)
    fitted, *_, steps, loss = reference.fit_values(
        network, theta, zeros, zeros, observations, returns, [order], adam_step=0, batch_size=5, learning_rate=1e-3
    )
    # Adam's very first step has the size of the learning rate, against the gradient's sign.
    np.testing.assert_allclose(np.abs(fitted - theta), 1e-3, rtol=1e-4)
    assert steps == 1

    def error(parameters):
        return ((network.forward(parameters, observations)[0][:, 0] - returns) ** 2).mean()

    assert loss == pytest.approx(error(theta), rel=1e-12)
    assert error(fitted) < loss
