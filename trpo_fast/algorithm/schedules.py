"""How a setting changes over the training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trpo_fast._core.library import in_words
from trpo_fast.settings import checked, names_near

if TYPE_CHECKING:
    from trpo_fast.algorithm.config import TRPOConfig

Schedule = Callable[[float], float]
"""Of the progress, the part of the training's timesteps that is learned from, below 1 whenever an update begins."""

SCHEDULES: dict[str, Schedule] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    # (1 + cos(pi p)) / 2, which would round to 0 at the end of a long training.
    "cosine": lambda progress: math.cos(0.5 * math.pi * progress) ** 2,
}
"""Factor of a setting by name."""

SCHEDULED = {
    "max_kl": "max_kl_schedule",
    "critic_learning_rate": "critic_learning_rate_schedule",
    "entropy_coefficient": None,
}
"""Settings that may have a function, and the setting that names their schedule where they have none."""


def checked_schedules(given: Any) -> dict[str, Schedule]:
    """What ``learn(schedules=)`` is given; ValueError or TypeError names what cannot be."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"schedules: {in_words(given)} given; want functions of the progress by the names of settings")
    for name, function in given.items():
        if name not in SCHEDULED:
            raise ValueError(f"schedules: {in_words(name)} given; {names_near(str(name), SCHEDULED, 'want some of')}")
        if not callable(function):
            raise TypeError(f"schedules: {in_words(function)} given for {name}; want a function of the progress")
    return dict(given)


def scheduled(config: TRPOConfig, functions: Mapping[str, Schedule], progress: float) -> dict[str, float]:
    """The value of each of `SCHEDULED` at some progress; ValueError names a function whose value cannot be."""
    rules = {field.name: field.metadata["rule"] for field in dataclasses.fields(config)}
    found = {}
    for name, own in SCHEDULED.items():
        if name in functions:
            value = functions[name](progress)
            found[name] = checked(f"schedules[{name!r}]({progress:.6g})", value, rules[name])
        else:
            factor = 1.0 if own is None else SCHEDULES[getattr(config, own)](progress)
            found[name] = getattr(config, name) * factor
    return found
