"""Training on images: steps per second on ALE Pong with the defaults for CNNs, beside those that MLPs have.

    python -m bench.images                # both settings by turns
    python -m bench.images --out FILE     # the figures as JSON

Pong is preprocessed as usual (84 x 84 gray pixels, a frame every four, stacks of four). It needs ale-py and
opencv-python-headless. What it learns is of no interest here; tests/algorithm/test_images.py has a task that it learns.
Seconds of the processor are printed beside those of the clock, since they say more on a machine that is not idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import torch
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from bench.machine import describe
from trpo_fast import TRPO

SETTINGS: dict[str, dict[str, Any]] = {
    "as for an MLP": {"fisher_subsample": 1.0, "critic_epochs": 20},
    "defaults": {},
}


def make() -> gymnasium.Env[Any, Any]:
    """One Pong."""
    return FrameStackObservation(AtariPreprocessing(gymnasium.make("ale_py:ALE/Pong-v5", frameskip=1)), 4)


def measure(agent: TRPO) -> dict[str, Any]:
    """Seconds of one update, everything included, and of its phases."""
    began, busy = time.perf_counter(), time.process_time()
    agent.learn(1, reset_num_timesteps=False)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    report = agent.last_update
    assert report is not None
    phases = {name: round(value, 2) for name, value in report.seconds.items()}
    return {"wall": seconds, "cpu": busy, "phases": phases, "critic_fit": round(report.fit.result().seconds, 2)}


def main() -> None:
    """Print a line for each of the settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=SETTINGS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = {name: SETTINGS[name] for name in SETTINGS if arguments.only in (None, name)}
    agents = {name: TRPO(make, seed=0, warm_up_steps=8, **settings) for name, settings in chosen.items()}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in agents}
    for _ in range(arguments.rounds):
        for name, agent in agents.items():
            rounds[name].append(measure(agent))
            print(name, rounds[name][-1], flush=True)
    results: dict[str, Any] = {"command": " ".join(["python -m bench.images", *sys.argv[1:]]), "machine": describe()}
    for name, agent in agents.items():
        steps = agent.config.num_envs * agent.config.steps_per_env
        per = {unit: steps / statistics.median(one[unit] for one in rounds[name]) for unit in ("wall", "cpu")}
        results[name] = {"steps_per_second": per, "rounds": rounds[name], "config": agent.config.to_dict()}
        print(f"{name}: {per['wall']:.1f} steps/s, {per['cpu']:.1f} per second of the processor")
        agent.close()
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
