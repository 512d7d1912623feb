"""Whole trainings, the same program on any number of ranks and in a process by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.distributions import Categorical

from tests.algorithm.recall import MaskedRecall
from tests.algorithm.test_resume import everything as digest
from tests.rollout.toys import Gate, Walk
from trpo_fast import TRPO
from trpo_fast.ranks import Ranks, share_of
from trpo_fast.rollout.collector import Collector

COPIES, STEPS, UPDATES, SAVED_AT = 12, 10, 3, 2
SMALL: dict[str, Any] = {
    **{"steps_per_env": STEPS, "warm_up_steps": 3, "seed": 5, "preset": None, "dtype": "float64"},
    **{"hidden_sizes": (8,), "critic_hidden_sizes": (8,), "critic_epochs": 2, "critic_batch_size": 32},
}
PENDULUM = {"env": "Pendulum-v1", "env_kwargs": {"max_episode_steps": 17}}
PLAIN = {"normalize_observations": False, "scale_rewards": False}


class Seeded(Walk):
    """A walk that a seed puts back whole: who looks at copies before the training may reset some of them."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.episode = -1
        return super().reset(seed=seed)


class Own(nn.Module):
    """Begins with other numbers every time that one is made."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body, self.outputs = nn.Linear(3, outputs, dtype=torch.float64), outputs
        self.register_buffer("bias", torch.randn(outputs, dtype=torch.float64))

    def forward(self, observations: torch.Tensor) -> Any:
        y = self.body(observations) + self.bias
        return Categorical(logits=y) if self.outputs > 1 else y.squeeze(-1)


def own_network(outputs: int) -> Any:
    """What makes one."""
    return lambda *_: Own(outputs)


TRAININGS: dict[str, dict[str, Any]] = {
    "sync": PENDULUM,
    "not normalized": {**PENDULUM, **PLAIN, "entropy_coefficient": 0.01},
    "steps": {"env": Seeded, "fisher_subsample": 0.3, "max_kl_schedule": "linear"},
    "handed in": {"env": AutoresetMode.SAME_STEP},
    "next step": {"env": AutoresetMode.NEXT_STEP, "fisher_subsample": 0.3},
    "masked": {"env": lambda: Gate(gymnasium.spaces.MultiDiscrete([3, 4]))},
    "recurrent": {"env": MaskedRecall, "policy": "gru", "recurrent_size": 6, "critic_epochs": 1},
    "kfac": {**PENDULUM, "preconditioner": "kfac", "cg_iterations": 80, "cg_rtol": 1e-13, "cg_progress_tol": 0.0},
    "own": {"env": MaskedRecall, "policy": own_network(3), "critic": own_network(1)},
    "workers": {**PENDULUM, "vectorization": "workers", "num_workers": 1},
}
ROWS_APART = ("sync", "not normalized", "steps", "handed in", "next step", "masked", "kfac", "workers")
"""Those whose actions do not depend, to the bit, on what else is acted for."""
SAVED = ("sync", "recurrent")


def agent_for(name: str, ranks: Ranks | None) -> TRPO:
    """A new one."""
    settings = {**SMALL, "num_envs": COPIES, **TRAININGS[name]}
    if name == "own":  # no built-in network has these sizes
        settings = {key: value for key, value in settings.items() if "hidden" not in key}
    env = settings.pop("env")
    if isinstance(env, AutoresetMode):
        del settings["num_envs"]
        own = share_of(ranks, COPIES)
        env = SyncVectorEnv([lambda: Walk(4, 2.0)] * (own.stop - own.start), autoreset_mode=env)
    torch.manual_seed(100 + (0 if ranks is None else ranks.rank))
    return TRPO(env, ranks=ranks, **settings)


def train(name: str, ranks: Ranks | None, save: Path | None = None) -> dict[str, Any]:
    """What comes of a training; saved on the way."""
    agent, first = agent_for(name, ranks), {}
    collect = Collector.collect

    def collected(self: Collector) -> Any:
        rollout = collect(self)
        if not first:
            names = ("observations", "actions", "log_probs", "rewards", "terminated", "truncated", "valid")
            first.update({field: getattr(rollout, field).copy() for field in names})
        return rollout

    reports: list[Any] = []

    def note(agent: TRPO) -> None:
        reports.append(agent.last_update)
        if save is not None and agent.num_updates == SAVED_AT and (ranks is None or ranks.first):
            agent.save(save)

    Collector.collect = collected  # type: ignore[method-assign]
    try:
        agent.learn(UPDATES * COPIES * STEPS, note)
    finally:
        Collector.collect = collect  # type: ignore[method-assign]
    return {**outcome(agent), "first": first, "updates": [told(report) for report in reports]}


def go_on(file: Path, ranks: Ranks | None) -> dict[str, Any]:
    """What comes of the rest of a training that was saved."""
    env = TRAININGS[file.stem]["env"]
    agent = TRPO.load(file, ranks=ranks, **({} if isinstance(env, str) else {"env": env}))
    agent.learn((UPDATES - agent.num_updates) * COPIES * STEPS, reset_num_timesteps=False)
    return outcome(agent)


def outcome(agent: TRPO) -> dict[str, Any]:
    """What has to be the same."""
    found: dict[str, Any] = {
        "policy": [tensor.detach().numpy().copy() for tensor in agent.policy.state_dict().values()],
        "critic": [tensor.detach().numpy().copy() for tensor in agent.critic.state_dict().values()],
        "counts": (agent.num_timesteps, agent.num_updates, agent.num_episodes),
        "episodes": np.array(agent.recent_episodes),
        "inexact": agent.inexact,
        "digest": digest(agent) if agent.inexact is None else None,
    }
    for name in ("observation_normalizer", "reward_scaler"):
        part = getattr(agent, name)
        if part is not None:
            found[name] = [np.asarray(array, np.float64) for array in part.get_state().values()]
    agent.close()
    return found


def told(report: Any) -> dict[str, Any]:
    """What an update says of itself."""
    step = report.step
    numbers = [step.gradient_norm, step.curvature, step.kl, step.improvement, step.predicted_improvement]
    numbers += [report.entropy, report.explained_variance, step.step_norm]
    return {
        "numbers": np.array(numbers),
        "counts": (step.status.name, step.backtracks, report.steps),
        "iterations": step.cg_iterations,
        "traffic": None if report.traffic is None else report.traffic[:2],
    }


def everything(ranks: Ranks, given: Path) -> dict[str, Any]:
    """All trainings; those that were saved are gone on with from files of one process and of two."""
    found = {}
    for name in TRAININGS:
        if name != "workers" or ranks.size == 2:
            found[name] = train(name, ranks, Path(f"{name}.trpo"))
    for name in SAVED:
        if ranks.size == 2:
            found[f"{name}, of one"] = go_on(given / f"{name}.trpo", ranks)
        if ranks.size in (2, 3):
            of_two = Path("../scenarios-everything-2").resolve()
            found[f"{name}, of two"] = go_on(of_two / f"{name}.trpo", ranks)
    return found
