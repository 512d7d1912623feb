"""What the state of each simulator and wrapper is that is known here, and how it is put back.

Each was found by experiment: from many points of episodes, the first steps after their starts and ends among them, and
in new processes. Copies are never made by deepcopy or pickle: of MuJoCo and of ALE that gives another game, silently.
"""

from __future__ import annotations

import functools
import sys
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

# What the constructor of a simulator decides, perhaps at random, and its own calls then leave alone.
_CAR = ("min_position", "max_position", "max_speed", "goal_position", "goal_velocity")
_CART = (
    *("gravity", "masscart", "masspole", "total_mass", "length", "polemass_length", "force_mag", "tau"),
    *("kinematics_integrator", "theta_threshold_radians", "x_threshold", "_sutton_barto_reward"),
)
_TABLE = ("P", "initial_state_distrib")
_LAKE = f"{_TOYS}.frozen_lake.FrozenLakeEnv"
_MADE: dict[str, tuple[str, ...]] = {
    f"{_CLASSIC}.acrobot.AcrobotEnv": (
        *(f"LINK_{what}_{i}" for what in ("LENGTH", "MASS", "COM_POS") for i in (1, 2)),
        *("LINK_MOI", "MAX_VEL_1", "MAX_VEL_2", "AVAIL_TORQUE", "torque_noise_max", "book_or_nips", "dt"),
    ),
    f"{_CLASSIC}.cartpole.CartPoleEnv": _CART,
    f"{_CLASSIC}.cartpole.CartPoleVectorEnv": (*_CART, "max_episode_steps"),
    f"{_CLASSIC}.continuous_mountain_car.Continuous_MountainCarEnv": (*_CAR, "min_action", "max_action", "power"),
    f"{_CLASSIC}.mountain_car.MountainCarEnv": (*_CAR, "force", "gravity"),
    f"{_CLASSIC}.pendulum.PendulumEnv": ("max_speed", "max_torque", "dt", "g", "m", "l"),
    f"{_TOYS}.blackjack.BlackjackEnv": ("natural", "sab"),
    f"{_TOYS}.cliffwalking.CliffWalkingEnv": _TABLE,
    _LAKE: ("desc", *_TABLE),
    f"{_TOYS}.taxi.TaxiEnv": (*_TABLE, "fickle_passenger", "fickle_probability"),
}

# The same of a MuJoCo model: what the rest is computed from. All of it would take ten times as long, mostly textures.
_MODEL = (
    *("qpos0", "qpos_spring", "eq_data", "pair_friction", "wrap_prm"),
    *(f"body_{name}" for name in ("mass", "inertia", "pos", "quat", "ipos", "iquat", "gravcomp")),
    *(f"jnt_{name}" for name in ("pos", "axis", "range", "limited", "stiffness", "margin", "solref", "solimp")),
    *(f"dof_{name}" for name in ("armature", "damping", "frictionloss", "solref", "solimp")),
    *(f"geom_{name}" for name in ("type", "size", "pos", "quat", "friction", "margin", "gap", "solref", "solimp")),
    *(f"geom_{name}" for name in ("condim", "contype", "conaffinity", "solmix", "priority", "fluid")),
    *(f"tendon_{name}" for name in ("range", "stiffness", "damping", "lengthspring", "frictionloss")),
    *(f"actuator_{name}" for name in ("gear", "gainprm", "biasprm", "dynprm", "ctrlrange", "forcerange")),
)
_OPTIONS = (
    *("timestep", "density", "viscosity", "integrator", "cone", "solver", "iterations", "tolerance", "impratio"),
    *("disableflags", "enableflags"),
)

# Those of the classes whose states are known here.
PACKAGES = ("gymnasium.", "ale_py.", "trpo_fast.")

_ALE = "ale_py.env.AtariEnv"
_BOX2D = "gymnasium.envs.box2d"
_LANDER = f"{_BOX2D}.lunar_lander.LunarLander"
_BIPEDAL_WALKER = f"{_BOX2D}.bipedal_walker.BipedalWalker"


