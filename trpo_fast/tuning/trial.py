"""One trial: agents of several seeds, trained side by side and scored by their final deterministic episodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trpo_fast import statistics
from trpo_fast.algorithm.trpo import TRPO

EVALUATION_SEED = 1_000_000  # that no training has
REPORTS = 20  # moments, in equal numbers of timesteps, at which trials are compared
PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """What every trial of a study does alike."""

    env: str
    env_kwargs: Mapping[str, Any]
    wrappers: tuple[str, ...] | None
    imports: tuple[str, ...]
    timesteps: int
    seeds: tuple[int, ...]
    """Of training; the same for every trial, so that they are compared alike."""
    episodes: int
    fixed: Mapping[str, Any]
    """Settings that are not searched."""

    def agent(self, seed: int, settings: Mapping[str, Any]) -> TRPO:
        """A new one."""
        return TRPO(
            self.env,
            env_kwargs=self.env_kwargs,
            wrappers=self.wrappers,
            imports=self.imports,
            seed=seed,
            preset=None,
            ranks=None,
            **{**self.fixed, **settings},
        )


class Score(NamedTuple):
    """Of a trial that was trained to its end."""

    value: float  # interquartile mean over the seeds
    means: list[float]  # of each seed's final deterministic episodes


class Probe(NamedTuple):
    """What a short training has shown."""

    steps_per_second: float
    updates: int
    actions: Any  # the action space
    recurrent: bool
    rollout: int  # timesteps, of which a trial takes whole ones


def scored(task: Task, settings: Mapping[str, Any], report: Callable[[int, float], None]) -> Score:
    """Train and evaluate; the last policies count, never the best point of a curve.

    Parameters
    ----------
    report : callable
        ``report(timesteps, return)`` at equal numbers of timesteps: the mean training return over all seeds, as soon as
        each has finished an episode. What it raises ends the trial.
    """
    with ExitStack() as closing:
        agents = []
        for seed in task.seeds:
            agents.append(task.agent(seed, settings))
            closing.callback(agents[-1].close)
        for until in dict.fromkeys(-(-task.timesteps * part // REPORTS) for part in range(1, REPORTS + 1)):
            for agent in agents:
                if agent.num_timesteps < until:
                    more = until - agent.num_timesteps
                    agent.learn(more, reset_num_timesteps=False, horizon=task.timesteps)
            shown = float(np.mean([agent.episode_return_mean for agent in agents]))
            if not math.isnan(shown):
                report(until, shown)
        means = [agent.evaluate(task.episodes, seed=EVALUATION_SEED).mean for agent in agents]
    return Score(float(statistics.interquartile_mean(means)), means)


def probed(task: Task, settings: Mapping[str, Any]) -> Probe:
    """Train for about a second, after the first update, which warms up."""
    agent = task.agent(task.seeds[0], settings)
    try:
        rollout = agent.config.num_envs * agent.config.steps_per_env
        agent.learn(rollout)
        began, before = time.perf_counter(), agent.num_timesteps
        while True:
            agent.learn(rollout, reset_num_timesteps=False)
            seconds = time.perf_counter() - began
            if seconds >= PROBE_SECONDS:
                break
        rate = (agent.num_timesteps - before) / seconds
        return Probe(rate, agent.num_updates - 1, agent.action_space, bool(agent.engine.recurrent), rollout)
    finally:
        agent.close()
