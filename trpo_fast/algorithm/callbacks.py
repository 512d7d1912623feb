"""What runs after every update of ``TRPO.learn``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from trpo_fast.algorithm.config import POSITIVE_INTEGER, checked

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


class Callback:
    """Base of callbacks; override what is needed.

    At every call the agent is between two updates. ``agent.critic``, ``agent.save`` and the critic's part of
    ``agent.last_update`` first wait for the critic's fit; the policy's part does not, so a callback that reads only
    that leaves the fit hidden beside the next rollout.
    """

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Before the first rollout; ``total_timesteps`` is the count at which training ends."""

    def on_update(self, agent: TRPO) -> bool | None:
        """After an update; False ends the training."""
        return None

    def on_training_end(self, agent: TRPO) -> None:
        """After the last update, also where an exception ended the training; only where the start went well."""


# The agent's type is Any here, because the alias is evaluated and the agent imports this module.
CallbackLike = Callback | Callable[[Any], bool | None] | Sequence[Any] | None


class CallbackList(Callback):
    """Several callbacks as one; training ends when any of them says so, after all have run.

    Lists inside are unrolled, so that each callback is started, and ended, by itself.
    """

    def __init__(self, callbacks: Sequence[CallbackLike]) -> None:
        self.callbacks: list[Callback] = []
        self._started: list[Callback] = []
        for callback in map(as_callback, callbacks):
            self.callbacks += callback.callbacks if isinstance(callback, CallbackList) else [callback]

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Call each in order."""
        self._started = []
        for callback in self.callbacks:
            callback.on_training_start(agent, total_timesteps)
            self._started.append(callback)

    def on_update(self, agent: TRPO) -> bool:
        """Call each in order."""
        answers = [callback.on_update(agent) for callback in self.callbacks]
        return not any(answer is False for answer in answers)

    def on_training_end(self, agent: TRPO) -> None:
        """Call each one that was started, in order; the first exception travels on once all have been called."""
        first: BaseException | None = None
        while self._started:
            try:
                self._started.pop(0).on_training_end(agent)
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    first.add_note(f"a later on_training_end raised {error!r}")
        if first is not None:
            raise first


class _FunctionCallback(Callback):
    def __init__(self, function: Callable[[TRPO], bool | None]) -> None:
        self._function = function

    def on_update(self, agent: TRPO) -> bool | None:
        return self._function(agent)


def as_callback(callback: CallbackLike) -> Callback:
    """A Callback from what ``learn(callback=)`` accepts; TypeError for anything else."""
    if callback is None:
        return CallbackList([])
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, Sequence):
        return CallbackList(callback)
    if callable(callback):
        return _FunctionCallback(callback)
    raise TypeError(
        f"callback: {callback!r} given; want a Callback, a function of the agent, a sequence of these, or None"
    )


class CheckpointCallback(Callback):
    """Saves the agent about every ``every`` timesteps as ``folder/<timesteps>.trpo``."""

    def __init__(self, folder: str | Path, every: int) -> None:
        self.folder = Path(folder)
        self.every: int = checked("every", every, POSITIVE_INTEGER)
        self._due = 0

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first checkpoint at the next multiple of ``every``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._plan(agent)

    def on_update(self, agent: TRPO) -> None:
        """Save when due."""
        if agent.num_timesteps >= self._due:
            self.save(agent)
            self._plan(agent)

    def save(self, agent: TRPO) -> Path:
        """Save now; the path written."""
        path = self.folder / f"{agent.num_timesteps:012d}.trpo"
        agent.save(path)
        return path

    def _plan(self, agent: TRPO) -> None:
        self._due = (agent.num_timesteps // self.every + 1) * self.every


class EvaluationCallback(Callback):
    """Evaluates the agent about every ``every`` timesteps and keeps the best model.

    ``results`` collects ``(num_timesteps, EvaluationResult)``; the model of the highest mean is saved at ``best_path``.
    """

    def __init__(
        self,
        every: int,
        *,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | None = None,
        best_path: str | Path | None = None,
    ) -> None:
        self.every: int = checked("every", every, POSITIVE_INTEGER)
        self.results: list[tuple[int, Any]] = []
        self._arguments: dict[str, Any] = {"episodes": episodes, "deterministic": deterministic, "seed": seed}
        self._best_path = best_path
        self._best = float("-inf")
        self._due = 0

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first evaluation at the next multiple of ``every``."""
        self._due = (agent.num_timesteps // self.every + 1) * self.every

    def on_update(self, agent: TRPO) -> None:
        """Evaluate when due."""
        if agent.num_timesteps < self._due:
            return
        self._due = (agent.num_timesteps // self.every + 1) * self.every
        result = agent.evaluate(**self._arguments)
        self.results.append((agent.num_timesteps, result))
        if result.mean > self._best:
            self._best = result.mean
            if self._best_path is not None:
                agent.save(self._best_path)


class ProgressBar(Callback):
    """A tqdm bar of timesteps with the return of recent episodes, the KL of the last update and steps per second."""

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
