"""``trpo-fast report``: how a training went, in panels and in words."""

from __future__ import annotations

import argparse
import html
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trpo_fast.algorithm.config import TRPOConfig, with_what_was_before
from trpo_fast.cli import output, pages
from trpo_fast.cli.curves import read_log
from trpo_fast.cli.errors import CommandError, describe
from trpo_fast.cli.output import say
from trpo_fast.cli.run_folder import RunFolder
from trpo_fast.files import read_regular
from trpo_fast.progress import as_columns
from trpo_fast.solvers.status import Status
from trpo_fast.symptoms import Finding, Log, diagnose

WELL = "Nothing looks wrong."
TIMES = {
    "rollout": "rollout",
    "advantages": "advantages",
    "gradient": "gradient",
    "solve": "solve",
    "line_search": "line search",
    "critic_wait": "waiting for the critic",
}
"""Phases that make up an update; the critic's fit may run beside the next rollout."""


class Panel(NamedTuple):
    """One picture of the page: columns of progress.csv over the timesteps."""

    title: str
    columns: Mapping[str, str]  # to their names in the legend
    caption: str
    is_log: bool = False
    lowest: float | None = None  # below which values are cut off
    from_zero: bool = False


PANELS = (
    Panel(
        "Return",
        {"rollout/ep_rew_mean": "return"},
        "Mean undiscounted return of the last 100 training episodes, with sampled actions.",
    ),
    Panel(
        "KL against its bound",
        {"train/kl_divergence_loss": "KL", "train/max_kl": "max_kl"},
        "KL of the accepted step, or of the last trial. Healthy steps use half of the bound or more, and never exceed "
        "it.",
    ),
    Panel(
        "Improvement",
        {"train/policy_objective": "surrogate", "train/predicted_objective": "promised by the gradient"},
        "What the surrogate gained, beside what the gradient promised for that step.",
    ),
    Panel(
        "Backtracks",
        {"train/backtracks": "backtracks"},
        "How often the line search shortened the step: 0 or 1 mostly.",
        from_zero=True,
    ),
    Panel(
        "Residual of the solve",
        {"train/cg_residual": "residual"},
        "||g - A x|| / ||g||. A truncated solve is an ascent direction, too: 0.2 to 0.9 is usual of MuJoCo's.",
        is_log=True,
    ),
    Panel(
        "Products of the solve",
        {"train/cg_iterations": "iterations"},
        "Iterations of conjugate gradient, a product each.",
        from_zero=True,
    ),
    Panel(
        "Explained variance",
        {"train/explained_variance": "explained variance"},
        "Of the returns, by the critic before its fit: 1 is all of it, 0 what their mean does. Cut off at -1.",
        lowest=-1.05,
    ),
    Panel(
        "Critic's loss",
        {"train/value_loss": "loss"},
        "Mean squared error of the last epoch, scaled rewards.",
        is_log=True,
    ),
    Panel(
        "Standard deviation of the actions",
        {"train/std": "std"},
        "exp(log_std), the mean over the dimensions: it falls while the policy makes up its mind.",
        is_log=True,
    ),
    Panel("Entropy", {"train/entropy_loss": "entropy"}, "Mean entropy of the policy, nats."),
)


def run(arguments: argparse.Namespace) -> int:
    """Print what there is to say; write the page."""
    if arguments.text and arguments.out:
        raise CommandError(f"--out: {arguments.out} given with --text, which writes no page; want one of the two")
    folder = RunFolder(arguments.run)
    out = Path(arguments.out) if arguments.out else folder.shown(folder.place / "report.html")
    pages.require_suffix(out, (".html", ".htm"))
    log = read(folder)
    findings = diagnose(log)
    content = folder.read_config() if folder.config.exists() else {}
    title, facts = _title(folder, content, log), list(_facts(log))
    if arguments.json:
        output.answer(_as_json(folder, log, facts, findings))
    else:
        say(_as_text(title, facts, findings))
    if not arguments.text:
        pages.write(out, _page(title, content, log, facts, findings))
        if not arguments.json:
            say(str(out))
    return 0


def read(folder: RunFolder) -> Log:
    """What a run has left behind of how it went; CommandError where that is nothing."""
    rows = read_log(folder)
    try:
        error = read_regular(folder.error).decode().strip()
    except FileNotFoundError:
        error = None
    except (OSError, ValueError) as unreadable:
        raise CommandError(f"{folder.shown(folder.error)} cannot be read: {describe(unreadable)}") from unreadable
    if not rows and error is None:
        raise CommandError(f"run: {folder.path} has no row yet; want one whose first update is done")
    return Log(as_columns(rows), error)


