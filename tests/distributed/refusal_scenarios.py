"""What two ranks say to input that one of them has otherwise, and to what goes wrong on one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.rollout.toys import Walk
from trpo_fast import TRPO
from trpo_fast.algorithm import agreement
from trpo_fast.ranks import Ranks

SMALL: dict[str, Any] = {
    **{"num_envs": 4, "steps_per_env": 8, "warm_up_steps": 0, "seed": 5, "preset": None},
    **{"hidden_sizes": (4,), "critic_hidden_sizes": (4,), "critic_epochs": 1, "critic_batch_size": 32},
}
UPDATE = 32


class Breaking(Walk):
    """The environment of one rank raises."""

    broken = False

    def step(self, action: Any) -> Any:
        if self.broken and self.steps == 2:
            raise OSError("the cable is out")
        return super().step(action)


class Hanging(Walk):
    """The process of one rank stops, and says who it is."""

    hangs = False

    def step(self, action: Any) -> Any:
        if self.hangs and self.steps == 2:
            type(self).hangs = False
            Path("hanging.new").write_text(str(os.getpid()))
            Path("hanging.new").rename("hanging")
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().step(action)


def make(ranks: Any, env: Any = "CartPole-v1", **settings: Any) -> TRPO:
    """A small agent."""
    return TRPO(env, ranks=ranks, **{**SMALL, **settings})


def _other_version(ranks: Ranks) -> None:
    versions = agreement.versions
    if ranks.rank:
        agreement.versions = lambda: {**versions(), "numpy": "1.0"}
    try:
        make(ranks)
    finally:
        agreement.versions = versions


def _other_build(ranks: Ranks) -> None:
    build = torch.__version__
    if ranks.rank:
        torch.__version__ = "2.0.0+cu118"
    try:
        make(ranks)
    finally:
        torch.__version__ = build


def _no_sample(ranks: Ranks) -> None:
    limit = 50 if ranks.rank else 1
    env = SyncVectorEnv([lambda: Walk(limit, 1e9)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    make(ranks, env, num_envs=None, steps_per_env=1).learn(8)


def _no_file(ranks: Ranks) -> None:
    file = Path("rank-0.trpo")
    if ranks.first:
        make(None).save(file)
    ranks.any(False)  # rank 0 has it by now
    TRPO.load(file.with_name(f"rank-{ranks.rank}.trpo"), ranks=ranks)


def _broken(ranks: Ranks) -> None:
    Breaking.broken = bool(ranks.rank)
    make(ranks, Breaking).learn(UPDATE)


def _callback_raises(ranks: Ranks) -> None:
    def note(agent: TRPO) -> None:
        if ranks.rank:
            raise KeyError("callback")

    make(ranks).learn(2 * UPDATE, note)


def _ends_used_up(ranks: Ranks) -> None:
    agent = make(ranks, Breaking)
    Breaking.broken = bool(ranks.rank)
    try:
        agent.learn(UPDATE)
    except (OSError, RuntimeError):
        Breaking.broken = False
        agent.learn(UPDATE)


def _parted(ranks: Ranks) -> None:
    def edit(agent: TRPO) -> None:
        if ranks.rank:
            agent.engine.parameters()[0] += 1e-7
            agent.engine.parameters_changed()

    make(ranks).learn(12 * UPDATE, edit)


def _interrupted(ranks: Ranks) -> None:
    def note(agent: TRPO) -> None:
        if ranks.rank:
            raise KeyboardInterrupt

    make(ranks).learn(2 * UPDATE, note)


ATTEMPTS: dict[str, Callable[[Ranks], Any]] = {
    "settings": lambda ranks: make(ranks, gamma=0.9 if ranks.rank else 0.99),
    "seed": lambda ranks: make(ranks, seed=5 + ranks.rank),
    "one seed": lambda ranks: make(ranks, seed=5 if ranks.rank else None),
    "stepping": lambda ranks: make(ranks, "CartPole-v1", vectorization="vector" if ranks.rank else "sync").learn(
        UPDATE
    ),
    "environment": lambda ranks: make(ranks, "Pendulum-v1" if ranks.rank else "CartPole-v1"),
    "env_kwargs": lambda ranks: make(ranks, env_kwargs={"max_episode_steps": 50 + ranks.rank}),
    "network": lambda ranks: make(ranks, hidden_sizes=(4 + ranks.rank,)),
    "function": lambda ranks: make(ranks, advantages=(lambda inputs: None) if ranks.rank else None),
    "version": _other_version,
    "build": _other_build,
    "no multiple": lambda ranks: make(ranks, num_envs=3),
    "fewer": lambda ranks: make(ranks, num_envs=1),
    "timesteps": lambda ranks: make(ranks).learn(UPDATE + ranks.rank),
    "schedules": lambda ranks: make(ranks).learn(UPDATE, schedules={"max_kl": lambda done: 0.01 + ranks.rank * done}),
    "no sample": _no_sample,
    "no file": _no_file,
    "broken": _broken,
    "callback raises": _callback_raises,
    "used up": _ends_used_up,
    "parted": _parted,
    "interrupted": _interrupted,
}


def _drawn_seed(ranks: Ranks) -> int:
    return make(ranks, seed=None).seed


def _other_copies(ranks: Ranks) -> int:
    """A file of three environments, of which no two ranks have as many, goes on with those that they hand in."""
    if ranks.first:
        make(None, Walk, num_envs=3).save("three.trpo")
    ranks.any(False)  # rank 0 has it by now
    agent = TRPO.load("three.trpo", env=SyncVectorEnv([Walk] * 2), ranks=ranks)
    agent.learn(UPDATE)
    return agent.config.num_envs


class Masked(gym.Wrapper):
    """Says what is allowed on rank 1 alone."""

    says = False

    def reset(self, **options: Any) -> Any:
        observation, info = super().reset(**options)
        return observation, self._with_mask(info)

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, self._with_mask(info)

    def _with_mask(self, info: Any) -> Any:
        return {**info, "action_mask": np.array([1, 0], np.int8)} if self.says else info


def _masks_of_one(ranks: Ranks) -> tuple[bool, list[int]]:
    Masked.says = bool(ranks.rank)
    agent = make(ranks, lambda: Masked(gym.make("CartPole-v1")))
    actions: list[int] = []
    agent.learn(2 * UPDATE, lambda agent: actions.append(int(agent.collector._buffers[1].actions[:, -1].max())))
    return agent.trained_with_masks, actions


def _closed_on_one(ranks: Ranks) -> bytes:
    agent = make(ranks)
    agent.learn(UPDATE)
    if ranks.rank:
        agent.close()
    agent.learn(UPDATE, reset_num_timesteps=False)
    return agent.engine.parameters().tobytes()


def _functions_as_wrappers(ranks: Ranks) -> bool:
    return make(ranks, wrappers=[lambda env: env]).ranks is ranks


def _callback_stops(ranks: Ranks) -> int:
    agent = make(ranks)
    agent.learn(9 * UPDATE, lambda agent: ranks.rank == 0 or agent.num_updates < 2)
    return agent.num_updates


def _hung(ranks: Ranks) -> tuple[str, str]:
    Hanging.hangs = bool(ranks.rank)
    try:
        make(ranks, Hanging).learn(UPDATE)
    except Exception as error:
        if ranks.first:
            os.kill(int(Path("hanging").read_text()), signal.SIGCONT)
        return type(error).__name__, str(error)
    return "", ""


def everything(given: Any) -> dict[str, Any]:
    """(type, message) of every error; every attempt has a group of its own."""
    found: dict[str, Any] = {}
    for name, attempt in ATTEMPTS.items():
        ranks = Ranks(timeout=120)
        try:
            attempt(ranks)
            found[name] = "", ""
        except BaseException as error:
            found[name] = type(error).__name__, str(error)
        ranks.close()
    fine = {
        "seed": _drawn_seed,
        "stops": _callback_stops,
        "copies": _other_copies,
        "masks": _masks_of_one,
        "closed": _closed_on_one,
        "functions": _functions_as_wrappers,
    }
    for name, does in fine.items():
        ranks = Ranks(timeout=120)
        found[f"after {name}"] = does(ranks)
        ranks.close()
    found["hung"] = _hung(Ranks(timeout=8))
    return found
