"""Collecting rollouts with the current policy, and turning them into batches.

While stepping, only the policy is needed. Values come afterwards from one batched call in `Collector.finish`, so a
critic may still be fitting the rollout before while this one is collected. For that, two buffers alternate: a batch
stays as it is until `collect` was called twice more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import DTypeLike, NDArray

from trpo_fast._core.rollout import discounted_returns, normalize_advantages
from trpo_fast.environments.acting import RolledOut
from trpo_fast.environments.base import Environments
from trpo_fast.environments.masks import warn_of_unheeded_mask
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.rollout.advantages import AdvantageFunction, AdvantageInputs, estimated_by
from trpo_fast.rollout.batch import Batch, CriticSequences, Sequences
from trpo_fast.rollout.recording import make_recorder
from trpo_fast.state import State

_Final = tuple[int, NDArray[Any], NDArray[np.int64]]  # step, rows, copies

_ACTING_STREAM = 0
_ENVIRONMENT_STREAM = 2


@dataclass(frozen=True)
class Rollout:
    """T steps of E environments. Arrays are views of a buffer that the second `collect` from now overwrites."""

    observations: NDArray[Any]
    """(T, E, D) as the policy saw them: normalized, in its dtype, or bytes of images as they are."""
    actions: NDArray[Any]
    """(T, E, A) as the policy drew them, in its dtype; (T, E) or (T, E, A) int64, counted from 0, where discrete. Of a
    Tuple or Dict all parts in one row of its dtype."""
    log_probs: NDArray[Any]
    """(T, E)"""
    rewards: NDArray[np.float64]
    """(T, E) raw"""
    terminated: NDArray[np.bool_]
    """(T, E)"""
    truncated: NDArray[np.bool_]
    """(T, E)"""
    valid: NDArray[np.bool_]
    """(T, E) False on the dummy row after an episode's end (NEXT_STEP)."""
    value_inputs: NDArray[Any]
    """(T E + E + F, D): the observations, those after the last step, and the F final ones of truncated episodes."""
    final_rows: NDArray[np.int64]
    """(F,) row in (T E) order that each final observation follows."""
    reward_scale: float
    """What rewards are multiplied with, frozen during the rollout."""
    first_step: int
    """Of every environment, counted over the whole training."""
    steps: int
    """Valid transitions."""
    episode_returns: NDArray[np.float64]
    """Sum of raw rewards of every episode that ended in this rollout, in order."""
    episode_lengths: NDArray[np.int64]
    action_masks: NDArray[np.bool_] | None
    """(T, E, K) what was allowed; None where the environments have no masks."""
    sequences: Sequences
    """Which steps start an episode, which are samples, and where a recurrent policy began: its state is (E, 0) of any
    other."""

    @property
    def samples(self) -> NDArray[Any]:
        """(B, D) observations of the rows that are samples."""
        rows = self.sequences.rows
        flat = self.observations.reshape(self.valid.size, -1)
        return flat if rows is None else flat[rows]

    @property
    def critic_sequences(self) -> CriticSequences:
        """What a recurrent critic sees."""
        size = self.valid.size
        return CriticSequences(
            self.value_inputs[:size], self.value_inputs[size:], self.final_rows, self.sequences.starts, self.valid
        )


class AdvantageStatistics(NamedTuple):
    """About one finished rollout, dummy rows left out."""

    explained_variance: float
    """1 - Var(returns - values) / Var(returns); NaN when the returns do not vary."""


class _Buffer:
    def __init__(
        self, steps: int, adapter: Environments, dtype: np.dtype[Any], observation_dtype: np.dtype[Any]
    ) -> None:
        rows = (steps, adapter.num_envs)
        size = steps * adapter.num_envs
        # Room for every step to be truncated; memory that is never written is never really allocated.
        self.inputs = np.empty((2 * size + adapter.num_envs, adapter.observation_size), observation_dtype)
        self.observations = self.inputs[:size].reshape(*rows, adapter.observation_size)
        continuous = adapter.action_dtype.kind == "f"
        self.actions = np.empty((steps, *adapter.action_shape), dtype if continuous else np.int64)
        self.log_probs = np.empty(rows, dtype)
        self.rewards = np.empty(rows)
        self.terminated = np.empty(rows, np.bool_)
        self.truncated = np.empty(rows, np.bool_)
        self.action_masks: NDArray[np.bool_] | None = None  # until the environments are found to have some


