"""What environments give, looked at where it comes in: every error names the environment, what came and what is wanted.

`Copies` looks at shapes and types at every step by the cheapest test there is and comes here only where that fails.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from trpo_fast._core.library import in_words
from trpo_fast.environments import packages
from trpo_fast.environments.observations import ObservationLayout
from trpo_fast.gymnasium_spaces import without_text


def made_by(make_one: Callable[[], Any], index: int) -> gymnasium.Env[Any, Any]:
    """Environment `index`; TypeError where it is none, or has no spaces."""
    try:
        env = make_one()
    except Exception as error:
        error.add_note(f"environment {index}, while it was made")
        raise
    if not isinstance(env, gymnasium.Env):
        is_of_gym = any(kind.__module__.partition(".")[0] == "gym" for kind in type(env).__mro__)
        wrappers = "GymV26CompatibilityV0(env=...), or GymV21CompatibilityV0(env=...) where reset takes no seed"
        hint = f"; it is one of gym, Gymnasium's predecessor: wrap it in shimmy.{wrappers}" if is_of_gym else ""
        raise TypeError(f"env: {env!r} given as environment {index}; want a gymnasium.Env{hint}")
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            raise TypeError(f"env: {space!r} given as {name} of environment {index}; want a gymnasium Space")
    return env


def require_same_spaces(given: Any, wanted: Any, *, whose: str, wanted_by: str) -> None:
    """ValueError where the spaces of `given` are not those of `wanted`, in the same order of columns.

    Parameters
    ----------
    given, wanted
        Anything with ``observation_space`` and ``action_space``.
    whose : str
        How the error calls `given`, "env" for example.
    wanted_by : str
        How it calls `wanted`, "the saved agent's" for example.
    """
    for name in ("observation_space", "action_space"):
        one, other = (without_text(getattr(whole, name))[0] for whole in (given, wanted))
        difference = _difference(one, other, name.replace("_space", ""))
        if difference is not None:
            raise ValueError(f"{whose}: {name} {one} given; want {other}, {wanted_by}: {difference}")


def _difference(given: Space[Any], wanted: Space[Any], name: str) -> str | None:
    """What tells two spaces apart for a policy: structure, order, shapes, choices, bounds; not the type of floats."""
    if isinstance(given, Dict) and isinstance(wanted, Dict):
        ours, others = list(given.spaces), list(wanted.spaces)
        if ours != others:
            what = "the order of its keys" if sorted(map(str, ours)) == sorted(map(str, others)) else "its keys"
            return f"{what}, {', '.join(map(str, ours))} instead of {', '.join(map(str, others))}"
        return _first(_difference(given[key], wanted[key], f"{name}[{key!r}]") for key in ours)
    if isinstance(given, Tuple) and isinstance(wanted, Tuple):
        if len(given.spaces) != len(wanted.spaces):
            return f"{name} has {len(given.spaces)} parts instead of {len(wanted.spaces)}"
        parts = enumerate(zip(given.spaces, wanted.spaces, strict=True))
        return _first(_difference(one, other, f"{name}[{i}]") for i, (one, other) in parts)
    if isinstance(given, Box) and isinstance(wanted, Box):
        if given.shape != wanted.shape:
            return f"{name} has shape {given.shape} instead of {wanted.shape}"
        floats = given.dtype.kind == wanted.dtype.kind == "f"
        if given.dtype != wanted.dtype and not floats:
            return f"{name} is of {given.dtype} instead of {wanted.dtype}"
        narrow = min(given.dtype, wanted.dtype, key=lambda dtype: dtype.itemsize)
        for bound in ("low", "high"):
            one, other = (getattr(box, bound).astype(narrow) for box in (given, wanted))
            if not np.array_equal(one, other):
                at = np.flatnonzero(one.ravel() != other.ravel())[0]
                return f"{bound} of {name} is {one.flat[at]} instead of {other.flat[at]} at item {at}"
        return None
    if isinstance(given, Discrete) and isinstance(wanted, Discrete):
        same = (given.n, given.start) == (wanted.n, wanted.start)
    elif isinstance(given, MultiDiscrete) and isinstance(wanted, MultiDiscrete):
        same = np.array_equal(given.nvec, wanted.nvec) and np.array_equal(given.start, wanted.start)
    elif isinstance(given, MultiBinary) and isinstance(wanted, MultiBinary):
        same = given.shape == wanted.shape
    else:
        same = given == wanted
    return None if same else f"{name} is {given} instead of {wanted}"


def _first(differences: Any) -> str | None:
    return next((difference for difference in differences if difference is not None), None)


class SimulatorError(RuntimeError):
    """A package's environment fails from its first reset on; its own exception is the cause."""


