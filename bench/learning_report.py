"""Tables and pictures of docs/learning.md, docs/defaults.md and the README from the studies in bench/results/learning.

    python -m bench.learning_report              # rewrite them
    python -m bench.learning_report --check      # exit code 1 where a page is not what the results make

A table has for every arm and task the interquartile mean of the final scores over seeds, its 95% interval from the
bootstrap over seeds, the worst seed and the number of seeds; for an arm that has all tasks of its table also the
interquartile mean of all scores, normalized by SCALES. A run that met NaN counts as the task's lowest score. Where a
plan has goals, a second table, one for each kind of CPU, says after how many seconds the training return, averaged over
seeds, passed them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.report import MARKS, SECTIONS, table
from bench.study import RESULTS, Arm, Study
from trpo_fast import benchmarks, statistics
from trpo_fast.algorithm import presets

_ROOT = RESULTS.parent.parent.parent
README = _ROOT / "README.md"
PAGES = (*(_ROOT / "docs" / name for name in ("learning.md", "defaults.md")), README)
# 0: the mean return of actions drawn uniformly from the box (100 episodes; HalfCheetah and Swimmer 20). 1: this
# project's goal for the task, the best published figures of on-policy methods or more; for Pusher a round figure.
SCALES: dict[str, tuple[float, float]] = {
    "Hopper-v5": (18, 3450),
    "HalfCheetah-v5": (-307, 6500),
    "Walker2d-v5": (2, 4900),
    "Ant-v5": (-55, 3500),
    "Humanoid-v5": (112, 1600),
    "Swimmer-v5": (-4, 350),
    "Reacher-v5": (-43, -4.5),
    "Pusher-v5": (-150, -30),
    "InvertedPendulum-v5": (5, 1000),
    "InvertedDoublePendulum-v5": (52, 9240),
}

# Goals for the mean over seeds.
GOALS: dict[str, float] = {task: goal for task, (_, goal) in SCALES.items() if task != "Pusher-v5"} | {
    "CartPole-v1": 475,
    "Acrobot-v1": -85,
    "MountainCarContinuous-v0": 92,
    "Pendulum-v1": -170,
    "LunarLander-v3": 250,
}
LEAST: dict[str, float] = {"Hopper-v5": 2000, "Walker2d-v5": 2500, "CartPole-v1": 475}  # of every seed
FINAL = ("final_swimmer", "final_hopper", "final_presets", "final", "final_control", "final_cartpole")


def render(page: str, results: Path = RESULTS) -> str:
    """The page with what stands between its marks made again."""

    def made(name: str) -> list[str]:
        return TABLES[name]() if name in TABLES else list(_study(Study(results / name)))

    def section(match: re.Match[str]) -> str:
        if match[2] in SECTIONS:  # bench.report's
            return match[0]
        return match[1] + "\n".join(["", *made(match[2]), ""]) + "\n" + match[3]

    return MARKS.sub(section, page)


def _scales() -> list[str]:
    return table(["task", "0", "1"], [[task, f"{low:,}", f"{high:,}"] for task, (low, high) in SCALES.items()])


def _presets() -> list[str]:
    lines = [
        [preset.name, ", ".join(f"`{name}={value!r}`" for name, value in preset.settings.items()), preset.evidence]
        for preset in presets.all_presets().values()
    ]
    return table(["id", "settings", "evidence"], lines)


def _averaging() -> list[str]:
    runs = [json.loads(file.read_text()) for file in sorted((RESULTS.parent / "averaging").glob("*.json"))]
    lines = []
    for run in runs:
        for row in run["rows"]:
            found = [f"{value[0]:,.0f} +- {value[1]:,.0f}" for value in row.values() if isinstance(value, list)]
            which = f"{run['task']} {run['settings']}".strip()
            lines.append([which, f"{run['seed']}", f"{row['timesteps']:,}", f"{row['training']:,.0f}", *found])
    policies = [name for name, value in runs[0]["rows"][0].items() if isinstance(value, list)]
    return table(["task", "seed", "timesteps", "training return", *policies], lines)


def _final(results: Path = RESULTS) -> list[str]:
    """The frozen defaults, and the peer of the same tasks beside them; under it what has to be said of the rows."""
    lines, failed, commits = [], [], []
    for study in [Study(results / name) for name in FINAL]:
        rows = [row for row in study.runs() if int(row["timesteps"]) == study.timesteps]
        peers = [row for row in Study(results / "peers").runs() if int(row["timesteps"]) == study.timesteps]
        found = scores([*rows, *peers])
        failed += [*_failed(rows), *_failed([row for row in peers if row["task"] in study.tasks])]
        made = sorted({row["commit"] for row in rows})
        commits += [f"{', '.join(made)} ({study.folder.name})"] if made else []
        # Of a task that its plan has no more: what was made before the task had its preset.
        before = [task for task in dict.fromkeys(row["task"] for row in rows) if task not in study.tasks]
        for task in [*study.tasks, *before]:
            ours = found.get((study.arms[0].name, task), [])
            theirs = found.get(("sb3-contrib-trpo", task), [])
            goal = GOALS.get(task)
            lines.append(
                [
                    f"{task}, earlier ({study.folder.name})" if task in before else task,
                    f"{study.timesteps:,}",
                    *_described(ours),
                    "" if goal is None else f"{goal:,}" + (f", none under {LEAST[task]:,}" if task in LEAST else ""),
                    *_described(theirs),
                    _apart(ours, theirs),
                ]
            )
    mine = ["mean", "interquartile mean, 95% interval", "worst", "seeds"]
    other = [f"sb3-contrib: {name}" for name in mine]
    made = table(["task", "timesteps", *mine, "goal", *other, "our interval beside sb3-contrib's"], lines)
    return [*made, *_named(failed), *(["", f"Commits: {'; '.join(commits)}."] if commits else [])]


def _failed(rows: Sequence[dict[str, str]]) -> list[str]:
    return [f"{row['arm']} {row['task']} seed {row['seed']}" for row in rows if row["mean"] == "nan"]


def _named(failed: Sequence[str]) -> list[str]:
    return ["", f"NaN, counted as the task's lowest score: {', '.join(failed)}."] if failed else []


def _described(values: Sequence[float]) -> list[str]:
    """Mean, interquartile mean with its interval, worst and number of seeds, or nothing."""
    if not values:
        return [""] * 4
    return [number(float(np.mean(values))), _estimated([values], number), number(min(values)), str(len(values))]


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Where our interval lies beside theirs; nothing where one has none."""
    one, other = (
        statistics.estimate([values]).interval if values and not np.isnan(values).any() else None
        for values in (ours, theirs)
    )
    if one is None or other is None:
        return ""
    if one[0] > other[1]:
        return "higher"
    return "lower" if one[1] < other[0] else "overlap"


