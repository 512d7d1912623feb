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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trpo_fast._core import library
from trpo_fast.algorithm import checkpoint, presets
from trpo_fast.algorithm.callbacks import Callback, CheckpointCallback
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.logging import RunLogger, read_progress
from trpo_fast.algorithm.memory import LackOfMemory
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import plot
from trpo_fast.cli.arguments import TIMESTEPS, config_overrides, option_of
from trpo_fast.cli.environments import import_from_here, import_options, loaded, show
from trpo_fast.cli.errors import CommandError, describe, is_of_an_answer, user_errors
from trpo_fast.cli.evaluate import unfinished
from trpo_fast.cli.run_folder import RunFolder, claimed_by_name, latest_of
from trpo_fast.cli.stopping import Stopped, say
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import ModelFileError, link_file
from trpo_fast.run_models import checkpoint_name, progress_of

CHECKPOINT_SECONDS = 60.0  # the most that a killed run loses; two updates, where they take longer


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, draw the curve."""
    if arguments.threads is not None:
        try:
            library.set_num_threads(arguments.threads)
        except ValueError as error:
            raise CommandError(f"--threads: {str(error).removeprefix('count: ')}") from error
        torch.set_num_threads(arguments.threads)
    import_from_here()
    # What a kill may leave of a start, and whom a folder belongs to: docs/runs.md.
    run = _resumed(arguments) if arguments.resume else _new(arguments)
    try:
        return _train(run, arguments)
    finally:
        run.folder.release()
        run.agent.close()


class _Run(NamedTuple):
    """A training that can begin."""

    agent: TRPO
    folder: RunFolder
    timesteps: int
    begin: Callable[[], None]
    """Called when all that could stand against it has been looked at, before anything of an old run is changed."""


class _Begin(Callback):
    """Calls a function when the training starts, first of all callbacks."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self.done = False

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        self._action()
        self.done = True
        period, cuts = agent.config.reset_on_checkpoint, agent.training_environments.cuts
        if cuts:
            if agent.inexact is not None:
                say(f"new episodes begin, other ones than without an end: it goes on from {agent.inexact}")
            say(
                f"--reset-on-checkpoint {cuts}: every {cuts} updates all episodes are cut, and checkpoints are there "
                "alone; if it is resumed, it goes on to the bit (docs/runs.md)"
            )
        elif agent.inexact is not None:
            say(f"if it is resumed, it goes on statistically, not to the bit: {agent.inexact} (docs/runs.md)")
        elif period:
            say(f"--reset-on-checkpoint {period}: nothing is cut, these environments are put back to the bit as it is")


def _new(arguments: argparse.Namespace) -> _Run:
    if arguments.env is None:
        raise CommandError("ENV: none given; want an environment id, e.g. trpo-fast train CartPole-v1, or --resume RUN")
    seed = 0 if arguments.seed is None else arguments.seed
    timesteps = arguments.timesteps or TIMESTEPS
    if arguments.out:
        RunFolder(arguments.out).refuse_if_used()  # before the seconds that an agent may take
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
    folder = None
    try:
        if arguments.out:
            folder = RunFolder(arguments.out)
            folder.claim_new()
        else:
            folder = claimed_by_name(_default_folder(arguments.env, seed))
        # The first checkpoint before config.json, which makes a run of the folder: a run can always go on.
        _saved(agent, folder, folder.checkpoints / checkpoint_name(0))
        folder.write_config(
            {
                "environment": agent.recipe.to_json() if agent.recipe else None,
                "seed": seed,
                "timesteps": timesteps,
                "preset": agent.preset,
                "config": agent.config.to_dict(),
                "resume": _how_it_resumes(agent),
                "versions": checkpoint.versions(),
                "instruction_set": library.instruction_set(),
            }
        )
    except BaseException:
        if folder is not None:
            folder.discard()
        agent.close()
        raise
    return _Run(agent, folder, timesteps, lambda: None)


def _how_it_resumes(agent: TRPO) -> str:
    """For config.json."""
    cuts = agent.training_environments.cuts
    said = checkpoint.how_it_resumes(agent, checkpoint.capture(agent).counters)
    if not cuts:
        return said
    return f"{said}: all episodes are cut every {cuts} updates, which trains another sequence of them than without"


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


