"""Pictures of the pages that commands write, for report.md.

    python docs/draw_pages.py FOLDER

Trains small runs in FOLDER, which has to be there, or takes those that are in it, writes their pages, and photographs
these with Chromium (a browser that is called chromium, chromium-browser or google-chrome) into docs/images. Minutes.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trpo_fast.cli.main import main as command

IMAGES = Path(__file__).with_name("images")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLORS = 32  # lines and text: more would be bytes only
STEPS = ("--timesteps", "61440", "--eval-episodes", "0")
KINDS = {"default": (), "small": ("--max-kl", "0.01")}
SEEDS = range(3)
TERMINAL = "background: #1e1e1e; color: #ddd; font: 14px/1.4 'DejaVu Sans Mono', monospace; padding: 12px; margin: 0"


def run(*arguments: str) -> str:
    """What a command prints; SystemExit where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = command(arguments)
    if code:
        raise SystemExit(code)
    return said.getvalue()


def photograph(page: Path, out: Path, width: int, height: int) -> None:
    """A picture of the top of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={shot}"),
                page.absolute().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
        picture = Image.open(shot).convert("RGB")
        picture.quantize(COLORS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")


def main(argv: Sequence[str]) -> int:
    """Train what is not there, and take the pictures."""
    if len(argv) != 1:
        raise SystemExit("want one folder, for the runs")
    images = IMAGES.absolute()
    os.chdir(argv[0])  # so that pages have no paths of this machine
    runs = [(f"{kind}{seed}", ("--seed", str(seed), *options)) for kind, options in KINDS.items() for seed in SEEDS]
    runs.append(("failing", ("--critic-learning-rate", "1e-9")))
    for name, options in runs:
        if not Path(name, "progress.csv").exists():
            run("train", "CartPole-v1", *STEPS, "--out", name, *options)
    images.mkdir(exist_ok=True)
    run("plot", *(name for name, _ in runs[:-1]), "--group", "seed", "--out", "plot.html")
    photograph(Path("plot.html"), images / "plot.png", 1000, 1150)
    said = html.escape(run("report", "failing"))
    photograph(Path("failing", "report.html"), images / "report.png", 1100, 1750)
    Path("terminal.html").write_text(f'<body style="{TERMINAL}"><pre>$ trpo-fast report failing\n{said}</pre>')
    photograph(Path("terminal.html"), images / "terminal.png", 900, 520)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
