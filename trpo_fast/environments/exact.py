"""The whole state of an environment: with it another one, in another process, goes on with the same bits.

An environment is looked at layer by layer: its wrappers, then what they wrap. A layer is known, or says its own
state by a pair of methods, ``get_state() -> dict`` of plain data and ``set_state(state)``, that speak of this layer
alone; the random generator of the innermost is kept beside. Where a layer is neither, nothing is known of the whole.
What is known of simulators and wrappers is in `simulators`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper

from trpo_fast.environments import simulators
from trpo_fast.environments.simulators import Kind
from trpo_fast.state import State, copied

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class NotKept(Exception):
    """A known wrapper or simulator keeps something, of an environment's for example, that no file can have."""


def reason_against(env: Any) -> str | None:
    """Why `env`, an environment or a vector environment, cannot be put back to the bit; None where it can."""
    for layer in _layers(env):
        reason = simulators.reason_against(layer)
        if reason is not None:
            return reason
        if _kind_of(layer) is None:
            return (
                f"nothing is known of the state of {type(layer).__name__} (get_state() and set_state(state) would say "
                "it)"
            )
        generator = _own_generator(layer)
        if generator is not None and not _is_known(generator):
            return f"the random generator of {type(layer).__name__} is {generator!r}"
    copies = getattr(env.unwrapped, "envs", ()) if isinstance(env, VectorEnv) else ()
    return next(filter(None, map(reason_against, copies)), None)


def watch(env: Any) -> None:
    """Begin to note what `get_state` needs to know, before the first reset of `env`: once, for good."""
    if isinstance(env, VectorEnv):
        for copy in getattr(env.unwrapped, "envs", ()):
            watch(copy)
    else:
        simulators.watch(env.unwrapped)


def get_state(env: Any, name: str = "env") -> State:
    """State of `env`, for which `reason_against` has nothing to say; errors call it `name`.

    TypeError where what a layer says by a method of its own is no dict of plain data; what that raises travels on.
    NotKept where a layer without one keeps what is none.
    """
    layers = []
    for layer in _layers(env):
        kind = _kind_of(layer)
        assert kind is not None
        own, whose = kind.get(layer), type(layer).__name__
        if not isinstance(own, dict):
            raise TypeError(f"{name}: get_state() of {whose} returned {own!r:.100}; want a dict")
        if _has_own_pair(cast(Any, type(layer))):
            own = copied(own, f"{name}: get_state() of {whose}")
        else:
            try:
                own = {part: copied(value, part) for part, value in own.items()}
            except TypeError as error:
                raise NotKept(f"{name}: {whose} keeps what no file can have: {error}") from error
        layers.append((simulators.name_of(layer), own))
    return {
        "layers": layers,
        "generator": _generator_state(env.unwrapped),
        "making": simulators.digest_of_making(env.unwrapped),
    }


def set_state(env: Any, state: Any, name: str = "env") -> None:
    """Put `env` where the one was whose state this is, neither reset before nor afterwards; errors call it `name`.

    ValueError where the state is of other layers, or of another version of a simulator, where a layer's own method
    raises, or the constructor of a simulator has decided something else this time. `env` has to be reset then.
    """
    try:
        given, generator = state["layers"], state["generator"]
        names = [layer for layer, _ in given]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{name}: not the state of an environment") from error
    layers = list(_layers(env))
    if len(names) != len(layers) or not all(map(_is_of, names, layers)):
        saved_of, own = " in ".join(map(str, reversed(names))), map(simulators.name_of, reversed(layers))
        raise ValueError(f"{name}: saved of {saved_of}; this is {' in '.join(own)}")
    for layer, (_, saved) in zip(layers, given, strict=True):
        kind = _kind_of(layer)
        if kind is None:
            raise ValueError(f"{name}: {reason_against(env)}")
        try:
            kind.set(layer, copied(saved))
        except Exception as error:  # of a user's method, or of a simulator's
            is_own = _has_own_pair(cast(Any, type(layer)))
            if isinstance(error, ValueError) and not is_own:
                raise  # which says what it is about
            whose = "set_state()" if is_own else "putting back the state"
            raise ValueError(f"{name}: {whose} of {type(layer).__name__} raised {error!r}") from error
    making = state.get("making")  # which files of before do not have
    # Looked at now, as a layer with methods of its own may well have put back what it changes in its simulator.
    if making is not None and making != simulators.digest_of_making(env.unwrapped):
        raise ValueError(
            f"{name}: {type(env.unwrapped).__name__}, made again, is another one than was saved, in one of "
            f"{', '.join(simulators.parts_of_making(env.unwrapped))}"
        )
    _put_generator(env.unwrapped, generator)


