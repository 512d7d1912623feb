"""Both action maps on environments of other packages whose actions have raw units, one short training each.

    python -m bench.action_map                                  # every row that is not in the file yet
    python -m bench.action_map sepsisim/ --seeds 0 1 2          # environments whose name has this in it
    python -m bench.action_map --table                          # what is there, as the table of docs/environments.md

The packages (`PACKAGES`) are none of this project's extras: install what is wanted beside trpo_fast; what is missing
is named and left out. A row is added to results/action_map.csv as soon as it is known, so that an interrupted run goes
on where it stopped. Episodes of environments without a limit of their own are cut after 500 steps.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.metadata
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from bench.machine import describe
from trpo_fast import TRPO
from trpo_fast.gymnasium_spaces import resolved_action_map
from trpo_fast.tuning.trial import EVALUATION_SEED

RESULTS = Path(__file__).with_name("results") / "action_map.csv"
COLUMNS = (
    *("environment", "package", "version", "field", "box", "auto", "map", "seed", "timesteps"),
    *("final_return", "training_return", "cpu_seconds", "gymnasium", "numpy", "torch", "cpu", "command"),
)
LIMIT = 500
EPISODES = 10

# Distribution, module that registers, field.
PACKAGES = {
    "anesthesim": ("anesthesim", "anesthesia"),
    "glucosim": ("glucosim", "insulin"),
    "oncosim": ("oncosim", "radiotherapy"),
    "sepsisim": ("sepsisim", "intensive care"),
    "ventisim": ("ventisim", "ventilation"),
    "gym-invmgmt": ("gym_invmgmt", "inventory"),
    "or-gymnasium": ("or_gymnasium", "operations research"),
}
# Those whose box the default maps, then those that it leaves alone.
ENVIRONMENTS = (
    ("anesthesim", "anesthesim/PropofolControl-v0"),
    ("anesthesim", "anesthesim/CombinedAnesthesia-v0"),
    ("ventisim", "ventisim/TidalVolumeControl-v0"),
    ("ventisim", "ventisim/FullVentilatorManagement-v0"),
    ("oncosim", "oncosim/DoseFractionation-v0"),
    ("or-gymnasium", "Newsvendor-v0"),
    ("or-gymnasium", "PortfolioOpt-v0"),
    ("glucosim", "glucosim/BolusAdvisor-v0"),
    ("glucosim", "glucosim/ClosedLoop-v0"),
    ("gym-invmgmt", "GymInvMgmt/Serial-v0"),
    ("gym-invmgmt", "GymInvMgmt/MultiEchelon-v0"),
    ("sepsisim", "sepsisim/FluidResuscitation-v0"),
    ("sepsisim", "sepsisim/SepsisManagement-v0"),
    ("anesthesim", "anesthesim/RemifentanilDosing-v0"),
    ("glucosim", "glucosim/BasalControl-v0"),
    ("ventisim", "ventisim/PEEPOptimization-v0"),
)
MAPS = ("random", "clip", "affine")


def make(id: str) -> gymnasium.Env[Any, Any]:
    """The environment, with a limit on its episodes if it has none."""
    env = gymnasium.make(id, disable_env_checker=True)  # it costs as much as some of these environments
    limited = env.spec is not None and env.spec.max_episode_steps is not None
    return env if limited else gymnasium.wrappers.TimeLimit(env, LIMIT)


def random_return(id: str, seed: int) -> float:
    """Mean return of uniformly random actions: what a map has to beat."""
    env = make(id)
    env.action_space.seed(seed)
    returns = []
    for episode in range(EPISODES):
        env.reset(seed=EVALUATION_SEED + seed + episode)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    env.close()
    return float(np.mean(returns))


def train(id: str, action_map: str, seed: int, timesteps: int) -> tuple[float, float]:
    """Deterministic return of the final policy, and mean return of the training's last 100 episodes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "action_map: ")
        agent = TRPO(lambda: make(id), seed=seed, action_map=action_map)
    try:
        agent.learn(timesteps)
        return agent.evaluate(EPISODES, seed=EVALUATION_SEED).mean, agent.episode_return_mean
    finally:
        agent.close()


def read() -> list[dict[str, str]]:
    """Rows that are known."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[dict[str, str]]) -> str:
    """Returns of every environment: means over the seeds that both maps have, of the final policy / of the training."""
    lines = ["| environment | box | seeds | random | clip | affine |", "|---|---|---|---|---|---|"]
    for _, id in ENVIRONMENTS:
        of = {name: {r["seed"]: r for r in rows if (r["environment"], r["map"]) == (id, name)} for name in MAPS}
        seeds = sorted(of["clip"].keys() & of["affine"].keys())
        if not seeds:
            continue
        shown = {name: " / ".join(_mean(of[name], seeds, kind) for kind in ("final", "training")) for name in MAPS[1:]}
        box = of["clip"][seeds[0]]["box"]
        random = _mean(of["random"], [seed for seed in seeds if seed in of["random"]], "final")
        lines.append(f"| {id} | {box} | {len(seeds)} | {random} | {shown['clip']} | {shown['affine']} |")
    return "\n".join(lines)


def _mean(rows: dict[str, dict[str, str]], seeds: Sequence[str], kind: str) -> str:
    value = float(np.mean([float(rows[seed][f"{kind}_return"]) for seed in seeds]))
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", help="parts of names (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--timesteps", type=int, default=40_000)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    if given.table:
        print(table(read()))
        return
    chosen = [
        (package, id)
        for package, id in ENVIRONMENTS
        if not given.environments or any(part in id for part in given.environments)
    ]
    for seed, (package, id) in ((seed, entry) for seed in given.seeds for entry in chosen):
        try:
            importlib.import_module(PACKAGES[package][0])
        except ImportError as error:
            print(f"{id}: left out, {error}", file=sys.stderr)
            continue
        for action_map in MAPS:
            key = (id, action_map, str(seed), str(given.timesteps))
            if not any((r["environment"], r["map"], r["seed"], r["timesteps"]) == key for r in read()):
                add(run(package, id, action_map, seed, given.timesteps))


def run(package: str, id: str, action_map: str, seed: int, timesteps: int) -> dict[str, Any]:
    """One row."""
    space = make(id).action_space
    assert isinstance(space, gymnasium.spaces.Box)
    began = time.process_time()
    if action_map == "random":
        final, training = random_return(id, seed), float("nan")
    else:
        final, training = train(id, action_map, seed, timesteps)
    bounds = [f"{low:g}..{high:g}" for low, high in zip(space.low.ravel(), space.high.ravel(), strict=True)]
    return {
        "environment": id,
        "package": package,
        "version": importlib.metadata.version(package),
        "field": PACKAGES[package][1],
        "box": ", ".join(bounds) if len(set(bounds)) > 1 else f"{bounds[0]} x {len(bounds)}",
        "auto": resolved_action_map(space, "auto"),
        "map": action_map,
        "seed": seed,
        "timesteps": timesteps,
        "final_return": f"{final:.6g}",
        "training_return": f"{training:.6g}",
        "cpu_seconds": f"{time.process_time() - began:.1f}",
        **{name: importlib.metadata.version(name) for name in ("gymnasium", "numpy", "torch")},
        "cpu": describe()["cpu"],
        "command": f"python -m bench.action_map {id} --seeds {seed} --timesteps {timesteps}",
    }


def add(row: dict[str, Any]) -> None:
    """Append it to the file, which is made if there is none."""
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(f"{row['environment']} {row['map']} seed {row['seed']}: {row['final_return']}", flush=True)


if __name__ == "__main__":
    os.nice(19)
    main()
