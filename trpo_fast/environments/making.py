"""One copy of an environment: modules imported, made, wrapped. The same in this process and in workers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium

from trpo_fast.environments import packages
from trpo_fast.environments.mujoco_warnings import printed_once
from trpo_fast.environments.named_wrappers import arguments_for, wrapped
from trpo_fast.environments.registry import find_spec, import_modules, load_entry_point, missing_simulator


def separate(value: Any) -> Any:
    """A deep copy, so that what an environment changes in its arguments changes no other's, nor the caller's.

    What cannot be copied, a module or a lock, is shared, and the lists, tuples and dicts around it are not.
    """
    try:
        return copy.deepcopy(value)
    except Exception:  # of anyone's objects
        if type(value) is dict:
            return {key: separate(part) for key, part in value.items()}
        return type(value)(map(separate, value)) if type(value) in (list, tuple) else value


def separate_wrapper(wrapper: Any) -> Any:
    """The arguments of a `functools.partial` by themselves, as `separate` has it; any other wrapper as it is."""
    if type(wrapper) is not functools.partial:
        return wrapper
    return functools.partial(wrapper.func, *separate(wrapper.args), **separate(wrapper.keywords))


def make_copy(
    source: str | Callable[..., Any], env_kwargs: Mapping[str, Any], wrappers: Sequence[Any], modules: Sequence[str]
) -> Any:
    """What `source` makes, in its wrappers; it is not looked at where it is no environment.

    The arguments, of `source` and of wrappers, are copied deeply for it.

    Raises
    ------
    ValueError
        A module, an id or a wrapper that fails, with the versions of the packages that the error came through. What a
        callable raises travels on.
    """
    with printed_once():
        import_modules(modules)
        env_kwargs, wrappers = separate(dict(env_kwargs)), [separate_wrapper(wrapper) for wrapper in wrappers]
        if not isinstance(source, str):
            env = source(**env_kwargs)
            return wrapped(env, wrappers) if isinstance(env, gymnasium.Env) else env
        entry_point: Any = find_spec(source).entry_point
        with reported(source):
            if isinstance(entry_point, str):
                load_entry_point(entry_point)
            kwargs = arguments_for(wrappers, env_kwargs, entry_point)
            # The checker looks at an environment's first step only, and its wrapper stays in the way of all others.
            env = gymnasium.make(source, **{"disable_env_checker": True, **kwargs})
        return wrapped(env, wrappers)


@contextmanager
def reported(id: str) -> Iterator[None]:
    """Turn what making an id raises into a ValueError that names it and the packages behind the error."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        missing = missing_simulator(id, behind="; ")
        raise ValueError(f"env {id!r} cannot be made: {packages.described(error)}{missing}") from error
