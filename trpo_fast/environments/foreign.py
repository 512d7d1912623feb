"""What vector environments of other packages do differently, turned into what Gymnasium's VectorEnv promises.

A dialect is recognised by what an object has and by what it answers, so that no package has to be imported for it.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from trpo_fast.environments.making import reported


def is_vector_environment(env: Any) -> bool:
    """Whether `env` is several copies of an environment: a gymnasium VectorEnv, or an object that is used like one."""
    if isinstance(env, VectorEnv):
        return True
    steps = callable(getattr(env, "reset", None)) and callable(getattr(env, "step", None))
    several = isinstance(getattr(env, "num_envs", None), int) or _is_envpool(env)
    return steps and several and not isinstance(env, type)


def translated(env: Any) -> VectorEnv[Any, Any, Any]:
    """`env` where it answers as a gymnasium VectorEnv, else what answers so for it.

    ValueError, TypeError where it is used in a way that has no translation; names what is wanted.
    """
    inner = getattr(env, "unwrapped", env)
    if _is_envpool(inner):
        return _GivenPool(env, inner)
    if hasattr(inner, "num_envs") and getattr(inner, "batch_size", inner.num_envs) != inner.num_envs:
        raise ValueError(
            f"env: {type(env).__name__} answers for batch_size={inner.batch_size} of its {inner.num_envs} copies at a "
            "time; want all of them, batch_size left out"
        )
    if not isinstance(getattr(env, "single_observation_space", None), Space):
        if callable(getattr(env, "env_method", None)):
            raise TypeError(
                f"env: {type(env).__name__} is a VecEnv of Stable-Baselines3; want an id, a callable or a gymnasium "
                "VectorEnv, or trpo_fast.sb3.TRPO, which takes it"
            )
        if callable(getattr(env, "env_is_wrapped", None)):
            return _ListedInfos(env)
        raise TypeError(f"env: {type(env).__name__} has no single_observation_space, as a gymnasium VectorEnv has")
    return env if isinstance(env, VectorEnv) else _Translated(env, env.single_observation_space)


def in_arrays(
    env: VectorEnv[Any, Any, Any], observations: Any, infos: Any
) -> tuple[VectorEnv[Any, Any, Any], Any, Any]:
    """What reset of `env` returned, with NumPy arrays, and an environment whose steps take and give these.

    That is `env` itself where it does so; the first answer shows whether it speaks torch.
    """
    if not any(map(_is_tensor, _leaves(observations))):
        return env, observations, infos
    return _Tensors(env), _arrays(observations), _needed_infos(infos)


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """When `env` starts the next episode; ValueError where it does not say, or does not do it by itself."""
    declared = env.metadata.get("autoreset_mode")
    if env.metadata is getattr(env.unwrapped, "metadata", None):
        # A class's metadata belong to all of its objects, and the one made last writes its mode into them.
        declared = getattr(env.unwrapped, "autoreset_mode", None) or declared
    try:
        mode = AutoresetMode(declared)
    except ValueError:
        raise ValueError(
            f"env: metadata['autoreset_mode'] {declared!r} given, of {type(env).__name__}; want "
            "AutoresetMode.SAME_STEP or NEXT_STEP"
        ) from None
    if mode is AutoresetMode.DISABLED:
        raise ValueError(
            f"env: autoreset mode DISABLED of {type(env).__name__} is not supported; make it with "
            "AutoresetMode.SAME_STEP or NEXT_STEP"
        )
    return mode


def is_translated(env: VectorEnv[Any, Any, Any]) -> bool:
    """Whether `env` stands for one of another package."""
    return isinstance(env, _Translated | SeededPool)


def leaves_answers(env: VectorEnv[Any, Any, Any]) -> bool:
    """Whether a call that was interrupted leaves answers behind that a later call would take for its own."""
    inner: Any = env.unwrapped
    if isinstance(inner, SeededPool):
        return False  # every reset makes a new pool
    sends = callable(getattr(inner, "send", None)) and callable(getattr(inner, "recv", None))
    return sends or isinstance(inner, AsyncVectorEnv) or hasattr(inner, "pipes")


def pool_again(env: Any) -> Callable[[int], VectorEnv[Any, Any, Any]] | None:
    """How to make more of a user's EnvPool, from its configuration; None for anything else."""
    return functools.partial(_pool_like, type(env), env.spec) if _is_envpool(env) else None


