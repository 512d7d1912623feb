"""``trpo-fast plot``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trpo_fast import statistics
from trpo_fast.cli.arguments import SAME_BITS
from trpo_fast.cli.errors import CommandError, describe
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.progress import read_progress

RESAMPLES = 2_000  # for every point of a curve; its band is wider than their error


class MatplotlibMissing(CommandError):
    """Curves need matplotlib."""

    def __init__(self) -> None:
        super().__init__("curves need matplotlib: pip install 'trpo-fast[plot]'")


def run(arguments: argparse.Namespace) -> int:
    """Draw one picture of all runs."""
    folders = [RunFolder(path) for path in arguments.runs]
    usual = folders[0].shown(folders[0].curve) if len(folders) == 1 else Path("curves.png")
    out = Path(arguments.out) if arguments.out else usual
    grouped = _grouped(folders) if arguments.group else None
    if grouped is None:
        draw(folders, out)
    else:
        _save(grouped, folders, out, "return (last 100 episodes; interquartile mean of seeds)")
        for curve in grouped:
            print(curve.summary)
    print(out)
    return 0


class Curve(NamedTuple):
    """One line of the picture."""

    label: str
    steps: ArrayLike
    returns: ArrayLike
    interval: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    summary: str = ""


def draw(folders: Sequence[RunFolder], out: Path) -> None:
    """Draw the mean training return of each run over its timesteps as PNG.

    Raises MatplotlibMissing, or CommandError for a run without progress or a file that cannot be written.
    """
    curves = [Curve(_name(folder), *_curve(folder)) for folder in folders]
    _save(curves, folders, out, "return (mean of the last 100 episodes)")


def _save(curves: Sequence[Curve], folders: Sequence[RunFolder], out: Path, what: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MatplotlibMissing from None
    # A figure of its own, without pyplot: no window system, and nothing left open.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        (line,) = axes.plot(curve.steps, curve.returns, label=curve.label)
        if curve.interval is not None:
            axes.fill_between(curve.steps, *curve.interval, color=line.get_color(), alpha=0.2, lw=0)
    axes.set_xlabel("timesteps")
    axes.set_ylabel(what)
    axes.set_title(", ".join(dict.fromkeys(folder.environment_id() for folder in folders)))
    axes.grid(alpha=0.3)
    if len(folders) > 1:
        axes.legend()
    try:
        figure.savefig(out, format="png", dpi=150)
    except OSError as error:
        raise CommandError(f"--out: {out} cannot be written: {error.strerror or error}") from error


def _grouped(folders: Sequence[RunFolder]) -> list[Curve]:
    """One curve for the runs that differ in nothing but their seed, with a 95% interval over the seeds."""
    groups: dict[str, list[RunFolder]] = {}
    contents = {id(folder): folder.read_config() for folder in folders}
    for folder in folders:
        settings = _settings(contents[id(folder)])
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(folder)
    for group in groups.values():
        by_seed: dict[Any, RunFolder] = {}
        for folder in group:
            seed = contents[id(folder)].get("seed")
            if seed in by_seed:
                raise CommandError(
                    f"--group seed: {by_seed[seed].path} and {folder.path} have the same settings and the same seed, "
                    f"{seed}; want one of them"
                )
            by_seed[seed] = folder
    curves = {id(folder): _numbers(folder) for folder in folders}
    lowest: dict[str, float] = {}  # return of each environment, for what is NaN
    for folder in folders:
        known, env = curves[id(folder)][1], folder.environment_id()
        lowest[env] = min([lowest.get(env, np.inf), *known[~np.isnan(known)]])
    unknown = [env for env, value in lowest.items() if np.isinf(value)]
    if unknown:
        raise CommandError(f"run: every return of {', '.join(unknown)} is NaN; want runs with a return to draw")
    labels = _labels([json.loads(key) for key in groups])
    made = []
    for label, group in zip(labels, groups.values(), strict=True):
        own = [curves[id(folder)] for folder in group]
        try:
            grid, returns = statistics.on_one_grid(own)
        except ValueError as error:
            paths = ", ".join(str(folder.path) for folder in group)
            raise CommandError(f"--group seed: {paths}: {error}") from error
        notes = [
            f"{folder.path} has NaN, which counts as the lowest return, {lowest[folder.environment_id()]:,.4g}"
            for folder, (_, values) in zip(group, own, strict=True)
            if np.isnan(values).any()
        ]
        returns[np.isnan(returns)] = lowest[group[0].environment_id()]
        found = statistics.estimate([returns], resamples=RESAMPLES)
        seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
        summary = f"{label}: {found.value[-1]:,.4g} at {grid[-1]:,.0f} timesteps, interquartile mean of {seeds}"
        if found.interval is None:
            notes.append(f"no interval, which needs {statistics.FEWEST_SEEDS} seeds")
        else:
            summary += f", 95% interval {found.interval[0][-1]:,.4g} to {found.interval[1][-1]:,.4g}"
        named = f"{label}, {seeds}" if found.interval is not None else f"{label}, {seeds}, no interval"
        made.append(Curve(named, grid, found.value, found.interval, "; ".join([summary, *notes])))
    return made


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """What a run did but for its seed and its length, and for what changes no bit of it."""
    config, environment = content.get("config"), content.get("environment")
    if isinstance(environment, dict) and environment.get("vectorization") in (None, *SAME_BITS):
        environment = {**environment, "vectorization": SAME_BITS[0], "num_workers": None}
    return {"environment": environment, **(config if isinstance(config, dict) else {})}


def _labels(groups: Sequence[dict[str, Any]]) -> list[str]:
    """The environment of each group, and the settings in which not all groups agree."""
    names = dict.fromkeys(name for settings in groups for name in settings if name != "environment")
    differing = [name for name in names if any(settings.get(name) != groups[0].get(name) for settings in groups)]
    return [
        ", ".join([_environment(settings), *(f"{name} {settings.get(name)}" for name in differing)])
        for settings in groups
    ]


def _environment(settings: dict[str, Any]) -> str:
    recipe = settings["environment"]
    return str(recipe["id"]) if isinstance(recipe, dict) and "id" in recipe else "environment"


def _name(folder: RunFolder) -> str:
    return os.path.basename(os.path.abspath(folder.path))


def _numbers(folder: RunFolder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps, returns = (np.array(values, np.float64) for values in _curve(folder))
    if not len(returns):
        raise CommandError(f"run: {folder.path} has no finished episode; want runs with a return to draw")
    return steps, returns


def _curve(folder: RunFolder) -> tuple[list[int], list[float]]:
    try:
        rows = read_progress(folder.progress)
    except FileNotFoundError as error:
        raise CommandError(f"run: {folder.path} given; want a run's folder with progress.csv") from error
    except OSError as error:
        raise CommandError(f"{folder.progress} cannot be read: {describe(error)}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    # Before the first episode ends there is no return yet.
    known = [row for row in rows if row["rollout/ep_rew_mean"]]
    return [int(row["time/total_timesteps"]) for row in known], [float(row["rollout/ep_rew_mean"]) for row in known]
