"""A policy as an ONNX graph: raw observations in, actions for the environment out.

Made with onnx alone, from a model file: neither torch nor Gymnasium takes part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast import spaces
from trpo_fast._core.library import in_words, require_choice
from trpo_fast.recurrence import CELL_PARAMETERS, CELLS
from trpo_fast.saved_policy import SavedPolicy
from trpo_fast.spaces.images import ImageLayout, InputParts, convolutions

OPSET = 13
"""Of ONNX 1.8 (2020): old enough for every runtime that is still in use."""
_OLDEST_OPSET = 12  # the first whose Clip, Min and Max take numbers of any kind
PRECISIONS = ("float64", "float32")


def onnx_model(saved: SavedPolicy, *, precision: str = "float64", opset: int = OPSET) -> Any:
    """The ``onnx.ModelProto`` of a policy, checked by onnx; `precision` and `opset` as of `export_onnx`.

    Inputs, with an axis "batch" in front: "observation" of the space's shape and dtype; of a Dict or Tuple one for
    each part, named after its place, "observation/camera/0" for example.

    Outputs: "action", the deterministic one, of the action space's shape and dtype, ready for the environment; and
    what it is the mode of: "mean" and "log_std" (without "batch") of a Gaussian, else "logits", those of all components
    one after the other. Of a Tuple or Dict of actions there are such for each part, named after its place, too:
    "action/move/0", "mean/aim".

    A recurrent policy has "state" and "episode_start" (bool) besides: "state" is (batch, S), zeros at first, and what
    the output "next_state" was at the step before; where "episode_start" is true it counts as zeros.

    Observations are normalized in float64 and rounded once to the policy's dtype, as training does. A discrete
    observation that is none of its space has no hot column. Convolutions are float32, for which alone onnxruntime has
    them; all else has the policy's dtype. With a precision of "float32" nothing is float64: what is above has float32
    in its place.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("onnx is not installed, which exports: pip install 'trpo-fast[export]'") from error
    require_choice("precision", precision, PRECISIONS)
    latest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int) or not _OLDEST_OPSET <= opset <= latest:
        raise ValueError(
            f"opset: {in_words(opset)} given; want {_OLDEST_OPSET} to {latest}, the latest of onnx {onnx.__version__}"
        )
    graph = _Graph(narrow=precision == "float32")
    if graph.narrow:
        parameters = {name: array.astype(np.float32) for name, array in saved.parameters.items()}
        saved = replace(saved, dtype=np.dtype(np.float32), parameters=parameters)
    inputs = list(named_leaves(saved.observation_space, "observation"))
    for kind, space in (("observation", saved.observation_space), ("action", saved.action_space)):
        named = [name for name, _ in named_leaves(space, kind)]
        if len(set(named)) < len(named):
            raise ValueError(f"{kind} space: {space}; want keys that give every part its own name")
    network = {"mlp": _mlp, "cnn": _cnn, "multi-input": _multi_input}.get(saved.network, _recurrent)
    outputs = network(graph, saved, dict(inputs))
    shapes = _act(graph, saved, outputs)
    states: list[tuple[str, Any, tuple[int | str, ...]]] = []
    if saved.network in CELLS:
        width = saved.widths[0] * (1 if saved.network == "gru" else 2)
        states = [("state", saved.dtype, ("batch", width)), ("episode_start", np.bool_, ("batch",))]
        shapes["next_state"] = (saved.dtype, ("batch", width))

    def described(name: str, dtype: Any, shape: tuple[int | str, ...]) -> Any:
        return onnx.helper.make_tensor_value_info(name, graph.code(dtype), shape)

    body = onnx.helper.make_graph(
        graph.nodes,
        "policy",
        [
            *(described(name, leaf.dtype, ("batch", *leaf.shape)) for name, leaf in inputs),
            *(described(*state) for state in states),
        ],
        [described(name, *shape) for name, shape in shapes.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    made = onnx.helper.make_model(
        body,
        opset_imports=imports,
        ir_version=onnx.helper.find_min_ir_version_for(imports),
        producer_name="trpo_fast",
    )
    onnx.helper.set_model_props(made, _properties(saved))
    onnx.checker.check_model(made, full_check=True)
    return made


class _Graph:
    """Nodes in the order of the calculation, and the constants that they read; float32 for float64 where `narrow`."""

    def __init__(self, *, narrow: bool) -> None:
        self.narrow = narrow
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str | NDArray[Any], name: str | None = None, **attributes: Any) -> str:
        """Append a node; arrays among its inputs become constants. Returns its output's name."""
        import onnx

        name = name or f"{operator}_{len(self.nodes)}"
        read = [
            given if isinstance(given, str) else self.constant(f"{name}.{index}", given)
            for index, given in enumerate(inputs)
        ]
        self.nodes.append(onnx.helper.make_node(operator, read, [name], **attributes))
        return name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants[name] = array.astype(self.dtype(array.dtype))
        return name

    def cast(self, value: str, dtype: Any, **more: Any) -> str:
        return self.add("Cast", value, to=self.code(dtype), **more)

    def dtype(self, dtype: Any) -> np.dtype[Any]:
        """What stands for `dtype` here."""
        return np.dtype(np.float32 if self.narrow and dtype == np.float64 else dtype)

    def code(self, dtype: Any) -> int:
        """ONNX's number for it."""
        import onnx

        return onnx.helper.np_dtype_to_tensor_dtype(self.dtype(dtype))

    def reshape(self, value: str, *shape: int, **more: Any) -> str:
        return self.add("Reshape", value, np.array((-1, *shape), np.int64), **more)


def named_leaves(space: spaces.Space, name: str) -> Iterator[tuple[str, spaces.Leaf]]:
    """The parts of a space, in order, with `name` and their place in it."""
    return spaces.named_leaves(space, name, "/{}")


def _rows(graph: _Graph, name: str, leaf: spaces.Leaf) -> str:
    """The part's columns of the flat observation, (batch, n) in the precision that surrounds the network."""
    if not isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete)):
        return graph.reshape(graph.cast(name, np.float64), spaces.flat_size(leaf))
    part = spaces.Part.of(leaf, 0)
    assert part.counts is not None
    choices = graph.reshape(graph.cast(name, np.int64), len(part.counts))
    # Each column's component, and the choice that it stands for.
    component = np.repeat(np.arange(len(part.counts)), part.counts)
    choice = np.arange(len(component)) - part.offsets[component] + part.starts[component]
    return graph.cast(graph.add("Equal", graph.add("Gather", choices, component, axis=1), choice[None]), np.float64)


