"""What acting needs of an agent's model file, read and checked without torch and Gymnasium."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast import model_file, spaces
from trpo_fast._core.library import ACTIVATIONS
from trpo_fast.model_file import ModelFileError
from trpo_fast.normalizers import ObservationNormalizer
from trpo_fast.recurrence import CELLS
from trpo_fast.run_models import read_latest
from trpo_fast.saved_state import (
    LARGEST_COUNTER,
    check_state,
    choice,
    counter,
    field,
    network_shapes,
    normalized_columns,
    own_networks,
    seen_by,
)
from trpo_fast.spaces.descriptions import most_items
from trpo_fast.spaces.images import ImageLayout, InputParts

KIND = "TRPO"
"""What the metadata of an agent's file call it."""


@dataclass(frozen=True)
class SavedPolicy:
    """The policy of an agent, and what its observations and actions are.

    Attributes
    ----------
    path : Path
        Of the file.
    network : {"mlp", "cnn", "multi-input", "gru", "lstm"}
    observation_space : Space
    action_space : Space
    action_map : {"affine", "clip", "auto"}
        How the policy's actions become those of a Box; "auto" where those of a Tuple or Dict differ in that.
    activation : str
        Between the layers of an MLP.
    seen : ImageLayout, InputParts or None
        What a CNN sees; what a network of images beside other parts does.
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
    action_space: spaces.Space
    action_map: str
    activation: str
    seen: ImageLayout | InputParts | None
    dtype: np.dtype[Any]
    parameters: dict[str, NDArray[Any]]
    normalizer: ObservationNormalizer | None
    seed: int
    num_predictions: int
    metadata: dict[str, Any]

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer sizes of an MLP, observations first; of what follows a cell, its units first."""
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
        own = own_networks(metadata)["policy"]
    if own is not None:
        raise ValueError(
            f"{source}: its policy is a module of its own, {own}, which needs torch; want a policy that TRPO built. "
            "Act with TRPO.load(path, policy=...).predict, or export that module by torch.onnx.export"
        )
    with model_file.damage_named(source):
        check_state(arrays, metadata)
        config = metadata["config"]
        observation_space, action_space = (
            spaces.from_json(metadata[name], most_items(arrays)) for name in ("observation_space", "action_space")
        )
        action_map = config.get("action_map", "clip")  # what older files lack
        seen = seen_by(arrays, config, observation_space)
        parameters = {name: arrays[f"policy.{name}"] for name in network_shapes(arrays, metadata)["policy"]}
        return SavedPolicy(
            path=source,
            network=_network(config, seen),
            observation_space=observation_space,
            action_space=action_space,
            action_map=spaces.resolved_action_map(action_space, action_map),
            activation=choice(config, "activation", ACTIVATIONS),
            seen=seen,
            dtype=np.dtype(config["dtype"]),
            parameters=parameters,
            normalizer=_normalizer(arrays, config, observation_space),
            seed=counter(metadata, "seed", 2**32 - 1),
            num_predictions=counter(metadata["counters"], "num_predictions", LARGEST_COUNTER, 0),
            metadata=metadata,
        )


def _network(config: Mapping[str, Any], seen: ImageLayout | InputParts | None) -> str:
    if config["policy"] in CELLS:
        return str(config["policy"])
    return "mlp" if seen is None else "cnn" if isinstance(seen, ImageLayout) else "multi-input"


def _normalizer(
    arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any], observation_space: spaces.Space
) -> ObservationNormalizer | None:
    columns = normalized_columns(arrays, config, observation_space)
    if not columns.any():
        return None
    clip = field(config, "observation_clip", (int, float, str), "config.")
    # As TRPOConfig writes it: JSON has no infinity.
    normalizer = ObservationNormalizer(len(columns), clip=math.inf if clip == "inf" else clip, columns=columns)
    prefix = "observation_normalizer."
    normalizer.set_state(
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    )
    return normalizer
