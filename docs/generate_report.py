"""Write report.md, with the symptoms from the table that the command reads; a test holds the two together.

Run from the repository:  python docs/generate_report.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from trpo_fast.symptoms import SYMPTOMS

PAGE = Path(__file__).with_name("report.md")

HEAD = """\
# Curves, reports and films

Three commands show how a training went. `plot` and `report` read a run's `config.json` and `progress.csv` alone, of a
run that is under way, too, and load neither torch nor Gymnasium; they draw with matplotlib (`pip install
'trpo-fast[plot]'`). `record` plays the model.

## Learning curves

```
trpo-fast plot runs/hopper                                  # runs/hopper/curve.png
trpo-fast plot runs --out curves.svg                        # every run below runs; .png, .svg, .pdf or .html
trpo-fast plot runs --group seed --out curves.html          # a page with tables
```

![A page of learning curves with tables of settings and probabilities](images/plot.png)

Every environment has a panel of its own. With `--group seed` the runs that differ in nothing but their seed are one
curve:

- the **interquartile mean** of the seeds, the mean of the middle half, point by point, with the 95% interval of the
  bootstrap that draws whole seeds; fewer than three seeds get no interval;
- for every two settings the **probability of improvement**: how probably a run of the first returns more than a run
  of the second, a tie counting half, averaged over the environments that both were trained on. It is read off at the
  last timestep that all runs of an environment have. 0.5 is no difference, and an interval that holds 0.5 shows none.

Both are those of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021). A
return that is NaN counts as the lowest of its environment. In Python they are `trpo_fast.statistics.estimate` and
`probability_of_improvement`. The page has everything in it, and loads nothing.

## Reading the report

```
trpo-fast report runs/hopper                # words here, and the page runs/hopper/report.html
trpo-fast report runs/hopper --text         # the words alone, without matplotlib
trpo-fast report runs/hopper --json         # one JSON line, for programs
```

![The report of a run whose critic does not fit](images/report.png)

The page has what looks wrong on top, each with its numbers, its causes and what to try; then the run in numbers; then
panels: return, KL against max_kl, surrogate improvement against what the gradient promised, backtracks, residual and
products of the solve, explained variance and loss of the critic, standard deviation and entropy of the policy, how
updates ended, and where the time went. The terminal has the same in words:

![The same report in a terminal](images/terminal.png)

What is usual, of the runs behind [learning.md](learning.md): a KL of 0.6 to 1.0 of max_kl and 0 or 1 backtracks;
nearly no update rejected; a residual of 0.15 to 0.9 with ten products on MuJoCo's tasks, and far less on small ones;
an explained variance of 0.4 to 1.0, but for tasks that are solved, where the returns are all alike and there is
nothing to explain; a standard deviation that falls to a half over 150 updates.

The symptoms are silent on the runs of that study that learned. Each of them was seen on a training that was made to
fail, or, where none could be made to, on rows that were (`tests/test_symptoms.py`). A run of which nothing looks
wrong may still be far from what the task allows: compare it with [what others reach](learning.md).

## Symptoms

This list is the table that the command reads, `trpo_fast/symptoms.py`. Settings are called as in Python;
`cg_iterations` is `--cg-iterations` on the command line ([configuration.md](configuration.md)).

"""

FILMS = """\
## Films

```
trpo-fast record runs/hopper                                     # episode.gif beside the latest model
trpo-fast record runs/hopper --out hopper.mp4 --episodes 3 --seed 1
trpo-fast record runs/hopper --stochastic --max-steps 200 --fps 10
```

The episodes are those that `eval` plays with the same options, seed and `--episodes 1`. The film has the speed of the
task: of a task of 125 steps a second every fifth step is a picture, 25 a second; `--fps` changes that. A GIF needs
Pillow, an MP4 imageio-ffmpeg, which brings its encoder along, and Gymnasium's small tasks draw with pygame: `pip
install 'trpo-fast[record]'` has all three. 61 pictures of HalfCheetah-v5 are 1.6 MB as a GIF and 0.2 MB as an MP4.

No display is needed. MuJoCo draws through a graphics library: where there is no display and `MUJOCO_GL` is not set,
it is set to `egl` where there is a libEGL, else to `osmesa` where there is a libOSMesa. Where neither is, the command
says what to install: on Debian `apt install libegl1 libegl-mesa0`, or `libosmesa6`. Without a graphics card a picture
of 480 x 480 takes 0.07 s of an AMD EPYC's (Zen 3) core; smaller ones take less: `--env-kwargs '{"width": 240,
"height": 240}'`. The camera goes along with the robot, which Gymnasium's default does not. An environment without
`rgb_array` among its render modes is refused by name.
"""


def symptom_lines() -> list[str]:
    """The table as sections."""
    lines = []
    for symptom in SYMPTOMS:
        lines += [f"### {symptom.name}", "", symptom.cause, ""]
        lines += [*(f"- {cure}" for cure in symptom.cures), ""]
    return lines


def render() -> str:
    """The page."""
    return HEAD + "\n".join(symptom_lines()) + "\n" + FILMS


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
