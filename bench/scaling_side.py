"""A rank of what `bench.scaling` and `bench.scaling_network` measure, or the plain program: rounds on request.

Run as a file, with what to be as JSON in its argument; under torchrun, or with the variables that it sets, it is one of
several ranks. Rank 0 reads requests, a line each, and answers for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def pin(own: int) -> None:
    """To the core of this number; before there are threads, which stay where they were born."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[own % len(cores)]})


class Counted:
    """What an agent's updates exchange with other ranks, by phase: rounds, bytes, seconds."""

    def __init__(self, agent: Any) -> None:
        self.phases: dict[str, list[float]] = {}
        if agent.ranks is None:
            return
        self._ranks = agent.ranks
        engine = agent.update_engine
        for owner, method, phase in (
            (agent.collector, "collect", "rollout"),
            (engine, "entropy", "entropy"),
            (engine, "surrogate_gradient", "gradient"),
            (engine, "preconditioner", "preconditioner"),
            (engine, "evaluate", "trials"),
        ):
            setattr(owner, method, self._counting(phase, getattr(owner, method)))

    def _counting(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = self._ranks.traffic
            try:
                return call(*args, **kwargs)
            finally:
                self.add(phase, self._ranks.traffic.since(before))

        return counted

    def add(self, phase: str, traffic: Any) -> None:
        """Book what was exchanged."""
        self.phases[phase] = [a + b for a, b in zip(self.phases.get(phase, (0, 0, 0)), traffic, strict=True)]

    def take(self, of_updates: Sequence[Any], since_first: Any) -> dict[str, list[float]]:
        """Of an update, and begin anew; `since_first`: all since the first one ended.

        The products are what an update exchanges beside the phases that are known, with a checksum now and then.
        """
        updates = len(of_updates)
        known = list(self.phases.values())
        for phase, part, whole in (("products", known, of_updates), ("stop", of_updates[1:], [since_first])):
            sums = [[sum(column) for column in zip((0, 0, 0), *rows, strict=True)] for rows in (whole, part)]
            self.add(phase, [a - b for a, b in zip(*sums, strict=True)])
        found = {phase: [figure / updates for figure in figures] for phase, figures in self.phases.items()}
        self.phases = {}
        return found


def rounds(env: str, sums: str = "usual", **settings: Any) -> Iterator[dict[str, Any]]:
    """For every request what came of it; the first is there when the agent is.

    With `sums` "reduced" they are gloo's, with other last bits for another number of ranks; "in order" those of parts,
    added in their order whatever their size is.
    """
    import numpy as np

    import trpo_fast
    from trpo_fast.algorithm import training_environments, trpo
    from trpo_fast.engines import distributed
    from trpo_fast.ranks import Ranks

    if sums == "in order":
        distributed.__dict__["MOST_ORDERED"] = sys.maxsize
    if sums == "reduced":
        for module in (trpo, training_environments):
            module.__dict__["parts_of"] = lambda *_: None

    trpo_fast.set_num_threads(1)
    ranks = Ranks.if_started()
    agent = trpo_fast.TRPO(env, ranks=ranks, seed=0, **settings)
    per_update = agent.num_envs * agent.config.steps_per_env
    agent.learn(2 * per_update)  # the first has a warm-up before it
    counted = Counted(agent)

    def train(updates: int) -> dict[str, Any]:
        reports: list[Any] = []
        ends: list[Any] = []

        def note(agent: Any) -> None:
            reports.append(agent.last_update)
            ends.append(None if ranks is None else ranks.traffic)

        began, computed = time.perf_counter(), time.process_time()
        agent.learn(updates * per_update, note, reset_num_timesteps=False)
        seconds, computed = time.perf_counter() - began, time.process_time() - computed
        phases: dict[str, float] = {}
        for report in reports:  # now that no fit has to be waited for
            for name, spent in report.timings.items():
                phases[name] = phases.get(name, 0.0) + spent / updates
        if not any(report.status.name == "SUCCESS" and 0 < report.kl <= report.max_kl for report in reports):
            raise AssertionError("no update changed the policy, so their time means nothing")
        traffic = {}
        if ranks is not None:
            traffic = counted.take([one.traffic for one in reports], ranks.traffic.since(ends[0]))
        return {
            "updates": updates,
            "steps_per_second": updates * per_update / seconds,
            "seconds": seconds / updates,
            "cpu": computed / updates,
            "phases": phases,
            "products": statistics.mean(report.cg_iterations for report in reports),
            "trials": statistics.mean(report.backtracks + 1 for report in reports),
            "traffic": traffic,
            "parameters": hashlib.sha256(agent.engine.parameters().tobytes()).hexdigest(),
        }

    def collectives(numbers: int, dtype: str, repeats: int) -> dict[str, Any]:
        """Median seconds of a reduction, and of partial sums gathered and added in their order in its place."""
        assert ranks is not None
        parts = distributed.MOST_PARTS // ranks.size
        array, own = np.zeros(numbers, dtype), np.zeros((parts, numbers), dtype)

        def gather() -> None:
            ranks.gather(own).reshape(-1, numbers).sum(0, dtype=np.float64).astype(dtype)

        def median(call: Callable[[], None]) -> float:
            took = []
            for _ in range(repeats):
                began = time.perf_counter()
                call()
                took.append(time.perf_counter() - began)
            return statistics.median(took)

        # Not in turns: what a slow link has still to send of a large message delays the small one behind it.
        reduced, gathered = median(lambda: ranks.add(array)), median(gather)
        return {"reduction": reduced, "gathering": gathered, "bytes": array.nbytes, "gathered_bytes": own.nbytes}

    requests: dict[str, Callable[..., dict[str, Any]]] = {"train": train, "collectives": collectives}
    config = agent.config
    found: dict[str, Any] = {
        "parameters": agent.engine.size,
        "critic_parameters": agent.critic_trainer.parameters().size,
        "num_envs": config.num_envs,
        "steps_per_env": config.steps_per_env,
    }
    while True:
        every = [found] if ranks is None else ranks.gather_objects(found)
        if len({one["parameters"] for one in every}) > 1:
            raise AssertionError("ranks disagree about the parameters, so their time means nothing")
        yield found
        line = sys.stdin.readline() if ranks is None or ranks.first else ""
        request = json.loads((line if ranks is None else ranks.of_first(line)) or "null")
        if request is None:
            break
        found = requests[request.pop("do")](**request)
        found.setdefault("parameters", "")
    agent.close()
    if ranks is not None:
        ranks.close()


def main() -> None:
    """Answers are lines of JSON, of rank 0."""
    task = json.loads(sys.argv[1])
    if task.pop("pinned"):
        pin(int(os.environ.get("LOCAL_RANK", 0)))
    for answer in rounds(**task):
        if int(os.environ.get("RANK", 0)) == 0:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