class Kind(NamedTuple):
    """How the state of a layer is read and written."""

    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]


def kind_of(layer: Any) -> Kind | None:
    """How the state of one layer is read and written; None where nothing is known of it."""
    name = name_of(layer)
    if name in _ATTRIBUTES:
        names = _ATTRIBUTES[name]
        return Kind(lambda layer: _attributes(layer, names), _set_attributes)
    if name in _QUEUES:
        return Kind(_queues, _fill_queues)
    if name == "gymnasium.wrappers.common.PassiveEnvChecker":
        return Kind(lambda layer: {}, _end_checks)
    if name == "gymnasium.wrappers.transform_action.TransformAction" and layer.func is int:
        return Kind(lambda layer: {}, lambda layer, state: None)
    if _is_mujoco(layer):
        return Kind(_mujoco_state, _set_mujoco_state)
    if name == _ALE:
        return Kind(_ale_state, _set_ale_state)
    if name == _LANDER:
        return Kind(_lander_state, _set_lander_state)
    return None


def reason_against(layer: Any) -> str | None:
    """What is known to keep this layer from being put back to the bit; None, too, where nothing is known of it."""
    name = name_of(layer)
    if name == _LAKE and layer.spec is not None and draws_its_map(layer.spec.kwargs):
        return f"{type(layer).__name__} draws its map when it is made, and from no seed; want desc=, or map_name="
    if name == _ALE and layer.ale.getFloat("repeat_action_probability") > 0:
        # The action that a sticky one repeats is in no state that the emulator gives, found by experiment.
        return f"{type(layer).__name__} with repeat_action_probability > 0 does not tell the action it would repeat"
    if name == _BIPEDAL_WALKER:
        # Its episode played again in another world has other bits, found by experiment.
        return f"{type(layer).__name__} keeps one Box2D world from episode to episode, which does not tell its state"
    return None


def draws_its_map(arguments: Mapping[str, Any]) -> bool:
    """Whether a FrozenLake made with these has another map each time."""
    return arguments.get("desc") is None and arguments.get("map_name", "4x4") is None


def name_of(layer: Any) -> str:
    """Full name of its class."""
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def digest_of_making(env: Any) -> int | None:
    """Of what the constructor of an innermost environment has decided, as it is now; None where that is not known.

    Another one that is to go on from its state needs the same: no such state tells masses, a map and the like.
    """
    names = parts_of_making(env)
    if not names:
        return None
    if _is_mujoco(env):
        return _digest_of_mujoco(env)
    digest = _kept(env, env.P, lambda table: zlib.crc32(repr(table).encode())) if "P" in names else 0
    for value in (getattr(env, name) for name in names if name != "P"):
        digest = zlib.crc32(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode(), digest)
    return digest


def parts_of_making(env: Any) -> tuple[str, ...]:
    """Names of what `digest_of_making` is made of."""
    if _is_mujoco(env):
        return ("model", "arguments")
    return tuple(name for name in _MADE.get(name_of(env), ()) if hasattr(env, name))  # earlier versions have fewer


def _digest_of_mujoco(env: Any) -> int:
    arguments, views = _kept(env, env.model, lambda model: (_arguments_of(env), _views_of(model)))
    options = repr([getattr(env.model.opt, name) for name in _OPTIONS]).encode()
    return zlib.crc32(b"".join(views), zlib.crc32(options, arguments))


def _arguments_of(env: Any) -> int:
    """Of weights of the reward, healthy ranges, and what else the constructor of a MuJoCo environment keeps so."""
    kept = {
        name: value
        for name, value in vars(env).items()
        if name[0] == "_"
        and type(value) in (bool, int, float, str, tuple, list)
        and not name.startswith(("_np_random", "_ezpickle"))
    }
    return zlib.crc32(repr((env.frame_skip, kept)).encode())


def _views_of(model: Any) -> list[NDArray[Any]]:
    return [*(getattr(model, name) for name in _MODEL), model.opt.gravity, model.opt.wind]


# What is long to make of a table of transitions or a model, for as long as the environment has the same.
_made_of: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()


