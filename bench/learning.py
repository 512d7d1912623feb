"""Learning studies: named arms on tasks and seeds, trained and evaluated alike; stopped and gone on with at any time.

    python -m bench.learning search                    # what bench/results/learning/search/plan.toml asks for
    python -m bench.learning search --plan-only        # only print what is missing, and the hours it takes
    python -m bench.learning search --arms default std-1 --seeds 0-2 --tasks Hopper-v5 --timesteps 1e6

The folder of a study, its plan and its rows: bench.study. Every run is a process of its own with one thread, two at a
time on two cores, seed by seed, so that a part of a study compares its arms alike; where times are compared, `threads`
gives a run more, and fewer run at a time. The score is that of the final policy: deterministic, 20 episodes (100 of
classic control), from a seed that no training has.

As a run ends its row and its curve are recorded; an arm that was made with something else is refused. A study may go on
on another kind of CPU, whose last bits are others: every row names its own. What a kill interrupts goes on from its
last checkpoint, where that was made with the same; a peer's run, and one whose time is compared, begins again. A run of
more timesteps is another one. Where times are compared, the share of its cores that a busy process gets just before and
behind a run is in its row, the lower one.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.machine import describe, kind_of, share_of_cores, source
from bench.study import (
    CURVE_COLUMNS,
    RESULTS,
    RUN_COLUMNS,
    SCORE,
    TRAINING,
    Arm,
    Run,
    Study,
    made_with,
    read_rows,
    refuse,
    same_or_refuse,
    seeds_of,
)
from trpo_fast.model_file import replace_file

CURVE_ROWS = 150
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What a training or an evaluation that met NaN says; anything else that ends a run is a fault of the study's.
NOT_FINITE = re.compile(r"\b(nan|inf|(non-?)?finite)\b", re.IGNORECASE)


class Failure(RuntimeError):
    """A command ended with an error; the text is the end of its log."""

    def __init__(self, text: str, *, not_finite: bool) -> None:
        super().__init__(text)
        self.not_finite = not_finite


class Workers:
    """Runs commands, and ends those that still run when the study is stopped."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._beginning = threading.Lock()  # a process is begun and known, or not begun

    def call(self, arguments: Sequence[str], log: Path, threads: int = 1) -> str:
        """What the command prints; Failure where it ends with an error."""
        command = [sys.executable, "-m", *arguments]
        with log.open("w", encoding="utf-8") as errors:
            with self._beginning:
                if self._stopped:
                    raise Failure(f"{shlex.join(command)} was not begun, the study ends", not_finite=False)
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
                    pass_fds=(self._lock.fileno(),),  # held as long as any run lives, also one that outlives the study
                )
                self._running.add(process)
            try:
                output, _ = process.communicate()
            finally:
                self._running.discard(process)
        if process.returncode:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            # 2 is a command that means nothing, and negative a signal: neither says anything about a run's numbers.
            not_finite = process.returncode == 1 and bool(tail and NOT_FINITE.search(tail[-1]))
            text = "\n".join([f"{shlex.join(command)} ended with {process.returncode}:", *tail])
            raise Failure(text, not_finite=not_finite)
        return output

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        with self._beginning:
            self._stopped = True
            for process in list(self._running):
                process.terminate()


def _made_file(folder: Path) -> Path:
    """What the files of a run's folder were made with, beside it."""
    return folder.with_name(f"{folder.name}.json")


def check_left(folder: Path, made: Mapping[str, Any]) -> None:
    """SystemExit naming what differs, where a run's folder holds what was made with something else."""
    if folder.exists() and _made_file(folder).exists():
        before = json.loads(_made_file(folder).read_text(encoding="utf-8"))
        same_or_refuse(f"{folder}: its files", before, made, otherwise="no such folder")


