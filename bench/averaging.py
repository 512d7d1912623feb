"""Is a running mean of the policy's parameters a better final policy than the last one?

    python -m bench.averaging [TASK ...] [--seeds 0 1 2] [--timesteps 1e6] [--processes 2] [--settings max_kl=0.02]

Trains with the defaults and keeps, beside the policy, means of its parameters over several numbers of updates, which
the training knows nothing of. Policy and means act deterministically in the same episodes at 300,000 and 600,000
timesteps (10) and at the end (20). A run is a process with one thread, and a file of bench/results/averaging; one that
is there is not made again.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench.machine import RESULTS, describe
from trpo_fast import TRPO, set_num_threads
from trpo_fast.model_file import replace_file
from trpo_fast.tuning.trial import EVALUATION_SEED

FOLDER = RESULTS / "averaging"
TASKS = ("Walker2d-v5", "Ant-v5", "Hopper-v5", "HalfCheetah-v5")
LATEST = (10, 25, 50, 100)  # updates
PARTS = (4, 8, 16)  # the last quarter of all updates, and so on
MARKS = (300_000, 600_000)
TIMESTEPS = 1_000_000


def weights(count: int) -> dict[str, float]:
    """What the parameters after the `count`-th update weigh in each mean."""
    exponential = {f"{updates} updates": max(1 / updates, 1 / count) for updates in LATEST}
    return exponential | {f"1/{part} of all": min(1.0, part / (count + part - 1)) for part in PARTS}


class Means:
    """Running means of an agent's parameters: exponential ones, and with polynomial decay [1]_.

    References
    ----------
    .. [1] Shamir & Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013, sec. 4.
    """

    def __init__(self, agent: TRPO) -> None:
        self._parameters = list(agent.policy.parameters())
        self._means = {name: self._copies() for name in weights(1)}

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Take in the parameters after the `count`-th update."""
        for name, weight in weights(count).items():
            for mean, parameter in zip(self._means[name], self._parameters, strict=True):
                mean.lerp_(parameter, weight)

    @torch.no_grad()
    def scores(self, agent: TRPO, episodes: int) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of the return, of the last policy and of each mean; the policy stays as it is."""
        last = self._copies()
        found = {}
        for name, parameters in (("last", last), *self._means.items()):
            self._write(parameters)
            evaluation = agent.evaluate(episodes, seed=EVALUATION_SEED)
            found[name] = round(evaluation.mean, 1), round(evaluation.std, 1)
        self._write(last)
        return found

    def _copies(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters]

    def _write(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)


def train(task: str, seed: int, timesteps: int, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of scores at each mark and at the end."""
    torch.set_num_threads(1)
    set_num_threads(1)
    agent = TRPO(task, seed=seed, **settings)
    means, rows = Means(agent), []
    marks = [mark for mark in MARKS if mark < timesteps] + [timesteps]

    def note(agent: TRPO) -> None:
        means.add(agent.num_updates)
        if agent.num_timesteps >= marks[0]:
            del marks[0]
            row = {"timesteps": agent.num_timesteps, "training": round(agent.episode_return_mean, 1)}
            rows.append(row | means.scores(agent, 10 if marks else 20))

    agent.learn(timesteps, note)
    return rows


def file_of(task: str, seed: int, timesteps: int, settings: str) -> Path:
    """Where a run's rows are; the name says the timesteps where they are not a million."""
    steps = "" if timesteps == TIMESTEPS else str(timesteps)
    return FOLDER / f"{'-'.join(filter(None, (task, steps, re.sub(r'[^a-z0-9.-]+', '-', settings))))}-{seed}.json"


def read(settings: str) -> dict[str, Any]:
    """``name=value,name=value`` of Python literals."""
    pairs = (item.split("=", 1) for item in settings.split(",") if item)
    return {name: ast.literal_eval(value) for name, value in pairs}


def run(task: str, seed: int, timesteps: int, settings: str) -> None:
    """In this process."""
    began = time.monotonic()
    rows = train(task, seed, timesteps, read(settings))
    found = {
        "command": f"python -m bench.averaging {task} --seeds {seed} --timesteps {timesteps}"
        + (f" --settings {settings}" if settings else ""),
        "machine": describe(),
        "task": task,
        "seed": seed,
        "settings": settings,
        "seconds": round(time.monotonic() - began),
        "rows": rows,
    }
    FOLDER.mkdir(exist_ok=True)
    replace_file(file_of(task, seed, timesteps, settings), (json.dumps(found, indent=1) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS, metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--timesteps", type=float, default=TIMESTEPS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--settings", default="", help="name=value,... besides the defaults")
    parser.add_argument("--here", action="store_true", help="one run, in this process")
    options = parser.parse_args(arguments)
    if options.here:
        run(options.tasks[0], options.seeds[0], int(options.timesteps), options.settings)
        return
    wanted = [(seed, task) for seed in options.seeds for task in options.tasks]
    files = {which: file_of(which[1], which[0], int(options.timesteps), options.settings) for which in wanted}
    missing = [which for which, file in files.items() if not file.exists()]

    def child(which: tuple[int, str]) -> None:
        seed, task = which
        given = ["--seeds", str(seed), "--timesteps", str(options.timesteps), "--settings", options.settings]
        subprocess.run([sys.executable, "-m", "bench.averaging", task, *given, "--here"], check=True)
        print(f"  written to {files[which]}", flush=True)

    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(child, missing))


if __name__ == "__main__":
    main()
