"""What has to be the same on all ranks of a training before it begins."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trpo_fast._core.library import instruction_set
from trpo_fast.algorithm.checkpoint import capture, network_states, versions
from trpo_fast.algorithm.hooks import name_of

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO
    from trpo_fast.environments.base import Environments
    from trpo_fast.environments.recipe import EnvironmentRecipe
    from trpo_fast.ranks import Ranks


def require_same_agents(ranks: Ranks, agent: TRPO, recipe: EnvironmentRecipe | None) -> None:
    """ValueError naming a package, setting, environment or network that another rank has otherwise, and the rank."""
    fields: dict[str, Any] = {
        "Python": platform.python_version(),
        **versions(),
        "torch": torch.__version__,
        "instruction set": instruction_set(),
        "seed": agent.seed,
        # What of the settings follows from the environment comes behind it.
        "env": None if recipe is None else recipe.name,
        "env_kwargs": None if recipe is None else _told(recipe.env_kwargs),
        "wrappers": None if recipe is None else _told(recipe.wrappers),
        "observation_space": str(agent.observation_space),
        "action_space": str(agent.action_space),
        **{f"config.{name}": value for name, value in agent.config.to_dict().items()},
        "engine": agent.engine.name,
    }
    for name, part in network_states(agent).items():
        shapes = {key: (array.shape, str(array.dtype)) for key, array in part.get_state().items()}
        fields[name] = shapes
    fields |= {name: function for name, function in agent.hooks.names.items()}
    ranks.require_same(fields)


def _told(value: Any) -> Any:
    """What can be compared between processes: functions by their names, other objects by their types."""
    if isinstance(value, Mapping):
        return {str(key): _told(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_told(one)) for one in value)
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    return name_of(value)


def require_same_environments(ranks: Ranks, environments: Environments) -> None:
    """ValueError where they are stepped in another way on another rank: other calls would wait for each other."""
    kind = type(environments).__name__, environments.autoreset_mode.name
    ranks.require_same({"vectorization": kind})


def require_in_step(ranks: Ranks, agent: TRPO) -> None:
    """RankError naming a rank whose parameters, moments or statistics have other bits than those of rank 0."""
    arrays = capture(agent).arrays
    ranks.require_equal_bits("parameters or statistics", [arrays[name] for name in sorted(arrays)])


def take_networks_of_first(ranks: Ranks, agent: TRPO) -> None:
    """Give every rank the parameters and buffers of rank 0: a module of the user's own may begin at random."""
    for part in network_states(agent).values():
        part.set_state(ranks.of_first(part.get_state()))
    agent.engine.adopt_parameters()
