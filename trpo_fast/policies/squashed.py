"""A Gaussian that is squashed into a box."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all


class SquashedNormal(Distribution):
    """``center + half * tanh(z)`` of Gaussian z, batch shape (B,), event shape (A,), right up to the sides of the box.

    Far out tanh is 1 in floating point, and the density of such an action would be infinite. Here what lies beyond
    ``tanh(z) = 1 - 2^-19`` (2^-40 in float64, and some roundings from the side of a box far from 0) becomes the side
    itself, and log-probabilities there are those of ending at it: the distribution has a density between the sides, and
    an atom at each of them. So that every action has a finite log-probability, whatever the scale.

    The divergence and the Fisher information are the Gaussian's. They bound those of the action, which is a function of
    it, and equal them but for the atoms.

    Parameters
    ----------
    loc, scale : Tensor, shape (B, A)
        Of the Gaussian.
    low, high : Tensor, shape (A,)
        Sides of the box, finite; at least 2^20 roundings of the larger apart.

    Raises
    ------
    ValueError
        Sides that are closer, equal or the wrong way round.

    Attributes
    ----------
    mode : Tensor, shape (B, A)
        The squashed mean: the median, not where the density is largest.

    References
    ----------
    .. [1] Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018, app. C: the density.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012  (torch's own kind)

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.low, self.high = low, high
        check_sides(low, high, self.loc.dtype)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    @property
    def support(self) -> Any:
        """The box, its sides included."""
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    @property
    def mode(self) -> Tensor:
        """The squashed mean."""
        return self.squash(self.loc)

    def squash(self, z: Tensor) -> Tensor:
        """The action of the Gaussian sample `z`."""
        t, most = torch.tanh(z), self._most
        inside = self._center + self._half * t
        return torch.where(t > most, self.high, torch.where(t < -most, self.low, inside))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Actions, shape (*sample_shape, B, A), without gradients."""
        with torch.no_grad():
            return self.squash(self._normal.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of actions (..., A): the sum over the dimensions of a log-density, or of a log-probability at the sides."""
        most = self._most
        inside = ((value - self._center) / self._half).clamp(-most, most)
        density = self._normal.log_prob(torch.atanh(inside)) - torch.log1p(-inside.square()) - self._half.log()
        farthest = torch.atanh(most)
        # Elsewhere of 0: far out the derivative of log_ndtr overflows, and 0 times that is NaN.
        sides = value >= self.high, value <= self.low
        above, below = (
            torch.special.log_ndtr(torch.where(side, (loc - farthest) / self.scale, 0.0))
            for side, loc in zip(sides, (self.loc, -self.loc), strict=True)
        )
        return torch.where(sides[0], above, torch.where(sides[1], below, density)).sum(-1)

    @property
    def _normal(self) -> Normal:
        return Normal(self.loc, self.scale, validate_args=False)

    @property
    def _center(self) -> Tensor:
        return self.high / 2 + self.low / 2

    @property
    def _half(self) -> Tensor:
        return self.high / 2 - self.low / 2

    @property
    def _most(self) -> Tensor:
        """Largest tanh that is not the side, (A,): some ulps from it, which rounding does not cross."""
        ulps = 4.0 * _rounding(self.low, self.high, self.loc.dtype) / self._half
        return 1.0 - ulps.clamp_min(2.0**-40 if self.loc.dtype == torch.float64 else 2.0**-19)


def check_sides(low: Tensor, high: Tensor, dtype: torch.dtype) -> None:
    """ValueError for sides, (A,), that are less than 2^20 roundings to `dtype` of the larger apart, or equal."""
    width = high.to(dtype) / 2 - low.to(dtype) / 2
    apart = (width > 0) & (width >= 2.0**19 * _rounding(low, high, dtype))
    if not apart.all():
        i = int((~apart).flatten().nonzero()[0])
        sides = f"{low.flatten()[i].item():g} and {high.flatten()[i].item():g}"
        raise ValueError(
            f"low, high: {sides} given for dimension {i} in {dtype}; "
            "want sides that are at least 2^20 roundings of the larger apart"
        )


def _rounding(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Between an ulp of the larger magnitude and two."""
    return torch.finfo(dtype).eps * torch.maximum(low.abs(), high.abs()).to(dtype)


@register_kl(SquashedNormal, SquashedNormal)
def _kl_squashed(p: SquashedNormal, q: SquashedNormal) -> Tensor:
    return kl_divergence(Independent(p._normal, 1), Independent(q._normal, 1))
