"""``trpo-fast train``."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trpo_fast.algorithm import checkpoint, presets
from trpo_fast.algorithm.callbacks import Callback, CheckpointCallback
from trpo_fast.algorithm.config import CHECKPOINT_SECONDS, TRPOConfig
from trpo_fast.algorithm.evaluation import EvaluationResult
from trpo_fast.algorithm.logging import RunLogger
from trpo_fast.algorithm.memory import LackOfMemory
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import output, plot
from trpo_fast.cli.environments import (
    import_from_here,
    import_options,
    loaded,
    require_said_again,
    require_workers,
    show,
)
from trpo_fast.cli.errors import (
    CommandError,
    ExitError,
    describe,
    in_short,
    is_of_an_answer,
    is_of_environment,
    user_errors,
)
from trpo_fast.cli.evaluate import unfinished
from trpo_fast.cli.options import config_overrides
from trpo_fast.cli.output import say
from trpo_fast.cli.ranks import begun_before, follow, remember, set_threads, started_ranks, step_as_asked, tell
from trpo_fast.cli.resuming import (
    as_resolved,
    has_ended,
    machine,
    read_settings,
    refuse_differing,
    refuse_edited,
    say_differing_machine,
    say_missing_rows,
)
from trpo_fast.cli.run_folder import RUN_OPTIONS, RunFolder, claimed_by_name, latest_of, usual_path
from trpo_fast.cli.stopping import Stopped
from trpo_fast.cli.values import option_of
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import link_file, read_metadata
from trpo_fast.progress import read_progress
from trpo_fast.ranks import RankError, Ranks, Traffic, left_on_error
from trpo_fast.run_models import checkpoint_name, progress_of, run_folder_of
from trpo_fast.settings import UnavailableError


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, draw the curve."""
    import_from_here()
    ranks = started_ranks(arguments)
    if ranks is not None and not ranks.first:
        return follow(arguments, ranks, lambda: _agent(arguments, ranks)[0])
    arguments.resume = begun_before(ranks) or arguments.resume
    # What a kill may leave of a start, and whom a folder belongs to: docs/runs.md.
    with left_on_error(ranks):
        run = _resumed(arguments, ranks) if arguments.resume else _new(arguments, ranks)
    try:
        try:
            code = _train(run)
        except _NotSaved as error:
            code = _lost(run, error)
        if arguments.json:
            output.answer(_summary(run, code))
        return code
    finally:
        if not run.begun:
            run.folder.discard()
        run.folder.release()
        run.agent.close()


class _NotSaved(CommandError):
    """The end of a training found no room, or no folder; what was saved before is there."""


class _Run:
    """A training that can begin.

    Parameters
    ----------
    agent, folder
        Of a new run, or an old one that is to go on.
    options
        RUN_OPTIONS, of which ``timesteps`` is the agent's total.
    config
        What config.json says of it besides.
    debug
        Whether an error shows its traceback.

    Attributes
    ----------
    begun : bool
        Whether config.json has been written: from then on there is something to save.
    saved : bool
        Whether the end of the training is in its files.
    moved : bool
        Whether these are in another folder, as the one that the run began in was renamed or removed.
    seconds : float
        That the training took.
    result : EvaluationResult or None
        Of the episodes at the end.
    """

    def __init__(
        self,
        agent: TRPO,
        folder: RunFolder,
        options: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        debug: bool = False,
    ) -> None:
        self.agent, self.folder, self.debug = agent, folder, debug
        folder.share_with(agent)
        self.timesteps: int = options["timesteps"]
        self.eval_episodes: int = options["eval_episodes"]
        self.first, self.first_update = agent.total_timesteps, agent.num_updates
        self.checkpoints = CheckpointCallback(
            folder.checkpoints,
            options["checkpoint_every"],
            seconds=None if agent.config.reset_on_checkpoint else CHECKPOINT_SECONDS,
            keep=options["keep_checkpoints"],
            best=True,
        )
        with user_errors():
            log = options["log"]
            if log is not None and output.is_quiet():
                log = [name for name in log if name != "table"] or ["csv"]
            self.log = RunLogger(folder.place, log=log)
        self.begun = self.saved = self.moved = False
        self.seconds = 0.0
        self.result: EvaluationResult | None = None
        self._content = {**config, **options}

    @property
    def latest(self) -> Path | None:
        """The checkpoint to go on from; None where there is none, or the folder of that name is another."""
        return self.checkpoints.latest if self.folder.is_in_place else None

    def require_place(self) -> None:
        """CommandError where the folder is not there any more before the run has begun."""
        if not self.folder.is_in_place:
            raise CommandError(f"folder {self.folder.path} was renamed or removed before the training began")

    def begin(self) -> None:
        """Called when all that could stand against it has been looked at, before anything of an old run is changed."""
        self.require_place()
        if not self.folder.is_new:
            self.folder.prepare()
        self.folder.write_config(self._content)
        self.folder.error.unlink(missing_ok=True)
        self.begun = True
        remember(self.agent.ranks, self.folder.place)

    def move(self) -> None:
        """Take a new folder in the place of the one that was renamed or removed, or beside what is in its place."""
        before = self.folder
        before.release()
        self.folder = claimed_by_name(before)
        self.folder.write_config(self._content)
        self.checkpoints.folder = self.folder.checkpoints
        self.moved = True
        say(
            f"warning: {before.path} was renamed or removed while this run was in it: the end of the run is in "
            f"{self.folder.path}, its rows and the checkpoints before are in the folder of before",
            sys.stderr,
        )


