"""The ways to a Fisher product that torch has, each written as well as it can be; the best of them is what counts.

All know that the KL's Hessian at theta_old is J'MJ, but for the first, which is what TRPO codes do.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jvp, linearize, vjp

from bench.baselines import Baseline, Product
from bench.baselines.plain_torch import kl_product, network
from bench.problems import PolicyProblem


class _Policy:
    """A problem's network, and M applied to tangents of the mean, over B."""

    def __init__(self, problem: PolicyProblem) -> None:
        self.net = network(problem.layers)
        self.observations = torch.from_numpy(problem.observations)
        self.parameters = list(self.net.parameters())
        self.names = [name for name, _ in self.net.named_parameters()]
        self.theta = {name: parameter.detach() for name, parameter in self.net.named_parameters()}
        self.actions = problem.widths[-1]
        self._weight = torch.from_numpy(np.exp(-2 * problem.log_std) / problem.batch)

    def mean(self, theta: dict[str, Tensor]) -> Tensor:
        """(B, A), of parameters from outside."""
        result: Tensor = functional_call(self.net, theta, (self.observations,))
        return result

    def metric(self, tangents: Tensor) -> Tensor:
        """M J v / B."""
        return tangents * self._weight

    def split(self, v: Tensor) -> list[Tensor]:
        """One tensor per parameter of the network."""
        pieces = v[self.actions :].split([p.numel() for p in self.parameters])
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    def join(self, v: Tensor, pieces: object) -> Tensor:
        """F v: the log-std's part is 2 v."""
        return torch.cat([2 * v[: self.actions], *(piece.reshape(-1) for piece in pieces)])  # type: ignore[attr-defined]


def _double_vjp(problem: PolicyProblem) -> Callable[[Tensor], Tensor]:
    """J v as the derivative of the pullback u -> J'u, recorded once."""
    policy = _Policy(problem)
    mean = policy.net(policy.observations)
    u = torch.zeros_like(mean, requires_grad=True)
    pullback = torch.autograd.grad(mean, policy.parameters, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        (tangents,) = torch.autograd.grad(pullback, u, policy.split(v), retain_graph=True)
        return policy.join(v, torch.autograd.grad(mean, policy.parameters, policy.metric(tangents), retain_graph=True))

    return product


def _jvp_vjp(problem: PolicyProblem) -> Callable[[Tensor], Tensor]:
    """Forward mode, which runs the network again, and reverse mode over a graph recorded once."""
    policy = _Policy(problem)
    mean = policy.net(policy.observations)

    def product(v: Tensor) -> Tensor:
        tangent = dict(zip(policy.names, policy.split(v), strict=True))
        tangents = jvp(policy.mean, (policy.theta,), (tangent,))[1]
        return policy.join(v, torch.autograd.grad(mean, policy.parameters, policy.metric(tangents), retain_graph=True))

    return product


def _linearize_vjp(problem: PolicyProblem) -> Callable[[Tensor], Tensor]:
    """As `_jvp_vjp`, with the forward pass of J v recorded once."""
    policy = _Policy(problem)
    mean = policy.net(policy.observations)
    _, push = linearize(policy.mean, policy.theta)

    def product(v: Tensor) -> Tensor:
        tangents = push(dict(zip(policy.names, policy.split(v), strict=True)))
        return policy.join(v, torch.autograd.grad(mean, policy.parameters, policy.metric(tangents), retain_graph=True))

    return product


def _compiled(problem: PolicyProblem) -> Callable[[Tensor], Tensor]:
    """J'MJ v as one function, given to torch.compile."""
    policy = _Policy(problem)

    def product(v: Tensor) -> Tensor:
        tangent = dict(zip(policy.names, policy.split(v), strict=True))
        tangents = jvp(policy.mean, (policy.theta,), (tangent,))[1]
        pull = vjp(policy.mean, policy.theta)[1]
        (pieces,) = pull(policy.metric(tangents))
        return policy.join(v, [pieces[name] for name in policy.names])

    made: Callable[[Tensor], Tensor] = torch.compile(product, dynamic=False)
    return made


WAYS: dict[str, Callable[[PolicyProblem], Callable[[Tensor], Tensor]]] = {
    "torch-double-backward": kl_product,
    "torch-double-vjp": _double_vjp,
    "torch-jvp-vjp": _jvp_vjp,
    "torch-linearize-vjp": _linearize_vjp,
    "torch-compile": _compiled,
}


def way(name: str) -> Baseline:
    """A baseline that offers ``fisher_product`` alone."""

    def fisher_product(problem: PolicyProblem) -> Product:
        product = WAYS[name](problem)
        return lambda v: product(torch.from_numpy(v)).numpy()

    return SimpleNamespace(fisher_product=fisher_product)