def _normalized(graph: _Graph, saved: SavedPolicy, inputs: Mapping[str, spaces.Leaf]) -> str:
    """Flat observations as the policy sees them, (batch, D)."""
    columns = [_rows(graph, name, leaf) for name, leaf in inputs.items() if spaces.flat_size(leaf)]
    x = graph.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
    x = _normalize(graph, saved, x, slice(None))
    return graph.cast(x, saved.dtype, name="normalized_observation")


def _normalize(graph: _Graph, saved: SavedPolicy, x: str, columns: Any) -> str:
    normalizer = saved.normalizer
    if normalizer is None:
        return x
    mean = normalizer.mean[columns]
    x = graph.add("Sub", x, mean)
    rest = mean - mean.astype(graph.dtype(mean.dtype))
    if rest.any():  # observations far from zero keep the digits that they have
        x = graph.add("Sub", x, rest)
    bound = np.array(np.broadcast_to(normalizer.clip, normalizer.mean.shape)[columns].min())
    return graph.add("Clip", graph.add("Mul", x, normalizer.scale[columns]), -bound, bound)


def _mlp(graph: _Graph, saved: SavedPolicy, inputs: Mapping[str, spaces.Leaf]) -> str:
    return _layers(graph, saved, _normalized(graph, saved, inputs))


