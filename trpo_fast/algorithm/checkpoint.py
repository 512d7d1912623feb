"""An agent's state: taken in memory between two updates, written to a safetensors file, and put back.

A file holds everything that training needs to go on: parameters, Adam, statistics, counters of the random streams.
Environments cannot be saved; after a load they start new episodes, with seeds that were not used before.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from trpo_fast import model_file
from trpo_fast.algorithm import hooks
from trpo_fast.algorithm.config import COUNTER, SEED, TRPOConfig
from trpo_fast.algorithm.critic import PendingFit
from trpo_fast.algorithm.report import UpdateReport
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.spaces import (
    action_layout,
    described,
    observation_size,
    space_from_json,
    space_to_json,
)
from trpo_fast.saved_policy import KIND, cnn_shapes
from trpo_fast.settings import checked
from trpo_fast.spaces.descriptions import most_items
from trpo_fast.spaces.images import image_layout

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

_COUNTERS: dict[str, Any] = {
    "num_timesteps": COUNTER,
    "earlier_timesteps": COUNTER,
    "num_updates": COUNTER,
    "num_episodes": COUNTER,
    "num_predictions": COUNTER,
    "adam": {"adam_step": COUNTER, "epochs": COUNTER},
    "collector": {"step": COUNTER, "resets": COUNTER},
}
_DESCRIPTION: dict[str, tuple[Any, str]] = {
    "config": (dict, "an object with fields of TRPOConfig"),
    "seed": (int, SEED.want),
    "observation_space": (dict, "the description of a space"),
    "action_space": (dict, "the description of a space"),
    "environment": ((dict, type(None)), "an object with id, vectorization and env_kwargs, or null"),
    "counters": (dict, f"an object with {', '.join(_COUNTERS)}"),
}
_NOT_NEGATIVE = (
    "adam.second_moment",
    "observation_normalizer.count",
    "observation_normalizer.m2",
    "reward_scaler.count",
    "reward_scaler.m2",
    "episodes.lengths",
)
_PACKAGES = ("trpo-fast", "torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Snapshot:
    """One consistent moment between two updates."""

    arrays: dict[str, NDArray[Any]]  # copies, by dotted name
    counters: dict[str, Any]  # JSON-able
    fit: PendingFit | None = None  # belongs to this moment, but nothing has waited for it
    last_update: UpdateReport | None = None

    def with_fit(self, critic: torch.nn.Module) -> Snapshot:
        """The same moment after its fit, which is done, to `critic`, whose parameters it has the names of."""
        if self.fit is None or self.fit.failed():
            return replace(self, fit=None)
        fit, arrays, first = self.fit.result(), dict(self.arrays), 0
        for name, parameter in critic.named_parameters():  # the order of a flat buffer
            last = first + parameter.numel()
            arrays[f"critic.{name}"] = fit.parameters[first:last].reshape(parameter.shape)
            first = last
        arrays |= {"adam.first_moment": fit.first_moment, "adam.second_moment": fit.second_moment}
        counters = {**self.counters, "adam": {**self.counters["adam"], "adam_step": fit.adam_step}}
        return replace(self, arrays=arrays, counters=counters, fit=None)


def capture(agent: TRPO) -> Snapshot:
    """The agent's state now, without waiting for the critic's fit."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in _network_tensors(agent).items():
        arrays[name] = tensor.detach().cpu().numpy().copy()
    moments, adam = agent.critic_trainer.state()
    arrays |= {f"adam.{name}": array for name, array in moments.items()}
    for name, statistics in _statistics(agent):
        arrays |= {f"{name}.{key}": np.array(value) for key, value in statistics.state().items()}
    arrays["episodes.returns"] = np.array([value for value, _ in agent.recent_episodes], np.float64)
    arrays["episodes.lengths"] = np.array([length for _, length in agent.recent_episodes], np.int64)
    collector = agent.collector_state if agent.collector is None else agent.collector.state_dict()
    counters = {
        "num_timesteps": agent.num_timesteps,
        "earlier_timesteps": agent.earlier_timesteps,
        "num_updates": agent.num_updates,
        "num_episodes": agent.num_episodes,
        "num_predictions": agent.num_predictions,
        "adam": adam,
        "collector": collector,
    }
    return Snapshot(arrays, counters, agent.critic_trainer.pending, agent.last_update)


