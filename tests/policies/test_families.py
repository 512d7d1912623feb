"""Fisher information and divergence of every closed-form family, by scores, quadrature and torch."""

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Geometric,
    Gumbel,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    Normal,
    Poisson,
    Weibull,
    kl_divergence,
)

from trpo_fast.policies.distributions import base_of, divergence, family_of
from trpo_fast.policies.families import FAMILIES
from trpo_fast.policies.squashed import SquashedNormal

ROWS = 3
SIDES = torch.tensor([[-1.0, -2.0], [1.0, 5.0]], dtype=torch.float64)


def location(kind):
    return lambda a, b: Independent(kind(a, b.exp()), 1)


def positive(kind):
    return lambda a, b: Independent(kind(a.exp(), b.exp()), 1)


def rate(kind):
    return lambda a, b: Independent(kind(a.exp()), 1)


MAKERS = {
    Bernoulli: lambda a, b: Independent(Bernoulli(logits=a), 1),
    Categorical: lambda a, b: Categorical(logits=a),
    Dirichlet: lambda a, b: Dirichlet(a.exp()),
    Geometric: lambda a, b: Independent(Geometric(probs=a.sigmoid()), 1),
    SquashedNormal: lambda a, b: SquashedNormal(a, b.exp(), *SIDES.to(a.dtype)),
    **{kind: location(kind) for kind in (Cauchy, Gumbel, Laplace, LogNormal, Normal)},
    **{kind: positive(kind) for kind in (Beta, Gamma, Weibull)},
    **{kind: rate(kind) for kind in (Exponential, HalfNormal, Poisson)},
}


@pytest.fixture(params=FAMILIES, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def pair(kind, size=0.4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (size * torch.randn(ROWS, 2, dtype=torch.float64, generator=generator).to(dtype) for _ in range(4))
    return MAKERS[kind](a, b), MAKERS[kind](c, d)


def problem(kind):
    """Family, its coordinates at one point, and a direction."""
    p, _ = pair(kind)
    family = family_of(p)
    coordinates = family.coordinates(p)
    generator = torch.Generator().manual_seed(1)
    return family, coordinates, [torch.randn(c.shape, dtype=c.dtype, generator=generator) for c in coordinates]


def rebuilt(kind, coordinates):
    if kind is SquashedNormal:
        return kind(*coordinates, *SIDES)
    return kind(logits=coordinates[0]) if kind in (Bernoulli, Categorical) else kind(*coordinates)


def test_the_metric_is_the_covariance_of_the_score(kind):
    family, coordinates, direction = problem(kind)
    product = family.metric(coordinates, tuple(direction))
    expected = sum((d * m).sum() for d, m in zip(direction, product, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        samples = rebuilt(kind, coordinates).sample((40_000,))

    def log_probs(t):
        moved = rebuilt(kind, [c + t * d for c, d in zip(coordinates, direction, strict=True)])
        return moved.log_prob(samples)

    scores = (log_probs(1e-5) - log_probs(-1e-5)) / 2e-5
    # A seed that is fixed; over seeds the worst family, Weibull, has a standard deviation of 1%.
    torch.testing.assert_close(scores.square().mean(0).sum(), expected, rtol=0.05, atol=0)


def test_the_metric_is_the_hessian_of_the_divergence(kind):
    family, coordinates, direction = problem(kind)
    product = family.metric(coordinates, tuple(direction))
    expected = sum((d * m).sum() for d, m in zip(direction, product, strict=True))

    def along(t):
        moved = tuple(c + t * d for c, d in zip(coordinates, direction, strict=True))
        return family.divergence(moved, coordinates).sum()

    # Second derivative by central differences of a function whose minimum, 0, is at t = 0. The divergence of two
    # Laplace distributions has a third derivative that jumps there.
    t = 1e-4
    torch.testing.assert_close((along(t) + along(-t)) / t**2, expected, rtol=3e-4, atol=0)


def test_the_divergence_is_torchs_and_0_at_the_same_point(kind):
    p, q = pair(kind)
    if kind is not Weibull:
        torch.testing.assert_close(divergence(p, q), kl_divergence(p, q), rtol=1e-12, atol=0)
    assert (divergence(p, q) > 0).all()
    assert divergence(p, p).abs().max() < 1e-14


def test_the_divergence_of_two_weibulls_is_an_integral():
    p, q = (base_of(one) for one in pair(Weibull))
    # By the quantiles of p, at the midpoints of equal probabilities.
    levels = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    x = p.scale * (-torch.log1p(-levels)).view(-1, 1, 1) ** (1.0 / p.concentration)
    expected = (p.log_prob(x) - q.log_prob(x)).mean(0).sum(-1)
    torch.testing.assert_close(divergence(*pair(Weibull)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1.0, 3.0])
def test_the_divergence_is_never_negative(kind, size):
    for dtype in (torch.float32, torch.float64):
        p, q = pair(kind, size, dtype)
        values = torch.stack([divergence(p, q), divergence(q, p)])
        assert values.dtype == torch.float64
        assert (values >= 0).all()


def test_a_laplace_policy_has_curvature_in_its_location():
    p = Laplace(torch.zeros(1), torch.full((1,), 2.0))
    family = family_of(p)
    product = family.metric(family.coordinates(p), (torch.ones(1), torch.ones(1)))
    np.testing.assert_allclose([float(part) for part in product], [0.25, 0.25])
