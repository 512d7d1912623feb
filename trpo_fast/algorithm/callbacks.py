"""What runs after every update of ``TRPO.learn``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from trpo_fast.algorithm.config import FINITE, POSITIVE_INTEGER, RECENT_EPISODES
from trpo_fast.algorithm.evaluation import OWN_ENVIRONMENT
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import checked_path
from trpo_fast.settings import checked
from trpo_fast.state import State

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

    def on_update(self, agent: TRPO) -> Any:
        """After an update; what equals False, of NumPy or torch as well, ends the training, None does not.

        ``agent.episode_return_mean`` is NaN before an episode has ended, and ``nan < goal`` is False: to end at a goal,
        take :class:`StopAtReturn`.
        """
        return None

    def on_training_end(self, agent: TRPO) -> None:
        """After the last update, also where an exception ended the training; only where the start went well."""

    def get_state(self) -> State:
        """What it goes on from when the training is resumed, as plain data (`trpo_fast.state`): in every file.

        Called whenever the agent is saved, by another callback perhaps, and at the end of a training.
        """
        return {}

    def set_state(self, state: State) -> None:
        """Go on from what `get_state` said, of an earlier training or in a file; before ``on_training_start``.

        Not called where timesteps are counted from 0 again, or nothing was said.
        """


# The agent's type is Any here, because the alias is evaluated and the agent imports this module.
CallbackLike = Callback | Callable[[Any], Any] | Sequence[Any] | None


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

    def get_state(self) -> State:
        """Those of each that has one, by the name of its class, and a number from the second of a class on."""
        return {name: state for name, callback in self._named() if (state := callback.get_state())}

    def set_state(self, state: State) -> None:
        """Give each what is there under its name."""
        for name, callback in self._named():
            if state.get(name):
                callback.set_state(state[name])

    def _named(self) -> Iterator[tuple[str, Callback]]:
        counts: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            counts[name] += 1
            yield (name if counts[name] == 1 else f"{name} {counts[name]}"), callback

    def on_update(self, agent: TRPO) -> bool:
        """Call each in order."""
        # A list, so that every callback runs.
        return not any([_ends_training(callback.on_update(agent)) for callback in self.callbacks])

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


def _ends_training(answer: Any) -> bool:
    """Whether a callback's answer is a False, of whatever library."""
    if answer is None:
        return False
    try:
        return bool(answer == False)  # noqa: E712, NumPy's and torch's are other objects
    except (RuntimeError, TypeError, ValueError):  # several items
        raise TypeError(f"callback: {answer!r} returned; want True, False or None") from None


class _FunctionCallback(Callback):
    def __init__(self, function: Callable[[TRPO], Any]) -> None:
        self._function = function

    def on_update(self, agent: TRPO) -> Any:
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
        self.folder = checked_path("folder", folder)
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


class EvaluationCallback(Callback):
    """Evaluates the agent about every ``every`` timesteps and keeps the best model.

    ``results`` collects ``(num_timesteps, EvaluationResult)``; the model of the highest mean is saved at ``best_path``.
    ``env`` and ``max_steps`` are those of :meth:`TRPO.evaluate`: without ``env`` the training's environments are made
    again. One is made and closed when the training starts, so that what stands against it is said then.
    """

    def __init__(
        self,
        every: int,
        *,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | None = None,
        env: Any = None,
        max_steps: int | None = None,
        best_path: str | Path | None = None,
    ) -> None:
        self.every: int = checked("every", every, POSITIVE_INTEGER)
        self.results: list[tuple[int, Any]] = []
        self._arguments: dict[str, Any] = {
            "episodes": episodes,
            "deterministic": deterministic,
            "seed": seed,
            "env": env,
            "max_steps": max_steps,
        }
        self._recipe = None if env is None else EnvironmentRecipe(env)
        self._best_path = None if best_path is None else checked_path("best_path", best_path)  # not hours in
        self._best = float("-inf")
        self._due = 0

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first evaluation at the next multiple of ``every``; ValueError where it will not be possible."""
        if agent.recipe is not None and agent.recipe.steps_in(self._arguments["env"]):
            raise ValueError(OWN_ENVIRONMENT)
        if self._recipe is not None:
            self._recipe.make_like(1, like=agent).close()
        elif agent.recipe is not None:
            agent.recipe.make_again(1, like=agent).close()
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
