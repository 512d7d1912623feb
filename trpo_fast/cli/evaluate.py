"""``trpo-fast eval``."""

from __future__ import annotations

import argparse
import json

from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.errors import user_errors
from trpo_fast.cli.run_folder import model_of


def run(arguments: argparse.Namespace) -> int:
    """Play episodes; one line on stdout."""
    with user_errors():
        path = model_of(arguments.run)
        agent = TRPO.load(path)
        result = agent.evaluate(arguments.episodes, deterministic=not arguments.stochastic, seed=arguments.seed)
    agent.close()
    env = agent.recipe.id if agent.recipe else None
    if arguments.json:
        line = {
            "mean": result.mean,
            "std": result.std,
            "episodes": arguments.episodes,
            "min": float(result.returns.min()),
            "max": float(result.returns.max()),
            "mean_length": float(result.lengths.mean()),
            "deterministic": not arguments.stochastic,
            "env": env,
            "seed": agent.seed if arguments.seed is None else arguments.seed,
            "num_timesteps": agent.num_timesteps,
            "model": str(path),
        }
        print(json.dumps(line))
    else:
        how = "stochastic" if arguments.stochastic else "deterministic"
        print(f"{env}: {result.mean:.1f} +- {result.std:.1f} over {arguments.episodes} {how} episodes ({path})")
    return 0
