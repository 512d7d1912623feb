"""What has to be the same on all ranks of a training before it begins."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import torch

from trpo_fast._core.library import instruction_set
from trpo_fast.algorithm.checkpoint import network_states, versions

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO
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
        "env_kwargs": None if recipe is None else dict(recipe.env_kwargs),
        "wrappers": None if recipe is None else recipe.wrappers,
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


def take_networks_of_first(ranks: Ranks, agent: TRPO) -> None:
    """Give every rank the parameters and buffers of rank 0: a module of the user's own may begin at random."""
    for part in network_states(agent).values():
        part.set_state(ranks.of_first(part.get_state()))
    agent.engine.adopt_parameters()