def _layers(graph: _Graph, saved: SavedPolicy, x: str) -> str:
    layers = sum(name.startswith("layers.") for name in saved.parameters) // 2
    for index in range(layers):
        x = _dense(graph, saved, x, f"layers.{index}")
        if index < layers - 1:
            x = _activate(graph, saved.activation, x, saved.dtype.type)
    return x


def _recurrent(graph: _Graph, saved: SavedPolicy, inputs: Mapping[str, spaces.Leaf]) -> str:
    """The equations of csrc/include/trpo/recurrent.h, as onnxruntime has its own cells for float32 only."""
    units, gru = saved.widths[0], saved.network == "gru"
    parameters = [graph.constant(f"cell.{name}", saved.parameters[f"cell.{name}"]) for name in CELL_PARAMETERS]
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    # Not by a product: a state that is not finite would stay so.
    before = graph.add("Where", graph.reshape("episode_start", 1), np.zeros((), saved.dtype), "state")

    def columns(value: str, index: int) -> str:
        first = np.array([index * units])
        return graph.add("Slice", value, first, first + units, np.array([1]))

    h = before if gru else columns(before, 0)
    x = graph.add("Gemm", _normalized(graph, saved, inputs), weight_ih, bias_ih, transB=1)
    u = graph.add("Gemm", h, weight_hh, bias_hh, transB=1)
    if gru:
        r, z = (graph.add("Sigmoid", graph.add("Add", columns(x, k), columns(u, k))) for k in (0, 1))
        new = graph.add("Tanh", graph.add("Add", columns(x, 2), graph.add("Mul", r, columns(u, 2))))
        h = graph.add("Add", new, graph.add("Mul", z, graph.add("Sub", h, new)), name="next_state")
        return _layers(graph, saved, h)
    a = graph.add("Add", x, u)
    i, f, o = (graph.add("Sigmoid", columns(a, k)) for k in (0, 1, 3))
    c = graph.add("Add", graph.add("Mul", f, columns(before, 1)), graph.add("Mul", i, graph.add("Tanh", columns(a, 2))))
    h = graph.add("Mul", o, graph.add("Tanh", c))
    graph.add("Concat", h, c, axis=1, name="next_state")
    return _layers(graph, saved, h)


def _cnn(graph: _Graph, saved: SavedPolicy, inputs: Mapping[str, spaces.Leaf]) -> str:
    assert isinstance(saved.seen, ImageLayout)
    (name,) = inputs
    return _dense(graph, saved, _image_features(graph, saved, name, saved.seen), "head")


def _multi_input(graph: _Graph, saved: SavedPolicy, inputs: Mapping[str, spaces.Leaf]) -> str:
    assert isinstance(saved.seen, InputParts)
    images = {columns.start: image for columns, image in saved.seen.images}
    features: list[str] = []
    rest: list[str] = []
    others: list[int] = []  # their columns
    first = 0
    for name, leaf in inputs.items():
        size = spaces.flat_size(leaf)
        if size and first in images:
            features.append(_image_features(graph, saved, name, images[first], f"images.{len(features)}."))
        elif size:
            rest.append(_rows(graph, name, leaf))
            others += range(first, first + size)
        first += size
    if rest:
        x = graph.add("Concat", *rest, axis=1) if len(rest) > 1 else rest[0]
        features.append(graph.cast(_normalize(graph, saved, x, others), saved.dtype))
    return _layers(graph, saved, graph.add("Concat", *features, axis=1) if len(features) > 1 else features[0])


def _image_features(graph: _Graph, saved: SavedPolicy, name: str, image: ImageLayout, prefix: str = "") -> str:
    x = graph.add("Div", graph.cast(name, np.float32), np.array(image.largest, np.float32))
    x = graph.reshape(x, *image.axes)
    if image.channels_last:
        x = graph.add("Transpose", x, perm=(0, 1, 4, 2, 3))
    x = graph.reshape(x, image.planes, image.height, image.width)
    network = convolutions(image)
    for index, (_, _, stride) in enumerate(network.stack):
        parameters = [saved.parameters[f"{prefix}convolutions.{index}.{kind}"] for kind in ("weight", "bias")]
        weight, bias = (array.astype(np.float32) for array in parameters)
        x = graph.add("Relu", graph.add("Conv", x, weight, bias, strides=(stride, stride), pads=(network.padding,) * 4))
    x = graph.cast(graph.add("Flatten", x), saved.dtype)
    return graph.add("Relu", _dense(graph, saved, x, f"{prefix}dense"))


