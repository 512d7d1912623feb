"""Policies of every kind, each right or refused: the table of docs/networks.md and of the tests."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import Categorical, Independent, Normal
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trpo_fast.policies.distributions import MultiCategorical
from trpo_fast.policies.squashed import SquashedNormal

ROWS = 5


class Entry(NamedTuple):
    """A policy and what becomes of it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    refused: str | None = None
    """What the error says, a part of it; None: it is right."""
    warned: bool = False
    divergence: Callable[[Any, Any], Tensor] = D.kl_divergence
    """Whose Hessian is the Fisher information, for the oracle."""


class Policy(nn.Module):
    """`body`, then `head`."""

    def __init__(self, body: Any, head: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, observations: Tensor) -> Any:
        return self.head(self.body(observations))


class Function(nn.Module):
    """A function of its inputs, with `parts` to call."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def body(layers: Callable[[], list[nn.Module]], head: Any = None) -> Callable[[], nn.Module]:
    """What makes a policy of `layers`, over three choices unless `head` says otherwise."""

    def make() -> nn.Module:
        return Policy(nn.Sequential(*layers()), head or (lambda y: Categorical(logits=y)))

    return make


def headed(outputs: int, head: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    """What makes a small network with a distribution."""
    return lambda: Policy(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs)), head)


def between(layer: Callable[[], nn.Module], width: int = 6, after: int = 6) -> Callable[[], nn.Module]:
    """What makes a network with `layer` between two linear ones."""
    return body(lambda: [nn.Linear(4, width), layer(), nn.Linear(after, 3)])


def of_function(function: Callable[..., Tensor], *parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """What makes a network with `function` of six numbers between two linear layers."""
    return between(lambda: Function(function, *(part() for part in parts)))


def two(make: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], Any]:
    """A head of two halves of the outputs, one event."""
    return lambda y: Independent(make(*y.chunk(2, -1)), 1)


# Functions of one's own.


class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return 3 * x**2 * gradient


class Once(Cubed):
    backward = staticmethod(torch.autograd.function.once_differentiable(Cubed.backward))


class Detached(Cubed):
    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return 3 * x**2 * gradient.detach()


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Counting(nn.Module):
    """Keeps something from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1.0
        return x * self.seen


