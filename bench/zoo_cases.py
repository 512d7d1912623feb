# mypy: disable-error-code="import-not-found,import-untyped"
"""The packages of `bench.environment_zoo`, and what a user writes around those that are not simply an id."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

NUM_ENVS = 4

SLOW = {"vectorization": "workers", "num_workers": 2, "steps_per_env": 100, "warm_up_steps": 100}
"""For simulators of 20 steps a second: on two cores, and no longer rollouts than it takes."""


class Case(NamedTuple):
    """One package and the environment of it that is tried."""

    package: str
    field: str
    env: str | Callable[[], Any]
    """What ``TRPO`` is given; a function of this file where a user would write one as well."""
    requires: tuple[str, ...]
    """What pip is given."""
    env_kwargs: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}
    no_dependencies: tuple[str, ...] = ()
    """What pip is given with --no-deps, after that."""
    beside: tuple[str, ...] = ()
    """Packages whose versions matter as much."""
    refused: tuple[str | Callable[[], Any], ...] = ()
    """Environments of the package that do not fit as they are: what is said is noted."""
    alone: Callable[[], Any] | None = None
    """Makes the same environment without trpo_fast, where that is more than ``gymnasium.make(env)``."""
    is_vector: bool = False
    """`env` makes a vector environment, which is given as an object."""
    note: str = ""
    """What a user has to do besides, and why."""


def simglucose() -> gymnasium.Env[Any, Any]:
    """Its action is a number for the pump, where its space says an array of one."""
    from simglucose.envs import T1DSimGymnaisumEnv

    env = T1DSimGymnaisumEnv(patient_name="adolescent#002")
    alone = gymnasium.wrappers.TransformAction(env, lambda action: float(action[0]), env.action_space)
    return gymnasium.wrappers.TimeLimit(alone, 100)


class JobShop(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Its reset takes no seed and gives no info; its observations go on changing after they were returned."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return copy.deepcopy(self.env.reset()), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        return copy.deepcopy(observation), *rest


def job_shop() -> gymnasium.Env[Any, Any]:
    """A public instance with 15 jobs."""
    import JSSEnv

    instance = Path(JSSEnv.__file__).parent / "envs" / "instances" / "ta01"
    return JobShop(gymnasium.make("jss-v1", env_config={"instance_path": instance}, disable_env_checker=True).unwrapped)


def stowage() -> gymnasium.Env[Any, Any]:
    """Containers of a ship that calls at four ports; the package's environment has no spaces."""
    from MPSPEnv import Env

    rows, columns, ports = 4, 3, 4
    env: gymnasium.Env[Any, Any] = Env(rows, columns, ports)
    env.action_space = gymnasium.spaces.Discrete(2 * rows * columns)
    env.observation_space = gymnasium.spaces.Dict(
        {
            "bay": gymnasium.spaces.Box(0, ports, (rows, columns), np.int32),
            "T": gymnasium.spaces.Box(0, rows * columns, (ports, ports), np.int32),
            "mask": gymnasium.spaces.MultiBinary(2 * rows * columns),
        }
    )
    return env