def _resumed(arguments: argparse.Namespace) -> _Run:
    folder = RunFolder(arguments.resume)
    folder.claim_old()
    agent = None
    try:
        content = folder.read_config()
        timesteps = arguments.timesteps or folder.timesteps()
        agent = latest_of(arguments.resume, lambda file: loaded(file, arguments))
        _refuse_differing(arguments, agent, folder, content)
        if agent.num_timesteps >= timesteps and _has_ended(folder, agent):
            raise CommandError(
                f"--resume: {folder.path} has {agent.num_timesteps:,} of {timesteps:,} timesteps; want more --timesteps"
            )
        try:
            agent.hooks.require()
        except ValueError as error:
            raise CommandError(f"--resume: {folder.path} is for Python, which can hand it in: {error}") from error
        with user_errors():
            if folder.progress.exists():
                read_progress(folder.progress)  # refused now, not after the environments are made
        _say_versions(folder, content)
    except BaseException:
        if agent is not None:
            agent.close()
        folder.release()
        raise
    return _Run(agent, folder, timesteps, lambda: folder.write_config({**content, "timesteps": timesteps}))


def _has_ended(folder: RunFolder, agent: TRPO) -> bool:
    """Whether the run got as far as writing its model; one that was killed just before that still has to."""
    try:
        return progress_of(folder.model).timesteps >= agent.total_timesteps
    except (OSError, ModelFileError):
        return False


def _refuse_differing(
    arguments: argparse.Namespace, agent: TRPO, folder: RunFolder, content: Mapping[str, Any]
) -> None:
    """CommandError naming what options give that the run has otherwise; what they say of it again may stay."""
    recipe, given = agent.recipe, []

    def compare(option: str, value: Any, has: Any) -> None:
        if value is not None and value != has:
            given.append(f"{option}: {value} given, the run has {has}")

    compare("ENV", arguments.env, None if recipe is None else recipe.source)
    compare("--seed", arguments.seed, agent.seed)
    if arguments.out is not None and Path(arguments.out).resolve() != folder.path.resolve():
        compare("--out", arguments.out, folder.path)
    compare("--vectorization", arguments.vectorization, None if recipe is None else recipe.vectorization or "sync")
    compare("--num-workers", arguments.num_workers, None if recipe is None else recipe.num_workers)
    compare("--env-kwargs", arguments.env_kwargs, None if recipe is None else dict(recipe.env_kwargs))
    wrappers = None if recipe is None or recipe.wrappers is None else list(recipe.wrappers)
    compare("--wrapper", arguments.wrapper, wrappers)
    compare("--preset", arguments.preset, content.get("preset") or "none")
    has = agent.config.to_dict()
    settings, _ = _read_settings(arguments.config)
    of_file = settings.to_dict() if isinstance(settings, TRPOConfig) else TRPOConfig().replace(**settings).to_dict()
    for name in of_file if isinstance(settings, TRPOConfig) else settings:
        compare(f"--config: {name}", of_file[name], has[name])
    options = config_overrides(arguments)
    of_options = TRPOConfig().replace(**options).to_dict()
    for name in options:
        compare(option_of(name), of_options[name], has[name])
    if given:
        raise CommandError(f"{'; '.join(given)}; want --resume without: a resumed run keeps what it began with")