class Scaled(nn.Module):
    """Multiplies by a parameter that is used in `use`."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor], size: Any = (6,), dtype: Any = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size, dtype=dtype))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.scale)


def tied() -> nn.Module:
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    layers[2].weight = layers[0].weight
    return Policy(layers, lambda y: Categorical(logits=y))


def frozen() -> nn.Module:
    policy = headed(3, lambda y: Categorical(logits=y))()
    policy.body[0].weight.requires_grad_(False)
    return policy


def unused() -> nn.Module:
    policy = headed(3, lambda y: Categorical(logits=y))()
    policy.more = nn.Linear(2, 2)
    return policy


def shared_std() -> nn.Module:
    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_std = nn.Parameter(torch.zeros(2))
            self.mean = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            mean = self.mean(x)
            return Independent(Normal(mean, self.log_std.exp().expand_as(mean)), 1)

    return Gaussian()


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Without torch's warnings of its own; the validation of distributions, which it turns off, is put back."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        D.Distribution.set_default_validate_args(__debug__)


def compiled() -> nn.Module:
    return torch.compile(headed(3, lambda y: Categorical(logits=y))())


def compiled_part() -> nn.Module:
    return Policy(nn.Sequential(torch.compile(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3)), logits)


def compiled_in_place() -> nn.Module:
    policy = headed(3, lambda y: Categorical(logits=y))()
    policy.body.compile()
    return policy


def evaluating(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make().eval()


def logits(y: Tensor) -> Any:
    return Categorical(logits=y)


def tokens(layer: Callable[[], nn.Module], width: int = 4) -> Callable[[], nn.Module]:
    """Rows of (3, 4): three tokens, through `layer`, averaged."""
    return body(lambda: [layer(), Function(lambda x: x.mean(1)), nn.Linear(width, 3)])


def first_of(layer: Callable[[], nn.Module], width: int = 4) -> Callable[[], nn.Module]:
    """`layer` returns a pair, whose first is (B, 3, width)."""
    return body(lambda: [layer(), Function(lambda pair: pair[0].mean(1)), nn.Linear(width, 3)])


def attention(weights: bool) -> Callable[[], nn.Module]:
    def use(x: Tensor, layer: nn.Module) -> Tensor:
        return layer(x, x, x, need_weights=weights)[0].mean(1)

    return body(lambda: [Function(use, nn.MultiheadAttention(4, 2, batch_first=True)), nn.Linear(4, 3)])


def dot_product(axes: int, **options: Any) -> Callable[[], nn.Module]:
    def use(x: Tensor, query: nn.Module, key: nn.Module, value: nn.Module) -> Tensor:
        parts = [layer(x) for layer in (query, key, value)]
        if axes == 4:
            parts = [part.unflatten(-1, (2, 2)).transpose(1, 2) for part in parts]
        result = F.scaled_dot_product_attention(*parts, **options)
        return (result.transpose(1, 2).flatten(2) if axes == 4 else result).mean(1)

    return body(lambda: [Function(use, *(nn.Linear(4, 4) for _ in range(3))), nn.Linear(4, 3)])


def decoder() -> nn.Module:
    layer = nn.TransformerDecoderLayer(4, 2, 8, 0.0, batch_first=True)
    return Function(lambda x, decode: decode(x[:, :1], x[:, 1:]), layer)


def whole_transformer() -> nn.Module:
    layer = nn.Transformer(4, 2, 1, 1, 8, 0.0, batch_first=True)
    return Function(lambda x, transform: transform(x[:, :2], x[:, 2:]), layer)


def cell(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    def use(x: Tensor, step: nn.Module) -> Tensor:
        state: Any = None
        for row in x.unbind(1):
            state = step(row, state)
        return state[0] if isinstance(state, tuple) else state

    return body(lambda: [Function(use, kind(4, 5)), nn.Linear(5, 3)])


def numbered(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Four numbers become indices from 0 to 6."""
    return body(
        lambda: [Function(lambda x, embed: embed((x.abs() * 2).long().clamp(0, 6)).flatten(1), layer()), Last()]
    )


class Last(nn.Module):
    """Three outputs of as many inputs as there are, up to 20."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 20))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, : x.shape[-1]])


def image(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Layers of convolutions, flat, down to three outputs."""
    return body(lambda: [*(layer() for layer in layers), nn.Flatten(), Function(lambda x: x[:, :20]), Last()])


def heads_of_experts() -> nn.Module:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(4, 3)
            self.experts = nn.ModuleList([nn.Linear(4, 3) for _ in range(3)])

        def forward(self, x: Tensor) -> Any:
            weights, chosen = self.gate(x).topk(2)
            every = torch.stack([expert(x) for expert in self.experts], 1)
            picked = every.gather(1, chosen[..., None].expand(-1, -1, 3))
            return Categorical(logits=(weights.softmax(-1)[..., None] * picked).sum(1))

    return Experts()


def squashed(y: Tensor) -> Any:
    low, high = torch.tensor([[-1.0, 0.0], [1.0, 5.0]], dtype=y.dtype)
    return SquashedNormal(y[:, :2], y[:, 2:].exp(), low, high)


def information_of_laplace(p: Any, q: Any) -> Tensor:
    """Has the Hessian of the Laplace's divergence at p = q, where autograd has not."""
    p, q = p.base_dist, q.base_dist
    return (0.5 * (((q.loc - p.loc) / p.scale) ** 2 + ((q.scale - p.scale) / p.scale) ** 2)).sum(-1)


def divergence_of_weibulls(p: Any, q: Any) -> Tensor:
    """Bauckhage, "Computing the Kullback-Leibler divergence between two Weibull distributions", 2013, eq. 9."""
    p, q = p.base_dist, q.base_dist
    euler = 0.5772156649015329
    k, m = p.concentration, q.concentration
    first = (k / p.scale**k).log() - (m / q.scale**m).log() + (k - m) * (p.scale.log() - euler / k)
    return (first + (p.scale / q.scale) ** m * torch.lgamma(m / k + 1).exp() - 1).sum(-1)


