"""Whether the derivatives of a policy of the user's own are those of what it computes, and make a Fisher information.

A Fisher product is symmetric and that of the score; J v is what a finite difference of the forward pass says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from trpo_fast.policies.distributions import base_of, family_of
from trpo_fast.policies.families import Family
from trpo_fast.policies.functional import call_with

from .linearization import FisherProduct, dot, not_differentiable, random_like, torchs_divergence, twice_differentiable
from .probing import calls, clones, distribution_of, first_line, tensors_in, values_of

R = TypeVar("R")

_SAMPLES = 2_000  # for each row: the mean square of a score is known to a few per cent

_REGISTERED = "a divergence of its own registered with torch.distributions.kl.register_kl"
_INSTEAD = f"want another distribution, or {_REGISTERED}"


class _Pass:
    """The forward pass of a policy as a function of its parameters, in float64 where it can be."""

    def __init__(self, policy: nn.Module, arguments: Sequence[Tensor], *, double: bool) -> None:
        self.double = double

        def cast(tensor: Tensor) -> Tensor:
            kind = torch.complex128 if tensor.is_complex() else torch.float64
            convert = double and (tensor.is_floating_point() or tensor.is_complex())
            return tensor.detach().to(kind if convert else tensor.dtype, copy=True)

        self._policy = policy
        self._arguments = [cast(argument) for argument in arguments]
        self._buffers = {name: cast(buffer) for name, buffer in policy.named_buffers()}
        self.values = {name: cast(parameter) for name, parameter in policy.named_parameters()}
        self.live = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
        self._moved = {name: torch.empty_like(self.values[name]) for name in self.live}

    def __call__(self, parameters: Mapping[str, Tensor]) -> Distribution:
        values = self._buffers | dict(parameters)
        with twice_differentiable():
            return distribution_of(call_with(self._policy, values, clones(self._arguments)), self._arguments)

    def holding(self, parameters: Mapping[str, Tensor], work: Callable[[], R]) -> R:
        """What `work` returns, the policy having `parameters` meanwhile.

        A part that is computed again in a backward pass, as by torch's checkpointing, takes those that are there then.
        """
        values = {f"policy.{name}": value for name, value in (self._buffers | dict(parameters)).items()}
        return cast("R", torch.func.functional_call(_Holding(self._policy, work), values, ()))

    def leaves(self) -> dict[str, Tensor]:
        """Parameters of which those that are trained require gradients."""
        return {name: value.detach().requires_grad_(name in self.live) for name, value in self.values.items()}

    def moved(self, direction: Sequence[Tensor], size: float) -> dict[str, Tensor]:
        """Parameters a step along `direction`, one tensor for each that is trained; good until the next step."""
        for name, step in zip(self.live, direction, strict=True):
            torch.add(self.values[name], step, alpha=size, out=self._moved[name])
        return self.values | self._moved


class _Holding(nn.Module):
    """A policy in which `torch.func.functional_call` puts parameters for as long as `work` lasts."""

    def __init__(self, policy: nn.Module, work: Callable[[], Any]) -> None:
        super().__init__()
        self.policy = policy
        self.work = work

    def forward(self) -> Any:
        return self.work()


def _recorded(policy: nn.Module, arguments: Sequence[Tensor]) -> tuple[_Pass, dict[str, Tensor], Distribution]:
    """A pass, its leaves, and what it gives there; in float64, unless the policy has a dtype of its own somewhere."""
    for double in (True, False):
        forward = _Pass(policy, arguments, double=double)
        leaves = forward.leaves()
        try:
            with torch.enable_grad():
                distribution = forward(leaves)
            if not double or all(part.dtype != torch.float32 for part in values_of(distribution)):
                break
        except Exception:  # it may well insist on its dtype
            if not double:
                raise
    return forward, leaves, distribution


def check_derivatives(policy: nn.Module, arguments: Sequence[Tensor], linearization: str) -> bool:
    """Whether a policy's derivatives are those of its forward pass.

    Parameters
    ----------
    policy : torch.nn.Module
    arguments : sequence of Tensor
        Of its forward: rows (B, ...), or observations, state and starts of a recurrent one.
    linearization : str
        How the engine computes Fisher products.

    Raises
    ------
    ValueError
        A Fisher product is wrong, or there is none.
    NotFiniteError
        One is not finite.
    """
    forward, leaves, distribution = _recorded(policy, arguments)
    try:
        return forward.holding(leaves, lambda: _are_derivatives(policy, forward, leaves, distribution, linearization))
    except _NotTwiceError as error:
        raise ValueError(
            f"policy: torch cannot differentiate {_not_twice(policy, arguments)} twice, which a Fisher product needs: "
            f"{error}"
        ) from error.__cause__
    except NotFiniteError:
        raise NotFiniteError(forward.holding(leaves, lambda: _not_finite(forward, leaves))) from None


class NotFiniteError(Exception):
    """A derivative at finite outputs is not finite; says which, as far as torch knows."""


class _NotTwiceError(Exception):
    """What torch says of a policy that it cannot differentiate twice."""


def _are_derivatives(
    policy: nn.Module,
    forward: _Pass,
    leaves: Mapping[str, Tensor],
    distribution: Distribution,
    linearization: str,
) -> bool:
    """As `check_derivatives`, at `leaves`, which the policy holds, and where it gave `distribution`."""
    name, known = type(base_of(distribution)).__name__, family_of(distribution)
    # What is known in closed form is compared along one; what torch's divergence says of the Fisher information, two.
    directions = [_direction(policy, forward) for _ in range(1 if known is not None else 2)]
    tensors = [leaves[part] for part in forward.live]
    with torch.enable_grad():
        found = values_of(distribution)
    if not any(part.requires_grad for part in found):
        raise ValueError(
            "policy: nothing connects its log-probabilities to its parameters; want a forward without "
            "torch.no_grad() and detach()"
        )
    if known is None:
        _check_minimum(name, forward, distribution, tensors, directions)
    try:
        with torch.enable_grad():
            product = FisherProduct(forward, leaves, distribution, linearization)
            products = [product.verify(directions[0]), *map(product, directions[1:])]
    except (RuntimeError, NotImplementedError) as error:
        raise _NotTwiceError(first_line(error)) from error
    curvatures = [dot(direction, product) for direction, product in zip(directions, products, strict=True)]
    if not all(map(math.isfinite, curvatures)):
        raise NotFiniteError
    if known is None:
        _check_curvature(name, distribution, tensors, directions, curvatures)
    if not forward.double or _are_followed(forward, known, distribution, directions, products, curvatures):
        return True
    if not any(curvatures):  # a Hessian of nothing is symmetric
        raise ValueError(not_differentiable(found))
    return False


def _direction(policy: nn.Module, forward: _Pass) -> list[Tensor]:
    """Random, of the size of each parameter's numbers and no less than 0.1, so that it moves all parts of a network."""
    found = {}
    for name in forward.live:
        value = forward.values[name]
        size = float(torch.linalg.vector_norm(value, 1)) / max(1, value.numel())
        found[name] = random_like(value).mul_(max(size, 0.1))
    for name, part in policy.named_modules():
        rows = found.get(f"{name}.weight" if name else "weight")
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None and rows is not None:
            rows[part.padding_idx] = 0.0  # has no gradient, as it is never to move
    return list(found.values())


