"""One of those that `bench.stepping` compares, in a process of its own: a round for every line of standard input.

Run as a file, with the checkout that is to be measured on PYTHONPATH; also one of before `bench` had this.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any


def bare(env: str, copies: int, seconds: float, at_least: int, first: int) -> Any:
    """Rounds of environments that are only stepped, with the actions of a policy that has not learned yet."""
    import gymnasium
    import numpy as np

    envs = [gymnasium.make(env, disable_env_checker=True) for _ in range(copies)]
    for i, one in enumerate(envs):
        one.reset(seed=first + i)
    space: Any = envs[0].action_space
    drawn = np.random.default_rng(first).standard_normal((997, *space.shape))
    actions = list(np.clip(drawn, space.low, space.high).astype(space.dtype))
    at = 0

    def round() -> dict[str, Any]:
        nonlocal at
        began, steps = time.perf_counter(), 0
        while steps < at_least or time.perf_counter() < began + seconds:
            for one in envs:
                at = (at + 1) % len(actions)
                _, _, terminated, truncated, _ = one.step(actions[at])
                if terminated or truncated:
                    one.reset()
            steps += copies
        return {"steps_per_second": steps / (time.perf_counter() - began)}

    return round


def train(env: str, at_least: int, checkout: str, pinned: dict[str, Any], **settings: Any) -> Any:
    """Rounds of training: as many updates as take `at_least` steps; `pinned` are settings that a build may not have."""
    import trpo_fast

    assert trpo_fast.__file__ is not None and trpo_fast.__file__.startswith(checkout), trpo_fast.__file__
    settings |= {name: value for name, value in pinned.items() if name in trpo_fast.TRPOConfig.__dataclass_fields__}
    agent: Any = trpo_fast.TRPO(env, **settings)
    per_update = agent.num_envs * agent.config.steps_per_env
    updates = -(-at_least // per_update)
    steps = updates * per_update

    def round() -> dict[str, Any]:
        phases: dict[str, float] = {}

        def note(agent: Any) -> None:
            for name, seconds in agent.last_update.timings.items():
                phases[name] = phases.get(name, 0.0) + seconds

        began = time.perf_counter()
        agent.learn(steps, callback=note, reset_num_timesteps=False)
        seconds = time.perf_counter() - began
        return {
            "steps_per_second": steps / seconds,
            "rollout_steps_per_second": steps / phases["rollout"],
            "phases": phases,
            "parameters": hashlib.sha256(agent.engine.parameters().tobytes()).hexdigest(),
        }

    round()  # the first update has a warm-up before it
    return round


def copies(env: str, num_envs: int, num_workers: int | None) -> Any:
    """Rounds of making copies: in this process where `num_workers` is None."""
    from trpo_fast.environments.recipe import EnvironmentRecipe

    recipe = EnvironmentRecipe(env, "sync" if num_workers is None else "workers", num_workers=num_workers)

    def round() -> dict[str, Any]:
        before = _private_bytes("self")
        began = time.perf_counter()
        made: Any = recipe.make(num_envs)
        made.reset(0)
        seconds = time.perf_counter() - began
        own = _private_bytes("self") - before
        taken = own + sum(map(_private_bytes, getattr(made, "processes", ())))
        made.close()
        return {"seconds": seconds, "megabytes": taken / 1e6}

    return round


def glue(copies: int, steps: int, checkout: str) -> Any:
    """Rounds of a rollout in an environment that does nothing."""
    import gymnasium
    import numpy as np

    import trpo_fast

    assert trpo_fast.__file__ is not None and trpo_fast.__file__.startswith(checkout), trpo_fast.__file__

    class Nothing(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self) -> None:
            self.observation = np.zeros(4, np.float32)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return self.observation, {}

        def step(self, action: Any) -> Any:
            return self.observation, 1.0, False, False, {}

    settings: dict[str, Any] = {"num_envs": copies, "steps_per_env": steps, "warm_up_steps": 0}
    agent: Any = trpo_fast.TRPO(Nothing, seed=0, **settings)

    def round() -> dict[str, Any]:
        began = time.process_time()
        agent.collector.collect()
        return {"microseconds": (time.process_time() - began) / steps * 1e6}

    round()
    return round


def _private_bytes(process: int | str) -> int:
    """Proportional set size: what is shared counts in parts."""
    with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """The first line says what to be, every other asks for a round; answers are lines of JSON."""
    task = json.loads(sys.stdin.readline())
    if task.pop("one_core"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kinds: dict[str, Any] = {"bare": bare, "train": train, "copies": copies, "glue": glue}
    round = kinds[task.pop("kind")](**task)
    print(json.dumps("ready"), flush=True)
    while sys.stdin.readline():
        print(json.dumps(round()), flush=True)


if __name__ == "__main__":
    main()