def _kept(env: Any, of: Any, make: Callable[[Any], Any]) -> Any:
    source, made = _made_of.get(env, (None, None))
    if source is not of:
        made = make(of)
        _made_of[env] = of, made
    return made


def _is_mujoco(layer: Any) -> bool:
    return name_of(layer).startswith("gymnasium.envs.mujoco.") and hasattr(layer, "data") and "mujoco" in sys.modules


def in_plain_data(value: Any) -> Any:
    """`value`, in which an OrderedDict or an array of a class of its own is described; `as_it_was` undoes it.

    Other things stay as they are, plain data or not.
    """
    kind: Any = type(value)
    if kind in (list, tuple):
        return kind(map(in_plain_data, value))
    if kind is dict:
        return {key: in_plain_data(item) for key, item in value.items()}
    if kind is OrderedDict:
        return {_CLASS: "collections.OrderedDict", _VALUE: {key: in_plain_data(item) for key, item in value.items()}}
    if _is_bare_array(value) and _array_class(name_of(value)) is kind:
        return {_CLASS: name_of(value), _VALUE: value.view(np.ndarray)}
    return value


def as_it_was(value: Any) -> Any:
    """What `in_plain_data` was given; ValueError where a class is not there."""
    if type(value) in (list, tuple):
        return type(value)(map(as_it_was, value))
    if type(value) is not dict:
        return value
    if value.keys() != {_CLASS, _VALUE}:
        return {key: as_it_was(item) for key, item in value.items()}
    if value[_CLASS] == "collections.OrderedDict":
        return OrderedDict(as_it_was(value[_VALUE]))
    kind = _array_class(value[_CLASS])
    if kind is None:
        raise ValueError(f"{value[_CLASS]!r} is no class of arrays that is imported here")
    return value[_VALUE].view(kind)


_CLASS, _VALUE = "__class__", "value"


def _is_bare_array(value: Any) -> bool:
    """Whether an array has a class of its own, and nothing of its own besides: a masked one has a mask."""
    return (
        isinstance(value, np.ndarray)
        and type(value).__reduce__ is np.ndarray.__reduce__
        and not getattr(value, "__dict__", None)
    )


def _array_class(name: str) -> Any:
    """A class of arrays by its full name, of a module that is imported already: a file is not trusted with others."""
    for module in (name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)):
        if module in sys.modules:
            kind: Any = sys.modules[module]
            for part in name[len(module) + 1 :].split("."):
                kind = getattr(kind, part, None)
            return kind if isinstance(kind, type) and issubclass(kind, np.ndarray) else None
    return None


def watch(env: Any) -> None:
    """Begin to note what happens in an innermost environment whose state is what has happened; before its first reset.

    Nothing is done for others, nor a second time.
    """
    if name_of(env) == _LANDER and _episode_of(env) is None:
        env.episode_so_far = _Episode(env)
        env.reset, env.step = env.episode_so_far.reset, env.episode_so_far.step


