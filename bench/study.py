"""A learning study: a folder with a plan of named arms on tasks and seeds, and the rows of the runs that were made.

A plan names tasks, seeds, timesteps and arms: `[arms]` are options of ``trpo-fast train``, `[peers]` algorithms of
bench.peer_learning; `threads` are those of a run, `peer_threads` of a peer's, `processes` how many runs go at a time,
and `[goals]` training returns by task, the times to which are compared. Beside it are ``runs.csv``, a
row a run, ``curves/TASK.csv``, the rows of its updates (at most 150 a run), and ``study.json``, what each arm was made
with. bench.learning makes what is missing, bench.learning_report tables and pictures.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from trpo_fast.algorithm import presets
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.model_file import replace_file
from trpo_fast.tuning.trial import EVALUATION_SEED

RESULTS = Path(__file__).with_name("results") / "learning"
CLASSIC_CONTROL = ("CartPole", "Acrobot", "MountainCar", "Pendulum", "LunarLander")
SCORE = ("mean", "std", "min", "max", "mean_length", "episodes")
# Of the 100 latest training episodes: at the end, and averaged over all updates.
TRAINING = ("training_last", "training_mean")
RUN_COLUMNS = ("arm", "task", "seed", "timesteps", *SCORE, *TRAINING, "seconds", "commit", "cpu", "cpu_share")
OWN_PACKAGES = ("trpo-fast", "scipy")  # that no peer uses
PEERS_PACKAGES = ("stable_baselines3", "sb3_contrib")
CURVE_COLUMNS = {  # in curves/TASK.csv, and in progress.csv
    "timesteps": "time/total_timesteps",
    "seconds": "time/time_elapsed",
    "return": "rollout/ep_rew_mean",
    "length": "rollout/ep_len_mean",
    "kl": "train/kl_divergence_loss",
    "explained_variance": "train/explained_variance",
    "std": "train/std",
}


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
            return ["bench.peer_learning", "train", task, "--threads", str(self.threads), *common]
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

    @property
    def folder(self) -> Path:
        """Its own in a study's work folder. A longer run is another one: schedules end with the training."""
        return Path(self.arm.name) / f"{self.task}-seed{self.seed}-{self.timesteps}"


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
            refuse(f"study: {folder} given; want a folder with plan.toml, or one of {', '.join(known)}")
        except (OSError, tomllib.TOMLDecodeError) as error:
            refuse(f"{path}: {error}")
        known = ["tasks", "seeds", "timesteps", "threads", "peer_threads", "processes", "goals", "arms", "peers"]
        unknown = set(plan) - set(known)
        if unknown:
            refuse(f"{path}: {', '.join(sorted(unknown))} given; want {', '.join(known[:-1])} and {known[-1]}")
        try:
            self.tasks = _names(plan["tasks"])
            self.seeds = seeds_of(plan["seeds"])
            self.timesteps = int(plan["timesteps"])
            self.threads = threads = int(plan.get("threads", 1))
            peer_threads = int(plan.get("peer_threads", threads))
            self.processes = int(plan.get("processes", max(1, (os.cpu_count() or 1) // max(1, threads))))
            self.goals = {task: float(goal) for task, goal in plan.get("goals", {}).items()}
            self.arms = [
                Arm(name, tuple(shlex.split(options)), threads=threads)
                for name, options in plan.get("arms", {}).items()
            ]
            self.arms += [
                Arm(name, ("--algorithm", algorithm), peer=True, threads=peer_threads)
                for name, algorithm in plan.get("peers", {}).items()
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            refuse(f"{path}: {error!r}; want tasks in a list, seeds as '0-4', timesteps, and tables of strings")
        numbers = {"threads": threads, "peer_threads": peer_threads, "processes": self.processes}
        for name, value in {**numbers, "timesteps": self.timesteps}.items():
            if value < 1:
                refuse(f"{path}: {name} = {value} given; want at least 1")
        if self.goals.keys() - self.tasks:
            refuse(f"{path}: goals of {', '.join(self.goals.keys() - self.tasks)} given; want some of its tasks")
        for arm in self.arms:
            if not re.fullmatch(r"[\w.+-]+", arm.name):
                refuse(f"{path}: arm {arm.name!r} given; want a name of letters, digits and . _ + -")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            refuse(f"{path}: arms and peers share a name; want different ones")

    def runs(self) -> list[dict[str, str]]:
        """The rows of runs.csv."""
        return read_rows(self.folder / "runs.csv")

    def done(self) -> set[tuple[str, ...]]:
        """Keys of the runs that have a row."""
        return {tuple(row[name] for name in RUN_COLUMNS[:4]) for row in self.runs()}

    def curves(self, task: str) -> list[dict[str, str]]:
        """The rows of a task's updates, of all arms and seeds."""
        return read_rows(self.folder / "curves" / f"{task}.csv")

    def curves_by_seed(self, arm: Arm, task: str) -> dict[str, list[dict[str, str]]]:
        """Rows of an arm's curves, for each seed."""
        found: dict[str, list[dict[str, str]]] = {}
        for row in self.curves(task):
            if row["arm"] == arm.name:
                found.setdefault(row["seed"], []).append(row)
        return found

    def longest(self, arm: str, task: str, seed: str) -> dict[str, str] | None:
        """The row of the seed's run of most timesteps, whose curve there is."""
        own = [row for row in self.runs() if (row["arm"], row["task"], row["seed"]) == (arm, task, seed)]
        return max(own, key=lambda row: int(row["timesteps"]), default=None)

    def check(self, arms: Iterable[Arm], made: Mapping[str, Mapping[str, Any]]) -> None:
        """SystemExit naming what differs, where an arm has rows that were made with something else."""
        known = self._described()
        for arm in arms:
            tasks = {row["task"] for row in self.runs() if row["arm"] == arm.name}
            if not tasks or arm.name not in known:
                continue
            before, now = dict(known[arm.name]), dict(made[arm.name])
            # Once every package was recorded with every arm.
            before["versions"] = {
                name: version
                for name, version in before.get("versions", {}).items()
                if name not in (OWN_PACKAGES if arm.peer else PEERS_PACKAGES)
            }
            if arm.peer:  # on the tasks that are asked for now, of those that have rows
                now["settings"] = {task: chosen for task, chosen in now["settings"].items() if task in tasks}
                recorded = before.get("settings", {})
                before["settings"] = {task: chosen for task, chosen in recorded.items() if task in now["settings"]}
            same_or_refuse(f"arm {arm.name}: the rows in {self.folder}", before, now)

    def add(
        self, run: Run, row: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], made: Mapping[str, Any]
    ) -> None:
        """Record one run; a kill leaves each file as it was or as it will be, and others may add at the same time.

        The curve of a seed is that of the run that was asked for most timesteps. A run that is there stays as it is.
        """
        with _alone_in(self.folder):
            if run.key in self.done():
                return
            known = self._described()
            before, now = known.get(run.arm.name, {}), dict(made)
            if run.arm.peer:
                now["settings"] = before.get("settings", {}) | now["settings"]  # of other tasks, too
            if before != now:
                text = json.dumps({**known, run.arm.name: now}, indent=1, sort_keys=True) + "\n"
                replace_file(self.folder / "study.json", text.encode())
            path = self.folder / "curves" / f"{run.task}.csv"
            identity = {"arm": run.arm.name, "seed": str(run.seed)}
            longer = self.longest(run.arm.name, run.task, str(run.seed))
            if longer is None or int(longer["timesteps"]) <= run.timesteps:
                others = [line for line in read_rows(path) if any(line[key] != identity[key] for key in identity)]
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


def refuse(message: str) -> NoReturn:
    """SystemExit with the message."""
    raise SystemExit(f"bench.learning: error: {message}")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Of a CSV file; none where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, text.getvalue().encode())


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"tasks = {value!r}")
    return value


def same_or_refuse(
    what: str, before: Mapping[str, Any], now: Mapping[str, Any], otherwise: str = "another name for the arm"
) -> None:
    """SystemExit where what decides numbers, `made_with`, is another now; what is not there is None."""
    then, here = _flat(before), _flat(now)
    differing = [
        f"{name} was {then.get(name)!r}, is {here.get(name)!r}"
        for name in then.keys() | here.keys()
        if (name in then, then.get(name)) != (name in here, here.get(name))
    ]
    if differing:
        refuse(
            f"{what} were made with other settings: {'; '.join(sorted(differing))}; want the same ones, or {otherwise}"
        )


def _flat(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in described.items():
        flat |= _flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def made_with(arm: Arm, tasks: Iterable[str], commit: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What decides an arm's numbers on these tasks, for study.json.

    Of the packages those that it uses, and a peer's settings, which its command does not show.
    """
    commands = (arm.train("TASK", "SEED", "TIMESTEPS", "FOLDER"), arm.evaluate("TASK", "FOLDER"))
    others = OWN_PACKAGES if arm.peer else PEERS_PACKAGES
    made = {
        "commit": "" if arm.peer else commit,
        **{name: f"python -m {shlex.join(command)}" for name, command in zip(("train", "eval"), commands, strict=True)},
        "python": machine["python"],
        "versions": {name: version for name, version in machine["versions"].items() if name not in others},
    }
    if arm.peer:
        from bench.peer_learning import recorded_settings

        made["settings"] = {task: recorded_settings(arm.options[-1], task) for task in tasks}
    return made


def seeds_of(text: str) -> list[int]:
    """Of ``0-4`` or ``0,3,7``; ValueError where that is no seed."""
    seeds: list[int] = []
    for part in str(text).split(","):
        first, _, last = part.partition("-")
        own = range(int(first), int(last or first) + 1)
        if not own:
            raise ValueError(f"seeds: {part} given; want the first one first, as 0-4")
        seeds.extend(own)
    return seeds
