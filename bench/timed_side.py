"""One of the builds that `bench.side_by_side` compares, in a process of its own.

Run as a file, with the checkout that is to be measured on PYTHONPATH; also one of before `bench` had this. It calls
what is public, and what has had one name in every build. Lines of standard input are requests, answers are lines of
JSON: a task (what to time; the answer says what was computed, for the other process to check, or why it cannot be),
or a number of calls to time.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = tuple[Callable[[], object], Callable[[], dict[str, Any]]]  # what is timed, and what it came to


ACTS = 256  # steps of a rollout, the default
OUTCOMES = {"rewards": np.float64, "terminated": np.bool_, "truncated": np.bool_}


class Unsupported(Exception):
    """This build or CPU has not what a task asks for."""


def accepted(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those of `options` that this build's `function` takes."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in parameters and value is not None}


class Case:
    """A policy with its batch, and a critic, as arrays in a file say, for one build."""

    def __init__(
        self, problem: Path, hidden: list[int], choices: list[int] | None, precision: dict[str, str] | None = None
    ) -> None:
        import gymnasium as gym

        import trpo_fast

        with np.load(problem) as data:
            self.arrays = dict(data)
        self.precision = precision or {}
        fields = trpo_fast.TRPOConfig.__dataclass_fields__
        if missing := [name for name in self.precision if name not in fields]:
            raise Unsupported(f"this build has no {' nor '.join(missing)}")
        inputs = self.arrays["observations"].shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (inputs,), np.float32)
        self.action_space: gym.Space[Any] = gym.spaces.Box(-1.0, 1.0, self.arrays["actions"].shape[1:], np.float32)
        if choices is not None:
            several = len(choices) > 1
            self.action_space = gym.spaces.MultiDiscrete(choices) if several else gym.spaces.Discrete(choices[0])
        self.hidden = tuple(hidden)
        policy: Any = trpo_fast.MLPPolicy(self.observation_space, self.action_space, self.hidden)
        policy.flat.numpy[:] = self.arrays["parameters"]
        # Wherever a build takes it; the check of the answer notices where it was taken nowhere.
        self.fisher = {"fisher_precision": self.precision.get("fisher_precision")}
        self.engine: Any = trpo_fast.make_engine(policy, "native")
        self.batch = trpo_fast.Batch(*(self.arrays[name] for name in ("observations", "actions", "advantages")))
        self.bind()

    def bind(self) -> None:
        """Cache the forward pass."""
        self.engine.bind(self.batch)

    def operator(self) -> Any:
        """Of the Fisher matrix, as bound."""
        operator = self.engine.fisher_operator()
        if self.fisher["fisher_precision"] == "bfloat16":
            operator.use_bfloat16()
        return operator


def fisher(case: Case, jacobians: bool = False) -> Work:
    """One product; `jacobians`: by cached ones, where a build has them."""
    operator, v = case.operator(), case.arrays["direction"]
    if jacobians and hasattr(operator, "cache_jacobians"):
        operator.cache_jacobians()
    out = np.empty_like(v)
    return lambda: operator.matvec(v, out), lambda: {"product": out}


def solve(case: Case, iterations: int, damping: float) -> Work:
    """From a batch to the direction of a step: the cached forward pass, what products are prepared with, and CG."""
    found: dict[str, Any] = {}
    direction = _direction(case, iterations, damping)

    def work() -> None:
        case.bind()
        found["x"] = direction()

    return work, lambda: found


def _direction(case: Case, iterations: int, damping: float) -> Callable[[], Any]:
    """The part of a step that finds it, which knows how many products there will be; builds of before have no parts."""
    import trpo_fast

    solvers: Any = importlib.import_module("trpo_fast.solvers")
    gradient = case.arrays["gradient"]
    if not hasattr(solvers, "find_direction"):
        return lambda: (
            trpo_fast.conjugate_gradient(
                case.operator(), gradient, max_iter=iterations, rtol=0.0, damping=damping, reorthogonalize=True
            ).x
        )
    precision = accepted(solvers.DirectionSettings, **case.fisher)
    settings = solvers.DirectionSettings(cg_iterations=iterations, cg_rtol=0.0, damping=damping, **precision)
    return lambda: solvers.find_direction(case.engine, gradient, settings).x


class _Fit:
    def __init__(self, case: Case, settings: dict[str, Any]) -> None:
        import trpo_fast

        self._case = case
        self._critic: Any = trpo_fast.MLPCritic(case.observation_space, case.hidden)
        precision: dict[str, Any] = {
            name: value for name, value in case.precision.items() if name == "critic_precision"
        }
        self._config = trpo_fast.TRPOConfig(**settings, **precision, overlap_critic=False)

    def run(self) -> None:
        from trpo_fast.algorithm.critic import CriticTrainer

        self._critic.flat.numpy[:] = self._case.arrays["critic"]
        trainer = CriticTrainer(self._critic, self._config, seed=0)
        trainer.start(self._case.arrays["observations"], self._case.arrays["returns"])
        trainer.wait()

    def result(self) -> dict[str, Any]:
        return {"critic": self._critic.flat.numpy}


def fit(case: Case, critic: dict[str, Any]) -> Work:
    """The critic, from its start and Adam's."""
    made = _Fit(case, critic)
    return made.run, made.result


