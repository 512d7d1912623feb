"""What collecting and evaluation see of several copies of an environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from trpo_fast.environments.acting import ActorPlan, RolledOut
from trpo_fast.environments.masks import MaskFormat, without_mask
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.environments.shared_state import SharedState
from trpo_fast.environments.wrappers import Wrapping
from trpo_fast.gymnasium_spaces import action_layout, action_structure, check_action_space, without_text
from trpo_fast.state import State


class StepResult(NamedTuple):
    """One step of every copy, or of one part of them; the arrays are valid until the next step."""

    observations: NDArray[Any]
    """(E, D) float32 or float64, C-contiguous; in SAME_STEP the first of the next episode where one ended."""
    rewards: NDArray[np.float64]
    """(E,)"""
    terminated: NDArray[np.bool_]
    """(E,)"""
    truncated: NDArray[np.bool_]
    """(E,)"""
    final_observations: tuple[NDArray[Any], NDArray[np.int64]] | None
    """SAME_STEP: ``(rows (n, D), indices (n,))`` of the copies that were truncated and not terminated, whose value is
    needed; None when there is none. Indices count over all copies, also in a part's result."""


class Environments(ABC):
    """Copies of one environment that are stepped together.

    ValueError where the observation or the action space is not supported.

    Parameters
    ----------
    observation_space, action_space : gymnasium.Space
        Of one copy; parts of the observation that hold text are left out.
    num_envs : int
        E.
    autoreset_mode : gymnasium.vector.AutoresetMode
        SAME_STEP: an episode's end and the next one's start fall in one step. NEXT_STEP: the step after an end only
        resets, and its row counts for nothing.
    obeys_masks : bool
        Take the part "action_mask" of a Dict observation for the mask where it has its shape, and leave it out.

    Attributes
    ----------
    action_masks : bool ndarray (E, K), or None
        Which actions are allowed in the step that comes next; None where the environments have no masks. The first
        reset decides. Where an episode has ended and the next step only resets everything is allowed.
    observation_size : int
        D.
    observation_dtype, action_dtype : numpy.dtype
        Of the observations returned, and of the actions wanted.
    action_shape : tuple
        Of one step's actions: ``(E,)`` for Discrete, ``(E, A)`` for other spaces; of a Tuple or Dict all parts one
        after the other, choices counted from 0.
    asked : tuple of str
        The names that `ask` was given.
    wrappings : list of Wrapping
        What each copy is wrapped in, as far as that is known.
    left_out : tuple of str
        Parts of the observation that hold text, ``observation['mission']`` for example.
    mask_left_out : bool
        Whether the observation's mask is obeyed and left out.
    parts : tuple of slice
        Copies that answer together: all at once, or one slice for each worker process. Where there are several, actions
        may be sent to one part while another is still stepping.
    narrow_acting : bool
        Whether a policy should act with vectors of at most 256 bits, as the copies are stepped one after the other on
        the same core: a simulator loses more by the lower clock that follows wider ones than acting gains.
    """

    narrow_acting = False

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        num_envs: int,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        *,
        obeys_masks: bool = False,
    ) -> None:
        self.observation_space, self.left_out = without_text(observation_space)
        self.mask_left_out = False
        if obeys_masks:
            self.observation_space, self.mask_left_out = without_mask(self.observation_space, action_space)
        self._layout = ObservationLayout(self.observation_space)
        self.action_space = check_action_space(action_space)
        self.num_envs = num_envs
        self.autoreset_mode = autoreset_mode
        self.observation_size = self._layout.size
        self.observation_dtype = self._layout.dtype
        actions = action_layout(action_space)
        self.action_dtype = action_structure(action_space).row_dtype
        self.action_shape: tuple[int, ...] = (num_envs, *actions.shape)
        self._mask_format = MaskFormat(action_space) if actions.mask_size else None
        self.action_masks: NDArray[np.bool_] | None = None
        self.wrappings: list[Wrapping] = []
        self.parts: tuple[slice, ...] = (slice(0, num_envs),)
        self.asked: tuple[str, ...] = ()

    def ask(self, names: Sequence[str]) -> None:
        """Keep what infos have under these names, numbers, in `infos` from now on; `MOST` names at most."""
        self.asked = tuple(names)

    @property
    def infos(self) -> NDArray[np.float64]:
        """(E, K) of the latest step, under the K names asked for, NaN where there is no number; not to be written.

        Of a step that ended an episode it is that episode's.
        """
        return np.full((self.num_envs, len(self.asked)), np.nan)

    @abstractmethod
    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copy i is seeded with ``seed + i``."""

    @abstractmethod
    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step with `actions` of shape `action_shape` and dtype `action_dtype`; the environments may keep the array."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments that were made here; those that a user handed in, a user closes.

        Copies that raise are named in a UserWarning, and all others closed, too.
        """

    def expect_masks(self) -> None:
        """Take masks from infos from now on, as copies elsewhere have some, after a reset without; all is allowed
        until then."""
        raise ValueError("action_masks: none on this rank, others have some; want the same environments everywhere")

    @property
    def begun_by_others(self) -> bool:
        """Whether somebody else has begun new episodes in these copies since `reset` did."""
        return False

    @property
    def has_ended(self) -> bool:
        """Whether a process that steps copies is gone, and only environments made anew can be gone on with."""
        return False

    @property
    def inexact(self) -> str | None:
        """Why the copies cannot be put back to the bit, see `get_state`; None where they can."""
        return "nothing is known of their state"

    def get_state(self) -> State | None:
        """All that the copies go on from, between two steps, as plain data; only where nothing is `inexact`.

        None where something is from now on: of some wrappers what they keep is seen only when they have it.
        """
        raise NotImplementedError(self.inexact)

    def set_state(self, state: State, observations: NDArray[Any]) -> None:
        """Go on, with the same bits, where the copies were whose state this is, without a reset.

        Workers and the like that have ended are started anew, as by `reset`.

        Parameters
        ----------
        state : dict
            As `get_state` said it, here or in another process.
        observations : ndarray (E, D)
            The last ones of these copies: a simulator that was put back may not have them before its next step.

        Raises
        ------
        ValueError
            Not a state of such copies; which have to be reset then.
        """
        raise ValueError(self.inexact)

    def shared_state(self, seed: int) -> SharedState:
        """Whether copies share state within this process: asked before the first reset, which will be with this seed;
        see `shared_state`."""
        return SharedState(None, "copies of others are not looked at")

    def send(self, part: int, actions: NDArray[Any]) -> None:
        """Let the copies of ``parts[part]`` begin a step with `actions`, the rows of these copies."""
        raise NotImplementedError("the copies are one part: call step")

    def receive(self, part: int) -> StepResult:
        """The result of the step that `send` began in this part: arrays of its rows alone."""
        raise NotImplementedError("the copies are one part: call step")

    def next_part(self) -> int:
        """A part whose step has ended, of those that were sent actions; waits until there is one."""
        raise NotImplementedError("the copies are one part: call step")

    def roll_out(self, plan: ActorPlan, first_step: int, steps: int, *, with_state: bool = False) -> RolledOut | None:
        """Let the copies act where they are stepped, to the same bits as acting here; None where they cannot.

        Parameters
        ----------
        plan : ActorPlan
            Its arrays are taken as they are now.
        first_step : int
            Counter of the noise at the first step.
        steps : int
            Of every copy.
        with_state : bool
            Take what `get_state` would have after the last step along.
        """
        return None
