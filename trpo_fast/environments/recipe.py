"""What an environment is: all that is needed to make copies of it, to make them again, and to write it down."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Dict
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from trpo_fast._core.library import in_words
from trpo_fast.environments.base import Environments
from trpo_fast.environments.checks import require_same_spaces
from trpo_fast.environments.foreign import autoreset_mode, is_vector_environment, make_pool, pool_again
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.environments.making import make_copy, reported, separate, separate_wrapper
from trpo_fast.environments.named_wrappers import arguments_for, checked_wrappers, default_wrappers
from trpo_fast.environments.registry import find_spec, import_modules, load_entry_point
from trpo_fast.environments.simulators import draws_its_map
from trpo_fast.environments.trust import code_named, require_trust
from trpo_fast.environments.vector import VectorAdapter
from trpo_fast.environments.workers import WorkerEnvironments
from trpo_fast.solvers.validation import require_count
from trpo_fast.spaces import MASK_KEY

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
        Passed to the environment's constructor, or to the callable: a deep copy for each, of one that is made here.
        What cannot be copied, a module or a lock, is shared.
    wrappers : sequence, optional
        What every copy is wrapped in, the first innermost: ``"module:callable"``, a callable, or a name,
        as `named_wrappers` has them.
        None: what the id has by default (`resolved` says what); ``["none"]``, or none of them: nothing.
    modules : sequence of str
        Imported before an environment is made: ``"module"``, or ``"module:function"``, which is called, too.
    trusted : collection of str, optional
        Modules that may be imported although a file names them; None where a person wrote all of this.
    num_workers : int, optional
        Processes of "workers"; by default the cores that this process may use.

    Raises
    ------
    ValueError
        An unknown `vectorization`, or settings that do nothing for this source.
    TypeError
        A source that is none of the three, for example one environment; a callable that cannot be called with
        `env_kwargs` alone; arguments that are no mapping of names.
    """

    source: Any
    vectorization: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[Any] | None = None
    modules: Sequence[str] = ()
    trusted: Collection[str] | None = field(default=None, compare=False)
    num_workers: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        source, kwargs = self.source, self.env_kwargs
        if self.num_workers is not None:
            if self.vectorization != "workers":
                raise ValueError(
                    f"num_workers: {in_words(self.num_workers)} given; want it with vectorization='workers' alone"
                )
            object.__setattr__(self, "num_workers", require_count("num_workers", self.num_workers, low=1))
        if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
            raise TypeError(f"env_kwargs: {in_words(kwargs)} given; want a mapping from names to values")
        if not isinstance(kwargs, MappingProxyType):  # of another recipe, or of a file: nobody else's
            object.__setattr__(self, "env_kwargs", MappingProxyType(separate(dict(kwargs))))
        wrappers = checked_wrappers(self.wrappers)
        object.__setattr__(self, "wrappers", None if wrappers is None else tuple(map(separate_wrapper, wrappers)))
        object.__setattr__(self, "modules", _checked_modules(self.modules))
        if is_vector_environment(source):
            making = {"env_kwargs": kwargs, "wrappers": self.wrappers, "imports": self.modules}
            for name, value in {"vectorization": self.vectorization, **making}.items():
                if value:
                    raise ValueError(
                        f"{name}: {in_words(value)} given; want it left out with a VectorEnv, which is used as it is"
                    )
            return
        if isinstance(source, gymnasium.Env) or not (isinstance(source, str) or callable(source)):
            raise TypeError(
                f"env: {in_words(source)} given; want an id, a callable that makes one environment, or a VectorEnv"
                f"{_hint_for_one(source)}"
            )
        if callable(source):
            _check_call(source, self.env_kwargs)
        if self.vectorization not in (None, *VECTORIZATIONS):
            raise ValueError(
                f"vectorization: {in_words(self.vectorization)} given; want one of {', '.join(VECTORIZATIONS)}"
            )
        if self.vectorization in ("vector", "envpool") and not isinstance(source, str):
            raise ValueError(
                f"vectorization={self.vectorization!r} given with env {source!r}; want a registered id: a VectorEnv "
                "serves, too"
            )
        if self.vectorization in ("vector", "envpool") and self.wrappers:
            raise ValueError(
                f"wrappers: {self.wrappers} given; want none with vectorization={self.vectorization!r}, whose copies "
                "nothing gets at"
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

    def steps_in(self, env: Any) -> bool:
        """Whether it is the vector environment `env` itself that this stands for, in wrappers or not."""
        if not (is_vector_environment(self.source) and is_vector_environment(env)):
            return False
        return getattr(self.source, "unwrapped", self.source) is getattr(env, "unwrapped", env)

    @property
    def code(self) -> list[str]:
        """Modules that making it imports by name: of the id, of `modules` and of wrappers."""
        return code_named(self.source, self.modules, self.wrappers or ())

    def resolved(self) -> EnvironmentRecipe:
        """The same with the wrappers that the id has by default spelled out; imports what names the id.

        ValueError for an unknown id, and where a file names code that is not trusted.
        """
        if self.wrappers is not None:
            return self
        if not isinstance(self.source, str) or self.vectorization in ("vector", "envpool"):
            return replace(self, wrappers=())
        return replace(self, wrappers=default_wrappers(self._spec(), self.env_kwargs))

    def trusting(self, imports: Sequence[str], *, everything: bool = False) -> EnvironmentRecipe:
        """The same after importing `imports`, which a person names; `everything` trusts whatever a file names."""
        imports = _checked_modules(imports)
        modules = (*self.modules, *(name for name in imports if name not in self.modules))
        trusted = None if everything or self.trusted is None else (*self.trusted, *imports)
        return replace(self, modules=modules, trusted=trusted)

    def with_changes(
        self,
        id: str | None,
        env_kwargs: Any,
        wrappers: Any,
        vectorization: str | None = None,
        num_workers: int | None = None,
    ) -> EnvironmentRecipe:
        """The same with what a person gives, which is trusted, an id that is only repeated, too; None keeps what is."""
        trusted = self.trusted
        if trusted is not None:
            trusted = (*trusted, *code_named(id, (), checked_wrappers(wrappers) or ()))
        kept_workers = self.num_workers if vectorization in (None, "workers") else None
        return replace(
            self,
            vectorization=vectorization or self.vectorization,
            env_kwargs=self.env_kwargs if env_kwargs is None else env_kwargs,
            wrappers=self.wrappers if wrappers is None else wrappers,
            trusted=trusted,
            num_workers=kept_workers if num_workers is None else num_workers,
        )

    def unsaid(self, env_kwargs: Any, wrappers: Any) -> dict[str, Any]:
        """Own arguments by name, in whose place nothing is said where another environment takes this one's."""
        kept = {"env_kwargs": (dict(self.env_kwargs), env_kwargs), "wrappers": (self._own_wrappers, wrappers)}
        return {name: own for name, (own, given) in kept.items() if own and given is None}

    def require_trust(self) -> None:
        """ValueError where a file names code of this recipe that no person has named: see `trust`."""
        require_trust(self.code, self.trusted)

    def make(
        self, num_envs: int, *, seed: int | None = None, obeys_masks: bool = False, first: int = 0
    ) -> Environments:
        """`num_envs` copies; a VectorEnv itself, which has its own number.

        `seed` is for constructors that draw from global generators, where copies have some of their own, in workers,
        and `first` the number of the first copy there. `obeys_masks` is as of :class:`Environments`.

        Raises
        ------
        ValueError
            An unknown id (near names are suggested), a simulator that is not installed (the extra is named), an
            unsupported space or autoreset mode, a bad `num_envs`.
        TypeError
            A callable that returns something else than an environment with two spaces.
        """
        if is_vector_environment(self.source):
            return VectorAdapter(self.source, again=self._vector_again(), owned=False, obeys_masks=obeys_masks)
        return self._make_copies(require_count("num_envs", num_envs, low=1), seed, obeys_masks, first)

    def make_again(self, num_envs: int, like: Any, *, seed: int | None = None) -> Environments:
        """New copies for what was trained on others.

        Parameters
        ----------
        num_envs : int
        like
            Anything with ``observation_space`` and ``action_space``: what the copies have to have, in the same order of
            columns. A mask in a Dict observation is obeyed and left out where `like` has no such part.
        seed : int, optional
            As for `make`.

        Raises
        ------
        ValueError
            As `make`; the spaces are not those of `like`, since what an id or a function stands for may change; or it
            is a VectorEnv that cannot be made again (`reason_against_making_again`).
        """
        num_envs = require_count("num_envs", num_envs, low=1)
        if not is_vector_environment(self.source):
            return self.make_like(num_envs, like, seed=seed)
        again = self._vector_again()
        if again is None:
            raise ValueError(f"env: {self.reason_against_making_again}")
        adapter = VectorAdapter(again(num_envs), again=again, obeys_masks=_obeys_masks(like))
        return _required(adapter, like, self.name)

    def make_like(self, num_envs: int, like: Any, *, seed: int | None = None, first: int = 0) -> Environments:
        """`make`; ValueError where the spaces are not those of `like`, in the same order of columns."""
        made = self.make(num_envs, seed=seed, obeys_masks=_obeys_masks(like), first=first)
        return _required(made, like, self.name)

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

    @property
    def reason_against_starting_afresh(self) -> str | None:
        """Why `make_like` may not give what a new process has; None where it does, or a reset with a seed is the same.

        That holds for ale-py's vector environment, found by experiment. What a function of the user's draws when it
        makes a copy is not known.
        """
        if isinstance(self.source, str) and "FrozenLake" in self.source and draws_its_map(self.env_kwargs):
            return "its map is another one whenever it is made"
        kind: Any = type(self.source)
        known = (kind.__module__, kind.__name__) == ("ale_py.vector_env", "AtariVectorEnv")
        if not is_vector_environment(self.source) or known:
            return None
        return f"a {kind.__name__} was given, which is used as it is; want an id, or a function that makes one copy"

    def to_json(self) -> dict[str, Any] | None:
        """What a file keeps, exactly; None where there is no id, or something of it is not the same after JSON.

        An argument is not the same where its type is another one: an environment may well tell a member of an IntEnum
        from the integer that it equals.
        """
        if not isinstance(self.source, str):
            return None
        description = {
            "id": self.source,
            "vectorization": self.vectorization,
            "env_kwargs": dict(self.env_kwargs),
            "wrappers": None if self.wrappers is None else list(self.wrappers),
            "modules": list(self.modules),
            "num_workers": self.num_workers,
        }
        try:
            read = json.loads(json.dumps(description))
        except (TypeError, ValueError, RecursionError):
            return None
        same = read == description and _of_same_types(read["env_kwargs"], description["env_kwargs"])
        return description if same else None

    @property
    def not_kept(self) -> list[str]:
        """Names of the arguments that a file says nothing of, as it cannot say all of how the environment is made."""
        if self.to_json() is not None:
            return []
        return [name for name, own in (("env_kwargs", self.env_kwargs), ("wrappers", self._own_wrappers)) if own]

    @property
    def _own_wrappers(self) -> list[Any]:
        """Those that an id does not have by default."""
        return [] if self.wrappers in (None, ("atari",)) else list(self.wrappers or ())

    @classmethod
    def from_json(cls, description: Any) -> EnvironmentRecipe:
        """Inverse of `to_json`, with nothing trusted; ValueError for anything else."""
        # What files from before these fields have been made with.
        older: dict[str, Any] = {"wrappers": [], "modules": [], "num_workers": None}
        kinds: dict[str, Any] = {"id": str, "vectorization": (str, type(None)), "env_kwargs": dict}
        kinds |= {"wrappers": (list, type(None)), "modules": list, "num_workers": (int, type(None))}
        values = {**older, **description} if isinstance(description, Mapping) else {}
        if not all(name in values and isinstance(values[name], kind) for name, kind in kinds.items()):
            raise ValueError(f"environment: {in_words(description)} given; want an object with {', '.join(kinds)}")
        values["env_kwargs"] = MappingProxyType(values["env_kwargs"])
        return cls(values.pop("id"), **{name: values[name] for name in kinds if name != "id"}, trusted=())

    def _spec(self) -> EnvSpec:
        self.require_trust()
        import_modules(self.modules)
        return find_spec(self.source)

    def _make_copies(self, num_envs: int, seed: int | None, obeys_masks: bool, first: int) -> Environments:
        env, kwargs = self.source, dict(self.env_kwargs)
        self.require_trust()
        if not isinstance(env, str):
            return self._stepped([self._maker()] * num_envs, seed, obeys_masks, first)
        if self.vectorization == "envpool":
            import_modules(self.modules)
            return VectorAdapter(make_pool(env, num_envs, kwargs), obeys_masks=obeys_masks)
        spec = self._spec()
        entry_point: Any = spec.entry_point
        if self.vectorization == "vector":
            entry_point = spec.vector_entry_point
            if entry_point is None:
                raise ValueError(
                    f"vectorization: 'vector' given, but {env} has no vector version of its own; want 'sync', "
                    "'workers' or 'async'"
                )
        with reported(env):
            if isinstance(entry_point, str):
                load_entry_point(entry_point)
            if self.vectorization == "vector":
                again = functools.partial(_made_by_entry_point, env, kwargs)
                return VectorAdapter(again(num_envs), again=again, obeys_masks=obeys_masks)
        recipe = self.resolved()
        arguments_for(recipe.wrappers or (), kwargs, entry_point)
        return self._stepped([recipe._maker()] * num_envs, seed, obeys_masks, first)

    def _maker(self) -> Callable[[], Any]:
        """Makes one copy, here or in another process."""
        return functools.partial(make_copy, self.source, dict(self.env_kwargs), self.wrappers or (), self.modules)

    def _stepped(
        self, makers: list[Callable[[], Any]], seed: int | None, obeys_masks: bool, first: int
    ) -> Environments:
        if self.vectorization in ("workers", "async"):
            workers = len(makers) if self.vectorization == "async" else self.num_workers
            return WorkerEnvironments(makers, workers, seed, obeys_masks=obeys_masks, first=first)
        return InProcessEnvironments(makers, obeys_masks=obeys_masks, first=first)

    def _vector_again(self) -> Callable[[int], VectorEnv[Any, Any, Any]] | None:
        """How to make more of a user's VectorEnv; None when wrappers or an unknown class would be lost on the way."""
        env = self.source
        if getattr(env, "unwrapped", env) is not env:
            return None
        if isinstance(getattr(env, "spec", None), EnvSpec):
            return functools.partial(_made_from_spec, env.spec, type(env), autoreset_mode(env))
        if type(env) in (SyncVectorEnv, AsyncVectorEnv):  # a subclass may change anything
            taken = list(getattr(env, "envs", ()))  # in this process
            return functools.partial(_made_from_functions, type(env), list(env.env_fns), autoreset_mode(env), taken)
        return pool_again(env)


def _obeys_masks(like: Any) -> bool:
    """Whether what was trained, or is to be played with, does not see the mask of its observations."""
    space = like.observation_space
    return isinstance(space, Dict) and MASK_KEY not in space.spaces


def _required(made: Environments, like: Any, name: str) -> Environments:
    try:
        require_same_spaces(made, like, whose=f"env {name}", wanted_by="the agent's")
    except BaseException:
        made.close()
        raise
    return made


def _made_by_entry_point(id: str, kwargs: Mapping[str, Any], num_envs: int) -> VectorEnv[Any, Any, Any]:
    return gymnasium.make_vec(id, num_envs=num_envs, vectorization_mode="vector_entry_point", **separate(dict(kwargs)))


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


def _made_from_functions(
    kind: Any, functions: list[Any], mode: Any, taken: list[Any], num_envs: int
) -> VectorEnv[Any, Any, Any]:
    makers = [functions[i % len(functions)] for i in range(num_envs)]
    made: Any = kind(makers, autoreset_mode=mode)
    in_use = {id(env.unwrapped) for env in taken}
    again = [env.unwrapped for env in getattr(made, "envs", ()) if id(env.unwrapped) in in_use]
    if again:  # and is not closed
        raise ValueError(
            f"env: a function of the {kind.__name__} given must make a new environment at every call, it returned a "
            f"{type(again[0]).__name__} that is in use there: its episodes would be cut, and it closed; want functions "
            "that make one, or evaluate(env=...) with another"
        )
    vector: VectorEnv[Any, Any, Any] = made
    return vector


def _of_same_types(one: Any, other: Any) -> bool:
    """Whether two equal values are of the same types all the way down, keys included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        one, other = (list(map(list, value.items())) for value in (one, other))
    return not isinstance(one, list) or all(map(_of_same_types, one, other))


def _check_call(source: Any, kwargs: Mapping[str, Any]) -> None:
    """TypeError for a callable that cannot be called with `kwargs` alone, as far as its signature tells."""
    try:
        signature = inspect.signature(source, follow_wrapped=False)  # of what is called
    except (TypeError, ValueError):  # of what is compiled
        return
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        said = f"with env_kwargs {dict(kwargs)}" if kwargs else "without arguments"
        raise TypeError(
            f"env: {in_words(source)} given, which cannot be called {said} ({error}); want an id, or a callable that "
            "makes one environment"
        ) from None


def _hint_for_one(env: Any) -> str:
    """What to write where one environment was handed in; nothing for what is none, of whatever package."""
    if not (callable(getattr(env, "reset", None)) and callable(getattr(env, "step", None))):
        return ""
    id = getattr(getattr(env, "spec", None), "id", None)
    make = f"gymnasium.make({id!r})" if id and isinstance(env, gymnasium.Env) else f"{type(env).__name__}(...)"
    return (
        f", which is one environment already; write lambda: {make}, with its arguments and wrappers, which makes a new "
        "one at every call"
    )


def _checked_modules(modules: Any) -> tuple[str, ...]:
    strings = not isinstance(modules, str) and isinstance(modules, Sequence)
    if not strings or not all(isinstance(name, str) and name for name in modules):
        raise TypeError(f"imports: {in_words(modules)} given; want a sequence of names of modules")
    return tuple(modules)
