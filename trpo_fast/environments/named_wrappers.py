"""Wrappers by name: those that need no arguments, "module:callable", and what ids are wrapped in by default."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from trpo_fast._core.library import in_words
from trpo_fast.environments import packages
from trpo_fast.environments.masks import NAMES_OF_PARTS, mask_part

NONE = "none"
"""Written alone, where an id has wrappers by default and none are wanted."""


def atari(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Four frames of 84 x 84 gray pixels, (4, 84, 84) uint8, a new one for every four of the game.

    As Machado et al. (2018) evaluate, and Gymnasium's AtariPreprocessing does it: up to 30 steps of doing nothing at
    the start, the larger of the last two frames; a lost life ends no episode, rewards stay as they are.
    """
    if not hasattr(env.unwrapped, "ale"):
        raise ValueError(f"{type(env.unwrapped).__name__} is no game of ale-py")
    return gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.AtariPreprocessing(env), stack_size=4)


def int_actions(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Actions of a Discrete space as Python's integers, for an environment that takes no NumPy integer."""
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        raise ValueError(f"action space: {env.action_space} given; want a Discrete one")
    return gymnasium.wrappers.TransformAction(env, int, env.action_space)


class MaskInObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A Dict's action mask goes from the observation to ``info["action_mask"]``.

    What else is in the Dict stays; one part that is left alone becomes the observation itself.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        name = mask_part(space, env.action_space)
        if name is None:
            raise ValueError(
                f"observation space: {space} given; want a Dict with a part {', '.join(NAMES_OF_PARTS[:-1])} or "
                f"{NAMES_OF_PARTS[-1]} that has an item for every choice of {env.action_space}"
            )
        assert isinstance(space, gymnasium.spaces.Dict)
        self._mask, self._kept = name, [key for key in space.spaces if key != name]
        if not self._kept:
            raise ValueError(f"observation space: {space} given; want a part besides {name!r}")
        self._alone = len(self._kept) == 1
        parts = [(key, space[key]) for key in self._kept]
        self.observation_space = parts[0][1] if self._alone else gymnasium.spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, the mask in the info."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._without_mask(observation), {**info, "action_mask": observation[self._mask]}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, the mask in the info."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "action_mask": observation[self._mask]}
        return self._without_mask(observation), reward, terminated, truncated, info

    def _without_mask(self, observation: Any) -> Any:
        return observation[self._kept[0]] if self._alone else {key: observation[key] for key in self._kept}


_NAMED: dict[str, Callable[[Any], Any]] = {
    "atari": atari,
    "int-actions": int_actions,
    "mask-in-observation": MaskInObservation,
}


def checked_wrappers(wrappers: Any) -> tuple[Any, ...] | None:
    """`wrappers` as a tuple, () for "none"; TypeError or ValueError names what is neither callable nor a known name."""
    if wrappers is None:
        return None
    if isinstance(wrappers, str) or not isinstance(wrappers, Sequence):
        raise TypeError(
            f"wrappers: {in_words(wrappers)} given; want a sequence of 'module:callable', callables and names"
        )
    for wrapper in wrappers:
        named = isinstance(wrapper, str) and (wrapper in (*_NAMED, NONE) or all(wrapper.rpartition(":")[::2]))
        if not (named or (callable(wrapper) and not isinstance(wrapper, str))):
            raise ValueError(
                f"wrappers: {in_words(wrapper)} given; want 'module:callable', a callable, or "
                f"{', '.join((*_NAMED, NONE))}"
            )
    if NONE in wrappers and len(wrappers) > 1:
        raise ValueError(f"wrappers: {list(wrappers)} given; want {NONE!r} alone, or left out")
    return () if NONE in wrappers else tuple(wrappers)


def default_wrappers(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """What a registered environment is wrapped in unless something else is said: ale-py's images in "atari"."""
    sees = {**spec.kwargs, **env_kwargs}.get("obs_type", "rgb")
    return ("atari",) if spec.namespace == "ALE" and sees in ("rgb", "grayscale") else ()


def arguments_for(wrappers: Sequence[Any], env_kwargs: Mapping[str, Any], entry_point: Any) -> dict[str, Any]:
    """`env_kwargs` with what the wrappers need of the environment that `entry_point`, which is importable, makes.

    ValueError where the two contradict each other.
    """
    if "atari" not in wrappers or not _takes_frameskip(entry_point):  # which the wrapper itself refuses
        return dict(env_kwargs)
    if env_kwargs.get("frameskip", 1) != 1:
        raise ValueError(
            f"env_kwargs: frameskip={env_kwargs['frameskip']} given; want it left out with the wrapper 'atari', which "
            "skips four frames itself, or wrappers=['none']"
        )
    return {**env_kwargs, "frameskip": 1}


def _takes_frameskip(entry_point: Any) -> bool:
    make = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(make).parameters.values()
    return any(one.name == "frameskip" or one.kind is one.VAR_KEYWORD for one in parameters)


def wrapped(env: gymnasium.Env[Any, Any], wrappers: Sequence[Any]) -> gymnasium.Env[Any, Any]:
    """`env` in its wrappers, the first innermost; closed where one fails, which a ValueError or TypeError names."""
    try:
        for wrapper in wrappers:
            made = _applied(wrapper, env)
            if not isinstance(made, gymnasium.Env):
                raise TypeError(f"wrappers: {wrapper!r} returned {made!r}; want a gymnasium.Env")
            env = made
    except BaseException:
        env.close()
        raise
    return env


def _applied(wrapper: Any, env: gymnasium.Env[Any, Any]) -> Any:
    try:
        return (_loaded(wrapper) if isinstance(wrapper, str) else wrapper)(env)
    except Exception as error:
        raise ValueError(f"wrappers: {wrapper!r} cannot be applied: {packages.described(error)}") from error


def _loaded(name: str) -> Callable[[Any], Any]:
    if name in _NAMED:
        return _NAMED[name]
    module, _, attribute = name.rpartition(":")
    found: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    return found