NO_KL = "policy: torch has no KL divergence for the {} that it returns"
SUPPORT = "policy: torch's KL divergence of the {} that it returns has a slope where the two are the same"
IN_TRANSFORMS = "policy: torch has no KL divergence of the {} that it returns once its parameters have moved"
NO_PARAMETERS = "policy: torch's KL divergence of the {} that it returns does not depend on its parameters"
DIFFER = "policy: two forward passes of the same rows differ, and {} makes the difference"
MIXED = "policy: a row's result depends on the other rows of the batch, and {}"
SECOND = "policy: torch cannot differentiate {} twice, which a Fisher product needs"
BACKWARD = "policy: its backward ({}) is not differentiated as it is computed"
LAYER = "policy: 'body.1', {}"

TransformedDistribution = D.TransformedDistribution
Tanh, Affine = D.transforms.TanhTransform, D.transforms.AffineTransform

LAYERS: dict[str, Entry] = {
    "Linear": Entry(between(nn.Tanh)),
    "Linear without bias": Entry(body(lambda: [nn.Linear(4, 3, bias=False)])),
    "Bilinear": Entry(of_function(lambda x, layer: layer(x, x), lambda: nn.Bilinear(6, 6, 6))),
    "PReLU": Entry(between(lambda: nn.PReLU(6))),
    "LayerNorm": Entry(between(lambda: nn.LayerNorm(6))),
    "RMSNorm": Entry(between(lambda: nn.RMSNorm(6))),
    "GroupNorm": Entry(between(lambda: nn.GroupNorm(2, 6))),
    "InstanceNorm1d with affine=True": Entry(image(lambda: nn.InstanceNorm1d(3, affine=True)), (3, 6)),
    "InstanceNorm2d with affine=True": Entry(image(lambda: nn.InstanceNorm2d(2, affine=True)), (2, 3, 3)),
    "BatchNorm1d in evaluation mode": Entry(evaluating(between(lambda: nn.BatchNorm1d(6)))),
    "BatchNorm1d in training mode": Entry(
        between(lambda: nn.BatchNorm1d(6)),
        refused=LAYER.format("a BatchNorm1d in training mode, mixes the rows of a batch; want policy.eval() before"),
    ),
    "BatchNorm1d with track_running_stats=False": Entry(
        evaluating(between(lambda: nn.BatchNorm1d(6, track_running_stats=False))),
        refused=LAYER.format("a BatchNorm1d in evaluation mode, mixes the rows of a batch; want LayerNorm or GroupN"),
    ),
    "Dropout in evaluation mode": Entry(evaluating(between(lambda: nn.Dropout(0.5)))),
    "Dropout in training mode": Entry(
        between(lambda: nn.Dropout(0.5)),
        refused=LAYER.format("a Dropout in training mode, draws random numbers; want policy.eval() before it is giv"),
    ),
    "RReLU in training mode": Entry(
        between(nn.RReLU), refused=LAYER.format("a RReLU in training mode, draws random numbers")
    ),
    "Conv1d": Entry(image(lambda: nn.Conv1d(3, 2, 2), nn.Tanh), (3, 6)),
    "Conv2d": Entry(image(lambda: nn.Conv2d(2, 3, 2), nn.ELU), (2, 4, 4)),
    "Conv2d with groups, dilation and padding": Entry(
        image(lambda: nn.Conv2d(2, 4, 2, padding=1, dilation=2, groups=2), nn.SiLU), (2, 4, 4)
    ),
    "Conv3d": Entry(image(lambda: nn.Conv3d(1, 2, 2), nn.Tanh), (1, 3, 3, 3)),
    "ConvTranspose1d": Entry(image(lambda: nn.ConvTranspose1d(2, 2, 2), nn.Tanh), (2, 4)),
    "ConvTranspose2d": Entry(image(lambda: nn.ConvTranspose2d(2, 2, 2), nn.Tanh), (2, 3, 3)),
    "ConvTranspose3d": Entry(image(lambda: nn.ConvTranspose3d(1, 1, 2), nn.Tanh), (1, 2, 2, 2)),
    "Conv2d and MaxPool2d": Entry(image(lambda: nn.Conv2d(2, 3, 2), lambda: nn.MaxPool2d(2)), (2, 5, 5)),
    "Conv2d and Upsample": Entry(
        image(lambda: nn.Conv2d(2, 1, 2), lambda: nn.Upsample(scale_factor=2, mode="bilinear")), (2, 3, 3)
    ),
    "RNN": Entry(first_of(lambda: nn.RNN(4, 4, batch_first=True)), (3, 4)),
    "GRU": Entry(first_of(lambda: nn.GRU(4, 4, batch_first=True)), (3, 4)),
    "GRU, two layers, bidirectional": Entry(
        first_of(lambda: nn.GRU(4, 4, 2, batch_first=True, bidirectional=True), 8), (3, 4)
    ),
    "LSTM": Entry(first_of(lambda: nn.LSTM(4, 4, batch_first=True)), (3, 4)),
    "LSTM with proj_size": Entry(first_of(lambda: nn.LSTM(4, 6, batch_first=True, proj_size=4)), (3, 4)),
    "RNNCell": Entry(cell(nn.RNNCell), (3, 4)),
    "GRUCell": Entry(cell(nn.GRUCell), (3, 4)),
    "LSTMCell": Entry(cell(nn.LSTMCell), (3, 4)),
    "MultiheadAttention": Entry(attention(True), (3, 4)),
    "MultiheadAttention with need_weights=False": Entry(attention(False), (3, 4)),
    "scaled_dot_product_attention, three axes": Entry(dot_product(3), (3, 4)),
    "scaled_dot_product_attention, four axes, causal": Entry(dot_product(4, is_causal=True), (3, 4)),
    "scaled_dot_product_attention with dropout": Entry(
        dot_product(4, dropout_p=0.2), (3, 4), refused=DIFFER.format("'body.0', a Function,")
    ),
    "TransformerEncoderLayer": Entry(
        tokens(lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)), (3, 4)
    ),
    "TransformerEncoderLayer in evaluation mode": Entry(
        evaluating(tokens(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))), (3, 4)
    ),
    "TransformerEncoder with norm_first": Entry(
        tokens(
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True, norm_first=True),
                2,
                enable_nested_tensor=False,
            )
        ),
        (3, 4),
    ),
    "TransformerDecoderLayer": Entry(tokens(decoder), (3, 4)),
    "Transformer": Entry(tokens(whole_transformer), (4, 4)),
    "TransformerEncoderLayer that takes rows for a sequence": Entry(
        between(lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0)),
        refused=MIXED.format("'body.1.self_attn', a MultiheadAttention, mixes"),
    ),
    "Embedding": Entry(numbered(lambda: nn.Embedding(7, 3))),
    "Embedding with padding_idx": Entry(numbered(lambda: nn.Embedding(7, 3, padding_idx=0))),
    "Embedding with sparse=True": Entry(
        numbered(lambda: nn.Embedding(7, 3, sparse=True)),
        refused="policy: 'body.0.parts.0', a Embedding, has sparse gradients; want sparse=False",
    ),
    "EmbeddingBag, sum": Entry(
        numbered(lambda: nn.EmbeddingBag(7, 3, mode="sum")), refused=SECOND.format("'body.0.parts.0', a EmbeddingBag,")
    ),
    "EmbeddingBag, mean": Entry(
        numbered(lambda: nn.EmbeddingBag(7, 3, mode="mean")), refused=SECOND.format("'body.0.parts.0', a EmbeddingBag,")
    ),
    "EmbeddingBag, max": Entry(
        numbered(lambda: nn.EmbeddingBag(7, 3, mode="max")), refused=SECOND.format("'body.0.parts.0', a EmbeddingBag,")
    ),
    "LazyLinear": Entry(
        body(lambda: [nn.LazyLinear(3)]), refused="policy: 'body.0', a LazyLinear, has no weight before its first forw"
    ),
}

