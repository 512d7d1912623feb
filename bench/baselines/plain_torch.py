"""What a careful person writes in plain torch: textbook CG, and F v as the KL differentiated twice.

All tensors in one ``autograd.grad`` call; the graph of the first derivative is kept between products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.baselines import Solve
from bench.problems import LinearSystem, PolicyProblem


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """``iterations`` steps from zero, without a goal."""
    x = torch.zeros_like(b)
    r, p = b.clone(), b.clone()
    rr = r @ r
    for _ in range(iterations):
        Ap = product(p)
        alpha = rr / (p @ Ap)
        x += alpha * p
        r -= alpha * Ap
        rr, last = r @ r, rr
        p = r + (rr / last) * p
    return x


def solver(system: LinearSystem) -> Solve:
    """On tensors."""
    tensors = LinearSystem(torch.from_numpy(system.matrix), system.b, system.iterations)  # type: ignore[arg-type]
    b = torch.from_numpy(system.b)
    return lambda: conjugate_gradient(tensors.product, b, system.iterations).numpy()


def network(layers: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> nn.Sequential:
    """The tanh network with these weights."""

    def modules() -> Iterator[nn.Module]:
        for i, (weight, bias) in enumerate(layers):
            weight_, bias_ = torch.from_numpy(weight), torch.from_numpy(bias)
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight_.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight_)
                linear.bias.copy_(bias_)
            yield linear
            if i < len(layers) - 1:
                yield nn.Tanh()

    return nn.Sequential(*modules())


def kl_product(problem: PolicyProblem) -> Callable[[Tensor], Tensor]:
    """``v -> F v``: KL(new || old), differentiated twice."""
    net = network(problem.layers)
    log_std = torch.from_numpy(problem.log_std).clone().requires_grad_()
    parameters = [log_std, *net.parameters()]
    mean = net(torch.from_numpy(problem.observations))
    old_mean, old_log_std = mean.detach(), log_std.detach()
    variance_ratio = (2 * (log_std - old_log_std)).exp()
    shift = ((mean - old_mean) / old_log_std.exp()) ** 2
    kl = 0.5 * (variance_ratio + shift - 1 - 2 * (log_std - old_log_std)).sum(1).mean()
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(kl, parameters, create_graph=True)])

    def product(v: Tensor) -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(gradient @ v, parameters, retain_graph=True)])

    return product


def fisher_solver(problem: PolicyProblem, gradient: NDArray[Any], damping: float, iterations: int) -> Solve:
    """CG on that product."""
    product, b = kl_product(problem), torch.from_numpy(gradient)
    return lambda: conjugate_gradient(lambda v: product(v) + damping * v, b, iterations).numpy()
