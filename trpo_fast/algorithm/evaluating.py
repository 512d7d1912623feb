"""Evaluating the agent now and then while it learns."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.config import POSITIVE_INTEGER, SEED
from trpo_fast.algorithm.evaluation import OWN_ENVIRONMENT
from trpo_fast.algorithm.events import Callback, is_in_place
from trpo_fast.algorithm.run_files import refuse_others, require_writable, set_aside, timesteps_of
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.model_file import ModelFileError, checked_path, read_metadata
from trpo_fast.settings import checked
from trpo_fast.state import State

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

_EVALUATIONS_STREAM = 8  # of their seeds

_keepers: WeakValueDictionary[Path, TRPO] = WeakValueDictionary()  # of a best model, the latest to train


class EvaluationCallback(Callback):
    """Evaluates the agent about every ``every`` timesteps and keeps the best model.

    ``results`` collects ``(num_timesteps, EvaluationResult)``; the model of the highest mean is saved at ``best_path``.
    ``env`` and ``max_steps`` are those of :meth:`TRPO.evaluate`: without ``env`` the training's environments are made
    again. One is made and closed when the training starts, so that what stands against it is said then. What an
    evaluation raises later is reported in a warning, as is a file that cannot be written; the training goes on.

    Without ``seed`` every evaluation has other episodes: their seed is drawn from the agent's and its number of
    updates, so that a resumed run evaluates as it would have. One that was interrupted is made up for when the training
    goes on. The file at ``best_path`` is written when all callbacks of the update have been called; it says its mean,
    and a resumed run keeps it until a better one comes. An agent that begins sets aside one that is there, as
    `RunLogger` does its log.
    """

    of_first_rank = True

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
            "episodes": checked("episodes", episodes, POSITIVE_INTEGER),
            "deterministic": deterministic,
            "seed": None if seed is None else checked("seed", seed, SEED),
            "env": env,
            "max_steps": None if max_steps is None else checked("max_steps", max_steps, POSITIVE_INTEGER),
        }
        self._recipe = None if env is None else EnvironmentRecipe(env)
        self._best_path = None if best_path is None else checked_path("best_path", best_path).absolute()
        self._refuse_folder()  # not hours in
        self._best = float("-inf")
        self._missing = False  # the folder of the best model, and a warning has said so
        self._due = 0  # in timesteps; in the past where an evaluation was interrupted
        self._resumed: State = {}

    def get_state(self) -> State:
        """When the next evaluation is due."""
        return {"every": self.every, "due": self._due}

    def set_state(self, state: State) -> None:
        """Go on with the plan of before, where `every` is the same."""
        self._resumed = state

    def check_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """ValueError where an evaluation will not be possible, or the file at ``best_path`` is another training's."""
        self._refuse_folder()
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
        if self._recipe is not None:
            self._recipe.make_like(1, like=agent).close()
        elif agent.recipe is not None:
            agent.recipe.make_again(1, like=agent).close()

    def on_training_start(self, agent: TRPO, total_timesteps: int) -> None:
        """Plan the first evaluation at the next multiple of ``every``; make up for one that was interrupted."""
        if self._best_path is not None:
            _keepers[self._best_path] = agent
            self._best_path.parent.mkdir(parents=True, exist_ok=True)
            if agent.total_timesteps:
                self._best = max(self._best, _evaluated_mean(self._best_path))
            elif self._best_path.exists() and timesteps_of(self._best_path) > 0:
                aside = set_aside(self._best_path)
                warnings.warn(
                    f"{self._best_path} is the best of another training, this one begins: it is {aside.name} now",
                    stacklevel=2,
                )
        resumed, self._resumed = self._resumed, {}
        self._due = resumed["due"] if resumed.get("every") == self.every else self._after(agent)
        self.on_update(agent)

    def on_update(self, agent: TRPO) -> None:
        """Evaluate when due."""
        if agent.num_timesteps >= self._due:
            self._evaluate(agent)
            self._due = self._after(agent)  # also in the best model's file, which is written later

    def _is_kept_by(self, agent: TRPO) -> bool:
        assert self._best_path is not None
        callbacks = agent.callbacks_under_way
        if callbacks is None or not callbacks.is_in_place(self._best_path):  # its folder has another name now
            return False
        kept = (one._best_path for one in callbacks.callbacks if isinstance(one, EvaluationCallback))
        return self._best_path in kept

    def _refuse_folder(self) -> None:
        if self._best_path is not None and self._best_path.is_dir():
            raise ValueError(
                f"best_path: the folder {self._best_path} given; want the name of a file, e.g. best.trpo in it"
            )

    def _after(self, agent: TRPO) -> int:
        return (agent.num_timesteps // self.every + 1) * self.every

    def _evaluate(self, agent: TRPO) -> None:
        at = f"at {agent.num_timesteps:,} timesteps"
        seed = self._arguments["seed"]
        if seed is None:
            key = [agent.seed, _EVALUATIONS_STREAM, agent.num_updates]
            seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        try:
            result = agent.evaluate(**{**self._arguments, "seed": seed})
        except Exception as error:
            warnings.warn(f"the evaluation {at} failed: {error!r}; the training goes on", stacklevel=2)
            return
        self.results.append((agent.num_timesteps, result))
        if result.mean > self._best:
            self._best = result.mean
            callbacks = agent.callbacks_under_way
            if callbacks is None:
                self._save_best(agent, at, result.mean)
            else:
                callbacks.when_all_have_run(lambda: self._save_best(agent, at, result.mean))

    def _save_best(self, agent: TRPO, at: str, mean: float) -> None:
        if self._best_path is None:
            return
        if not is_in_place(self._best_path, agent):
            if not self._missing:
                warnings.warn(
                    f"{self._best_path.parent} is not there any more, it was renamed or removed: the best model is not "
                    "written until it is back; the training goes on",
                    stacklevel=2,
                )
            self._missing = True
            return
        self._missing = False
        try:
            checkpoint.save(agent, self._best_path, evaluation={"mean": mean})
        except OSError as error:
            warnings.warn(f"the best model, {at}, was not written: {error}; the training goes on", stacklevel=2)


def _evaluated_mean(path: Path) -> float:
    """The mean return that the evaluation of an agent in a file had; -inf where it says none."""
    try:
        evaluation = read_metadata(path).get("evaluation")
    except (OSError, ModelFileError):
        return -math.inf
    mean = evaluation.get("mean") if isinstance(evaluation, dict) else None
    return mean if isinstance(mean, float) and math.isfinite(mean) else -math.inf
