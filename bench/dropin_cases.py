"""What the drop-in gains with one policy or another, sb3-contrib's defaults, by CPU time of ``learn()``.

    python -m bench.compare_dropin --case NAME [--env HalfCheetah-v5] [--rounds 9] [--updates 3] [--out FILE]

One environment without wrappers of Stable-Baselines3's but Monitor. Both classes learn by turns, the first round of
each is not counted, and the ratio is the median of those of the rounds: CPU time, and by turns, as other programs may
have the machine, too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from torch import nn

import trpo_fast.sb3
from bench.rounds import alternate, check_update


class Parts(gym.ObservationWrapper[dict[str, Any], Any, Any]):
    """A flat observation as a Dict of two Boxes."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        whole = env.observation_space
        assert isinstance(whole, spaces.Box)
        self._half = whole.shape[0] // 2
        self.observation_space = spaces.Dict(
            {
                name: spaces.Box(whole.low[part], whole.high[part], dtype=whole.dtype.type)
                for name, part in (("first", slice(self._half)), ("second", slice(self._half, None)))
            }
        )

    def observation(self, observation: Any) -> dict[str, Any]:
        """In two."""
        return {"first": observation[: self._half], "second": observation[self._half :]}


class Case(NamedTuple):
    """Arguments of the model, and what has to do its updates."""

    settings: Mapping[str, Any] = MappingProxyType({})
    policy: str = "MlpPolicy"
    wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None
    engines: tuple[str, str] = ("compiled", "compiled")


def _with(activation: type[nn.Module]) -> dict[str, Any]:
    return {"policy_kwargs": {"activation_fn": activation}}


CASES = {
    "mlp": Case(),
    "dict": Case(policy="MultiInputPolicy", wrapper=Parts),
    "gsde": Case({"use_sde": True}, engines=("autograd", "compiled")),
    "silu": Case(_with(nn.SiLU)),
    "gelu": Case(_with(nn.GELU)),
    "softplus": Case(_with(nn.Softplus)),
    "adamw": Case({"policy_kwargs": {"optimizer_class": torch.optim.AdamW}}),
    "mish": Case(_with(nn.Mish), engines=("autograd", "torch")),  # an activation without a kernel
}


class Round(NamedTuple):
    """CPU seconds of an update and its rollout."""

    learn: float
    collect: float


class Side:
    """A model of one of the classes."""

    def __init__(self, name: str, kind: type[sb3_contrib.TRPO], case: Case, env: str, seed: int) -> None:
        self.name = name
        self._case = case
        self._collecting = 0.0
        side = self

        class Timed(kind):  # type: ignore[misc, valid-type]
            def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
                start = time.process_time()
                try:
                    return bool(super().collect_rollouts(*args, **kwargs))
                finally:
                    side._collecting += time.process_time() - start

            def train(self) -> None:
                super().train()
                logged = self.logger.name_to_value
                if logged["train/is_line_search_success"]:
                    check_update(logged["train/kl_divergence_loss"], logged["train/policy_objective"], self.target_kl)
                engines = getattr(self, "update_engine", None), getattr(self, "critic_engine", None)
                if engines not in (case.engines, (None, None)):
                    raise AssertionError(f"updated by {engines}: {self.update_reason}; {self.critic_reason}")

        environment = make_vec_env(env, 1, seed=seed, wrapper_class=case.wrapper)
        self.model = Timed(case.policy, environment, device="cpu", seed=seed, **case.settings)
        self.model.set_logger(configure(None, []))

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self._collecting, start = 0.0, time.process_time()
        self.model.learn(updates * self.model.n_steps, log_interval=10**9, reset_num_timesteps=False)
        return Round((time.process_time() - start) / updates, self._collecting / updates)


def compare(
    name: str, env: str, rounds: int, updates: int, threads: int, seed: int
) -> tuple[dict[str, list[Round]], float]:
    """Both by turns, as of `alternate`; prints the ratios."""
    kinds = {"trpo_fast.sb3": trpo_fast.sb3.TRPO, "sb3-contrib": sb3_contrib.TRPO}
    sides = [Side(side, kind, CASES[name], env, seed) for side, kind in kinds.items()]
    counted, share = alternate(sides, rounds, updates, threads)
    ours, theirs = counted.values()
    pairs = list(zip(ours, theirs, strict=True))
    learn, collect = (
        statistics.median(getattr(b, part) / getattr(a, part) for a, b in pairs) for part in Round._fields
    )
    print(
        f"{env} {name:<9} CPU ms of an update with its rollout: trpo_fast.sb3"
        f" {1e3 * statistics.median(one.learn for one in ours):6.0f},"
        f" sb3-contrib {1e3 * statistics.median(one.learn for one in theirs):6.0f};"
        f" ratio {learn:.2f}, of the rollout {collect:.2f}",
        flush=True,
    )
    return counted, share