class Collector:
    """Steps the environments with a policy.

    Attributes
    ----------
    was_cut : bool
        Whether the episodes of the last rollout were cut, and no others have begun.
    begun_anew : str or None
        Why new episodes began once though those under way could have been gone on with, in this collector or one whose
        state it was given: no training is then the one that did not end.

    Parameters
    ----------
    adapter : Environments
    engine : Engine
        Its policy acts, with the parameters of the moment.
    steps_per_env : int
        T, steps of each environment in a rollout.
    seed : int
        Of the acting noise and of the environments, not negative.
    action_map : str
        How the policy's actions become those of a Box, see `trpo_fast.spaces.resolved_action_map`; a rollout keeps the
        policy's own.
    observation_normalizer : ObservationNormalizer, optional
        Frozen during a rollout; the rollout's raw observations are merged at its end.
    reward_scaler : RewardScaler, optional
        The same, for rewards.
    observation_dtype : dtype, optional
        As what observations are kept and given to the policy and the critic, which must take it: uint8 for images,
        whose every value it holds, is a quarter of the memory. The engine's by default, and with a normalizer.
    """

    def __init__(
        self,
        adapter: Environments,
        engine: Any,
        *,
        steps_per_env: int,
        seed: int,
        action_map: str = "clip",
        observation_normalizer: ObservationNormalizer | None = None,
        reward_scaler: RewardScaler | None = None,
        observation_dtype: DTypeLike | None = None,
    ) -> None:
        if steps_per_env < 1:
            raise ValueError(f"steps_per_env must be at least 1, got {steps_per_env!r}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed!r}")
        normalizer = observation_normalizer
        self._adapter = adapter
        # Where a policy's actions, to the bit, depend on what else is computed with them, all copies are one part.
        self._parts = adapter.parts if engine.rows_independent else (slice(0, adapter.num_envs),)
        self._normalizer = normalizer
        self._scaler = reward_scaler
        self._seed = seed
        self._engine = engine
        self._dtype = np.dtype(engine.dtype)
        self._observation_dtype = self._dtype if observation_dtype is None else np.dtype(observation_dtype)
        if normalizer is not None and self._observation_dtype != self._dtype:
            raise ValueError(
                f"observation_dtype: {self._observation_dtype} given with a normalizer; want None or {self._dtype}"
            )
        acting = {
            "action_map": action_map,
            "observation_mean": None if normalizer is None else normalizer.mean,
            "observation_scale": None if normalizer is None else normalizer.scale,
            "observation_clip": float("inf") if normalizer is None else normalizer.clip,
            "seed": seed,
            "stream": _ACTING_STREAM,
            "narrow": adapter.narrow_acting,
        }
        self._actor = engine.actor(adapter.action_space, **acting)
        same = self._observation_dtype == self._dtype
        self._plan = engine.actor_plan(adapter.action_space, **acting) if same else None
        self._steps_per_env = steps_per_env
        self._buffers = self._make_buffers()
        self._step = 0  # of every environment, over the whole training: the counter of the acting noise
        self._first_step = 0  # of the rollout under way
        self._resets = 0
        # None: the next rollout begins with the episodes that `_episodes` describes, or with a reset.
        self._observations: NDArray[Any] | None = None
        self._episodes: State | None = None  # those under way after the last rollout
        self._inexact = adapter.inexact
        self.begun_anew: str | None = None
        self.was_cut = False
        self._said_begun = False  # that others use the environments, too
        self._was_done = np.zeros(adapter.num_envs, np.bool_)
        self._starts = np.ones(adapter.num_envs, np.bool_)  # which copies start an episode with the next step
        self._state = np.empty((adapter.num_envs, 0), self._dtype)  # of a recurrent policy, before the next step
        self._episode_return = np.zeros(adapter.num_envs)
        self._episode_length = np.zeros(adapter.num_envs)

    @property
    def under_way(self) -> bool:
        """Whether the next rollout goes on with episodes that have begun."""
        return self._observations is not None

    def warm_up(self, steps: int) -> None:
        """Give the statistics a start by `steps` steps of every environment that nothing is learned from.

        Does nothing where there are no statistics to keep.
        """
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps!r}")
        if steps > 0 and (self._normalizer is not None or self._scaler is not None):
            self._fill(self._make_buffer(steps))

    def collect(self) -> Rollout:
        """Step every environment ``steps_per_env`` times, from where the last rollout ended.

        Once more where that one step only reset every environment, so that there is something to learn from.

        An interrupted rollout is dropped, and the next one starts with fresh episodes.

        Raises
        ------
        ValueError
            An observation, reward or action is not finite, or too large for the policy's dtype; names it, the
            environment and the step. Or the policy's parameters are not finite or changed their dtype or number.
        """
        rollout = self._fill(self._buffers[0])
        if rollout.steps == 0:  # one step, in which every environment only reset (NEXT_STEP)
            rollout = self._fill(self._buffers[0])
        self._buffers.reverse()  # not after an interruption: the other buffer may still be learned from
        return rollout

    def cut(self, rollout: Rollout) -> None:
        """Truncate all episodes after the last step of `rollout`, the latest of this collector.

        The critic's value of the last observations stands for the rest. Such episodes do not count among those that
        ended, as their returns are none of whole ones.
        """
        rollout.truncated[-1] |= rollout.valid[-1] & ~rollout.terminated[-1]
        self._observations = self._episodes = None
        self.was_cut = True

    def finish(
        self,
        rollout: Rollout,
        values: Callable[[NDArray[Any]], NDArray[Any]],
        gamma: float,
        gae_lambda: float,
        normalize_advantages: bool,
        estimate: AdvantageFunction | None = None,
    ) -> tuple[Batch, NDArray[Any], AdvantageStatistics]:
        """Estimate advantages and drop the dummy rows.

        Parameters
        ----------
        rollout : Rollout
            From this collector.
        values : callable
            Maps observations ``(N, D)``, as the policy saw them, to values ``(N,)``; called once.
        gamma, gae_lambda : float
            Discount, and GAE's lambda.
        normalize_advantages : bool
            Shift and scale the batch's advantages to mean 0 and standard deviation 1.
        estimate : callable, optional
            ``estimate(inputs) -> (advantages, returns)``, in place of GAE.

        Returns
        -------
        (Batch, returns, AdvantageStatistics)
            ``returns (B,)`` are advantages + values before normalization: the critic's targets, of scaled rewards. The
            batch's arrays are views of the rollout where no row is dropped.

        Raises
        ------
        ValueError
            `values` returned another shape, or something that is not finite; or advantages, or the
            variance of returns, overflow: the largest reward is named. Or `estimate` returned such: it is.
        """
        shape = rollout.rewards.shape
        size, num_envs = rollout.rewards.size, shape[1]
        predicted = np.asarray(values(rollout.value_inputs), dtype=self._dtype)
        if predicted.shape != (len(rollout.value_inputs),):
            raise ValueError(f"values must return shape ({len(rollout.value_inputs)},), got {predicted.shape}")
        if not np.isfinite(predicted).all():
            raise ValueError("values must be finite: the critic's parameters or the observations have gone astray")
        here = predicted[:size]
        # The value one step on: of the row below, at the end of the last observations, or of an episode's final one.
        following = predicted[num_envs : size + num_envs].copy()
        following[rollout.final_rows] = predicted[size + num_envs :]
        inputs = AdvantageInputs(
            rewards=self._learned_rewards(rollout.rewards, rollout.reward_scale),
            values=here.reshape(shape),
            next_values=following.reshape(shape),
            terminated=rollout.terminated,
            truncated=rollout.truncated,
            valid=rollout.valid,
            observations=rollout.observations,
            actions=rollout.actions,
            log_probs=rollout.log_probs,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
        advantages, returns = inputs.gae() if estimate is None else estimated_by(estimate, inputs, rollout.first_step)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.var(returns[rollout.valid], dtype=np.float64)
        if not (np.isfinite(spread) and np.isfinite(advantages[rollout.valid]).all()):
            t, i = _largest(rollout.rewards)
            raise ValueError(
                f"advantages, and the variance of returns, must be finite in {self._dtype}; the largest reward is "
                f"{rollout.rewards[t, i]}, of environment {i} at step {rollout.first_step + t}, and the largest value "
                f"{np.abs(predicted).max()}"
            )
        keep = slice(None) if rollout.steps == size else np.flatnonzero(rollout.valid)
        kept_advantages, kept_returns = advantages.reshape(-1)[keep], returns.reshape(-1)[keep]
        statistics = _statistics(kept_advantages, kept_returns, here[keep], normalize_advantages)
        if self._engine.recurrent:
            # Rows that are no samples stay, in sequences; log-probabilities are those of the batch's one pass.
            whole = np.zeros(size, self._dtype)
            whole[keep] = kept_advantages
            masks = rollout.action_masks
            batch = Batch(
                rollout.observations.reshape(size, -1),
                rollout.actions.reshape(size, *rollout.actions.shape[2:]),
                whole,
                action_masks=None if masks is None else masks.reshape(size, -1),
                sequences=rollout.sequences,
            )
            return batch, kept_returns, statistics
        batch = Batch(
            rollout.observations.reshape(size, -1)[keep],
            rollout.actions.reshape(size, *rollout.actions.shape[2:])[keep],
            kept_advantages,
            rollout.log_probs.reshape(-1)[keep],
            None if rollout.action_masks is None else rollout.action_masks.reshape(size, -1)[keep],
        )
        return batch, kept_returns, statistics

    @property
    def inexact(self) -> str | None:
        """Why episodes under way cannot be gone on with to the bit, here or in another process; None where they can."""
        return self._inexact

    def get_state(self) -> State:
        """All that the next rollout goes on from; the statistics are the normalizers' own.

        ``step`` and ``resets``, counters, and ``episodes``: those under way at the end of the last rollout, None where
        there are none, or they cannot be gone on with. ``begun_anew`` where there is something to say.
        """
        state: State = {"step": self._step, "resets": self._resets, "episodes": self._episodes}
        return state if self.begun_anew is None else {**state, "begun_anew": self.begun_anew}

    def resume(self, state: State) -> None:
        """Go on from the state of another collector, of another process perhaps.

        The noise goes on where it was, and so do the episodes, where the state has them and the environments take them:
        the next rollout looks, and begins new ones where they do not, from seeds that were not used before, with a
        UserWarning that says why.

        ValueError where the counters are missing.
        """
        missing = {"step", "resets"} - set(state)
        if missing:
            raise ValueError(f"state of a collector lacks {sorted(missing)}, got {sorted(state)}")
        self._step, self._resets = int(state["step"]), int(state["resets"])
        self._observations, self._episodes = None, state.get("episodes")
        self.begun_anew = state.get("begun_anew", self.begun_anew)

    def put_back(self, state: State, *, new_episodes: bool = False) -> None:
        """Undo the rollout under way, or those since `state`, which is this collector's own.

        A fit that goes on may still read what those rollouts were written to, so that the next ones are written
        elsewhere. `new_episodes` drops the episodes, too: where one of the environments has raised.
        """
        if new_episodes and state["episodes"] is not None:
            state = {**state, "episodes": None, "begun_anew": "an update raised, so that new episodes began"}
        self.resume(state)
        self._buffers = self._make_buffers()

    def _make_buffers(self) -> list[_Buffer]:
        return [self._make_buffer(self._steps_per_env) for _ in range(2)]

    def _make_buffer(self, steps: int) -> _Buffer:
        return _Buffer(steps, self._adapter, self._dtype, self._observation_dtype)

    def _begin(self) -> NDArray[Any]:
        if self._observations is not None and self._adapter.begun_by_others:
            self._observations = self._episodes = None
            if not self._said_begun:
                self._said_begun = True
                warnings.warn(
                    "env: somebody else, another agent or an evaluation, has begun new episodes in the vector "
                    "environment of this training, which begins new ones, too: those under way are lost whenever they "
                    "take turns; want a vector environment for each",
                    stacklevel=2,
                )
        if self._observations is None and self._episodes is not None:
            self._observations = self._taken_up(self._episodes)
        if self._observations is None:
            if self._resets > 0 and self._inexact is None and self.begun_anew is None:
                self.begun_anew = "the episodes under way were lost, so that new ones began"
            self._episodes = None
            self.was_cut = False
            entropy = np.random.SeedSequence((self._seed, _ENVIRONMENT_STREAM, self._resets))
            # Copies get seed, seed + 1, ...: stay clear of the 32-bit limit that some simulators have.
            seed = int(entropy.generate_state(1)[0]) % (2**31 - self._adapter.num_envs)
            self._resets += 1
            self._observations = self._adapter.reset(seed)
            if self._adapter.action_masks is None:
                warn_of_unheeded_mask(self._adapter.observation_space, self._adapter.action_space)
            self._was_done[...] = False
            self._starts[...] = True
            if self._engine.recurrent:
                self._actor.begin(self._adapter.num_envs)
                self._state = self._actor.state
            self._episode_return[...] = 0.0
            self._episode_length[...] = 0.0
            if self._scaler is not None:
                self._scaler.restart()
        return self._observations

    def _taken_up(self, episodes: State) -> NDArray[Any] | None:
        """The last observations of episodes that the environments are put back into; None, said why, where not."""
        own: dict[str, NDArray[Any]] = {"was_done": self._was_done}
        if "starts" in episodes or self._engine.recurrent:  # older files lack it
            own["starts"] = self._starts = np.array(self._starts)
        own |= {"returns": self._episode_return, "lengths": self._episode_length}
        shape = (self._adapter.num_envs, self._adapter.observation_size)
        try:
            if self._inexact is not None:
                raise ValueError(self._inexact)
            observations = np.array(_array_of(episodes, "observations", shape), self._adapter.observation_dtype)
            kept = {name: _array_of(episodes, name, shape[:1]) for name in own}
            state = self._state
            if self._engine.recurrent:
                self._actor.begin(shape[0])
                state = np.array(_array_of(episodes, "policy_state", self._actor.state.shape), self._dtype)
            sums = None if self._scaler is None else _array_of(episodes, "running_sums", shape[:1])
            self._adapter.set_state(episodes.get("environments"), observations)  # type: ignore[arg-type]
        except ValueError as error:
            if self._inexact is None:
                self.begun_anew = f"{error}, so that new episodes began"
            warnings.warn(f"env: new episodes begin, as those under way are not gone on with: {error}", stacklevel=2)
            return None
        self._state = state
        for name, array in own.items():
            array[...] = kept[name]
        if self._scaler is not None and sums is not None:
            self._scaler.running_sums = sums
        return observations

    def _episodes_under_way(self, last: NDArray[Any], environments: State | None) -> State | None:
        """What `_taken_up` needs; taken now, as only now nothing steps the environments, whose state may be known."""
        if self._inexact is not None:
            return None
        environments = self._adapter.get_state() if environments is None else environments
        if environments is None:
            self._inexact = self._adapter.inexact
            warnings.warn(
                f"env: from a file a training goes on statistically, with new episodes: {self._inexact}", stacklevel=2
            )
            return None
        return {
            **({"policy_state": self._state} if self._engine.recurrent else {}),
            "starts": np.array(self._starts),
            "environments": environments,
            "observations": last,
            "was_done": self._was_done.copy(),
            "returns": self._episode_return.copy(),
            "lengths": self._episode_length.copy(),
            "running_sums": None if self._scaler is None else self._scaler.running_sums,
        }

    def _fill(self, buffer: _Buffer) -> Rollout:
        self._engine.refresh()  # the policy may have been edited since the last rollout
        observations = self._begin()
        self._observations = self._episodes = None  # until all went well
        masks = self._adapter.action_masks
        if masks is not None and buffer.action_masks is None:
            buffer.action_masks = np.empty((len(buffer.rewards), *masks.shape), np.bool_)
        first_step = self._first_step = self._step
        state = self._state
        acted = None
        if self._plan is not None:
            exact = self._inexact is None
            acted = self._adapter.roll_out(self._plan, first_step, len(buffer.rewards), with_state=exact)
        if acted is not None:
            finals, last, raw = self._take(acted, buffer)
        else:
            finals, last, raw = self._step_through(observations, buffer)
        finals.sort(key=lambda final: (final[0], final[2][0]))

        rollout = self._close_rollout(buffer, last, finals, first_step, state)
        if self._scaler is not None:
            try:
                self._scaler.merge(rollout.rewards, rollout.terminated | rollout.truncated, rollout.valid)
            except OverflowError as error:
                raise _too_large("reward", rollout.rewards, first_step, f"the reward scale: {error}") from error
        if self._normalizer is not None and raw is not None:
            try:
                # A selection would be a copy of it all.
                self._normalizer.merge(raw.reshape(-1, raw.shape[-1]) if rollout.valid.all() else raw[rollout.valid])
            except OverflowError as error:
                raise _too_large("observation", raw, first_step, f"its normalization: {error}") from error
        self._episodes = self._episodes_under_way(last, None if acted is None else acted.state)
        self._observations = last
        return rollout

    def _step_through(
        self, observations: NDArray[Any], buffer: _Buffer
    ) -> tuple[list[_Final], NDArray[Any], NDArray[Any] | None]:
        """Act here at every step.

        Returns
        -------
        (list, ndarray (E, D), ndarray (T, E, D) or None)
            Final observations, those after the last step, and all as they came where they count.
        """
        raw = None
        if self._normalizer is not None:
            raw = np.empty(buffer.observations.shape, self._adapter.observation_dtype)
        last = np.empty_like(observations)
        recorders = [self._recorder(buffer, own, raw) for own in self._parts]
        step_all = self._step_together if len(recorders) == 1 else self._step_parts
        return step_all(observations, recorders, buffer, last), last, raw

    def _step_together(
        self, observations: NDArray[Any], recorders: list[Any], buffer: _Buffer, last: NDArray[Any]
    ) -> list[_Final]:
        """Step all copies at once."""
        adapter, own, (recorder,) = self._adapter, self._parts[0], recorders
        finals: list[_Final] = []
        seen = observations
        recurrent, starts, was_done = self._engine.recurrent, self._starts, self._was_done
        for t in range(len(buffer.rewards)):
            if recurrent:
                self._actor.episode_starts = starts
            try:
                env_actions = recorder.act(t, seen, adapter.action_masks)
            except FloatingPointError as error:
                raise self._acting_error(seen, buffer.actions[t, own], own, self._step, error) from error
            seen, rewards, terminated, truncated, final = adapter.step(env_actions)
            recorder.record(t, rewards, terminated, truncated)
            if recurrent:
                starts, was_done = self._next_starts(was_done, terminated | truncated)
            if final is not None:
                finals.append((t, *final))
            self._step += 1
        last[...] = seen
        if recurrent:
            self._state = self._actor.state
        return finals

    def _next_starts(self, was_done: Any, done: Any) -> tuple[Any, Any]:
        """Which copies start an episode after a step in which `done` ended one, and those; `was_done`: before it."""
        return (was_done if self._adapter.autoreset_mode is AutoresetMode.NEXT_STEP else done), done

    def _step_parts(
        self, observations: NDArray[Any], recorders: list[Any], buffer: _Buffer, last: NDArray[Any]
    ) -> list[_Final]:
        """Step every part at its own pace: while this acts for one, the others step, and none waits for another."""
        adapter, first_step, parts = self._adapter, self._first_step, self._parts
        finals: list[_Final] = []
        steps, stepped = len(buffer.rewards), [0] * len(parts)

        def act(part: int, seen: NDArray[Any]) -> None:
            t, own, masks = stepped[part], parts[part], adapter.action_masks
            try:
                env_actions = recorders[part].act(t, seen, None if masks is None else masks[own])
            except FloatingPointError as error:
                raise self._acting_error(seen, buffer.actions[t, own], own, first_step + t, error) from error
            adapter.send(part, env_actions)

        try:
            for part, own in enumerate(parts):
                act(part, observations[own])
            for _ in range(steps * len(parts)):
                part = adapter.next_part()
                seen, rewards, terminated, truncated, final = adapter.receive(part)
                recorders[part].record(stepped[part], rewards, terminated, truncated)
                if final is not None:
                    finals.append((stepped[part], *final))
                stepped[part] += 1
                if stepped[part] < steps:
                    act(part, seen)
                else:
                    last[parts[part]] = seen
        finally:
            self._step = first_step + max(stepped)
        return finals

    def _take(self, acted: RolledOut, buffer: _Buffer) -> tuple[list[_Final], NDArray[Any], NDArray[Any] | None]:
        """As `_step_through`, of what was acted where the environments are."""
        for name in ("observations", "actions", "log_probs", "rewards", "terminated", "truncated", "action_masks"):
            if getattr(buffer, name) is not None:
                getattr(buffer, name)[...] = getattr(acted, name)
        self._step += len(buffer.rewards)
        if acted.failure is not None:
            t, own, words = acted.failure
            self._step = self._first_step + t
            raise self._acting_error(acted.raw[t, own], acted.actions[t, own], own, self._step, words)
        return acted.finals, acted.last.copy(), acted.raw

    def _recorder(self, buffer: _Buffer, own: slice, raw: NDArray[Any] | None) -> Any:
        if self._engine.recurrent:
            self._actor.state = self._state
        return make_recorder(
            self._actor,
            own,
            first_step=self._first_step,
            env_action_dtype=self._adapter.action_dtype,
            observations=buffer.observations,
            actions=buffer.actions,
            log_probs=buffer.log_probs,
            rewards=buffer.rewards,
            terminated=buffer.terminated,
            truncated=buffer.truncated,
            raw=raw,
            action_masks=buffer.action_masks,
        )

    def _acting_error(
        self, observations: NDArray[Any], actions: NDArray[Any], own: slice, step: int, error: Any
    ) -> ValueError:
        """What to raise where the actor found a row of the copies `own` that it cannot act on."""
        bad = _not_finite(observations, self._as_seen(observations))
        if len(bad):
            return self._error("observation", own.start + bad[0], step, observations[bad[0]])
        bad = _not_finite(actions.reshape(len(actions), -1))
        if len(bad):
            return self._error("action", own.start + bad[0], step, actions[bad[0]])
        return ValueError(f"action at step {step} cannot be drawn: {error}")

    def _close_rollout(
        self,
        buffer: _Buffer,
        last: NDArray[Any],
        finals: list[tuple[int, NDArray[Any], NDArray[np.int64]]],
        first_step: int,
        state: NDArray[Any],
    ) -> Rollout:
        """Validate what was collected, add up episodes, add the other observations whose values are needed."""
        num_envs = self._adapter.num_envs
        size = buffer.rewards.size
        done = buffer.terminated | buffer.truncated
        valid = np.ones_like(done)
        ended_before = np.concatenate((self._was_done[None], done[:-1]))
        starts = ended_before.copy()
        if self._adapter.autoreset_mode is AutoresetMode.NEXT_STEP:
            valid = ~ended_before
            buffer.rewards[~valid] = 0.0
            starts[1:] = ended_before[:-1]
        starts[0] = self._starts
        self._starts, _ = self._next_starts(ended_before[-1], done[-1])
        self._was_done[...] = done[-1]

        reward_scale = 1.0 if self._scaler is None else self._scaler.scale
        learned = self._learned_rewards(buffer.rewards, reward_scale)
        if not np.isfinite(buffer.rewards).all() or not np.isfinite(learned).all():
            t, i = np.argwhere(~np.isfinite(buffer.rewards) | ~np.isfinite(learned))[0]
            raise self._error("reward", i, first_step + t, buffer.rewards[t, i])

        inputs = buffer.inputs[: size + num_envs + sum(len(rows) for _, rows, _ in finals)]
        end = size
        for t, rows, indices in ((len(buffer.rewards) - 1, last, np.arange(num_envs)), *finals):
            seen = inputs[end : end + len(rows)]
            seen[...] = self._as_seen(rows)
            end += len(rows)
            bad = _not_finite(rows, seen)
            if len(bad):
                raise self._error("observation", indices[bad[0]], first_step + t + 1, rows[bad[0]])
        final_rows = [t * num_envs + indices for t, _, indices in finals]

        ended = done & valid
        returns = _running_sums(buffer.rewards, done, valid, self._episode_return)
        lengths = _running_sums(np.ones_like(buffer.rewards), done, valid, self._episode_length)
        return Rollout(
            observations=buffer.observations,
            actions=buffer.actions,
            log_probs=buffer.log_probs,
            rewards=buffer.rewards,
            terminated=buffer.terminated,
            truncated=buffer.truncated,
            valid=valid,
            value_inputs=inputs,
            final_rows=np.concatenate(final_rows) if final_rows else np.empty(0, np.int64),
            reward_scale=reward_scale,
            first_step=first_step,
            steps=int(valid.sum()),
            episode_returns=returns[ended],
            episode_lengths=lengths[ended].astype(np.int64),
            action_masks=buffer.action_masks,
            sequences=Sequences(starts, valid, state),
        )

    def _as_seen(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Raw observations as the policy gets them; infinite, without a warning, where they are too large for it."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self._normalizer is None:
                return observations.astype(self._observation_dtype)
            return self._normalizer.normalize(observations, self._dtype)

    def _learned_rewards(self, rewards: NDArray[np.float64], scale: float) -> NDArray[Any]:
        """Raw rewards as advantages are made of; infinite, without a warning, where they are too large for that."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self._scaler is None:
                return rewards.astype(self._dtype)
            return self._scaler.scaled(rewards, scale, self._dtype)

    def _error(self, what: str, environment: Any, step: Any, value: Any) -> ValueError:
        too_large = f" in {self._dtype}" if np.isfinite(value).all() else ""
        return ValueError(
            f"{what} of environment {int(environment)} at step {int(step)} must be finite{too_large}, got {value}"
        )


def _array_of(episodes: State, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of numbers in a description of episodes; ValueError where it is missing, or another."""
    array = episodes.get(name) if isinstance(episodes, dict) else None
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "biuf":
        given = f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "no array"
        raise ValueError(f"{name}: {given} saved; want {shape}")
    return array


def _largest(values: NDArray[Any]) -> tuple[int, int]:
    """Step and environment of the largest of `values` ``(T, E)`` or ``(T, E, D)``, without its sign."""
    t, i = np.unravel_index(np.argmax(np.abs(values)), values.shape)[:2]
    return int(t), int(i)


def _too_large(what: str, values: NDArray[Any], first_step: int, whom: str) -> ValueError:
    """Names the largest of `values` ``(T, E)`` or ``(T, E, D)``."""
    t, i = _largest(values)
    return ValueError(f"{what} of environment {i} at step {first_step + t}, {values[t, i]}, is too large for {whom}")


def _not_finite(*arrays: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of the rows where one of the arrays ``(N, D)`` is not finite."""
    return np.flatnonzero(~np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays]))


def _running_sums(
    amounts: NDArray[np.float64], done: NDArray[np.bool_], valid: NDArray[np.bool_], carry: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums since each episode's start, ``(T, E)``; `carry` (E,) holds those of unfinished episodes between rollouts."""
    sums = np.empty_like(amounts)
    discounted_returns(amounts, done, valid, carry, sums, gamma=1.0)
    return sums


def _statistics(
    advantages: NDArray[Any], returns: NDArray[Any], values: NDArray[Any], normalize: bool
) -> AdvantageStatistics:
    """Describe the values' fit, and normalize the advantages in place when asked."""
    variance = float(np.var(returns, dtype=np.float64))
    residual = float(np.var(returns - values, dtype=np.float64))
    explained = 1.0 - residual / variance if variance > 0 else float("nan")
    if normalize:
        normalize_advantages(advantages)
    return AdvantageStatistics(explained)
