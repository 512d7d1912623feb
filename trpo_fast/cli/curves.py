"""Learning curves of runs as numbers: which runs a command means, and those of one setting as one curve."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast import statistics
from trpo_fast.algorithm.config import with_what_was_before
from trpo_fast.cli import output
from trpo_fast.cli.arguments import SAME_BITS
from trpo_fast.cli.errors import CommandError, describe
from trpo_fast.cli.output import say
from trpo_fast.cli.pages import names_of
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.progress import as_columns, read_progress

RESAMPLES = 2_000  # for every point of a curve; its band is wider than their error

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """A run's log, and its curve: the mean training return wherever there is one."""

    folder: RunFolder
    environment: str
    name: str
    columns: Mapping[str, Numbers]
    steps: Numbers
    returns: Numbers


class Curve(NamedTuple):
    """One line of a picture: of a run, or of several seeds."""

    label: str
    environment: str
    steps: Numbers
    returns: Numbers
    interval: tuple[Numbers, Numbers] | None = None
    seeds: int | None = None  # None: one run, whose curve it is
    notes: Sequence[str] = ()

    @property
    def of_seeds(self) -> str:
        """How many seeds, in words."""
        return f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"

    @property
    def interval_at_end(self) -> str:
        """The interval at the last timestep in words; empty where there is none."""
        return "" if self.interval is None else f"{self.interval[0][-1]:,.4g} to {self.interval[1][-1]:,.4g}"

    @property
    def summary(self) -> str:
        """What the curve of several seeds says at its end."""
        text = (
            f"{self.label}: {self.returns[-1]:,.4g} at {self.steps[-1]:,.0f} timesteps, interquartile mean of "
            f"{self.of_seeds}"
        )
        if self.interval is not None:
            text += f", 95% interval {self.interval_at_end}"
        return "; ".join([text, *self.notes])