def _say_versions(folder: RunFolder, content: Mapping[str, Any]) -> None:
    """Name the packages that are not those that the run began with."""
    then, now = content.get("versions"), checkpoint.versions()
    if not isinstance(then, Mapping):
        return
    differing = [
        f"{name} {then.get(name, 'missing')}, now {now.get(name, 'missing')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if differing:
        print(
            f"warning: {folder.path} began with {'; '.join(differing)}: it goes on, but not to the numbers that it "
            "would have had with those",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _lack_of_memory_named() -> Iterator[None]:
    """Turn LackOfMemory into CommandError naming the options of the sizes that were chosen."""
    try:
        yield
    except LackOfMemory as error:
        options = ", ".join(map(option_of, error.names))
        raise CommandError(f"{options}: too large for the memory of this machine") from error


def _train(run: _Run, arguments: argparse.Namespace) -> int:
    agent, folder, timesteps, _ = run
    env = agent.recipe.name if agent.recipe else "environment"
    preset = f", preset {presets.all_presets()[agent.preset].described(agent.config)}" if agent.preset else ""
    say(f"{env}: {timesteps:,} steps{preset}, {agent.engine.name} engine, {folder.path}")
    checkpoints = CheckpointCallback(
        folder.checkpoints,
        arguments.checkpoint_every,
        seconds=None if agent.config.reset_on_checkpoint else CHECKPOINT_SECONDS,
        keep=arguments.keep_checkpoints,
        best=True,
    )
    begin, log = _Begin(run.begin), RunLogger(folder.path)
    began, first = time.perf_counter(), agent.num_timesteps
    try:
        if agent.num_timesteps < timesteps:
            agent.learn(
                timesteps - agent.num_timesteps,
                callback=[begin, log, checkpoints],
                progress_bar=True,
                reset_num_timesteps=False,
            )
        begin.done = True
    except KeyboardInterrupt as interrupt:
        return _stopped(run, checkpoints, log, begin, interrupt)
    except Exception as error:
        if arguments.resume and not begin.done and isinstance(error, ValueError | OSError | ImportError):
            raise CommandError(f"--resume: {folder.path}: {describe(error)}") from error
        return _failed(run, checkpoints, log, begin, first, error)
    seconds = time.perf_counter() - began
    _save(run, checkpoints, log, begin)
    steps = agent.num_timesteps - first
    say(f"trained  {steps:,} steps in {seconds:.1f} s ({steps / seconds:,.0f} steps/s)")
    if arguments.eval_episodes:
        result = agent.evaluate(arguments.eval_episodes)
        episodes = f"{arguments.eval_episodes} deterministic episodes"
        say(
            f"return   {result.mean:.1f} +- {result.std:.1f} over {episodes}"
            f"{unfinished(result, agent.config.evaluation_max_steps)}"
        )
    say(f"model    {folder.model}")
    try:
        plot.draw([folder], folder.curve)
        say(f"curve    {folder.curve}")
    except plot.MatplotlibMissing as missing:
        say(f"curve    not drawn: {missing}; then: trpo-fast plot {shlex.quote(str(folder.path))}")
    return 0


def _stopped(
    run: _Run, checkpoints: CheckpointCallback, log: RunLogger, begin: _Begin, interrupt: KeyboardInterrupt
) -> int:
    """Save, say how to go on; the exit code.

    Between two cuts of `reset_on_checkpoint` nothing is saved: no bits could be gone on from there, and a run that
    asked for that goes on from the checkpoint at the last cut, as after a kill.
    """
    agent = run.agent
    saved = f"{agent.num_timesteps:,} steps, saved"
    if begin.done and agent.training_environments.cuts and not agent.is_at_a_cut and checkpoints.latest is not None:
        at = progress_of(checkpoints.latest).timesteps
        saved = f"{agent.num_timesteps:,} steps, of which the checkpoint at {at:,} is gone on from"
    else:
        _save(run, checkpoints, log, begin)
    stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
    how = "stopped" if stopped.number == signal.SIGINT else stopped.word
    say(f"\n{how} at {saved}; to go on:\n{_resume_command(run.folder, agent)}")
    return stopped.code


def _failed(
    run: _Run, checkpoints: CheckpointCallback, log: RunLogger, begin: _Begin, first: int, error: Exception
) -> int:
    """Report, save, say how to go on; the exit code."""
    agent = run.agent
    if isinstance(error, OSError | LackOfMemory | SimulatorError) or is_of_an_answer(error):
        # The user's to mend, and no line of ours at fault; what a worker noted has its traceback.
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        print(f"\ntrpo-fast train: error: {describe(error)}{notes}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    _save(run, checkpoints, log, begin)
    # Before an update, nothing has shown yet that this environment can be trained on at all.
    to_go_on = "to go on" if agent.num_timesteps > first else "once the reason is mended, to go on"
    command = _resume_command(run.folder, agent)
    say(f"\nfailed after {agent.num_timesteps:,} steps, saved; {to_go_on}:\n{command}")
    if agent.num_timesteps == first:
        say("a resumed run keeps its environment, wrappers and settings: where these are the reason, begin anew")
    return 1


def _save(run: _Run, checkpoints: CheckpointCallback, log: RunLogger, begin: _Begin) -> None:
    """Save the agent as the latest checkpoint and as the run's model; an old run that did not begin is left alone.

    Rows that found no room come first, and once more behind the files, which may have found some.
    """
    agent, folder = run.agent, run.folder
    if not begin.done and agent.num_timesteps > 0:
        return
    log.write_waiting()
    try:
        link_file(checkpoints.save(agent), folder.model)
        log.write_waiting()
    except (OSError, ValueError) as error:
        if agent.num_timesteps == 0:
            folder.discard()  # a folder without use would refuse another try
        raise _not_saved(agent, folder, error) from error


def _saved(agent: TRPO, folder: RunFolder, path: Path) -> None:
    try:
        agent.save(path)
    except (OSError, ValueError) as error:
        raise _not_saved(agent, folder, error) from error


def _not_saved(agent: TRPO, folder: RunFolder, error: Exception) -> CommandError:
    return CommandError(
        f"the agent at {agent.num_timesteps:,} steps cannot be saved in {folder.path}: {describe(error)}"
    )


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
