"""The one check of an agent's file, without torch and Gymnasium: what is damaged for one reader is so for all.

`TRPO.load`, `load_actor`, the export and what looks for the latest of a run ask it. `TRPO.load` alone can know, and
checks besides, whether the settings and the environment are sound and no counter of this version is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast import spaces
from trpo_fast._core.library import LARGEST_LAYER, in_words
from trpo_fast.recurrence import CELL_PARAMETERS, CELLS
from trpo_fast.spaces.descriptions import most_items
from trpo_fast.spaces.images import ImageLayout, InputParts, convolutions, image_layout, input_parts

Arrays = Mapping[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

LARGEST_COUNTER = 2**63 - 1
_NOT_NEGATIVE = (
    "adam.second_moment",
    "observation_normalizer.count",
    "observation_normalizer.m2",
    "reward_scaler.count",
    "reward_scaler.m2",
    "episodes.lengths",
)


def check_state(arrays: Arrays, metadata: Mapping[str, Any]) -> None:
    """ValueError names what of an agent's file no agent that was saved has had: arrays and counters."""
    config, own = field(metadata, "config", dict), own_networks(metadata)
    dtype = np.dtype(choice(config, "dtype", ("float32", "float64")))
    for network, shapes in network_shapes(arrays, metadata).items():
        _check_network(network, arrays, shapes, dtype)
    # Files of before buffers were named do not tell those of a user's module from its parameters.
    named = field(metadata, "buffers", list, default=[])
    unknown = [f"{name}." for name, kind in own.items() if kind is not None and "buffers" not in metadata]
    known = {name: array for name, array in arrays.items() if not name.startswith(tuple(unknown))}
    critic = {name: array.size for name, array in known.items() if name.startswith("critic.") and name not in named}
    moments = "adam.first_moment", "adam.second_moment"
    wanted: dict[str, tuple[tuple[int, ...] | None, Any]] = {
        **{name: ((sum(critic.values()),) if critic else None, dtype) for name in moments},
        **{"episodes.returns": (None, np.float64), "episodes.lengths": (None, np.int64)},
    }
    if field(config, "scale_rewards", bool, "config."):
        wanted |= _statistics("reward_scaler", 1)
    if own["policy"] is None:
        columns = normalized_columns(arrays, config, _observation_space(arrays, metadata))
        if columns.any():
            wanted |= _statistics("observation_normalizer", len(columns))
    for name, (shape, kind) in wanted.items():
        _check_array(name, arrays, shape, np.dtype(kind))
    check_numbers(known, named)
    lengths, returns = len(arrays["episodes.lengths"]), len(arrays["episodes.returns"])
    if lengths != returns:
        raise ValueError(f"episodes.lengths: {lengths} given; want {returns}, as many as episodes.returns")
    counters = field(metadata, "counters", dict)
    _check_counters("counters", counters)
    begun, done = counters.get("schedules_from", 0), counters.get("num_timesteps", 0)
    if begun > done:
        raise ValueError(f"counters.schedules_from: {begun:,} given; want at most num_timesteps, {done:,}")


def check_numbers(arrays: Arrays, buffers: Collection[str] = ()) -> None:
    """ValueError where an array has numbers that no agent's has; `buffers` may."""
    for name, array in arrays.items():
        # Constants of a module may well be infinite, in a mask for example.
        if name not in buffers and not np.isfinite(array).all():
            raise ValueError(f"{name}: {array[~np.isfinite(array)].flat[0]} given; want finite numbers")
        if name in _NOT_NEGATIVE and (array < 0).any():
            raise ValueError(f"{name}: {array[array < 0].flat[0]} given; want numbers >= 0")


def is_cnn(arrays: Arrays, config: Mapping[str, Any]) -> bool:
    """Whether the networks of a file have built-in convolutions, unless they are a user's own.

    What "auto" means changes from one version to the next: the file's arrays say it.
    """
    policy = config.get("policy", "auto")
    found = any(f"policy.{where}convolutions.0.weight" in arrays for where in ("", "images.0."))
    return policy == "cnn" or (policy == "auto" and found)