def make_pool(id: str, num_envs: int, arguments: Mapping[str, Any]) -> SeededPool:
    """EnvPool's `id`; ValueError where the package is missing, or does not have it."""
    for name in ("seed", "env_seed", "num_envs", "batch_size", "env_type"):
        if name in arguments:
            raise ValueError(
                f"env_kwargs: {name} given; want it left out with vectorization='envpool', which sets it itself"
            )
    try:
        import envpool
    except ImportError as error:
        raise ValueError(
            f"vectorization: 'envpool' given, but envpool cannot be imported ({error}); want "
            "pip install 'trpo-fast[envpool]'"
        ) from error
    known = envpool.list_all_envs()
    if id not in known:
        near = ", ".join(get_close_matches(id, known, n=4, cutoff=0.6))
        raise ValueError(f"env: EnvPool has no {id!r}.{f' Near names: {near}.' if near else ''}")
    make = functools.partial(envpool.make, id, env_type="gymnasium", num_envs=num_envs, **arguments)
    with reported(id):
        spec = envpool.make_spec(id, num_envs=num_envs, **arguments)
    return SeededPool(spec, lambda seed: make(seed=seed))


class _Translated(VectorEnv[Any, Any, Any]):
    """Another package's vector environment `env`, whose copies have one observation space."""

    def __init__(self, env: Any, observation_space: Space[Any], action_space: Space[Any] | None = None) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.single_observation_space = observation_space
        self.single_action_space = env.single_action_space if action_space is None else action_space
        self.metadata = getattr(env, "metadata", None) or {}

    @property
    def unwrapped(self) -> Any:
        return getattr(self.env, "unwrapped", self.env)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        return self.env.step(actions)

    def close(self, **kwargs: Any) -> None:
        if hasattr(self.env, "close"):
            self.env.close(**kwargs)


class _ListedInfos(_Translated):
    """SuperSuit's vectors of PettingZoo environments.

    They start the next episode in the same step and have one dict of infos for each copy, in which
    ``terminal_observation`` is the last one of the episode that ended; their spaces are those of one copy.
    """

    def __init__(self, env: Any) -> None:
        for part in (env, *getattr(env, "vec_envs", ())):
            if getattr(part, "black_death", False):
                raise ValueError(
                    f"env: black_death=True of {type(part).__name__} hides the end of the episode from agents that "
                    "died before it; want supersuit.black_death_v3 around the parallel environment instead"
                )
        super().__init__(env, env.observation_space, env.action_space)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, self._gathered(infos)

    def step(self, actions: Any) -> Any:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        return observations, rewards, terminated != 0, truncated != 0, self._gathered(infos)

    def _gathered(self, infos: Any) -> dict[str, Any]:
        if infos and isinstance(infos[0], list):  # of each process, the copies with something to tell
            listed: list[Any] = [{}] * self.num_envs
            for first, some in zip(self.env.idx_starts, infos, strict=False):
                for i, info in some:
                    listed[first + i] = info
            infos = listed
        gathered: dict[str, Any] = {}
        for theirs, name in (("terminal_observation", "final_obs"), ("action_mask", "action_mask")):
            present = np.array([theirs in info for info in infos])
            if present.any():
                values = np.full(self.num_envs, None)
                for i in np.flatnonzero(present):
                    values[i] = infos[i][theirs]
                gathered[name], gathered[f"_{name}"] = values, present
        return gathered


class _GivenPool(_Translated):
    """A user's EnvPool, perhaps in vector wrappers: it takes its seed when it is made, and none when it is reset."""

    def __init__(self, env: Any, pool: Any) -> None:
        if not isinstance(pool, VectorEnv):
            raise TypeError(f"env: {type(pool).__name__} given; want envpool.make(..., env_type='gymnasium')")
        _check_pool(pool.spec)
        super().__init__(env, env.single_observation_space)
        spec: Any = pool.spec
        config, default = spec.config, spec.gen_config()
        if (config.seed, list(config.env_seed)) == (default.seed, []):
            warnings.warn(
                f"env: EnvPool's seed is fixed when it is made: {type(pool).__name__} has its default, {config.seed}, "
                "whatever the agent's seed is; give envpool.make another, or the id with vectorization='envpool'",
                stacklevel=2,
            )

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        return self.env.reset(options=options)


