"""Collecting rollouts with the current policy.

While stepping, only the policy is needed. Values come afterwards from one batched call in `Finisher.finish`, so a
critic may still be fitting the rollout before while this one is collected. For that, two buffers alternate: a rollout,
and the batch made of it, stays as it is until `collect` was called twice more.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import DTypeLike, NDArray

from trpo_fast import streams
from trpo_fast._core.library import in_words
from trpo_fast._core.rollout import discounted_returns
from trpo_fast.environments.acting import RolledOut
from trpo_fast.environments.base import Environments
from trpo_fast.environments.copies import copies_in
from trpo_fast.environments.masks import warn_of_unheeded_mask
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.ranks import Ranks, share_of
from trpo_fast.rollout.batch import Sequences
from trpo_fast.rollout.exchange import exchange
from trpo_fast.rollout.finishing import Finisher, largest
from trpo_fast.rollout.recording import make_recorder
from trpo_fast.rollout.rollout import Buffer, Rollout
from trpo_fast.state import State

_Final = tuple[int, NDArray[Any], NDArray[np.int64]]  # step, rows, copies


class _Acted(NamedTuple):
    """What a rollout left beside what is in its buffer."""

    finals: list[_Final]
    last: NDArray[Any]  # (E, D) observations after the last step
    raw: NDArray[Any] | None  # (T, E, D) as they came, where they count
    environments: State | None  # where they stand, if that is known


class Collector:
    """Steps the environments with a policy.

    Attributes
    ----------
    finisher : Finisher
        Makes batches of its rollouts.
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
    ranks : Ranks, optional
        Of which each steps copies of its own, `adapter`'s: a rollout is that of all ranks, copies of rank 0 first.
    learned_parts : int
        Of several ranks, parts of equally many of this one's copies, in whose order its batches are.
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
        ranks: Ranks | None = None,
        learned_parts: int = 1,
    ) -> None:
        if steps_per_env < 1:
            raise ValueError(f"steps_per_env: {in_words(steps_per_env)} given; want at least 1")
        if seed < 0:
            raise ValueError(f"seed: {in_words(seed)} given; want 0 or more")
        normalizer = observation_normalizer
        self._adapter = adapter
        self._ranks = ranks
        self._num_envs = adapter.num_envs * (1 if self._ranks is None else self._ranks.size)
        self._own = share_of(self._ranks, self._num_envs)
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
            "stream": streams.ACTING,
            "narrow": adapter.narrow_acting,
        }
        self._actor = engine.actor(adapter.action_space, **acting)
        same = self._observation_dtype == self._dtype
        plan = engine.actor_plan(adapter.action_space, **acting) if same else None
        self._plan = None if plan is None else replace(plan, first_copy=self._own.start)
        self.finisher = Finisher(
            self._dtype,
            reward_scaler=reward_scaler,
            recurrent=engine.recurrent,
            own=self._own,
            learned_parts=None if ranks is None else learned_parts,
        )
        self._steps_per_env = steps_per_env
        self._buffers = self._make_buffers()
        self._acted_in: Buffer | None = None  # this rank's own part, where there are several
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
        self._was_done = np.zeros(self._num_envs, np.bool_)
        self._starts = np.ones(self._num_envs, np.bool_)  # which copies start an episode with the next step
        self._state = np.empty((self._num_envs, 0), self._dtype)  # of a recurrent policy, before the next step
        self._episode_return = np.zeros(self._num_envs)
        self._episode_length = np.zeros(self._num_envs)

    @property
    def under_way(self) -> bool:
        """Whether the next rollout goes on with episodes that have begun."""
        return self._observations is not None

    @property
    def next_seed(self) -> int:
        """What the environments are reset with when new episodes begin the next time."""
        entropy = np.random.SeedSequence((self._seed, streams.ENVIRONMENTS, self._resets))
        # Copies get seed, seed + 1, ...: stay clear of the 32-bit limit that some simulators have.
        return int(entropy.generate_state(1)[0]) % (2**31 - self._num_envs) + self._own.start

    def warm_up(self, steps: int) -> None:
        """Give the statistics a start by `steps` steps of every environment that nothing is learned from.

        Does nothing where there are no statistics to keep.
        """
        if steps < 0:
            raise ValueError(f"steps: {in_words(steps)} given; want 0 or more")
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
        shares = rollout.valid.reshape(len(rollout.valid), -1, self._adapter.num_envs).any((0, 2))
        if not shares.all():
            raise ValueError(
                f"steps_per_env: {self._steps_per_env} given; want more, or fewer ranks: no step of rank "
                f"{np.flatnonzero(~shares)[0]} is a sample, as all its environments only reset"
            )
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
            raise ValueError(f"state of a collector: {sorted(state)} given; want {sorted(missing)}, too")
        self._step, self._resets = int(state["step"]), int(state["resets"])
        self._observations, self._episodes = None, state.get("episodes")
        self.begun_anew = state.get("begun_anew", self.begun_anew)

    def put_back(self, state: State, *, new_episodes: bool = False) -> None:
        """Undo the rollout under way, or those since `state`, which is this collector's own.

        A fit that goes on may still read what those rollouts were written to, so that the next ones are written
        elsewhere. `new_episodes` drops the episodes, too, where one of the environments has raised: the next ones begin
        from seeds that were not used before, those since `state` included.
        """
        self.resume(with_new_episodes(state, self._resets) if new_episodes else state)
        self._buffers = self._make_buffers()

    def _make_buffers(self) -> list[Buffer]:
        return [self._make_buffer(self._steps_per_env) for _ in range(2)]

    def _make_buffer(self, steps: int) -> Buffer:
        return Buffer(steps, self._num_envs, self._adapter, self._dtype, self._observation_dtype)

    def _begin(self) -> NDArray[Any]:
        if self._observations is not None and self._begun_by_others():
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
            seed = self.next_seed
            self._resets += 1
            self._observations = self._adapter.reset(seed)
            if self._ranks is not None:
                masked = self._adapter.action_masks is not None
                if self._ranks.any(masked) and not masked:
                    self._adapter.expect_masks()
            if self._adapter.action_masks is None:
                warn_of_unheeded_mask(self._adapter.observation_space, self._adapter.action_space)
            self._was_done[...] = False
            self._starts[...] = True
            if self._engine.recurrent:
                self._actor.begin(self._adapter.num_envs)
                self._state = np.resize(self._actor.state, (self._num_envs, self._actor.state.shape[1]))
            self._episode_return[...] = 0.0
            self._episode_length[...] = 0.0
            if self._scaler is not None:
                self._scaler.restart()
        return self._observations

    def _begun_by_others(self) -> bool:
        begun = self._adapter.begun_by_others
        if self._ranks is None or type(self._adapter).begun_by_others is Environments.begun_by_others:
            return begun
        return self._ranks.any(begun)

    def _taken_up(self, episodes: State) -> NDArray[Any] | None:
        """The last observations of episodes that the environments are put back into; None, said why, where not."""
        own: dict[str, NDArray[Any]] = {"was_done": self._was_done}
        if "starts" in episodes or self._engine.recurrent:  # older files lack it
            own["starts"] = self._starts = np.array(self._starts)
        own |= {"returns": self._episode_return, "lengths": self._episode_length}
        shape = (self._num_envs, self._adapter.observation_size)
        failure: ValueError | None = None
        try:
            if self._inexact is not None:
                raise ValueError(self._inexact)
            observations = np.array(_array_of(episodes, "observations", shape), self._adapter.observation_dtype)
            kept = {name: _array_of(episodes, name, shape[:1]) for name in own}
            state = self._state
            if self._engine.recurrent:
                self._actor.begin(self._adapter.num_envs)
                items = self._actor.state.shape[1]
                state = np.array(_array_of(episodes, "policy_state", (shape[0], items)), self._dtype)
            sums = None if self._scaler is None else _array_of(episodes, "running_sums", shape[:1])
            environments = episodes.get("environments")
            if self._ranks is not None and self._ranks.size > 1:
                environments = _part_of(environments, self._own, self._num_envs, self._ranks)
            observations = np.ascontiguousarray(observations[self._own])
            self._adapter.set_state(environments, observations)  # type: ignore[arg-type]
        except ValueError as error:
            failure = error
        if self._ranks is not None and self._ranks.any(failure is not None):
            failure = failure or ValueError("another rank cannot go on with its own")
        if failure is not None:
            if self._inexact is None:
                self.begun_anew = f"{failure}, so that new episodes began"
            warnings.warn(f"env: new episodes begin, as those under way are not gone on with: {failure}", stacklevel=2)
            return None
        self._state = state
        for name, array in own.items():
            array[...] = kept[name]
        if self._scaler is not None and sums is not None:
            self._scaler.running_sums = sums
        return observations

    def _state_of_environments(self, known: State | None) -> State | None:
        """Where the environments stand; taken now, as only now nothing steps them. None where it cannot be known."""
        if self._inexact is not None:
            return None
        state = self._adapter.get_state() if known is None else known
        if state is None:
            self._now_inexact(self._adapter.inexact)
        return state

    def _now_inexact(self, reason: str | None) -> None:
        self._inexact = reason
        warnings.warn(f"env: from a file a training goes on statistically, with new episodes: {reason}", stacklevel=3)

    def _episodes_under_way(self, last: NDArray[Any], environments: State | None) -> State | None:
        """What `_taken_up` needs."""
        if environments is None:
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

    def _fill(self, buffer: Buffer) -> Rollout:
        self._engine.refresh()  # the policy may have been edited since the last rollout
        observations = self._begin()
        self._observations = self._episodes = None  # until all went well
        first_step = self._first_step = self._step
        state = self._state
        alone = self._ranks is None or self._ranks.size == 1
        if self._ranks is None or alone:
            acted = self._act(observations, buffer)
            here = acted.last
        else:
            own = self._own_buffer(len(buffer.rewards))
            acted = self._act(observations, own)
            here = acted.last
            acted = self._with_others(acted, own, buffer, self._ranks)
        acted.finals.sort(key=lambda final: (final[0], final[2][0]))

        rollout = self._close_rollout(buffer, acted.last, acted.finals, first_step, state)
        raw = acted.raw
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
        environments = self._state_of_environments(acted.environments) if alone else acted.environments
        self._episodes = self._episodes_under_way(acted.last, environments)
        self._observations = here
        return rollout

    def _own_buffer(self, steps: int) -> Buffer:
        """What this rank's own copies are recorded in."""
        if self._acted_in is None or len(self._acted_in.rewards) != steps:
            num_envs = self._adapter.num_envs
            self._acted_in = Buffer(steps, num_envs, self._adapter, self._dtype, self._observation_dtype)
        return self._acted_in

    def _act(self, observations: NDArray[Any], buffer: Buffer) -> _Acted:
        """Step this process's copies as often as `buffer` has rows."""
        steps, masks = len(buffer.rewards), self._adapter.action_masks
        if masks is not None and buffer.action_masks is None:
            buffer.action_masks = np.empty((steps, *masks.shape), np.bool_)
        self._make_infos(buffer)
        rolled_out = None
        if self._plan is not None:
            exact = self._inexact is None
            rolled_out = self._adapter.roll_out(self._plan, self._first_step, steps, with_state=exact)
        if rolled_out is not None:
            return _Acted(*self._take(rolled_out, buffer), rolled_out.state)
        return _Acted(*self._step_through(observations, buffer), None)

    def _make_infos(self, buffer: Buffer) -> None:
        """Room in `buffer` for the infos that are asked for."""
        asked = len(self._adapter.asked)
        if not asked:
            buffer.infos = None
        elif buffer.infos is None or buffer.infos.shape[2] != asked:
            buffer.infos = np.empty((*buffer.rewards.shape, asked))

    def _with_others(self, acted: _Acted, own: Buffer, buffer: Buffer, ranks: Ranks) -> _Acted:
        """What all ranks' copies left, and in `buffer` their steps, out of what this one's have in `own`."""
        environments = self._state_of_environments(acted.environments)
        finals = [(t, rows, copies + self._own.start) for t, rows, copies in acted.finals]
        self._make_infos(buffer)
        mine, every = own.stepped, buffer.stepped
        if own.action_masks is not None and buffer.action_masks is None:
            steps, _, items = own.action_masks.shape
            every["action_masks"] = buffer.action_masks = np.empty((steps, self._num_envs, items), np.bool_)
        raw = None
        if acted.raw is not None:
            raw = np.empty((len(acted.raw), self._num_envs, acted.raw.shape[2]), acted.raw.dtype)
            mine, every = {**mine, "raw": acted.raw}, {**every, "raw": raw}
        told = exchange(ranks, mine, every, (finals, acted.last, self._state, environments, self._inexact))
        all_finals, lasts, states, of_environments, reasons = zip(*told, strict=True)
        if self._engine.recurrent:
            self._state = np.concatenate(states)
        if self._inexact is None and any(reasons):
            self._now_inexact(next(filter(None, reasons)))
        together = None if self._inexact is not None else _in_one(of_environments)
        return _Acted([final for part in all_finals for final in part], np.concatenate(lasts), raw, together)

    def _step_through(
        self, observations: NDArray[Any], buffer: Buffer
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
        self, observations: NDArray[Any], recorders: list[Any], buffer: Buffer, last: NDArray[Any]
    ) -> list[_Final]:
        """Step all copies at once."""
        adapter, own, (recorder,) = self._adapter, self._parts[0], recorders
        finals: list[_Final] = []
        seen = observations
        recurrent, starts, was_done = self._engine.recurrent, self._starts[self._own], self._was_done[self._own]
        for t in range(len(buffer.rewards)):
            if recurrent:
                self._actor.episode_starts = starts
            try:
                env_actions = recorder.act(t, seen, adapter.action_masks)
            except FloatingPointError as error:
                raise self._acting_error(seen, buffer.actions[t, own], own, self._step, error) from error
            seen, rewards, terminated, truncated, final = adapter.step(env_actions)
            recorder.record(t, rewards, terminated, truncated)
            if buffer.infos is not None:
                buffer.infos[t] = adapter.infos
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
        self, observations: NDArray[Any], recorders: list[Any], buffer: Buffer, last: NDArray[Any]
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
                if buffer.infos is not None:
                    buffer.infos[stepped[part], parts[part]] = adapter.infos[parts[part]]
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

    def _take(self, acted: RolledOut, buffer: Buffer) -> tuple[list[_Final], NDArray[Any], NDArray[Any] | None]:
        """As `_step_through`, of what was acted where the environments are."""
        for name, array in buffer.stepped.items():
            array[...] = getattr(acted, name)
        self._step += len(buffer.rewards)
        if acted.failure is not None:
            t, own, words = acted.failure
            self._step = self._first_step + t
            raise self._acting_error(acted.raw[t, own], acted.actions[t, own], own, self._step, words)
        return acted.finals, acted.last.copy(), acted.raw

    def _recorder(self, buffer: Buffer, own: slice, raw: NDArray[Any] | None) -> Any:
        if self._engine.recurrent:
            self._actor.state = self._state[self._own]
        return make_recorder(
            self._actor,
            own,
            first_step=self._first_step,
            first_row=self._own.start + own.start,
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
        first = self._own.start + own.start
        bad = _not_finite(observations, self._as_seen(observations))
        if len(bad):
            return self._error("observation", first + bad[0], step, observations[bad[0]])
        bad = _not_finite(actions.reshape(len(actions), -1))
        if len(bad):
            return self._error("action", first + bad[0], step, actions[bad[0]])
        return ValueError(f"action at step {step} cannot be drawn: {error}")

    def _close_rollout(
        self,
        buffer: Buffer,
        last: NDArray[Any],
        finals: list[tuple[int, NDArray[Any], NDArray[np.int64]]],
        first_step: int,
        state: NDArray[Any],
    ) -> Rollout:
        """Validate what was collected, add up episodes, add the other observations whose values are needed."""
        num_envs = self._num_envs
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
        learned = self.finisher.learned_rewards(buffer.rewards, reward_scale)
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

        ended, asked = done & valid, self._adapter.asked
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
            ended=ended,
            infos={} if buffer.infos is None else {name: buffer.infos[..., k] for k, name in enumerate(asked)},
            sequences=Sequences(starts, valid, state),
        )

    def _as_seen(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Raw observations as the policy gets them; infinite, without a warning, where they are too large for it."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self._normalizer is None:
                return observations.astype(self._observation_dtype)
            return self._normalizer.normalize(observations, self._dtype)

    def _error(self, what: str, environment: Any, step: Any, value: Any) -> ValueError:
        too_large = f" in {self._dtype}" if np.isfinite(value).all() else ""
        return ValueError(
            f"{what} of environment {int(environment)} at step {int(step)}: {value} given; want finite ones{too_large}"
        )


def with_new_episodes(state: State, resets: int) -> State:
    """A collector's `state` before an update that raised, with new episodes from other seeds than those since then.

    The same where none was under way and none has begun since; `resets` is the collector's count of now.
    """
    if state["episodes"] is None and resets == state["resets"]:
        return state
    begun_anew = "an update raised, so that new episodes began"
    return {**state, "resets": resets, "episodes": None, "begun_anew": begun_anew}


def _part_of(environments: Any, own: slice, count: int, ranks: Ranks) -> State:
    """What this rank's copies go on from, in the state of all; ValueError where it cannot be shared out so."""
    if isinstance(environments, dict) and "ranks" in environments:
        states = environments["ranks"]
        if len(states) != ranks.size:
            raise ValueError(f"saved of a vector environment on each of {len(states)} ranks; these are {ranks.size}")
        return dict(states[ranks.rank])
    if isinstance(environments, dict) and "vector" in environments:
        raise ValueError(f"saved of one vector environment, which {ranks.size} ranks cannot share")
    return {"copies": copies_in(environments, count)[own]}


def _in_one(states: tuple[State, ...]) -> State:
    """State of all ranks' copies from those of each rank's."""
    if all("copies" in state for state in states):
        return {"copies": [copy for state in states for copy in state["copies"]]}
    return {"ranks": list(states)}


def _array_of(episodes: State, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of numbers in a description of episodes; ValueError where it is missing, or another."""
    array = episodes.get(name) if isinstance(episodes, dict) else None
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "biuf":
        given = f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "no array"
        raise ValueError(f"{name}: {given} saved; want {shape}")
    return array


def _too_large(what: str, values: NDArray[Any], first_step: int, whom: str) -> ValueError:
    """Names the largest of `values` ``(T, E)`` or ``(T, E, D)``."""
    t, i = largest(values)
    where = f"{what} of environment {i} at step {first_step + t}"
    return ValueError(f"{where}: {values[t, i]} given; want what serves {whom}")


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
