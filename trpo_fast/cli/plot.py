"""``trpo-fast plot``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from trpo_fast.algorithm.logging import read_progress
from trpo_fast.cli.errors import CommandError, describe
from trpo_fast.cli.run_folder import RunFolder


class MatplotlibMissing(CommandError):
    """Curves need matplotlib."""

    def __init__(self) -> None:
        super().__init__("curves need matplotlib: pip install 'trpo-fast[plot]'")


def run(arguments: argparse.Namespace) -> int:
    """Draw one picture of all runs."""
    folders = [RunFolder(path) for path in arguments.runs]
    out = Path(arguments.out) if arguments.out else folders[0].curve if len(folders) == 1 else Path("curves.png")
    draw(folders, out)
    print(out)
    return 0


def draw(folders: Sequence[RunFolder], out: Path) -> None:
    """Draw the mean training return of each run over its timesteps as PNG.

    Raises MatplotlibMissing, or CommandError for a run without progress or a file that cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MatplotlibMissing from None
    # A figure of its own, without pyplot: no window system, and nothing left open.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    environments = []
    for folder in folders:
        steps, returns = _curve(folder)
        axes.plot(steps, returns, label=os.path.basename(os.path.abspath(folder.path)))
        environments.append(folder.environment_id())
    axes.set_xlabel("timesteps")
    axes.set_ylabel("return (mean of the last 100 episodes)")
    axes.set_title(", ".join(dict.fromkeys(environments)))
    axes.grid(alpha=0.3)
    if len(folders) > 1:
        axes.legend()
    try:
        figure.savefig(out, format="png", dpi=150)
    except OSError as error:
        raise CommandError(f"--out: {out} cannot be written: {error.strerror or error}") from error


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