class Improvement(NamedTuple):
    """How often one setting does better than another."""

    better: str
    than: str
    where: str  # environments and timesteps
    found: statistics.Estimate

    @property
    def interval(self) -> str:
        """The interval in words."""
        if self.found.interval is None:
            return f"none, which needs {statistics.FEWEST_SEEDS} seeds of each"
        return f"{self.found.interval[0]:.2f} to {self.found.interval[1]:.2f}"

    @property
    def summary(self) -> str:
        """All of it in a line."""
        found = f"probability {self.found.value:.2f}, 95% interval {self.interval}"
        return f"{self.better} beats {self.than} with {found} ({self.where})"


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs that are named, and those in folders of runs; CommandError for what is neither, or is damaged.

    In a folder of runs those that have no finished episode are left out, and a line on stderr says so.
    """
    found: list[tuple[RunFolder, bool]] = []
    for path in paths:
        if Path(path, "progress.csv").exists() or not os.path.isdir(path):
            found.append((RunFolder(path), True))
            continue
        inside = list(_runs_below(path))
        if not inside:
            raise CommandError(f"run: {path} given; want a run's folder with progress.csv, or a folder of such")
        found += [(RunFolder(run), False) for run in inside]
    names = names_of([folder.path for folder, _ in found])
    with_names = zip(found, names, strict=True)
    runs = [read_run(folder, name) for (folder, _), name in output.progress(with_names, "run", len(found))]
    kept = [run for run, (_, is_named) in zip(runs, found, strict=True) if is_named or len(run.returns)]
    if not kept:
        raise CommandError(f"run: no run in {', '.join(paths)} has a finished episode; want runs with a return to draw")
    for run in runs:
        if run not in kept:
            say(f"{run.folder.path} has no finished episode: left out", sys.stderr)
    return kept


def _runs_below(path: str) -> Iterator[str]:
    for folder, below, files in os.walk(path):
        below.sort()
        if "progress.csv" in files:
            below.clear()  # a run holds no other
            yield folder


def read_run(folder: RunFolder, name: str) -> Run:
    """One run, called so; CommandError as of `read_log`."""
    rows = read_log(folder)
    # Before the first episode ends there is no return yet.
    known = as_columns(row for row in rows if row["rollout/ep_rew_mean"])
    nothing = np.empty(0)
    steps, returns = (known.get(column, nothing) for column in ("time/total_timesteps", "rollout/ep_rew_mean"))
    return Run(folder, folder.environment_id(), name, as_columns(rows), steps, returns)


def read_log(folder: RunFolder) -> list[dict[str, str]]:
    """The rows of a run's log; CommandError where there is none, or it is damaged or cannot be read."""
    try:
        return read_progress(folder.progress)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandError(f"run: {folder.path} given; want a run's folder with progress.csv") from error
    except OSError as error:
        raise CommandError(f"{folder.progress} cannot be read: {describe(error)}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but their seed."""

    settings: Mapping[str, Any]  # of TRPOConfig
    recipe: Any  # of the environment
    runs: Sequence[Run]

    @property
    def environment(self) -> str:
        """The id, as a title has it."""
        return str(self.recipe["id"]) if isinstance(self.recipe, dict) and "id" in self.recipe else "environment"


class Groups:
    """All runs by what they have in common but the seed; CommandError where two have the seed in common, too.

    Attributes
    ----------
    groups : list of Group
        In the order of their first runs.
    lowest : dict
        The lowest return of each environment, which counts for what is NaN.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        found: dict[str, list[Run]] = {}
        seeds: dict[tuple[str, Any], Run] = {}
        for run in runs:
            if not len(run.returns):
                raise CommandError(f"run: {run.folder.path} has no finished episode; want runs with a return to draw")
            content = run.folder.read_config()
            key, seed = json.dumps(_what_decides(content), sort_keys=True), content.get("seed")
            twin = seeds.setdefault((key, seed), run)
            if twin is not run:
                raise CommandError(
                    f"--group seed: {twin.folder.path} and {run.folder.path} have the same settings and the same seed, "
                    f"{seed}; want one of them"
                )
            found.setdefault(key, []).append(run)
        self.groups = [Group(settings, recipe, found[key]) for key in found for settings, recipe in [json.loads(key)]]
        self.lowest: dict[str, float] = {}
        for run in runs:
            known = run.returns[~np.isnan(run.returns)]
            self.lowest[run.environment] = min([self.lowest.get(run.environment, np.inf), *known])
        unknown = [environment for environment, value in self.lowest.items() if np.isinf(value)]
        if unknown:
            raise CommandError(f"run: every return of {', '.join(unknown)} is NaN; want runs with a return to draw")
        names = dict.fromkeys(name for group in self.groups for name in group.settings)
        first = self.groups[0].settings
        self._differing = [n for n in names if any(group.settings.get(n) != first.get(n) for group in self.groups)]

    def curves(self) -> list[Curve]:
        """One curve for each group, with a 95% interval over its seeds."""
        return [self._curve(group) for group in self.groups]

    def improvements(self) -> list[Improvement]:
        """For every two settings: how probably the first does better at the last timestep that all runs have.

        Over the environments that both have runs of; nothing of settings that have none in common.
        """
        settings: dict[str, dict[str, Group]] = {}  # groups by the settings, then by the environment
        for group in self.groups:
            same = settings.setdefault(json.dumps(group.settings, sort_keys=True), {})
            same[json.dumps(group.recipe, sort_keys=True)] = group
        found = (self._improvement(*pair) for pair in itertools.combinations(settings.values(), 2))
        return [improvement for improvement in found if improvement is not None]

    def _improvement(self, one: Mapping[str, Group], other: Mapping[str, Group]) -> Improvement | None:
        tasks, where = [], []
        for recipe in one:
            if recipe not in other:
                continue
            pair = one[recipe], other[recipe]
            try:
                grid, returns = self._on_one_grid([run for group in pair for run in group.runs], points=2)
            except ValueError:
                continue  # no timestep that all of them have
            tasks.append((returns[: len(pair[0].runs), -1], returns[len(pair[0].runs) :, -1]))
            where.append(f"{pair[0].environment} at {grid[-1]:,.0f} timesteps")
        if not tasks:
            return None
        better, than = (self._settings_of(next(iter(groups.values()))) for groups in (one, other))
        return Improvement(better, than, ", ".join(where), statistics.probability_of_improvement(tasks))

    def _settings_of(self, group: Group) -> str:
        return ", ".join(f"{name} {group.settings.get(name)}" for name in self._differing)

    def _on_one_grid(self, runs: Sequence[Run], **options: int) -> tuple[Numbers, Numbers]:
        grid, returns = statistics.on_one_grid([(run.steps, run.returns) for run in runs], **options)
        returns[np.isnan(returns)] = self.lowest[runs[0].environment]
        return grid, returns

    def _curve(self, group: Group) -> Curve:
        try:
            grid, returns = self._on_one_grid(group.runs)
        except ValueError as error:
            paths = ", ".join(str(run.folder.path) for run in group.runs)
            raise CommandError(f"--group seed: {paths}: {error}") from error
        notes = [
            f"{run.folder.path} has NaN, which counts as the lowest return, {self.lowest[run.environment]:,.4g}"
            for run in group.runs
            if np.isnan(run.returns).any()
        ]
        found = statistics.estimate([returns], resamples=RESAMPLES)
        if found.interval is None:
            notes.append(f"no interval, which needs {statistics.FEWEST_SEEDS} seeds")
        label = ", ".join(filter(None, [group.environment, self._settings_of(group)]))
        return Curve(label, group.environment, grid, found.value, found.interval, len(group.runs), notes)


def _what_decides(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Settings and environment of a run, without its seed and its length, and without what changes no bit of it."""
    config, environment = content.get("config"), content.get("environment")
    if isinstance(environment, dict) and environment.get("vectorization") in (None, *SAME_BITS):
        environment = {**environment, "vectorization": SAME_BITS[0], "num_workers": None}
    return with_what_was_before(config) if isinstance(config, dict) else {}, environment
