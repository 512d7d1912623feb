"""How a setting falls over the training."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    # (1 + cos(pi p)) / 2, which would round to 0 at the end of a long training.
    "cosine": lambda progress: math.cos(0.5 * math.pi * progress) ** 2,
}
"""Factor of the setting by name: a function of the progress, timesteps learned from / timesteps of the training, which
is below 1 whenever an update begins."""