def _not_twice(policy: nn.Module, arguments: Sequence[Tensor]) -> str:
    """The first layer that torch cannot differentiate twice by itself."""
    for name, layer, inputs, _ in calls(policy, arguments):
        with torch.enable_grad():
            given = [part.requires_grad_() if part.is_floating_point() else part for part in inputs]
            leaves = [part for part in (*given, *layer.parameters()) if part.requires_grad]
            try:
                outputs = [part for part in tensors_in(layer(*given), detached=False) if part.requires_grad]
            except Exception:  # it has other arguments, too
                continue
            weights = [torch.zeros_like(part, requires_grad=True) for part in outputs]
            try:
                pulled = torch.autograd.grad(outputs, leaves, weights, create_graph=True, allow_unused=True)
                live = [part for part in pulled if part is not None and part.requires_grad]
                torch.autograd.grad(live, weights, [torch.ones_like(part) for part in live], allow_unused=True)
            except RuntimeError:
                if name and outputs:
                    return f"{name!r}, a {type(layer).__name__},"
    return "it"


def _not_finite(forward: _Pass, leaves: Mapping[str, Tensor]) -> str:
    """The operation whose gradient is the first that is not a number, in torch's words; empty for infinite ones."""
    with torch.enable_grad(), torch.autograd.set_detect_anomaly(True):
        outputs = [part for part in values_of(forward(leaves)) if part.requires_grad]
        weights = [torch.ones_like(part) for part in outputs]
        try:
            torch.autograd.grad(outputs, [leaves[name] for name in forward.live], weights, allow_unused=True)
        except RuntimeError as error:
            return first_line(error)
    return ""


