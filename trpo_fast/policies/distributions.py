"""Information geometry of torch distributions: Fisher metric and Kullback-Leibler divergence.

For the families here both are exact and in closed form; for every other distribution the divergence is torch's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
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
from torch.distributions.kl import register_kl

from trpo_fast.solvers.validation import require_items

from .families import FAMILIES, Family
from .families import base_of as base_of


def family_of(distribution: Distribution) -> Family | None:
    """The closed-form family of `distribution`, looking through Independent; None where we have none.

    Subclasses are not taken for their parents: they may have changed the density.
    """
    if type(distribution) is Product:
        return _product_family(distribution)
    return FAMILIES.get(type(base_of(distribution)))


def divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) of the joint distribution of each sample, shape (B,), float64; a number, not to be differentiated.

    Raises NotImplementedError when the pair has neither a closed form here nor one in torch.
    """
    if type(p) is type(q) is Product and len(p.parts) == len(q.parts):
        return torch.stack([divergence(*pair) for pair in zip(p.parts, q.parts, strict=True)]).sum(0)
    family = family_of(p)
    if family is not None and family is family_of(q):
        terms = family.divergence(family.coordinates(p), family.coordinates(q))
        return terms.reshape(len(terms), -1).sum(-1)
    with torch.enable_grad():  # torch differentiates the normalizer of an exponential family that it has no formula for
        return kl_divergence(p, q).double().detach()


def kind_without(distribution: Distribution, ask: Callable[[Distribution], object]) -> str:
    """What to call `distribution`, for which `ask` raises NotImplementedError; of a Product the part to blame."""
    if isinstance(distribution, Product):
        for index, part in enumerate(distribution.parts):
            try:
                ask(part)
            except NotImplementedError:
                return f"{kind_without(part, ask)} in part {index} of a Product"
    return type(base_of(distribution)).__name__


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
                f"nvec: {self.nvec} for logits of shape {tuple(logits.shape)} given; want sizes that add up to "
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


class Product(Distribution):
    """Distributions of one sample's actions that are independent of each other, event shape ``(K,)``.

    A value is a row of floats: the values of all parts, flat, one after the other, choices as whole numbers.
    Log-probabilities, entropies and divergences add up, and the Fisher information has a block for each part.

    Parameters
    ----------
    parts : sequence of Distribution
        Each of batch shape (B,) and any event shape, for each space in a Tuple or Dict of actions, in its order. The
        parts of a product among them become parts of this one.

    Raises
    ------
    ValueError
        There is no part, or their batch shapes differ, or are no (B,).
    TypeError
        One of them is no Distribution.
    """

    arg_constraints = {}  # noqa: RUF012  (torch's own name and kind; the parts check their arguments)

    def __init__(self, parts: Sequence[Distribution]) -> None:
        several = require_items("parts", parts, "a sequence of torch distributions")
        flat = ([*part.parts] if type(part) is Product else [part] for part in several)
        self.parts: tuple[Distribution, ...] = tuple(itertools.chain.from_iterable(flat))
        for part in self.parts:
            if not isinstance(part, Distribution):
                raise TypeError(f"parts: {type(part).__name__} given among them; want torch distributions")
        shapes = {tuple(part.batch_shape) for part in self.parts}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"parts: batch shapes {sorted(shapes)} given; want one (B,) of at least one distribution")
        self.sizes = tuple(part.event_shape.numel() for part in self.parts)
        super().__init__(self.parts[0].batch_shape, torch.Size([sum(self.sizes)]), validate_args=False)

    @property
    def mode(self) -> Tensor:
        """Of each part; NotImplementedError where torch does not know one."""
        return self.joined([part.mode for part in self.parts])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A value of each part, without gradients."""
        return self.joined([part.sample(sample_shape) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Of rows (..., K): the sum over the parts."""
        return sum_of(part.log_prob(own) for part, own in zip(self.parts, self.split(value), strict=True))

    def entropy(self) -> Tensor:
        """Sum over the parts; NotImplementedError where torch does not know one."""
        return sum_of(part.entropy() for part in self.parts)

    def joined(self, values: Sequence[Tensor]) -> Tensor:
        """A row of the parts' values, (..., K) of floats."""
        dtype = functools.reduce(torch.promote_types, [value.dtype for value in values])
        floats = dtype if dtype.is_floating_point else _logits_dtype(self.parts)
        rows = [
            value.reshape(*value.shape[: value.ndim - len(part.event_shape)], -1).to(floats)
            for value, part in zip(values, self.parts, strict=True)
        ]
        return torch.cat(rows, -1)

    def split(self, value: Tensor) -> list[Tensor]:
        """The parts' values, each of its event shape, of rows (..., K)."""
        pieces = value.split(self.sizes, -1)
        return [
            piece.reshape(*value.shape[:-1], *part.event_shape) for piece, part in zip(pieces, self.parts, strict=True)
        ]


