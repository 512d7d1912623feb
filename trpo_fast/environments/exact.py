"""The whole state of an environment: with it another one, in another process, goes on with the same bits.

An environment is looked at layer by layer: its wrappers, then what they wrap. A layer is known here, or says its own
state by a pair of methods, ``get_state() -> dict`` of plain data and ``set_state(state)``, that speak of this layer
alone; the random generator of the innermost is kept beside. Where a layer is neither, nothing is known of the whole.

Copies are never made by deepcopy or pickle: of MuJoCo and of ALE that gives another game, silently.

What a simulator's state is was found by experiment: from many points of episodes, the first steps after their starts
and ends among them, and in new processes.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper

from trpo_fast.state import State, copied

# Attributes that are the state of a layer, by the full name of its class; () where it has none.
_CLASSIC = "gymnasium.envs.classic_control"
_TOYS = "gymnasium.envs.toy_text"
_WRAPPERS = "gymnasium.wrappers"
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    f"{_CLASSIC}.acrobot.AcrobotEnv": ("state",),
    f"{_CLASSIC}.cartpole.CartPoleEnv": ("state", "steps_beyond_terminated"),
    f"{_CLASSIC}.cartpole.CartPoleVectorEnv": ("state", "steps", "prev_done", "low", "high", "steps_beyond_terminated"),
    f"{_CLASSIC}.continuous_mountain_car.Continuous_MountainCarEnv": ("state",),
    f"{_CLASSIC}.mountain_car.MountainCarEnv": ("state",),
    f"{_CLASSIC}.pendulum.PendulumEnv": ("state", "last_u"),
    f"{_TOYS}.blackjack.BlackjackEnv": ("dealer", "player", "dealer_top_card_suit", "dealer_top_card_value_str"),
    f"{_TOYS}.cliffwalking.CliffWalkingEnv": ("s", "lastaction"),
    f"{_TOYS}.frozen_lake.FrozenLakeEnv": ("s", "lastaction"),
    f"{_TOYS}.taxi.TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
    f"{_WRAPPERS}.common.TimeLimit": ("_elapsed_steps",),
    f"{_WRAPPERS}.common.OrderEnforcing": ("_has_reset",),
    f"{_WRAPPERS}.common.Autoreset": ("autoreset",),
    # Times are left out, of which no bit depends on a state.
    f"{_WRAPPERS}.common.RecordEpisodeStatistics": ("episode_count", "episode_returns", "episode_lengths"),
    f"{_WRAPPERS}.stateful_action.StickyAction": (
        *("last_action", "is_sticky_actions", "num_repeats", "repeats_taken"),
    ),
    f"{_WRAPPERS}.stateful_action.RepeatAction": (),
    f"{_WRAPPERS}.stateful_observation.TimeAwareObservation": ("timesteps",),
    f"{_WRAPPERS}.stateful_observation.NormalizeObservation": ("obs_rms.mean", "obs_rms.var", "obs_rms.count"),
    f"{_WRAPPERS}.stateful_observation.MaxAndSkipObservation": ("_obs_buffer",),
    f"{_WRAPPERS}.stateful_reward.NormalizeReward": (
        *("discounted_reward", "return_rms.mean", "return_rms.var", "return_rms.count"),
    ),
    f"{_WRAPPERS}.atari_preprocessing.AtariPreprocessing": ("obs_buffer", "lives", "game_over"),
    **dict.fromkeys(
        (
            *(f"{_WRAPPERS}.transform_action.{name}" for name in ("ClipAction", "RescaleAction", "DiscretizeAction")),
            *(
                f"{_WRAPPERS}.transform_observation.{name}Observation"
                for name in ("Filter", "Flatten", "Grayscale", "Resize", "Reshape", "Rescale", "Dtype", "Discretize")
            ),
            f"{_WRAPPERS}.transform_reward.ClipReward",
            "trpo_fast.environments.named_wrappers.MaskInObservation",
        ),
        (),
    ),
}

# The same, for queues of fixed length.
_QUEUES: dict[str, tuple[str, ...]] = {
    f"{_WRAPPERS}.stateful_observation.FrameStackObservation": ("obs_queue",),
    f"{_WRAPPERS}.stateful_observation.DelayObservation": ("observation_queue",),
}

_ALE = "ale_py.env.AtariEnv"
_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class _Kind(NamedTuple):
    """How the state of a layer is read and written."""

    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]


def reason_against(env: Any) -> str | None:
    """Why `env`, an environment or a vector environment, cannot be put back to the bit; None where it can."""
    for layer in _layers(env):
        if _kind_of(layer) is None:
            return (
                f"nothing is known of the state of {type(layer).__name__} (get_state() and set_state(state) would say "
                "it, see docs/runs.md)"
            )
        if _name_of(layer) == _ALE and layer.ale.getFloat("repeat_action_probability") > 0:
            # The action that a sticky one repeats is in no state that the emulator gives, found by experiment.
            return f"{type(layer).__name__} with repeat_action_probability > 0 does not tell the action it would repeat"
        generator = _own_generator(layer)
        if generator is not None and not _is_known(generator):
            return f"the random generator of {type(layer).__name__} is {generator!r}"
    copies = getattr(env.unwrapped, "envs", ()) if isinstance(env, VectorEnv) else ()
    return next(filter(None, map(reason_against, copies)), None)


def get_state(env: Any) -> State:
    """State of `env`, for which `reason_against` has nothing to say; TypeError where a layer's own is no plain data."""
    layers = []
    for layer in _layers(env):
        kind = _kind_of(layer)
        assert kind is not None
        name = _name_of(layer)
        layers.append((name, copied(kind.get(layer), f"env: get_state() of {type(layer).__name__}")))
    return {"layers": layers, "generator": _generator_state(env.unwrapped)}


