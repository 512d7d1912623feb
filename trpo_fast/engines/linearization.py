"""Fisher products J'M J v of any torch network, around one recorded graph.

There are three ways to J v, or to the whole product; milliseconds for one product of a float32 network with B rows on
one thread of a busy machine, medians of nine alternating runs:

====================================  =======  ============  ===============
network                               forward  double_vjp    double_backward
====================================  =======  ============  ===============
17-64-64-6 tanh, B=2,048                  3.6           2.3              3.8
17-256-256-6 tanh, B=2,048               24.6          15.5             27.9
two linear, LayerNorm, GELU, B=2,048      4.0           4.3              5.2
Nature CNN, 4x84x84, B=256                269           354              387
3x20x20 CNN, 16 and 32 filters, B=2,048    59            93               99
LSTM of 64, 8 steps, B=2,048                -            43               90
GRU of 64, 8 steps, B=2,048                84            57               85
====================================  =======  ============  ===============

So "auto" takes forward mode for a network with convolutions, whose second reverse pass is slow, and the double pullback
for all others. The rule looks at the recorded graph rather than at a clock: methods differ in their last bits, and a
training run that chose by time could not be repeated. (`torch.func.linearize` was as fast as the best of them, but
gave products that were off by 0.2% for the GRU, in torch 2.13.)
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import Distribution, kl_divergence
from torch.nn.attention import SDPBackend, sdpa_kernel

from trpo_fast._core.library import require_choice
from trpo_fast.policies.distributions import base_of, family_of, kind_without
from trpo_fast.policies.families import Family
from trpo_fast.policies.sequences import COMPILED_CELL

LINEARIZATIONS = ("auto", "forward", "double_vjp", "double_backward")
"""Ways to a Fisher product, see `FisherProduct`."""

# The level of torch's forward mode is one for the whole process.
_FORWARD_MODE = threading.Lock()


class FisherProduct:
    """Sum over the batch of J_t' M_t J_t, at the point where `distribution` was computed.

    J' w is a reverse pass over the recorded graph in each method but the last; they differ in J v:

    - "forward" pushes dual numbers through `forward`, which is run again for every product. No other graph is kept.
    - "double_vjp": J v is the derivative of the recorded pullback u -> J'u, which is linear in u. Any module that can
      be differentiated twice will do. The pullback is recorded on top of the graph.
    - "double_backward" differentiates torch's KL divergence twice, which equals J'MJ at theta_old, for any
      distribution that torch has one for.

    Before the first product <J'w, v> = <w, J v> is checked, or the symmetry of the Hessian. It is not so where a module
    computes with its parameters under ``no_grad``, which forward mode does not know, or has a function of its own whose
    backward is not differentiated as it is computed.

    Parameters
    ----------
    forward : callable
        The policy's distribution at given parameters, by name.
    parameters : mapping of str to Tensor
        Where `distribution` was computed; those that require gradients are leaves.
    distribution : torch.distributions.Distribution
        ``forward(parameters)``, recorded; batch shape (B,).
    method : str
        One of `LINEARIZATIONS`. "auto" is "double_backward" where M is not known in closed form, "forward" where the
        graph has a convolution or a compiled cell and the module can do it, else "double_vjp", or "forward" for what
        cannot be differentiated twice.
    samples : int64 Tensor, optional
        Indices of the samples that the sum is over; all by default.
    verified : bool
        Whether this `method` has been checked with the same module.

    Attributes
    ----------
    method : str
        The one in use; "auto" may settle for another at the first product.

    Raises
    ------
    ValueError
        `method` is unknown, or needs an M in closed form that is not known, or a KL divergence that torch has not; in
        the first products: the module is not differentiated as it is computed.
    """

    def __init__(
        self,
        forward: Callable[[Mapping[str, Tensor]], Distribution],
        parameters: Mapping[str, Tensor],
        distribution: Distribution,
        method: str = "auto",
        *,
        samples: Tensor | None = None,
        verified: bool = False,
    ) -> None:
        self._forward = forward
        self._samples = samples
        self._values = {name: tensor.detach() for name, tensor in parameters.items()}
        self._live = {name: tensor for name, tensor in parameters.items() if tensor.requires_grad}
        self._leaves = list(self._live.values())
        self._family = family_of(distribution)
        self._may_settle = method == "auto"
        self.verified = verified
        if method == "auto":
            method = self._fastest(distribution)
        self.method = _checked(method, distribution, self._family)
        if self._family is None or method == "double_backward":
            self._differentiate_divergence(distribution)
            return
        self._outputs = self._coordinates_of(distribution)
        self._coordinates = tuple(output.detach() for output in self._outputs)
        if method == "double_vjp":
            self._record_pullback()

    def __call__(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The product with one vector per leaf, of its shape."""
        if not self.verified:
            # Not the caller's vector: J v of one that moves nothing is rounding.
            generator = torch.Generator().manual_seed(0)
            self.verify([random_like(leaf, generator) for leaf in self._leaves])
        if self._by_hessian:
            return _gradients(self._gradient, self._leaves, vectors)
        return self._pulled_back(self._tangents(vectors))[0]

    @property
    def _by_hessian(self) -> bool:
        return self._family is None or self.method == "double_backward"

    def _tangents(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """J v."""
        if self.method == "forward":
            return self._pushed_forward(vectors)
        return _gradients(self._pullback, self._cotangents, vectors)

    def verify(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The product with random `vectors`; ValueError where <J'w, v> is not <w, J v> for them.

        "auto" tries another way first.
        """
        product = self._verified_product(vectors)
        self.verified = True
        return product

    def _verified_product(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        if self._by_hessian:
            product = _gradients(self._gradient, self._leaves, vectors)
            again = _gradients(self._gradient, self._leaves, product)
            if not _are_adjoint(again, vectors, product, product):
                raise ValueError(not_differentiable(self._gradient))
            return product
        first = self.method
        try:
            tangents = self._tangents(vectors)
        except (RuntimeError, NotImplementedError) as error:  # an operation, or an autograd.Function, has none
            if not self._may_settle:
                raise
            self._settle()
            try:
                tangents = self._tangents(vectors)
            except (RuntimeError, NotImplementedError):
                raise error from None
        product, weights = self._pulled_back(tangents)
        if self._is_adjoint(product, vectors, weights, tangents):
            return product
        if first == self.method == "forward" and self._may_settle:
            self._settle()
            tangents = self._tangents(vectors)
            product, weights = self._pulled_back(tangents)
            if self._is_adjoint(product, vectors, weights, tangents):
                return product
        if self.method == "forward":
            raise ValueError(
                "linearization: 'forward' and reverse mode disagree about this policy, which may compute with its "
                "parameters under no_grad; want 'double_vjp'"
            )
        raise ValueError(not_differentiable(self._outputs))

    def _is_adjoint(
        self,
        product: Sequence[Tensor],
        vectors: Sequence[Tensor],
        weights: Sequence[Tensor],
        tangents: Sequence[Tensor],
    ) -> bool:
        if not any(tangent.any() for tangent in tangents):  # where nothing is differentiated both sides are 0
            generator = torch.Generator().manual_seed(1)
            weights = [random_like(output, generator) for output in self._outputs]
            product = _gradients(self._outputs, self._leaves, weights)
        return _are_adjoint(product, vectors, weights, tangents)

    def _settle(self) -> None:
        """Take the other one of forward mode and the double pullback."""
        self.method = "double_vjp" if self.method == "forward" else "forward"
        if self.method == "double_vjp":
            self._record_pullback()

    def _fastest(self, distribution: Distribution) -> str:
        if self._family is None:
            return "double_backward"
        return "forward" if _has_costly_backward(self._family.coordinates(distribution)) else "double_vjp"

    def _coordinates_of(self, distribution: Distribution) -> tuple[Tensor, ...]:
        assert self._family is not None
        found = self._family.coordinates(distribution)
        return found if self._samples is None else tuple(part[self._samples] for part in found)

    def _differentiate_divergence(self, distribution: Distribution) -> None:
        with torch.no_grad(), twice_differentiable():
            old = self._forward(self._values)
        divergence = torchs_divergence(old, distribution)
        divergence = (divergence if self._samples is None else divergence[self._samples]).sum()
        self._gradient = _gradients([divergence], self._leaves, [torch.ones_like(divergence)], create_graph=True)

    def _record_pullback(self) -> None:
        self._cotangents = [torch.zeros_like(output, requires_grad=True) for output in self._outputs]
        self._pullback = _gradients(self._outputs, self._leaves, self._cotangents, create_graph=True)

    def _pulled_back(self, tangents: Sequence[Tensor]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """J'M of `tangents`, and M of them."""
        assert self._family is not None
        weights = self._family.metric(self._coordinates, tuple(tangents))
        return _gradients(self._outputs, self._leaves, weights), weights

    def _pushed_forward(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        assert self._family is not None
        _load_forward_mode()
        with _FORWARD_MODE, torch.no_grad(), twice_differentiable(), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(self._values[name], vector)
                for name, vector in zip(self._live, vectors, strict=True)
            }
            moved = self._coordinates_of(self._forward(self._values | duals))
            tangents = [forward_ad.unpack_dual(output).tangent for output in moved]
        return [
            torch.zeros_like(output) if tangent is None else tangent
            for output, tangent in zip(self._coordinates, tangents, strict=True)
        ]


def random_like(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Normal numbers for a direction; drawn on the CPU and in single precision, which takes a sixth of the time."""
    kind = torch.complex64 if tensor.is_complex() else torch.float32
    return torch.randn(tensor.shape, dtype=kind, generator=generator, device="cpu").to(tensor)


def torchs_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) of each sample by torch; ValueError where it has none for what the policy returns."""
    try:
        return kl_divergence(p, q)
    except NotImplementedError:
        raise ValueError(
            f"policy: torch has no KL divergence for the {kind_without(p, lambda part: kl_divergence(part, part))} "
            "that it returns; register one with torch.distributions.kl.register_kl"
        ) from None


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by the kernels that have second and forward derivatives, for a forward pass that is to be recorded.

    The setting is one for the whole process.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@functools.cache
def _load_forward_mode() -> None:
    """Import what forward mode imports at its first use, without the deprecation that torch announces to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _checked(method: str, distribution: Distribution, family: Family | None) -> str:
    require_choice("linearization", method, LINEARIZATIONS)
    name = type(base_of(distribution)).__name__
    if family is None and method != "double_backward":
        raise ValueError(
            f"linearization: {method!r} given; want 'auto' or 'double_backward' for a policy that returns a {name}, "
            "whose Fisher information is not known in closed form"
        )
    if family is not None and not family.differentiable and method == "double_backward":
        raise ValueError(
            f"linearization: 'double_backward' given; want another for a policy that returns a {name}: the second "
            "derivative of torch's KL divergence is not its Fisher information"
        )
    return method


def _has_costly_backward(outputs: Sequence[Tensor]) -> bool:
    """Whether the graph behind `outputs` has a convolution, or what has no second derivative, a compiled cell."""
    return any(
        "Convolution" in node.name() or node.name() == f"{COMPILED_CELL}Backward" for node in _nodes_behind(outputs)
    )


def not_differentiable(outputs: Sequence[Tensor]) -> str:
    """What to say of a backward that is not differentiated, with the autograd functions of the user's own behind it."""
    kind = torch.autograd.function.BackwardCFunction
    found = sorted(
        {node.name().removesuffix("Backward") for node in _nodes_behind(outputs) if issubclass(type(node), kind)}
    )
    names = f" ({', '.join(found)})" if found else ""
    return (
        f"policy: its backward{names} is not differentiated as it is computed; want one without detach(), no_grad() "
        "and once_differentiable, so that it can be differentiated twice"
    )


def _nodes_behind(outputs: Sequence[Tensor]) -> Iterator[torch.autograd.graph.Node]:
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _are_adjoint(
    product: Sequence[Tensor], vectors: Sequence[Tensor], weights: Sequence[Tensor], tangents: Sequence[Tensor]
) -> bool:
    """<J'w, v> = <w, J v> up to rounding, which is far below what a forgotten path makes of it."""
    left, right = (dot(a, b) for a, b in ((product, vectors), (weights, tangents)))
    scale = sum(float((a.double() * b.double()).abs().sum()) for a, b in zip(product, vectors, strict=True))
    return not abs(left - right) > 1e-3 * max(scale, abs(right))  # what is not finite is for the solver to notice


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Of all numbers of two lists of tensors, in float64."""
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


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
