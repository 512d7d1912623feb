"""What a sample of the rollout takes in memory: the most that whole trainings take, by the size of their batch.

    python -m bench.memory      # 17 numbers and 6 actions, as HalfCheetah has, by five policies; a Nature CNN

Each training is a process of its own that makes two updates, so that the critic's fit beside a rollout is in it, and
says the largest resident set that it had. Bytes of a sample are the slope of a line through three sizes of the batch,
and what a process takes besides is where that line begins.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import torch

from bench.checkpoints import Pixels
from bench.machine import RESULTS, describe
from trpo_fast import TRPO

SIZES = (16_384, 65_536, 131_072)  # samples of a batch
PIXEL_SIZES = (512, 2_048, 4_096)
CASES: dict[str, dict[str, Any]] = {
    "MLP 64-64": {},
    "MLP 256-256": {"hidden_sizes": (256, 256), "critic_hidden_sizes": (256, 256)},
    "MLP 64-64, the critic fitted between rollouts": {"overlap_critic": False},
    "MLP 64-64, autograd engine": {"engine": "autograd"},
    "GRU of 64": {"policy": "gru"},
    "CNN, 84 x 84 x 4 bytes": {"num_envs": 4},
}


class Numbers(gymnasium.Env[Any, Any]):
    """What HalfCheetah shows and takes, without a simulator; episodes of a thousand steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (17,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (6,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """One of eight rows of numbers."""
        super().reset(seed=seed)
        self._rows, self._steps = self.np_random.normal(size=(8, 17)), 0
        return self._rows[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The next one."""
        self._steps += 1
        return self._rows[self._steps % 8], float(action[0]), False, self._steps == 1_000, {}


def largest_resident_set() -> int:
    """Bytes, the most that this process had at any time (Linux and macOS)."""
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def train(case: str, samples: int) -> int:
    """Bytes at most of a training of two updates of so many samples each."""
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"num_envs": 16, "warm_up_steps": 0, **CASES[case]}
    settings["steps_per_env"] = samples // settings["num_envs"]
    with TRPO((lambda: Pixels(84)) if case.startswith("CNN") else Numbers, seed=0, **settings) as agent:
        agent.learn(2 * samples)
    return largest_resident_set()


def measure(case: str) -> dict[str, Any]:
    """Bytes of a process by the size of its batch, and the line through them."""
    sizes = PIXEL_SIZES if case.startswith("CNN") else SIZES
    taken = []
    for samples in sizes:
        command = [sys.executable, "-m", "bench.memory", "--case", case, "--samples", str(samples)]
        taken.append(int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]))
    slope, start = np.polyfit(sizes, taken, 1)
    return {"samples": list(sizes), "bytes": taken, "bytes_of_a_sample": slope, "bytes_besides": start}


def main() -> None:
    """Print a line for each, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=tuple(CASES), help="this one alone, and nothing is written")
    parser.add_argument("--samples", type=int, help="with --case: one training, and the bytes that it took")
    arguments = parser.parse_args()
    if arguments.samples is not None:
        if arguments.case is None:
            parser.error("--samples: given without --case; want both")
        print(train(arguments.case, arguments.samples))
        return
    result: dict[str, Any] = {"command": "python -m bench.memory", "machine": describe(), "cases": {}}
    for case in CASES if arguments.case is None else (arguments.case,):
        found = result["cases"][case] = measure(case)
        each, besides = found["bytes_of_a_sample"], found["bytes_besides"]
        print(f"{case:<48} {each:8,.0f} bytes a sample, {besides / 1e6:6,.0f} MB besides", flush=True)
    if arguments.case is None:
        (RESULTS / "memory.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