def set_state(env: Any, state: Any) -> None:
    """Put `env` where the one was whose state this is, neither reset before nor afterwards.

    ValueError where the state is of other layers, or of another version of a simulator; `env` has to be reset then.
    """
    try:
        given, generator = state["layers"], state["generator"]
        names = [name for name, _ in given]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("not the state of an environment") from error
    layers = list(_layers(env))
    own = [_name_of(layer) for layer in layers]
    if names != own:
        raise ValueError(f"saved of {' in '.join(map(str, reversed(names)))}; this is {' in '.join(reversed(own))}")
    for layer, (_, saved) in zip(layers, given, strict=True):
        kind = _kind_of(layer)
        if kind is None:
            raise ValueError(str(reason_against(env)))
        try:
            kind.set(layer, copied(saved))
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"{type(layer).__name__} does not take its state: {error!r}") from error
    _put_generator(env.unwrapped, generator)


def _layers(env: Any) -> Iterator[Any]:
    """`env`, what it wraps, and so on."""
    yield env
    while isinstance(env, gymnasium.Wrapper | VectorWrapper):
        env = env.env
        yield env


def _name_of(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _kind_of(layer: Any) -> _Kind | None:
    kind: Any = type(layer)
    if _has_own_pair(kind):
        return _Kind(lambda layer: layer.get_state(), lambda layer, state: layer.set_state(state))
    name = _name_of(layer)
    if name in _ATTRIBUTES:
        names = _ATTRIBUTES[name]
        return _Kind(lambda layer: _attributes(layer, names), _set_attributes)
    if name in _QUEUES:
        return _Kind(_queues, _fill_queues)
    if name == "gymnasium.wrappers.common.PassiveEnvChecker":
        return _Kind(lambda layer: {}, _end_checks)
    if name == "gymnasium.wrappers.transform_action.TransformAction" and layer.func is int:
        return _Kind(lambda layer: {}, lambda layer, state: None)
    if name.startswith("gymnasium.envs.mujoco.") and hasattr(layer, "data") and "mujoco" in sys.modules:
        return _Kind(_mujoco_state, _set_mujoco_state)
    if name == _ALE:
        return _Kind(_ale_state, _set_ale_state)
    if kind is SyncVectorEnv:
        return _Kind(_sync_state, _set_sync_state)
    return None


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


def _owner_of(layer: Any, name: str) -> tuple[Any, str]:
    """Whose attribute a dotted name is, and its last part."""
    *path, last = name.split(".")
    return functools.reduce(getattr, path, layer), last


def _attributes(layer: Any, names: tuple[str, ...]) -> State:
    state = {}
    for name in names:
        owner, last = _owner_of(layer, name)
        if hasattr(owner, last):  # some are made by the first reset or step
            state[name] = getattr(owner, last)
    return state


def _set_attributes(layer: Any, state: Mapping[str, Any]) -> None:
    known = _ATTRIBUTES[_name_of(layer)]
    for name, value in state.items():
        if name not in known:
            raise ValueError(f"{type(layer).__name__} has no {name!r} in its state")
        owner, last = _owner_of(layer, name)
        setattr(owner, last, value)


def _queues(layer: Any) -> State:
    return {name: list(getattr(layer, name)) for name in _QUEUES[_name_of(layer)]}


def _fill_queues(layer: Any, state: Mapping[str, Any]) -> None:
    for name in _QUEUES[_name_of(layer)]:
        queue = getattr(layer, name)
        queue.clear()
        queue.extend(state[name])


def _end_checks(layer: Any, _: Any) -> None:
    """Where an episode is gone on with there is no first reset or step to look at any more."""
    layer.checked_reset = layer.checked_step = layer.checked_data_reuse = True
    layer._previous_data = None


def _mujoco_state(env: Any) -> State:
    mujoco = sys.modules["mujoco"]
    # What integrating goes on from, warm start of the solver included, and positions that rewards of Ant and Humanoid
    # are made of, which are computed within a step only.
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    numbers = np.empty(mujoco.mj_stateSize(env.model, signature))
    mujoco.mj_getState(env.model, env.data, numbers, signature)
    return {
        "version": mujoco.__version__,
        "integration": numbers,
        "xpos": env.data.xpos.copy(),
        "xipos": env.data.xipos.copy(),
    }


def _set_mujoco_state(env: Any, state: Mapping[str, Any]) -> None:
    mujoco = sys.modules["mujoco"]
    _require_version("MuJoCo", state["version"], mujoco.__version__)
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    for name, shape in (
        ("integration", (mujoco.mj_stateSize(env.model, signature),)),
        ("xpos", env.data.xpos.shape),
        ("xipos", env.data.xipos.shape),
    ):
        if np.shape(state[name]) != shape:
            raise ValueError(f"{name} of {type(env).__name__} is of shape {np.shape(state[name])}; want {shape}")
    mujoco.mj_setState(env.model, env.data, state["integration"], signature)
    env.data.xpos[:], env.data.xipos[:] = state["xpos"], state["xipos"]


def _ale_state(env: Any) -> State:
    state = env.ale.cloneState(include_rng=True)
    return {"version": sys.modules["ale_py"].__version__, "emulator": state.serialize()}


def _set_ale_state(env: Any, state: Mapping[str, Any]) -> None:
    ale_py = sys.modules["ale_py"]
    _require_version("ale-py", state["version"], ale_py.__version__)
    env.ale.restoreState(ale_py.ALEState(state["emulator"]))


def _sync_state(env: Any) -> State:
    return {
        "copies": [get_state(copy) for copy in env.envs],
        "ended": env._autoreset_envs,
        "rewards": env._rewards,
        "terminated": env._terminations,
        "truncated": env._truncations,
    }


def _set_sync_state(env: Any, state: Mapping[str, Any]) -> None:
    if len(state["copies"]) != len(env.envs):
        raise ValueError(f"saved of {len(state['copies'])} copies; these are {len(env.envs)}")
    for copy, own in zip(env.envs, state["copies"], strict=True):
        set_state(copy, own)
    env._autoreset_envs, env._rewards = state["ended"], state["rewards"]
    env._terminations, env._truncations = state["terminated"], state["truncated"]


def _require_version(package: str, saved: Any, installed: str) -> None:
    if saved != installed:
        raise ValueError(f"saved with {package} {saved}, and {installed} is installed: its trajectories are others")


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
