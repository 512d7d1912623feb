"""What looks wrong in a run's log, in words: a table of symptoms with their causes and cures. NumPy only.

A symptom is a test on the rows of ``progress.csv``, which answers in words with the numbers that it found, or not at
all. Its limits lie outside what the runs behind docs/learning.md and docs/recurrent.md had while they learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast.solvers.status import Status

Numbers = NDArray[np.float64]

FEWEST_ROWS = 5
"""With fewer updates nothing is said of how they went."""
MANY_ROWS = 30
"""From so many on a return that has not risen is a symptom."""
LARGE_KL = 0.2
"""A max_kl of several times what published results use."""


@dataclass(frozen=True)
class Log:
    """A run's log as the symptoms read it.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (rows,)
        As :func:`trpo_fast.progress.as_columns` has it, NaN where there is no number.
    error : str, optional
        What ended the training, where it failed.
    """

    columns: Mapping[str, Numbers]
    error: str | None = None

    @property
    def rows(self) -> int:
        """Updates that have a row."""
        return max(map(len, self.columns.values()), default=0)

    def __getitem__(self, name: str) -> Numbers:
        """A column, of NaN alone where the log has none of that name."""
        return self.columns.get(name, np.full(self.rows, np.nan))

    def known(self, name: str) -> Numbers:
        """The numbers of a column without NaN."""
        values = self[name]
        return values[~np.isnan(values)]

    @property
    def returns(self) -> Numbers:
        """The mean return after each update in which an episode ended: of the others it is that of before."""
        values = self["rollout/ep_rew_mean"]
        ended = np.diff(self.columns.get("rollout/episodes", np.arange(self.rows)), prepend=np.nan) != 0
        return values[ended & ~np.isnan(values)]

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Updates whose step was taken, shape (rows,)."""
        return self["train/status"] == Status.SUCCESS

    def ended_with(self, status: Status) -> float:
        """Part of the updates whose step ended so; 0 where nothing is known of any."""
        known = self.known("train/status")
        return float(np.mean(known == status)) if len(known) else 0.0


class Symptom(NamedTuple):
    """One line of the table."""

    name: str
    found: Callable[[Log], str | None]  # what the rows say, with numbers; None where they do not
    cause: str
    cures: Sequence[str]


class Finding(NamedTuple):
    """A symptom that a log has."""

    symptom: Symptom
    words: str


def diagnose(log: Log) -> list[Finding]:
    """The symptoms of a log, in the order of the table; none of a healthy run."""
    answers = [(symptom, symptom.found(log)) for symptom in SYMPTOMS]
    return [Finding(symptom, words) for symptom, words in answers if words is not None]


def _failed(log: Log) -> str | None:
    return None if log.error is None else f"The training ended with: {log.error}"


def _no_episode_ends(log: Log) -> str | None:
    steps = log.known("time/total_timesteps")
    if log.rows < FEWEST_ROWS or len(log.known("rollout/ep_rew_mean")) or not len(steps):
        return None
    return f"No episode has ended in {steps[-1]:,.0f} timesteps."


def _same_returns(log: Log) -> str | None:
    returns = log.returns
    if len(returns) < FEWEST_ROWS or np.ptp(returns) > 1e-9 * abs(returns[0]):
        return None
    return f"Every episode of {len(returns)} updates returned {returns[0]:,.4g}."


def _no_rise(log: Log) -> str | None:
    returns = log.returns
    if len(returns) < MANY_ROWS or _same_returns(log):
        return None
    first, last = np.median(returns[:5]), np.median(returns[-5:])
    if last > first + 0.02 * abs(first):
        return None
    return f"The mean return was {first:,.4g} at the beginning and is {last:,.4g} after {log.rows} updates."


