"""Imported by runs under torchrun: an environment that does something to its process at a counted step, once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

ENV = "RanksToy-v0"
VARIABLE = "TRPO_FAST_TESTS_DISTURB"


class Toy(gymnasium.Env[Any, Any]):
    """A push moves the point, whose distance from zero costs; episodes of 20 steps.

    The variable says ``rank:step:what``: a signal that the process of the rank gets, or what else it does, at that
    step of its copies since they were last seeded, unless the file of that name is there already.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float64)
    steps_of_process = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            Toy.steps_of_process = 0
        self.at, self.t = float(self.np_random.normal()), 0
        return self._look(), {}

    def _look(self) -> Any:
        return np.array([self.at, self.t / 20])

    def step(self, action: Any) -> Any:
        self._disturb()
        self.at += 0.3 * float(action[0]) + 0.1 * float(self.np_random.normal())
        self.t += 1
        return self._look(), -abs(self.at), False, self.t == 20, {}

    def get_state(self) -> Any:
        return {"at": self.at, "t": self.t, "random": self.np_random.bit_generator.state}

    def set_state(self, state: Any) -> None:
        self.at, self.t = state["at"], state["t"]
        self.np_random.bit_generator.state = state["random"]

    def _disturb(self) -> None:
        Toy.steps_of_process += 1
        rank, step, what = (os.environ.get(VARIABLE) or "-1:0:").split(":")
        if os.environ.get("RANK") != rank or Toy.steps_of_process != int(step) or Path(what).exists():
            return
        Path(what).write_text(f"{os.getpid()}")
        if what == "raise":
            raise OSError("the cable is out")
        if what in ("terminate", "interrupt"):  # torchrun, which tells its ranks
            os.kill(os.getppid(), signal.SIGTERM if what == "terminate" else signal.SIGINT)
            time.sleep(60)
        elif what == "hang":
            time.sleep(3600)
        else:
            os.kill(os.getpid(), getattr(signal, what))


gymnasium.register(ENV, Toy)
