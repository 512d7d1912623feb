"""The oracle's own derivatives, against finite differences: a wrong oracle would bless a wrong library."""

import numpy as np
import pytest

from tests import reference


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("distribution", ["gaussian", "categorical", "multicategorical", "bernoulli"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_the_oracles_derivatives_are_finite_differences_of_its_values(activation, distribution, masked):
    policy = reference.Policy(
        (3, 5, 4, 5), activation, distribution, (2, 3) if distribution == "multicategorical" else ()
    )
    rng = np.random.default_rng(0)
    theta, observations = rng.normal(size=policy.size), rng.normal(size=(7, 3))
    actions, masks = rng.normal(size=(7, 5)), None
    if policy.discrete:
        actions = np.stack([rng.integers(0, n, 7) for n in policy.blocks], axis=1)
        masks = (rng.random((7, sum(policy.blocks))) < 0.5) | (policy.chosen(actions) > 0) if masked else None
    advantages = rng.normal(size=7)
    v, step = rng.normal(size=policy.size), 1e-6

    def objective(parameters):
        return policy.evaluate(
            parameters, theta, observations, actions, advantages, masks=masks, entropy_coefficient=0.3
        )[0]

    slope = (objective(theta + step * v) - objective(theta - step * v)) / (2 * step)
    gradient = policy.surrogate_gradient(theta, observations, actions, advantages, masks=masks, entropy_coefficient=0.3)
    assert slope == pytest.approx(gradient @ v, rel=1e-6)

    change = (
        (policy.forward(theta + step * v, observations) - policy.forward(theta - step * v, observations)) / 2 / step
    )
    np.testing.assert_allclose(policy.jacobian(theta, observations) @ v, change, rtol=1e-6, atol=1e-7)

    product = policy.fisher(theta, observations, masks=masks) @ v
    fast = policy.fisher_product(theta, observations, v, masks=masks)
    np.testing.assert_allclose(fast, product, rtol=1e-12, atol=1e-13)
    for pair in ((theta + 1e-4 * v, theta), (theta, theta + 1e-4 * v)):
        assert policy.kl(*pair, observations, masks).mean() == pytest.approx(0.5e-8 * (v @ product), rel=3e-3)


def test_the_oracles_discrete_distributions_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    several, flags = (
        reference.Policy((2, 5), "tanh", "multicategorical", (2, 3)),
        reference.Policy((2, 3), "tanh", "bernoulli"),
    )
    theta, x = rng.normal(size=several.size), rng.normal(size=(1, 2))
    z = several.forward(theta, x)[0]
    for a in range(2):
        for b in range(3):
            p = np.exp(z[a]) / np.exp(z[:2]).sum() * np.exp(z[2 + b]) / np.exp(z[2:]).sum()
            assert several.log_prob(theta, x, [[a, b]])[0] == pytest.approx(np.log(p), rel=1e-12)
    # the third choice of the second component is forbidden
    masks = np.array([[True, True, True, True, False]])
    p = np.exp(z[0]) / np.exp(z[:2]).sum() * np.exp(z[2]) / np.exp(z[2:4]).sum()
    assert several.log_prob(theta, x, [[0, 0]], masks)[0] == pytest.approx(np.log(p), rel=1e-12)
    theta = rng.normal(size=flags.size)
    ones = 1 / (1 + np.exp(-flags.forward(theta, x)[0]))
    expected = np.log(ones[0] * (1 - ones[1]) * ones[2])
    assert flags.log_prob(theta, x, [[1, 0, 1]])[0] == pytest.approx(expected, rel=1e-12)
    # the second is certainly 1
    masks = np.array([[True, True, False, True, True, True]])
    assert flags.log_prob(theta, x, [[1, 1, 1]], masks)[0] == pytest.approx(np.log(ones[0] * ones[2]), rel=1e-12)


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