def _fall(log: Log) -> str | None:
    returns = log.returns
    if len(returns) < 2 * FEWEST_ROWS:
        return None
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(returns, FEWEST_ROWS), axis=1)
    first, last, best = smooth[0], smooth[-1], smooth.max()
    noise = np.median(np.abs(np.diff(returns)))
    has_risen, has_fallen = best > first + 0.25 * abs(first), best - last > max(0.5 * (best - first), 8 * noise)
    if not (has_risen and has_fallen):
        return None
    return f"The mean return rose from {first:,.4g} to {best:,.4g} and is {last:,.4g} now."


def _rejected(status: Status, least: float, words: str) -> Callable[[Log], str | None]:
    """A test of how large a part of the updates ended with a status."""

    def found(log: Log) -> str | None:
        part = log.ended_with(status)
        few = log.rows < FEWEST_ROWS and least > 0
        return None if few or part <= least else f"{words} in {part:.0%} of {log.rows} updates ({status.name})."

    return found


def _outside(log: Log) -> str | None:
    beyond = (log["train/kl_divergence_loss"] > 1.01 * log["train/max_kl"])[log.accepted]
    if len(beyond) < FEWEST_ROWS or beyond.mean() <= 0.2:
        return None
    return f"The KL of {beyond.mean():.0%} of the accepted steps is larger than max_kl."


def _backtracks(log: Log) -> str | None:
    backtracks = log["train/backtracks"][log.accepted]
    if len(backtracks) < FEWEST_ROWS or not np.median(backtracks) >= 4:
        return None
    return f"Half of the accepted steps were cut {np.median(backtracks):.0f} times or more by the line search."


def _short_steps(log: Log) -> str | None:
    part = (log["train/kl_divergence_loss"] / log["train/max_kl"])[log.accepted]
    part = part[~np.isnan(part)]
    is_large = (log["train/max_kl"] >= LARGE_KL).any()  # more than a policy can be away from another
    if len(part) < FEWEST_ROWS or np.median(part) >= 0.2 or _backtracks(log) or is_large:
        return None
    return f"Half of the accepted steps have a KL below {np.median(part):.2g} of max_kl, without being cut."


def _small_region(log: Log) -> str | None:
    bounds = log.known("train/max_kl")
    if len(bounds) < FEWEST_ROWS or bounds.max() >= 2e-4:
        return None
    return f"max_kl is {bounds.max():.2g}: the policy hardly moves in an update."


def _large_region(log: Log) -> str | None:
    bounds = log.known("train/max_kl")
    if len(bounds) < FEWEST_ROWS or bounds.max() < LARGE_KL:
        return None
    predicted = log["train/predicted_objective"][log.accepted]
    ratio = log["train/policy_objective"][log.accepted] / np.where(predicted == 0, np.nan, predicted)
    kept = np.nanmedian(ratio) if len(ratio) and not np.isnan(ratio).all() else 0.0
    if kept >= 0.5 and log.accepted.mean() >= 0.9 and not (_fall(log) or _no_rise(log)):
        return None
    return (
        f"max_kl is {bounds.max():.2g}, and the accepted steps kept {kept:.0%} of the improvement that their "
        f"gradient promised; {1 - log.accepted.mean():.0%} of the updates were rejected."
    )


def _unsolved(log: Log) -> str | None:
    residuals = log["train/cg_residual"][log["train/cg_status"] == Status.ITERATION_LIMIT]
    if len(residuals) < FEWEST_ROWS or not np.median(residuals) > 0.95:
        return None
    iterations = np.median(log.known("train/cg_iterations"))
    return f"After {iterations:.0f} products the residual of the solve is {np.median(residuals):.2g} of the gradient."


def _swamped(log: Log) -> str | None:
    status, iterations = log["train/cg_status"], log["train/cg_iterations"]
    solved = (status != Status.ITERATION_LIMIT) & (status >= 0) & (status != Status.NO_GRADIENT) & (iterations <= 3)
    if log.rows < FEWEST_ROWS or solved.mean() < 0.5:
        return None
    return f"The solve was done after three products or fewer in {solved.mean():.0%} of the updates."


