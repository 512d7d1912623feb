"""``trpo-fast eval``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trpo_fast.algorithm.evaluation import EvaluationResult
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import output
from trpo_fast.cli.environments import ANY_CPU, import_from_here, loaded
from trpo_fast.cli.errors import user_errors
from trpo_fast.cli.run_folder import latest_of
from trpo_fast.environments.checks import SimulatorError


def run(arguments: argparse.Namespace) -> int:
    """Play episodes; one line on stdout."""
    import_from_here()

    def made(path: Path) -> tuple[Path, TRPO]:
        return path, loaded(path, arguments, arguments.env_kwargs, arguments.wrapper, quiet=arguments.quiet, **ANY_CPU)

    with user_errors(SimulatorError):
        path, agent = latest_of(arguments.run, made)
        limit = arguments.max_steps or agent.config.evaluation_max_steps
        result = agent.evaluate(
            arguments.episodes,
            deterministic=not arguments.stochastic,
            seed=arguments.seed,
            max_steps=limit,
            progress_bar=output.shows_progress(),
        )
    agent.close()
    env = agent.recipe.id if agent.recipe else None
    if arguments.json:
        line = {
            "mean": result.mean,
            "std": result.std,
            "episodes": arguments.episodes,
            "unfinished": result.unfinished,
            "max_steps": limit,
            "min": float(result.returns.min()),
            "max": float(result.returns.max()),
            "mean_length": float(result.lengths.mean()),
            "deterministic": not arguments.stochastic,
            "env": env,
            "seed": agent.seed if arguments.seed is None else arguments.seed,
            "num_timesteps": agent.total_timesteps,
            "model": str(path),
        }
        output.answer(line)
    elif arguments.quiet:
        output.say(str(result.mean), sys.stdout)
    else:
        how = "stochastic" if arguments.stochastic else "deterministic"
        episodes = f"{arguments.episodes} {how} episodes{unfinished(result, limit)}"
        output.say(f"{env}: {result.mean:.1f} +- {result.std:.1f} over {episodes} ({path})")
    return 0


def unfinished(result: EvaluationResult, max_steps: int) -> str:
    """What a line about an evaluation says of episodes that did not end; nothing where all did."""
    return f", {result.unfinished} unfinished after {max_steps:,} steps" if result.unfinished else ""
