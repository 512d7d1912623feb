"""Why is a seed stuck? What an agent's noise costs, and how much of an update is signal, from a checkpoint.

    python -m bench.learning_probe runs/hopper/checkpoints/000000251904.trpo [--batches 5]

Prints episodes with the policy's noise multiplied, and for batches of the training's size, each from the same policy:
how large the advantages are, and the mean cosine between the updates that they would make. Independent batches share
the signal alone: a mean cosine c says that c of an update's squared length is signal, and the rest sampling noise.

Then, for other values of `gae_lambda` and of `relative_damping`, what an update promises and what it keeps: g'u of the
direction u from one batch, u'Fu being 1, with the gradient g of that batch and with those of all others. The gradients
are with the agent's own gae_lambda, so that what a smaller one would lose by the critic's errors shows. Compare what is
kept: it is what an update of the same KL is worth.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import trpo_fast
from trpo_fast.algorithm.schedules import scheduled
from trpo_fast.algorithm.training import schedule_progress
from trpo_fast.policies.mlp import MLPPolicy

FACTORS = (0.0, 1.0, 1.5, 2.0, 3.0)
VARIANTS = {
    "gae_lambda": (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
    "relative_damping": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0),
}


def noise(agent: Any, episodes: int = 16) -> list[str]:
    """Returns and lengths of episodes with the policy's standard deviation times each of FACTORS."""
    log_std = agent.policy.log_std
    own = log_std.detach().clone()
    lines = []
    for factor in FACTORS:
        with torch.no_grad():
            log_std.copy_(own + math.log(factor or 1.0))
        found = agent.evaluate(episodes, deterministic=factor == 0, seed=1_000_000)
        lengths = f"{found.lengths.min()} to {found.lengths.max()} steps"
        lines.append(f"std x {factor:<4} return {found.mean:8.1f} +- {found.std:6.1f}   {lengths}")
    with torch.no_grad():
        log_std.copy_(own)
    return lines


def bound(agent: Any, rollout: Any, gae_lambda: float) -> tuple[float, float]:
    """Bind the engine to the rollout, advantages normalized: their deviation before, and the explained variance."""
    finished = agent.collector.finisher.finish(
        rollout, agent.critic_trainer.values, agent.config.gamma, gae_lambda, False
    )
    batch, _, explained_variance = finished
    spread = float(batch.advantages.std())
    batch.advantages[...] = (batch.advantages - batch.advantages.mean()) / spread
    agent.engine.bind(batch)
    return spread, explained_variance


def _max_kl(agent: Any) -> float:
    """That of the next update, were the training to go on; the setting's where it has ended."""
    if agent.num_timesteps >= agent.horizon:
        return float(agent.config.max_kl)
    return scheduled(agent.config, {}, schedule_progress(agent))["max_kl"]


def updates(agent: Any, batches: int) -> tuple[list[str], float]:
    """What independent batches say, and the mean cosine between their updates; the policy stays as it is."""
    config, engine = agent.config, agent.engine
    collector = agent.training_environments.ready(agent.num_updates)
    parameters = engine.parameters()
    own, lines, steps = parameters.copy(), [], []
    step = config.step_settings.replace(max_kl=_max_kl(agent))
    for _ in range(batches):
        spread, explained_variance = bound(agent, collector.collect(), config.gae_lambda)
        report = trpo_fast.trust_region_step(engine, direction=config.direction_settings, step=step)
        steps.append((parameters - own).astype(np.float64))
        parameters[...] = own
        engine.parameters_changed()
        lines.append(
            f"advantages' std {spread:.3g}, explained variance {explained_variance:.5f}, "
            f"improvement {report.improvement:.3g}, KL {report.kl:.3g}"
        )
    unit = np.array([step / np.linalg.norm(step) for step in steps if step.any()])
    return lines, float((unit @ unit.T)[np.triu_indices(len(unit), 1)].mean())


def kept(agent: Any, batches: int) -> list[str]:
    """What directions from one batch are worth on the others, by variant; the policy stays as it is."""
    config, engine = agent.config, agent.engine
    collector = agent.training_environments.ready(agent.num_updates)
    own = config.direction_settings
    settings = [("gae_lambda", value, value, own) for value in VARIANTS["gae_lambda"]]
    settings += [
        ("relative_damping", value, config.gae_lambda, own.replace(relative_damping=value))
        for value in VARIANTS["relative_damping"]
    ]
    gradients, directions = [], []
    for _ in range(batches):
        rollout = collector.collect()
        spread, _ = bound(agent, rollout, config.gae_lambda)
        gradients.append(spread * trpo_fast.find_direction(engine, settings=own).gradient.astype(np.float64))
        found = []
        for _, _, gae_lambda, direction in settings:
            bound(agent, rollout, gae_lambda)
            one = trpo_fast.find_direction(engine, settings=direction)
            found.append(one.x / math.sqrt(one.curvature))
        directions.append(found)
    worth = np.einsum("ivn,jn->vij", np.array(directions), np.array(gradients))
    others = ~np.eye(batches, dtype=bool)
    lines = []
    for (name, value, _, _), table in zip(settings, worth, strict=True):
        each = np.array([row[mask].mean() for row, mask in zip(table, others, strict=True)])
        error = each.std(ddof=1) / math.sqrt(batches)
        lines.append(
            f"{name} {value:<4} promises {table.diagonal().mean():.3g}, keeps {each.mean():.3g} +- {error:.2g}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is found."""
    parser = argparse.ArgumentParser(prog="python -m bench.learning_probe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a checkpoint of a task with a Box of actions")
    parser.add_argument("--batches", type=int, default=5)
    options = parser.parse_args(argv)
    if options.batches < 2:
        parser.error(f"--batches: {options.batches} given; want at least 2")
    agent = trpo_fast.TRPO.load(options.model)
    policy: Any = agent.policy
    if not isinstance(policy, MLPPolicy) or policy.distribution != "gaussian":
        agent.close()
        parser.error(f"model: {options.model} given, of a {type(policy).__name__}; want a Gaussian MLPPolicy's")
    std = policy.log_std.detach().exp().numpy().round(3)
    print(f"{options.model}: {agent.num_timesteps:,} timesteps, std {std}")
    print("\n".join(noise(agent)))
    lines, cosine = updates(agent, options.batches)
    lines += kept(agent, options.batches)
    print("\n".join([*lines, f"mean cosine between updates of independent batches {cosine:.3f}"]))
    agent.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