def _returns(results: Path = RESULTS) -> list[str]:
    """The frozen defaults in short, beside this project's goals."""
    lines = []
    for study in [Study(results / name) for name in FINAL]:
        rows = [row for row in study.runs() if int(row["timesteps"]) == study.timesteps]
        found = scores(rows)
        for task in study.tasks:
            values = found.get((study.arms[0].name, task), [])
            goal = "" if task not in GOALS else f"{GOALS[task]:,}"
            if values:
                middle = number(float(statistics.interquartile_mean(values)))
                least = [number(float(np.mean(values))), middle, number(min(values)), str(len(values))]
                preset = " (its preset)" if task in presets.all_presets() else ""
                lines.append([f"{task}{preset}", f"{study.timesteps:,}", *least, goal])
    return table(["", "timesteps", "mean return", "interquartile mean", "worst seed", "seeds", "goal"], lines)


# What stands between marks and is no study.
TABLES: dict[str, Callable[[], list[str]]] = {
    "scales": _scales,
    "presets": _presets,
    "averaging": _averaging,
    "scores": _final,
    "returns": _returns,
}


def _study(study: Study) -> Iterator[str]:
    rows = study.runs()
    if not rows:
        yield "No run has ended yet."
    for timesteps in sorted({int(row["timesteps"]) for row in rows}, reverse=True):
        own = [row for row in rows if int(row["timesteps"]) == timesteps]
        yield from [f"{timesteps:,} timesteps:", "", *_table_of(study, own), ""]
    if rows and study.goals:
        yield from _times_of(study)
    if _failed(rows):
        yield from [*_named(_failed(rows))[1:], ""]
    commits = sorted({row["commit"] for row in rows if row["commit"]})
    if commits:
        yield f"Commits: {', '.join(commits)}."