def execute(
    run: Run, folder: Path, workers: Workers, made: Mapping[str, Any], *, timed: bool = False
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Train and evaluate: the score and the curve. NaN, in training or evaluation, is a score of NaN.

    `made` stands beside the folder from before the training on (`check_left`). A run that is `timed` begins at its
    start.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    if timed or not _made_file(folder).exists():
        shutil.rmtree(folder, ignore_errors=True)
    replace_file(_made_file(folder), (json.dumps(made, indent=1) + "\n").encode())

    def evaluation() -> dict[str, Any]:
        eval_log = folder.with_name(f"{folder.name}.eval.log")
        output = workers.call(run.arm.evaluate(run.task, folder), eval_log, run.arm.threads)
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    try:
        # A training that was stopped leaves a model, too.
        any_model = any((folder / name).exists() for name in ("model.trpo", "model.zip"))
        score = evaluation() if any_model else {"num_timesteps": 0}
        if score["num_timesteps"] < run.timesteps:
            if not run.arm.peer and any((folder / "checkpoints").glob("*.trpo")):
                workers.call(run.arm.resume(run.timesteps, folder), log, run.arm.threads)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                workers.call(run.arm.train(run.task, run.seed, run.timesteps, folder), log, run.arm.threads)
            score = evaluation()
    except Failure as failure:
        if not failure.not_finite:
            raise
        score = {"mean": float("nan")}
    progress = [row for row in read_rows(folder / "progress.csv") if row["time/total_timesteps"]]
    returns = [float(row["rollout/ep_rew_mean"]) for row in progress if row["rollout/ep_rew_mean"]]
    if returns:
        score |= dict(zip(TRAINING, (returns[-1], statistics.fmean(returns)), strict=True))
    return score, [
        {name: _short(row.get(column) or "") for name, column in CURVE_COLUMNS.items()} for row in thinned(progress)
    ]


def thinned(rows: Sequence[dict[str, str]], most: int = CURVE_ROWS) -> list[dict[str, str]]:
    """At most `most` rows, evenly spaced, with the last one."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round((i + 1) * len(rows) / most) - 1] for i in range(most)]


def _short(value: Any) -> str:
    text = str(value)
    return text if not text or text.lstrip("-").isdigit() else f"{float(text):.5g}"


def training_hours(study: Study, runs: Sequence[Run]) -> tuple[float, int]:
    """Of one process for the runs, at the pace of runs like them; and how many have none to go by."""
    studies = [study, *(Study(plan.parent) for plan in sorted(RESULTS.glob("*/plan.toml")))]
    total, unknown = 0.0, 0
    paces: dict[tuple[Arm, str], float | None] = {}
    for run in runs:
        key = run.arm, run.task
        if key not in paces:
            found = ([run.arm], [study]), (study.arms, [study]), (None, studies)
            known = (pace(run, arms, where) for arms, where in found)
            paces[key] = next((seconds for seconds in known if seconds), None)
        seconds = paces[key]
        if seconds is None:
            unknown += 1
        else:
            total += run.timesteps * seconds / 3600
    return total, unknown


def pace(run: Run, arms: Sequence[Arm] | None, studies: Sequence[Study]) -> float | None:
    """Seconds a timestep on the run's task of those arms (None: all) that are of its kind; None where no row tells.

    The median over rows of their curves, as a run that was stopped for a while counts that time, too.
    """
    found: list[float] = []
    for study in studies:
        for arm in study.arms if arms is None else arms:
            if arm.peer != run.arm.peer or (arm.peer and arm.options != run.arm.options):
                continue
            for rows in study.curves_by_seed(arm, run.task).values():
                for before, after in pairwise(rows):
                    steps = float(after["timesteps"]) - float(before["timesteps"])
                    if steps > 0 and before["seconds"] and after["seconds"]:
                        found.append((float(after["seconds"]) - float(before["seconds"])) / steps)
    return statistics.median(found) if found else None


def carry_out(study: Study, runs: Sequence[Run], work: Path, processes: int) -> None:
    """Make the runs, `processes` at a time."""
    commit = source()
    arms = list(dict.fromkeys(run.arm for run in runs))
    machine = describe()
    tasks = {arm.name: dict.fromkeys(run.task for run in runs if run.arm == arm) for arm in arms}
    made = {arm.name: made_with(arm, tasks[arm.name], commit, machine) for arm in arms}
    cpu = f"{kind_of(machine)}, {machine['instruction_set']}"
    study.check(arms, made)
    made_of = {run: made_with(run.arm, [run.task], commit, machine) for run in runs}
    for run in runs:
        check_left(work / run.folder, made_of[run])
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            refuse(f"--work: {work} is at work already, or a run of it outlived its study; want another, or wait")
        workers = Workers(lock)

        def one(run: Run) -> Run:
            if run.key in study.done():  # made by somebody else meanwhile
                return run
            own = made_of[run]
            shares = [share_of_cores(study.threads)] if study.goals else []
            score, curve = execute(run, work / run.folder, workers, own, timed=bool(study.goals))
            shares += [share_of_cores(study.threads)] if study.goals else []
            row: dict[str, Any] = dict(zip(RUN_COLUMNS, run.key, strict=False))
            row |= {name: _short(score.get(name, "")) for name in (*SCORE, *TRAINING)}
            row |= {"seconds": curve[-1]["seconds"] if curve else ""}
            row |= {"commit": own["commit"], "cpu": cpu, "cpu_share": _short(min(shares)) if shares else ""}
            study.add(run, row, curve, own)
            print(f"{run}: {row['mean']} +- {row['std'] or 'nothing'}", flush=True)
            return run

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with ThreadPoolExecutor(processes) as pool:
            futures = [pool.submit(one, run) for run in runs]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                workers.stop()
                raise


def chosen(study: Study, options: argparse.Namespace) -> list[Run]:
    """The runs that are asked for and not there; SystemExit where a name is not in the plan."""
    arms = {arm.name: arm for arm in study.arms}
    for option, names, known in (("--arms", options.arms, arms), ("--tasks", options.tasks, study.tasks)):
        missing = [name for name in names or () if name not in known]
        if missing:
            refuse(f"{option}: {', '.join(missing)} given; want some of {', '.join(known)}")
    done = study.done()
    timesteps = study.timesteps if options.timesteps is None else int(options.timesteps)
    if timesteps < 1:
        refuse(f"--timesteps: {timesteps} given; want at least 1")
    runs = [
        Run(arms[name], task, seed, timesteps)
        for seed in options.seeds or study.seeds
        for task in options.tasks or study.tasks
        for name in options.arms or arms
    ]
    return [run for run in runs if run.key not in done]


def _seeds(text: str) -> list[int]:
    try:
        return seeds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Go on with a study."""
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", help=f"a name under {os.path.relpath(RESULTS)}, or a folder with plan.toml")
    parser.add_argument("--arms", nargs="+", help="only these, in this order")
    parser.add_argument("--tasks", nargs="+", help="only these, in this order")
    parser.add_argument("--seeds", type=_seeds, help="instead of the plan's, as 0-4 or 0,3,7")
    parser.add_argument("--timesteps", type=float, help="instead of the plan's")
    parser.add_argument("--processes", type=int, help="runs at a time (default: the plan's)")
    parser.add_argument("--work", type=Path, help="the runs' own folders (default runs/learning/STUDY)")
    parser.add_argument("--plan-only", action="store_true", help="train nothing")
    options = parser.parse_args(argv)
    named = RESULTS / options.study
    study = Study(named if named.is_dir() else Path(options.study))
    runs = chosen(study, options)
    processes = options.processes or study.processes
    total, unknown = training_hours(study, runs)
    print(f"{study.folder.name}: {len(runs)} runs are missing, {sum(run.timesteps for run in runs):,} steps")
    for arm in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == arm]
        tasks, seeds = (dict.fromkeys(getattr(run, name) for run in own) for name in ("task", "seed"))
        print(f"  {arm.name}: {arm.described(list(tasks))}; {', '.join(tasks)}; seeds {list(seeds)}")
    each = f"{processes} {'process' if processes == 1 else 'processes'}"
    known = f"{total / processes:.1f} hours of training by {each}, at the pace of runs like them"
    print(f"  {known}{f', and {unknown} runs like which there is none' if unknown else ''}", flush=True)
    if runs and not options.plan_only:
        carry_out(study, runs, options.work or Path("runs/learning") / study.folder.name, processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
