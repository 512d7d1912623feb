"""Learning curves: a table of environments and seeds through ``trpo-fast train`` and ``trpo-fast eval``.

    python -m bench.learning                                       # the whole table
    python -m bench.learning Hopper-v5 --seeds 0-2 --timesteps 300000
    python -m bench.learning Hopper-v5 -- --max-kl 0.01            # what follows -- goes to every trpo-fast train
    python -m bench.learning --plot                                # draw what is there, train nothing

At most two runs at a time, one thread each. For every environment, under results/learning/: ``<env>.csv``, progress.csv
of all seeds thinned to at most 100 rows a run, ``<env>.png``, and an entry in summary.json with the exact commands, the
final evaluations, versions and machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).with_name("results") / "learning"
ROWS = 100
COLUMNS = (
    "time/total_timesteps",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "train/kl_divergence_loss",
    "train/explained_variance",
    "train/std",
    "time/fps",
)
# Training reports means of the last 100 episodes; the evaluation's seed differs from every training seed.
EVALUATION_SEED = 1_000_000


class Experiment(NamedTuple):
    """What is run for one environment."""

    env: str
    timesteps: int
    seeds: tuple[int, ...]
    episodes: int  # of the final deterministic evaluation
    settings: tuple[str, ...] = ()  # options of trpo-fast train


DECAY = ("--max-kl-schedule", "linear", "--critic-learning-rate-schedule", "linear")
TABLE = (
    # Without a decay, two of ten seeds end in a dip (253 and 395 instead of 500).
    Experiment("CartPole-v1", 100_000, tuple(range(10)), 100, DECAY),
    Experiment("Pendulum-v1", 300_000, (0, 1, 2), 100, ("--gamma", "0.9")),
    Experiment("HalfCheetah-v5", 1_000_000, tuple(range(10)), 20),
    Experiment("Hopper-v5", 1_000_000, tuple(range(10)), 20),
    Experiment("Walker2d-v5", 1_000_000, tuple(range(10)), 20),
)


class Run(NamedTuple):
    """One seed of one experiment."""

    experiment: Experiment
    seed: int
    folder: Path

    def train_command(self, folder: str) -> list[str]:
        """The command as a user would type it."""
        experiment = self.experiment
        numbers = ["--timesteps", str(experiment.timesteps), "--seed", str(self.seed), "--threads", "1"]
        return ["train", experiment.env, *numbers, "--eval-episodes", "0", "--out", folder, *experiment.settings]

    def eval_command(self, folder: str) -> list[str]:
        """The command as a user would type it."""
        return ["eval", folder, "--episodes", str(self.experiment.episodes), "--seed", str(EVALUATION_SEED), "--json"]


def execute(run: Run) -> dict[str, Any]:
    """Train and evaluate in processes of their own; the evaluation, with the seed."""
    folder = str(run.folder)
    _trpo_fast(run.train_command(folder), log=run.folder.with_suffix(".log"))
    output = _trpo_fast(run.eval_command(folder), log=run.folder.with_suffix(".eval.log"))
    evaluation = json.loads(output.splitlines()[-1])
    print(f"{run.experiment.env} seed {run.seed}: {evaluation['mean']:.1f} +- {evaluation['std']:.1f}", flush=True)
    return {
        "training_seed": run.seed,
        **{k: evaluation[k] for k in ("mean", "std", "min", "max", "mean_length", "episodes")},
    }


def _trpo_fast(arguments: Sequence[str], log: Path) -> str:
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "trpo_fast", *arguments]
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | one_thread,
        )
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def thinned(rows: Sequence[dict[str, str]], most: int = ROWS) -> list[dict[str, str]]:
    """At most `most` rows, evenly spaced, with the last one."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round((i + 1) * len(rows) / most) - 1] for i in range(most)]


def _write_curves(experiment: Experiment, runs: Iterable[Run]) -> None:
    with (RESULTS / f"{experiment.env}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("seed", *COLUMNS), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for run in runs:
            with (run.folder / "progress.csv").open(newline="", encoding="utf-8") as progress:
                for row in thinned(list(csv.DictReader(progress))):
                    writer.writerow({"seed": run.seed, **{name: _short(row.get(name, "")) for name in COLUMNS}})


def _short(text: str) -> str:
    return text if not text or text.isdigit() else f"{float(text):.6g}"


def _write_summary(experiment: Experiment, runs: Sequence[Run], evaluations: Sequence[dict[str, Any]]) -> None:
    from bench.machine import describe

    path = RESULTS / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    means = [evaluation["mean"] for evaluation in evaluations]
    first = runs[0]
    folder = f"runs/{experiment.env}-seed{first.seed}"
    summary[experiment.env] = {
        "commands": [
            shlex.join(["trpo-fast", *command(folder)]) for command in (first.train_command, first.eval_command)
        ],
        "seeds": [run.seed for run in runs],
        "timesteps": experiment.timesteps,
        "mean": statistics.fmean(means),
        "std_between_seeds": statistics.pstdev(means),
        "worst": min(means),
        "evaluations": list(evaluations),
        "config": json.loads((first.folder / "config.json").read_text(encoding="utf-8"))["config"],
        "machine": describe(),
    }
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def run_experiments(experiments: Sequence[Experiment], processes: int, keep: Path | None) -> None:
    """Run the table, longest first, and write the results of an environment once all its seeds are there."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(processes) as workers:
        where = keep or Path(temporary)
        where.mkdir(parents=True, exist_ok=True)
        waiting = []
        for experiment in sorted(experiments, key=lambda e: -e.timesteps):
            runs = [Run(experiment, seed, where / f"{experiment.env}-seed{seed}") for seed in experiment.seeds]
            waiting.append((experiment, runs, [workers.submit(execute, run) for run in runs]))
        try:
            for experiment, runs, futures in waiting:
                evaluations = [future.result() for future in futures]
                _write_curves(experiment, runs)
                _write_summary(experiment, runs, evaluations)
                plot(experiment.env)
                mean = statistics.fmean(evaluation["mean"] for evaluation in evaluations)
                print(f"{experiment.env}: mean {mean:.1f} of seeds {', '.join(map(str, experiment.seeds))}", flush=True)
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


def plot(env: str) -> None:
    """Draw ``<env>.png`` from ``<env>.csv``: one line a seed, with the final evaluations where they are known."""
    from matplotlib.figure import Figure

    with (RESULTS / f"{env}.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["rollout/ep_rew_mean"]]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row for row in rows if row["seed"] == seed]
        steps = [int(row["time/total_timesteps"]) for row in own]
        axes.plot(steps, [float(row["rollout/ep_rew_mean"]) for row in own], lw=1.2, label=f"seed {seed}")
    summary = RESULTS / "summary.json"
    known = json.loads(summary.read_text(encoding="utf-8")).get(env) if summary.exists() else None
    if known:
        axes.axhline(known["mean"], color="0.3", ls="--", lw=1, label=f"deterministic, mean {known['mean']:,.0f}")
    axes.set(title=env, xlabel="timesteps", ylabel="training return (last 100 episodes)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(RESULTS / f"{env}.png", dpi=110)


def _seeds(text: str) -> tuple[int, ...]:
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds.extend(range(int(first), int(last or first) + 1))
    return tuple(seeds)


def main(argv: Sequence[str] | None = None) -> int:
    """Run or draw the chosen rows of the table."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settings: tuple[str, ...] = ()
    if "--" in arguments:
        at = arguments.index("--")
        arguments, settings = arguments[:at], tuple(arguments[at + 1 :])
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env", nargs="*", help=f"default: {' '.join(e.env for e in TABLE)}")
    parser.add_argument("--seeds", type=_seeds, help="as 0-4 or 0,3,7")
    parser.add_argument("--timesteps", type=int)
    parser.add_argument("--episodes", type=int, help="of the final evaluation")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--keep", type=Path, help="leave the runs' folders here")
    parser.add_argument("--plot", action="store_true", help="only draw the results that are there")
    options = parser.parse_args(arguments)

    known = {experiment.env: experiment for experiment in TABLE}
    chosen = [known.get(env, Experiment(env, 1_000_000, (0, 1, 2, 3, 4), 20)) for env in options.env or known]
    if options.plot:
        for experiment in chosen:
            if options.env or (RESULTS / f"{experiment.env}.csv").exists():
                plot(experiment.env)
        return 0
    changes = {name: getattr(options, name) for name in ("seeds", "timesteps", "episodes") if getattr(options, name)}
    chosen = [e._replace(**changes, settings=(*e.settings, *settings)) for e in chosen]
    run_experiments(chosen, options.processes, options.keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
