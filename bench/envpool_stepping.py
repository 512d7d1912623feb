"""Vector environments of others: what of their own steps per second is left in a rollout, and in training.

    python -m bench.envpool_stepping [--rounds 9] [--out FILE]

In one process and by turns: the environment alone with random actions, which are drawn beforehand; the rollout phase
with ``overlap_critic=False``; and ``learn()`` with the default settings. EnvPool's HalfCheetah-v4 with 8 copies, once
with one thread of its own and once with two, and CartPole-v1 in Gymnasium's own vector environment with 64 copies.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from bench.rounds import write
from trpo_fast import TRPO
from trpo_fast.benchmarks import measure_peak

RESULT = Path(__file__).with_name("results") / "envpool_stepping.json"
STEPS = 512  # of every copy in one round of the environment alone
UPDATES = 2  # in one round of learning


class Case(NamedTuple):
    """One environment, and what is wanted of it."""

    name: str
    make: Callable[[], Any]
    rollout: float
    """Share of the environment's own rate that the rollout phase should reach."""
    learn: float | None
    """The same of training; None where that is printed only."""


class Rates(NamedTuple):
    """Steps per second of all copies together, in one round."""

    alone: float
    rollout: float
    learn: float


def envpool_case(threads: int) -> Case:
    """HalfCheetah-v4 of EnvPool."""

    def make() -> Any:
        import envpool

        return envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=8, num_threads=threads, seed=1)

    return Case(
        f"EnvPool HalfCheetah-v4, 8 copies, {threads} thread{'s' * (threads > 1)}",
        make,
        0.85,
        0.6 if threads > 1 else 0.75,
    )


def cartpole_case() -> Case:
    """CartPole-v1 of Gymnasium, all copies in one array."""

    def make() -> Any:
        return gymnasium.make_vec("CartPole-v1", num_envs=64, vectorization_mode="vector_entry_point")

    return Case("CartPole-v1 in Gymnasium's own vector environment, 64 copies", make, 0.65, None)


def alone(env: Any, actions: Sequence[Any]) -> float:
    """Steps per second of all copies."""
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return len(actions) * float(env.num_envs) / (time.perf_counter() - start)


class _Learning:
    """An agent that goes on learning, and the seconds of its phases."""

    def __init__(self, case: Case, **settings: Any) -> None:
        self.agent = TRPO(case.make(), seed=0, **settings)
        self.seconds: list[dict[str, float]] = []
        self.size = self.agent.num_envs * self.agent.config.steps_per_env
        self.agent.learn(self.size)  # which warms up, and makes its statistics

    def round(self) -> tuple[float, float]:
        """Rows per second of the whole, and of the rollout phase; rows that only reset (NEXT_STEP) count, too."""
        found: list[dict[str, float]] = []

        def note(agent: Any) -> bool:
            found.append(dict(agent.last_update.seconds))
            return len(found) < UPDATES

        start = time.perf_counter()
        self.agent.learn(1e9, note, reset_num_timesteps=False)
        wall = time.perf_counter() - start
        self.seconds += found
        rows = UPDATES * self.size
        return rows / wall, rows / sum(one["rollout"] for one in found)

    def shares(self, rate: float) -> dict[str, float]:
        """What part of the wall time each phase takes; the critic's fit only as far as it is waited for."""
        whole = self.size / rate
        return {name: statistics.median(one[name] for one in self.seconds) / whole for name in self.seconds[0]}


def measure(case: Case, rounds: int) -> tuple[list[Rates], dict[str, Any]]:
    """The rounds, and the shares of the phases of both agents."""
    env = case.make()
    env.reset()
    rng = np.random.default_rng(0)
    space = env.single_action_space
    shape = (STEPS, env.num_envs, *space.shape)
    drawn = rng.integers(0, space.n, shape) if hasattr(space, "n") else rng.uniform(space.low, space.high, shape)
    actions = list(drawn.astype(space.dtype))
    apart, overlapped = _Learning(case, overlap_critic=False), _Learning(case)
    alone(env, actions)
    counted = []
    whole = []
    for _ in range(rounds):
        own = alone(env, actions)
        rate, rollout = apart.round()
        learn, _ = overlapped.round()
        counted.append(Rates((own + alone(env, actions)) / 2, rollout, learn))
        whole.append(rate)
    phases = {
        "overlap_critic=False": apart.shares(statistics.median(whole)),
        "learn()": overlapped.shares(statistics.median(one.learn for one in counted)),
    }
    for agent in (apart.agent, overlapped.agent):
        agent.close()
    return counted, phases


def main(argv: Sequence[str] | None = None) -> None:
    """Print every case, and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.envpool_stepping", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(argv)
    counted: dict[str, list[Any]] = {}
    phases: dict[str, Any] = {}
    shares = []
    pools = [envpool_case(1), envpool_case(2)]
    if importlib.util.find_spec("envpool") is None:
        print("envpool is not installed: pip install 'trpo-fast[envpool]'")
        pools = []
    for case in (*pools, cartpole_case()):
        counted[case.name], phases[case.name] = measure(case, arguments.rounds)
        report(case, counted[case.name], phases[case.name])
        shares.append(measure_peak("float32", rounds=20_000_000).cpu_share)
    write(arguments.out, "bench.envpool_stepping", argv, counted, statistics.median(shares), phases=phases)


def report(case: Case, rates: Sequence[Rates], phases: dict[str, Any]) -> None:
    """Print medians; of the ratios, those within one round."""
    print(case.name)
    own = statistics.median(one.alone for one in rates)
    print(f"  alone, random actions      {own:9,.0f} steps/s")
    for name, label, goal in (("rollout", "rollout, no overlap", case.rollout), ("learn", "learn()", case.learn)):
        rate = statistics.median(getattr(one, name) for one in rates)
        ratio = statistics.median(getattr(one, name) / one.alone for one in rates)
        wanted = "" if goal is None else f"   wanted {goal:.2f}{'' if ratio >= goal else '  MISSED'}"
        print(f"  {label:<26} {rate:9,.0f} steps/s   {ratio:.2f} of that{wanted}")
    for name, shares in phases.items():
        print(f"  {name}: " + ", ".join(f"{phase} {part:.0%}" for phase, part in shares.items()))


if __name__ == "__main__":
    main()