def reset_of(
    env: gymnasium.Env[Any, Any], index: int, seed: int | None, options: Any = None, first: bool = False
) -> Any:
    """What ``env.reset(seed=seed)`` returns; TypeError where it takes no seed, as before Gymnasium's interface, or no
    options.

    In the `first` reset, what the environment of an installed package raises becomes a SimulatorError that has the
    versions of the packages behind it: they may not fit together. What a user's own environment raises travels on, with
    a note that names the environment.
    """
    try:
        return env.reset(seed=seed, options=options)
    except Exception as error:
        lacks = _not_taken(env, error) if isinstance(error, TypeError) else None
        if lacks is not None:
            kind, name = lacks
            why = "it is written for an interface older than Gymnasium's, " if name == "seed" else "Gymnasium's is "
            raise TypeError(
                f"reset of environment {index} ({kind.__name__}) takes no {name}: {why}"
                "reset(*, seed=None, options=None) -> (observation, info) and step "
                "-> (observation, reward, terminated, truncated, info); give it these, or a gymnasium.Wrapper that has "
                "them"
            ) from error
        kind = type(env.unwrapped)
        if first and not isinstance(error, MemoryError) and packages.is_of_a_package(kind.__module__):
            raise SimulatorError(
                f"environment {index} ({kind.__name__}) cannot be reset: {packages.described(error)}"
            ) from error
        error.add_note(f"environment {index}, in its reset")
        raise


_NOT_TAKEN = re.compile(r"(.+)\(\) got an unexpected keyword argument '(seed|options)'")


def _not_taken(env: Any, error: TypeError) -> tuple[type, str] | None:
    """The class in `env`, a wrapper or the innermost, whose reset was called with a seed or options and takes none.

    None where `error` is another one: one that a reset raises once it runs, about a seed or not, is its author's.
    """
    said = _NOT_TAKEN.fullmatch(str(error))
    layer, innermost = env, env.unwrapped
    while said is not None:
        reset: Any = inspect.unwrap(layer.reset)
        names = (getattr(reset, "__qualname__", None), getattr(reset, "__name__", None))
        if said[1] in names and not _ran(reset, error):
            return type(layer), said[2]
        if layer is innermost:
            break
        layer = layer.env
    return None


def _ran(function: Any, error: BaseException) -> bool:
    """Whether `error` came through the body of a function."""
    code = getattr(function, "__code__", None)
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def checked_reset(answer: Any, index: int, layout: ObservationLayout) -> tuple[Any, Any]:
    """What reset of environment `index` returned, or an error that says what is wrong with it."""
    # An array of two items or rows unpacks as well.
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"reset of environment {index}: {_described(answer)} given; want (observation, info)")
    layout.check(answer[0], f"observation of environment {index}", "reset")
    return answer


def checked_step(answer: Any, index: int, layout: ObservationLayout) -> tuple[Any, float, Any, Any, Any]:
    """What step of environment `index` returned, with a number as reward, or an error that says what is wrong."""
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        raise ValueError(
            f"step of environment {index}: {_described(answer)} given; want (observation, reward, terminated, "
            "truncated, info)"
        )
    observation, reward, terminated, truncated, info = answer
    try:
        if isinstance(reward, str | bytes):  # float() would read it
            raise TypeError
        number = float(np.asarray(reward).item())
    except (OverflowError, TypeError, ValueError):
        several = np.ndim(reward) == 1 and np.size(reward) > 1 and np.asarray(reward).dtype.kind in "fiu"
        hint = "; several objectives have to become one, as mo_gymnasium.wrappers.LinearReward does" if several else ""
        raise TypeError(f"reward of environment {index}: {in_words(reward)} given; want a number{hint}") from None
    layout.check(observation, f"observation of environment {index}", "step")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        kind = np.asarray(flag).dtype.kind
        if np.ndim(flag) != 0 or kind not in "biuf" or flag not in (0, 1):
            raise TypeError(f"{name} of environment {index}: {in_words(flag)} given; want a bool")
    return observation, number, terminated, truncated, info


def note_of_integers(error: BaseException, space: Space[Any]) -> str | None:
    """What to say of a first step that may have failed because actions are NumPy's integers and not Python's."""
    about_type = isinstance(error, AssertionError | TypeError | ValueError)
    if not (about_type and isinstance(space, Discrete) and re.search(r"\bint(eger|\d+)?s?\b", str(error))):
        return None
    return (
        "actions of a Discrete space are NumPy integers, as action_space.sample() gives them; for an environment that "
        "takes Python's only: wrappers=['int-actions'], --wrapper int-actions"
    )


def late_mask(whose: str = "") -> ValueError:
    """What to raise where an info has a mask in a step, and no reset before it had one."""
    return ValueError(
        f"info['action_mask']{whose} came with a step, but with no reset before it, so that the first actions went "
        "unmasked; want it in the info of reset, too"
    )


def _described(answer: Any) -> str:
    return f"{type(answer).__name__} of {len(answer)} items" if hasattr(answer, "__len__") else repr(answer)