def _dense(graph: _Graph, saved: SavedPolicy, x: str, name: str) -> str:
    weight, bias = (graph.constant(f"{name}.{kind}", saved.parameters[f"{name}.{kind}"]) for kind in ("weight", "bias"))
    return graph.add("Gemm", x, weight, bias, transB=1)


def _activate(graph: _Graph, activation: str, x: str, real: type) -> str:
    if activation in ("tanh", "relu", "sigmoid"):
        return graph.add(activation.capitalize(), x)
    if activation == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if activation == "gelu":
        return graph.add("Mul", x, _normal_distribution_function(graph, x, real))
    # onnxruntime has Softplus, Elu and LeakyRelu for float32 only.
    if activation == "softplus":
        e = graph.add("Exp", graph.add("Neg", graph.add("Abs", x)))
        y = graph.add("Add", graph.add("Relu", x), graph.add("Log", graph.add("Add", e, np.array(1, real))))
        return graph.add("Where", graph.add("Greater", x, np.array(20, real)), x, y)
    if activation == "leaky_relu":
        return graph.add("Max", x, graph.add("Mul", x, np.array(0.01, real)))
    below = graph.add("Sub", graph.add("Exp", graph.add("Min", x, np.array(0, real))), np.array(1, real))
    return graph.add("Add", graph.add("Relu", x), below)


def _normal_distribution_function(graph: _Graph, x: str, real: type) -> str:
    one: NDArray[Any] = np.array(1, real)
    if real is np.float32:
        error_function = graph.add("Erf", graph.add("Mul", x, np.array(math.sqrt(0.5), real)))
        return graph.add("Mul", graph.add("Add", error_function, one), np.array(0.5, real))
    # onnxruntime has Erf for float32 only. With t = |x|, Phi(-t) = exp(-t^2 / 2) P((t - c) / (t + c)) / (t + c), P a
    # polynomial as in csrc/kernels/elementary.h, but for t up to 10 alone: Phi(-10) is 8e-24.
    centre, furthest = 4.0, 10.0
    t = graph.add("Min", graph.add("Abs", x), np.array(furthest))
    divisor = graph.add("Add", t, np.array(centre))
    w = graph.add("Div", graph.add("Sub", t, np.array(centre)), divisor)
    *lower, highest = _tail_polynomial(centre, furthest, degree=18)
    tail: str | NDArray[np.float64] = np.array(highest)
    for coefficient in reversed(lower):
        tail = graph.add("Add", graph.add("Mul", w, tail), np.array(coefficient))
    density = graph.add("Exp", graph.add("Mul", graph.add("Mul", t, t), np.array(-0.5)))
    below = graph.add("Div", graph.add("Mul", density, tail), divisor)
    return graph.add("Where", graph.add("Less", x, np.array(0.0)), below, graph.add("Sub", one, below))


def _tail_polynomial(centre: float, furthest: float, degree: int) -> list[float]:
    """Coefficients, lowest first, of (t + c) Phi(-t) exp(t^2 / 2) in w = (t - c) / (t + c) for 0 <= t <= furthest."""

    def value(w: NDArray[np.float64]) -> NDArray[np.float64]:
        t = centre * (1 + w) / (1 - w)
        return (t + centre) * np.array([math.erfc(s * math.sqrt(0.5)) / 2 * math.exp(s * s / 2) for s in t])

    series = np.polynomial.Chebyshev.interpolate(value, degree, [-1.0, (furthest - centre) / (furthest + centre)])
    return [float(coefficient) for coefficient in series.convert(kind=np.polynomial.Polynomial).coef]


