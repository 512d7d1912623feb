"""One training or evaluation of a peer with the settings that rl-baselines3-zoo publishes: what bench.learning runs.

    python -m bench.peer_learning train Hopper-v5 --algorithm trpo --timesteps 1e6 --seed 0 --out FOLDER
    python -m bench.peer_learning eval FOLDER --episodes 20 --seed 1000000

The zoo lists the -v4 tasks. Asked for -v5 it takes the algorithm's defaults and one environment without normalization,
so its settings are applied here by hand. Reacher, Pusher and the pendulums are not in its trpo.yml; they get the
settings that it gives to every MuJoCo task it lists without an entry of its own (MUJOCO). The folder has the columns of
``trpo-fast train`` in progress.csv, and the evaluation prints the line of ``trpo-fast eval --json``: deterministic,
raw rewards, the normalization's statistics frozen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

KINDS: dict[str, Any] = {"trpo": sb3_contrib.TRPO, "ppo": stable_baselines3.PPO}

# hyperparams/trpo.yml: Ant-v4, which Hopper, Walker2d and Humanoid take as it is.
MUJOCO: dict[str, Any] = {
    "n_envs": 2,
    "n_steps": 1024,
    "batch_size": 128,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "sub_sampling_factor": 1,
    "cg_max_steps": 25,
    "cg_damping": 0.1,
    "n_critic_updates": 20,
    "learning_rate": 1e-3,
}
TRPO: dict[str, dict[str, Any]] = {"HalfCheetah-v5": {"target_kl": 0.04}, "Swimmer-v5": {"gamma": 0.9999}}

# hyperparams/ppo.yml. Ant-v4 has only its normalization there.
WIDE: dict[str, Any] = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": torch.nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
PPO: dict[str, dict[str, Any]] = {
    "Ant-v5": {},
    "HalfCheetah-v5": {
        "batch_size": 64,
        "n_steps": 512,
        "gamma": 0.98,
        "learning_rate": 2.0633e-05,
        "ent_coef": 0.000401762,
        "clip_range": 0.1,
        "n_epochs": 20,
        "gae_lambda": 0.92,
        "max_grad_norm": 0.8,
        "vf_coef": 0.58096,
        "policy_kwargs": WIDE,
    },
    "Hopper-v5": {
        "batch_size": 32,
        "n_steps": 512,
        "gamma": 0.999,
        "learning_rate": 9.80828e-05,
        "ent_coef": 0.00229519,
        "clip_range": 0.2,
        "n_epochs": 5,
        "gae_lambda": 0.99,
        "max_grad_norm": 0.7,
        "vf_coef": 0.835671,
        "policy_kwargs": WIDE,
    },
    "Walker2d-v5": {
        "batch_size": 32,
        "n_steps": 512,
        "gamma": 0.99,
        "learning_rate": 5.05041e-05,
        "ent_coef": 0.000585045,
        "clip_range": 0.1,
        "n_epochs": 20,
        "gae_lambda": 0.95,
        "max_grad_norm": 1,
        "vf_coef": 0.871923,
    },
}


def settings(algorithm: str, task: str) -> dict[str, Any]:
    """What the zoo gives the algorithm for the task."""
    if algorithm == "trpo":
        return MUJOCO | TRPO.get(task, {})
    if task not in PPO:
        raise SystemExit(f"{task} given; want one of {', '.join(PPO)} for ppo")
    return {"n_envs": 1} | PPO[task]


def recorded_settings(algorithm: str, task: str) -> dict[str, Any]:
    """As `settings`, for a JSON file: classes by their names."""
    found: dict[str, Any] = json.loads(json.dumps(settings(algorithm, task), default=lambda kind: kind.__name__))
    return found


def train(arguments: argparse.Namespace) -> None:
    """Train, and leave model, statistics and progress.csv in the folder."""
    chosen = settings(arguments.algorithm, arguments.task)
    kind = KINDS[arguments.algorithm]
    environments = make_vec_env(arguments.task, chosen.pop("n_envs"), seed=arguments.seed)
    normalized = VecNormalize(environments, **({"gamma": chosen["gamma"]} if "gamma" in chosen else {}))
    model = kind("MlpPolicy", normalized, seed=arguments.seed, device="cpu", **chosen)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model.set_logger(configure(str(arguments.out), ["csv"]))
    model.learn(int(arguments.timesteps), log_interval=1)
    model.logger.close()
    normalized.save(str(arguments.out / "normalization.pkl"))
    described = {"algorithm": arguments.algorithm, "task": arguments.task}
    (arguments.out / "peer.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    model.save(arguments.out / "new.zip")
    os.replace(arguments.out / "new.zip", arguments.out / "model.zip")  # last: with it the training is complete


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the evaluation as one line of JSON."""
    described = json.loads((arguments.run / "peer.json").read_text(encoding="utf-8"))
    kind = KINDS[described["algorithm"]]
    environments = make_vec_env(described["task"], 1, seed=arguments.seed)
    normalized = VecNormalize.load(str(arguments.run / "normalization.pkl"), environments)
    normalized.training, normalized.norm_reward = False, False
    model = kind.load(arguments.run / "model.zip", device="cpu")
    returns: Any
    lengths: Any
    returns, lengths = evaluate_policy(
        model, normalized, arguments.episodes, deterministic=True, return_episode_rewards=True
    )
    line = {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "episodes": len(returns)}
    line |= {"min": float(np.min(returns)), "max": float(np.max(returns)), "mean_length": float(np.mean(lengths))}
    print(json.dumps(line | {"num_timesteps": model.num_timesteps}))


def main(argv: Sequence[str] | None = None) -> int:
    """Train or evaluate."""
    parser = argparse.ArgumentParser(prog="python -m bench.peer_learning", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train")
    one.add_argument("task")
    one.add_argument("--algorithm", choices=KINDS, required=True)
    one.add_argument("--timesteps", type=float, required=True)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--threads", type=int, default=1, help="torch's (default 1)")
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(command=train)
    one = commands.add_parser("eval")
    one.add_argument("run", type=Path)
    one.add_argument("--episodes", type=int, required=True)
    one.add_argument("--seed", type=int, required=True)
    one.set_defaults(command=evaluate, threads=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    arguments.command(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