def restore(agent: TRPO, snapshot: Snapshot) -> None:
    """Put the agent back to ``snapshot``, which is of this agent or has passed :func:`check`."""
    arrays, counters = snapshot.arrays, snapshot.counters
    with torch.no_grad():
        for name, tensor in _network_tensors(agent).items():
            tensor.copy_(torch.from_numpy(arrays[name]))
    agent.engine.adopt_parameters()
    agent.critic_trainer.load_state(_under(arrays, "adam"), counters["adam"], snapshot.fit)
    for name, statistics in _statistics(agent):
        statistics.load_state(_under(arrays, name))
    agent.num_timesteps = counters["num_timesteps"]
    agent.earlier_timesteps = counters["earlier_timesteps"]
    agent.num_updates = counters["num_updates"]
    agent.num_episodes = counters["num_episodes"]
    agent.num_predictions = counters["num_predictions"]
    agent.recent_episodes.clear()
    episodes = zip(arrays["episodes.returns"].tolist(), arrays["episodes.lengths"].tolist(), strict=True)
    agent.recent_episodes.extend(episodes)
    agent.last_update = snapshot.last_update
    agent.collector_state = counters["collector"]
    if agent.collector is not None:
        agent.collector.load_state_dict(counters["collector"])


def check(agent: TRPO, snapshot: Snapshot) -> None:
    """ValueError where ``snapshot``, as read from a file, is not the state of an agent built as this one was."""
    arrays, wanted = snapshot.arrays, capture(agent).arrays
    # Constants of a module may well be infinite, in a mask for example.
    buffers = {name for name, tensor in _network_tensors(agent).items() if not isinstance(tensor, torch.nn.Parameter)}
    for name, like in wanted.items():
        # Only the latest episodes are kept, so their number is the file's.
        shape = ("k",) if name.startswith("episodes.") else like.shape
        want = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''}) of {like.dtype}"
        if name not in arrays:
            raise ValueError(f"{name}: missing; want {want}")
        array = arrays[name]
        if array.dtype != like.dtype or (array.ndim != 1 if shape == ("k",) else array.shape != shape):
            raise ValueError(f"{name}: {array.shape} of {array.dtype} given; want {want}")
        if name not in buffers and not np.isfinite(array).all():
            raise ValueError(f"{name}: {array[~np.isfinite(array)].flat[0]} given; want finite numbers")
        if name in _NOT_NEGATIVE and (array < 0).any():
            raise ValueError(f"{name}: {array[array < 0].flat[0]} given; want numbers >= 0")
    returns, lengths = arrays["episodes.returns"], arrays["episodes.lengths"]
    if len(returns) != len(lengths):
        raise ValueError(f"episodes.lengths: {len(lengths)} given; want {len(returns)}, as many as episodes.returns")
    _check_counters("counters", snapshot.counters, _COUNTERS)


def check_sizes(saved: SavedAgent) -> None:
    """ValueError where networks built by the file's settings would be others than its arrays: before memory is taken.

    A few words can ask for layers of gigabytes, but only a file of that size has them.
    """
    config, arrays = saved.config, saved.snapshot.arrays
    inputs, outputs = observation_size(saved.observation_space), action_layout(saved.action_space).outputs
    convolve = config.policy == "cnn" or (config.policy == "auto" and saved.kind == "cnn")
    for name, hidden, last in (("policy", config.hidden_sizes, outputs), ("critic", config.critic_hidden_sizes, 1)):
        if saved.own_networks[name] is not None or (name == "critic" and saved.own_networks["policy"] is not None):
            continue  # the kind of the critic may depend on the user's policy
        if convolve:
            shapes = cnn_shapes(image_layout(described(saved.observation_space), config.channel_axis), last)
        else:
            widths = (inputs, *hidden, last)
            shapes = {f"layers.{i}.weight": (widths[i + 1], widths[i]) for i in range(len(widths) - 1)}
        for parameter, shape in shapes.items():
            array = arrays.get(f"{name}.{parameter}")
            if array is None:
                raise ValueError(f"{name}.{parameter}: missing; want {shape} of {config.dtype}")
            if array.shape != shape:
                given = f"{array.shape} of {array.dtype}"
                raise ValueError(
                    f"{name}.{parameter}: {given} given; want {shape} of {config.dtype}, by the file's config"
                )