def _title(folder: RunFolder, content: Mapping[str, Any], log: Log) -> str:
    done, asked = _steps(log), content.get("timesteps")
    seed = f", seed {content['seed']}" if "seed" in content else ""
    of = f" of {asked:,}" if isinstance(asked, int) and asked > done else ""
    return f"{folder.environment_id()}{seed}: {done:,}{of} timesteps, {log.rows:,} updates"


def _facts(log: Log) -> Iterator[tuple[str, str]]:
    """Name and words of what the numbers are, of those that there are."""
    returns = log.known("rollout/ep_rew_mean")
    if len(returns):
        yield (
            "return",
            f"{returns[0]:,.4g} at first, {returns.max():,.4g} at best, {returns[-1]:,.4g} now (mean of 100 episodes)",
        )
    part = (log["train/kl_divergence_loss"] / log["train/max_kl"])[log.accepted]
    part = part[~np.isnan(part)]
    if len(part):
        bound = f"{_last(log, 'train/max_kl'):.2g}"
        yield "KL", f"{np.median(part):.2g} of max_kl (median of the accepted steps), which is {bound} now"
    endings = _endings(log)
    if endings:
        accepted = endings.pop(Status.SUCCESS.name, 0)
        others = ", ".join(f"{name} {count}" for name, count in endings.items())
        yield (
            "line search",
            f"{accepted:,} of {log.rows:,} updates accepted"
            + _known(", {:.0f} backtracks (median)", _median(log, "train/backtracks"))
            + (f"; rejected: {others}" if others else ""),
        )
    if len(log.known("train/cg_residual")):
        yield (
            "solve",
            f"residual {_median(log, 'train/cg_residual'):.2g}"
            + _known(" after {:.0f} products", _median(log, "train/cg_iterations"))
            + " (medians)",
        )
    variance = log.known("train/explained_variance")
    if len(variance):
        yield (
            "critic",
            f"explained variance {np.median(variance[len(variance) // 2 :]):.2g} (median of the second half)"
            + _known(", loss {:.2g}", _last(log, "train/value_loss")),
        )
    entropies, deviations = -log.known("train/entropy_loss"), log.known("train/std")
    if len(entropies):
        std = f"standard deviation {deviations[0]:.2g} at first, {deviations[-1]:.2g} now; " if len(deviations) else ""
        yield "exploration", f"{std}entropy {entropies[0]:.3g} at first, {entropies[-1]:.3g} nats now"
    seconds = _seconds(log)
    if seconds:
        whole = sum(seconds.values())
        parts = ", ".join(f"{name} {part / whole:.0%}" for name, part in seconds.items() if part / whole >= 0.005)
        yield (
            "time",
            f"{whole:,.0f} s of updates: {parts}; the critic's fit {np.nansum(log['timings/critic_fit']):,.0f} s",
        )


def _known(words: str, number: float) -> str:
    return "" if math.isnan(number) else words.format(number)


def _steps(log: Log) -> int:
    """Timesteps so far; 0 where the log has no row, as the first update failed."""
    return int(log.known("time/total_timesteps").max(initial=0))


def _last(log: Log, name: str) -> float:
    """NaN where no row has a number."""
    known = log.known(name)
    return float(known[-1]) if len(known) else math.nan


def _median(log: Log, name: str) -> float:
    """NaN where no row has a number."""
    known = log.known(name)
    return float(np.median(known)) if len(known) else math.nan


def _endings(log: Log) -> dict[str, int]:
    """How many updates ended with each status, by its name."""
    values, counts = np.unique(log.known("train/status").astype(int), return_counts=True)
    names = {status.value: status.name for status in Status}
    return {names.get(int(v), str(v)): int(n) for v, n in zip(values, counts, strict=True)}


def _seconds(log: Log) -> dict[str, float]:
    """Seconds of all updates by phase."""
    found = {name: float(np.nansum(log[f"timings/{column}"])) for column, name in TIMES.items()}
    return found if sum(found.values()) > 0 else {}


