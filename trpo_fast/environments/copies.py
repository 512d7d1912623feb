"""Some copies of an environment, stepped one after the other into arrays that the caller owns.

This is the loop that runs in the main process and in every worker process, so that both give the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from trpo_fast.environments.checks import checked_reset, checked_step, made_by, require_same_spaces, reset_of
from trpo_fast.environments.masks import MaskFormat
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.environments.spaces import check_action_space
from trpo_fast.environments.wrappers import wrapping_of


class Copies:
    """Copies `first`, `first` + 1, ... of an environment.

    Parameters
    ----------
    makers : sequence of callables
        Each makes one environment. Where one fails, those already made are closed.
    first : int
        Index of the first copy among all copies, for errors.

    Attributes
    ----------
    envs : list of gymnasium.Env
    observation_space, action_space : gymnasium.Space
        Of one copy; ValueError where the copies differ in them.
    wrappings : list of Wrapping
        What each copy is wrapped in.
    masks : bool ndarray (n, K), or None
        Which actions are allowed in the next step, a new array after every `reset` and `step`; None where the
        environments have none. They come from a method ``action_masks`` of the environments, else from
        ``info["action_mask"]``; the first reset decides.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], first: int = 0) -> None:
        self.first = first
        self.envs: list[gymnasium.Env[Any, Any]] = []
        try:
            for index, make_one in enumerate(makers, first):
                env = made_by(make_one, index)
                if any(env is other for other in self.envs):
                    raise ValueError("env must make a new environment at every call, it returned the same object twice")
                self.envs.append(env)
                require_same_spaces(
                    env, self.envs[0], whose=f"env: environment {index}", wanted_by=f"as environment {first} has it"
                )
            self.observation_space: gymnasium.Space[Any] = self.envs[0].observation_space
            self.action_space = check_action_space(self.envs[0].action_space)
            self.layout = ObservationLayout(self.observation_space)
            self._mask_format = MaskFormat(self.action_space)
        except BaseException:
            self.close()
            raise
        self.wrappings = [wrapping_of(env) for env in self.envs]
        self.masks: NDArray[np.bool_] | None = None
        self._find_mask: Callable[[int, Any], Any] | None = None
        self._decided = False  # whether the environments have masks
        self._steps = 0  # since the reset, for errors
        self._shape = self.observation_space.shape or ()
        self._dtype: np.dtype[Any] | None = None  # of the observations, once one has been looked at
        self._action_shape = self.action_space.shape or ()
        self._action_dtype = self.action_space.dtype

    def reset(self, seeds: Iterable[int | None], rows: NDArray[Any], options: dict[str, Any] | None = None) -> None:
        """Start new episodes; observations into `rows` (n, D), C-contiguous."""
        self._steps, self._dtype = 0, None
        infos = []
        for i, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            index = self.first + i
            observation, info = checked_reset(reset_of(env, index, seed, options), index, self.layout)
            self.layout.flatten_each([observation], rows[i : i + 1], "reset", index)
            infos.append(info)
        if not self._decided:
            self._find_mask = self._mask_source(infos)
            self._decided = True
        if self._find_mask is not None:
            self._take_masks([self._find_mask(i, info) for i, info in enumerate(infos)])

    def step(
        self,
        actions: NDArray[Any],
        rows: NDArray[Any],
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        finals: NDArray[Any],
    ) -> None:
        """Step every copy.

        Parameters
        ----------
        actions : ndarray, shape (n,) or (n, A)
            The environments may keep the array.
        rows : OUT, shape (n, D)
            Observations; where an episode ended, the first one of the next.
        rewards, terminated, truncated : OUT, shape (n,)
        finals : OUT, shape (n, D)
            The last observation of an episode that was truncated and not terminated, in the row of its copy; other rows
            stay as they were.

        Raises
        ------
        ValueError, TypeError
            An answer against Gymnasium's contract; what an environment raises travels on, with a note that names the
            environment and its step.
        """
        actions = actions.reshape((len(self.envs), *self._action_shape)).astype(self._action_dtype, copy=False)
        plain, wanted, dtype, find_mask = self.layout.is_plain, self._shape, self._dtype, self._find_mask
        shaped = rows.reshape((len(self.envs), *wanted)) if plain else None
        observations: list[Any] = []
        masks: list[Any] = []
        looked_at = self._steps > 0  # observations with parts are looked at in the first step, and by `flatten_each`
        self._steps += 1
        info: Any = None
        i = 0
        try:
            for i, env in enumerate(self.envs):
                answer = env.step(actions[i])
                try:
                    observation, reward, terminated[i], truncated[i], info = answer
                    rewards[i] = float(reward)
                    fits = observation.dtype is dtype and observation.shape == wanted if plain else looked_at
                except (AttributeError, TypeError, ValueError):  # lists have no shape
                    fits = False
                if not fits:
                    observation, rewards[i], terminated[i], truncated[i], info = checked_step(
                        answer, self.first + i, self.layout
                    )
                    self._dtype = dtype = getattr(observation, "dtype", None)
                if terminated[i] or truncated[i]:
                    if not terminated[i]:
                        self.layout.flatten_each([observation], finals[i : i + 1], "step", self.first + i)
                    observation, info = checked_reset(env.reset(), self.first + i, self.layout)
                if shaped is not None:
                    shaped[i] = observation
                else:
                    observations.append(observation)
                if find_mask is not None:
                    masks.append(find_mask(i, info))
        except Exception as error:
            error.add_note(f"environment {self.first + i}, step {self._steps} after the reset")
            raise
        if shaped is None:
            self.layout.flatten_each(observations, rows, "step", self.first)
        if find_mask is not None:
            self._take_masks(masks)
        elif info and _mask_in(info) is not None and self._mask_format.size:
            raise ValueError(
                "info['action_mask'] came with a step, but with no reset before it, so that the first actions went "
                "unmasked; want it in the info of reset, too"
            )

    def close(self) -> None:
        """Close every environment; the first exception travels on once all have been asked."""
        errors = []
        for env in self.envs:
            try:
                env.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _mask_source(self, infos: list[Any]) -> Callable[[int, Any], Any] | None:
        """Where masks come from: a function of a copy and its info; None where there are none."""
        if not self._mask_format.size:
            return None
        have = [env.has_wrapper_attr("action_masks") for env in self.envs]
        if all(have):
            methods = [env.get_wrapper_attr("action_masks") for env in self.envs]
            if all(map(callable, methods)):
                return lambda i, _: methods[i]()
        if any(have):
            raise ValueError(
                f"action_masks: environment {self.first + have.index(False)} has no such method, others have"
            )
        if any(_mask_in(info) is not None for info in infos):
            return lambda _, info: _mask_in(info)
        return None

    def _take_masks(self, masks: list[Any]) -> None:
        when = f" at step {self._steps} after the reset"
        self.masks = self._mask_format.rows(masks, name="environment", when=when, first=self.first)


def _mask_in(info: Any) -> Any:
    return info.get("action_mask") if isinstance(info, dict) else None


def seeds_from(seed: int | None, first: int, count: int) -> list[int | None]:
    """Seeds of copies `first` to `first` + `count` - 1: each its own, counted up from that of copy 0."""
    return [None] * count if seed is None else list(itertools.islice(itertools.count(seed + first), count))