def _check_minimum(
    name: str,
    forward: _Pass,
    distribution: Distribution,
    leaves: Sequence[Tensor],
    directions: Sequence[Sequence[Tensor]],
) -> None:
    """ValueError where torch's divergence is not there, or has no minimum, at the same parameters and near them."""
    with torch.no_grad():
        old = forward(forward.values)
    with torch.enable_grad():
        divergence = torchs_divergence(old, distribution).sum()
    if not divergence.requires_grad:
        raise ValueError(
            f"policy: torch's KL divergence of the {name} that it returns does not depend on its parameters, {_INSTEAD}"
        )
    slopes = torch.autograd.grad(divergence, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    if not all(slope.isfinite().all() for slope in slopes):
        raise NotFiniteError
    for direction in directions:
        # Of a sum of terms that cancel; a support that moves has one of the size of the log-probability's.
        scale = sum(float((a.double() * b.double()).abs().sum()) for a, b in zip(slopes, direction, strict=True))
        if not abs(dot(slopes, direction)) <= (1e-6 if forward.double else 1e-3) * (1.0 + scale):
            raise ValueError(
                f"policy: torch's KL divergence of the {name} that it returns has a slope where the two are the same, "
                "as its support depends on parameters; want a distribution of fixed support"
            )
        try:
            with torch.no_grad():
                moved = forward(forward.moved(direction, 1e-3))
            kl_divergence(old, moved)
        except NotImplementedError:
            raise ValueError(
                f"policy: torch has no KL divergence of the {name} that it returns once its parameters have moved, as "
                f"they are in its transforms; want them in its base distribution, or {_REGISTERED}"
            ) from None


def _check_curvature(
    name: str,
    distribution: Distribution,
    leaves: Sequence[Tensor],
    directions: Sequence[Sequence[Tensor]],
    curvatures: Sequence[float],
) -> None:
    """ValueError where the Hessian of torch's divergence is not the covariance of the score."""
    try:
        with torch.enable_grad():
            log_probs = distribution.log_prob(distribution.sample((_SAMPLES,)))
            weights = torch.zeros_like(log_probs, requires_grad=True)
            pulled = torch.autograd.grad(
                log_probs, leaves, weights, create_graph=True, allow_unused=True, materialize_grads=True
            )
        # J v of all log-probabilities, as the derivative of their pullback.
        squares = [
            float(torch.autograd.grad(pulled, weights, direction, retain_graph=True)[0].double().square().mean(0).sum())
            for direction in directions
        ]
    except (RuntimeError, NotImplementedError, ValueError):
        return  # it does not sample, or not many at once
    for curvature, square in zip(curvatures, squares, strict=True):
        if not 0.75 * square <= curvature <= 1.35 * square:
            raise ValueError(
                f"policy: the Hessian of torch's KL divergence of the {name} that it returns is {curvature:.3g} where "
                f"the covariance of its score is {square:.3g}, so that it is not the Fisher information, {_INSTEAD}"
            )


def _are_followed(
    forward: _Pass,
    known: Family | None,
    distribution: Distribution,
    directions: Sequence[Sequence[Tensor]],
    products: Sequence[Sequence[Tensor]],
    curvatures: Sequence[float],
) -> bool:
    """Whether <u, F v> is that of finite differences, of the coordinates or else of the KL's gradient."""

    def differences(size: float) -> list[float]:
        ends: list[list[Any]] = []
        for sign in (1.0, -1.0):
            parameters = forward.moved(directions[0], sign * size)
            if known is None:
                slopes = _slopes(forward, parameters)
                ends.append([dot(direction, slopes) for direction in directions])
            else:
                with torch.no_grad():  # copies, as what is a parameter moves with the next step
                    ends.append([part.clone() for part in known.coordinates(forward(parameters))])
        moves = [(a - b) / (2 * size) for a, b in zip(*ends, strict=True)]
        if known is None:
            return moves
        weights = known.metric(tuple(part.detach() for part in known.coordinates(distribution)), tuple(moves))
        return [dot(moves, weights)]

    near, far = differences(1e-6), differences(4e-6)
    for index, direction in enumerate(directions):
        found = dot(direction, products[0])
        scale = (abs(curvatures[0] * curvatures[index])) ** 0.5 + abs(near[index]) + 1e-12
        # Where both differences do not agree a corner lies between, and they say nothing.
        if abs(near[index] - far[index]) < 1e-4 * scale < abs(found - near[index]) / 10:
            return False
    return True


def _slopes(forward: _Pass, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """Gradient of the sum of KL(old || new) at `parameters`, for each of those that are trained."""
    leaves = {name: value.detach().requires_grad_(name in forward.live) for name, value in parameters.items()}
    with torch.no_grad():
        old = forward(forward.values)
    tensors = [leaves[name] for name in forward.live]

    def slopes() -> list[Tensor]:
        with torch.enable_grad():
            divergence = kl_divergence(old, forward(leaves)).sum()
        return list(torch.autograd.grad(divergence, tensors, allow_unused=True, materialize_grads=True))

    return forward.holding(leaves, slopes)