class _Begin(Callback):
    """Begins a run when its training starts, first of all callbacks."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        self._run.require_place()

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        self._run.begin()
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


def _new(arguments: argparse.Namespace, ranks: Ranks | None) -> _Run:
    if arguments.env is None:
        raise CommandError("ENV: none given; want an environment id, e.g. trpo-fast train CartPole-v1, or --resume RUN")
    options = {name: default for name, (_, default) in RUN_OPTIONS.items()} | _given(arguments)
    folder = RunFolder(arguments.out or usual_path("", arguments.env, f"-seed{arguments.seed or 0}"))
    if arguments.out:
        folder.refuse_if_used()  # before the seconds that an agent may take
    tell(ranks, (None, arguments.threads))
    agent, seed = _agent(arguments, ranks)
    try:
        if arguments.out:
            folder.claim_new()
        else:
            folder = claimed_by_name(folder)
        # The first checkpoint before config.json, which makes a run of the folder: a run can always go on.
        _saved(agent, folder, folder.checkpoints / checkpoint_name(0))
        config_json = {
            "environment": agent.recipe.to_json() if agent.recipe else None,
            "seed": seed,
            "preset": agent.preset,
            "config": agent.config.to_dict(),
            "defaults": _defaults_by_kind(agent),
            "resume": _how_it_resumes(agent),
            "versions": checkpoint.versions(),
            **machine(agent),
            **({} if ranks is None else {"ranks": ranks.size}),
        }
        return _Run(agent, folder, options, config_json, debug=arguments.debug)
    except BaseException:
        folder.discard()
        agent.close()
        raise


def _defaults_by_kind(agent: TRPO) -> dict[str, Any]:
    """The defaults that go by the networks and spaces, as they are for this agent."""
    plain = TRPOConfig()
    usual, here = plain.to_dict(), as_resolved(plain, agent).to_dict()
    return {name: value for name, value in here.items() if value != usual[name]}


def _agent(arguments: argparse.Namespace, ranks: Ranks | None) -> tuple[TRPO, int]:
    """A new agent as the options say, and its seed."""
    seed = 0 if arguments.seed is None else arguments.seed
    set_threads(arguments.threads)
    settings, saved = read_settings(arguments.config)
    overrides = config_overrides(arguments)
    if isinstance(settings, TRPOConfig) and isinstance(saved, dict) and saved.get("id") != arguments.env:
        settings = settings.replace(action_map="auto")  # what it was resolved to is of the other one's box
    # A run's config.json says every setting, a file of one's own what a preset or the defaults leave to it.
    config = settings.replace(**overrides) if isinstance(settings, TRPOConfig) else None
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
            ranks=ranks,
            **({} if isinstance(settings, TRPOConfig) else {**settings, **overrides}),
        )
    return agent, seed


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of RUN_OPTIONS that were given."""
    return {name: value for name in RUN_OPTIONS if (value := getattr(arguments, name)) is not None}


