"""What the two engines have in common: the live parameters, and how an actor is made."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from trpo_fast._core.acting import Actor
from trpo_fast._core.recurrent import CellActor
from trpo_fast.environments.acting import ActorPlan
from trpo_fast.policies.flat import FlatBuffer
from trpo_fast.solvers.validation import require_bool

from .actor import TorchActor
from .binding import checked_action_layout, checked_parameters


class PolicyEngine(ABC):
    """Owner of a policy's flat parameters.

    Attributes
    ----------
    size : int
        n, number of parameters.
    dtype : numpy.dtype
        Of the parameters, and of every array this engine takes or gives.
    rows_independent : bool
        Whether an action depends, to the bit, on its own observation, step and row alone, so that acting for some
        environments at a time is acting for all.
    recurrent : bool
        Whether the policy has a state that goes from step to step: batches have `Sequences`, and its actor a state.
    """

    rows_independent = False
    recurrent = False

    def __init__(self, policy: nn.Module, flat: FlatBuffer) -> None:
        self._policy = policy
        self._flat = flat
        self._buffer = checked_parameters(flat, None)
        self.size = len(self._buffer)
        self.dtype: np.dtype[Any] = self._buffer.dtype

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: an engine cannot be pickled or copied, since it works in the memory of its "
            "policy; want the agent's save and TRPO.load, or the policy copied and make_engine(copy)"
        )

    @property
    def policy(self) -> nn.Module:
        """The module that this engine was made for."""
        return self._policy

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer, (n,): writing it changes the policy. Call `parameters_changed` afterwards."""
        return self._buffer

    def parameters_changed(self) -> None:
        """Tell autograd that the buffer was written."""
        self._flat.bump_versions()

    def adopt_parameters(self) -> None:
        """Take over what was written to the module itself, whatever it is."""
        if not self._flat.is_intact():
            self._flat.restore()

    def refresh(self) -> None:
        """Make sure that actors act with the parameters that the policy has now; `bind` does the same for updates.

        To be called where acting begins: assigning a parameter, for example, leaves the buffer that actors read with
        the old values. Views are made again where something replaced them; it takes 2.4 microseconds where nothing did.

        Raises
        ------
        ValueError
            The parameters have another dtype or size than when the engine was made, or one, which is named, is not
            finite.
        """
        checked_parameters(self._flat, self._buffer)

    def actor(
        self,
        action_space: spaces.Space,
        *,
        action_map: str = "clip",
        observation_mean: NDArray[np.float64] | None = None,
        observation_scale: NDArray[np.float64] | None = None,
        observation_clip: float = math.inf,
        seed: int = 0,
        stream: int = 0,
        narrow: bool = False,
    ) -> Actor | TorchActor | CellActor:
        """What acts with the live parameters, with the interface of `trpo_fast._core.acting.Actor`.

        `refresh` must be called before acting when something else than this package may have touched the policy.

        Parameters
        ----------
        action_space : gymnasium.spaces.Box, Discrete, MultiDiscrete or MultiBinary, or a Tuple or Dict of these
            A Box clips what goes to the environment, the others add their start; `trpo_fast.spaces.ActionStructure`
            adds it in a Tuple or Dict.
        action_map : {"clip", "affine", "auto"}
            How an action of the policy becomes one of a Box; see `trpo_fast.spaces.resolved_action_map`.
        observation_mean, observation_scale : float64, shape (D,), optional
            Observations become ``clip((observation - mean) * scale)``; both arrays are read at every call.
        observation_clip : float
            Bound on normalized observations; without the two above nothing is clipped.
        seed, stream : int
            Key of the noise, the same in both engines for Normal, Categorical, MultiCategorical and
            Bernoulli policies.
        narrow : bool
            The compiled actor's vectors have at most 256 bits where that changes no bit, in float32: for acting between
            a simulator's steps.

        Raises
        ------
        ValueError
            The space is not supported, or not what the policy was made for; or no `action_map` of that name fits it.
        """
        return self._make_actor(
            **self._actor_options(action_space, action_map),
            observation_mean=observation_mean,
            observation_scale=observation_scale,
            observation_clip=observation_clip,
            seed=seed,
            stream=stream,
            narrow=require_bool("narrow", narrow),
        )

    def actor_plan(self, action_space: spaces.Space, **options: Any) -> ActorPlan | None:
        """What makes the `actor` of the same arguments in another process; None where it has to act in this one."""
        return None

    def _actor_options(self, action_space: spaces.Space, action_map: str) -> dict[str, Any]:
        layout = checked_action_layout(action_space, self._policy, action_map)
        return {
            "action_low": layout.low,
            "action_high": layout.high,
            "action_scale": layout.scale,
            "action_offset": layout.offset,
            "action_start": layout.start if layout.low is None else None,
        }

    @abstractmethod
    def _make_actor(self, *, narrow: bool, **options: Any) -> Actor | TorchActor | CellActor:
        """An actor with the `options` that both kinds take."""
