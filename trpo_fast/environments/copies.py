"""Some copies of an environment, stepped one after the other into arrays that the caller owns.

This is the loop that runs in the main process and in every worker process, so that both give the same bits.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.stepping import CopyLoop
from trpo_fast.environments import exact
from trpo_fast.environments.checks import (
    checked_reset,
    checked_step,
    late_mask,
    made_by,
    note_of_integers,
    require_same_spaces,
    reset_of,
)
from trpo_fast.environments.closing import close_each, warn_of_failed_closes
from trpo_fast.environments.generators import Look, Own, Watched, seed_both
from trpo_fast.environments.infos import number_of
from trpo_fast.environments.masks import MaskFormat, without_mask
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.environments.wrappers import wrapping_of
from trpo_fast.gymnasium_spaces import action_layout, action_structure, check_action_space, without_text
from trpo_fast.spaces import MASK_KEY, mask_in
from trpo_fast.state import State

# Who steps an environment, by its id; an entry lives as long as the copies do, which keep the environment alive.
_HOLDERS: weakref.WeakValueDictionary[int, Copies] = weakref.WeakValueDictionary()

_WATCHED = 4  # copies that are looked at for drawing from global generators: the others are like them

_said_to_draw: set[type] = set()  # environments that a warning about global generators has named


class Copies:
    """Copies `first`, `first` + 1, ... of an environment.

    Parameters
    ----------
    makers : sequence of callables
        Each makes one environment. Where one fails, those already made are closed.
    first : int
        Index of the first copy among all copies, for errors.
    own_generators : bool
        Give every copy a numpy and a Python global generator of its own, seeded from its seed, where it draws from
        them in its first calls: then its numbers are the same whoever else is stepped in the process. Those of the
        process itself are seeded from the first copy's seed. Otherwise a UserWarning names, once, an environment that
        draws.
    obeys_masks : bool
        As of :class:`Environments`.

    Attributes
    ----------
    envs : list of gymnasium.Env
    observation_space, action_space : gymnasium.Space
        Of one copy, without text, and without a mask that is obeyed; ValueError where the copies differ in them.
    left_out : tuple of str
        What in the observation is text.
    mask_left_out : bool
        Whether the observation has a mask that is obeyed.
    wrappings : list of Wrapping
        What each copy is wrapped in.
    masks : bool ndarray (n, K), or None
        Which actions are allowed in the next step, a new array after every `reset` and `step`; None where the
        environments have none. They come from a method ``action_masks`` of the environments, else from the
        observation where its mask is left out, else from ``info["action_mask"]``; the first reset decides.
    mask_source : {"method", "observation", "info", None}
        Where they come from.
    infos : float64 ndarray (n, K)
        What the latest step's infos have under the K names that were asked for; NaN where that is no number. Of a step
        that ended an episode it is that episode's.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], Any]],
        first: int = 0,
        *,
        own_generators: bool = False,
        obeys_masks: bool = False,
    ) -> None:
        self.first = first
        self.envs: list[gymnasium.Env[Any, Any]] = []
        try:
            for index, make_one in enumerate(makers, first):
                with nullcontext() if own_generators or index - first >= _WATCHED else Look() as look:
                    env = made_by(make_one, index)
                self._hold(env)
                self.envs.append(env)
                for whose in look.moved[:1] if look else ():
                    self._say_who_draws(env, f"draws from {whose}'s global random generator in its constructor")
                exact.watch(env)
                require_same_spaces(
                    env, self.envs[0], whose=f"env: environment {index}", wanted_by=f"as environment {first} has it"
                )
            self.observation_space, self.left_out = without_text(self.envs[0].observation_space)
            self.action_space = check_action_space(self.envs[0].action_space)
            self.mask_left_out = False
            if obeys_masks:
                self.observation_space, self.mask_left_out = without_mask(self.observation_space, self.action_space)
            self.layout = ObservationLayout(self.observation_space)
            self._mask_format = MaskFormat(self.action_space)
        except BaseException:
            self.close()
            raise
        self._own_generators = own_generators
        self._called: list[Any] = list(self.envs)  # what is stepped; something in between, until enough has been seen
        for i, env in enumerate(self.envs):
            if own_generators:
                self._called[i] = Own(env, functools.partial(self._settle, i))
            elif type(env.unwrapped) in _said_to_draw:
                Look.know(env)
            elif i < _WATCHED:
                say, settle = functools.partial(self._say_of_calls, env), functools.partial(self._settle, i)
                self._called[i] = Watched(env, len(self.envs) == 1, say, settle)
        self.wrappings = [wrapping_of(env) for env in self.envs]
        self.masks: NDArray[np.bool_] | None = None
        self.mask_source: str | None = None
        self._find_mask: Callable[[int, Any, Any], Any] | None = None
        self._decided = False  # whether the environments have masks
        self._steps = 0  # since the reset, for errors
        self._not_kept: str | None = None  # what of a copy no file can have, once that has been seen
        self._action_shape = self.action_space.shape or ()
        self._action_dtype = self.action_space.dtype
        stored = action_layout(self.action_space)
        as_stored = np.dtype(np.float32 if stored.distribution == "gaussian" else np.int64)
        self._actions_differ = stored.shape != self._action_shape or as_stored != self._action_dtype
        self._structure = action_structure(self.action_space) if stored.parts else None
        self._written: list[int] = []
        self._asked: tuple[str, ...] = ()
        self._last_infos: dict[int, list[float]] = {}  # by copy, numbers of episodes that ended in the latest step
        self.infos = np.empty((len(self.envs), 0))

    def ask(self, names: Sequence[str]) -> None:
        """Keep numbers of these names in `infos` from now on."""
        self._asked = tuple(names)
        self.infos = np.full((len(self.envs), len(self._asked)), np.nan)

    def _take_infos(self) -> None:
        for i, info in enumerate(self._loop.infos):
            self.infos[i] = self._last_infos[i] if i in self._last_infos else self._numbers_in(info)
        self._last_infos.clear()

    def _numbers_in(self, info: Any) -> list[float]:
        """What was asked for."""
        return [number_of(info.get(name)) if isinstance(info, dict) else math.nan for name in self._asked]

    def bind(
        self,
        rows: NDArray[Any],
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        finals: NDArray[Any],
    ) -> None:
        """The arrays that every `reset` and `step` write from now on.

        Parameters
        ----------
        rows : OUT, shape (n, D), C-contiguous, of ``layout.dtype``
            Observations; where an episode ended, the first one of the next.
        rewards, terminated, truncated : OUT, shape (n,)
        finals : OUT, shape (n, D)
            The last observation of an episode that was truncated and not terminated, in the row of its copy; other rows
            stay as they were.
        """
        self._rows, self._finals = rows, finals
        self._rewards, self._terminated, self._truncated = rewards, terminated, truncated
        self._loop = CopyLoop(
            rows,
            rewards,
            terminated,
            truncated,
            shape=self.observation_space.shape or (),
            gather=not self.layout.is_plain,
            other=self._other,
        )

    def reset(self, seeds: Iterable[int | None], options: dict[str, Any] | None = None) -> None:
        """Start new episodes everywhere."""
        seeds = list(seeds)
        if self._own_generators and seeds[0] is not None:
            seed_both(seeds[0])  # the process's own: for a copy that begins to draw when nobody looks any more
        self._steps = 0
        self._loop.dtype = None
        self._loop.methods = [env.step for env in self._called]
        observations, infos = [], []
        for i, (env, seed) in enumerate(zip(self._called, seeds, strict=True)):
            index = self.first + i
            answer = reset_of(env, index, seed, options, first=not self._decided)
            observation, info = checked_reset(answer, index, self.layout)
            self.layout.flatten_each([observation], self._rows[i : i + 1], "reset", index)
            observations.append(observation)
            infos.append(info)
        if not self._decided:
            self._find_mask = self._mask_source(infos)
            self._decided = True
        if self._find_mask is not None:
            self._take_masks(observations, infos)

    def step(self, actions: NDArray[Any]) -> list[int]:
        """Step every copy with `actions` (n,) or (n, A), an array that the environments may keep.

        Returns
        -------
        list of int
            The rows of `finals` that were written.

        Raises
        ------
        ValueError, TypeError
            An answer against Gymnasium's contract; what an environment raises travels on, with a note that names the
            environment and its step.
        """
        each: Any = actions
        if self._structure is not None:
            each = self._structure.each(actions)
        elif self._actions_differ:
            each = actions.reshape((len(self.envs), *self._action_shape)).astype(self._action_dtype, copy=False)
        loop, self._written = self._loop, []
        self._steps += 1
        try:
            loop.step(each)
        except BaseException as error:
            error.add_note(f"environment {self.first + loop.at}, step {self._steps} after the reset")
            hint = note_of_integers(error, self.action_space) if self._steps == 1 else None
            if hint is not None:
                error.add_note(hint)
            raise
        if not self.layout.is_plain:
            loop.dtype = True  # parts are looked at one by one in the first step only, and by `flatten_each`
            try:
                self.layout.flatten_each(loop.observations, self._rows, "step", self.first)
            except (TypeError, ValueError) as error:
                error.add_note(f"step {self._steps} after the reset")
                raise
        if self._asked:
            self._take_infos()
        if self._find_mask is not None:
            self._take_masks(loop.observations, loop.infos)
        elif self._mask_format.size and any(loop.infos):  # which most environments leave empty
            late = next((i for i, info in enumerate(loop.infos) if _mask_in(info) is not None), None)
            if late is not None:
                raise late_mask(f" of environment {self.first + late}")
        return self._written

    def _other(self, i: int, answer: Any) -> None:
        """An answer of copy i that is not of the usual form: look at it closely, and start again after an end."""
        loop, index = self._loop, self.first + i
        observation, reward, terminated, truncated, info = checked_step(answer, index, self.layout)
        self._rewards[i], self._terminated[i], self._truncated[i] = reward, terminated, truncated
        if self.layout.is_plain:
            loop.dtype = getattr(observation, "dtype", None)
        if terminated or truncated:
            if not terminated:
                self.layout.flatten_each([observation], self._finals[i : i + 1], "step", index)
                self._written.append(i)
            if self._asked:  # now: the reset may write to the same dict
                self._last_infos[i] = self._numbers_in(info)
            observation, info = checked_reset(self._called[i].reset(), index, self.layout)
        loop.infos[i] = info
        if self.layout.is_plain:
            self.layout.flatten_each([observation], self._rows[i : i + 1], "step", index)
        else:
            loop.observations[i] = observation

    @property
    def inexact(self) -> str | None:
        """Why the copies cannot be put back to the bit; None where they can, as far as is known."""
        return self._not_kept or next(filter(None, map(exact.reason_against, self.envs)), None)

    def get_state(self) -> list[State] | None:
        """State of each copy, where nothing is `inexact`; with it others, in another process, go on alike.

        None where only now something is seen to be `inexact`. What a copy's own get_state raises travels on, with a
        note that names the environment.
        """
        states: list[State] = []
        for i, env in enumerate(self.envs):
            name = f"environment {self.first + i}"
            try:
                own = exact.get_state(env, name)
            except exact.NotKept as error:
                self._not_kept = str(error)
                return None
            except Exception as error:
                error.add_note(f"{name}, in its get_state")
                raise
            # The process's own generators are nobody's state: a copy that draws from them is reproduced by no seed.
            called = self._called[i]
            states.append(
                {
                    "env": own,
                    "generators": called.get_state() if isinstance(called, Own) else None,
                    "mask": None if self.masks is None else self.masks[i].copy(),
                    "mask_source": self.mask_source,
                    "steps": self._steps,
                }
            )
        return states

    def set_state(self, states: Sequence[State]) -> None:
        """Put every copy where the one was whose state this is, without a reset.

        ValueError where these are not states of such copies; which have to be reset then.
        """
        try:
            sources = {state["mask_source"] for state in states}
            self._steps = max(int(state["steps"]) for state in states)
            masks = [state["mask"] for state in states]
            for i, (env, state) in enumerate(zip(self.envs, states, strict=True)):
                exact.set_state(env, state["env"], f"environment {self.first + i}")
                if self._own_generators and state["generators"] is not None:
                    self._called[i] = Own(env, functools.partial(self._settle, i))
                    self._called[i].set_state(state["generators"])
                elif self._own_generators:  # it has been seen to draw nothing
                    self._called[i] = env
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a copy: {error!r}") from error
        (self.mask_source,) = sources if len(sources) == 1 else (None,)
        self._find_mask = None
        if self.mask_source == "method":
            self._find_mask = self._mask_source([None] * len(self.envs))
        elif self.mask_source == "observation" and self.mask_left_out:
            self._find_mask = self._mask_in_observation
        elif self.mask_source == "info":
            self._find_mask = _mask_in_info
        self._decided = True
        self.masks = None
        if self._find_mask is not None:
            self.masks = self._mask_format.rows(masks, name="environment", when=" in its state", first=self.first)
        self._loop.dtype = None
        self._loop.methods = [called.step for called in self._called]

    def expect_masks(self) -> NDArray[np.bool_]:
        """Look for masks in infos from now on, since other copies have some there; until then everything is allowed."""
        self.mask_source, self._find_mask = "info", _mask_in_info
        self._take_masks([None] * len(self.envs), [None] * len(self.envs))
        assert self.masks is not None
        return self.masks

    def close(self) -> None:
        """Close every environment; a UserWarning names those that raise."""
        warn_of_failed_closes(self.closed())

    def closed(self) -> list[str]:
        """Close every environment; what is to be said of those that raise."""
        for env in self.envs:
            if _HOLDERS.get(id(env.unwrapped)) is self:
                del _HOLDERS[id(env.unwrapped)]
        return close_each(self.envs, self.first)

    def _hold(self, env: gymnasium.Env[Any, Any]) -> None:
        """Take the environment; ValueError where somebody steps it already."""
        key = id(env.unwrapped)
        if _HOLDERS.get(key) not in (None, self):
            gc.collect()  # who has it may be gone but for a cycle
        holder = _HOLDERS.get(key)
        if holder is not None:
            raise ValueError(
                "env must make a new environment at every call, it returned the same object twice"
                if holder is self
                else f"env must make a new environment at every call, it returned a {type(env.unwrapped).__name__} "
                "that is in use, in training for example: its episodes would be cut, and it closed; want a function "
                "that makes one, TRPO(lambda: MyEnv()), or evaluate(env=...) with one that does"
            )
        _HOLDERS[key] = self

    def _settle(self, i: int) -> None:
        self._called[i] = self.envs[i]
        self._loop.methods[i] = self.envs[i].step

    def _say_of_calls(self, env: gymnasium.Env[Any, Any], whose: str, seeded: bool) -> None:
        if seeded:
            self._say_who_draws(
                env,
                f"seeds {whose}'s global random generator in reset and draws from it later",
                f": the {len(self.envs)} copies in this process draw from one stream, so that what each of them gets "
                "depends on the others, and on whatever else draws from it",
            )
        else:
            self._say_who_draws(env, f"draws from {whose}'s global random generator")

    def _say_who_draws(
        self,
        env: gymnasium.Env[Any, Any],
        what: str,
        why: str = ", which no seed given to reset reaches: the agent's seed does not reproduce it",
    ) -> None:
        kind = type(env.unwrapped)
        if kind in _said_to_draw:
            return
        _said_to_draw.add(kind)
        warnings.warn(
            f"env: {kind.__name__} {what}{why}; want self.np_random in its place, after reset has seeded it, or "
            "vectorization='workers', where every copy has global generators of its own",
            stacklevel=2,
        )

    def _mask_source(self, infos: list[Any]) -> Callable[[int, Any, Any], Any] | None:
        """Where masks come from: a function of a copy, its observation and its info; None where there are none."""
        if not self._mask_format.size:
            return None
        have = [env.has_wrapper_attr("action_masks") for env in self.envs]
        if all(have):
            self.mask_source = "method"
            methods = [env.get_wrapper_attr("action_masks") for env in self.envs]
            if all(map(callable, methods)):
                return lambda i, *_: methods[i]()
            return lambda i, *_: self.envs[i].get_wrapper_attr("action_masks")  # an attribute or a property
        if any(have):
            raise ValueError(
                f"action_masks: environment {self.first + have.index(False)} has no such method, others have"
            )
        if self.mask_left_out:
            self.mask_source = "observation"
            return self._mask_in_observation
        if any(_mask_in(info) is not None for info in infos):
            self.mask_source = "info"
            return _mask_in_info
        return None

    def _mask_in_observation(self, i: int, observation: Any, _: Any) -> Any:
        try:
            return mask_in(observation[MASK_KEY])
        except LookupError:
            raise ValueError(
                f"observation of environment {self.first + i} lacks {MASK_KEY!r}, which its space has"
            ) from None

    def _take_masks(self, observations: list[Any], infos: list[Any]) -> None:
        assert self._find_mask is not None
        masks = [self._find_mask(i, *said) for i, said in enumerate(zip(observations, infos, strict=True))]
        when = f" at step {self._steps} after the reset"
        self.masks = self._mask_format.rows(masks, name="environment", when=when, first=self.first)


def _mask_in_info(_: int, __: Any, info: Any) -> Any:
    return _mask_in(info)


def _mask_in(info: Any) -> Any:
    return info.get("action_mask") if isinstance(info, dict) else None


def seeds_from(seed: int | None, first: int, count: int) -> list[int | None]:
    """Seeds of copies `first` to `first` + `count` - 1: each its own, counted up from that of copy 0."""
    return [None] * count if seed is None else list(itertools.islice(itertools.count(seed + first), count))


def copies_in(state: State, count: int) -> list[State]:
    """States of each copy in that of several; ValueError where they are not so many, or not there."""
    states = state.get("copies") if isinstance(state, dict) else None
    if isinstance(state, dict) and "vector" in state:
        raise ValueError("saved of one vector environment; these are copies that were made one by one")
    if not isinstance(states, list):
        raise ValueError("not the state of several copies")
    if len(states) != count:
        raise ValueError(f"saved of {len(states)} copies; these are {count}")
    return states
