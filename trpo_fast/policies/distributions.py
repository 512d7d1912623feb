"""Information geometry of torch distributions: Fisher metric and Kullback-Leibler divergence.

For the families here both are exact and in closed form; for every other distribution the divergence is torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    TransformedDistribution,
    constraints,
    kl_divergence,
)

from .families import FAMILIES, Family
from .families import base_of as base_of


def family_of(distribution: Distribution) -> Family | None:
    """The closed-form family of `distribution`, looking through Independent; None where we have none.

    Subclasses are not taken for their parents: they may have changed the density.
    """
    return FAMILIES.get(type(base_of(distribution)))


def divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) of the joint distribution of each sample, shape (B,), float64; a number, not to be differentiated.

    Raises NotImplementedError when the pair has neither a closed form here nor one in torch.
    """
    family = family_of(p)
    if family is not None and family is family_of(q):
        terms = family.divergence(family.coordinates(p), family.coordinates(q))
        return terms.reshape(len(terms), -1).sum(-1)
    with torch.enable_grad():  # torch differentiates the normalizer of an exponential family that it has no formula for
        return kl_divergence(p, q).double().detach()


def sample_inside(distribution: Distribution) -> Tensor:
    """A sample that stays inside of the support where rounding would put it on a side, as a tanh does far out.

    A side has no density: the log-probability of such an action is not finite. Of a transformed distribution what
    each transform makes is kept inside of where it leads to.
    """
    base = base_of(distribution)
    if type(base) is not TransformedDistribution:
        return _inside(distribution.sample(), base)
    x = base.base_dist.sample()
    for transform in base.transforms:
        x = _inside(transform(x), transform, "codomain")
    return x


def _inside(x: Tensor, of: Any, support: str = "support") -> Tensor:
    """`x` at least some roundings away from finite sides of the support of floats, if `of` has one that says them."""
    try:
        limits = getattr(of, support)
    except NotImplementedError:
        return x
    while isinstance(limits, constraints.independent):
        limits = limits.base_constraint
    if not x.is_floating_point() or limits.is_discrete:
        return x
    low, high = (getattr(limits, f"{side}_bound", None) for side in ("lower", "upper"))
    roundings, tiny = 8.0 * torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny
    for side, other, sign, keep in ((low, high, 1.0, torch.maximum), (high, low, -1.0, torch.minimum)):
        if side is not None:
            size = abs(side) if other is None else abs(other - side)
            x = keep(x, torch.as_tensor(side + sign * (roundings * size + tiny), dtype=x.dtype, device=x.device))
    return x


class MultiCategorical(Independent):
    """Independent categorical components, event shape ``(m,)``, from logits that stand one after the other.

    Parameters
    ----------
    logits : Tensor, shape (B, sum(nvec))
    nvec : sequence of int
        Choices of each component.

    Raises
    ------
    ValueError
        `nvec` does not fit the logits.
    """

    def __init__(self, logits: Tensor, nvec: Sequence[int]) -> None:
        self.nvec = tuple(map(int, nvec))
        if not self.nvec or min(self.nvec) < 1 or logits.ndim != 2 or logits.shape[1] != sum(self.nvec):
            raise ValueError(
                f"nvec: got {self.nvec} for logits of shape {tuple(logits.shape)}, wanted sizes that add up to "
                "its last axis"
            )
        # One block as long as the longest for each component: what is padded takes no part, as what is masked.
        blocks = _blocks(logits, self.nvec, torch.finfo(logits.dtype).min)
        super().__init__(Categorical(logits=blocks, validate_args=False), 1, validate_args=False)

    @property
    def logits(self) -> Tensor:
        """Log-probabilities of every component's choices, one component after the other: (B, sum(nvec))."""
        parts = zip(self.base_dist.logits.unbind(1), self.nvec, strict=True)
        return torch.cat([block[:, :n] for block, n in parts], 1)


def with_masks(distribution: Distribution, masks: Tensor) -> Distribution:
    """`distribution` restricted to the choices where `masks` (B, K) is True; all others take no part at all.

    Parameters
    ----------
    distribution : Categorical or Bernoulli, alone or in Independent, or MultiCategorical
        Batch shape (B,).
    masks : bool Tensor
        K is the number of logits; of a Bernoulli twice that, pairs (may be 0, may be 1).

    Raises
    ------
    ValueError
        Another distribution, masks of another shape, or one that forbids everything in a component.
    """
    base, sizes = base_of(distribution), choices_of(distribution)
    if sizes is None:
        raise ValueError(
            f"action_masks: got them for a policy that returns {distribution}, "
            "wanted a Categorical or Bernoulli, alone or in Independent, or a MultiCategorical"
        )
    assert isinstance(base, Categorical | Bernoulli)
    logits = base.logits
    if tuple(masks.shape) != (len(logits), sum(sizes)):
        raise ValueError(f"action_masks: got shape {tuple(masks.shape)}, wanted {(len(logits), sum(sizes))}")
    allowed = _blocks(masks, sizes, False)
    if not allowed.any(-1).all():
        row, component = (~allowed.any(-1)).nonzero()[0].tolist()
        raise ValueError(f"action_masks: row {row} forbids every choice of component {component}")
    # The lowest finite number rather than -inf: probability and every derivative are exactly 0, and nothing is NaN.
    lowest = torch.finfo(logits.dtype).min
    if isinstance(distribution, MultiCategorical):
        return MultiCategorical(distribution.logits.masked_fill(~masks, lowest), sizes)
    allowed = allowed.view(*base.batch_shape, -1)
    restricted: Distribution
    if type(base) is Bernoulli:
        certain = logits.masked_fill(~allowed[..., 0], -lowest).masked_fill(~allowed[..., 1], lowest)
        restricted = Bernoulli(logits=certain, validate_args=False)
    else:
        restricted = Categorical(logits=logits.masked_fill(~allowed, lowest), validate_args=False)
    event_axes = len(distribution.event_shape)
    return Independent(restricted, event_axes, validate_args=False) if event_axes else restricted


def choices_of(distribution: Distribution) -> tuple[int, ...] | None:
    """Choices of each component of a Categorical or Bernoulli, alone or in Independent, or of a MultiCategorical.

    None for all others; `distribution` has batch shape (B,), and every other axis of it is one of its event.
    """
    base, components = base_of(distribution), distribution.event_shape.numel()
    if isinstance(distribution, MultiCategorical):
        return distribution.nvec
    if type(base) is Categorical:
        return (base.logits.shape[-1],) * components
    return (2,) * components if type(base) is Bernoulli else None


def _blocks(rows: Tensor, sizes: Sequence[int], padding: float) -> Tensor:
    """``(B, m, max(sizes))`` from ``(B, sum(sizes))``: short blocks are padded at their end."""
    parts = rows.split(list(sizes), 1)
    longest = max(sizes)
    return torch.stack(
        [torch.nn.functional.pad(part, (0, longest - part.shape[1]), value=padding) for part in parts], 1
    )
