"""``trpo-fast train``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trpo_fast._core import library
from trpo_fast.algorithm import checkpoint, presets
from trpo_fast.algorithm.callbacks import CheckpointCallback
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.logging import RunLogger, read_progress
from trpo_fast.algorithm.memory import LackOfMemory
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import plot
from trpo_fast.cli.arguments import TIMESTEPS, config_overrides, option_of
from trpo_fast.cli.environments import import_from_here, import_options, loaded, show
from trpo_fast.cli.errors import CommandError, describe, is_of_an_answer, user_errors
from trpo_fast.cli.evaluate import unfinished
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import ModelFileError
from trpo_fast.starting import INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, draw the curve."""
    if arguments.threads is not None:
        try:
            library.set_num_threads(arguments.threads)
        except ValueError as error:
            raise CommandError(f"--threads: {str(error).removeprefix('count: ')}") from error
        torch.set_num_threads(arguments.threads)
    import_from_here()
    agent, folder, timesteps = _resumed(arguments) if arguments.resume else _new(arguments)
    try:
        return _train(agent, folder, timesteps, arguments)
    finally:
        agent.close()


def _new(arguments: argparse.Namespace) -> tuple[TRPO, RunFolder, int]:
    if arguments.env is None:
        raise CommandError("ENV: none given; want an environment id, e.g. trpo-fast train CartPole-v1, or --resume RUN")
    seed = 0 if arguments.seed is None else arguments.seed
    timesteps = arguments.timesteps or TIMESTEPS
    folder = RunFolder(arguments.out or _default_folder(arguments.env, seed))
    folder.refuse_if_used()
    settings, saved = _read_settings(arguments.config)
    options = config_overrides(arguments)
    # A run's config.json says every setting, a file of one's own what a preset or the defaults leave to it.
    config = settings.replace(**options) if isinstance(settings, TRPOConfig) else None
    preset = {"none": None, None: presets.AUTO}.get(arguments.preset, arguments.preset)
    recipe = _recipe(arguments, saved)
    with user_errors(), _lack_of_memory_named():
        agent = TRPO(
            recipe.source,
            vectorization=recipe.vectorization,
            num_workers=recipe.num_workers,
            env_kwargs=recipe.env_kwargs,
            wrappers=recipe.wrappers,
            imports=recipe.modules,
            seed=seed,
            config=config,
            preset=preset,
            **({} if isinstance(settings, TRPOConfig) else {**settings, **options}),
        )
    try:
        folder.make()
        folder.write_config(
            {
                "environment": agent.recipe.to_json() if agent.recipe else None,
                "seed": seed,
                "timesteps": timesteps,
                "preset": agent.preset,
                "config": agent.config.to_dict(),
                "versions": checkpoint.versions(),
                "instruction_set": library.instruction_set(),
            }
        )
    except BaseException:
        agent.close()
        raise
    return agent, folder, timesteps


def _recipe(arguments: argparse.Namespace, saved: Any) -> EnvironmentRecipe:
    """What options say, and of the environment of ``--config``, if it is this one, what they do not say."""
    env, kwargs, wrappers = arguments.env, arguments.env_kwargs, arguments.wrapper
    with user_errors(TypeError):
        if saved is not None:
            recipe = EnvironmentRecipe.from_json(saved)
            if recipe.source == env:
                stepping = arguments.vectorization, arguments.num_workers
                recipe = recipe.with_changes(env, kwargs, wrappers, *stepping).trusting(
                    arguments.imports, everything=arguments.trust
                )
                show(recipe)
                recipe.require_trust()
                return recipe
            recipe.require_said_again(env, kwargs, wrappers)
        return EnvironmentRecipe(
            env,
            arguments.vectorization,
            kwargs or {},
            wrappers,
            tuple(arguments.imports),
            num_workers=arguments.num_workers,
        )


def _resumed(arguments: argparse.Namespace) -> tuple[TRPO, RunFolder, int]:
    fixed = {"ENV": arguments.env, "--seed": arguments.seed, "--out": arguments.out, "--config": arguments.config}
    fixed |= {"--vectorization": arguments.vectorization, "--env-kwargs": arguments.env_kwargs}
    fixed |= {"--wrapper": arguments.wrapper, "--num-workers": arguments.num_workers, "--preset": arguments.preset}
    fixed |= {option_of(name): value for name, value in config_overrides(arguments).items()}
    given = [f"{name}: {value}" for name, value in fixed.items() if value is not None]
    if given:
        raise CommandError(f"{', '.join(given)} given; want --resume without: a resumed run keeps what it began with")
    folder = RunFolder(arguments.resume)
    latest = folder.latest_checkpoint()
    content = folder.read_config()
    folder.make()
    timesteps = arguments.timesteps or folder.timesteps()
    agent = _load(latest, folder, arguments)
    try:
        agent.hooks.require()
    except ValueError as error:
        agent.close()
        raise CommandError(f"--resume: {folder.path} is for Python, which can hand it in: {error}") from error
    if agent.num_timesteps >= timesteps:
        raise CommandError(
            f"--resume: {folder.path} has {agent.num_timesteps:,} of {timesteps:,} timesteps; want more --timesteps"
        )
    try:
        with user_errors():
            if folder.progress.exists():
                read_progress(folder.progress)  # refused now, not after the environments are made
        folder.write_config({**content, "timesteps": timesteps})
    except BaseException:
        agent.close()
        raise
    return agent, folder, timesteps