class SeededPool(VectorEnv[Any, Any, Any]):
    """EnvPool with Gymnasium's ``reset(seed=)``: every reset makes a new pool, as only that takes a seed.

    Parameters
    ----------
    spec : EnvSpec of EnvPool
    make : callable
        A pool of that specification, for a seed.
    """

    def __init__(self, spec: Any, make: Callable[[int], Any]) -> None:
        _check_pool(spec)
        self.num_envs = spec.config.num_envs
        self.single_observation_space = spec.gymnasium_observation_space
        self.single_action_space = spec.gymnasium_action_space
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._make = make
        self._pool: Any = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Start new episodes; copy i is seeded with ``seed + i``, by the system where there is no seed."""
        self._end()
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0]) % (2**31 - self.num_envs)
        self._pool = self._make(seed)
        return self._pool.reset(options=options)

    def step(self, actions: Any) -> Any:
        """EnvPool's own."""
        return self._pool.step(actions)

    def close(self, **_: Any) -> None:
        """End its threads."""
        self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None  # its threads end with the object


class _Tensors(_Translated):
    """An environment that takes and gives torch tensors of the CPU."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env, env.single_observation_space)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        observations, infos = self.env.reset(seed=seed, options=options)
        return _arrays(observations), _needed_infos(infos)

    def step(self, actions: Any) -> Any:
        torch = sys.modules["torch"]
        *answer, infos = self.env.step(_tensors(actions, torch))
        return *map(_arrays, answer), _needed_infos(infos)


def _arrays(value: Any) -> Any:
    """`value` with arrays in place of torch tensors, sharing their memory; TypeError for those of a device."""
    if _is_tensor(value):
        if value.device.type != "cpu":
            raise TypeError(f"env: torch tensors on {value.device} given; want the environment on the CPU")
        return value.detach().numpy()
    if isinstance(value, Mapping):
        return {key: _arrays(part) for key, part in value.items()}
    return tuple(map(_arrays, value)) if isinstance(value, tuple) else value


def _tensors(actions: Any, torch: Any) -> Any:
    """`actions` with torch tensors in place of arrays, sharing their memory."""
    if isinstance(actions, dict):
        return {key: _tensors(part, torch) for key, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(_tensors(part, torch) for part in actions)
    return torch.from_numpy(actions)


def _needed_infos(infos: Any) -> Any:
    names = ("final_obs", "_final_obs", "action_mask", "_action_mask")
    return {name: _arrays(infos[name]) for name in names if name in infos}


def _leaves(observations: Any) -> Any:
    if isinstance(observations, Mapping):
        observations = tuple(observations.values())
    if isinstance(observations, tuple):
        for part in observations:
            yield from _leaves(part)
    else:
        yield observations


def _is_tensor(value: Any) -> bool:
    torch: Any = sys.modules.get("torch")  # where it is not imported nobody has tensors
    return torch is not None and isinstance(value, torch.Tensor)


def _is_envpool(env: Any) -> bool:
    return hasattr(getattr(env, "spec", None), "gen_config") and hasattr(env, "recv")


def _check_pool(spec: Any) -> None:
    config = spec.config
    if config.batch_size not in (0, config.num_envs):
        raise ValueError(
            f"env: EnvPool with batch_size={config.batch_size} answers for a part of its {config.num_envs} copies at a "
            "time; want all of them, batch_size left out"
        )
    if getattr(config, "max_num_players", 1) > 1:
        raise ValueError(f"env: EnvPool with max_num_players={config.max_num_players} given; want one player")


def _pool_like(kind: Any, spec: Any, num_envs: int) -> SeededPool:
    def seeded(seed: int) -> Any:
        config = spec.config._replace(num_envs=num_envs, batch_size=num_envs, seed=seed, env_seed=[])
        return type(spec)(config)

    return SeededPool(seeded(0), lambda seed: kind(seeded(seed)))
