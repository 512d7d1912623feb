"""A call of learn from its first callback to its last: counts, and an agent that is whole whatever ends it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.callbacks import CallbackList
from trpo_fast.algorithm.config import checked_timesteps
from trpo_fast.algorithm.critic import FIT_PATIENCE
from trpo_fast.algorithm.memory import lack_of_memory_named
from trpo_fast.rollout.collector import Collector
from trpo_fast.state import State

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


_UNASKED = 1_024  # timesteps that nobody is surprised by


def scheduled_part(agent: TRPO, given: Any, end: int, *, reset: bool) -> tuple[int, int]:
    """Timesteps at which schedules begin and end, for a training until `end`."""
    if given is None:
        if reset:
            return 0, end
        if agent.num_timesteps >= agent.horizon > 0:  # they have ended, and would stay where they fell to
            return agent.num_timesteps, end
        return agent.schedules_from, max(agent.horizon, end)
    horizon = checked_timesteps("horizon", given)
    if horizon < end:
        raise ValueError(f"horizon: {horizon:,} given; want at least {end:,}, where this training ends")
    return (agent.schedules_from if horizon == agent.horizon and not reset else 0), horizon


def schedule_progress(agent: TRPO) -> float:
    """The part of its schedules that is behind it: below 1 before an update of a training, 1 where they have ended."""
    return (agent.num_timesteps - agent.schedules_from) / (agent.horizon - agent.schedules_from)


def warm_up_steps(agent: TRPO) -> int:
    """Of each environment before the first rollout: the setting's, and never more than the training asks for."""
    config = agent.config
    return min(config.warm_up_steps, -(-agent.horizon // config.num_envs))


def warn_of_whole_rollouts(agent: TRPO, timesteps: int) -> None:
    """A UserWarning where hardly anything was asked for, and far more is stepped."""
    config, rollout = agent.config, agent.config.num_envs * agent.config.steps_per_env
    if timesteps < rollout and rollout - timesteps >= _UNASKED:
        warm_up = "" if agent.num_updates else ", behind a warm-up of at most as many as asked for (warm_up_steps)"
        warnings.warn(
            f"learn: {timesteps:,} timesteps asked for, {rollout:,} are taken: rollouts are whole, num_envs "
            f"{config.num_envs} x steps_per_env {config.steps_per_env}{warm_up}",
            stacklevel=3,
        )


@contextmanager
def alone(agent: TRPO) -> Iterator[None]:
    """Hold the agent for one training; RuntimeError where one is under way."""
    own = threading.get_ident(), object()
    try:  # from before it is taken: Ctrl-C at any point leaves nothing held
        holder = agent.held_by.setdefault("learn", own)
        if holder is own:
            yield
            return
    finally:
        if agent.held_by.get("learn") is own:
            del agent.held_by["learn"]
    where = "by a callback of learn" if holder[0] == own[0] else "while another thread is in learn of this agent"
    raise RuntimeError(
        f"learn: called {where}; want one call to end before the next begins, or an agent for each thread"
    )


def train(
    agent: TRPO,
    timesteps: int,
    callbacks: CallbackList,
    update: Callable[[Collector], None],
    *,
    horizon: float | None,
    reset: bool,
) -> None:
    """Call `update` until the agent has learned from so many timesteps more, or a callback ends it.

    What is raised in an update travels on when the agent is put back to where that update began; see `TRPO.learn`.
    """
    agent.hooks.require()
    with lack_of_memory_named(agent.config):
        checkpoint.make_whole(agent)
        collector = agent.training_environments.begin(agent.num_updates)
    counted = agent.earlier_timesteps, agent.num_timesteps, agent.schedules_from, agent.horizon
    end = timesteps + (0 if reset else agent.num_timesteps)
    part = scheduled_part(agent, horizon, end, reset=reset)
    callbacks.set_state({} if reset else agent.callback_states)
    if reset:
        agent.earlier_timesteps, agent.num_timesteps = agent.total_timesteps, 0
    agent.schedules_from, agent.horizon = part
    recorded: State = {}
    before: checkpoint.Snapshot | None = None  # the update under way; outside one the agent is whole
    agent.callbacks_under_way, begun = callbacks, False
    try:
        names = callbacks.infos if agent.ranks is None else agent.ranks.of_first(callbacks.infos)
        agent.training_environments.ask(names)
        goes_on = callbacks.on_training_start(agent, end)
        begun = True
        if _is_over(agent, goes_on):
            end = agent.num_timesteps
        with lack_of_memory_named(agent.config):
            before, recorded = checkpoint.capture(agent), agent.logger.get_state()
        if agent.num_updates == 0 and agent.config.warm_up_steps and agent.num_timesteps < end:
            with lack_of_memory_named(agent.config):
                collector.warm_up(warm_up_steps(agent))
        while agent.num_timesteps < end:
            with lack_of_memory_named(agent.config):
                before, recorded = before or checkpoint.capture(agent), agent.logger.get_state()
                update(agent.training_environments.ready(agent.num_updates))
            before = None
            if _is_over(agent, callbacks.on_update(agent)):
                break
        with lack_of_memory_named(agent.config):
            agent.critic_trainer.wait()
    except BaseException as error:
        if agent.ranks is not None:
            agent.ranks.leave(error)
        try:
            with _noted_on(error, "putting the agent back"):
                if before is not None:
                    # What raised may be one of the environments, which its episode would make raise again.
                    checkpoint.put_back(agent, before, new_episodes=isinstance(error, Exception))
                    agent.logger.set_state(recorded)
                if not isinstance(error, Exception):  # Ctrl-C or an exit: someone waits for the end
                    agent.critic_trainer.finish_within(getattr(error, "patience", FIT_PATIENCE))
        finally:  # Ctrl-C once more, too
            with _noted_on(error, "on_training_end"):
                callbacks.on_training_end(agent)
        raise
    else:
        callbacks.on_training_end(agent)
    finally:
        agent.callbacks_under_way = None
        if begun:
            agent.callback_states = callbacks.get_state()
        else:  # refused by a callback: as if it had not been called
            agent.earlier_timesteps, agent.num_timesteps, agent.schedules_from, agent.horizon = counted


def _is_over(agent: TRPO, goes_on: bool) -> bool:
    """Whether a callback has ended the training, of this rank or of another."""
    return not goes_on if agent.ranks is None else agent.ranks.any(not goes_on)


@contextmanager
def _noted_on(cause: BaseException, what: str) -> Iterator[None]:
    """Keep an exception of the cleaning up as a note of ``cause``, which is what the caller has to know."""
    try:
        yield
    except Exception as later:
        cause.add_note(f"{what} raised {later!r}")
