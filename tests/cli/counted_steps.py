"""Imported where environments are made, in workers by the run's own ``imports``: lets their steps be counted."""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import Any

from tests.cli.moments import VARIABLE, Moments, note_worker

CLASSES = {
    "CartPole-v1": ("gymnasium.envs.classic_control.cartpole", ("CartPoleEnv", "CartPoleVectorEnv")),
    "Pendulum-v1": ("gymnasium.envs.classic_control.pendulum", ("PendulumEnv",)),
    "Hopper-v5": ("gymnasium.envs.mujoco.hopper_v5", ("HopperEnv",)),
    "Ant-v5": ("gymnasium.envs.mujoco.ant_v5", ("AntEnv",)),
}
moments: Moments | None = None  # of the run that is under way in this process


def count_steps_of(env: str) -> None:
    """Let every step of this environment be reached, without another class, which would be another environment."""
    module, names = CLASSES[env]
    for name in names:
        kind: Any = getattr(importlib.import_module(module), name)
        if not hasattr(kind.step, "__wrapped__"):
            kind.step = _counting(kind.step)


def _counting(step: Any) -> Any:
    @functools.wraps(step)
    def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        if moments is not None:
            moments.step()
        return step(self, *arguments, **named)

    return counting


if VARIABLE in os.environ:  # a worker's process
    path, _, env = os.environ[VARIABLE].partition(":")
    moments = Moments(Path(path))
    note_worker(Path(path))
    count_steps_of(env)
