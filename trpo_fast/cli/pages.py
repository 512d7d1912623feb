"""Pictures and pages of commands: figures of matplotlib as a file's suffix says, and HTML that needs nothing else."""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trpo_fast import model_file
from trpo_fast.cli.errors import CommandError, describe

PICTURES: Mapping[str, Mapping[str, Any]] = {
    ".png": {"dpi": 150},
    ".svg": {"metadata": {"Date": None}},  # the same numbers make the same file
    ".pdf": {"metadata": {"CreationDate": None}},
}
"""What a figure is saved with, by the suffix of its file."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: 0; }
table { border-collapse: collapse; font-size: 0.9rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid #ddd; }
svg { max-width: 100%; height: auto; }
.panels { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; flex: 1 1 20rem; max-width: 35rem; }
figcaption { font-size: 0.85rem; color: #555; }
.symptom { border-left: 4px solid #c60; padding: 0.1rem 1rem; margin: 1rem 0; background: #fff8f0; }
.well { border-left: 4px solid #393; padding: 0.1rem 1rem; background: #f3faf3; }
"""


class MatplotlibMissing(CommandError):
    """Curves need matplotlib."""

    def __init__(self) -> None:
        super().__init__("curves need matplotlib: pip install 'trpo-fast[plot]'")


def new_figure(
    width: float, height: float, margins: tuple[float, float, float, float], across: int = 1, down: int = 1
) -> Any:
    """A matplotlib Figure for panels of so many inches each; MatplotlibMissing where there is no matplotlib.

    ``margins`` are inches on the left, on the right, below and above the axes of each panel: to find out what is needed
    takes matplotlib four times as long as to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MatplotlibMissing from None
    left, right, bottom, top = margins
    # A figure of its own, without pyplot: no window system, and nothing left open.
    figure = Figure(figsize=(width * across, height * down))
    figure.subplots_adjust(
        left=left / width / across,
        right=1 - right / width / across,
        bottom=bottom / height / down,
        top=1 - top / height / down,
        wspace=(left + right) / (width - left - right),
        hspace=(bottom + top) / (height - bottom - top),
    )
    return figure


def finish_axes(axes: Any) -> None:
    """Timesteps below a panel, as 200k or 1M, and a grid."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("timesteps")
    axes.grid(alpha=0.3)


def save_picture(figure: Any, out: Path) -> None:
    """Write a figure as what the suffix says; CommandError where it cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format=out.suffix[1:].lower(), **PICTURES[out.suffix.lower()])
    write(out, content.getvalue())


def write(out: Path, content: bytes) -> None:
    """Put a file in its place whole; CommandError where it cannot be written."""
    try:
        model_file.replace_file(out, content)
    except OSError as error:
        raise CommandError(f"--out: {out} cannot be written: {error.strerror or describe(error)}") from error


def require_suffix(out: Path, wanted: Sequence[str]) -> None:
    """CommandError where a file has none of the suffixes."""
    if out.suffix.lower() not in wanted:
        raise CommandError(f"--out: {out} given; want a name that ends in {', '.join(wanted[:-1])} or {wanted[-1]}")


def picture(figure: Any, name: str) -> str:
    """A figure as SVG within a page; ``name`` is the page's alone, as the names in the picture are made of it."""
    import matplotlib

    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = content.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""

    def line(cell: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts) + "</tr>"

    return "\n".join(["<table>", line("th", head), *(line("td", row) for row in rows), "</table>"])


def page(title: str, parts: Iterable[str]) -> bytes:
    """A page that loads nothing; ``parts`` are HTML."""
    name = html.escape(title)
    head = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
    )
    return "\n".join([head, f"<h1>{name}</h1>", *parts, "</body></html>\n"]).encode(errors="backslashreplace")


def names_of(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each path: its last part, or, where two have the same, the path below the folder of all."""
    whole = [os.path.abspath(path) for path in paths]
    short = [os.path.basename(path) for path in whole]
    if len(set(short)) == len(short) or len(set(whole)) < len(whole):
        return short
    shared = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, shared) for path in whole]
