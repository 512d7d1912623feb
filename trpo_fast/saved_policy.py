"""What acting needs of an agent's model file, read and checked without torch and Gymnasium."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trpo_fast import model_file, spaces
from trpo_fast._core.library import ACTIVATIONS, in_words
from trpo_fast.model_file import ModelFileError
from trpo_fast.normalizers import ObservationNormalizer
from trpo_fast.run_models import read_latest
from trpo_fast.spaces.descriptions import most_items
from trpo_fast.spaces.images import ImageLayout, convolutions, image_layout

KIND = "TRPO"
"""What the metadata of an agent's file call it."""

_LARGEST_COUNTER = 2**63 - 1
_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class SavedPolicy:
    """The policy of an agent, and what its observations and actions are.

    Attributes
    ----------
    path : Path
        Of the file.
    network : {"mlp", "cnn"}
    observation_space : Space
    action_space : Leaf
    action_map : {"affine", "clip"}
        How the policy's actions become those of a Box.
    activation : str
        Between the layers of an MLP.
    image : ImageLayout or None
        What a CNN sees.
    dtype : numpy.dtype
        Of the parameters, float32 or float64.
    parameters : dict of str to ndarray
        By their names in the policy, in the order of the policy's ``named_parameters()``.
    normalizer : ObservationNormalizer or None
    seed, num_predictions : int
        Key and counter of the noise of ``agent.predict``.
    metadata : dict
        All that the file says: ``environment``, ``versions``, ``counters``, ``config`` ...
    """

    path: Path
    network: str
    observation_space: spaces.Space
    action_space: spaces.Leaf
    action_map: str
    activation: str
    image: ImageLayout | None
    dtype: np.dtype[Any]
    parameters: dict[str, NDArray[Any]]
    normalizer: ObservationNormalizer | None
    seed: int
    num_predictions: int
    metadata: dict[str, Any]

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer sizes of an MLP, observations first."""
        shapes = [array.shape for name, array in self.parameters.items() if name.endswith(".weight")]
        return (shapes[0][1], *(outputs for outputs, _ in shapes))


def read_policy(path: str | os.PathLike[str], name: str = "path") -> SavedPolicy:
    """Read the policy of a file that ``TRPO.save`` wrote, or of a run's latest; errors call the argument `name`.

    Raises
    ------
    TypeError
        No path is given.
    FileNotFoundError
        Nothing lies there.
    ModelFileError
        A truncated, damaged, foreign or future-version file; the message says which.
    ValueError
        The policy is a torch module of the user's own, which only torch can evaluate.
    """
    return read_latest(path, _read_policy, name)


def _read_policy(source: Path) -> SavedPolicy:
    arrays, metadata = model_file.read(source)
    if metadata.get("kind") != KIND:
        raise ModelFileError(f"{source}: holds {metadata.get('kind')!r}; want an agent saved by TRPO.save")
    with model_file.damage_named(source):
        own = _field(metadata, "own_networks", dict, default={}).get("policy")  # older files lack it
        if not isinstance(own, (str, type(None))):
            raise ValueError(f"own_networks: policy is {own!r}; want the name of a class or null")
    if own is not None:
        raise ValueError(
            f"{source}: its policy is a module of its own, {own}, which needs torch; want a policy that TRPO built. "
            "Act with TRPO.load(path, policy=...).predict, or export that module by torch.onnx.export"
        )
    with model_file.damage_named(source):
        config = _field(metadata, "config", dict)
        observation_space, action_space = (
            spaces.from_json(_field(metadata, name, dict), most_items(arrays))
            for name in ("observation_space", "action_space")
        )
        dtype = _field(config, "dtype", str, "config.")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"config.dtype: {dtype!r} given; want 'float32' or 'float64'")
        activation = _field(config, "activation", str, "config.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"config.activation: {activation!r} given; want one of {', '.join(ACTIVATIONS)}")
        parameters = {
            name.removeprefix("policy."): array for name, array in arrays.items() if name.startswith("policy.")
        }
        action_map = _field(config, "action_map", str, "config.", default="clip")  # what older files lack
        actions = spaces.action_layout(action_space, action_map)
        network = "cnn" if "convolutions.0.weight" in parameters else "mlp"
        shapes: _Shapes = {"log_std": (actions.outputs,)} if actions.distribution == "gaussian" else {}
        image = None
        if network == "mlp":
            shapes |= _mlp_shapes(parameters, spaces.ObservationLayout(observation_space).size, actions.outputs)
        else:
            # Older files lack the axis.
            image = image_layout(observation_space, _field(config, "channel_axis", str, "config.", default="auto"))
            shapes |= cnn_shapes(image, actions.outputs)
        return SavedPolicy(
            path=source,
            network=network,
            observation_space=observation_space,
            action_space=cast(spaces.Leaf, action_space),  # or its layout would not have been found
            action_map=spaces.resolved_action_map(action_space, action_map),
            activation=activation,
            image=image,
            dtype=np.dtype(dtype),
            parameters=_checked_parameters(parameters, shapes, np.dtype(dtype)),
            normalizer=_normalizer(arrays, config, observation_space) if network == "mlp" else None,
            seed=_counter(metadata, "seed", 2**32 - 1),
            num_predictions=_counter(_field(metadata, "counters", dict), "num_predictions", _LARGEST_COUNTER, 0),
            metadata=metadata,
        )


def _mlp_shapes(parameters: Mapping[str, NDArray[Any]], inputs: int, outputs: int) -> _Shapes:
    """By name; the widths of hidden layers are what the weights say."""
    layers = max(1, sum(name.endswith(".weight") for name in parameters))
    shapes: _Shapes = {}
    for index in range(layers):
        weight = parameters.get(f"layers.{index}.weight")
        width = outputs if index == layers - 1 or weight is None else len(weight)
        shapes |= {f"layers.{index}.weight": (width, inputs), f"layers.{index}.bias": (width,)}
        inputs = width
    return shapes


def cnn_shapes(image: ImageLayout, outputs: int) -> _Shapes:
    """Shapes of the parameters of a built-in CNN with so many outputs, by name."""
    network, channels = convolutions(image), image.planes
    shapes: _Shapes = {}
    for index, (filters, kernel, _) in enumerate(network.stack):
        shapes[f"convolutions.{index}.weight"] = (filters, channels, kernel, kernel)
        shapes[f"convolutions.{index}.bias"] = (filters,)
        channels = filters
    shapes |= {"dense.weight": (network.dense, network.features), "dense.bias": (network.dense,)}
    return shapes | {"head.weight": (outputs, network.dense), "head.bias": (outputs,)}


def _checked_parameters(
    parameters: Mapping[str, NDArray[Any]], shapes: _Shapes, dtype: np.dtype[Any]
) -> dict[str, NDArray[Any]]:
    for name in {**shapes, **parameters}:
        array, shape = parameters.get(name), shapes.get(name)
        if array is None:
            raise ValueError(f"policy.{name}: missing; want {shape} of {dtype}")
        if shape is None:
            raise ValueError(f"policy.{name}: given; want no such parameter for these spaces")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"policy.{name}: {array.shape} of {array.dtype} given; want {shape} of {dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"policy.{name}: {array[~np.isfinite(array)].flat[0]} given; want finite numbers")
    return {name: parameters[name] for name in shapes}


def _normalizer(
    arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any], observation_space: spaces.Space
) -> ObservationNormalizer | None:
    columns = spaces.numeric_columns(observation_space)
    if not (_field(config, "normalize_observations", bool, "config.") and columns.any()):
        return None
    clip = _field(config, "observation_clip", (int, float, str), "config.")
    # As TRPOConfig writes it: JSON has no infinity.
    normalizer = ObservationNormalizer(len(columns), clip=math.inf if clip == "inf" else clip, columns=columns)
    prefix = "observation_normalizer."
    normalizer.set_state(
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    )
    return normalizer


def _field(values: Mapping[str, Any], name: str, kinds: Any, where: str = "", default: Any = None) -> Any:
    """``values[name]``; ValueError where it is missing, without a default, or of another kind."""
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    if name not in values and default is None:
        raise ValueError(f"{where}{name}: missing; want {wanted}")
    value = values.get(name, default)
    if not isinstance(value, kinds):
        raise ValueError(f"{where}{name}: {in_words(value)} given; want {wanted}")
    return value


def _counter(values: Mapping[str, Any], name: str, most: int, default: int | None = None) -> int:
    value = _field(values, name, int, default=default)
    if isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name}: {in_words(value)} given; want an integer from 0 to {most}")
    return int(value)
