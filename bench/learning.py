"""Learning studies: named arms on tasks and seeds, trained and evaluated alike; stopped and gone on with at any time.

    python -m bench.learning search                    # what bench/results/learning/search/plan.toml asks for
    python -m bench.learning search --plan-only        # only print what is missing, and the hours it takes
    python -m bench.learning search --arms default std-1 --seeds 0-2 --tasks Hopper-v5 --timesteps 1e6

A plan names tasks, seeds, timesteps and arms: `[arms]` are options of ``trpo-fast train``, `[peers]` algorithms of
bench.peer_learning. Every run is a process of its own with one thread, two at a time on two cores, seed by seed, so
that a part of a study compares its arms alike; where times are compared, `threads` gives a run more, and fewer run at a
time. The score is that of the final policy: deterministic, 20 episodes (100 of classic control), from a seed that no
training has. `[goals]` are training returns by task: bench.learning_report says how long they took.

As each run ends, beside the plan: ``runs.csv`` gets a row for its final evaluation, ``curves/TASK.csv`` the rows of its
updates (at most 150 a run), ``study.json`` what its arm was made with; an arm that was made with something else is
refused. A study may go on on another kind of CPU, whose last bits are others: every row names its own. What a kill
interrupts goes on from its last checkpoint, a peer's run from its start; a run of more timesteps goes on from one of
fewer. bench.learning_report makes tables and pictures of them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
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
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bench.machine import describe, kind_of, source
from trpo_fast.algorithm import presets
from trpo_fast.algorithm.config import TRPOConfig

RESULTS = Path(__file__).with_name("results") / "learning"
EVALUATION_SEED = 1_000_000
CLASSIC_CONTROL = ("CartPole", "Acrobot", "MountainCar", "Pendulum", "LunarLander")
SCORE = ("mean", "std", "min", "max", "mean_length", "episodes")
# Of the 100 latest training episodes: at the end, and averaged over all updates.
TRAINING = ("training_last", "training_mean")
RUN_COLUMNS = ("arm", "task", "seed", "timesteps", *SCORE, *TRAINING, "seconds", "commit", "cpu")
CURVE_COLUMNS = {  # in curves/TASK.csv, and in progress.csv
    "timesteps": "time/total_timesteps",
    "seconds": "time/time_elapsed",
    "return": "rollout/ep_rew_mean",
    "length": "rollout/ep_len_mean",
    "kl": "train/kl_divergence_loss",
    "explained_variance": "train/explained_variance",
    "std": "train/std",
}
CURVE_ROWS = 150
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What a training or an evaluation that met NaN says; anything else that ends a run is a fault of the study's.
NOT_FINITE = re.compile(r"\bnan\b|\binf\b|finite", re.IGNORECASE)


class Arm(NamedTuple):
    """One way to train."""

    name: str
    options: tuple[str, ...]  # of trpo-fast train, or of bench.peer_learning train
    peer: bool = False
    threads: int = 1

    @property
    def imports(self) -> list[str]:
        """Options again for whoever reads a file of its, which names modules that nobody imports because it says so."""
        return [word for pair in pairwise(self.options) if pair[0] == "--import" for word in pair]

    def train(self, task: str, seed: int | str, timesteps: int | str, folder: Path | str) -> list[str]:
        """The command after ``python -m``."""
        common = ["--timesteps", str(timesteps), "--seed", str(seed), "--out", str(folder), *self.options]
        if self.peer:
            return ["bench.peer_learning", "train", task, *common]
        # An arm is what it says, and no preset that came later; one may ask for it: --preset auto.
        return [
            "trpo_fast",
            "train",
            task,
            "--threads",
            str(self.threads),
            "--eval-episodes",
            "0",
            "--preset",
            "none",
            *common,
        ]

    def described(self, tasks: Sequence[str]) -> str:
        """What it is, in words for whoever is about to run it: what its options do not show is easily forgotten."""
        words = shlex.join(self.options) or "the defaults"
        if self.peer:
            return words
        defaults = TRPOConfig()
        copies, steps = (
            int(next((value for name, value in pairwise(self.options) if name == option), default))
            for option, default in (("--num-envs", defaults.num_envs), ("--steps-per-env", defaults.steps_per_env))
        )
        words += f"; {copies} x {steps} = {copies * steps:,} timesteps an update"
        left_out = [task for task in tasks if task in presets.all_presets()]
        if left_out and "--preset" not in self.options:
            words += f"; without the presets of {', '.join(left_out)}"
        return words

    def resume(self, timesteps: int, folder: Path) -> list[str]:
        """As ``train``, from the latest checkpoint."""
        numbers = ["--timesteps", str(timesteps), "--threads", str(self.threads), "--eval-episodes", "0"]
        return ["trpo_fast", "train", "--resume", str(folder), *numbers, *self.imports]

    def evaluate(self, task: str, folder: Path | str) -> list[str]:
        """The command that prints the score."""
        episodes = 100 if task.startswith(CLASSIC_CONTROL) else 20
        common = [str(folder), "--episodes", str(episodes), "--seed", str(EVALUATION_SEED)]
        if self.peer:
            return ["bench.peer_learning", "eval", *common]
        return ["trpo_fast", "eval", *common, "--json", *self.imports]


class Run(NamedTuple):
    """One seed of one arm on one task."""

    arm: Arm
    task: str
    seed: int
    timesteps: int

    def __str__(self) -> str:
        return f"{self.arm.name} {self.task} seed {self.seed} {self.timesteps:,}"

    @property
    def key(self) -> tuple[str, ...]:
        """As the first columns of runs.csv have it."""
        return (self.arm.name, self.task, str(self.seed), str(self.timesteps))


class Study:
    """A folder of results with its plan.

    Raises SystemExit where the plan cannot be read or says something that means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "plan.toml"
        try:
            plan = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = sorted(found.parent.name for found in RESULTS.glob("*/plan.toml"))
            _refuse(f"study: {folder} given; want a folder with plan.toml, or one of {', '.join(known)}")
        except (OSError, tomllib.TOMLDecodeError) as error:
            _refuse(f"{path}: {error}")
        unknown = set(plan) - {"tasks", "seeds", "timesteps", "threads", "goals", "arms", "peers"}
        if unknown:
            given = ", ".join(sorted(unknown))
            _refuse(f"{path}: {given} given; want tasks, seeds, timesteps, threads, goals, arms and peers")
        try:
            self.tasks: list[str] = list(plan["tasks"])
            self.seeds = seeds_of(plan["seeds"])
            self.timesteps = int(plan["timesteps"])
            self.threads = threads = int(plan.get("threads", 1))
            self.goals = {task: float(goal) for task, goal in plan.get("goals", {}).items()}
            self.arms = [
                Arm(name, tuple(shlex.split(options)), threads=threads)
                for name, options in plan.get("arms", {}).items()
            ]
            self.arms += [
                Arm(name, ("--algorithm", algorithm), peer=True, threads=threads)
                for name, algorithm in plan.get("peers", {}).items()
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _refuse(f"{path}: {error!r}; want tasks, seeds as '0-4', timesteps, and tables arms and peers of strings")
        if threads < 1:
            _refuse(f"{path}: threads = {threads} given; want at least 1")
        if self.goals.keys() - self.tasks:
            _refuse(f"{path}: goals of {', '.join(self.goals.keys() - self.tasks)} given; want some of its tasks")
        for arm in self.arms:
            if not re.fullmatch(r"[\w.+-]+", arm.name):
                _refuse(f"{path}: arm {arm.name!r} given; want a name of letters, digits and . _ + -")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            _refuse(f"{path}: arms and peers share a name; want different ones")

    def runs(self) -> list[dict[str, str]]:
        """The rows of runs.csv."""
        return _read(self.folder / "runs.csv")

    def curves(self, task: str) -> list[dict[str, str]]:
        """The rows of a task's updates, of all arms and seeds."""
        return _read(self.folder / "curves" / f"{task}.csv")

    def curves_by_seed(self, arm: Arm, task: str) -> dict[str, list[dict[str, str]]]:
        """Rows of an arm's curves, for each seed."""
        found: dict[str, list[dict[str, str]]] = {}
        for row in self.curves(task):
            if row["arm"] == arm.name:
                found.setdefault(row["seed"], []).append(row)
        return found

    def check(self, arms: Iterable[Arm], made_with: Mapping[str, Mapping[str, Any]]) -> None:
        """SystemExit naming what differs, where an arm has rows that were made with something else."""
        have = {row["arm"] for row in self.runs()}
        known = self._described()
        for arm in arms:
            if arm.name not in have or arm.name not in known:
                continue
            before, now = _flat(known[arm.name]), _flat(made_with[arm.name])
            differing = [
                f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
                for name in sorted(before.keys() | now.keys())
                if before.get(name) != now.get(name)
            ]
            if differing:
                _refuse(
                    f"arm {arm.name}: the rows in {self.folder} were made with other settings: {'; '.join(differing)}; "
                    "want the same ones, or another name for the arm"
                )

    def add(
        self, run: Run, row: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], made: Mapping[str, Any]
    ) -> None:
        """Record one run; a kill leaves each file as it was or as it will be, and others may add at the same time."""
        with _alone_in(self.folder):
            known = self._described()
            if known.get(run.arm.name) != made:
                text = json.dumps({**known, run.arm.name: made}, indent=1, sort_keys=True) + "\n"
                _replace(self.folder / "study.json", text)
            path = self.folder / "curves" / f"{run.task}.csv"
            identity = {"arm": run.arm.name, "seed": str(run.seed)}
            others = [line for line in _read(path) if any(line[name] != value for name, value in identity.items())]
            _write(path, ("arm", "seed", *CURVE_COLUMNS), [*others, *({**identity, **point} for point in curve)])
            # Last: a run without a row here is made again.
            _write(self.folder / "runs.csv", RUN_COLUMNS, [*self.runs(), row])

    def _described(self) -> dict[str, Any]:
        path = self.folder / "study.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse(message: str) -> NoReturn:
    raise SystemExit(f"bench.learning: error: {message}")


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _flat(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in described.items():
        flat |= _flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def made_with(arm: Arm, commit: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What decides an arm's numbers, for study.json."""
    kept = {name: machine[name] for name in ("python", "versions")}
    commands = (arm.train("TASK", "SEED", "TIMESTEPS", "FOLDER"), arm.evaluate("TASK", "FOLDER"))
    return {
        "commit": "" if arm.peer else commit,
        **{name: f"python -m {shlex.join(command)}" for name, command in zip(("train", "eval"), commands, strict=True)},
        **kept,
    }


class Failure(RuntimeError):
    """A command ended with an error; the text is the end of its log."""

    def __init__(self, text: str, *, not_finite: bool) -> None:
        super().__init__(text)
        self.not_finite = not_finite


class Workers:
    """Runs commands, and ends those that still run when the study is stopped."""

    def __init__(self, lock: Any, threads: int = 1) -> None:
        self._lock = lock
        self._environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def call(self, arguments: Sequence[str], log: Path) -> str:
        """What the command prints; Failure where it ends with an error."""
        command = [sys.executable, "-m", *arguments]
        if self._stopped:
            raise Failure(f"{shlex.join(command)} was not begun, the study ends", not_finite=False)
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
                pass_fds=(self._lock.fileno(),),  # held as long as any run lives, also one that outlives the study
            )
            self._running.add(process)
            try:
                output, _ = process.communicate()
            finally:
                self._running.discard(process)
        if process.returncode:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            # Negative: a signal ended it, which says nothing about its numbers.
            not_finite = process.returncode > 0 and bool(tail and NOT_FINITE.search(tail[-1]))
            text = "\n".join([f"{shlex.join(command)} ended with {process.returncode}:", *tail])
            raise Failure(text, not_finite=not_finite)
        return output

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        self._stopped = True
        for process in list(self._running):
            process.terminate()


def execute(run: Run, folder: Path, workers: Workers) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Train and evaluate: the score and the curve. NaN, in training or evaluation, is a score of NaN."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")

    def evaluation() -> dict[str, Any]:
        output = workers.call(run.arm.evaluate(run.task, folder), log=folder.with_suffix(".eval.log"))
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    try:
        complete = any((folder / name).exists() for name in ("model.trpo", "model.zip"))
        score = evaluation() if complete else {"num_timesteps": 0}
        if score["num_timesteps"] < run.timesteps:
            if not run.arm.peer and any((folder / "checkpoints").glob("*.trpo")):
                workers.call(run.arm.resume(run.timesteps, folder), log)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                workers.call(run.arm.train(run.task, run.seed, run.timesteps, folder), log)
            score = evaluation()
    except Failure as failure:
        if not failure.not_finite:
            raise
        score = {"mean": float("nan")}
    progress = [row for row in _read(folder / "progress.csv") if row["time/total_timesteps"]]
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


