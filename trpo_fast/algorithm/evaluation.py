"""Whole episodes in environments of their own, without touching the training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trpo_fast import streams
from trpo_fast.algorithm.acting import AgentActor
from trpo_fast.algorithm.config import POSITIVE_INTEGER, seed_or_drawn
from trpo_fast.environments.base import Environments
from trpo_fast.gymnasium_spaces import observation_size
from trpo_fast.settings import FLAG, POSITIVE_COUNT, checked

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

OWN_ENVIRONMENT = (
    "env: it is the vector environment of the training, whose episodes would be cut; want another one, or "
    "agent.close() before, after which the training goes on with new episodes"
)


class EvaluationResult(NamedTuple):
    """Undiscounted episode returns in the environment's unit."""

    mean: float  # of all returns, those of unfinished episodes included
    std: float
    returns: NDArray[np.float64]  # (episodes,) grouped by environment, each in the order played
    lengths: NDArray[np.int64]  # (episodes,) steps
    finished: NDArray[np.bool_]  # (episodes,) False where an episode was left at `max_steps`: its return until then

    @property
    def unfinished(self) -> int:
        """Number of episodes that were left before their end."""
        return int((~self.finished).sum())


def evaluate(
    agent: TRPO,
    episodes: Any,
    deterministic: bool,
    seed: int | None,
    env: Any,
    max_steps: Any,
    progress_bar: bool = False,
    *,
    copies: int | None = None,
) -> EvaluationResult:
    """As :meth:`TRPO.evaluate` says; in at most so many copies as the training has, or in ``copies``."""
    episodes = checked("episodes", episodes, POSITIVE_COUNT)
    limit = agent.config.evaluation_max_steps if max_steps is None else max_steps
    limit = checked("max_steps", limit, POSITIVE_INTEGER)
    checked("progress_bar", progress_bar, FLAG)
    seed = agent.seed if seed is None else seed_or_drawn(seed)
    training = agent.training_environments
    if training.steps_in(env):
        raise ValueError(OWN_ENVIRONMENT)
    count = copies or min(episodes, agent.num_envs)
    # Not the seed itself: the training's environments may have been seeded with it.
    first = int(np.random.SeedSequence([seed, streams.EVALUATION]).generate_state(1)[0])
    environments = training.apart(env, count, first % (2**31 - count))
    try:
        actor = agent.make_actor(seed, streams.EVALUATION, narrow=environments.narrow_acting)
        # Copies get first, first + 1, ...: stay clear of the 32-bit limit that some simulators have.
        first %= 2**31 - environments.num_envs
        # None: where stderr is a terminal.
        hidden = None if progress_bar else True
        with tqdm(total=episodes, desc="evaluating", unit="episode", leave=False, disable=hidden) as bar:
            result = play_episodes(
                *(environments, actor, episodes),
                deterministic=deterministic,
                seed=first,
                max_steps=limit,
                on_episode=bar.update,
            )
    finally:
        environments.close()
    if result.unfinished:
        warnings.warn(
            f"evaluate: {result.unfinished} of {episodes} episodes had not ended after {limit:,} steps and count "
            "with their return until then (max_steps)",
            stacklevel=3,
        )
    return result


def require_deterministic_actions(agent: TRPO) -> None:
    """ValueError where the policy, one of the user's own, returns a distribution without a mode."""
    if agent.networks.own["policy"] is not None:
        actor = agent.make_actor(agent.seed, streams.EVALUATION)
        actor.act(np.zeros((1, observation_size(agent.observation_space))), 0, deterministic=True)


def play_episodes(
    environments: Environments,
    actor: AgentActor,
    episodes: int,
    *,
    deterministic: bool,
    seed: int,
    max_steps: int,
    on_episode: Callable[[], object] = lambda: None,
) -> EvaluationResult:
    """Play ``episodes`` episodes and stop; `on_episode` is called after each.

    Every environment has a quota fixed beforehand: taking the first episodes to finish would take too many short ones.
    An episode that has not ended after ``max_steps`` steps is left there. Its environment cannot be reset without the
    others, so what remains of its quota is played after the others have played theirs, from a new reset of all.

    Raises ValueError where a reward, a return, or the mean or standard deviation of the returns is not finite; the
    first two name the environment and its step.
    """
    count = environments.num_envs
    quota = (episodes + np.arange(count)) // count
    played: list[list[tuple[float, int, bool]]] = [[] for _ in range(count)]
    missing = quota.copy()
    first = seed
    step = 0
    while missing.any():
        step = _play_until_left(environments, actor, played, missing, first, step, deterministic, max_steps, on_episode)
        first = (first + count) % (2**31 - count)  # seeds that no environment has had
    all_returns, all_lengths, finished = map(np.array, zip(*(one for group in played for one in group), strict=True))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(all_returns.mean()), float(all_returns.std())
    if not (math.isfinite(mean) and math.isfinite(std)):
        largest = float(np.abs(all_returns).max())
        raise ValueError(
            f"mean and std of the returns: {mean} and {std} given; want finite ones: "
            f"returns of size {largest} are too large"
        )
    return EvaluationResult(mean, std, all_returns, all_lengths, finished)


def _play_until_left(
    environments: Environments,
    actor: AgentActor,
    played: list[list[tuple[float, int, bool]]],
    missing: NDArray[np.int64],
    seed: int,
    step: int,
    deterministic: bool,
    max_steps: int,
    on_episode: Callable[[], object],
) -> int:
    """Play from a reset until every environment has its quota, or is left in an episode that does not end.

    Parameters
    ----------
    played : OUT
        (return, steps, whether it ended) of each environment's episodes; those of this round are appended.
    missing : IN and OUT, shape (E,)
        Episodes that each environment still has to play.
    step : int
        Vector steps of this evaluation so far: the counter of the noise.

    Returns
    -------
    int
        `step` with those of this round.
    """
    count = environments.num_envs
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    has_reset_rows = environments.autoreset_mode == gym.vector.AutoresetMode.NEXT_STEP
    is_reset_row = np.zeros(count, bool)
    plays = missing > 0
    observations = environments.reset(seed)
    state, starts = None, np.ones(count, np.bool_)  # of a recurrent policy
    while plays.any():
        actions = actor.act(
            observations,
            step,
            deterministic=deterministic,
            action_masks=environments.action_masks,
            state=state,
            episode_starts=starts,
        )
        state = actor.state
        result = environments.step(actions)
        rewards = np.where(is_reset_row, 0.0, result.rewards)
        _require_finite("reward", rewards, step)
        with np.errstate(over="ignore"):
            returns += rewards
        _require_finite("return", returns, step)
        lengths += ~is_reset_row
        ended = (result.terminated | result.truncated) & ~is_reset_row
        left = plays & ~ended & (lengths >= max_steps)
        for i in np.flatnonzero(ended | left):
            if plays[i]:
                played[i].append((float(returns[i]), int(lengths[i]), bool(ended[i])))
                missing[i] -= 1
                on_episode()
            returns[i], lengths[i] = 0.0, 0
        plays &= (missing > 0) & ~left
        starts = ended
        if has_reset_rows:
            starts, is_reset_row = is_reset_row, ended
        observations = result.observations
        step += 1
    return step


def _require_finite(what: str, values: NDArray[np.float64], step: int) -> None:
    if not np.isfinite(values).all():
        i = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(f"{what} of environment {i} at step {step}: {values[i]} given; want a finite number")