def check_networks(agent: TRPO, snapshot: Snapshot) -> None:
    """ValueError where ``snapshot`` is of other networks than the modules that the user gave to this agent."""
    for prefix, own in agent.networks.own.items():
        if own is None:
            continue
        saved = {name: array for name, array in snapshot.arrays.items() if name.startswith(f"{prefix}.")}
        given = {name: tensor for name, tensor in _network_tensors(agent).items() if name.startswith(f"{prefix}.")}
        for name in sorted(saved.keys() | given.keys()):
            has, wants = given.get(name), saved.get(name)
            if has is None:
                raise ValueError(f"{prefix}: the module given lacks {name!r}; want the parameters of the saved agent's")
            if wants is None:
                raise ValueError(f"{prefix}: the module given has {name!r}; want the parameters of the saved agent's")
            if tuple(has.shape) != wants.shape:
                raise ValueError(
                    f"{prefix}: {name!r} of shape {tuple(has.shape)} given; want {wants.shape}, the saved agent's"
                )


def save(
    agent: TRPO,
    path: str | os.PathLike[str],
    taken: Snapshot | None = None,
    *,
    evaluation: Mapping[str, float] | None = None,
) -> None:
    """Write the agent to ``path``, atomically, after waiting for the critic's fit; or `taken`, whose fit is done.

    `evaluation` is written beside it: what the agent was found to be worth.

    TypeError where that is no path. ValueError for a folder, and for a policy or a critic whose parameters
    :func:`check` would refuse in the file.
    """
    path = model_file.checked_path("path", path)
    if path.is_dir():
        raise ValueError(f"path: the folder {path} given; want the name of a file, e.g. model.trpo in it")
    if taken is None:
        agent.critic_trainer.wait()
        agent.engine.refresh()
        snapshot = capture(agent)
    else:
        snapshot = taken.with_fit(agent.critic_trainer.critic)
    for name, _ in agent.critic_trainer.critic.named_parameters():  # the engine has looked at the policy only
        array = snapshot.arrays[f"critic.{name}"]
        if not (array.dtype == agent.config.dtype and np.isfinite(array).all()):
            raise ValueError(
                f"critic.{name}: of {array.dtype} or not finite; want finite numbers of {agent.config.dtype}"
            )
    metadata = {
        "kind": KIND,
        "config": agent.config.to_dict(),
        "seed": agent.seed,
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "environment": None if agent.recipe is None else agent.recipe.to_json(),
        "arguments_not_kept": [] if agent.recipe is None else agent.recipe.not_kept,
        "own_networks": agent.networks.own,
        "own_hooks": agent.hooks.names,
        "counters": snapshot.counters,
        "versions": versions(),
        "evaluation": None if evaluation is None else dict(evaluation),
    }
    model_file.write(path, snapshot.arrays, metadata)
    if agent.recipe is not None and isinstance(agent.recipe.source, str) and metadata["environment"] is None:
        _warn_once_of_recipe(agent)


def _warn_once_of_recipe(agent: TRPO) -> None:
    if not agent.warned_of_recipe:
        agent.warned_of_recipe = True
        recipe = cast(EnvironmentRecipe, agent.recipe)
        warnings.warn(
            f"the file does not say how {recipe.name} is made, as its env_kwargs {dict(recipe.env_kwargs)} or wrappers "
            f"{list(recipe.wrappers or ())} are not the same after JSON: load it with env=..., env_kwargs=..., "
            "wrappers=..., or give arguments of Python's own strings, numbers, lists and dicts with strings as keys",
            stacklevel=4,
        )


@dataclass(frozen=True)
class SavedAgent:
    """What a file holds."""

    config: TRPOConfig
    seed: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    own_networks: dict[str, str | None]  # class of "policy" and of "critic" where the user gave them
    own_hooks: dict[str, str | None]  # names of the functions that the user gave for "advantages" and "step"
    kind: str  # of the policy, "cnn" or "mlp": what "auto" may mean changes from one version to the next
    recipe: EnvironmentRecipe | None  # how the environments were made, where an id was given
    arguments_not_kept: list[str]  # "env_kwargs", "wrappers": what the environments had, and the file does not say
    snapshot: Snapshot