class _Episode:
    """The episode of an environment so far: where its random numbers began, its actions, and where others drew.

    That is all there is to know of LunarLander's, which makes a new Box2D world in each; positions and velocities are
    not, as the solver goes on from the impulses of the step before, which nothing tells. It takes the place of the
    environment's own `reset` and `step`, below all wrappers.
    """

    def __init__(self, env: Any) -> None:
        self._reset, self._step = env.reset, env.step
        self._env = env
        self.began: State | None = None  # a seed, or the state of the random generator; None before the first reset
        self.actions: list[Any] = []
        # Where somebody, a wrapper for example, drew from the environment's generator: before which step, and to where.
        self.moved: list[tuple[int, State]] = []
        self._left = ""  # how the last call left that generator

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The environment's own, which takes a step itself."""
        drawn_from = None if seed is not None else copied(self._generator_state)
        self.began = {"seed": None if seed is None else int(seed), "generator": drawn_from}
        answer = self._reset(seed=seed, options=options)
        self.actions, self.moved = [], []
        self._left = repr(self._generator_state)
        return answer

    def step(self, action: Any) -> Any:
        """The environment's own."""
        now = self._generator_state
        if repr(now) != self._left:
            self.moved.append((len(self.actions), now))
        self.actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        answer = self._step(action)
        self._left = repr(self._generator_state)
        return answer

    @property
    def _generator_state(self) -> State:
        return dict(self._env.np_random.bit_generator.state)

    def play_again(
        self, began: Mapping[str, Any], actions: Sequence[Any], moved: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> None:
        """The episode that began so, had these actions, and in which others had drawn so."""
        if began["seed"] is None:
            self._env.np_random.bit_generator.state = began["generator"]
        self.reset(seed=began["seed"])
        states = dict(moved)
        for i, action in enumerate(actions):
            if i in states:
                self._env.np_random.bit_generator.state = states[i]
            self.step(action)


def _episode_of(env: Any) -> _Episode | None:
    return vars(env).get("episode_so_far")


def _lander_state(env: Any) -> State:
    episode = _episode_of(env)
    if episode is None:
        raise ValueError(f"{type(env).__name__}: its episode was not noted from its start on")
    if episode.began is None:
        return {"began": None}
    return {
        "began": episode.began,
        "actions": np.array(episode.actions, env.action_space.dtype).reshape(-1, *env.action_space.shape),
        "moved": episode.moved,
        "reached": _whereabouts(env),
    }


def _set_lander_state(env: Any, state: Mapping[str, Any]) -> None:
    watch(env)
    episode = _episode_of(env)
    assert episode is not None
    if state["began"] is None:
        return
    actions, space = state["actions"], env.action_space
    if not (isinstance(actions, np.ndarray) and actions.dtype == space.dtype and actions.shape[1:] == space.shape):
        raise ValueError(f"actions of {type(env).__name__}: want one of {space} a row")
    if not np.isfinite(actions).all() or (space.shape == () and not all(map(space.contains, actions))):
        raise ValueError(f"actions of {type(env).__name__}: want those of {space}")
    episode.play_again(state["began"], list(actions), state.get("moved", ()))  # which files of before do not have
    if _whereabouts(env).tobytes() != state["reached"].tobytes():
        raise ValueError(f"the episode of {type(env).__name__}, played again, has come elsewhere: its Box2D is another")


def _whereabouts(env: Any) -> NDArray[np.float64]:
    """Positions, angles and velocities of all bodies."""
    bodies = (env.lander, *env.legs)
    return np.array(
        [(*body.position, body.angle, *body.linearVelocity, body.angularVelocity) for body in bodies], np.float64
    )


def _owner_of(layer: Any, name: str) -> tuple[Any, str]:
    """Whose attribute a dotted name is, and its last part."""
    *path, last = name.split(".")
    return functools.reduce(getattr, path, layer), last


def _attributes(layer: Any, names: tuple[str, ...]) -> State:
    state = {}
    for name in names:
        owner, last = _owner_of(layer, name)
        if hasattr(owner, last):  # some are made by the first reset or step
            state[name] = in_plain_data(getattr(owner, last))
    return state


def _set_attributes(layer: Any, state: Mapping[str, Any]) -> None:
    known = _ATTRIBUTES[name_of(layer)]
    for name, value in state.items():
        if name not in known:
            raise ValueError(f"{type(layer).__name__} has no {name!r} in its state")
        owner, last = _owner_of(layer, name)
        setattr(owner, last, as_it_was(value))


def _queues(layer: Any) -> State:
    return {name: list(map(in_plain_data, getattr(layer, name))) for name in _QUEUES[name_of(layer)]}


def _fill_queues(layer: Any, state: Mapping[str, Any]) -> None:
    for name in _QUEUES[name_of(layer)]:
        queue = getattr(layer, name)
        queue.clear()
        queue.extend(map(as_it_was, state[name]))


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


def _require_version(package: str, saved: Any, installed: str) -> None:
    if saved != installed:
        raise ValueError(f"saved with {package} {saved}, and {installed} is installed: its trajectories are others")