def seeds_of(text: str) -> list[int]:
    """Of ``0-4`` or ``0,3,7``."""
    seeds: list[int] = []
    for part in str(text).split(","):
        first, _, last = part.partition("-")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def hours(runs: Sequence[Run], rows: Sequence[Mapping[str, str]]) -> tuple[float, int]:
    """Of one core for the runs, at the rates of the rows nearest to each; and how many have none to go by."""
    total, unknown = 0.0, 0
    peers = {run.arm.name for run in runs if run.arm.peer}
    for run in runs:
        alike = [row for row in rows if float(row["seconds"] or 0) and (row["arm"] in peers) == run.arm.peer]
        same_task = [row for row in alike if row["task"] == run.task]
        same = [row for row in same_task if row["arm"] == run.arm.name]
        nearest = same or same_task or alike
        if not nearest:
            unknown += 1
            continue
        seconds = sum(float(row["seconds"]) for row in nearest) / sum(int(row["timesteps"]) for row in nearest)
        total += run.timesteps * seconds / 3600
    return total, unknown


def carry_out(study: Study, runs: Sequence[Run], work: Path, processes: int) -> None:
    """Make the runs, `processes` at a time."""
    commit = source()
    arms = list(dict.fromkeys(run.arm for run in runs))
    machine = describe()
    made = {arm.name: made_with(arm, commit, machine) for arm in arms}
    cpu = f"{kind_of(machine)}, {machine['instruction_set']}"
    study.check(arms, made)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _refuse(f"--work: {work} is at work already, or a run of it outlived its study; want another, or wait")
        workers = Workers(lock, study.threads)

        def one(run: Run) -> Run:
            folder = work / run.arm.name / f"{run.task}-seed{run.seed}"
            if any("schedule" in option for option in run.arm.options):  # a longer run is another one from the start
                folder = folder.with_name(f"{folder.name}-{run.timesteps}")
            score, curve = execute(run, folder, workers)
            row: dict[str, Any] = dict(zip(RUN_COLUMNS, run.key, strict=False))
            row |= {name: _short(score.get(name, "")) for name in (*SCORE, *TRAINING)}
            row |= {"seconds": curve[-1]["seconds"] if curve else ""}
            row |= {"commit": made[run.arm.name]["commit"], "cpu": cpu}
            study.add(run, row, curve, made[run.arm.name])
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
            _refuse(f"{option}: {', '.join(missing)} given; want some of {', '.join(known)}")
    done = {tuple(row[name] for name in RUN_COLUMNS[:4]) for row in study.runs()}
    timesteps = int(options.timesteps or study.timesteps)
    runs = [
        Run(arms[name], task, seed, timesteps)
        for seed in options.seeds or study.seeds
        for task in options.tasks or study.tasks
        for name in options.arms or arms
    ]
    return [run for run in runs if run.key not in done]


