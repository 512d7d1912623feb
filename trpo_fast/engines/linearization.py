"""Fisher products J'M J v of any torch network, from one recorded graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from trpo_fast.policies.distributions import family_of


class FisherProduct:
    """Sum over the batch of J_t' M_t J_t, at the point where `distribution` was computed.

    J v is the derivative of the recorded pullback u -> J'u, which is linear in u ("double backward" trick); so every
    product is two reverse passes over one graph, and any module that can be differentiated twice will do. For a
    distribution whose M is not known in closed form, the KL to itself is differentiated twice instead.

    Parameters
    ----------
    distribution : torch.distributions.Distribution
        Computed from `parameters` with gradients enabled; batch shape (B,).
    old : torch.distributions.Distribution
        The same without gradients.
    parameters : sequence of Tensor
        Leaves, all requiring gradients.

    Raises
    ------
    ValueError
        There is no closed form for the distribution here, and torch has no KL for it.
    """

    def __init__(self, distribution: Distribution, old: Distribution, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._family = family_of(distribution)
        if self._family is None:
            try:
                divergence = kl_divergence(old, distribution).sum()
            except NotImplementedError:
                raise ValueError(
                    f"policy: torch has no KL divergence for the {type(distribution).__name__} that it returns; "
                    "register one with torch.distributions.kl.register_kl"
                ) from None
            one = torch.ones_like(divergence)
            self._gradient = _gradients([divergence], self._parameters, [one], create_graph=True)
            return
        self._outputs = self._family.coordinates(distribution)
        self._coordinates = tuple(output.detach() for output in self._outputs)
        self._cotangents = [torch.zeros_like(output, requires_grad=True) for output in self._outputs]
        self._pullback = _gradients(self._outputs, self._parameters, self._cotangents, create_graph=True)

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The product with one vector per parameter, of its shape."""
        if self._family is None:
            return _gradients(self._gradient, self._parameters, vectors)
        tangents = _gradients(self._pullback, self._cotangents, vectors)
        return _gradients(self._outputs, self._parameters, self._family.metric(self._coordinates, tuple(tangents)))


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], weights: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor]:
    """Gradients of sum(weights * outputs), zeros where nothing depends on an input; the graph stays."""
    live = [(output, weight) for output, weight in zip(outputs, weights, strict=True) if output.requires_grad]
    if not live:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(
        torch.autograd.grad(
            [output for output, _ in live],
            list(inputs),
            [weight for _, weight in live],
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )
