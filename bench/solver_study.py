"""Does a better solver learn better? Directions of different accuracy, same everything else, ten seeds each.

    python -m bench.solver_study                                  # every arm, environment and seed; hours
    python -m bench.solver_study --arms cg10 cg25 --seeds 0-4     # a part of it
    python -m bench.solver_study --summarize                      # table and picture of what is there, train nothing

Every finished run is a line of results/solver_study/runs.csv at once, so a study can be stopped and gone on with. The
summary gives, for each environment and arm, the interquartile mean over seeds with a 95% interval from the percentile
bootstrap (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice").
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.learning import Experiment, Run, _seeds, execute

RESULTS = Path(__file__).with_name("results") / "solver_study"
# Whatever the defaults are: they follow from this study.
ARMS = {
    "cg10": ("--preconditioner", "none", "--cg-iterations", "10"),
    "cg25": ("--preconditioner", "none", "--cg-iterations", "25"),
    "kfac5": ("--preconditioner", "kfac", "--cg-iterations", "5"),
}
ENVIRONMENTS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")
COLUMNS = ("env", "arm", "seed", "timesteps", "evaluation", "evaluation_std", "training_last", "training_mean")
BOOTSTRAP, BOOTSTRAP_SEED = 20_000, 0


def _returns(folder: Path) -> tuple[float, float]:
    """Training return at the end (its last 100 episodes), and averaged over the whole run."""
    with (folder / "progress.csv").open(newline="", encoding="utf-8") as file:
        values = [float(row["rollout/ep_rew_mean"]) for row in csv.DictReader(file) if row["rollout/ep_rew_mean"]]
    return values[-1], float(np.mean(values))


def _read() -> list[dict[str, str]]:
    path = RESULTS / "runs.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study(
    arms: Sequence[str], envs: Sequence[str], seeds: Sequence[int], timesteps: int, processes: int, work: Path
) -> None:
    """Run what is missing, seed by seed, so that a part of the study compares all arms alike."""
    from bench.machine import describe

    RESULTS.mkdir(parents=True, exist_ok=True)
    done = {(row["env"], row["arm"], int(row["seed"]), int(row["timesteps"])) for row in _read()}
    lock = threading.Lock()

    def one(env: str, arm: str, seed: int) -> None:
        run = Run(Experiment(env, timesteps, (seed,), 20, ARMS[arm]), seed, work / f"{env}-{arm}-seed{seed}")
        evaluation = execute(run)
        last, mean = _returns(run.folder)
        row: dict[str, Any] = {"env": env, "arm": arm, "seed": seed, "timesteps": timesteps}
        row |= {"evaluation": f"{evaluation['mean']:.6g}", "evaluation_std": f"{evaluation['std']:.6g}"}
        row |= {"training_last": f"{last:.6g}", "training_mean": f"{mean:.6g}"}
        path = RESULTS / "runs.csv"
        with lock:
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            described = RESULTS / "study.json"
            known = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
            folder = f"runs/{env}-{arm}-seed{seed}"
            commands = [shlex.join(["trpo-fast", *make(folder)]) for make in (run.train_command, run.eval_command)]
            known[f"{env} {arm}"] = {"commands": commands, "machine": describe()}
            described.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(processes) as workers:
        futures = [
            workers.submit(one, env, arm, seed)
            for seed in seeds
            for env in envs
            for arm in arms
            if (env, arm, seed, timesteps) not in done
        ]
        try:
            for future in futures:
                future.result()
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half along the last axis (n items); a value on the border counts by its part."""
    n = values.shape[-1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return np.asarray(np.sort(values, axis=-1) @ (weights / weights.sum()))


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the interquartile mean over seeds."""
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(len(values), size=(BOOTSTRAP, len(values)))
    low, high = np.percentile(interquartile_mean(values[draws]), [2.5, 97.5])
    return float(low), float(high)


def summarize(timesteps: int) -> None:
    """Print the table, write summary.json and draw study.png, of the runs of so many timesteps."""
    from matplotlib.figure import Figure

    rows = [row for row in _read() if int(row["timesteps"]) == timesteps]
    if not rows:
        raise SystemExit(f"--timesteps: {timesteps} given; no such run is in {RESULTS / 'runs.csv'}")
    envs = [env for env in ENVIRONMENTS if any(row["env"] == env for row in rows)]
    figure = Figure(figsize=(3.2 * len(envs), 3.2), layout="constrained")
    summary: dict[str, Any] = {}
    for position, env in enumerate(envs):
        axes = figure.add_subplot(1, len(envs), position + 1)
        for height, arm in enumerate(ARMS):
            own = [row for row in rows if row["env"] == env and row["arm"] == arm]
            if not own:
                continue
            entry: dict[str, Any] = {"seeds": len(own)}
            for name in ("evaluation", "training_last", "training_mean"):
                values = np.array([float(row[name]) for row in own])
                low, high = interval(values)
                entry[name] = {
                    "iqm": round(float(interquartile_mean(values)), 1),
                    "interval": [round(low), round(high)],
                }
            summary[f"{env} {arm}"] = entry
            values = np.array([float(row["evaluation"]) for row in own])
            low, high = entry["evaluation"]["interval"]
            axes.plot([low, high], [height, height], color=f"C{height}", lw=6, alpha=0.4)
            axes.plot(entry["evaluation"]["iqm"], height, "|", color=f"C{height}", ms=18, mew=3)
            axes.plot(values, [height + 0.25] * len(values), ".", color="0.4", ms=4)
            print(
                f"{env:16}{arm:8}{len(own):3} seeds   "
                + "   ".join(f"{k} {v}" for k, v in entry.items() if k != "seeds")
            )
        axes.set_yticks(range(len(ARMS)), list(ARMS))
        axes.set(title=env, xlabel="return of the final policy")
        axes.grid(alpha=0.3)
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    figure.savefig(RESULTS / "study.png", dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Run or summarize the study."""
    parser = argparse.ArgumentParser(prog="python -m bench.solver_study", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--envs", nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--seeds", type=_seeds, default=tuple(range(10)), help="as 0-9 or 0,3,7")
    parser.add_argument("--timesteps", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/solver_study"), help="folders of the runs")
    parser.add_argument("--summarize", action="store_true", help="only the table and the picture of what is there")
    options = parser.parse_args(argv)
    if not options.summarize:
        study(options.arms, options.envs, options.seeds, options.timesteps, options.processes, options.work)
    summarize(options.timesteps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