def _as_text(title: str, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]) -> str:
    lines = [title, *(line for name, words in facts for line in _wrapped(f"{name:<12} ", words)), ""]
    if not findings:
        return "\n".join([*lines, WELL])
    for number, (symptom, words) in enumerate(findings, start=1):
        lines += [*_wrapped(f"{number}. ", f"{symptom.name}. {words}"), *_wrapped("   why: ", symptom.cause)]
        lines += [line for cure in symptom.cures for line in _wrapped("   try: ", cure)]
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=head, subsequent_indent=" " * len(head))


def _as_json(
    folder: RunFolder, log: Log, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]
) -> dict[str, Any]:
    return {
        "run": str(folder.path),
        "env": folder.environment_id(),
        "num_timesteps": _steps(log),
        "updates": log.rows,
        "facts": dict(facts),
        "findings": [
            {"symptom": symptom.name, "words": words, "cause": symptom.cause, "cures": list(symptom.cures)}
            for symptom, words in findings
        ],
    }


def _page(
    title: str, content: Mapping[str, Any], log: Log, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]
) -> bytes:
    parts = [_finding(finding) for finding in findings] or [f'<div class="well"><p>{WELL}</p></div>']
    parts += ["<h2>In numbers</h2>", pages.table(("", ""), facts), '<h2>In pictures</h2>\n<div class="panels">']
    steps = log["time/total_timesteps"]
    for number, panel in enumerate(PANELS):
        values = {label: log[name] * (-1 if label == "entropy" else 1) for name, label in panel.columns.items()}
        if not all(np.isnan(column).all() for column in values.values()):
            parts.append(_figure(_lines(panel, steps, values), panel.title, panel.caption, f"panel{number}"))
    endings, seconds = _endings(log), _seconds(log)
    if endings:
        caption = "SUCCESS changed the policy; what the others mean is in docs/algorithm.md."
        parts.append(_figure(_bars(endings, "updates"), "How updates ended", caption, "endings"))
    if seconds:
        both = {**seconds, "critic's fit": float(np.nansum(log["timings/critic_fit"]))}
        parts.append(
            _figure(
                _bars(both, "seconds"),
                "Time",
                "Of all updates, by phase; the critic's fit may run beside the rollout.",
                "time",
            )
        )
    parts.append("</div>")
    settings = _settings(content)
    if settings:
        parts += ["<h2>Settings that are not the defaults</h2>", pages.table(("setting", "value"), settings)]
    return pages.page(title, parts)


def _finding(finding: Finding) -> str:
    symptom, words = finding
    cures = "".join(f"<li>{html.escape(cure)}</li>" for cure in symptom.cures)
    return (
        f'<div class="symptom"><h3>{html.escape(symptom.name)}</h3><p>{html.escape(words)}</p>'
        f"<p>{html.escape(symptom.cause)}</p><p>What to try:</p><ul>{cures}</ul></div>"
    )


def _figure(figure: Any, title: str, caption: str, name: str) -> str:
    head = f"<h3>{html.escape(title)}</h3>{pages.picture(figure, name)}"
    return f"<figure>{head}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _lines(panel: Panel, steps: Any, values: Mapping[str, Any]) -> Any:
    figure = pages.new_figure(4.6, 2.6, (0.65, 0.15, 0.5, 0.15))
    axes = figure.add_subplot()
    for label, column in values.items():
        axes.plot(steps, column, ".-" if len(steps) < 30 else "-", lw=1.2, ms=3, label=label)
    if panel.is_log:
        axes.set_yscale("log", nonpositive="mask")
    if panel.lowest is not None:
        axes.set_ylim(bottom=max(panel.lowest, axes.get_ylim()[0]))
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    if len(values) > 1:
        axes.legend(fontsize="small")
    pages.finish_axes(axes)
    return figure


def _bars(values: Mapping[str, float], unit: str) -> Any:
    figure = pages.new_figure(4.6, 2.6, (1.9, 0.2, 0.5, 0.15))
    axes = figure.add_subplot()
    axes.barh(list(values), list(values.values()), height=0.6)
    axes.set_ylim(max(len(values), 3) - 0.5, -0.5)  # the first on top
    axes.set_xlabel(unit)
    axes.grid(alpha=0.3, axis="x")
    return figure


def _settings(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings of a run that are not the defaults."""
    config = content.get("config")
    by_kind = content.get("defaults")  # runs from before it was written there lack it
    if not isinstance(config, dict):
        return []
    usual = TRPOConfig().to_dict() | (by_kind if isinstance(by_kind, dict) else {})
    config = with_what_was_before(config)
    return [(name, str(value)) for name, value in config.items() if usual.get(name) != value]
