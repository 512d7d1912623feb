"""What a run that goes on is compared with: its files, the options, the machine; and the settings of ``--config``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trpo_fast._core import library
from trpo_fast.algorithm import checkpoint, presets
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.arguments import SAME_BITS
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.options import config_overrides
from trpo_fast.cli.output import say
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.cli.values import option_of, read_json_object
from trpo_fast.gymnasium_spaces import action_words, resolved_action_map
from trpo_fast.model_file import ModelFileError
from trpo_fast.run_models import progress_of


def say_missing_rows(folder: RunFolder, steps: Sequence[int], done: int) -> None:
    """Name the rows that a log lacks which has none of the moment where the run goes on: the update before had one."""
    if done and done not in steps:
        last = max((step for step in steps if step < done), default=0)
        say(f"{folder.shown(folder.progress)} has no row from {last:,} to {done:,} timesteps, where the run goes on")


def has_ended(folder: RunFolder, agent: TRPO) -> bool:
    """Whether the run got as far as writing its model; one that was killed just before that still has to."""
    try:
        return progress_of(folder.model).timesteps >= agent.total_timesteps
    except (OSError, ModelFileError):
        return False


def refuse_edited(folder: RunFolder, content: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """CommandError naming what config.json says of the run otherwise than its file; it would be no help, and a lie."""
    name = folder.shown(folder.config)
    for key, kind in ("seed", int), ("config", dict):
        if not isinstance(content.get(key), kind):
            had = repr(content[key]) + " given" if key in content else "missing"
            raise CommandError(f"{name} is damaged: {key}: {had}; want what the run began with")
    try:
        config, of_model = (TRPOConfig.from_saved(part).to_dict() for part in (content["config"], saved["config"]))
    except (TypeError, ValueError) as error:
        raise CommandError(f"{name} is damaged: {error}") from error
    if not isinstance(content.get("preset"), str | None):
        raise CommandError(f"{name} is damaged: preset: {content['preset']!r} given; want an environment's id or null")
    told = {"seed": (content["seed"], saved["seed"])}
    told |= {f"config.{key}": (config[key], value) for key, value in of_model.items()}
    if isinstance(saved["environment"], dict):
        told["environment.id"] = (folder.environment_id(), saved["environment"]["id"])
        environment = content.get("environment") or {}
        for key in ("env_kwargs", "wrappers"):  # modules, an --import may have added to
            if key in saved["environment"]:
                told[f"environment.{key}"] = (environment.get(key), saved["environment"][key])
        ways = environment.get("vectorization"), saved["environment"].get("vectorization")
        if not {*ways} <= {None, *SAME_BITS}:
            told["environment.vectorization"] = ways
    differing = [f"{key} is {says!r}, of its model {has!r}" for key, (says, has) in told.items() if says != has]
    if differing:
        raise CommandError(
            f"{name} was changed: {'; '.join(differing)}; want it as it was: a resumed run keeps what it began with"
        )


def refuse_differing(arguments: argparse.Namespace, agent: TRPO, folder: RunFolder, content: Mapping[str, Any]) -> None:
    """CommandError naming what options give that the run has otherwise; what they say of it again may stay."""
    recipe, given = agent.recipe, []

    def compare(option: str, value: Any, has: Any) -> None:
        if value is not None:
            compare_given(option, value, has)

    def compare_given(option: str, value: Any, has: Any) -> None:
        if value != has:
            given.append(f"{option}: {value} given, the run has {has}")

    compare("ENV", arguments.env, None if recipe is None else recipe.source)
    compare("--seed", arguments.seed, agent.seed)
    if arguments.out is not None and Path(arguments.out).resolve() != folder.path.resolve():
        compare("--out", arguments.out, folder.path)
    stepping = None if recipe is None else recipe.vectorization or "sync"
    if not {arguments.vectorization, stepping} <= {*SAME_BITS}:
        compare("--vectorization", arguments.vectorization, stepping)
    compare("--env-kwargs", arguments.env_kwargs, None if recipe is None else dict(recipe.env_kwargs))
    wrappers = None if recipe is None or recipe.wrappers is None else list(recipe.wrappers)
    if arguments.wrapper != ["none"] or wrappers:  # which is what a run without any has
        compare("--wrapper", arguments.wrapper, wrappers)
    preset = arguments.preset
    if preset == presets.AUTO and recipe is not None:
        auto = presets.preset_for(
            preset, presets.all_presets(), recipe.name, action_words(agent.action_space), whole_config=False
        )
        preset = "none" if auto is None else auto.name
    compare("--preset", preset, content.get("preset") or "none")
    has = agent.config.to_dict()
    settings, _ = read_settings(arguments.config)
    of_file = as_resolved(
        settings if isinstance(settings, TRPOConfig) else TRPOConfig().replace(**settings), agent
    ).to_dict()
    for name in of_file if isinstance(settings, TRPOConfig) else settings:
        compare_given(f"--config: {name}", of_file[name], has[name])
    options = config_overrides(arguments)
    of_options = as_resolved(TRPOConfig().replace(**options), agent).to_dict()
    for name in options:
        compare_given(option_of(name), of_options[name], has[name])
    if given:
        raise CommandError(f"{'; '.join(given)}; want --resume without: a resumed run keeps what it began with")


def as_resolved(config: TRPOConfig, agent: TRPO) -> TRPOConfig:
    """The settings with what None and "auto" stand for in this agent's networks and spaces."""
    if config.action_map == "auto":
        config = config.replace(action_map=resolved_action_map(agent.action_space, "auto"))
    return config.resolved(**agent.networks.kinds)


def say_differing_machine(folder: RunFolder, content: Mapping[str, Any], agent: TRPO) -> None:
    """Name packages, and what else decides bits, that are not those that the run began with."""
    versions, now = content.get("versions"), checkpoint.versions()
    then = dict(versions) if isinstance(versions, Mapping) else dict(now)
    for name, value in machine(agent).items():
        if name in content:  # runs from before it was written there lack it
            label = name.replace("_", " ")
            then[label], now[label] = content[name], value
    differing = [
        f"{name} {then.get(name, 'missing')}, now {now.get(name, 'missing')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if differing:
        say(
            f"warning: {folder.path} began with {'; '.join(differing)}: it goes on, but not to the numbers that it "
            "would have had with those",
            sys.stderr,
        )


def machine(agent: TRPO) -> dict[str, Any]:
    """What decides the bits of a training besides versions."""
    found: dict[str, Any] = {"instruction_set": library.instruction_set()}
    if agent.engine.name != "native":
        found["device"] = next(agent.policy.parameters()).device.type
        found["torch_threads"] = torch.get_num_threads()
    return found


def read_settings(path: str | None) -> tuple[TRPOConfig | dict[str, Any], Any]:
    """The settings of ``--config``, all of them or some, and what it says of the environment, None for nothing."""
    if path is None:
        return {}, None
    try:
        content = read_json_object(Path(path), f"--config: {path}")
    except FileNotFoundError:
        raise CommandError(f"--config: there is no file {path}") from None
    # A run's own config.json keeps the settings under one key, beside what else the run was.
    try:
        if isinstance(content.get("config"), dict):
            return TRPOConfig.from_saved(content["config"]), content.get("environment")
        read = TRPOConfig.from_dict(content)
        return {name: getattr(read, name) for name in content}, None
    except (TypeError, ValueError) as error:
        raise CommandError(f"--config: {path}: {error}") from error
