"""What checkpoints cost: their share of the time of a training with the defaults, every wait counted.

    python -m bench.checkpoints      # HalfCheetah-v5, and a Nature CNN whose checkpoint is 50 MB and more
    python -m bench.checkpoints --only cnn --out FILE

A checkpoint's cost is the time that the training stands still for it: for taking the moment, and for writing the file
and bringing it to the disk. Its share is that of one in a minute, the least time between two with the defaults.

The CNN's rollouts are short here, as a checkpoint does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import trpo_fast
from bench.machine import describe, share_of_cores
from trpo_fast import TRPO
from trpo_fast.algorithm.callbacks import Callback, CheckpointCallback

SECONDS = 60.0  # between two, with the defaults, or two updates where they take longer


class Pixels(gymnasium.Env[Any, Any]):
    """Four frames of random gray pixels; with 112 a side a Nature CNN's two networks and Adam are 53 MB."""

    action_space = gymnasium.spaces.Discrete(6)

    def __init__(self, side: int = 112) -> None:
        self._shape = (4, side, side)
        self.observation_space = gymnasium.spaces.Box(0, 255, self._shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """One of eight images."""
        super().reset(seed=seed)
        self._images = self.np_random.integers(0, 256, (8, *self._shape), np.uint8)
        return self._images[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Another one; episodes of fifty steps."""
        number = int(self.np_random.integers(400))
        return self._images[number % 8], float(action == number % 6), number < 8, False, {}


class Timed(Callback):
    """Every update's checkpoint, and what it costs."""

    runs_last = True

    def __init__(self, folder: Path) -> None:
        self._checkpoints = CheckpointCallback(folder, every=1, keep=3, best=True)
        self.seconds: list[float] = []
        self.updates: list[float] = []
        self._began = 0.0

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """As the callback's own."""
        self._checkpoints.on_training_start(agent, total_timesteps)
        self._began = time.perf_counter()

    def on_update(self, agent: TRPO) -> None:
        """Write that of the update before, take this one's."""
        began = time.perf_counter()
        self.updates.append(began - self._began)
        self._checkpoints.on_update(agent)
        self._began = time.perf_counter()
        self.seconds.append(self._began - began)

    def on_training_end(self, agent: TRPO) -> None:
        """Write the last."""
        self._checkpoints.on_training_end(agent)


def measure(agent: TRPO, count: int) -> dict[str, Any]:
    """Seconds of updates and of checkpoints, and the share of the latter with the defaults."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        timed = Timed(Path(folder))
        agent.learn(count * agent.config.num_envs * agent.config.steps_per_env, timed)
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    # The first update has no checkpoint to write yet.
    updates, seconds = timed.updates[1:], timed.seconds[1:]
    update, cost = statistics.median(updates), statistics.median(seconds)
    return {"bytes": size, "update": update, "checkpoint": cost, "share": cost / SECONDS, "all": seconds}


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.checkpoints", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("cheetah", "cnn"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trpo_fast.set_num_threads(arguments.threads)
    makers: dict[str, tuple[Any, dict[str, Any]]] = {
        "cheetah": ("HalfCheetah-v5", {}),
        "cnn": (Pixels, {"steps_per_env": 8, "warm_up_steps": 0}),
    }
    result: dict[str, Any] = {"machine": describe(), "share_of_cores": share_of_cores(1)}
    for name, (env, settings) in makers.items():
        if arguments.only not in (None, name):
            continue
        agent = TRPO(env, seed=0, **settings)
        found = result[name] = measure(agent, arguments.updates)
        agent.close()
        print(
            f"{name}: {found['bytes'] / 1e6:.2f} MB, {1e3 * found['checkpoint']:.0f} ms of {SECONDS:.0f} s "
            f"({found['share']:.2%}); an update {found['update']:.2f} s",
            flush=True,
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
