"""Callbacks of ``TRPO.learn``: what they are is in `events`, and those that are ready made are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from trpo_fast._core.library import in_words
from trpo_fast.algorithm.checkpointing import CheckpointCallback
from trpo_fast.algorithm.config import FINITE, RECENT_EPISODES, checked_timesteps
from trpo_fast.algorithm.evaluating import EvaluationCallback
from trpo_fast.algorithm.events import Callback, CallbackLike, CallbackList, as_callback
from trpo_fast.settings import checked

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

__all__ = [
    "Callback",
    "CallbackLike",
    "CallbackList",
    "CheckpointCallback",
    "EvaluationCallback",
    "EveryNTimesteps",
    "ProgressBar",
    "StopAtReturn",
    "as_callback",
]


class StopAtReturn(Callback):
    """Ends the training once the latest ``episodes`` training episodes have a mean undiscounted return of ``value``.

    Never before that many episodes have ended. At most 100, as many as the agent remembers; those of an earlier
    ``learn`` count, too.
    """

    def __init__(self, value: float, episodes: int = 100) -> None:
        self.value: float = checked("value", value, FINITE)
        self.episodes: int = checked("episodes", episodes, RECENT_EPISODES)

    def on_update(self, agent: TRPO) -> bool:
        """False when the goal is reached."""
        returns = [value for value, _ in agent.recent_episodes][-self.episodes :]
        return len(returns) < self.episodes or sum(returns) / len(returns) < self.value


_PASSED_ON = (
    *("runs_last", "runs_behind", "of_first_rank", "infos"),
    *("check_training_start", "on_rollout_end", "on_evaluation", "on_new_best", "on_training_end"),
    *("get_state", "set_state"),
)


class EveryNTimesteps(Callback):
    """Calls another callback's `on_update` after the first update behind every multiple of ``every`` timesteps alone.

    Rollouts are whole, and partly stepped elsewhere: between two updates there is nothing to call. Timesteps are those
    of the agent's life, so that a training that goes on does so where it would have. All other events, and the state,
    are the callback's own. A sequence of callbacks, and one that runs behind the others (:class:`RunLogger`), are
    refused.
    """

    def __init__(self, every: int, callback: Callback | Callable[[Any], Any]) -> None:
        self.every: int = checked_timesteps("every", every)
        self.callback = as_callback(callback)
        if isinstance(self.callback, CallbackList):  # which has rules about who is called, and when
            raise TypeError(
                f"callback: {in_words(callback)} given; want a Callback or a function, of several one for each"
            )
        if self.callback.runs_behind:
            raise ValueError(
                f"callback: a {type(callback).__name__} given, which writes what every update records; want it alone"
            )
        for name in _PASSED_ON:
            setattr(self, name, getattr(self.callback, name))
        self._due = 0

    @property
    def run_folder(self) -> Path | None:
        """That of the callback."""
        return self.callback.run_folder

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> Any:
        """Plan the first call at the next multiple."""
        self._plan(agent)
        return self.callback.on_training_start(agent, total_timesteps)

    def on_update(self, agent: TRPO) -> Any:
        """What the callback answers, when it is due."""
        if agent.total_timesteps < self._due:
            return None
        self._plan(agent)
        return self.callback.on_update(agent)

    def _plan(self, agent: TRPO) -> None:
        self._due = (agent.total_timesteps // self.every + 1) * self.every


class ProgressBar(Callback):
    """A tqdm bar of timesteps with the return of recent episodes, the KL of the last update and steps per second."""

    of_first_rank = True

    def __init__(self) -> None:
        self._bar: Any = None

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Open the bar."""
        self._bar = tqdm(
            total=total_timesteps,
            initial=agent.num_timesteps,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def on_update(self, agent: TRPO) -> None:
        """Advance the bar; reads nothing of the critic, so it never waits for the fit."""
        assert agent.last_update is not None
        shown = {"return": f"{agent.episode_return_mean:.1f}", "kl": f"{agent.last_update.kl:.4f}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(agent.num_timesteps - self._bar.n)

    def on_training_end(self, agent: TRPO) -> None:
        """Close the bar, leaving its last state on the screen."""
        self._bar.close()