def _layers(env: Any) -> Iterator[Any]:
    """`env`, what it wraps, and so on."""
    yield env
    while isinstance(env, gymnasium.Wrapper | VectorWrapper):
        env = env.env
        yield env


def _is_of(name: Any, layer: Any) -> bool:
    """Whether a layer is of the class whose full name this is.

    A class that says its own state may have another module, or be in another function: one of a script is called
    otherwise where another script imports it, and one in a function where a worker has it.
    """
    own = simulators.name_of(layer)
    if name == own:
        return True
    return (
        isinstance(name, str)
        and _has_own_pair(cast(Any, type(layer)))
        and not name.startswith(simulators.PACKAGES)
        and name.rpartition(".")[2] == own.rpartition(".")[2]
    )


def _kind_of(layer: Any) -> Kind | None:
    kind: Any = type(layer)
    if _has_own_pair(kind):
        return Kind(lambda layer: layer.get_state(), lambda layer, state: layer.set_state(state))
    if kind is SyncVectorEnv:
        return Kind(_sync_state, _set_sync_state)
    return simulators.kind_of(layer)


@functools.cache
def _has_own_pair(kind: Any) -> bool:
    """Whether a class has both methods, and its set_state takes a state: that of gymnasium's MujocoEnv takes two."""
    get, put = getattr(kind, "get_state", None), getattr(kind, "set_state", None)
    if not (callable(get) and callable(put)):
        return False
    try:
        inspect.signature(get).bind(None)
        inspect.signature(put).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # compiled, without a signature
        return True
    return True


def _sync_state(env: Any) -> State:
    return {
        "copies": [get_state(copy, f"environment {i}") for i, copy in enumerate(env.envs)],
        "ended": env._autoreset_envs,
        "rewards": env._rewards,
        "terminated": env._terminations,
        "truncated": env._truncations,
    }


def _set_sync_state(env: Any, state: Mapping[str, Any]) -> None:
    if len(state["copies"]) != len(env.envs):
        raise ValueError(f"saved of {len(state['copies'])} copies; these are {len(env.envs)}")
    for i, (copy, own) in enumerate(zip(env.envs, state["copies"], strict=True)):
        set_state(copy, own, f"environment {i}")
    env._autoreset_envs, env._rewards = state["ended"], state["rewards"]
    env._terminations, env._truncations = state["terminated"], state["truncated"]


def _own_generator(layer: Any) -> Any:
    return vars(layer).get("_np_random")


def _is_known(generator: Any) -> bool:
    return type(generator) is np.random.Generator and type(generator.bit_generator).__name__ in _GENERATORS


def _generator_state(env: Any) -> State | None:
    """Of the random numbers that an environment draws; None where it has not begun to."""
    generator = _own_generator(env)
    if generator is None:
        return None
    return {"state": copied(dict(generator.bit_generator.state)), "seed": _as_number(env._np_random_seed)}


def _as_number(seed: Any) -> int | None:
    return None if seed is None else int(seed)


def _put_generator(env: Any, state: Mapping[str, Any] | None) -> None:
    if state is None:
        env._np_random = env._np_random_seed = None
        return
    try:
        name = state["state"]["bit_generator"]
        if name not in _GENERATORS:
            raise ValueError(f"{name!r} is no bit generator of NumPy's")
        generator = np.random.Generator(getattr(np.random, name)())
        generator.bit_generator.state = copied(state["state"])
    except (TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"not the state of a random generator: {error!r}") from error
    env._np_random, env._np_random_seed = generator, state["seed"]