def _how_it_resumes(agent: TRPO) -> str:
    """For config.json."""
    cuts = agent.training_environments.cuts
    said = checkpoint.how_it_resumes(agent, checkpoint.capture(agent))
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
                require_workers(stepping[0] or recipe.vectorization, stepping[1])
                recipe = recipe.with_changes(env, kwargs, wrappers, *stepping).trusting(
                    arguments.imports, everything=arguments.trust
                )
                show(recipe)
                recipe.require_trust()
                return recipe
            require_said_again(recipe, env, kwargs, wrappers)
        require_workers(arguments.vectorization, arguments.num_workers)
        return EnvironmentRecipe(
            env,
            arguments.vectorization,
            kwargs or {},
            wrappers,
            tuple(arguments.imports),
            num_workers=arguments.num_workers,
        )


def _resumed(arguments: argparse.Namespace, ranks: Ranks | None) -> _Run:
    folder = RunFolder(arguments.resume)
    if folder.place.is_file():
        of_run = run_folder_of(folder.path.parent)
        raise CommandError(f"--resume: {folder.path} given, a file; want the folder of its run, --resume {of_run}")
    folder.claim_old()
    agent = None
    try:
        content, options = folder.read_config(), folder.options() | _given(arguments)
        set_threads(options["threads"])
        try:
            latest, agent = latest_of(arguments.resume, lambda file: (file, loaded(file, arguments)))
            if ranks is not None:  # which file can be read is seen by rank 0 alone, before all read it
                agent.close()
                tell(ranks, (str(latest.absolute()), options["threads"]))
                with user_errors():
                    agent = loaded(latest, arguments, quiet=True, ranks=ranks)
        except CommandError as error:
            if not isinstance(error.__cause__, UnavailableError):
                raise
            name = str(error).partition(":")[0]
            raise CommandError(
                f"--resume: {folder.path}: {error}; a resumed run keeps its settings: it goes on where there is such a "
                f"thing, or as another one from Python, TRPO.load('{folder.path}', {name}='float32')"
            ) from error
        refuse_edited(folder, content, read_metadata(latest))
        refuse_differing(arguments, agent, folder, content)
        step_as_asked(agent, arguments)
        content.pop("ranks", None)
        content |= {} if ranks is None else {"ranks": ranks.size}
        if agent.recipe is not None:
            content |= {"environment": agent.recipe.to_json()}
        run = _Run(agent, folder, options, content, debug=arguments.debug)
        if agent.total_timesteps >= run.timesteps and has_ended(folder, agent):
            raise CommandError(
                f"--resume: {folder.path} has {agent.total_timesteps:,} of {run.timesteps:,} timesteps; want more "
                "--timesteps"
            )
        try:
            agent.hooks.require()
        except ValueError as error:
            raise CommandError(f"--resume: {folder.path} is for Python, which can hand it in: {error}") from error
        with user_errors():  # refused now, not after the environments are made
            rows = read_progress(folder.progress) if folder.progress.exists() else []
        say_missing_rows(folder, [int(row["time/total_timesteps"]) for row in rows], agent.total_timesteps)
        say_differing_machine(folder, content, agent)
        return run
    except BaseException:
        if agent is not None:
            agent.close()
        folder.release()
        raise


@contextlib.contextmanager
def _lack_of_memory_named() -> Iterator[None]:
    """Turn LackOfMemory into CommandError naming the options of the sizes that were chosen."""
    try:
        yield
    except LackOfMemory as error:
        options = ", ".join(map(option_of, error.names))
        raise CommandError(f"{options}: too large for the memory of this machine") from error