FORMS: dict[str, Entry] = {
    "parametrizations.weight_norm": Entry(
        body(lambda: [nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3)])
    ),
    "parametrizations.orthogonal": Entry(
        body(lambda: [nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3)])
    ),
    "parametrizations.spectral_norm in evaluation mode": Entry(
        evaluating(between(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))))
    ),
    "parametrizations.spectral_norm in training mode": Entry(
        between(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))),
        refused="a _SpectralNorm in training mode, iterates at every pass; want policy.eval() before it is given",
    ),
    "utils.spectral_norm in evaluation mode": Entry(
        evaluating(between(lambda: nn.utils.spectral_norm(nn.Linear(6, 6))))
    ),
    "utils.spectral_norm in training mode": Entry(
        between(lambda: nn.utils.spectral_norm(nn.Linear(6, 6))),
        refused=LAYER.format("a Linear in training mode, iterates at every pass; want policy.eval() before it is"),
    ),
    "tied parameters": Entry(tied),
    "frozen parameters": Entry(frozen),
    "unused parameters": Entry(unused),
    "complex parameters": Entry(
        between(lambda: Scaled(lambda x, scale: (x * scale).real, dtype=torch.complex128)),
        refused="module: parameter 'body.1.scale' is torch.complex128; want torch.float32 or torch.float64",
    ),
    "complex numbers inside": Entry(of_function(lambda x: torch.fft.rfft(x).abs().repeat(1, 2)[:, :6])),
    "checkpointing": Entry(of_function(lambda x, layer: checkpoint(layer, x, use_reentrant=False), lambda: gated(6))),
    "checkpointing, of a distribution without a closed form": Entry(
        body(
            lambda: [nn.Linear(4, 6), Function(lambda x, layer: checkpoint(layer, x, use_reentrant=False), gated(6))],
            lambda y: Independent(D.ContinuousBernoulli(logits=y[:, :2] + 2), 1),
        )
    ),
    "checkpointing with use_reentrant=True": Entry(
        of_function(lambda x, layer: checkpoint(layer, x, use_reentrant=True), lambda: gated(6)),
        refused=SECOND.format("'body.1', a Function,"),
    ),
    "torch.compile of the policy": Entry(compiled),
    "torch.compile of a part": Entry(compiled_part),
    "module.compile()": Entry(compiled_in_place),
    "TorchScript": Entry(
        body(lambda: [torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4))]),
        refused="policy: 'body.0', a TopLevelTracedModule, compiled to TorchScript; want the module",
    ),
    "a function of one's own": Entry(of_function(Cubed.apply)),
    "a function that is marked once_differentiable": Entry(of_function(Once.apply), refused=BACKWARD.format("Once")),
    "a function whose backward detaches": Entry(of_function(Detached.apply), refused=BACKWARD.format("Detached")),
    "a straight-through function": Entry(of_function(StraightThrough.apply), warned=True),
    "a part behind detach()": Entry(of_function(lambda x, layer: x + layer(x).detach(), lambda: gated(6)), warned=True),
    "a network behind no_grad": Entry(
        body(lambda: [Function(torch.no_grad()(lambda x, layer: layer(x)), nn.Linear(4, 3))]),
        refused="policy: nothing connects its log-probabilities to its parameters",
    ),
    "mixture of experts, top 2": Entry(heads_of_experts),
    "functional dropout": Entry(
        of_function(lambda x: F.dropout(x, 0.3)), refused=DIFFER.format("'body.1', a Function,")
    ),
    "noise in forward": Entry(
        of_function(lambda x: x + torch.randn_like(x)), refused=DIFFER.format("'body.1', a Function,")
    ),
    "gumbel_softmax": Entry(of_function(F.gumbel_softmax), refused=DIFFER.format("'body.1', a Function,")),
    "state kept between calls": Entry(between(Counting), refused=DIFFER.format("'body.1', a Counting,")),
    "the mean of the batch taken off": Entry(
        of_function(lambda x: x - x.mean(0)), refused=MIXED.format("'body.1', a Function, mixes")
    ),
    "softmax over the rows": Entry(
        of_function(lambda x: x.softmax(0)), refused=MIXED.format("'body.1', a Function, mixes")
    ),
    "a number added that depends on the place in the batch": Entry(
        of_function(lambda x: x + torch.arange(len(x)).view(-1, 1)), refused=MIXED.format("'body.1', a Function, mixes")
    ),
    "squeeze() of a batch of one row": Entry(
        body(lambda: [nn.Linear(4, 1)], lambda y: Normal(y.squeeze(), 1.0)),
        refused="policy: forward takes 5 rows and fails for 1: policy: forward returned a distribution of batch shape",
    ),
    "grid_sample": Entry(body(lambda: [nn.Linear(4, 18), Function(warped), nn.Linear(9, 3)])),
}


