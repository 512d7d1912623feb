"""Write gallery.md, and its curves, from the studies in bench/results/learning.

Run from the repository:  python docs/generate_gallery.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.learning_report import curves_of, number, scores  # noqa: E402
from bench.study import RESULTS, Study  # noqa: E402
from trpo_fast import statistics  # noqa: E402

PAGE = Path(__file__).with_name("gallery.md")
IMAGES = Path(__file__).with_name("images")
HEAD = """\
# Gallery

What was learned, with the curve over seeds, the command and, where there is one, a picture. Scores are those of the
last policy, without exploration: the interquartile mean of the seeds, and the worst. Intervals, and what is
not learned yet: [Learning](learning.md); what was tried besides: [the search for the defaults](defaults.md). This page
is made from `bench/results/learning` by `docs/generate_gallery.py`.
"""


class Piece(NamedTuple):
    """A task that was learned: which study says so, and what there is to see."""

    task: str
    study: str
    arm: str
    timesteps: int
    command: str
    words: str
    picture: str | None = None  # beside this file
    caption: str = ""


_THEN = (  # what they were
    "--relative-damping 0 --gae-lambda 0.95 --critic-gae-lambda 0.95 --max-kl 0.04 --max-kl-schedule constant"
)
_PRESET = "The id's [preset](learning.md#presets), which it takes by itself."
PIECES = (
    Piece(
        "CartPole-v1",
        "final_cartpole",
        "frozen",
        100_000,
        "trpo-fast train CartPole-v1 --timesteps 1e5",
        "500 is the most.",
        "images/cartpole.png",
        "A seed of before, every 40th step of an episode of 500.",
    ),
    Piece(
        "MountainCarContinuous-v0",
        "final_control",
        "frozen",
        500_000,
        "trpo-fast train MountainCarContinuous-v0 --timesteps 5e5",
        _PRESET,
    ),
    Piece("Pendulum-v1", "final_control", "frozen", 500_000, "trpo-fast train Pendulum-v1 --timesteps 5e5", _PRESET),
    Piece(
        "LunarLander-v3", "final_control", "frozen", 500_000, "trpo-fast train LunarLander-v3 --timesteps 5e5", _PRESET
    ),
    Piece(
        "HalfCheetah-v5",
        "final",
        "frozen",
        1_000_000,
        "trpo-fast train HalfCheetah-v5 --timesteps 1e6",
        "The defaults.",
        "images/halfcheetah.png",
        "Seed 100, every fourth step of an episode.",
    ),
    Piece(
        "Hopper-v5",
        "final_hopper",
        "frozen",
        1_000_000,
        "trpo-fast train Hopper-v5 --timesteps 1e6",
        _PRESET,
        "images/hopper.png",
        "Seed 100 without it, every eighth step of an episode.",
    ),
    Piece(
        "Walker2d-v5",
        "final",
        "frozen",
        1_000_000,
        "trpo-fast train Walker2d-v5 --timesteps 1e6",
        "The defaults.",
        "walker2d.png",
        "Seed 100, every eighth step of an episode.",
    ),
    Piece(
        "InvertedPendulum-v5",
        "final",
        "frozen",
        1_000_000,
        "trpo-fast train InvertedPendulum-v5 --timesteps 1e6",
        "The defaults. 1,000 is the most.",
        "images/invertedpendulum.png",
        "A seed of before, every 20th step of an episode of 1,000.",
    ),
    Piece(
        "Reacher-v5",
        "final",
        "frozen",
        1_000_000,
        "trpo-fast train Reacher-v5 --timesteps 1e6",
        "The defaults.",
        "images/reacher.png",
        "A seed of before, every fourth step of an episode of return -5.",
    ),
    Piece(
        "Pusher-v5",
        "final",
        "frozen",
        1_000_000,
        "trpo-fast train Pusher-v5 --timesteps 1e6",
        "The defaults. Actions of [-1, 1] become the box, whose sides are at 2.",
    ),
    Piece(
        "PositionsOnlyCartPole-v1",
        "memory",
        "gru",
        300_000,
        f"trpo-fast train PositionsOnlyCartPole-v1 --timesteps 3e5 --import bench.memory_tasks --policy gru {_THEN}",
        "CartPole without velocities, which a [recurrent policy](recurrent.md) has to remember.",
    ),
    Piece(
        "popgym-RepeatPreviousEasy-v0",
        "memory",
        "gru",
        300_000,
        "trpo-fast train popgym-RepeatPreviousEasy-v0 --timesteps 3e5 --import bench.memory_tasks --policy gru "
        f"{_THEN}",
        "To say which card was dealt four steps before; 1 is the most. popgym has to be installed.",
    ),
)


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for piece in PIECES:
        found = _scores(piece)
        if not found:
            continue
        mean, _ = statistics.estimate([found])
        score = f"{number(float(mean))}, one seed"
        if len(found) > 1:
            score = f"{number(float(mean))} over {len(found)} seeds, the worst {number(min(found))}"
        parts.append(f"\n## {piece.task}\n\n{piece.words} After {piece.timesteps:,} timesteps: {score}.\n")
        if piece.picture:
            parts.append(f"\n![{piece.task}, a few steps apart]({piece.picture})\n\n*{piece.caption}*\n")
        parts.append(f"\n![Training returns on {piece.task}](images/{_curve(piece)})\n\n```sh\n{piece.command}\n```\n")
    return "".join(parts)


def _scores(piece: Piece) -> list[float]:
    """Of the piece's runs that have ended."""
    rows = [row for row in Study(RESULTS / piece.study).runs() if int(row["timesteps"]) == piece.timesteps]
    return scores(rows).get((piece.arm, piece.task), [])


def _curve(piece: Piece) -> str:
    return f"curve-{piece.task.lower()}.png"


def draw(piece: Piece) -> Path:
    """The piece's training returns over its seeds."""
    from matplotlib.figure import Figure

    study = Study(RESULTS / piece.study)
    (arm,) = (arm for arm in study.arms if arm.name == piece.arm)
    curves = []
    for curve in curves_of(study, arm, piece.task):
        count = sum(steps <= 1.01 * piece.timesteps for steps in curve.timesteps)
        curves.append((curve.timesteps[:count], curve.returns[:count]))
    steps, returns = statistics.on_one_grid(curves, points=100)
    value, interval = statistics.estimate([returns], resamples=1_000)
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    for _, own in zip(curves, returns, strict=True):
        axes.plot(steps, own, color="C0", alpha=0.25, lw=0.8)
    axes.plot(steps, value, color="C0")
    if interval is not None:
        axes.fill_between(steps, *interval, color="C0", alpha=0.15, lw=0)
    axes.set(xlabel="timesteps", ylabel="training return")
    axes.grid(alpha=0.3)
    out = IMAGES / _curve(piece)
    figure.savefig(out, format="png", dpi=100, metadata={"Software": None})
    return out


def main() -> int:
    """Write page and curves."""
    IMAGES.mkdir(exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
    for piece in filter(_scores, PIECES):
        print(draw(piece))
    return 0


if __name__ == "__main__":
    sys.exit(main())
