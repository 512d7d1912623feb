"""``trpo-fast tune``."""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trpo_fast._core import library
from trpo_fast.algorithm import presets
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.cli import output
from trpo_fast.cli.environments import import_from_here
from trpo_fast.cli.errors import CommandError, user_errors
from trpo_fast.cli.options import config_overrides
from trpo_fast.cli.output import say
from trpo_fast.cli.ranks import set_threads
from trpo_fast.cli.run_folder import usual_path
from trpo_fast.cli.stopping import Signals, Stopped
from trpo_fast.cli.values import option_of, shown
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.gymnasium_spaces import action_words, has_gaussian
from trpo_fast.tuning.space import as_parameters, space_for
from trpo_fast.tuning.study import Plan, State, Study, StudyError, Trial
from trpo_fast.tuning.trial import EVALUATION_SEED, Probe, Task, probed

_PATIENCE = 30.0  # seconds in which workers that are stopped give their trials back


def run(arguments: argparse.Namespace) -> int:
    """Search, and write the best settings; exit code 1 where no trial came to its end."""
    import_from_here()
    path = Path(arguments.study or str(usual_path("tune-", arguments.env, "")) + ".db")
    out = Path(arguments.out or path.with_suffix(presets.SUFFIX))
    if out.suffix != presets.SUFFIX:
        raise CommandError(f"--out: {out} given; want a file whose name ends with {presets.SUFFIX}")
    if path.suffix == presets.SUFFIX:
        raise CommandError(f"--study: {path} given, the name of a preset; want another, e.g. {path.with_suffix('.db')}")
    if arguments.seed + arguments.seeds > EVALUATION_SEED:
        raise CommandError(f"--seed: {arguments.seed} given; want less than {EVALUATION_SEED:,}, that of evaluations")
    threads = arguments.threads or max(1, library.usable_cores() // arguments.workers)
    set_threads(threads)
    place, out_place = path.absolute(), out.absolute()  # an environment may change the working folder
    plan, probe = _plan(arguments, path, place)
    if arguments.plan_only and not place.exists():
        _say_cost(plan, probe, arguments, 0)
        return 0
    with user_errors(StudyError):
        if not arguments.plan_only:
            for folder in (place.parent, out_place.parent):
                folder.mkdir(parents=True, exist_ok=True)
        study = Study(plan)
    try:
        _say_cost(plan, probe, arguments, len(study.finished()))
        return 0 if arguments.plan_only else _search(study, arguments, out, out_place, threads)
    except StudyError as error:
        raise CommandError(str(error)) from error
    finally:
        study.close()


def _plan(arguments: argparse.Namespace, path: Path, place: Path) -> tuple[Plan, Probe]:
    """What is asked for; an agent is made and trained for a moment, which finds what stands against it."""
    names = None if arguments.search is None else [name.strip() for name in arguments.search.split(",") if name.strip()]
    given = config_overrides(arguments)

    def task(fixed: Mapping[str, Any]) -> Task:
        return Task(
            env=arguments.env,
            env_kwargs=arguments.env_kwargs or {},
            wrappers=None if arguments.wrapper is None else tuple(arguments.wrapper),
            imports=tuple(arguments.imports),
            timesteps=arguments.timesteps,
            seeds=tuple(range(arguments.seed, arguments.seed + arguments.seeds)),
            episodes=arguments.eval_episodes,
            fixed=fixed,
        )

    with user_errors(SimulatorError, TypeError, MemoryError):
        space_for(names, given, ("gaussian", "recurrent"))  # what is wrong in any case, before an agent is made
        probe = probed(task(given), {})
        kinds = {"gaussian": has_gaussian(probe.actions), "recurrent": probe.recurrent}
        space = space_for(names, given, [kind for kind, has in kinds.items() if has])
    actions = action_words(probe.actions)
    known = presets.all_presets().get(presets.plain_id(arguments.env) or "")
    of_preset = dict(known.settings) if known is not None and known.actions == actions else {}
    base = {**{name: getattr(TRPOConfig, name) for name in space}, **of_preset, **given}
    if of_preset:
        probe = probed(task(base), {})  # what the first trial takes
    # A setting of the preset or a default that is not tried is that of all trials.
    tried = as_parameters(base, space)
    fixed = {name: value for name, value in base.items() if name not in tried}
    space = {name: search for name, search in space.items() if name in tried}
    return Plan(path, place, task(fixed), space, base, actions, not arguments.no_pruning, arguments.seed), probe


def _say_cost(plan: Plan, probe: Probe, arguments: argparse.Namespace, done: int) -> None:
    """What the rest of the study takes."""
    task, left, workers = plan.task, max(0, arguments.trials - done), arguments.workers
    rollout = probe.rollout
    steps = left * -(-task.timesteps // rollout) * rollout * len(task.seeds)  # rollouts are whole
    hours = steps / probe.steps_per_second / 3600 / workers
    trials = f"{left} of {arguments.trials} trials are left" if done else f"{left} trials"
    say(f"{task.env}: {trials}, {task.timesteps:,} timesteps of {_many(len(task.seeds), 'seed')} each; {plan.path}")
    say(f"search   {', '.join(plan.space)}")
    say(
        f"cost     {steps:,} steps, {_time(hours)} with {_many(workers, 'worker')}, at "
        f"{probe.steps_per_second:,.0f} steps/s, measured in {_many(probe.updates, 'update')} of the first settings; "
        f"pruned trials take less, other settings more or less, and {task.episodes * len(task.seeds)} final episodes a "
        "trial come on top"
    )
    cores = library.usable_cores()
    if workers > cores:
        say(f"warning: --workers: {workers} given, on {_many(cores, 'core')}, which they share", sys.stderr)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _time(hours: float) -> str:
    if hours <= 1 / 30:
        return "less than two minutes"
    return f"about {hours:.1f} hours" if hours >= 1 else f"about {hours * 60:.0f} minutes"


def _search(study: Study, arguments: argparse.Namespace, out: Path, out_place: Path, threads: int) -> int:
    announced = _Announcer(study, arguments.trials)
    code = 0
    try:
        if arguments.workers == 1:
            while (trial := study.claim(arguments.trials)) is not None:
                study.carry_out(trial)
                announced.say_new()
        else:
            code = _with_workers(study.plan, arguments, threads, announced)
    except KeyboardInterrupt as interrupt:
        stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        code = stopped.code
        announced.close()
        say(
            f"\n{stopped.word} after {_many(len(study.finished()), 'trial')}; to go on, the same command with "
            f"--study {shlex.quote(str(study.plan.path))}"
        )
    finally:
        announced.close()
    with user_errors():
        preset = study.write_preset(out_place, out)
    best = study.best()
    code = code or (0 if best is not None else 1)
    if arguments.json:
        output.answer(_summary(study, out, code))
    if preset is None or best is None:
        say("trpo-fast tune: no trial has come to its end: there is no preset", sys.stderr)
        return code
    options = " ".join(f"{option_of(name)} {shown(value)}" for name, value in preset.settings.items())
    say(f"best     trial {best.number}: {best.value:,.1f}: {options}")
    say(f"preset   {out}; to train with it: {study.train_command(out)}")
    return code


def _with_workers(plan: Plan, arguments: argparse.Namespace, threads: int, announced: _Announcer) -> int:
    """Let processes carry out the trials; 1 where one of them failed."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(plan, arguments.trials, threads), name=f"worker {number}")
        for number in range(arguments.workers)
    ]
    fallen: list[str] = []

    def say_fallen() -> None:
        for worker in workers:
            if worker.exitcode and worker.name not in fallen:
                fallen.append(worker.name)
                say(f"trpo-fast tune: {worker.name} ended with {worker.exitcode}", sys.stderr)

    try:
        # Ctrl-C is the command's, which ends them: in the middle of an import they would answer it with tracebacks.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for worker in workers:
                worker.start()
        finally:
            signal.signal(signal.SIGINT, before)
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.5 / len(workers))
            announced.say_new()
            say_fallen()
        say_fallen()  # between its last look and its end
    finally:
        started = [worker for worker in workers if worker.pid is not None]
        for worker in started:
            if worker.is_alive():
                worker.terminate()
        end = time.monotonic() + _PATIENCE
        for worker in started:
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
                say(f"trpo-fast tune: {worker.name} was killed; who goes on takes its trial", sys.stderr)
    return 1 if fallen else 0


def _work(plan: Plan, trials: int, threads: int) -> None:
    """What a worker does; it begins no other trial where the command that began it is gone."""
    import_from_here()
    set_threads(threads)
    parent = multiprocessing.parent_process()
    with output.own_warnings_in_a_line(), output.mode(quiet=True), Signals():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what there is to say of the file the command has said
                study = Study(plan)
            try:
                while (parent is None or parent.is_alive()) and (trial := study.claim(trials)) is not None:
                    study.carry_out(trial)
            finally:
                study.close()
        except KeyboardInterrupt as interrupt:
            sys.exit(interrupt.code if isinstance(interrupt, Stopped) else 130)
        except (StudyError, ValueError, OSError) as error:
            say(f"trpo-fast tune: error: {error}", sys.stderr)
            sys.exit(1)


class _Announcer:
    """Says what trials have ended, of this command and of others on the same study, each once."""

    def __init__(self, study: Study, trials: int) -> None:
        self._study = study
        self._said = {trial.number for trial in study.finished()}
        self._bar: Any = output.bar(trials, "trial", initial=len(self._said))

    def say_new(self) -> None:
        """Those that have ended since."""
        for trial in self._study.finished():
            if trial.number not in self._said:
                self._said.add(trial.number)
                self._bar.clear()
                say(_line(trial))
                self._bar.update()

    def close(self) -> None:
        """Leave the bar on the screen."""
        self._bar.close()


def _line(trial: Trial) -> str:
    seconds = f"{trial.user_attrs.get('seconds', 0.0):.1f} s"
    if trial.state == State.COMPLETE:
        means = trial.user_attrs["means"]
        seeds = f" ({', '.join(f'{mean:,.1f}' for mean in means)})" if len(means) > 1 else ""
        return f"trial {trial.number}: {trial.value:,.1f}{seeds}, {seconds}"
    if trial.state == State.PRUNED:
        at = f"{trial.last_step:,} timesteps, training return {trial.value:,.1f}"
        return f"trial {trial.number}: pruned at {at}, {seconds}"
    return f"trial {trial.number}: failed: {trial.user_attrs['reason']}"


def _summary(study: Study, out: Path, code: int) -> dict[str, Any]:
    """For --json."""
    finished, best = study.finished(), study.best()
    states = {"complete": State.COMPLETE, "pruned": State.PRUNED, "failed": State.FAIL}
    said = None
    if best is not None:
        of_user = {name: best.user_attrs[name] for name in ("means", "settings")}
        said = {"number": best.number, "value": best.value, **of_user}
    return {
        "env": study.plan.task.env,
        "study": str(study.plan.path),
        "trials": {name: sum(trial.state == state for trial in finished) for name, state in states.items()},
        "timesteps": study.plan.task.timesteps,
        "seeds": list(study.plan.task.seeds),
        "best": said,
        "preset": None if best is None else str(out),
        "exit_code": code,
    }
