"""An agent's state: taken in memory between two updates, written to a safetensors file, and put back.

A file holds everything that training needs to go on: parameters, Adam, statistics, counters of the random streams.
Environments cannot be saved; after a load they start new episodes, with seeds that were not used before.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from trpo_fast import model_file
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.critic import CriticFit
from trpo_fast.algorithm.report import UpdateReport
from trpo_fast.rollout.spaces import space_from_json, space_to_json

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

_KIND = "TRPO"
_PACKAGES = ("trpo-fast", "torch", "numpy", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Snapshot:
    """One consistent moment between two updates."""

    arrays: dict[str, NDArray[Any]]  # copies, by dotted name
    counters: dict[str, Any]  # JSON-able
    fit: Future[CriticFit] | None = None  # belongs to this moment, but nothing has waited for it
    last_update: UpdateReport | None = None


def capture(agent: TRPO) -> Snapshot:
    """The agent's state now, without waiting for the critic's fit."""
    arrays: dict[str, NDArray[Any]] = {}
    for prefix, module in (("policy", agent.policy), ("critic", agent.critic_trainer.critic)):
        for name, parameter in module.named_parameters():
            arrays[f"{prefix}.{name}"] = parameter.detach().numpy().copy()
    moments, adam = agent.critic_trainer.state()
    arrays |= {f"adam.{name}": array for name, array in moments.items()}
    for name, statistics in _statistics(agent):
        arrays |= {f"{name}.{key}": np.array(value) for key, value in statistics.state().items()}
    arrays["episodes.returns"] = np.array([value for value, _ in agent.recent_episodes], np.float64)
    arrays["episodes.lengths"] = np.array([length for _, length in agent.recent_episodes], np.int64)
    collector = agent.collector_state if agent.collector is None else agent.collector.state_dict()
    counters = {
        "num_timesteps": agent.num_timesteps,
        "num_updates": agent.num_updates,
        "num_episodes": agent.num_episodes,
        "adam": adam,
        "collector": collector,
    }
    return Snapshot(arrays, counters, agent.critic_trainer.pending, agent.last_update)


def restore(agent: TRPO, snapshot: Snapshot) -> None:
    """Put the agent back to ``snapshot``; ValueError where a tensor is missing or has the wrong shape or dtype."""
    arrays, counters = snapshot.arrays, snapshot.counters
    for prefix, module in (("policy", agent.policy), ("critic", agent.critic_trainer.critic)):
        _load_parameters(module, prefix, arrays)
    agent.engine.parameters_changed()
    agent.critic_trainer.load_state(_under(arrays, "adam"), counters["adam"])
    failed = snapshot.fit is not None and snapshot.fit.done() and snapshot.fit.exception() is not None
    agent.critic_trainer.continue_with(None if failed else snapshot.fit)
    for name, statistics in _statistics(agent):
        statistics.load_state(_under(arrays, name))
    agent.num_timesteps = counters["num_timesteps"]
    agent.num_updates = counters["num_updates"]
    agent.num_episodes = counters["num_episodes"]
    agent.recent_episodes.clear()
    episodes = zip(arrays["episodes.returns"].tolist(), arrays["episodes.lengths"].tolist(), strict=True)
    agent.recent_episodes.extend(episodes)
    agent.last_update = snapshot.last_update
    agent.collector_state = counters["collector"]
    if agent.collector is not None:
        agent.collector.load_state_dict(counters["collector"])


def save(agent: TRPO, path: str | os.PathLike[str]) -> None:
    """Write the agent to ``path``, atomically, after waiting for the critic's fit."""
    agent.critic_trainer.wait()
    snapshot = capture(agent)
    metadata = {
        "kind": _KIND,
        "config": agent.config.to_dict(),
        "seed": agent.seed,
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "environment": _json_or_none(agent.recipe),
        "counters": snapshot.counters,
        "versions": versions(),
    }
    model_file.write(path, snapshot.arrays, metadata)


@dataclass(frozen=True)
class SavedAgent:
    """What a file holds."""

    config: TRPOConfig
    seed: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    recipe: dict[str, Any] | None  # how the environments were made, where an id was given
    snapshot: Snapshot


def read(path: str | os.PathLike[str]) -> SavedAgent:
    """Read a file that :func:`save` wrote; FileNotFoundError or ModelFileError says what is wrong with it."""
    arrays, metadata = model_file.read(path)
    if metadata.get("kind") != _KIND:
        raise model_file.ModelFileError(
            f"{os.fspath(path)}: holds {metadata.get('kind')!r}; want an agent saved by TRPO.save"
        )
    try:
        return SavedAgent(
            TRPOConfig.from_dict(metadata["config"]),
            metadata["seed"],
            space_from_json(metadata["observation_space"]),
            space_from_json(metadata["action_space"]),
            metadata["environment"],
            Snapshot(arrays, metadata["counters"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise model_file.ModelFileError(f"{os.fspath(path)}: damaged description of an agent: {error!r}") from error


def versions() -> dict[str, str]:
    """Installed versions of what decides a trajectory; MuJoCo's moves them from one to the next."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _statistics(agent: TRPO) -> list[tuple[str, Any]]:
    named = (("observation_normalizer", agent.observation_normalizer), ("reward_scaler", agent.reward_scaler))
    return [(name, statistics) for name, statistics in named if statistics is not None]


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix + "."): array for name, array in arrays.items() if name.startswith(prefix + ".")}


def _load_parameters(module: torch.nn.Module, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            full = f"{prefix}.{name}"
            wanted = f"{tuple(parameter.shape)} of {str(parameter.dtype).removeprefix('torch.')}"
            if full not in arrays:
                raise ValueError(f"{full}: missing; want {wanted}")
            array = arrays[full]
            tensor = torch.from_numpy(array)
            if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
                raise ValueError(f"{full}: {array.shape} of {array.dtype} given; want {wanted}")
            parameter.copy_(tensor)


def _json_or_none(recipe: Any) -> Any:
    try:
        json.dumps(recipe)
    except TypeError:  # an environment argument that JSON cannot hold: the file then asks for env= when loaded
        return None
    return recipe