def gated(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GLU())


def warped(x: Tensor) -> Tensor:
    picture = torch.arange(16, dtype=x.dtype).view(1, 1, 4, 4).expand(len(x), -1, -1, -1)
    return F.grid_sample(picture, x.view(-1, 3, 3, 2), align_corners=False).flatten(1)


DISTRIBUTIONS: dict[str, Entry] = {
    "Normal": Entry(headed(4, two(lambda a, b: Normal(a, b.exp())))),
    "Normal with a scale of its own parameters": Entry(shared_std),
    "Categorical of logits": Entry(headed(3, logits)),
    "Categorical of probs": Entry(headed(3, lambda y: Categorical(probs=y.softmax(-1)))),
    "Categoricals in Independent": Entry(headed(6, lambda y: Independent(Categorical(logits=y.view(-1, 2, 3)), 1))),
    "MultiCategorical": Entry(headed(5, lambda y: MultiCategorical(y, (2, 3)))),
    "Bernoulli": Entry(headed(3, lambda y: Independent(D.Bernoulli(logits=y), 1))),
    "Beta": Entry(headed(4, two(lambda a, b: D.Beta(a.exp(), b.exp())))),
    "Binomial": Entry(headed(2, lambda y: Independent(D.Binomial(5, logits=y), 1))),
    "Cauchy": Entry(headed(4, two(lambda a, b: D.Cauchy(a, b.exp())))),
    "Chi2": Entry(headed(2, lambda y: Independent(D.Chi2(y.exp() + 1), 1))),
    "ContinuousBernoulli": Entry(headed(2, lambda y: Independent(D.ContinuousBernoulli(logits=y + 2), 1))),
    "Dirichlet": Entry(headed(3, lambda y: D.Dirichlet(y.exp()))),
    "Exponential": Entry(headed(2, lambda y: Independent(D.Exponential(y.exp()), 1))),
    "FisherSnedecor": Entry(
        headed(4, two(lambda a, b: D.FisherSnedecor(a.exp(), b.exp()))), refused=NO_KL.format("FisherSnedecor")
    ),
    "Gamma": Entry(headed(4, two(lambda a, b: D.Gamma(a.exp(), b.exp())))),
    "Geometric": Entry(headed(2, lambda y: Independent(D.Geometric(logits=y), 1))),
    "Gumbel": Entry(headed(4, two(lambda a, b: D.Gumbel(a, b.exp())))),
    "HalfCauchy": Entry(headed(2, lambda y: Independent(D.HalfCauchy(y.exp()), 1))),
    "HalfNormal": Entry(headed(2, lambda y: Independent(D.HalfNormal(y.exp()), 1))),
    "InverseGamma": Entry(headed(4, two(lambda a, b: D.InverseGamma(a.exp() + 2, b.exp())))),
    "Kumaraswamy": Entry(
        headed(4, two(lambda a, b: D.Kumaraswamy(a.exp(), b.exp()))), refused=NO_PARAMETERS.format("Kumaraswamy")
    ),
    "Laplace": Entry(headed(4, two(lambda a, b: D.Laplace(a, b.exp()))), divergence=information_of_laplace),
    "LKJCholesky": Entry(headed(1, lambda y: D.LKJCholesky(3, y[:, 0].exp())), refused=NO_KL.format("LKJCholesky")),
    "LogNormal": Entry(headed(4, two(lambda a, b: D.LogNormal(a, b.exp())))),
    "LogisticNormal": Entry(headed(4, lambda y: D.LogisticNormal(y[:, :2], y[:, 2:].exp()))),
    "LowRankMultivariateNormal": Entry(
        headed(6, lambda y: D.LowRankMultivariateNormal(y[:, :2], y[:, 2:4, None], y[:, 4:].exp()))
    ),
    "MixtureSameFamily": Entry(
        headed(6, lambda y: D.MixtureSameFamily(Categorical(logits=y[:, :3]), Normal(y[:, 3:], 1.0))),
        refused=NO_KL.format("MixtureSameFamily"),
    ),
    "Multinomial": Entry(headed(3, lambda y: D.Multinomial(4, logits=y)), refused=NO_KL.format("Multinomial")),
    "MultivariateNormal of scale_tril": Entry(
        headed(4, lambda y: D.MultivariateNormal(y[:, :2], scale_tril=torch.diag_embed(y[:, 2:].exp()) + corner(y)))
    ),
    "MultivariateNormal of covariance_matrix": Entry(
        headed(4, lambda y: D.MultivariateNormal(y[:, :2], torch.diag_embed(y[:, 2:].exp()) + 0.1))
    ),
    "MultivariateNormal of precision_matrix": Entry(
        headed(
            4,
            lambda y: D.MultivariateNormal(y[:, :2], precision_matrix=torch.diag_embed(y[:, 2:].exp()) + 0.1),
        )
    ),
    "NegativeBinomial": Entry(
        headed(2, lambda y: Independent(D.NegativeBinomial(5, logits=y), 1)), refused=NO_KL.format("NegativeBinomial")
    ),
    "OneHotCategorical": Entry(headed(3, lambda y: D.OneHotCategorical(logits=y))),
    "OneHotCategoricalStraightThrough": Entry(headed(3, lambda y: D.OneHotCategoricalStraightThrough(logits=y))),
    "Pareto": Entry(headed(4, two(lambda a, b: D.Pareto(a.exp(), b.exp()))), refused=SUPPORT.format("Pareto")),
    "Poisson": Entry(headed(2, lambda y: Independent(D.Poisson(y.exp()), 1))),
    "RelaxedBernoulli": Entry(
        headed(2, lambda y: Independent(D.RelaxedBernoulli(torch.ones(()), logits=y), 1)),
        refused=NO_KL.format("RelaxedBernoulli"),
    ),
    "RelaxedOneHotCategorical": Entry(
        headed(3, lambda y: D.RelaxedOneHotCategorical(torch.ones(()), logits=y)),
        refused=NO_KL.format("RelaxedOneHotCategorical"),
    ),
    "SquashedNormal": Entry(headed(4, squashed)),
    "StudentT": Entry(headed(4, two(lambda a, b: D.StudentT(5.0, a, b.exp()))), refused=NO_KL.format("StudentT")),
    "TransformedDistribution, tanh of a Normal": Entry(
        headed(4, two(lambda a, b: TransformedDistribution(Normal(a, b.exp()), [Tanh()])))
    ),
    "TransformedDistribution, its shift from the network": Entry(
        headed(4, two(lambda a, b: TransformedDistribution(Normal(0 * a, b.exp()), [Affine(a, 1.0)]))),
        refused=IN_TRANSFORMS.format("TransformedDistribution"),
    ),
    "TransformedDistribution, all of it from the network": Entry(
        headed(4, two(lambda a, b: TransformedDistribution(Normal(torch.zeros_like(a), 1.0), [Affine(a, b.exp())]))),
        refused=NO_PARAMETERS.format("TransformedDistribution"),
    ),
    "Uniform": Entry(headed(4, two(lambda a, b: D.Uniform(a, a + b.exp()))), refused=SUPPORT.format("Uniform")),
    "VonMises": Entry(headed(4, two(lambda a, b: D.VonMises(a, b.exp()))), refused=NO_KL.format("VonMises")),
    "Weibull": Entry(headed(4, two(lambda a, b: D.Weibull(a.exp(), b.exp()))), divergence=divergence_of_weibulls),
    "Wishart": Entry(headed(2, lambda y: D.Wishart(torch.full_like(y[:, 0], 20.0), torch.diag_embed(y.exp())))),
}


def corner(y: Tensor) -> Tensor:
    return torch.tensor([[0.0, 0.0], [0.3, 0.0]], dtype=y.dtype)


TABLES = {"Layers": LAYERS, "Forms of modules": FORMS, "Distributions": DISTRIBUTIONS}


def policy_of(entry: Entry) -> nn.Module:
    """The policy, float64, with weights that leave no unit dead."""
    with torch.random.fork_rng(), compiling():
        torch.manual_seed(0)
        policy = entry.make()
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.is_floating_point() and not isinstance(parameter, nn.UninitializedParameter):
                    parameter.add_(0.2 * torch.randn_like(parameter))
        return policy if any(parameter.is_complex() for parameter in policy.parameters()) else policy.double()
