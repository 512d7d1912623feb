"""Evaluating the agent now and then while it learns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from trpo_fast import streams
from trpo_fast._core.library import in_words
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import FINITE, POSITIVE_INTEGER, checked_timesteps
from trpo_fast.algorithm.evaluation import OWN_ENVIRONMENT, EvaluationResult, require_deterministic_actions
from trpo_fast.algorithm.events import Callback, is_in_place
from trpo_fast.algorithm.run_files import refuse_others, require_writable, set_aside, timesteps_of
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import ModelFileError, checked_path, read_metadata
from trpo_fast.settings import FLAG, POSITIVE_COUNT, SEED, checked
from trpo_fast.state import State

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


_keepers: WeakValueDictionary[Path, TRPO] = WeakValueDictionary()  # of a best model, the latest to train


class EvaluationCallback(Callback):
    """Evaluates the agent about every ``every`` timesteps, keeps the best model, and may end the training.

    ``results`` collects ``(num_timesteps, EvaluationResult)``; the model of the highest mean is saved at ``best_path``,
    that of the latest evaluation at ``last_path``. Mean return and length are recorded for the log, as
    ``eval/mean_reward`` and ``eval/mean_ep_length``, and all callbacks hear of `Callback.on_evaluation` and
    `Callback.on_new_best`. ``env`` and ``max_steps`` are those of :meth:`TRPO.evaluate`: without ``env`` the training's
    environments are made again. One is made and closed when the training starts, so that what stands against it is said
    then. What an evaluation raises later is reported in a warning, as is a file that cannot be written; the training
    goes on.

    Without ``seed`` every evaluation has other episodes: their seed is drawn from the agent's and its number of
    updates, so that a resumed run evaluates as it would have. One that was interrupted is made up for when the training
    goes on. The file at ``best_path`` is written when all callbacks of the update have been called; it says its mean,
    and stays until a better one comes, also in a resumed run. An agent that begins sets aside one that is there, as
    `RunLogger` does its log.

    Parameters
    ----------
    every : int
        Timesteps between two evaluations, rounded up to an update.
    episodes : int
        Of each evaluation; of each seed, where several are given.
    seed : int or sequence of int, optional
        Of environments and noise. Several are so many starts: their episodes are one result, in order.
    at_start : bool
        Evaluate before the first update, too.
    best_path, last_path : path, optional
        Files of the best and of the latest agent.
    stop_at_return : float, optional
        End the training once an evaluation has this mean.
    patience : int, optional
        End the training once so many evaluations in a row had no higher mean than the best before them.
    """

    of_first_rank = True

    def __init__(
        self,
        every: int,
        *,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | Sequence[int] | None = None,
        env: Any = None,
        max_steps: int | None = None,
        best_path: str | Path | None = None,
        last_path: str | Path | None = None,
        at_start: bool = False,
        stop_at_return: float | None = None,
        patience: int | None = None,
    ) -> None:
        self.every: int = checked_timesteps("every", every)
        self.results: list[tuple[int, Any]] = []
        self._arguments: dict[str, Any] = {
            "episodes": checked("episodes", episodes, POSITIVE_COUNT),
            "deterministic": checked("deterministic", deterministic, FLAG),
            "env": env,
            "max_steps": None if max_steps is None else checked("max_steps", max_steps, POSITIVE_INTEGER),
        }
        starts: list[Any] = list(seed) if isinstance(seed, list | tuple | range) else [seed]
        self._seeds: list[int] = [] if starts == [None] else [checked("seed", one, SEED) for one in starts]
        if not starts:
            raise ValueError(f"seed: {in_words(seed)} given; want {SEED.want}, some of these, or None")
        self._at_start = checked("at_start", at_start, FLAG)
        self._goal = math.inf if stop_at_return is None else checked("stop_at_return", stop_at_return, FINITE)
        self._patience = math.inf if patience is None else checked("patience", patience, POSITIVE_INTEGER)
        self._recipe = None if env is None else EnvironmentRecipe(env)
        self._best_path = None if best_path is None else checked_path("best_path", best_path).absolute()
        self._last_path = None if last_path is None else checked_path("last_path", last_path).absolute()
        if self._last_path is not None and self._last_path == self._best_path:
            raise ValueError(f"last_path: {last_path} given, which is best_path, too; want a file for each")
        self._refuse_folders()  # not hours in
        self._best = self._kept = -math.inf  # means: the highest, and that of the file at best_path
        self._without_better = 0  # evaluations in a row
        self._missing: set[Path] = set()  # whose folder is, and a warning has said so
        self._due = 0  # in timesteps; in the past where an evaluation was interrupted
        self._resumed: State = {}

    @property
    def best_mean(self) -> float:
        """The highest mean return of an evaluation so far, also of one before the training went on; else -inf."""
        return self._best

    def get_state(self) -> State:
        """When the next evaluation is due, the best mean, and for how many evaluations it has been that."""
        best = None if self._best == -math.inf else self._best
        return {"every": self.every, "due": self._due, "best": best, "without_better": self._without_better}

    def set_state(self, state: State) -> None:
        """Go on with the plan of before, where `every` is the same."""
        self._resumed = state

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where an evaluation will not be possible, or the file at ``best_path`` is another training's."""
        self._refuse_folders()
        if self._last_path is not None:
            refuse_others([self._last_path], agent, "last_path", "another path, or the file removed")
            require_writable("last_path", self._last_path.parent)
        if self._best_path is not None:
            other = _keepers.get(self._best_path)
            if other is not None and other is not agent and self._is_kept_by(other):
                raise ValueError(
                    f"best_path: {self._best_path} is another agent's, which trains at this moment; want another path"
                )
            refuse_others([self._best_path], agent, "best_path", "another path, or the file removed")
            require_writable("best_path", self._best_path.parent)
        if agent.recipe is not None and agent.recipe.steps_in(self._arguments["env"]):
            raise ValueError(OWN_ENVIRONMENT)
        if self._arguments["deterministic"]:
            require_deterministic_actions(agent)
        if self._recipe is not None:
            self._recipe.make_like(1, like=agent).close()
        elif agent.recipe is not None:
            agent.recipe.make_again(1, like=agent).close()

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> bool:
        """Plan the first evaluation at the next multiple of ``every``; make up for one that was interrupted."""
        if agent.total_timesteps == 0:
            self._best = self._kept = -math.inf
        if agent.num_timesteps == 0:  # this training has had none yet
            self._without_better = 0
        if self._last_path is not None:
            self._last_path.parent.mkdir(parents=True, exist_ok=True)
        if self._best_path is not None:
            _keepers[self._best_path] = agent
            self._best_path.parent.mkdir(parents=True, exist_ok=True)
            if agent.total_timesteps:
                self._kept = _evaluated_mean(self._best_path)
                self._best = max(self._best, self._kept)
            elif self._best_path.exists() and timesteps_of(self._best_path) > 0:
                aside = set_aside(self._best_path)
                warnings.warn(
                    f"{self._best_path} is the best of another training, this one begins: it is {aside.name} now",
                    stacklevel=2,
                )
        resumed, self._resumed = self._resumed, {}
        if "best" in resumed:  # the file may be from after that
            self._best = -math.inf if resumed["best"] is None else resumed["best"]
            self._without_better = resumed["without_better"]
        self._due = resumed["due"] if resumed.get("every") == self.every else self._after(agent)
        if self._at_start and agent.total_timesteps == 0:
            self._due = 0
        return self.on_update(agent)

    def on_update(self, agent: TRPO) -> bool:
        """Evaluate when due; False where a goal is reached, or nothing became better for too long."""
        if agent.num_timesteps < self._due:
            return True
        goes_on = self._evaluate(agent)
        self._due = self._after(agent)  # also in the files of models, which are written later
        return goes_on

    def _is_kept_by(self, agent: TRPO) -> bool:
        assert self._best_path is not None
        callbacks = agent.callbacks_under_way
        if callbacks is None or not callbacks.is_in_place(self._best_path):  # its folder has another name now
            return False
        every = [getattr(one, "callback", one) for one in callbacks.callbacks]  # that of an EveryNTimesteps
        kept = (one._best_path for one in every if isinstance(one, EvaluationCallback))
        return self._best_path in kept

    def _refuse_folders(self) -> None:
        for name, path in ("best_path", self._best_path), ("last_path", self._last_path):
            if path is not None and path.is_dir():
                raise ValueError(f"{name}: the folder {path} given; want the name of a file, e.g. best.trpo in it")

    def _after(self, agent: TRPO) -> int:
        return (agent.num_timesteps // self.every + 1) * self.every

    def _evaluate(self, agent: TRPO) -> bool:
        """Whether the training goes on after an evaluation."""
        at = f"at {agent.num_timesteps:,} timesteps"
        try:
            result = self._played(agent)
        except Exception as error:
            warnings.warn(f"the evaluation {at} failed: {error!r}; the training goes on", stacklevel=2)
            return True
        self.results.append((agent.num_timesteps, result))
        agent.logger.record("eval/mean_reward", result.mean)
        agent.logger.record("eval/mean_ep_length", result.lengths.mean())
        is_best = result.mean > self._best
        self._best, self._without_better = max(self._best, result.mean), 0 if is_best else self._without_better + 1
        callbacks = agent.callbacks_under_way
        goes_on = True
        if callbacks is not None:
            goes_on = callbacks.on_evaluation(agent, result)
            if is_best:
                goes_on &= callbacks.on_new_best(agent, result)

        def save() -> None:
            self._save(agent, self._last_path, "the latest evaluated model", at, result.mean)
            # A run that was killed behind its latest checkpoint comes to the same evaluation again.
            better = result.mean > self._kept or (is_best and result.mean == self._kept)
            if better and self._save(agent, self._best_path, "the best model", at, result.mean):
                self._kept = result.mean

        if callbacks is None:
            save()
        else:
            callbacks.when_all_have_run(save)
        return goes_on and result.mean < self._goal and self._without_better < self._patience

    def _played(self, agent: TRPO) -> EvaluationResult:
        seeds = self._seeds
        if not seeds:
            key = [agent.seed, streams.CALLBACK_EVALUATIONS, agent.num_updates]
            seeds = [int(np.random.SeedSequence(key).generate_state(1)[0])]
        results = [agent.evaluate(**self._arguments, seed=seed) for seed in seeds]
        if len(results) == 1:
            return results[0]
        returns, lengths, finished = (
            np.concatenate([getattr(result, name) for result in results]) for name in ("returns", "lengths", "finished")
        )
        return EvaluationResult(float(returns.mean()), float(returns.std()), returns, lengths, finished)

    def _save(self, agent: TRPO, path: Path | None, what: str, at: str, mean: float) -> bool:
        """Whether it was written."""
        if path is None:
            return False
        if not is_in_place(path, agent):
            if path not in self._missing:
                warnings.warn(
                    f"{path.parent} is not there any more, it was renamed or removed: {what} is not written until it "
                    "is back; the training goes on",
                    stacklevel=2,
                )
            self._missing.add(path)
            return False
        self._missing.discard(path)
        try:
            checkpoint.save(agent, path, evaluation={"mean": mean})
        except OSError as error:
            warnings.warn(f"{what}, {at}, was not written: {error}; the training goes on", stacklevel=2)
            return False
        return True


def _evaluated_mean(path: Path) -> float:
    """The mean return that the evaluation of an agent in a file had; -inf where it says none."""
    try:
        evaluation = read_metadata(path).get("evaluation")
    except (OSError, ModelFileError):
        return -math.inf
    mean = evaluation.get("mean") if isinstance(evaluation, dict) else None
    return mean if isinstance(mean, float) and math.isfinite(mean) else -math.inf