def _load(path: Path, folder: RunFolder, arguments: argparse.Namespace) -> TRPO:
    """The agent in ``path``, of ``folder``; CommandError says what is wrong, and which other files are intact."""
    try:
        with user_errors():
            return loaded(path, arguments)
    except CommandError as error:
        others = [*sorted(folder.checkpoints.glob("*.trpo"), reverse=True), folder.model]
        intact = [str(other) for other in others if other != path and _is_intact(other)]
        if not isinstance(error.__cause__, ModelFileError) or not intact:
            raise
        message = f"{error}; move it away to go on from the next one; intact: {', '.join(intact)}"
        raise CommandError(message) from error


def _is_intact(path: Path) -> bool:
    try:
        checkpoint.read(path)
    except (OSError, ModelFileError):
        return False
    return True


@contextlib.contextmanager
def _lack_of_memory_named() -> Iterator[None]:
    """Turn LackOfMemory into CommandError naming the options of the sizes that were chosen."""
    try:
        yield
    except LackOfMemory as error:
        options = ", ".join(map(option_of, error.names))
        raise CommandError(f"{options}: too large for the memory of this machine") from error


def _train(agent: TRPO, folder: RunFolder, timesteps: int, arguments: argparse.Namespace) -> int:
    env = agent.recipe.name if agent.recipe else "environment"
    preset = f", preset {presets.all_presets()[agent.preset].described(agent.config)}" if agent.preset else ""
    _say(f"{env}: {timesteps:,} steps{preset}, {agent.engine.name} engine, {folder.path}")
    checkpoints = CheckpointCallback(folder.checkpoints, arguments.checkpoint_every or max(timesteps // 10, 1))
    began, first, failed = time.perf_counter(), agent.num_timesteps, True
    with _one_interrupt():
        try:
            agent.learn(
                timesteps - agent.num_timesteps,
                callback=[checkpoints, RunLogger(folder.path)],
                progress_bar=True,
                reset_num_timesteps=False,
            )
        except KeyboardInterrupt:
            _save(agent, folder, checkpoints)
            _say(f"\nstopped at {agent.num_timesteps:,} steps, saved; to go on:\n{_resume_command(folder, agent)}")
            return INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError | LackOfMemory | SimulatorError) or is_of_an_answer(error):
                # The user's to mend, and no line of ours at fault; what a worker noted has its traceback.
                notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
                print(f"\ntrpo-fast train: error: {describe(error)}{notes}", file=sys.stderr)
            else:
                traceback.print_exc()
        else:
            failed = False
        if failed:
            _save(agent, folder, checkpoints)
            # Before an update, nothing has shown yet that this environment can be trained on at all.
            to_go_on = "to go on" if agent.num_timesteps > first else "once the reason is mended, to go on"
            command = _resume_command(folder, agent)
            _say(f"\nfailed after {agent.num_timesteps:,} steps, saved; {to_go_on}:\n{command}")
            if agent.num_timesteps == first:
                _say(
                    "a resumed run keeps its environment, wrappers and settings: where these are the reason, begin anew"
                )
            return 1
    seconds = time.perf_counter() - began
    _save(agent, folder, checkpoints)
    steps = agent.num_timesteps - first
    _say(f"trained  {steps:,} steps in {seconds:.1f} s ({steps / seconds:,.0f} steps/s)")
    if arguments.eval_episodes:
        result = agent.evaluate(arguments.eval_episodes)
        episodes = f"{arguments.eval_episodes} deterministic episodes"
        _say(
            f"return   {result.mean:.1f} +- {result.std:.1f} over {episodes}"
            f"{unfinished(result, agent.config.evaluation_max_steps)}"
        )
    _say(f"model    {folder.model}")
    try:
        plot.draw([folder], folder.curve)
        _say(f"curve    {folder.curve}")
    except plot.MatplotlibMissing as missing:
        _say(f"curve    not drawn: {missing}; then: trpo-fast plot {shlex.quote(str(folder.path))}")
    return 0


def _save(agent: TRPO, folder: RunFolder, checkpoints: CheckpointCallback) -> None:
    try:
        checkpoints.save(agent)
        agent.save(folder.model)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"the agent at {agent.num_timesteps:,} steps cannot be saved in {folder.path}: {describe(error)}"
        ) from error


def _resume_command(folder: RunFolder, agent: TRPO) -> str:
    return f"trpo-fast train --resume {shlex.quote(str(folder.path))}{import_options(agent.recipe)}"


def _default_folder(env: str, seed: int) -> Path:
    name = env.replace("/", "-").replace(":", "-")
    return Path("runs") / f"{name}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def _read_settings(path: str | None) -> tuple[TRPOConfig | dict[str, Any], Any]:
    """The settings of ``--config``, all of them or some, and what it says of the environment, None for nothing."""
    if path is None:
        return {}, None
    try:
        content: Any = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise CommandError(f"--config: there is no file {path}") from None
    except OSError as error:
        raise CommandError(f"--config: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CommandError(f"--config: {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CommandError(f"--config: {path} holds a {type(content).__name__}; want a JSON object of settings")
    # A run's own config.json keeps the settings under one key, beside what else the run was.
    try:
        if isinstance(content.get("config"), dict):
            return TRPOConfig.from_saved(content["config"]), content.get("environment")
        read = TRPOConfig.from_dict(content)
        return {name: getattr(read, name) for name in content}, None
    except (TypeError, ValueError) as error:
        raise CommandError(f"--config: {path}: {error}") from error


@contextlib.contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let only the first Ctrl-C interrupt: a second, impatient one would spoil the saving."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # started in the background: the shell's Ctrl-C is meant for others
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