class Quoridor(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The game knows what is allowed."""

    def action_masks(self) -> Any:
        inner: Any = self.unwrapped
        legal = inner.game.legal_moves()
        allowed = np.array([inner._decode_action(action) in legal for action in range(inner.action_space.n)])
        # No action moves a pawn (findings/quoridor-env-no-moves.sh): nothing is left once the walls are gone.
        return allowed if allowed.any() else np.ones_like(allowed)


def quoridor() -> gymnasium.Env[Any, Any]:
    """One player of two at a time, the same policy for both; a wall each, as a mask takes long."""
    from quoridor_sim.quoridor_env import QuoridorEnv

    return gymnasium.wrappers.TimeLimit(Quoridor(QuoridorEnv(max_walls=1)), 20)


def rectangles() -> gymnasium.Env[Any, Any]:
    """Rectangles of sum ten on a board of 8 x 6; the package registers no id."""
    from rs10env import RS10Env

    env: gymnasium.Env[Any, Any] = RS10Env(H=8, W=6)
    return env


def initial_mapping() -> gymnasium.Env[Any, Any]:
    """Four qubits on a square; the package registers no id."""
    from qgym.envs import InitialMapping

    return gymnasium.wrappers.TimeLimit(InitialMapping((2, 2)), 100)


def motor() -> gymnasium.Env[Any, Any]:
    """A current controller of a permanent magnet motor, eight switch positions."""
    import gym_electric_motor

    return gymnasium.wrappers.TimeLimit(gym_electric_motor.make("Finite-CC-PMSM-v0"), 500)


def pursuers() -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Eight agents of one PettingZoo game as a vector of environments."""
    import supersuit
    from pettingzoo.sisl import pursuit_v5

    return supersuit.pettingzoo_env_to_vec_env_v1(pursuit_v5.parallel_env(max_cycles=100))


def intersection() -> gymnasium.Env[Any, Any]:
    """One traffic light, the simulator in a process of its own."""
    import sumo

    os.environ.setdefault("SUMO_HOME", sumo.SUMO_HOME)
    import sumo_rl

    nets = Path(sumo_rl.__file__).parent / "nets" / "single-intersection"
    env: gymnasium.Env[Any, Any] = sumo_rl.SumoEnvironment(
        net_file=str(nets / "single-intersection.net.xml"),
        route_file=str(nets / "single-intersection.rou.xml"),
        single_agent=True,
        num_seconds=500,
        sumo_warnings=False,
    )
    return env


def pool() -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """A vector environment in C++, one thread."""
    import envpool

    made: gymnasium.vector.VectorEnv[Any, Any, Any] = envpool.make(
        "HalfCheetah-v4", env_type="gymnasium", num_envs=NUM_ENVS, num_threads=1, seed=0, max_episode_steps=200
    )
    return made


def heart_pole() -> gymnasium.Env[Any, Any]:
    """A programmer's day between coffee and sleep."""
    import heartpole

    return gymnasium.wrappers.TimeLimit(heartpole.HeartPole(), 200)


def atari() -> gymnasium.Env[Any, Any]:
    """What trpo_fast makes of an id of ale-py unless something else is said."""
    env = gymnasium.make("ALE/Pong-v5", frameskip=1)
    env = gymnasium.wrappers.AtariPreprocessing(env)
    return gymnasium.wrappers.FrameStackObservation(env, 4)


def small_screen() -> gymnasium.Env[Any, Any]:
    """Every fourth pixel, without the game's variables: 230,400 numbers would be flattened otherwise."""
    import vizdoom.gymnasium_wrapper  # noqa: F401

    env = gymnasium.make("VizdoomBasic-v1", frame_skip=4)
    space = gymnasium.spaces.Box(0, 255, (60, 80, 3), np.uint8)
    return gymnasium.wrappers.TransformObservation(env, lambda observation: observation["screen"][::4, ::4], space)


def bare_stowage() -> gymnasium.Env[Any, Any]:
    """Without spaces."""
    from MPSPEnv import Env

    return Env(4, 3, 4)


def bare_quoridor() -> gymnasium.Env[Any, Any]:
    """For Python's integers only."""
    from quoridor_sim.quoridor_env import QuoridorEnv

    return QuoridorEnv()


def bare_simglucose() -> gymnasium.Env[Any, Any]:
    """For numbers where its space has arrays."""
    from simglucose.envs import T1DSimGymnaisumEnv

    return T1DSimGymnaisumEnv(patient_name="adolescent#002")


def weighed_minecart() -> gymnasium.Env[Any, Any]:
    """Its rewards are vectors; the package's own wrapper makes a number of them."""
    import mo_gymnasium
    from mo_gymnasium.wrappers import LinearReward

    return LinearReward(mo_gymnasium.make("minecart-v0", max_episode_steps=200), weight=np.array([0.4, 0.4, 0.2]))


def stirred_tank() -> gymnasium.Env[Any, Any]:
    """The package registers no id."""
    from gymchem import CSTREnv

    return gymnasium.wrappers.TimeLimit(CSTREnv(), 200)


def random_prices() -> Any:
    """A thousand hours of a geometric random walk."""
    import pandas

    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(1000)))
    index = pandas.date_range("2024-01-01", periods=len(close), freq="h")
    columns = {"open": close, "high": 1.01 * close, "low": 0.99 * close, "close": close}
    frame = pandas.DataFrame(columns, index=index)
    frame["feature_return"] = frame["close"].pct_change().fillna(0.0)
    return frame