def _train(run: _Run) -> int:
    agent, folder = run.agent, run.folder
    env = agent.recipe.name if agent.recipe else "environment"
    preset = f", preset {agent.preset_taken.described(agent.config)}" if agent.preset_taken else ""
    say(f"{env}: {run.timesteps:,} steps{preset}, {agent.engine.name} engine, {folder.path}")
    began = time.perf_counter()
    # A signal is answered by what was saved from the moment on at which there is a run to go on with.
    tell(agent.ranks, max(0, run.timesteps - run.first))
    before = None if agent.ranks is None else agent.ranks.traffic  # while agents were made ranks waited for others
    try:
        try:
            if run.first < run.timesteps:
                agent.learn(
                    run.timesteps - run.first,
                    callback=[_Begin(run), run.log, run.checkpoints],
                    progress_bar=output.shows_progress(),
                    reset_num_timesteps=False,
                )
            else:
                run.begin()
        finally:
            seconds = run.seconds = time.perf_counter() - began
        _save(run)
        folder = run.folder
        steps = agent.total_timesteps - run.first
        say(f"trained  {steps:,} steps in {seconds:.1f} s ({steps / seconds:,.0f} steps/s)")
        if agent.ranks is not None and before is not None and agent.num_updates > run.first_update:
            found, updates = agent.ranks.traffic.since(before), agent.num_updates - run.first_update
            say(_exchanged(agent.ranks.size, found, updates, seconds))
        say(f"model    {run.folder.shown(run.folder.model)}")
        done = [_evaluated(run), run.moved or _drawn(run), not run.moved]
        return 0 if all(done) else 1
    except KeyboardInterrupt as interrupt:
        if not run.begun:
            raise
        return _stopped(run, interrupt)
    except CommandError:
        raise
    except SystemExit as end:
        return _failed(run, ExitError(end))
    except Exception as error:
        if not run.begun and isinstance(error, ValueError | OSError | ImportError):
            prefix = "" if folder.is_new else f"--resume: {folder.path}: "
            raise CommandError(f"{prefix}{describe(error)}") from error
        return _failed(run, error)


def _summary(run: _Run, code: int) -> dict[str, Any]:
    """For --json."""
    agent, result = run.agent, run.result
    evaluated = None
    if result is not None:
        numbers = {"mean": result.mean, "std": result.std, "unfinished": result.unfinished}
        evaluated = {**numbers, "episodes": run.eval_episodes, "deterministic": True}
    return {
        "env": agent.recipe.name if agent.recipe else None,
        "seed": agent.seed,
        "run": str(run.folder.path),
        "model": str(run.folder.shown(run.folder.model)) if run.saved else None,
        "num_timesteps": agent.total_timesteps,
        "timesteps": run.timesteps,
        "seconds": round(run.seconds, 3),
        "training_return": agent.episode_return_mean,
        "evaluation": evaluated,
        "exit_code": code,
    }


def _exchanged(size: int, found: Traffic, updates: int, seconds: float) -> str:
    """What the ranks of a training told each other, in so many updates and seconds."""
    return (
        f"ranks    {size}: {found.rounds / updates:.1f} rounds and {found.bytes / updates / 1e6:.2f} MB of "
        f"each rank an update, {found.seconds / seconds:.1%} of the time in them, waiting for others included"
    )


def _evaluated(run: _Run) -> bool:
    """Play the last episodes, if any are asked for; whether that went well."""
    agent, episodes = run.agent, run.eval_episodes
    if not episodes:
        return True
    try:
        result = run.result = agent.evaluate(episodes, progress_bar=output.shows_progress())
    except Exception as error:
        _report(error, run.debug)
        say(f"return   not known; once the reason is mended: {_command('eval', run)} --episodes {episodes}")
        return False
    left = unfinished(result, agent.config.evaluation_max_steps)
    say(f"return   {result.mean:.1f} +- {result.std:.1f} over {episodes} deterministic episodes{left}")
    return True


def _drawn(run: _Run) -> bool:
    """Draw the curve; whether that went well. Without matplotlib, which need not be there, it does."""
    again = f"trpo-fast plot {shlex.quote(str(run.folder.path))}"
    if not run.folder.is_in_place:
        say(f"curve    not drawn: {run.folder.path} was renamed or removed")
        return False
    try:
        plot.draw(run.folder, run.folder.curve)
    except plot.MatplotlibMissing as missing:
        say(f"curve    not drawn: {missing}; then: {again}")
    except Exception as error:
        _report(error, run.debug)
        say(f"curve    not drawn; once the reason is mended: {again}")
        return False
    else:
        say(f"curve    {run.folder.shown(run.folder.curve)}")
    return True


