"""What an environment is: all that is needed to make copies of it, to make them again, and to write it down."""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from trpo_fast.environments.base import Environments
from trpo_fast.environments.checks import require_same_spaces
from trpo_fast.environments.foreign import autoreset_mode, is_vector_environment, make_pool, pool_again
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.environments.registry import find_spec, hint, load_entry_point
from trpo_fast.environments.vector import VectorAdapter
from trpo_fast.environments.workers import WorkerEnvironments

VECTORIZATIONS = ("sync", "workers", "async", "vector", "envpool")


@dataclass(frozen=True)
class EnvironmentRecipe:
    """How environments are made: once for training, and again for evaluation, after a load or an interruption.

    Parameters
    ----------
    source : str, callable or VectorEnv
        A registered id (``"module:Name-v0"`` imports the module first), a callable that makes one environment per call,
        or a gymnasium VectorEnv, which is used as it is; what EnvPool, ale-py and SuperSuit make serves, too.
    vectorization : {"sync", "workers", "async", "vector", "envpool"}, optional
        "sync" steps the copies in turn in this process, "workers" shares them out to processes that step side by side,
        to the same bits, and "async" is a process for every copy. "vector" uses the vector version that an environment
        brings (CartPole-v1 does), "envpool" takes EnvPool's environment of that id. The default is "sync": it works for
        every environment. A vector version pays from a few dozen copies on, but may reset in the step after an
        episode's end (NEXT_STEP), which wastes that step, and may not take the same arguments.
    env_kwargs : mapping
        Passed to the environment's constructor, or to the callable.
    num_workers : int, optional
        Processes of "workers"; by default the cores that this process may use.

    Raises
    ------
    ValueError
        An unknown `vectorization`, or settings that do nothing for this source.
    TypeError
        A source that is none of the three, for example one environment; arguments that are no mapping of names.
    """

    source: Any
    vectorization: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_workers: int | None = None

    def __post_init__(self) -> None:
        source, kwargs = self.source, self.env_kwargs
        if self.num_workers is not None:
            if self.vectorization != "workers":
                raise ValueError(f"num_workers: {self.num_workers!r} given; want it with vectorization='workers' alone")
            object.__setattr__(self, "num_workers", _checked_number("num_workers", self.num_workers))
        if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
            raise TypeError(f"env_kwargs must be a mapping from names to values, got {kwargs!r}")
        object.__setattr__(self, "env_kwargs", MappingProxyType(dict(kwargs)))
        if is_vector_environment(source):
            if self.vectorization is not None or kwargs:
                raise ValueError(
                    "vectorization and env_kwargs must be left out with a VectorEnv, which is used as it is"
                )
            return
        if isinstance(source, gymnasium.Env) or not (isinstance(source, str) or callable(source)):
            raise TypeError(f"env must be an id, a callable that makes one environment, or a VectorEnv, got {source!r}")
        if self.vectorization not in (None, *VECTORIZATIONS):
            raise ValueError(f"vectorization must be one of {', '.join(VECTORIZATIONS)}, got {self.vectorization!r}")
        if self.vectorization in ("vector", "envpool") and not isinstance(source, str):
            raise ValueError(
                f"vectorization={self.vectorization!r} needs a registered id as env, got {source!r}; a VectorEnv "
                "serves, too"
            )

    @property
    def id(self) -> str | None:
        """The registered id; a VectorEnv's own where it carries one, None for a callable."""
        if is_vector_environment(self.source):
            return getattr(getattr(self.source, "spec", None), "id", None)  # EnvPool's has none
        return self.source if isinstance(self.source, str) else None

    @property
    def name(self) -> str:
        """What to call the environment."""
        return self.id or getattr(self.source, "__name__", None) or type(self.source).__name__

    def make(self, num_envs: int) -> Environments:
        """`num_envs` copies; a VectorEnv itself, which has its own number.

        Raises
        ------
        ValueError
            An unknown id (near names are suggested), a simulator that is not installed (the extra is named), an
            unsupported space or autoreset mode, a bad `num_envs`.
        TypeError
            A callable that returns something else than an environment with two spaces.
        """
        if is_vector_environment(self.source):
            return VectorAdapter(self.source, again=self._vector_again(), owned=False)
        return self._make_copies(_checked_number("num_envs", num_envs))

    def make_again(self, num_envs: int, like: Any) -> Environments:
        """New copies for what was trained on others.

        Parameters
        ----------
        num_envs : int
        like
            Anything with ``observation_space`` and ``action_space``: what the copies have to have, in the same order of
            columns.

        Raises
        ------
        ValueError
            As `make`; the spaces are not those of `like`, since what an id or a function stands for may change; or it
            is a VectorEnv that cannot be made again (`reason_against_making_again`).
        """
        num_envs = _checked_number("num_envs", num_envs)
        if not is_vector_environment(self.source):
            return self.make_like(num_envs, like)
        again = self._vector_again()
        if again is None:
            raise ValueError(f"env: {self.reason_against_making_again}")
        return _required(VectorAdapter(again(num_envs), again=again), like, self.name)

    def make_like(self, num_envs: int, like: Any) -> Environments:
        """`make`; ValueError where the spaces are not those of `like`, in the same order of columns."""
        return _required(self.make(num_envs), like, self.name)

    @property
    def reason_against_making_again(self) -> str | None:
        """Why `make_again` is not possible, and what would be; None where it is."""
        if not is_vector_environment(self.source) or self._vector_again() is not None:
            return None
        return (
            f"cannot make new environments like {type(self.source).__name__}, which carries no recipe (a spec from "
            "gymnasium.make_vec, env_fns of a plain SyncVectorEnv or AsyncVectorEnv, EnvPool's configuration); pass an "
            "id or a callable that makes one environment, or evaluate(env=...)"
        )

    def to_json(self) -> dict[str, Any] | None:
        """What a file keeps, exactly; None where there is no id or the arguments are not the same after JSON."""
        if not isinstance(self.source, str):
            return None
        description = {
            "id": self.source,
            "vectorization": self.vectorization,
            "env_kwargs": dict(self.env_kwargs),
            "num_workers": self.num_workers,
        }
        try:
            same = json.loads(json.dumps(description)) == description
        except (TypeError, ValueError):
            return None
        return description if same else None

    @classmethod
    def from_json(cls, description: Any) -> EnvironmentRecipe:
        """Inverse of `to_json`; ValueError for anything else."""
        kinds: dict[str, Any] = {
            "id": str,
            "vectorization": (str, type(None)),
            "env_kwargs": dict,
            "num_workers": (int, type(None)),
        }
        if isinstance(description, Mapping):
            description = {"num_workers": None, **description}  # which older files lack
        if not isinstance(description, Mapping) or any(
            not isinstance(description.get(name, 0.0), kind) for name, kind in kinds.items()
        ):
            raise ValueError(f"environment: {description!r} given; want an object with {', '.join(kinds)}")
        return cls(*(description[name] for name in kinds))

    def _make_copies(self, num_envs: int) -> Environments:
        env, kwargs = self.source, dict(self.env_kwargs)
        if not isinstance(env, str):
            return self._stepped([functools.partial(env, **kwargs)] * num_envs)
        if self.vectorization == "envpool":
            return VectorAdapter(make_pool(env, num_envs, kwargs))
        spec = find_spec(env)
        entry_point: Any = spec.entry_point
        if self.vectorization == "vector":
            entry_point = spec.vector_entry_point
            if entry_point is None:
                raise ValueError(f"vectorization: {env} has no vector version of its own; use 'sync'")
        try:
            if isinstance(entry_point, str):
                load_entry_point(entry_point)
            if self.vectorization == "vector":
                again = functools.partial(gymnasium.make_vec, env, vectorization_mode="vector_entry_point", **kwargs)
                return VectorAdapter(again(num_envs=num_envs), again=lambda number: again(num_envs=number))
            # The checker looks at an environment's first step only, and its wrapper stays in the way of all others.
            make_one = functools.partial(gymnasium.make, env, **{"disable_env_checker": True, **kwargs})
            return self._stepped([make_one] * num_envs)
        except (ImportError, gymnasium.error.Error) as error:
            raise ValueError(f"env {env!r} cannot be made: {error}{hint(env)}") from error

    def _stepped(self, makers: list[Callable[[], Any]]) -> Environments:
        if self.vectorization in ("workers", "async"):
            return WorkerEnvironments(makers, len(makers) if self.vectorization == "async" else self.num_workers)
        return InProcessEnvironments(makers)

    def _vector_again(self) -> Callable[[int], VectorEnv[Any, Any, Any]] | None:
        """How to make more of a user's VectorEnv; None when wrappers or an unknown class would be lost on the way."""
        env = self.source
        if getattr(env, "unwrapped", env) is not env:
            return None
        if isinstance(getattr(env, "spec", None), EnvSpec):
            return functools.partial(_made_from_spec, env.spec, type(env), autoreset_mode(env))
        if type(env) in (SyncVectorEnv, AsyncVectorEnv):  # a subclass may change anything
            return functools.partial(_made_from_functions, type(env), list(env.env_fns), autoreset_mode(env))
        return pool_again(env)


def _required(made: Environments, like: Any, name: str) -> Environments:
    try:
        require_same_spaces(made, like, whose=f"env {name}", wanted_by="the agent's")
    except BaseException:
        made.close()
        raise
    return made


def _made_from_spec(spec: Any, kind: type, mode: Any, num_envs: int) -> VectorEnv[Any, Any, Any]:
    spec = copy.deepcopy(spec)
    spec.kwargs.pop("num_envs", None)
    made = gymnasium.make_vec(spec, num_envs=num_envs)
    if type(made) is not kind or autoreset_mode(made) != mode:
        made.close()
        raise ValueError(
            f"env: the spec of the {kind.__name__} given makes {type(made).__name__} of autoreset mode "
            f"{autoreset_mode(made)}; want the same kind and mode, {mode}"
        )
    return made


def _made_from_functions(kind: Any, functions: list[Any], mode: Any, num_envs: int) -> VectorEnv[Any, Any, Any]:
    makers = [functions[i % len(functions)] for i in range(num_envs)]
    made: VectorEnv[Any, Any, Any] = kind(makers, autoreset_mode=mode)
    return made


def _checked_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return operator.index(value)