def seen_by(
    arrays: Arrays, config: Mapping[str, Any], observation_space: spaces.Space
) -> ImageLayout | InputParts | None:
    """What the built-in networks of a file see of images: all, parts of a Dict or Tuple, or nothing."""
    if not is_cnn(arrays, config):
        return None
    axis = field(config, "channel_axis", str, "config.", default="auto")  # older files lack it
    if isinstance(observation_space, spaces.Leaf):
        return image_layout(observation_space, axis)
    return input_parts(observation_space, axis, boards=config.get("policy") == "cnn")


def normalized_columns(arrays: Arrays, config: Mapping[str, Any], observation_space: spaces.Space) -> NDArray[np.bool_]:
    """(D,) columns that the built-in networks of a file see normalized."""
    columns = spaces.numeric_columns(observation_space)
    seen = seen_by(arrays, config, observation_space)
    if seen is None or isinstance(seen, ImageLayout):
        columns &= seen is None
    else:
        for part, _ in seen.images:
            columns[part] = False
    return columns & field(config, "normalize_observations", bool, "config.")


def own_networks(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """Names of the classes that the user gave for "policy" and "critic"; older files lack them."""
    own = metadata.get("own_networks", {})
    if isinstance(own, Mapping):
        found = {name: own.get(name) for name in ("policy", "critic")}
        if all(isinstance(name, (str, type(None))) for name in found.values()):
            return found
    raise ValueError(
        f"own_networks: {in_words(own)} given; want an object with policy and critic, names of classes or null"
    )


def network_shapes(arrays: Arrays, metadata: Mapping[str, Any]) -> dict[str, Shapes]:
    """Shapes of the parameters of built-in networks, in their order, by what the file says of settings and spaces.

    A few words can ask for layers of gigabytes, but only a file of that size has them: compared before memory is taken.
    """
    own, config = own_networks(metadata), field(metadata, "config", dict)
    if own["policy"] is not None:
        return {}  # the kind of the critic may depend on the user's policy
    observations = _observation_space(arrays, metadata)
    actions = spaces.action_layout(
        spaces.from_json(field(metadata, "action_space", dict), most_items(arrays)),
        field(config, "action_map", str, "config.", default="clip"),  # older files lack it
    )
    seen = seen_by(arrays, config, observations)
    inputs, kind = spaces.ObservationLayout(observations).size, config.get("policy")
    remembers = kind in CELLS and field(config, "recurrent_critic", bool, "config.")
    shapes: dict[str, Shapes] = {}
    for network, sizes, outputs in (("policy", "hidden_sizes", actions.outputs), ("critic", "critic_hidden_sizes", 1)):
        if own[network] is not None:
            continue
        if kind in CELLS and (network == "policy" or remembers):
            (units,) = _sizes({"recurrent_size": [config.get("recurrent_size")]}, "recurrent_size")
            layers = _mlp_shapes((units, *_sizes(config, sizes), outputs))
            shapes[network] = layers | _cell_shapes(kind, inputs, units)
        elif isinstance(seen, ImageLayout):
            shapes[network] = cnn_shapes(seen, outputs)
        elif seen is not None:
            shapes[network] = _multi_input_shapes(seen, _sizes(config, sizes), outputs)
        else:
            shapes[network] = _mlp_shapes((inputs, *_sizes(config, sizes), outputs))
    if actions.log_std_size:
        shapes["policy"] = {"log_std": (actions.log_std_size,), **shapes["policy"]}
    return shapes


def cnn_shapes(image: ImageLayout, outputs: int) -> Shapes:
    """Shapes of the parameters of a built-in CNN with so many outputs, by name."""
    width = convolutions(image).dense
    return _features_shapes(image) | {"head.weight": (outputs, width), "head.bias": (outputs,)}


def _features_shapes(image: ImageLayout) -> Shapes:
    """Those of its convolutions and its dense layer."""
    network, channels = convolutions(image), image.planes
    shapes: Shapes = {}
    for index, (filters, kernel, _) in enumerate(network.stack):
        shapes[f"convolutions.{index}.weight"] = (filters, channels, kernel, kernel)
        shapes[f"convolutions.{index}.bias"] = (filters,)
        channels = filters
    return shapes | {"dense.weight": (network.dense, network.features), "dense.bias": (network.dense,)}


def field(values: Mapping[str, Any], name: str, kinds: Any, where: str = "", default: Any = None) -> Any:
    """``values[name]``; ValueError where it is missing, without a default, or of another kind."""
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    if name not in values and default is None:
        raise ValueError(f"{where}{name}: missing; want {wanted}")
    value = values.get(name, default)
    if not isinstance(value, kinds):
        raise ValueError(f"{where}{name}: {in_words(value)} given; want {wanted}")
    return value


def choice(config: Mapping[str, Any], name: str, names: Collection[str]) -> str:
    """A setting that is one of `names`; ValueError for anything else."""
    value = field(config, name, str, "config.")
    if value not in names:
        raise ValueError(f"config.{name}: {in_words(value)} given; want one of {', '.join(names)}")
    return str(value)


def counter(values: Mapping[str, Any], name: str, most: int, default: int | None = None) -> int:
    """An integer from 0 to `most`; ValueError for anything else."""
    value = field(values, name, int, default=default)
    if isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name}: {in_words(value)} given; want an integer from 0 to {most}")
    return int(value)