def _stopped(run: _Run, interrupt: KeyboardInterrupt) -> int:
    """Save, say how to go on; the exit code.

    Between two cuts of `reset_on_checkpoint` nothing is saved: no bits could be gone on from there, and a run that
    asked for that goes on from the checkpoint at the last cut, as after a kill. The end of the training is saved.
    """
    agent, latest = run.agent, run.latest
    steps, saved = agent.total_timesteps, "saved"
    done = steps >= run.timesteps
    if not done and agent.training_environments.cuts and not agent.is_at_a_cut and latest is not None:
        saved = f"of which the checkpoint at {progress_of(latest).timesteps:,} is gone on from"
    else:
        _save(run)
    stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
    how = "stopped" if stopped.number == signal.SIGINT else stopped.word
    if done:
        say(f"\n{how} after all {steps:,} steps, saved; to evaluate:\n{_command('eval', run)}")
    else:
        say(f"\n{how} at {steps:,} steps, {saved}; to go on:\n{_command('train --resume', run)}")
    return stopped.code


def _failed(run: _Run, error: Exception) -> int:
    """Report, save, say how to go on; the exit code."""
    _report(error, run.debug)
    if not run.begun:
        how = "nothing is kept" if run.folder.is_new else f"{run.folder.path} is as it was"
        say(f"\nfailed before the training began: {how}")
        return 1
    if run.folder.is_in_place:
        with contextlib.suppress(OSError):  # of a disk that is full; it has been printed
            run.folder.error.write_bytes(f"{describe(error)}\n".encode(errors="backslashreplace"))
    _save(run)
    # Before an update, nothing has shown yet that this environment can be trained on at all.
    steps = run.agent.total_timesteps
    to_go_on = "to go on" if steps > run.first else "once the reason is mended, to go on"
    say(f"\nfailed after {steps:,} steps, saved; {to_go_on}:\n{_command('train --resume', run)}")
    if steps == run.first:
        say("a resumed run keeps its environment, wrappers and settings: where these are the reason, begin anew")
    return 1


def _report(error: Exception, debug: bool) -> None:
    """Print an error: a line where it is the user's to mend, and no line of ours at fault, else all of it."""
    if debug:
        traceback.print_exception(error)
    in_a_line = CommandError | ExitError | OSError | LackOfMemory | SimulatorError | RankError
    if isinstance(error, in_a_line) or is_of_an_answer(error):
        # What a worker noted has its traceback.
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        say(f"\ntrpo-fast train: error: {describe(error)}{notes}", sys.stderr)
    elif is_of_environment(error) and not debug:
        say(f"\ntrpo-fast train: error: {in_short(error)}", sys.stderr)
    elif not debug:
        traceback.print_exception(error)


def _save(run: _Run) -> None:
    """Save the agent as the latest checkpoint and as the run's model; once, at the end of the training.

    Rows that found no room come first, and once more behind the files, which may have found some.
    """
    agent = run.agent
    if run.saved:
        return
    run.log.write_waiting()
    try:
        if not run.folder.is_in_place:
            run.move()
        link_file(run.checkpoints.save(agent), run.folder.model)
        run.log.write_waiting()
    except (OSError, ValueError, CommandError) as error:
        if agent.total_timesteps == 0:
            run.folder.discard()  # a folder without use would refuse another try
            raise _not_saved(agent, run.folder, error) from error
        raise _not_saved(agent, run.folder, error, _NotSaved) from error
    run.saved = True


def _lost(run: _Run, error: _NotSaved) -> int:
    """Say what there is to go on from where the end of a training could not be saved; the exit code."""
    say(f"\ntrpo-fast train: error: {error}", sys.stderr)
    latest = run.latest
    if latest is not None:
        steps = progress_of(latest).timesteps
        say(
            f"\nnot saved; once the reason is mended, to go on from the checkpoint at {steps:,} steps:\n"
            f"{_command('train --resume', run)}"
        )
    return 1


def _saved(agent: TRPO, folder: RunFolder, path: Path) -> None:
    try:
        agent.save(path)
    except (OSError, ValueError) as error:
        raise _not_saved(agent, folder, error) from error


def _not_saved(
    agent: TRPO, folder: RunFolder, error: Exception, kind: type[CommandError] = CommandError
) -> CommandError:
    return kind(f"the agent at {agent.total_timesteps:,} steps cannot be saved in {folder.path}: {describe(error)}")


def _command(name: str, run: _Run) -> str:
    """That a person can type for this run."""
    return f"trpo-fast {name} {shlex.quote(str(run.folder.path))}{import_options(run.agent.recipe)}"
