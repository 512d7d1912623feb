"""Families of distributions whose Fisher information and Kullback-Leibler divergence are known in closed form.

With M in closed form J'MJ needs one differentiation less than the Hessian of a divergence. Autograd's Hessian of
Laplace's is wrong at theta_old, 0 in the location, since torch takes the derivative of |x| at 0 to be 0; of two
Weibulls torch has no divergence that knows their concentrations.

References
----------
.. [1] Lehmann & Casella, "Theory of Point Estimation", 2nd ed., sec. 2.5: Fisher information of the families.
.. [2] Gil, Alajaji & Linder, "Renyi divergence measures for commonly used univariate continuous distributions",
   Information Sciences 2013: the divergence of two Weibull distributions, among others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Cauchy,
    Dirichlet,
    Distribution,
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

from .squashed import SquashedNormal


@dataclass(frozen=True)
class Family:
    """A family of distributions in coordinates in which its Fisher information M is known."""

    coordinates: Callable[[Distribution], tuple[Tensor, ...]]
    """Differentiable parameters of a distribution, each (B, ...)."""
    metric: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor, ...]]
    """``metric(coordinates, tangents)`` is M applied to `tangents`, sample by sample."""
    divergence: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    """``divergence(p, q)``: terms of KL(p || q) from the coordinates; float64, never negative; a sample's KL is the sum
    over its row."""
    differentiable: bool = True
    """Whether M is what autograd's second derivative of torch's divergence says."""


def base_of(distribution: Distribution) -> Distribution:
    """`distribution` without the Independent around it."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _attributes(*names: str) -> Callable[[Distribution], tuple[Tensor, ...]]:
    """Coordinates that are attributes of torch's distribution."""
    return lambda distribution: tuple(getattr(base_of(distribution), name) for name in names)


