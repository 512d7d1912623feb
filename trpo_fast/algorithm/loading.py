"""An agent from a file: its description, what a caller says in place of it, its environments, and then its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trpo_fast import model_file
from trpo_fast._core.library import in_words
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.agreement import require_same_agents
from trpo_fast.algorithm.config import BUILT_BY, TRPOConfig
from trpo_fast.algorithm.hooks import Hooks, StepFunction
from trpo_fast.algorithm.networks import Network, check_given, check_same_settings, check_settings
from trpo_fast.environments.base import Environments
from trpo_fast.environments.foreign import is_vector_environment
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.registry import import_modules
from trpo_fast.ranks import Ranks, count_of, share_of
from trpo_fast.rollout.advantages import AdvantageFunction
from trpo_fast.run_models import read_latest

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


def load(
    kind: type[TRPO],
    path: Path,
    *,
    env: Any,
    env_kwargs: Mapping[str, Any] | None,
    wrappers: Sequence[Any] | None,
    imports: Sequence[str],
    trust_environment: bool,
    policy: Network | None,
    critic: Network | None,
    vectorization: str | None,
    num_workers: int | None,
    advantages: AdvantageFunction | None,
    step: StepFunction | None,
    ranks: Ranks | None,
    settings: Mapping[str, Any],
) -> TRPO:
    """The agent in the file at ``path``, as :meth:`TRPO.load` says."""
    saved = checkpoint.read(path)
    hooks = Hooks.of(advantages, step, saved.own_hooks)
    if not isinstance(trust_environment, bool):
        raise TypeError(f"trust_environment: {in_words(trust_environment)} given; want a bool")
    recipe, environments = saved.recipe, None
    config = saved.config
    if config.device == "cuda" and not torch.cuda.is_available():
        config = config.replace(device="auto")
    config = config.replace(**_changeable(settings, config))
    making = {"env_kwargs": env_kwargs, "wrappers": wrappers}
    stepping = {"vectorization": vectorization, "num_workers": num_workers}
    if any(value is not None for value in (env, *making.values(), *stepping.values())):
        recipe = _replaced_recipe(saved, env, making, stepping)
    if recipe is not None:
        recipe = recipe.trusting(imports, everything=trust_environment)
    import_modules(imports)  # a person names them, and they may be needed before an environment is made
    if any(value is not None for value in (env, *making.values())):
        assert recipe is not None
        recipe = recipe.resolved()
        given = is_vector_environment(recipe.source)
        own = slice(0, 1) if given else share_of(ranks, config.num_envs)
        environments = recipe.make_like(1, like=saved, seed=saved.seed, first=own.start)
        if not given and own.stop - own.start > 1:
            environments.close()  # it has the spaces; who only evaluates needs no copies to train in
            environments = None
    agent = kind.__new__(kind)
    agent.ranks = ranks
    try:
        if environments is not None:
            check_num_envs(settings.get("num_envs"), environments, ranks)
            config = config.replace(num_envs=count_of(ranks, environments.num_envs))
        check_given(saved.own_networks, policy, critic)
        # What comes of modules and settings of the user's says nothing about the file.
        from_file = policy is None and critic is None and not settings
        with model_file.damage_named(path) if from_file else nullcontext():
            agent._build(
                config,
                saved.seed,
                saved.observation_space,
                saved.action_space,
                recipe,
                policy=policy,
                critic=critic,
                kind=saved.kind,
                hooks=hooks,
            )
            check_same_settings(saved.own_settings, agent.networks)
            checkpoint.check_networks(agent, saved.snapshot)
        check_settings(config, agent.networks, settings)
        if ranks is not None:  # which says nothing about the file
            require_same_agents(ranks, agent, recipe)
        agent.trained_with_masks = saved.trained_with_masks
        other_copies = config.num_envs != saved.config.num_envs
        snapshot = saved.snapshot.of_other_copies() if other_copies else saved.snapshot
        with model_file.damage_named(path):
            checkpoint.check(agent, snapshot)
            checkpoint.resume(agent, snapshot)
        if other_copies:
            reason = f"saved of {saved.config.num_envs} copies, and these are {config.num_envs}"
            agent.training_environments.begin_new_episodes(reason)
        elif not _is_same(recipe, saved.recipe):
            agent.training_environments.begin_new_episodes("saved of another environment")
        if environments is not None:
            agent.training_environments.attach(environments)
    except BaseException:
        if environments is not None:
            environments.close()
        raise
    return agent


def latest_in(path: Any) -> str | None:
    """The file that a folder means; None for a file."""

    def sound(file: Path) -> str:
        checkpoint.read(file)
        return str(file)

    return read_latest(path, sound) if model_file.checked_path("path", path).is_dir() else None


def check_num_envs(given: Any, environments: Environments, ranks: Ranks | None = None) -> None:
    """ValueError where another number of environments is asked for than there are."""
    count = count_of(ranks, environments.num_envs)
    if given not in (None, count):
        raise ValueError(f"num_envs: {given} given; want it left out or {count}, the VectorEnv's own")


def _changeable(settings: Mapping[str, Any], saved: TRPOConfig) -> Mapping[str, Any]:
    """`settings`, of which a loaded agent may have others; ValueError names one that its parts were built by."""
    for name, value in settings.items():
        if name in BUILT_BY:
            raise ValueError(
                f"{name}: {in_words(value)} given; want it left out: the saved agent's networks and statistics were "
                f"built by {getattr(saved, name)!r}; a new TRPO(...) takes another"
            )
    return settings


def _is_same(recipe: EnvironmentRecipe | None, saved: EnvironmentRecipe | None) -> bool:
    """Whether an agent goes on in the environment that its file names, as far as that says."""
    if recipe is None or saved is None:
        return True
    return (recipe.source, recipe.env_kwargs, recipe.wrappers) == (saved.source, saved.env_kwargs, saved.wrappers)


def _replaced_recipe(
    saved: checkpoint.SavedAgent, env: Any, making: Mapping[str, Any], stepping: Mapping[str, Any]
) -> EnvironmentRecipe:
    """The recipe of a file with what is given in place of what it says, which is trusted; None says nothing."""
    recipe = saved.recipe
    if env is None or (recipe is not None and isinstance(env, str) and recipe.source == env):
        if recipe is None:
            name, value = next(given for given in {**making, **stepping}.items() if given[1] is not None)
            raise ValueError(f"{name}: {in_words(value)} given, but the file names no environment; want env=..., too")
        return recipe.with_changes(env, **making, **stepping)
    if not is_vector_environment(env):
        unsaid = {} if recipe is None else recipe.unsaid(**making)
        of = "environment" if recipe is None else recipe.name
        what = " and ".join(map(str, unsaid.values()))
        if recipe is None:
            unsaid = {name: None for name in saved.arguments_not_kept if making[name] is None}
            what = "some, which the file could not keep"
        if unsaid:
            wanted = " and ".join(f"{name}=..." for name in unsaid)
            nothing = " and ".join("{}" if name == "env_kwargs" else "['none']" for name in unsaid)
            raise ValueError(
                f"{', '.join(unsaid)}: none given for env={env!r}; the saved agent's {of} was made with {what}; want "
                f"{wanted}, {nothing} for none"
            )
    kwargs = making["env_kwargs"]
    return EnvironmentRecipe(
        env,
        stepping["vectorization"],
        {} if kwargs is None else kwargs,
        making["wrappers"],
        num_workers=stepping["num_workers"],
    )