def trading() -> gymnasium.Env[Any, Any]:
    """Prices are an argument, which no file keeps; importing it makes errors of all warnings, if it is let."""
    with warnings.catch_warnings():
        import gym_trading_env.environments  # noqa: F401

    return gymnasium.make("TradingEnv", df=random_prices(), positions=[-1, 0, 1], max_episode_duration=200, verbose=0)


class FirstCopy(gymnasium.Env[Any, Any]):
    """The first of a vector of environments; all get the same action."""

    def __init__(self, environments: Any) -> None:
        self.environments = environments
        self.action_space = getattr(environments, "single_action_space", environments.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, _ = self.environments.reset(seed=seed)
        return observations[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, _ = self.environments.step(
            np.array([action] * self.environments.num_envs)
        )
        return observations[0], rewards[0], bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        self.environments.close()


CASES = (
    Case("anesthesim", "medicine", "anesthesim:anesthesim/PropofolControl-v0", ("anesthesim==0.1.0",)),
    Case("ventisim", "medicine", "ventisim:ventisim/FullVentilatorManagement-v0", ("ventisim==0.1.0",)),
    Case("glucosim", "medicine", "glucosim:glucosim/ClosedLoop-v0", ("glucosim==0.1.1",)),
    Case(
        "simglucose",
        "medicine",
        simglucose,
        ("gym==0.9.4", "pandas", "dill", "pathos", "setuptools<81", "numpy<2.4"),
        settings={**SLOW, "steps_per_env": 50, "warm_up_steps": 50},
        no_dependencies=("simglucose==0.2.11",),
        note="pins gymnasium 0.29, runs with 1.4; one line turns its action into a number",
        refused=(bare_simglucose,),
    ),
    Case("heartpole", "medicine", heart_pole, ("heartpole==1.2",), note="pins gymnasium 0.29"),
    Case("gym-anytrading", "finance", "gym_anytrading:forex-v0", ("gym-anytrading==2.0.0",)),
    Case(
        "gym-trading-env",
        "finance",
        trading,
        ("gym-trading-env==0.3.5",),
        note="its data frame is made by a function",
        refused=("gym_trading_env:TradingEnv",),
    ),
    Case(
        "or-gymnasium",
        "operations research",
        "or_gymnasium:Knapsack-v3",
        ("or-gymnasium==0.1.0",),
        settings={"wrappers": ["mask-in-observation"]},
        note="`mask-in-observation`",
    ),
    Case(
        "or-gym-inventory",
        "logistics",
        "or_gym_inventory:or_gym_inventory/Newsvendor-v0",
        ("or-gym-inventory==1.0.0",),
        refused=("or_gym_inventory:or_gym_inventory/InvManagementBacklog-v0",),
    ),
    Case("gym-invmgmt", "logistics", "gym_invmgmt:GymInvMgmt/Serial-v0", ("gym-invmgmt==0.2.1",)),
    Case(
        "jssenv",
        "scheduling",
        job_shop,
        ("jssenv==1.1.0",),
        settings={"wrappers": ["mask-in-observation"]},
        note="a wrapper gives its reset a seed and copies its observations; `mask-in-observation`",
        refused=("JSSEnv:jss-v1",),
    ),
    Case(
        "highway-env",
        "traffic",
        "highway_env:lane-keeping-v0",
        ("highway-env==1.12.1",),
        refused=("highway_env:intersection-multi-agent-v0",),
    ),
    Case(
        "bluesky-gym",
        "aviation",
        "DescentEnv-v0",
        ("bluesky-gym==0.2.0", "numpy<2.4"),
        settings={
            "imports": ["bluesky_gym:register_envs"],
            "num_envs": 2,
            **SLOW,
        },
        beside=("bluesky-simulator",),
        note="refuses its actions with numpy 2.4; one simulator in a process, so a worker for each copy",
    ),
    Case(
        "gymnasium-robotics",
        "robotics",
        "gymnasium_robotics:PointMaze_UMaze-v3",
        ("gymnasium-robotics==1.4.2",),
        beside=("mujoco",),
        refused=("gymnasium_robotics:FetchReach-v4",),
    ),
    Case("minigrid", "games", "minigrid:MiniGrid-Empty-5x5-v0", ("minigrid==3.2.0",)),
    Case("gymnasium-2048", "games", "gymnasium_2048:gymnasium_2048/TwentyFortyEight-v0", ("gymnasium-2048==0.1.2",)),
    Case("tetris-gymnasium", "games", "tetris_gymnasium.envs:tetris_gymnasium/Tetris", ("tetris-gymnasium==0.3.1",)),
    Case("numberlink", "games", "numberlink.env:NumberLinkRGB-v0", ("numberlink==0.1.7",)),
    Case("vizdoom", "games", small_screen, ("vizdoom==1.3.2",)),
    Case("ale-py", "games", "ale_py:ALE/Pong-v5", ("ale-py==0.12.1", "opencv-python-headless"), alone=atari),
    Case(
        "mo-gymnasium",
        "multiple objectives",
        weighed_minecart,
        ("mo-gymnasium==1.3.2",),
        refused=("mo_gymnasium:minecart-v0",),
    ),
    Case(
        "nasim",
        "networks",
        "nasim:Tiny-v0",
        ("nasim==0.12.0",),
        settings={"wrappers": ["int-actions"]},
        note="`int-actions`",
        refused=("nasim:Tiny-v0",),
    ),
    Case(
        "mpspenv",
        "logistics",
        stowage,
        ("mpspenv==0.1.5",),
        settings={"wrappers": ["mask-in-observation"]},
        note="its spaces are set by the user; `mask-in-observation`",
        refused=(bare_stowage,),
    ),
    Case(
        "quoridor-env",
        "games",
        quoridor,
        ("quoridor-env==0.2.6",),
        settings={"wrappers": ["int-actions"]},
        note="a wrapper asks the game for a mask; `int-actions`",
        refused=(bare_quoridor,),
    ),
    Case("rs10env", "games", rectangles, ("rs10env==0.1.0",)),
    Case("qgym", "quantum computing", initial_mapping, ("qgym==0.3.1",)),
    Case("gym-electric-motor", "energy", motor, ("gym-electric-motor==3.0.3",)),
    Case(
        "gym-anm",
        "energy",
        "gym_anm:ANM6Easy-v0",
        ("gym-anm==2.0.1",),
        env_kwargs={"max_episode_steps": 200},
        settings=SLOW,
    ),
    Case("kaist-or-gym", "traffic", "kaist_or_gym:kaist-or/TrafficControlEnv-v0", ("kaist-or-gym==0.1.15",)),
    Case(
        "gymnasium-jsbsim",
        "aviation",
        "gymnasium_jsbsim:JSBSim-HeadingControlTask-Cessna172P-Shaping.STANDARD-NoFG-v0",
        ("gymnasium-jsbsim==0.1.1",),
        beside=("jsbsim",),
    ),
    Case(
        "flappy-bird-gymnasium",
        "games",
        "flappy_bird_gymnasium:FlappyBird-v0",
        ("flappy-bird-gymnasium==0.4.0",),
        env_kwargs={"use_lidar": False},
    ),
    Case("panda-gym", "robotics", "panda_gym:PandaReach-v3", ("panda-gym==3.0.7",), beside=("pybullet",)),
    Case("sumo-rl", "traffic", intersection, ("sumo-rl==1.4.5", "eclipse-sumo==1.28.0"), beside=("eclipse-sumo",)),
    Case("envpool", "robotics", pool, ("envpool==1.2.5",), is_vector=True),
    Case(
        "supersuit",
        "several agents",
        pursuers,
        ("supersuit==3.11.0", "pettingzoo[sisl]==1.27.0"),
        beside=("pettingzoo",),
        is_vector=True,
    ),
    Case(
        "mobile-env",
        "networks",
        "mobile_env:mobile-small-central-v0",
        ("mobile-env==2.1.0",),
        refused=("mobile_env:mobile-small-ma-v0",),
    ),
    Case(
        "lettuce-greenhouse-gym",
        "agriculture",
        "lettuce_greenhouse_gym:LettuceGreenhouse-v0",
        ("lettuce-greenhouse-gym==0.1.3",),
    ),
    Case("gymchem", "chemistry", stirred_tank, ("gymchem==0.1.0a1",)),
)
