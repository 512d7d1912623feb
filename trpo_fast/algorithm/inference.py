"""What an agent says of raw observations: actions, values, log-probabilities of actions."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from trpo_fast import streams
from trpo_fast._core.library import in_words
from trpo_fast.environments.masks import MaskFormat
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.gymnasium_spaces import action_layout, action_structure
from trpo_fast.policies.distributions import with_masks
from trpo_fast.recurrence import checked_episode_starts
from trpo_fast.spaces import Discrete

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO


class Inference:
    """Of one agent, with what its networks and statistics are at each call.

    Attributes
    ----------
    layout : ObservationLayout
        How observations become rows.
    """

    def __init__(self, agent: TRPO) -> None:
        self._agent = agent
        self.layout = ObservationLayout(agent.observation_space)
        self._masks = MaskFormat(agent.action_space)
        self._actions = action_layout(agent.action_space, agent.config.action_map)
        self._structure = action_structure(agent.action_space)
        self._actor = agent.make_actor(agent.seed, streams.PREDICTION)
        self._lock = threading.Lock()  # the actor's arrays, and the counter
        self._warned_of_masks = False  # that there were none
        # The common case without a detour: one observation, an array, and actions without parts.
        part, recurrent = self.layout.parts[0], agent.engine.recurrent
        is_direct = self.layout.is_plain and not self._structure.is_nested and not recurrent
        self._direct_shape = part.shape if is_direct else None
        self._row = np.empty((1, self.layout.size))
        self._in_place = self._row.reshape(part.shape if self.layout.is_plain else -1)
        self._action_shape, self._action_dtype = agent.action_space.shape or (), agent.action_space.dtype
        self._is_discrete = isinstance(self._structure.space, Discrete)

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool, action_masks: Any
    ) -> tuple[Any, Any]:
        """As :meth:`TRPO.predict` says."""
        agent = self._agent
        if (
            type(observation) is np.ndarray
            and observation.shape == self._direct_shape
            and observation.dtype.kind in "fiub"
            and action_masks is None
            and not agent.trained_with_masks
        ):
            with self._lock:
                self._in_place[...] = observation
                try:
                    row = self._actor.act(self._row, agent.num_predictions, deterministic=deterministic)
                except ValueError:
                    pass  # what follows says what is wrong
                else:
                    agent.num_predictions += 1
                    action = row.reshape(self._action_shape).astype(self._action_dtype, copy=False)
                    return (action[()] if self._is_discrete else action), state
        rows, single = self.layout.finite_rows(observation)
        masks = self._masks.rows_for(action_masks, observation, self.layout.space, len(rows), single)
        if masks is None and agent.trained_with_masks and not self._warned_of_masks:
            self._warned_of_masks = True
            warnings.warn(
                "predict: action_masks: none given, but this agent was trained with masks: its actions may be "
                "forbidden ones; want action_masks=..., what action_masks() or info['action_mask'] of the env has",
                stacklevel=3,
            )
        recurrent = agent.engine.recurrent
        starts = checked_episode_starts(episode_start, len(rows)) if recurrent else None
        with self._lock:
            try:
                actions = self._act(rows, deterministic, masks, state if recurrent else None, starts)
            except FloatingPointError as error:
                what = "observation: it, or the action that comes of it, is beyond"
                raise ValueError(f"{what} {agent.config.dtype}; want smaller numbers") from error
            after = self._actor.state if recurrent else state
        return (self._structure.each(actions)[0] if single else self._structure.batch(actions)), after

    def _act(
        self,
        rows: NDArray[np.float64],
        deterministic: bool,
        masks: NDArray[np.bool_] | None = None,
        state: Any = None,
        starts: NDArray[np.bool_] | None = None,
    ) -> NDArray[Any]:
        """A row of actions for each of `rows`; FloatingPointError where one cannot be acted on."""
        agent = self._agent
        try:
            actions = self._actor.act(
                rows,
                agent.num_predictions,
                deterministic=deterministic,
                action_masks=masks,
                state=state,
                episode_starts=starts,
            )
        except ValueError as error:
            if isinstance(error.__cause__, FloatingPointError):
                raise error.__cause__ from None
            raise
        agent.num_predictions += 1
        return actions

    def values(self, observations: Any) -> Any:
        """As :meth:`TRPO.values` says."""
        agent = self._agent
        if agent.critic_trainer.recurrent:
            raise ValueError(
                "values: this critic is recurrent, so that an observation alone has no value; want "
                "recurrent_critic=False, a critic that sees the observation alone"
            )
        rows, single = self.layout.finite_rows(observations)
        values = agent.critic_trainer.values(self._normalized(rows)).astype(np.float64)
        if agent.reward_scaler is not None:
            values = values / agent.reward_scaler.scale
        return values[0] if single else values

    def log_probs(self, observations: Any, actions: Any, action_masks: Any) -> Any:
        """As :meth:`TRPO.log_probs` says."""
        agent = self._agent
        if agent.engine.recurrent:
            raise ValueError(
                "log_probs: this policy is recurrent, so that the probability of an action hangs on what was before; "
                "want a policy that sees the observation alone"
            )
        rows, single = self.layout.finite_rows(observations)
        masks = self._masks.rows_for(action_masks, observations, self.layout.space, len(rows), single)
        chosen = self._structure.rows(actions, None if single else len(rows))
        if self._actions.scale is not None and self._actions.offset is not None:
            moved = chosen - self._actions.offset
            # Of a dimension without width all numbers of the policy become one action: the middle stands for them.
            chosen = np.divide(moved, self._actions.scale, out=np.zeros_like(moved), where=self._actions.scale != 0)
        agent.engine.refresh()
        device = next(agent.policy.parameters()).device
        seen = torch.from_numpy(self._normalized(rows)).to(device)
        shape = agent.networks.observation_shape
        with torch.no_grad():
            distribution = agent.policy(seen if shape is None else seen.reshape(len(rows), *shape))
            if masks is not None:
                distribution = with_masks(distribution, torch.from_numpy(masks).to(device))
            whole = self._actions.distribution in ("categorical", "multicategorical")
            taken = torch.from_numpy(chosen).to(device, torch.int64 if whole else seen.dtype)
            try:
                found = distribution.log_prob(taken.reshape(len(rows), *distribution.event_shape))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"actions: {in_words(actions)} given; want actions of {agent.action_space}") from error
        log_probs = found.double().cpu().numpy()
        return log_probs[0] if single else log_probs

    def _normalized(self, rows: NDArray[np.float64]) -> NDArray[Any]:
        """Rows as the networks see them; ValueError where they are too large for these."""
        agent = self._agent
        dtype = np.dtype(agent.engine.dtype)
        with np.errstate(over="ignore"):
            normalizer = agent.observation_normalizer
            seen = rows.astype(dtype) if normalizer is None else normalizer.normalize(rows, dtype)
        if not np.isfinite(seen).all():
            raise ValueError(f"observations: beyond {dtype}; want smaller numbers")
        return seen