def _symmetric(information: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Callable[..., tuple[Tensor, ...]]:
    """The metric of two coordinates, elementwise, from the entries (11, 12, 22) of their information matrix."""

    def metric(coordinates: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, mixed, second = information(*coordinates)
        return first * tangents[0] + mixed * tangents[1], mixed * tangents[0] + second * tangents[1]

    return metric


def _single(information: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The metric of one coordinate, elementwise."""
    return lambda coordinates, tangents: (information(coordinates[0]) * tangents[0],)


def _torchs(kind: Callable[..., Distribution]) -> Callable[..., Tensor]:
    """Torch's divergence in float64, of `kind` made from its coordinates in their order."""

    def divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
        first, second = (kind(*(part.double() for part in one), validate_args=False) for one in (p, q))
        return kl_divergence(first, second).clamp_min(0.0)

    return divergence


def _normal_metric(coordinates: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    precision = coordinates[1].pow(-2)
    return precision * tangents[0], 2.0 * precision * tangents[1]


def _normal_divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
    (mean_p, scale_p), (mean_q, scale_q) = ((mean.double(), scale.double()) for mean, scale in (p, q))
    log_ratio = 2.0 * (scale_p.log() - scale_q.log())
    # expm1(u) - u is never negative, its rounding can be.
    return 0.5 * ((log_ratio.expm1() - log_ratio).clamp_min(0.0) + ((mean_p - mean_q) / scale_q).square())


def _categorical_metric(coordinates: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    probabilities = coordinates[0].softmax(-1)
    (tangent,) = tangents
    return (probabilities * (tangent - (probabilities * tangent).sum(-1, keepdim=True)),)


def _categorical_divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
    return _divergence_of_log_probabilities(p[0].double().log_softmax(-1), q[0].double().log_softmax(-1))


def _bernoulli_metric(coordinates: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (logits,), (tangent,) = coordinates, tangents
    return (logits.sigmoid() * (-logits).sigmoid() * tangent,)


def _bernoulli_divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
    log_p, log_q = (torch.nn.functional.logsigmoid(torch.stack([logits, -logits], -1).double()) for (logits,) in (p, q))
    return _divergence_of_log_probabilities(log_p, log_q)


def _divergence_of_log_probabilities(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Terms p log(p/q) + q - p: each is non-negative, and q - p adds up to nothing."""
    p, q, t = log_p.exp(), log_q.exp(), log_q - log_p
    # The two forms are equal; the first keeps its digits where p and q are close, the second does not overflow.
    terms = torch.where(t < 1.0, p * (t.clamp_max(1.0).expm1() - t), q - p - p * t)
    return torch.where(p == 0.0, q, terms).clamp_min(0.0)


def _gamma_information(concentration: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.polygamma(1, concentration), -1.0 / rate, concentration / rate.square()


def _beta_information(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    joint = torch.polygamma(1, first + second)
    return torch.polygamma(1, first) - joint, -joint, torch.polygamma(1, second) - joint


def _dirichlet_metric(coordinates: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (concentration,), (tangent,) = coordinates, tangents
    joint = torch.polygamma(1, concentration.sum(-1, keepdim=True))
    return (torch.polygamma(1, concentration) * tangent - joint * tangent.sum(-1, keepdim=True),)


def _location_and_scale(
    location: float, mixed: float, scale: float
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Of a family of location and scale: constants over scale^2."""

    def information(loc: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precision = size.pow(-2)
        return location * precision, mixed * precision, scale * precision

    return information


def _weibull_information(scale: Tensor, concentration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mixed = (np.euler_gamma - 1.0) / scale
    spread = (math.pi**2 / 6 + (1.0 - np.euler_gamma) ** 2) / concentration.square()
    return (concentration / scale).square(), mixed.expand_as(spread), spread


def _weibull_divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
    (scale_p, shape_p), (scale_q, shape_q) = ((scale.double(), shape.double()) for scale, shape in (p, q))
    ratio = shape_q / shape_p
    log_ratio = scale_p.log() - scale_q.log()
    moment = (shape_q * log_ratio + torch.lgamma(ratio + 1.0)).exp()  # of (x / scale_q)^shape_q under p
    terms = np.euler_gamma * (ratio - 1.0) - ratio.log() - shape_q * log_ratio + moment - 1.0
    return terms.clamp_min(0.0)


_gumbel_mixed = np.euler_gamma - 1.0

FAMILIES: dict[type[Distribution], Family] = {
    Bernoulli: Family(_attributes("logits"), _bernoulli_metric, _bernoulli_divergence),
    Beta: Family(_attributes("concentration1", "concentration0"), _symmetric(_beta_information), _torchs(Beta)),
    Categorical: Family(_attributes("logits"), _categorical_metric, _categorical_divergence),
    Cauchy: Family(_attributes("loc", "scale"), _symmetric(_location_and_scale(0.5, 0.0, 0.5)), _torchs(Cauchy)),
    Dirichlet: Family(_attributes("concentration"), _dirichlet_metric, _torchs(Dirichlet)),
    Exponential: Family(_attributes("rate"), _single(lambda rate: rate.pow(-2)), _torchs(Exponential)),
    Gamma: Family(_attributes("concentration", "rate"), _symmetric(_gamma_information), _torchs(Gamma)),
    Geometric: Family(
        _attributes("probs"), _single(lambda probs: 1.0 / (probs.square() * (1.0 - probs))), _torchs(Geometric)
    ),
    Gumbel: Family(
        _attributes("loc", "scale"),
        _symmetric(_location_and_scale(1.0, _gumbel_mixed, math.pi**2 / 6 + _gumbel_mixed**2)),
        _torchs(Gumbel),
    ),
    HalfNormal: Family(_attributes("scale"), _single(lambda scale: 2.0 * scale.pow(-2)), _torchs(HalfNormal)),
    Laplace: Family(
        _attributes("loc", "scale"), _symmetric(_location_and_scale(1.0, 0.0, 1.0)), _torchs(Laplace), False
    ),
    LogNormal: Family(_attributes("loc", "scale"), _normal_metric, _normal_divergence),
    Normal: Family(_attributes("loc", "scale"), _normal_metric, _normal_divergence),
    Poisson: Family(_attributes("rate"), _single(torch.reciprocal), _torchs(Poisson)),
    SquashedNormal: Family(_attributes("loc", "scale"), _normal_metric, _normal_divergence),
    Weibull: Family(
        _attributes("scale", "concentration"), _symmetric(_weibull_information), _weibull_divergence, False
    ),
}