def read(path: str | os.PathLike[str]) -> SavedAgent:
    """Read a file that :func:`save` wrote; FileNotFoundError or ModelFileError says what is wrong with it."""
    arrays, metadata = model_file.read(path)
    if metadata.get("kind") != KIND:
        raise model_file.ModelFileError(
            f"{os.fspath(path)}: holds {metadata.get('kind')!r}; want an agent saved by TRPO.save"
        )
    with model_file.damage_named(path):
        for name, (kinds, want) in _DESCRIPTION.items():
            if name not in metadata:
                raise ValueError(f"{name}: missing; want {want}")
            if not isinstance(metadata[name], kinds):
                raise ValueError(f"{name}: {metadata[name]!r} given; want {want}")
        # Files written before these were counted lack them.
        counters = {"num_predictions": 0, "earlier_timesteps": 0, **metadata["counters"]}
        return SavedAgent(
            TRPOConfig.from_saved(metadata["config"]),
            checked("seed", metadata["seed"], SEED),
            space_from_json(metadata["observation_space"], most_items(arrays)),
            space_from_json(metadata["action_space"], most_items(arrays)),
            # Older files lack both.
            _checked_names("own_networks", metadata.get("own_networks", {}), ("policy", "critic"), "classes"),
            _checked_names("own_hooks", metadata.get("own_hooks", {}), hooks.NAMES, "functions"),
            "cnn" if "policy.convolutions.0.weight" in arrays else "mlp",
            None if metadata["environment"] is None else EnvironmentRecipe.from_json(metadata["environment"]),
            _checked_not_kept(metadata.get("arguments_not_kept", [])),  # older files lack it
            Snapshot(arrays, counters),
        )


def versions() -> dict[str, str]:
    """Installed versions of what decides a trajectory; MuJoCo's moves them from one to the next."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _network_tensors(agent: TRPO) -> dict[str, torch.Tensor]:
    """Parameters, tied ones once, and persistent buffers of both networks, without waiting for a fit."""
    tensors: dict[str, torch.Tensor] = {}
    for prefix, module in (("policy", agent.policy), ("critic", agent.critic_trainer.critic)):
        kept = module.state_dict(keep_vars=True).keys()
        named = dict(module.named_parameters()) | {n: b for n, b in module.named_buffers() if n in kept}
        tensors |= {f"{prefix}.{name}": tensor for name, tensor in named.items()}
    return tensors


def _statistics(agent: TRPO) -> list[tuple[str, Any]]:
    named = (("observation_normalizer", agent.observation_normalizer), ("reward_scaler", agent.reward_scaler))
    return [(name, statistics) for name, statistics in named if statistics is not None]


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix + "."): array for name, array in arrays.items() if name.startswith(prefix + ".")}


def _check_counters(where: str, counters: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(counters, Mapping):
        raise ValueError(f"{where}: {counters!r} given; want an object with {', '.join(wanted)}")
    for name, rule in wanted.items():
        full = f"{where}.{name}"
        if isinstance(rule, Mapping):
            _check_counters(full, counters.get(name), rule)
        elif name not in counters:
            raise ValueError(f"{full}: missing; want {rule.want}")
        else:
            checked(full, counters[name], rule)


def _checked_not_kept(names: Any) -> list[str]:
    known = ("env_kwargs", "wrappers")
    if isinstance(names, list) and all(name in known for name in names):
        return names
    raise ValueError(f"arguments_not_kept: {names!r} given; want a list of {' and '.join(known)}")


def _checked_names(field: str, own: Any, of: tuple[str, ...], what: str) -> dict[str, str | None]:
    if isinstance(own, Mapping):
        found = {name: own.get(name) for name in of}
        if all(isinstance(name, (str, type(None))) for name in found.values()):
            return found
    raise ValueError(f"{field}: {own!r} given; want an object with {' and '.join(of)}, names of {what} or null")
