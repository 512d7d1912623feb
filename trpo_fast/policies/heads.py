"""From the outputs of a network to a distribution over the actions of a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from trpo_fast._core.library import as_double, in_words
from trpo_fast.solvers.validation import require_count
from trpo_fast.spaces import ActionLayout

from .distributions import MultiCategorical, Product


class ActsOver(nn.Module):
    """What lies between a built-in policy's outputs and its distribution: `act_over` first, then `distribution_of`.

    Attributes
    ----------
    action_space : gymnasium.Space
    log_std : nn.Parameter, shape (A,)
        One for each dimension of a Box, and only where there is one.
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
    nvec : tuple of int
        Choices of each categorical component; empty for a Box, for MultiBinary and for a product.
    action_parts : tuple of ActionLayout
        Of a product, in the order of its outputs; empty for all others.
    """

    log_std: nn.Parameter

    def act_over(self, space: Space[Any], layout: ActionLayout, log_std_init: float, dtype: torch.dtype) -> None:
        """Take `space`, whose layout is `layout`, with log standard deviations of `log_std_init`."""
        self.action_space = space
        self.distribution, self.nvec, self.action_parts = layout.distribution, layout.nvec, layout.parts
        if layout.log_std_size:
            # A module's own parameters come before its children's in named_parameters().
            self.log_std = initial_log_std(layout.log_std_size, log_std_init, dtype)

    def distribution_of(self, outputs: Tensor) -> Distribution:
        """Of the network's `outputs`, (B, layout.outputs)."""
        return action_distribution(
            self.distribution,
            outputs,
            log_std=getattr(self, "log_std", None),
            nvec=self.nvec,
            parts=self.action_parts,
        )


def action_distribution(
    distribution: str,
    outputs: Tensor,
    *,
    log_std: Tensor | None = None,
    nvec: Sequence[int] = (),
    parts: Sequence[ActionLayout] = (),
) -> Distribution:
    """The distribution that `trpo_fast.spaces.ActionLayout` calls `distribution`, batch shape (B,).

    Arguments are not validated: parameters that are not finite are for the caller to notice.

    Parameters
    ----------
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
    outputs : Tensor, shape (B, layout.outputs)
        Means, or logits.
    log_std : Tensor, shape (A,)
        Log standard deviations, of a Gaussian and of those in a product, one after the other.
    nvec : sequence of int
        Choices of each component, of "multicategorical" only.
    parts : sequence of ActionLayout
        Of "product" only.

    Returns
    -------
    Independent(Normal), Categorical, MultiCategorical, Independent(Bernoulli), or a Product of these
        Event shape as a stored action.
    """
    if distribution == "product":
        columns = outputs.split([part.outputs for part in parts], 1)
        sizes = [part.log_std_size for part in parts]
        log_stds: Sequence[Tensor | None] = [None] * len(parts) if log_std is None else log_std.split(sizes)
        return Product(
            [
                action_distribution(part.distribution, own, log_std=own_log_std, nvec=part.nvec)
                for part, own, own_log_std in zip(parts, columns, log_stds, strict=True)
            ]
        )
    if distribution == "categorical":
        return Categorical(logits=outputs, validate_args=False)
    if distribution == "multicategorical":
        return MultiCategorical(outputs, nvec)
    if distribution == "bernoulli":
        return Independent(Bernoulli(logits=outputs, validate_args=False), 1, validate_args=False)
    assert log_std is not None
    normal = Normal(outputs, log_std.exp().expand_as(outputs), validate_args=False)
    return Independent(normal, 1, validate_args=False)


def initialize_orthogonally(
    layer: nn.Linear | nn.Conv2d, gain: float, generator: torch.Generator | None = None
) -> None:
    """Orthogonal weights of gain `gain`, zero biases; a seed gives the same up to rounding in both precisions."""
    with torch.no_grad():
        layer.weight.copy_(orthogonal(layer.weight.shape, gain, generator))
        if layer.bias is not None:
            layer.bias.zero_()


def orthogonal(shape: Sequence[int], gain: float, generator: torch.Generator | None = None) -> Tensor:
    """A float64 matrix of `shape`, the axes behind the first as one, with orthogonal rows or columns of norm `gain`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of a factorization depend on their number
    try:
        return nn.init.orthogonal_(torch.empty(*shape, dtype=torch.float64), gain, generator=generator)
    finally:
        torch.set_num_threads(threads)


def checked_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """float32 or float64 from either or its name; ValueError for any other."""
    for known in (torch.float32, torch.float64):
        if dtype is known or (isinstance(dtype, str) and f"torch.{dtype}" == str(known)):
            return known
    raise ValueError(f"dtype: {in_words(dtype)} given; want torch.float32, torch.float64 or their names")


def initial_log_std(size: int, value: float, dtype: torch.dtype) -> nn.Parameter:
    """`size` log standard deviations of `value`; ValueError where it is not finite."""
    number = as_double(value, "log_std_init")
    if not abs(number) <= torch.finfo(dtype).max:
        raise ValueError(f"log_std_init: {in_words(value)} given; want a finite number of {dtype}")
    return nn.Parameter(torch.full((size,), number, dtype=dtype))


def seeded_generator(seed: int | None) -> torch.Generator | None:
    """A generator of `seed`; None, for torch's global one, without a seed."""
    if seed is None:
        return None
    # What torch takes: negative ones, too.
    return torch.Generator().manual_seed(require_count("seed", seed, low=-(2**63), most=2**64 - 1))
