"""The Fisher matrix, written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast.policies.functional import call_with
from trpo_fast.policies.recurrent import is_recurrent
from trpo_fast.solvers.arrays import as_array

from .binding import check_deterministic, checked_distribution, plain_module
from .linearization import FisherProduct, twice_differentiable


def fisher_matrix(policy: nn.Module, observations: Any) -> NDArray[np.float64]:
    """The Fisher information of `policy` averaged over `observations`, entry by entry.

    For tests, diagnostics and small policies: n products of Fisher matrix and unit vector, and n^2 numbers of memory.
    Computed in float64 whatever the policy's dtype, on a copy of its parameters.

    Parameters
    ----------
    policy : torch.nn.Module
        ``forward(observations)`` returns a ``torch.distributions.Distribution`` of batch shape (B,). What
        ``torch.compile`` put around its parts is taken off, as `make_engine` does.
    observations : array or Tensor, shape (B, ...)
        As the policy takes them.

    Returns
    -------
    float64 array, shape (n, n)
        Symmetric, in ``named_parameters()`` order, undamped; rows and columns of frozen parameters are zero.

    Raises
    ------
    ValueError
        `observations` are none, not finite, or not what the policy takes; the policy's distribution is not one for
        each of them; or the policy is recurrent, or refused, as `make_engine` does.
    TypeError
        The policy is no module or returns something else than a torch distribution; `observations` are no numbers.

    References
    ----------
    .. [1] Martens, "New insights and perspectives on the natural gradient method", JMLR 2020, sec. 5.
    """
    if not isinstance(policy, nn.Module):
        raise TypeError(f"policy: {type(policy).__name__} given; want a torch.nn.Module")
    policy = plain_module(policy)
    if is_recurrent(policy):
        raise ValueError(f"policy: a recurrent {type(policy).__name__} given; want one whose rows stand by themselves")
    check_deterministic("policy", policy)
    rows = _observations(observations)
    tensors = {name: _double(tensor) for name, tensor in [*policy.named_parameters(), *policy.named_buffers()]}
    names = dict(policy.named_parameters())
    parameters = {name: tensors[name].requires_grad_(parameter.requires_grad) for name, parameter in names.items()}

    def forward(values: Mapping[str, Tensor]) -> Distribution:
        with twice_differentiable():
            result = call_with(policy, tensors | dict(values), (rows.clone(),))
        return checked_distribution(result, len(rows))

    with torch.enable_grad():
        try:
            recorded = forward(parameters)
        except RuntimeError as error:
            shape = tuple(rows.shape)
            raise ValueError(f"policy: forward failed for observations of shape {shape}: {error}") from error
        product = FisherProduct(forward, parameters, recorded)
    leaves = [tensor for tensor in parameters.values() if tensor.requires_grad]
    size = sum(leaf.numel() for leaf in leaves)
    matrix = torch.empty(size, size, dtype=torch.float64)
    sizes = [leaf.numel() for leaf in leaves]
    for row, unit in zip(matrix, torch.eye(size, dtype=torch.float64), strict=True):
        vectors = [part.view(leaf.shape) for part, leaf in zip(unit.split(sizes), leaves, strict=True)]
        torch.cat([part.reshape(-1) for part in product(vectors)], out=row)
    live = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in policy.parameters()]).numpy()
    result = np.zeros((len(live), len(live)))
    result[np.ix_(live, live)] = ((matrix + matrix.T) / (2 * len(rows))).numpy()
    return result


def _observations(value: Any) -> Tensor:
    """A float64 copy, (B, ...)."""
    array = as_array(value.cpu() if isinstance(value, Tensor) and not value.is_meta else value, "observations")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"observations: {type(value).__name__} of {array.dtype} given; want numbers of shape (B, ...)")
    if array.size == 0 or array.ndim == 0:
        raise ValueError(f"observations: shape {array.shape} given; want (B, ...) with B >= 1")
    rows = torch.from_numpy(np.array(array, np.float64, order="C"))
    if not rows.isfinite().all():
        where = tuple((~rows.isfinite()).nonzero()[0].tolist())
        raise ValueError(f"observations: {rows[where]} at {where} given; want finite numbers")
    return rows


def _double(tensor: Tensor) -> Tensor:
    """A copy without gradients, float64 where `tensor` is floating."""
    return tensor.detach().to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