def _observation_space(arrays: Arrays, metadata: Mapping[str, Any]) -> spaces.Space:
    most = most_items(arrays, own=own_networks(metadata)["policy"] is not None)
    return spaces.from_json(field(metadata, "observation_space", dict), most)


def _sizes(config: Mapping[str, Any], name: str) -> list[int]:
    sizes = field(config, name, list, "config.")
    if not all(type(size) is int and 1 <= size <= LARGEST_LAYER for size in sizes):
        raise ValueError(f"config.{name}: {in_words(sizes)} given; want a list of integers from 1 to 2**24")
    return list(sizes)


def _mlp_shapes(widths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"layers.{index}.weight": (outputs, inputs), f"layers.{index}.bias": (outputs,)}
    return shapes


def _cell_shapes(kind: str, inputs: int, units: int) -> Shapes:
    rows = units * (3 if kind == "gru" else 4)
    shapes = (rows, inputs), (rows, units), (rows,), (rows,)
    return {f"cell.{name}": shape for name, shape in zip(CELL_PARAMETERS, shapes, strict=True)}


def _multi_input_shapes(seen: InputParts, sizes: list[int], outputs: int) -> Shapes:
    shapes: Shapes = {}
    for index, (_, image) in enumerate(seen.images):
        shapes |= {f"images.{index}.{name}": shape for name, shape in _features_shapes(image).items()}
    return shapes | _mlp_shapes((seen.features, *sizes, outputs))


def _statistics(name: str, size: int) -> dict[str, tuple[tuple[int, ...] | None, Any]]:
    shapes = {"count": (), "mean": (size,), "m2": (size,)}
    return {f"{name}.{part}": (shape, np.float64) for part, shape in shapes.items()}


def _check_network(network: str, arrays: Arrays, shapes: Shapes, dtype: np.dtype[Any]) -> None:
    for name, shape in shapes.items():
        _check_array(f"{network}.{name}", arrays, shape, dtype)
    for name in arrays:
        if name.startswith(f"{network}.") and name.removeprefix(f"{network}.") not in shapes:
            raise ValueError(f"{name}: given; want no such parameter for these spaces")


def _check_array(name: str, arrays: Arrays, shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> None:
    """`shape` None: as many as there are, in one row."""
    wanted = f"{'(k,)' if shape is None else shape} of {dtype}"
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"{name}: missing; want {wanted}")
    if array.dtype != dtype or (array.ndim != 1 if shape is None else array.shape != shape):
        raise ValueError(f"{name}: {array.shape} of {array.dtype} given; want {wanted}")


def _check_counters(where: str, counters: Mapping[str, Any]) -> None:
    for name, value in counters.items():
        if type(value) is dict:
            _check_counters(f"{where}.{name}", value)
        elif type(value) is not int or not 0 <= value <= LARGEST_COUNTER:
            raise ValueError(f"{where}.{name}: {in_words(value)} given; want an integer from 0 to 2**63 - 1")