def _act(graph: _Graph, saved: SavedPolicy, outputs: str) -> dict[str, tuple[Any, tuple[int | str, ...]]]:
    """Append what follows the network; dtype and shape of the graph's outputs, by name."""
    layout = spaces.action_layout(saved.action_space, saved.action_map)
    log_std = saved.parameters.get("log_std")
    if isinstance(saved.action_space, spaces.Leaf):
        return _act_on(graph, saved, saved.action_space, layout, outputs, log_std, "")
    found: dict[str, tuple[Any, tuple[int | str, ...]]] = {}
    column = scale = 0
    for (name, leaf), part in zip(named_leaves(saved.action_space, ""), layout.parts, strict=True):
        own = graph.add("Slice", outputs, *np.array([[column], [column + part.outputs], [1]]))
        own_log_std = None if log_std is None else log_std[scale : scale + part.log_std_size]
        found |= _act_on(graph, saved, leaf, part, own, own_log_std, name)
        column, scale = column + part.outputs, scale + part.log_std_size
    return found


def _act_on(
    graph: _Graph,
    saved: SavedPolicy,
    space: spaces.Leaf,
    layout: spaces.ActionLayout,
    outputs: str,
    log_std: NDArray[Any] | None,
    name: str,
) -> dict[str, tuple[Any, tuple[int | str, ...]]]:
    """As `_act`, of one space without parts, whose outputs have `name` behind theirs."""
    shape: tuple[int | str, ...] = ("batch", *space.shape)
    action, mean, logits = (f"{kind}{name}" for kind in ("action", "mean", "logits"))
    if layout.distribution == "gaussian":
        assert layout.low is not None and layout.high is not None and log_std is not None
        graph.reshape(outputs, *space.shape, name=mean)
        graph.add("Identity", log_std.reshape(space.shape), name=f"log_std{name}")
        mapped = graph.cast(outputs, np.float64)
        if layout.scale is not None and layout.offset is not None:
            mapped = graph.add("Add", graph.add("Mul", mapped, layout.scale), layout.offset)
        low, high = (bound.astype(graph.dtype(bound.dtype)) for bound in (layout.low, layout.high))
        low = np.where(low < layout.low, np.nextafter(low, high), low)  # rounded into the box
        high = np.where(high > layout.high, np.nextafter(high, low), high)
        clipped = graph.add("Min", graph.add("Max", mapped, low), high)
        if space.dtype == np.float16:  # through float32, as the actor rounds
            clipped = graph.cast(clipped, np.float32)
        graph.cast(graph.reshape(clipped, *space.shape), space.dtype, name=action)
        return {
            action: (space.dtype, shape),
            mean: (saved.dtype, shape),
            f"log_std{name}": (saved.dtype, space.shape),
        }
    graph.add("Identity", outputs, name=logits)
    if layout.distribution == "bernoulli":
        choices = graph.cast(graph.add("Greater", outputs, np.array(0, saved.dtype)), np.int64)
    else:
        edges = np.cumsum((0, *layout.nvec))
        chosen = [
            graph.add("ArgMax", graph.add("Slice", outputs, *np.array([[first], [last], [1]])), axis=1, keepdims=1)
            for first, last in pairwise(edges)
        ]
        choices = graph.add("Concat", *chosen, axis=1)
    choices = graph.add("Add", choices, layout.start)
    graph.cast(graph.reshape(choices, *space.shape), space.dtype, name=action)
    return {action: (space.dtype, shape), logits: (saved.dtype, ("batch", layout.outputs))}


def _properties(saved: SavedPolicy) -> dict[str, str]:
    environment, counters = (saved.metadata.get(name) for name in ("environment", "counters"))
    learned = None
    if isinstance(counters, dict) and "num_timesteps" in counters:
        learned = counters["num_timesteps"] + counters.get("earlier_timesteps", 0)
    found = {
        "environment": environment.get("id") if isinstance(environment, dict) else None,
        "num_timesteps": learned,
        "observation_space": spaces.to_json(saved.observation_space),
        "action_space": spaces.to_json(saved.action_space),
        "versions": saved.metadata.get("versions"),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