def main(argv: Sequence[str] | None = None) -> int:
    """Go on with a study."""
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", help=f"a name under {os.path.relpath(RESULTS)}, or a folder with plan.toml")
    parser.add_argument("--arms", nargs="+", help="only these, in this order")
    parser.add_argument("--tasks", nargs="+", help="only these, in this order")
    parser.add_argument("--seeds", type=seeds_of, help="instead of the plan's, as 0-4 or 0,3,7")
    parser.add_argument("--timesteps", type=float, help="instead of the plan's")
    parser.add_argument("--processes", type=int, help="runs at a time (default: the cores by the plan's threads)")
    parser.add_argument("--work", type=Path, help="the runs' own folders (default runs/learning/STUDY)")
    parser.add_argument("--plan-only", action="store_true", help="train nothing")
    options = parser.parse_args(argv)
    named = RESULTS / options.study
    study = Study(named if named.is_dir() else Path(options.study))
    runs = chosen(study, options)
    processes = options.processes or max(1, (os.cpu_count() or 1) // study.threads)
    total, unknown = hours(runs, study.runs())
    print(f"{study.folder.name}: {len(runs)} runs are missing, {sum(run.timesteps for run in runs):,} steps")
    for arm in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == arm]
        tasks, seeds = (dict.fromkeys(getattr(run, name) for run in own) for name in ("task", "seed"))
        print(f"  {arm.name}: {arm.described(list(tasks))}; {', '.join(tasks)}; seeds {list(seeds)}")
    each = f"{processes} {'process' if processes == 1 else 'processes'}"
    known = f"{total / processes:.1f} hours of {each} at the rates of the runs so far"
    print(f"  {known}{f', and {unknown} runs that none of them is like' if unknown else ''}", flush=True)
    if runs and not options.plan_only:
        carry_out(study, runs, options.work or Path("runs/learning") / study.folder.name, processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
