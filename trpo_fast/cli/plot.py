"""``trpo-fast plot``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trpo_fast.cli import pages
from trpo_fast.cli.curves import Curve, Groups, Improvement, Run, read_run, read_runs
from trpo_fast.cli.output import say
from trpo_fast.cli.pages import MatplotlibMissing
from trpo_fast.cli.run_folder import RunFolder

__all__ = ["MatplotlibMissing", "draw", "run"]

WIDEST = 3  # panels beside each other
MANY_CURVES = 10  # colors of matplotlib's cycle


def run(arguments: argparse.Namespace) -> int:
    """Draw one picture, or write one page, of all runs."""
    if arguments.out:
        pages.require_suffix(Path(arguments.out), (*pages.PICTURES, ".html"))
    runs = read_runs(arguments.runs)
    usual = runs[0].folder.shown(runs[0].folder.curve) if len(runs) == 1 else Path("curves.png")
    out = Path(arguments.out) if arguments.out else usual
    curves, improvements, what = _single(runs), list[Improvement](), "return (mean of the last 100 episodes)"
    if arguments.group:
        groups = Groups(runs)
        curves, improvements = groups.curves(), groups.improvements()
        what = "return (last 100 episodes; interquartile mean of seeds)"
    if out.suffix.lower() == ".html":
        pages.write(out, _page(runs, curves, improvements, what))
    else:
        pages.save_picture(_figure(curves, what), out)
    if arguments.group:
        for summary in [curve.summary for curve in curves] + [found.summary for found in improvements]:
            say(str(summary))
    say(str(out))
    return 0


def draw(folder: RunFolder, out: Path) -> None:
    """Draw the mean training return of a run over its timesteps, as what the suffix of `out` says.

    Raises MatplotlibMissing, or CommandError for a run without progress or a file that cannot be written.
    """
    runs = [read_run(folder, *pages.names_of([folder.path]))]
    pages.save_picture(_figure(_single(runs), "return (mean of the last 100 episodes)"), out)


def _single(runs: Sequence[Run]) -> list[Curve]:
    return [Curve(run.name, run.environment, run.steps, run.returns) for run in runs]


def _figure(curves: Sequence[Curve], what: str) -> Any:
    """A panel for each environment."""
    environments = list(dict.fromkeys(curve.environment for curve in curves))
    across = min(WIDEST, len(environments))
    down = math.ceil(len(environments) / across)
    alone = len(environments) == 1
    margins = (0.85, 0.2, 0.55, 0.35)
    figure = pages.new_figure(*((7, 4.5) if alone else (5, 3.6)), margins, across, down)
    for number, environment in enumerate(environments, start=1):
        axes = figure.add_subplot(down, across, number)
        own = [curve for curve in curves if curve.environment == environment]
        if len(own) > MANY_CURVES:
            import matplotlib

            axes.set_prop_cycle(color=matplotlib.colormaps["turbo"](np.linspace(0, 1, len(own))))
        for curve in own:
            (line,) = axes.plot(curve.steps, curve.returns, label=_named(curve))
            if curve.interval is not None:
                axes.fill_between(curve.steps, *curve.interval, color=line.get_color(), alpha=0.2, lw=0)
        pages.finish_axes(axes)
        axes.set_ylabel(what if alone else "return")
        axes.set_title(environment)
        if len(curves) > 1:
            is_short = alone and len(own) < 5 and max(len(_named(curve)) for curve in own) < 40
            axes.legend(fontsize="medium" if is_short else "x-small")
    return figure


def _named(curve: Curve) -> str:
    """The label of a line: its settings, and how many seeds it is of; the panel's title has the environment."""
    if curve.seeds is None:
        return curve.label
    words = [curve.label, curve.of_seeds, *([] if curve.interval is not None else ["no interval"])]
    return ", ".join(words).removeprefix(f"{curve.environment}, ")


def _page(runs: Sequence[Run], curves: Sequence[Curve], improvements: Sequence[Improvement], what: str) -> bytes:
    parts = [pages.picture(_figure(curves, what), "curves")]
    grouped = [curve for curve in curves if curve.seeds is not None]
    if grouped:
        parts += [
            "<h2>Settings</h2>",
            pages.table(
                ("setting", "seeds", "timesteps", "interquartile mean", "95% interval", ""),
                [
                    (
                        c.label,
                        str(c.seeds),
                        f"{c.steps[-1]:,.0f}",
                        f"{c.returns[-1]:,.4g}",
                        c.interval_at_end,
                        "; ".join(c.notes),
                    )
                    for c in grouped
                ],
            ),
        ]
    if improvements:
        parts += [
            "<h2>Probability of improvement</h2>",
            "<p>How probably a run of the first setting returns more than one of the second (Agarwal et al., "
            "2021).</p>",
            pages.table(
                ("setting", "against", "probability", "95% interval", "environments"),
                [(i.better, i.than, f"{i.found.value:.2f}", i.interval, i.where) for i in improvements],
            ),
        ]
    head = ("run", "environment", "timesteps", "episodes", "return", "highest return", "seconds")
    parts += ["<h2>Runs</h2>", pages.table(head, map(_row, runs))]
    return pages.page(", ".join(dict.fromkeys(run.environment for run in runs)), parts)


def _row(run: Run) -> tuple[str, ...]:
    """A run in the page's table."""

    def last(name: str) -> str:
        known = run.columns.get(name, np.empty(0))
        known = known[~np.isnan(known)]
        return f"{known[-1]:,.0f}" if len(known) else ""

    known = run.returns[~np.isnan(run.returns)]
    returns = (f"{known[-1]:,.4g}", f"{known.max():,.4g}") if len(known) else ("", "")
    counts = last("time/total_timesteps"), last("rollout/episodes")
    return (str(run.folder.path), run.environment, *counts, *returns, last("time/time_elapsed"))