def update(case: Case, critic: dict[str, Any], **settings: Any) -> Work:
    """What happens between two rollouts, advantages aside."""
    import trpo_fast

    made, theta = _Fit(case, critic), case.engine.parameters()
    settings |= accepted(trpo_fast.trust_region_step, **case.fisher)

    def work() -> None:
        theta[:] = case.arrays["parameters"]
        case.engine.parameters_changed()
        case.bind()
        trpo_fast.trust_region_step(case.engine, cg_rtol=0.0, step_curvature="damped", **settings)
        made.run()

    return work, lambda: {"parameters": theta, **made.result()}


def trial(case: Case) -> Work:
    """Improvement and KL of other parameters."""
    theta, found = case.engine.parameters(), {}

    def work() -> None:
        theta[:] = case.arrays["trial"]
        case.engine.parameters_changed()
        found["evaluation"] = case.engine.evaluate()

    return work, lambda: found


def act(case: Case) -> Work:
    """A rollout's share of an environment's step: normalize, forward, draw, log-probability, clip.

    A build that has a recorder compares the parameters at a rollout's first step alone, and keeps what it acted on.
    """
    rows, inputs = case.arrays["observations"].shape
    outputs = case.arrays["actions"].shape[1]
    actor = case.engine.actor(
        case.action_space,
        observation_mean=np.zeros(inputs),
        observation_scale=np.ones(inputs),
        observation_clip=1e3,
        **accepted(case.engine.actor, narrow=True),
    )
    observations = case.arrays["observations"]
    normalized, actions = (np.empty((ACTS, rows, width), np.float32) for width in (inputs, outputs))
    log_probs, clipped = np.empty((ACTS, rows), np.float32), np.empty((rows, outputs), np.float32)
    answer = {"actions": actions[0], "log_probs": log_probs[0], "clipped": np.empty_like(clipped)}
    try:
        from trpo_fast._core.recording import Recorder
    except ImportError:

        def work() -> None:
            for t in range(ACTS):
                actor.act(observations, 7 + t, normalized[t], actions[t], log_probs[t], clipped)
                if t == 0:
                    answer["clipped"][...] = clipped

    else:
        written: dict[str, Any] = {"observations": normalized, "actions": actions, "log_probs": log_probs}
        written |= {name: np.zeros((ACTS, rows), kind) for name, kind in OUTCOMES.items()}

        def work() -> None:
            recorder = Recorder(actor, slice(0, rows), first_step=7, env_action_dtype=np.float32, **written)
            for t in range(ACTS):
                found = recorder.act(t, observations)
                if t == 0:
                    answer["clipped"][...] = found

    return work, lambda: answer


KINDS: dict[str, Callable[..., Work]] = {
    "fisher": fisher,
    "solve": solve,
    "fit": fit,
    "update": update,
    "trial": trial,
    "act": act,
}


def prepare(kind: str, settings: dict[str, Any], answer: str, **case: Any) -> tuple[Work, dict[str, Any]]:
    """What to time, and seconds of one call after one that warms up; what that came to is in the file `answer`."""
    work = KINDS[kind](Case(**case), **settings)
    work[0]()
    began = time.perf_counter()
    work[0]()
    seconds = time.perf_counter() - began
    np.savez(answer, **work[1]())
    return work, {"seconds": seconds}


def timed(work: Work, calls: int, answer: str) -> dict[str, float]:
    """Seconds of a call, and this process's share of a core meanwhile; what the last call came to is in the file."""
    run = work[0]
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(calls):
        run()
    seconds = time.perf_counter() - began
    share = (time.process_time() - cpu) / seconds
    np.savez(answer, **work[1]())
    return {"seconds": seconds / calls, "cpu_share": share}


def main() -> None:
    """The first line says which build, cores and threads."""
    first = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, first["cores"])  # before anything starts a thread, which inherits them
    import torch

    import trpo_fast

    assert trpo_fast.__file__ is not None and trpo_fast.__file__.startswith(first["checkout"]), trpo_fast.__file__
    torch.set_num_threads(first["threads"])
    trpo_fast.set_num_threads(first["threads"])
    print(json.dumps({"instruction_set": trpo_fast.instruction_set()}), flush=True)
    work: Work | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "calls" in request:
            assert work is not None
            answer: dict[str, Any] = timed(work, **request)
        else:
            work = None  # before another takes as much memory
            try:
                work, answer = prepare(**request)
            except Unsupported as error:
                answer = {"unsupported": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
