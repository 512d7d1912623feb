"""An agent that is disturbed, and its twin, which is not: after each update both are to have the same bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trpo_fast import TRPO, model_file
from trpo_fast.state import unpacked

NUM_ENVS, STEPS = 2, 16
UPDATE = NUM_ENVS * STEPS
SETTINGS: dict[str, Any] = {
    **{"num_envs": NUM_ENVS, "steps_per_env": STEPS, "warm_up_steps": 4, "seed": 5, "preset": None},
    **{"critic_epochs": 1, "critic_batch_size": 16},
}
FLAT = {"hidden_sizes": (4,), "critic_hidden_sizes": (4,)}
AGENTS: dict[str, dict[str, Any]] = {
    "native": {**FLAT, "overlap_critic": False},
    "autograd": {**FLAT, "engine": "autograd"},
    "recurrent": {"policy": "gru"},
    "critic beside the rollout": {**FLAT, "overlap_critic": True},
    "workers": {**FLAT, "vectorization": "workers", "num_workers": 1},
}


BESIDE = 3
"""Updates of one call of `learn`, where fits are to be beside rollouts: none is behind the last of a call."""


class Broken(AssertionError):
    """The invariant does not hold."""


class Planned(Exception):
    """What a twin's update ends by."""


class PlannedInterrupt(BaseException):
    """The same, where the agent's ended by what is no Exception: then its episodes go on."""


class _Failing:
    """Another object, but for one method, which raises."""

    def __init__(self, whole: Any, name: str, kind: type[BaseException]) -> None:
        self._whole, self._name, self._kind = whole, name, kind

    @property
    def __class__(self) -> Any:  # a critic is recurrent whose kernel is
        return type(self._whole)

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._whole, name)

        def fail(*_: Any, **__: Any) -> None:
            raise self._kind

        return fail


class State(NamedTuple):
    """What a file has of an agent."""

    arrays: dict[str, Any]
    counters: dict[str, Any]


def _plain(state: Any) -> Any:
    """What is equal where the bits are, in whatever order they were packed."""
    if isinstance(state, dict):
        # Workers keep the global generators of each copy, too.
        return {name: _plain(value) for name, value in state.items() if name != "generators"}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    if isinstance(state, np.ndarray):
        return state.dtype.str, state.shape, state.tobytes()
    return state.hex() if isinstance(state, float) else state


class Pair:
    """Both, after one update.

    The twin steps its environments in its own process, whatever the agent does, as that changes no bit.
    """

    def __init__(self, kind: str, env: Any = "Pendulum-v1", twin_env: Any = None) -> None:
        settings = {**SETTINGS, **AGENTS[kind]}
        self._folder = tempfile.TemporaryDirectory()
        self._updates = BESIDE if settings.get("overlap_critic") else 1
        self.agent = TRPO(env, **settings)
        alone = {name: value for name, value in settings.items() if name not in ("vectorization", "num_workers")}
        self.twin = TRPO(twin_env or env, **alone, **({"vectorization": "sync"} if kind == "workers" else {}))
        for one in (self.agent, self.twin):
            self._learn(one)
        self.require_same("at first")

    def _learn(self, agent: TRPO, callback: Any = None, updates: int | None = None) -> None:
        steps = UPDATE * (self._updates if updates is None else updates)
        agent.learn(steps, callback, reset_num_timesteps=False, horizon=10**9)  # whose calls would say other horizons

    def state(self, agent: TRPO) -> State:
        """What it is, as saved."""
        path = Path(self._folder.name, "state.trpo")
        agent.save(path)
        arrays, metadata = model_file.read(path)
        plain = {
            name: _plain(unpacked(array) if name == "episodes_under_way" else array) for name, array in arrays.items()
        }
        return State(plain, metadata["counters"])

    def require_same(self, when: str) -> None:
        """Broken where agent and twin are not the same to the bit."""
        other = self.differ()
        if other:
            raise Broken(f"{when}: differ in {', '.join(other)}")

    def differ(self) -> list[str]:
        """What of their states is not the same."""
        mine, its = self.state(self.agent), self.state(self.twin)
        names = mine.arrays.keys() | its.arrays.keys()
        other = sorted(name for name in names if mine.arrays.get(name) != its.arrays.get(name))
        if mine.counters != its.counters:
            other.append(f"counters {mine.counters} and {its.counters}")
        return other

    def disturbed(
        self, disturbance: Callable[[], Any], callback: Any = None, *, may_learn: bool = False
    ) -> BaseException | None:
        """Let the agent's next `learn` be disturbed, and require of it, whatever came, that it goes on as the twin.

        Returns what was raised, or None. Updates that were made the twin has to make, too. Where it `may_learn` from
        the disturbance it is saved, which is checked as every file is, and no longer the twin's.
        """
        error: BaseException | None = None
        try:
            with disturbance():
                self._learn(self.agent, callback)
        except BaseException as raised:
            error = raised
        made, lost = self.agent.num_updates - self.twin.num_updates, self._has_lost_a_fit()
        if made > lost:
            self._learn(self.twin, updates=made - lost)
        if error is not None and (lost or isinstance(error, Exception)) and self.differ():
            # else it came before the update began
            self._end_an_update(made, lost, Planned if isinstance(error, Exception) else PlannedInterrupt)
        if error is None and may_learn and self.differ():
            return None
        self.require_same("after the disturbance")
        for one in (self.agent, self.twin):
            self._learn(one)
        self.require_same("an update later")
        return error

    def _has_lost_a_fit(self) -> bool:
        return self.agent.critic_trainer.abandoned_fits > self.twin.critic_trainer.abandoned_fits

    def _end_an_update(self, made: int, lost: bool, kind: type[BaseException]) -> None:
        """Let an update of the twin end as the agent's did.

        By an exception in the update, behind which new episodes begin; or in its critic's fit, which is lost, as both
        have to say: behind the last update of the call, or beside the rollout of the next one, which ends with it.
        """
        if lost and not (self.agent.inexact or "").count("of its critic's fits were lost"):
            raise Broken(f"a fit was lost, and inexact says {self.agent.inexact}")
        part, name = (self.twin.critic_trainer._kernel, "fit") if lost else (self.twin.engine, "bind")
        whole = _Failing(part, name, kind)
        try:
            if lost:
                self.twin.critic_trainer._kernel = whole
            else:
                self.twin.engine.bind = whole.bind  # type: ignore[method-assign]
            self._learn(self.twin, updates=2 if lost and made < self._updates else 1)
        except (Planned, PlannedInterrupt):
            pass
        finally:
            if lost:
                self.twin.critic_trainer._kernel = part
            else:
                del self.twin.engine.bind

    def close(self) -> None:
        """Close both."""
        self.agent.close()
        self.twin.close()
        self._folder.cleanup()