@register_kl(Product, Product)
def _kl_of_products(p: Product, q: Product) -> Tensor:
    return sum_of(kl_divergence(*pair) for pair in zip(p.parts, q.parts, strict=True))


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(torch.add, terms)


def _logits_dtype(parts: Sequence[Distribution]) -> torch.dtype:
    """Of the parameters of distributions over integers."""
    for part in parts:
        logits = getattr(base_of(part), "logits", None)
        if isinstance(logits, Tensor):
            return logits.dtype
    return torch.get_default_dtype()


def _product_family(product: Product) -> Family | None:
    """Coordinates, M and divergence of each part, one after the other; None where one has none."""
    families = [family_of(part) for part in product.parts]
    known = [family for family in families if family is not None]
    if len(known) < len(families):
        return None
    counts = [len(family.coordinates(part)) for family, part in zip(known, product.parts, strict=True)]
    ends = list(itertools.accumulate(counts))
    spans = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]

    def coordinates(distribution: Distribution) -> tuple[Tensor, ...]:
        assert isinstance(distribution, Product)
        parts = zip(known, distribution.parts, strict=True)
        return tuple(itertools.chain.from_iterable(family.coordinates(part) for family, part in parts))

    def metric(at: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        blocks = (family.metric(at[span], tangents[span]) for family, span in zip(known, spans, strict=True))
        return tuple(itertools.chain.from_iterable(blocks))

    def divergence(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
        terms = [family.divergence(p[span], q[span]) for family, span in zip(known, spans, strict=True)]
        return torch.cat([term.reshape(len(term), -1) for term in terms], 1)

    return Family(coordinates, metric, divergence, all(family.differentiable for family in known))


def with_masks(distribution: Distribution, masks: Tensor) -> Distribution:
    """`distribution` restricted to the choices where `masks` (B, K) is True; all others take no part at all.

    Parameters
    ----------
    distribution : Categorical or Bernoulli, alone or in Independent, MultiCategorical, or a Product with one of these
        Batch shape (B,).
    masks : bool Tensor
        K is the number of logits; of a Bernoulli twice that, pairs (may be 0, may be 1). Of a product those of its
        parts, one after the other; others than these have none.

    Raises
    ------
    ValueError
        Another distribution, masks of another shape, or one that forbids everything in a component.
    """
    if isinstance(distribution, Product):
        return _product_with_masks(distribution, masks)
    base, sizes = base_of(distribution), choices_of(distribution)
    if sizes is None:
        raise ValueError(
            f"action_masks: some given for a policy that returns {distribution}; "
            "want a Categorical or Bernoulli, alone or in Independent, or a MultiCategorical"
        )
    assert isinstance(base, Categorical | Bernoulli)
    logits = base.logits
    if tuple(masks.shape) != (len(logits), sum(sizes)):
        raise ValueError(f"action_masks: shape {tuple(masks.shape)} given; want {(len(logits), sum(sizes))}")
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


def _product_with_masks(distribution: Product, masks: Tensor) -> Product:
    sizes = [sum(choices_of(part) or ()) for part in distribution.parts]
    count = distribution.batch_shape[0]
    if not any(sizes) or tuple(masks.shape) != (count, sum(sizes)):
        raise ValueError(
            f"action_masks: shape {tuple(masks.shape)} given; want {(count, sum(sizes))}, K items for all Categoricals "
            "and Bernoullis in the product"
        )
    parts = []
    for index, (part, own) in enumerate(zip(distribution.parts, masks.split(sizes, 1), strict=True)):
        try:
            parts.append(with_masks(part, own) if own.shape[1] else part)
        except ValueError as error:
            raise ValueError(f"{error} of part {index}") from error
    return Product(parts)


def choices_of(distribution: Distribution) -> tuple[int, ...] | None:
    """Choices of each component of a Categorical or Bernoulli, alone or in Independent, or of a MultiCategorical.

    None for all others, a Product included, whose parts are to be asked; `distribution` has batch shape (B,), and every
    other axis of it is one of its event.
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