def scores(rows: Sequence[dict[str, str]]) -> dict[tuple[str, str], list[float]]:
    """Final scores by (arm, task), with the task's lowest among these rows for NaN; NaN where there is no other."""
    found: dict[tuple[str, str], list[float]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        values = np.array([float(row["mean"]) for row in own])
        if not np.isnan(values).all():
            values = statistics.lowest_for_nan(values)
        for row, value in zip(own, values, strict=True):
            found.setdefault((row["arm"], task), []).append(float(value))
    return found


def _table_of(study: Study, rows: Sequence[dict[str, str]]) -> list[str]:
    found = scores(rows)
    tasks = [task for task in study.tasks if any(task == known for _, known in found)]
    arms = dict.fromkeys(row["arm"] for row in rows)
    lines = []
    for arm in [one.name for one in study.arms if one.name in arms]:
        cells = [_cell(found.get((arm, task), [])) for task in tasks]
        everything = [found.get((arm, task), []) for task in tasks]
        whole = ""
        if len(tasks) > 1 and all(everything) and all(task in SCALES for task in tasks):
            pairs = zip(tasks, everything, strict=True)
            whole = _cell([statistics.normalized(values, *SCALES[task]) for task, values in pairs], normalized=True)
        lines.append([arm, *cells, whole])
    return table(["arm", *tasks, "all, normalized"], lines)


class Curve(NamedTuple):
    """A run from the end of its first episode on: timesteps, seconds, mean returns of the latest 100 episodes."""

    timesteps: list[float]
    seconds: list[float]  # NaN in studies that recorded none
    returns: list[float]


def curves_of(study: Study, arm: Arm, task: str, seeds: Collection[str] | None = None) -> list[Curve]:
    """One for each seed, or some.

    A run that met NaN has the task's lowest return from there on, and goes on at its own pace.
    """
    lowest = min((float(row["return"]) for row in study.curves(task) if row["return"]), default=None)
    found = []
    for seed, rows in study.curves_by_seed(arm, task).items():
        if seeds is not None and seed not in seeds:
            continue
        ended = [row for row in rows if row["return"]]
        if not ended and lowest is not None:
            ended = [{**row, "return": str(lowest)} for row in rows]
        curve = Curve(*([float(row[name] or "nan") for row in ended] for name in ("timesteps", "seconds", "return")))
        row = study.longest(arm.name, task, seed)
        if ended and lowest is not None and row is not None and row["mean"] == "nan":
            last, seconds, asked = curve.timesteps[-1], curve.seconds[-1], float(row["timesteps"])
            for steps in (last + 1, asked) if last + 1 < asked else ():
                curve.timesteps.append(steps)
                curve.seconds.append(seconds * steps / last)
                curve.returns.append(lowest)
        if ended:
            found.append(curve)
    return found


def seconds_to(goal: float, curves: Sequence[Curve], of: str = "seconds") -> tuple[float, bool]:
    """Seconds until the training return of several runs passes `goal`, and whether it does: else those they took.

    Returns and seconds are averaged over the runs at equal timesteps. `of` is "seconds", or "timesteps" in their place.
    """

    def mean(name: str) -> NDArray[np.float64]:
        on_grid = statistics.on_one_grid([(curve.timesteps, getattr(curve, name)) for curve in curves])[1]
        averaged: NDArray[np.float64] = on_grid.mean(axis=0)
        return averaged

    passed = np.flatnonzero(mean("returns") >= goal)
    return float(mean(of)[passed[0] if len(passed) else -1]), len(passed) > 0


STALLED = 4  # times what is usual
LOST = 0.05  # of the seconds that are said


def seconds_lost(rows: Sequence[dict[str, str]], until: float) -> float:
    """Of the seconds of a run's first `until` timesteps, those of updates beyond what is usual, four times as long."""
    seconds = np.diff([float(row["seconds"] or "nan") for row in rows])
    usual = float(np.median(seconds)) if len(seconds) else 0.0
    before = seconds[np.array([float(row["timesteps"]) for row in rows[:-1]]) < until]
    return float((before[before > STALLED * usual] - usual).sum())


def _times_of(study: Study) -> Iterator[str]:
    """Of each kind of CPU, whose seconds are not those of another."""
    header = ["seconds until the training return, averaged over seeds, is"]
    header += [f"{goal:,.0f} on {task}" for task, goal in study.goals.items()]
    rows = [row for row in study.runs() if row["task"] in study.goals]
    for cpu in dict.fromkeys(row["cpu"] for row in rows):
        lines, notes = [], set()
        own: dict[str, float] = {}  # seconds of the plan's first arm, where it passes
        for arm in study.arms:
            cells = []
            for task, goal in study.goals.items():
                by_seed = study.curves_by_seed(arm, task)
                made = [study.longest(arm.name, task, seed) for seed in by_seed]
                here = [row for row in made if row is not None and row["cpu"] == cpu]
                curves = curves_of(study, arm, task, {row["seed"] for row in here})
                if not curves:
                    cells.append("")
                    continue
                seconds, passed = seconds_to(goal, curves)
                steps, _ = seconds_to(goal, curves, "timesteps")
                least = "" if passed else "\u2265 "
                times = f", {least}{seconds / own[task]:.1f} times" if task in own else ""
                if passed and arm is study.arms[0]:
                    own[task] = seconds
                said = [f"{len(curves)}"]
                if np.mean([seconds_lost(by_seed[row["seed"]], steps) for row in here]) > LOST * seconds:
                    said.append("paused")
                if any(float(row.get("cpu_share") or 1) < benchmarks.QUIET for row in here):
                    said.append("BUSY")
                notes |= set(said[1:])
                cells.append(f"{least}{seconds:,.0f}{times} ({'; '.join(said)})")
            lines.append([arm.name, *cells])
        yield from [f"{cpu or 'A CPU that was not recorded'}:", ""]
        yield from table(header, [line for line in lines if any(line[1:])])
        if "paused" in notes:
            yield from ["", f"Paused: more than {LOST:.0%} of the seconds are of updates that stood still."]
        if "BUSY" in notes:
            yield from ["", "BUSY: something else used the cores just before or behind a run; not to be quoted."]
        yield ""


def _cell(values: Sequence[object], normalized: bool = False) -> str:
    if not len(values):
        return ""
    if normalized:
        return _estimated(values, "{:.2f}".format)
    return f"{_estimated([values], number)}, worst {number(min(map(float, values)))} ({len(values)})"  # type: ignore[arg-type]


def _estimated(strata: Sequence[Any], show: Callable[[float], str]) -> str:
    """The interquartile mean over runs, one stratum a task, with its interval."""
    if any(np.isnan(scores).any() for scores in strata):
        return "NaN"
    value, interval = statistics.estimate(strata)
    between = f"[{show(float(interval[0]))}, {show(float(interval[1]))}]" if interval else "no interval"
    return f"{show(float(value))} {between}"


def number(value: float) -> str:
    """Of a table: three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else "NaN" if np.isnan(value) else f"{value:.3g}"


def draw(study: Study, out: Path) -> None:
    """Training returns of every arm over its seeds, a panel a task."""
    from matplotlib.figure import Figure

    tasks = [task for task in study.tasks if study.curves(task)]
    columns = min(len(tasks), 5)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4 * columns, 3.6 * rows), layout="constrained")
    for position, task in enumerate(tasks):
        axes = figure.add_subplot(rows, columns, position + 1)
        for color, arm in enumerate(study.arms):
            curves = curves_of(study, arm, task)
            if not curves:
                continue
            steps, returns = statistics.on_one_grid([(curve.timesteps, curve.returns) for curve in curves], points=100)
            value, interval = statistics.estimate([returns], resamples=1_000)
            axes.plot(steps, value, color=f"C{color}", label=f"{arm.name} ({len(curves)})")
            if interval is not None:
                axes.fill_between(steps, *interval, color=f"C{color}", alpha=0.15, lw=0)
        axes.set(title=task, xlabel="timesteps")
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.savefig(out, format="png", dpi=90, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.learning_report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(argv)
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        made = render(page)
        if arguments.check:
            if page != made:
                return 1
            continue
        path.write_text(made, encoding="utf-8")
        for name in re.findall(r"\(learning-(\w+)\.png\)", page):
            study = Study(RESULTS / name)
            if study.runs():
                draw(study, path.with_name(f"learning-{name}.png"))
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
