"""Wrappers around an environment that work against what an agent does itself, or against several copies."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper


class Wrapping(NamedTuple):
    """What one copy is wrapped in; plain data, for worker processes to send."""

    observations: bool
    """Normalized, by Gymnasium's NormalizeObservation or what keeps its statistics as that does."""
    rewards: bool
    """The same, by NormalizeReward."""
    video: str | None
    """What the names of the files begin with that RecordVideo writes."""
    integers: bool
    """Observations rescaled in integers, by RescaleObservation (findings/gymnasium-rescale-observation-...)."""


def wrapping_of(env: gymnasium.Env[Any, Any]) -> Wrapping:
    """What `env` is wrapped in."""
    has, get = env.has_wrapper_attr, env.get_wrapper_attr
    video = f"{get('video_folder')}/{get('name_prefix')}" if has("video_folder") and has("name_prefix") else None
    return Wrapping(has("obs_rms"), has("return_rms"), video, _rescales_integers(env))


def wrappings_of(env: VectorEnv[Any, Any, Any]) -> list[Wrapping]:
    """What the copies in `env` are wrapped in, its own wrappers included; as far as it can be asked."""
    observations = rewards = False
    integers = _rescales_integers(env)
    inner: Any = env
    while isinstance(inner, VectorWrapper):
        observations |= "obs_rms" in vars(inner)
        rewards |= "return_rms" in vars(inner)
        inner = inner.env
    copies = [Wrapping(False, False, None, False)] * env.num_envs
    if isinstance(inner, SyncVectorEnv | AsyncVectorEnv):
        normalized, scaled = (inner.call("has_wrapper_attr", name) for name in ("obs_rms", "return_rms"))
        videos: Sequence[str | None] = [None] * env.num_envs
        if all(inner.call("has_wrapper_attr", "video_folder")):
            folders, prefixes = (inner.call("get_wrapper_attr", name) for name in ("video_folder", "name_prefix"))
            videos = [f"{folder}/{prefix}" for folder, prefix in zip(folders, prefixes, strict=True)]
        # Those of other processes cannot be asked, as no attribute tells.
        rounded = map(_rescales_integers, inner.envs) if isinstance(inner, SyncVectorEnv) else [False] * env.num_envs
        copies = [Wrapping(*one) for one in zip(normalized, scaled, videos, rounded, strict=True)]
    return [
        Wrapping(one.observations or observations, one.rewards or rewards, one.video, one.integers or integers)
        for one in copies
    ]


def _rescales_integers(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> bool:
    inner: Any = env
    while isinstance(inner, gymnasium.Wrapper | VectorWrapper):
        dtype = inner.observation_space.dtype
        if type(inner).__name__ == "RescaleObservation" and dtype is not None and np.issubdtype(dtype, np.integer):
            return True
        inner = inner.env
    return False


def warn_of(wrappings: Sequence[Wrapping], *, normalizes: bool, scales: bool, are_kept: bool) -> None:
    """One warning where copies are in wrappers that an agent works against.

    Parameters
    ----------
    wrappings : sequence of Wrapping
        Of each copy.
    normalizes, scales : bool
        Whether the agent normalizes observations, and scales rewards.
    are_kept : bool
        Whether a file has the state of the environments, and so the wrappers' statistics.
    """
    kept = "neither saved with the agent nor shared with an evaluation"
    if are_kept:
        kept = "kept for a training that is resumed, but shared neither with an evaluation nor with an export"
    troubles = []
    for what, wrapper, own, setting in (
        ("observations", "NormalizeObservation", normalizes, "normalize_observations"),
        ("rewards", "NormalizeReward", scales, "scale_rewards"),
    ):
        if any(getattr(one, what) for one in wrappings):
            twice = f"{what} are normalized twice, and " if own else ""
            troubles.append(
                f"in {wrapper}: {twice}its statistics are {kept}; want the wrapper left out, and {setting}=True"
            )
    if any(one.integers for one in wrappings):
        troubles.append(
            "in RescaleObservation: it multiplies integers by integers, so that 0 to 255 as 0 to 1 is 0 everywhere; "
            "want DtypeObservation(env, np.float32) inside it, or the wrapper left out, as images are scaled here"
        )
    video, count = next(iter(Counter(one.video for one in wrappings if one.video).most_common(1)), ("", 0))
    if count > 1:
        troubles.append(
            f"in RecordVideo: {count} copies write the same files, {video}-*; want a name_prefix of its own for each, "
            "or one copy recorded by evaluate(env=...)"
        )
    if troubles:
        warnings.warn(f"env: it is {'; it is '.join(troubles)}", stacklevel=4)
