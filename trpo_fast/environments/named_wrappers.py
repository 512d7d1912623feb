"""Wrappers by name: those that need no arguments, "module:callable", and what ids are wrapped in by default."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from trpo_fast.environments import packages

NONE = "none"
"""Written alone, where an id has wrappers by default and none are wanted."""


def atari(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Four frames of 84 x 84 gray pixels, (4, 84, 84) uint8, a new one for every four of the game.

    As Machado et al. (2018) evaluate, and Gymnasium's AtariPreprocessing does it: up to 30 steps of doing nothing at
    the start, the larger of the last two frames; a lost life ends no episode, rewards stay as they are.
    """
    return gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.AtariPreprocessing(env), stack_size=4)


_NAMED: dict[str, Callable[[Any], Any]] = {"atari": atari}


def checked_wrappers(wrappers: Any) -> tuple[Any, ...] | None:
    """`wrappers` as a tuple, () for "none"; TypeError or ValueError names what is neither callable nor a known name."""
    if wrappers is None:
        return None
    if isinstance(wrappers, str) or not isinstance(wrappers, Sequence):
        raise TypeError(f"wrappers must be a sequence of 'module:callable', callables and names, got {wrappers!r}")
    for wrapper in wrappers:
        named = isinstance(wrapper, str) and (wrapper in (*_NAMED, NONE) or all(wrapper.rpartition(":")[::2]))
        if not (named or (callable(wrapper) and not isinstance(wrapper, str))):
            raise ValueError(
                f"wrappers: {wrapper!r} given; want 'module:callable', a callable, or {', '.join((*_NAMED, NONE))}"
            )
    if NONE in wrappers and len(wrappers) > 1:
        raise ValueError(f"wrappers: {list(wrappers)} given; want {NONE!r} alone, or left out")
    return () if NONE in wrappers else tuple(wrappers)


def default_wrappers(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """What a registered environment is wrapped in unless something else is said: ale-py's images in "atari"."""
    sees = {**spec.kwargs, **env_kwargs}.get("obs_type", "rgb")
    return ("atari",) if spec.namespace == "ALE" and sees in ("rgb", "grayscale") else ()


def arguments_for(wrappers: Sequence[Any], env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """`env_kwargs` with what the wrappers need of the environment; ValueError where the two contradict each other."""
    if "atari" not in wrappers:
        return dict(env_kwargs)
    if env_kwargs.get("frameskip", 1) != 1:
        raise ValueError(
            f"env_kwargs: frameskip={env_kwargs['frameskip']} given; want it left out with the wrapper 'atari', which "
            "skips four frames itself, or wrappers=['none']"
        )
    return {**env_kwargs, "frameskip": 1}


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