def _late_fit(log: Log) -> tuple[float, str] | None:
    """Explained variance of the second half, and the same in words, where the critic's loss has not become small."""
    variance, losses = log.known("train/explained_variance"), log.known("train/value_loss")
    if len(variance) < 2 * FEWEST_ROWS or len(losses) < 2 * FEWEST_ROWS:
        return None
    late, loss = np.median(variance[len(variance) // 2 :]), np.median(losses[len(losses) // 2 :])
    # Where all returns are alike, as CartPole's are in the end, little is left to explain.
    if loss < 0.1 * np.median(losses[1 : 2 * FEWEST_ROWS]):  # the first is of rewards that had no scale yet
        return None
    return float(late), f"The critic explained {late:.2g} of the variance of the returns (median of the second half)."


def _worse_than_mean(log: Log) -> str | None:
    late = _late_fit(log)
    return late[1] if late is not None and late[0] < -0.05 else None


def _explains_nothing(log: Log) -> str | None:
    late = _late_fit(log)
    return late[1] if late is not None and -0.05 <= late[0] < 0.05 else None


def _no_fit(log: Log) -> str | None:
    lost = np.isnan(log["train/value_loss"]) & ~np.isnan(log["timings/critic_fit"])
    return f"The critic's fit was not finite in {lost.sum()} of {log.rows} updates." if lost.any() else None


def _no_exploration(log: Log) -> str | None:
    deviations = log.known("train/std")
    if len(deviations) < FEWEST_ROWS or deviations[0] >= 0.03:
        return None
    return f"The standard deviation of the actions was {deviations[0]:.2g} at the beginning."


def _lost_exploration(log: Log) -> str | None:
    returns = log.returns
    if len(returns) < 2 * FEWEST_ROWS:
        return None
    if np.median(returns[-3:]) > returns.max() - 0.2 * (returns.max() - np.median(returns[:3])):
        return None  # it knows what it is to do
    deviations, entropies = log.known("train/std"), -log.known("train/entropy_loss")
    if len(deviations) and deviations[0] >= 0.03 and deviations[-1] < 0.03:
        return f"The standard deviation of the actions fell from {deviations[0]:.2g} to {deviations[-1]:.2g}."
    if not len(deviations) and len(entropies) and 0 < entropies[-1] < 0.03 * entropies[0]:
        return f"The policy's entropy fell from {entropies[0]:.2g} to {entropies[-1]:.2g} nats."
    return None


def _growing_noise(log: Log) -> str | None:
    deviations = log.known("train/std")
    if len(deviations) < 2 * FEWEST_ROWS or deviations[-1] < 2 * deviations[0]:
        return None
    return f"The standard deviation of the actions grew from {deviations[0]:.2g} to {deviations[-1]:.2g}."


SYMPTOMS: Sequence[Symptom] = (
    Symptom(
        "The training failed",
        _failed,
        "An exception ended it: of the environment, or because an observation or reward was not finite.",
        (
            "Mend what the message names; rewards and observations that are NaN or infinite come from a division by 0, "
            "a "
            "logarithm of 0, or a simulation that blew up: look at the environment's step at that moment.",
            "Then go on with trpo-fast train --resume RUN; where the rewards themselves were wrong, begin anew.",
        ),
    ),
    Symptom(
        "No episode ends",
        _no_episode_ends,
        "The environment neither terminates nor truncates, or its episodes are longer than what was trained so far.",
        (
            "Limit the episodes: gymnasium.wrappers.TimeLimit, or max_episode_steps where the id is registered.",
            "Where the task has no end, read the explained variance and the objective instead of the return.",
        ),
    ),
    Symptom(
        "Every episode returns the same",
        _same_returns,
        "The policy has never met a reward that tells one action from another: it is too rare for random actions to "
        "find, "
        "or the environment does not give it.",
        (
            "Play a random episode and print its rewards: is there any that depends on the action?",
            "Make the reward less sparse, begin episodes nearer to it, or explore longer: a larger log_std_init, an "
            "entropy_coefficient of 0.01, more num_envs.",
        ),
    ),
    Symptom(
        "The return does not rise",
        _no_rise,
        "The updates do not improve what is measured. Other symptoms here may say why; else the batches are too noisy, "
        "the "
        "observation does not say what is needed, or the reward is not what the actions decide.",
        (
            "A larger batch: twice the steps_per_env or num_envs.",
            "Another seed: what fails on one may learn on the others.",
            "Where the observation hides something, a recurrent policy (policy gru) or stacked frames.",
        ),
    ),
    Symptom(
        "The return fell",
        _fall,
        "Steps too large for the batch, or a policy that met states it had not seen.",
        (
            "A smaller max_kl, or max_kl_schedule linear where it is constant, so that late steps are small.",
            "A larger batch: twice the steps_per_env.",
            "checkpoints/best.trpo is the policy from before the fall.",
        ),
    ),
    Symptom(
        "The line search ends outside the trust region",
        _rejected(Status.KL_VIOLATED, 0.2, "Even the shortest trial had a KL above max_kl"),
        "The quadratic model of the KL holds for shorter steps only than those that were tried; such updates change "
        "nothing.",
        (
            "A smaller max_kl, where the model is better.",
            "More max_backtracks: 10 of backtrack_factor 0.8 reach a tenth of the step, 0 tries the full step alone.",
            "More damping, where the Fisher matrix is nearly singular.",
        ),
    ),
    Symptom(
        "The line search finds no improvement",
        _rejected(Status.NO_IMPROVEMENT, 0.2, "No trial improved the surrogate objective"),
        "The direction does not point uphill: a solve that stopped too early, advantages that are noise, or a trust "
        "region "
        "beyond which the gradient says nothing.",
        (
            "A larger batch, or fewer parameters.",
            "More cg_iterations, or preconditioner kfac; more damping.",
            "A smaller max_kl, more max_backtracks.",
        ),
    ),
    Symptom(
        "There is no gradient",
        _rejected(Status.NO_GRADIENT, 0.2, "The gradient of the objective was zero"),
        "All advantages are the same: no reward was seen, or the critic and the returns agree to the last digit.",
        (
            "See that the environment gives rewards that depend on the actions.",
            "Where the task is solved, nothing is left to do.",
        ),
    ),
    Symptom(
        "Numbers of an update were not finite",
        _rejected(Status.NON_FINITE, 0.0, "An infinity or NaN appeared"),
        "Observations or rewards of enormous size, or a policy of your own whose derivatives are not finite; such "
        "updates "
        "change nothing.",
        (
            "normalize_observations and scale_rewards, with observation_clip and reward_clip of 10.",
            "A smaller log_std_init or log_std_limit; dtype float64 to see whether it is a matter of range.",
            "Of a policy of your own: trpo_fast.make_engine(policy) looks at its derivatives.",
        ),
    ),
    Symptom(
        "The Fisher matrix is not positive definite",
        _rejected(Status.NOT_POSITIVE_DEFINITE, 0.1, "The solve met a direction of negative curvature"),
        "Rounding, with a damping near 0; or a policy or preconditioner of your own whose products are wrong.",
        ("More damping (0.1).", "dtype float64.", "Plain CG: preconditioner none."),
    ),
    Symptom(
        "The direction has no curvature",
        _rejected(Status.NO_CURVATURE, 0.1, "The direction has no length"),
        "The distribution does not change along the direction: saturated units, a squashed Gaussian on its sides, or "
        "so much "
        "damping that the solve rounds it away.",
        (
            "Less damping: 0.1, the default.",
            "normalize_observations, so that inputs are of size 1.",
            "A smaller log_std_init.",
        ),
    ),
    Symptom(
        "A condition of yours refuses the steps",
        _rejected(Status.CONDITION_VIOLATED, 0.2, "The condition refused every trial within the trust region"),
        "The condition that was given with the step leaves no room: its bound may be violated already.",
        ("See docs/building.md, on what to do where a bound is violated before the step.",),
    ),
    Symptom(
        "Steps leave the trust region",
        _outside,
        "Nothing holds the bound: line_search is off, or a step of your own takes them.",
        ("line_search true.", "A smaller max_kl, where it has to be off."),
    ),
    Symptom(
        "The line search cuts most steps",
        _backtracks,
        "The quadratic model promises more than there is: max_kl is large for this policy, or the solve is poor.",
        (
            "A smaller max_kl.",
            "More cg_iterations or more damping: directions that the samples say nothing about make KL grow.",
        ),
    ),
    Symptom(
        "Steps fall short of the trust region",
        _short_steps,
        "The length of the step counts the damping as curvature (step_curvature damped), and the damping is larger.",
        ("step_curvature fisher, which aims at max_kl.", "Less damping (0.1)."),
    ),
    Symptom(
        "The trust region is tiny",
        _small_region,
        "max_kl is far below the 0.01 to 0.05 that published results use, and the 0.06 that the default falls from.",
        ("max_kl 0.06, the default.",),
    ),
    Symptom(
        "The trust region is too large",
        _large_region,
        "Within such a KL the samples of the old policy say little about the new one.",
        ("max_kl 0.06, the default; up to 0.1 where the task is easy.",),
    ),
    Symptom(
        "The solve is far from done",
        _unsolved,
        "Too few products for the condition of F + damping I, so that the direction is little else than the gradient.",
        (
            "More cg_iterations (10), or preconditioner kfac with 5.",
            "More damping, which improves the condition.",
        ),
    ),
    Symptom(
        "Damping outweighs the curvature",
        _swamped,
        "F + damping I is nearly a multiple of I: the direction is the plain gradient, and what the Fisher matrix "
        "knows is "
        "lost.",
        ("Less damping: 0.1, the default, or less.",),
    ),
    Symptom(
        "The critic is worse than the mean",
        _worse_than_mean,
        "Explained variance below 0: the values are further from the returns than their mean is, so that advantages "
        "are "
        "noisier than without a critic.",
        (
            "A smaller critic_learning_rate where its loss jumps (1e-3), more critic_epochs where it falls slowly.",
            "scale_rewards true, where it is not, so that returns are of size 1.",
            "A larger critic (critic_hidden_sizes 64,64), a larger batch.",
        ),
    ),
    Symptom(
        "The critic explains nothing",
        _explains_nothing,
        "Explained variance about 0: what is observed does not tell how much will be won, or the critic hardly learns.",
        (
            "critic_learning_rate 1e-3 and critic_epochs as by default.",
            "Where the observation hides something, a recurrent policy (policy gru) or stacked frames.",
            "A gamma nearer to 1 where rewards come late, nearer to 0.9 where they come at once.",
        ),
    ),
    Symptom(
        "The critic's fit was not finite",
        _no_fit,
        "Adam's steps are too large, or returns are of enormous size; such fits are dropped.",
        ("A smaller critic_learning_rate (1e-3).", "scale_rewards true, where it is not, with a reward_clip of 10."),
    ),
    Symptom(
        "The policy does not explore",
        _no_exploration,
        "log_std_init is very low: all actions are the same, and a step within max_kl can hardly change them.",
        ("log_std_init -1, the default, or 0 where the task needs large actions.",),
    ),
    Symptom(
        "Exploration ended too early",
        _lost_exploration,
        "The policy became nearly deterministic before it had found the way to high returns.",
        (
            "More relative_damping (0.1, or 0.3), which slows the fall of a small standard deviation.",
            "An entropy_coefficient of 0.001 to 0.01.",
            "A smaller max_kl or a larger batch, so that chance decides less.",
            "Another seed.",
        ),
    ),
    Symptom(
        "The noise of the actions grows",
        _growing_noise,
        "Entropy is paid for more than reward, or actions are clipped so that their size does not matter.",
        (
            "A smaller entropy_coefficient (0).",
            "A smaller log_std_limit; action_map affine, where actions reach beyond their box.",
        ),
    ),
)
