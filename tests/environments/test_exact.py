from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest

from trpo_fast.environments import exact
from trpo_fast.state import packed, unpacked

WRAPPED = {
    "TimeAwareObservation": lambda env: gym.wrappers.TimeAwareObservation(env),
    "FrameStackObservation": lambda env: gym.wrappers.FrameStackObservation(env, 3),
    "DelayObservation": lambda env: gym.wrappers.DelayObservation(env, 2),
    "StickyAction": lambda env: gym.wrappers.StickyAction(env, 0.4),
    "NormalizeObservation": lambda env: gym.wrappers.NormalizeObservation(env),
    "NormalizeReward": lambda env: gym.wrappers.NormalizeReward(env),
    "MaxAndSkipObservation": lambda env: gym.wrappers.MaxAndSkipObservation(env, 2),
    "RecordEpisodeStatistics": lambda env: gym.wrappers.RecordEpisodeStatistics(env),
    "ClipReward": lambda env: gym.wrappers.ClipReward(env, -0.5, 0.5),
    "RescaleObservation": lambda env: gym.wrappers.DtypeObservation(env, np.float64),
}


def played(env, steps, rng):
    """Everything that comes of random steps, new episodes where they end."""
    seen = []
    for _ in range(steps):
        *answer, _ = env.step(int(rng.integers(2)))
        seen.append(repr([np.asarray(part).tobytes() for part in answer]))
        if answer[2] or answer[3]:
            seen.append(np.asarray(env.reset()[0]).tobytes())
    return seen


def made(wrap=lambda env: env, **arguments):
    return wrap(gym.make("CartPole-v1", max_episode_steps=30, **arguments))


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_new_environment_in_the_same_wrappers_goes_on_with_the_same_bits_from_many_points(name, checked):
    env = made(WRAPPED[name], disable_env_checker=not checked)
    assert exact.reason_against(env) is None
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    for point in range(25):
        played(env, int(rng.integers(0, 7)) if point else 0, rng)
        if point % 5 == 4:
            env.reset()
        state = packed(exact.get_state(env))
        seed = int(rng.integers(1000))
        other = made(WRAPPED[name], disable_env_checker=not checked)
        exact.set_state(other, unpacked(state))
        assert played(env, 40, np.random.default_rng(seed)) == played(other, 40, np.random.default_rng(seed)), point


def test_a_state_does_not_change_with_the_environment():
    env = made(WRAPPED["FrameStackObservation"])
    env.reset(seed=1)
    state = exact.get_state(env)
    before = packed(state).tobytes()
    played(env, 50, np.random.default_rng(0))
    assert packed(state).tobytes() == before
    exact.set_state(env, state)
    played(env, 50, np.random.default_rng(0))
    assert packed(state).tobytes() == before


class Plain(gym.Wrapper):
    """Keeps nobody knows what."""


class Partial(gym.Env):
    """Has a set_state that takes more than a state, as MujocoEnv's does."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def get_state(self):
        return {}

    def set_state(self, qpos, qvel):
        raise AssertionError


@pytest.mark.parametrize(
    ("env", "named"),
    [
        (lambda: Plain(made()), "nothing is known of the state of Plain"),
        (lambda: gym.wrappers.TransformReward(made(), lambda reward: reward), "of TransformReward"),
        (Partial, "of Partial"),
        (lambda: gym.vector.SyncVectorEnv([lambda: Plain(made())]), "of Plain"),
    ],
)
def test_what_is_not_known_is_named(env, named):
    assert named in exact.reason_against(env())


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda state: state["layers"].pop(0), "saved of gymnasium.* this is "),
        (lambda state: state.clear(), "not the state of an environment"),
        (lambda state: state["layers"].__setitem__(0, ("x", {})), "saved of gymnasium.* this is "),
        (lambda state: state["generator"]["state"].update(bit_generator="os.system"), "is no bit generator"),
        (lambda state: state["generator"]["state"].pop("state"), "not the state of a random generator"),
        (lambda state: state["layers"][-1][1].update(reset=3), "has no 'reset' in its state"),
        (lambda state: state["layers"].__setitem__(-1, (state["layers"][-1][0], 3)), "state of CartPoleEnv raised"),
    ],
)
def test_a_state_of_something_else_is_refused(spoil, named):
    env = made()
    env.reset(seed=0)
    state = exact.get_state(env)
    spoil(state)
    with pytest.raises(ValueError, match=named):
        exact.set_state(made(), state)


def saying(module, name, within, base):
    """A class called so, with a state of its own."""

    def get_state(self):
        return {"seen": self.seen}

    def set_state(self, state):
        self.seen = state["seen"]

    own = {"seen": 0, "get_state": get_state, "set_state": set_state}
    return type(name, (base,), {**own, "__module__": module, "__qualname__": f"{within}{name}"})


@pytest.mark.parametrize("base", [gym.Wrapper, gym.Env], ids=["wrapper", "environment"])
def test_a_class_of_another_module_or_function_takes_the_state_and_one_of_another_name_does_not(base):
    def of(module, name, within=""):
        kind = saying(module, name, within, base)
        return kind(made()) if base is gym.Wrapper else kind()

    env = of("__main__", "Own", "main.<locals>.")
    env.seen = 3
    env.reset(seed=0) if base is gym.Wrapper else None
    state = unpacked(packed(exact.get_state(env)))
    for other in (of("__main__", "Own"), of("package.script", "Own"), of("script", "Own", "Outer.")):
        exact.set_state(other, state)
        assert other.seen == 3
    for other in (of("__main__", "Other", "main.<locals>."), of("__main__", "NotOwn")):
        with pytest.raises(ValueError, match=r"saved of .*__main__.main.<locals>.Own.*; this is .*__main__"):
            exact.set_state(other, state)


def test_a_class_of_gymnasium_and_one_of_the_same_name_that_says_its_own_state_are_two():
    env, own = gym.wrappers.TimeAwareObservation(made()), saying("script", "TimeAwareObservation", "", gym.Wrapper)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"saved of .* this is .* in script\.TimeAwareObservation"):
        exact.set_state(own(made()), exact.get_state(env))
    env = own(made())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"saved of .* in script\.TimeAwareObservation; this is "):
        exact.set_state(gym.wrappers.TimeAwareObservation(made()), exact.get_state(env))


def test_a_state_of_another_version_of_the_simulator_is_refused_and_both_are_named():
    mujoco = pytest.importorskip("mujoco")
    env = gym.make("InvertedPendulum-v5")
    env.reset(seed=0)
    state = exact.get_state(env)
    state["layers"][-1][1]["version"] = "2.3.7"
    with pytest.raises(ValueError, match=f"saved with MuJoCo 2.3.7, and {mujoco.__version__} is installed"):
        exact.set_state(env, state)


def lake(**arguments):
    return gym.make("FrozenLake-v1", **arguments)


def changed(name, change):
    """Makes an environment of this name, and changes something in it."""

    def make():
        env = gym.make(name)
        change(env.unwrapped)
        return env

    return make


@pytest.mark.parametrize(
    ("make", "again", "part"),
    [
        (lambda: gym.make("CartPole-v1"), changed("CartPole-v1", lambda env: setattr(env, "length", 0.6)), "length"),
        (lambda: gym.make("Acrobot-v1"), changed("Acrobot-v1", lambda env: setattr(env, "LINK_MASS_1", 2.0)), "MASS_1"),
        (lambda: gym.make("Pendulum-v1", g=9.0), lambda: gym.make("Pendulum-v1", g=9.5), ", g,"),
        (lambda: gym.make("MountainCar-v0"), lambda: gym.make("MountainCar-v0", goal_velocity=1), "goal_velocity"),
        (lambda: lake(desc=["SFG"]), lambda: lake(desc=["SHG"]), "desc"),
        (lambda: lake(), lambda: lake(is_slippery=False), "P"),
        pytest.param(
            lambda: gym.make("CliffWalking-v1"),
            lambda: gym.make("CliffWalking-v1", is_slippery=True),
            "P",
            marks=pytest.mark.skipif("CliffWalking-v1" not in gym.registry, reason="not in this Gymnasium"),
        ),
        pytest.param(
            lambda: gym.make("Taxi-v4"),
            lambda: gym.make("Taxi-v4", is_rainy=True),
            "P",
            marks=pytest.mark.skipif("Taxi-v4" not in gym.registry, reason="not in this Gymnasium"),
        ),
        (lambda: gym.make("Blackjack-v1", sab=True), lambda: gym.make("Blackjack-v1", sab=False), "sab"),
        (
            lambda: gym.make_vec("CartPole-v1", 2, "vector_entry_point"),
            lambda: gym.make_vec("CartPole-v1", 2, "vector_entry_point", sutton_barto_reward=True),
            "_sutton_barto_reward",
        ),
    ],
)
def test_an_environment_that_was_made_otherwise_is_refused_and_says_what_of_it_may_be_another(make, again, part):
    env = make()
    env.reset(seed=0)
    state = exact.get_state(env)
    exact.set_state(make(), state)
    with pytest.raises(ValueError, match=f"made again, is another one than was saved.*{part}"):
        exact.set_state(again(), state)


@pytest.mark.parametrize(
    "change",
    [
        lambda env: env.model.body_mass.__setitem__(1, 2.0),
        lambda env: env.model.opt.gravity.__setitem__(2, -3.0),
        lambda env: setattr(env.model.opt, "timestep", 0.003),
        lambda env: setattr(env, "_reset_noise_scale", 0.5),
        lambda env: setattr(env, "frame_skip", 3),
    ],
    ids=["mass", "gravity", "timestep", "argument", "frame skip"],
)
def test_a_mujoco_environment_that_was_made_otherwise_is_refused(change):
    pytest.importorskip("mujoco")
    env, other = gym.make("InvertedPendulum-v5"), gym.make("InvertedPendulum-v5")
    env.reset(seed=0)
    change(other.unwrapped)
    with pytest.raises(ValueError, match=r"InvertedPendulumEnv, made again, .* one of model, arguments"):
        exact.set_state(other, exact.get_state(env))


def test_a_mujoco_model_that_is_changed_on_the_way_is_told_from_one_that_is_not():
    pytest.importorskip("mujoco")
    env = gym.make("InvertedPendulum-v5")
    env.reset(seed=0)
    exact.set_state(gym.make("InvertedPendulum-v5"), exact.get_state(env))
    env.unwrapped.model.body_mass[1] *= 1.5
    with pytest.raises(ValueError, match="made again, is another one than was saved"):
        exact.set_state(gym.make("InvertedPendulum-v5"), exact.get_state(env))


class Heavier(gym.Wrapper):
    """Draws the mass of a pole at each reset, and says it."""

    def reset(self, **arguments):
        answer = self.env.reset(**arguments)
        self.unwrapped.masspole = float(self.np_random.uniform(0.1, 0.2))
        return answer

    def get_state(self):
        return {"masspole": self.unwrapped.masspole}

    def set_state(self, state):
        self.unwrapped.masspole = state["masspole"]


def test_what_a_wrapper_changes_in_its_simulator_and_puts_back_is_no_other_environment():
    env = Heavier(made())
    env.reset(seed=0)
    played(env, 40, np.random.default_rng(0))
    state, other = exact.get_state(env), Heavier(made())
    exact.set_state(other, state)
    assert played(env, 60, np.random.default_rng(1)) == played(other, 60, np.random.default_rng(1))


def test_a_state_of_before_that_says_nothing_of_the_making_is_taken():
    env = lake()
    env.reset(seed=0)
    state = exact.get_state(env)
    del state["making"]
    other = lake()
    exact.set_state(other, state)
    assert other.unwrapped.s == env.unwrapped.s


@pytest.mark.parametrize("arguments", [{"map_name": None}, {"map_name": None, "desc": None}])
def test_a_lake_whose_map_is_drawn_is_named_and_one_with_a_map_is_not(arguments):
    assert "FrozenLakeEnv draws its map when it is made" in exact.reason_against(lake(**arguments))
    assert exact.reason_against(lake(map_name=None, desc=["SFG"])) is None
    assert exact.reason_against(lake(map_name="8x8")) is None


class Marked(np.ndarray):
    """An array of a class of its own."""


class Seen(gym.ObservationWrapper):
    """Shows what `show` makes of the first two and the last two numbers; keeps nothing."""

    def __init__(self, env, space, show):
        super().__init__(env)
        self.observation_space, self.show = space, show

    def observation(self, observation):
        return self.show(observation[:2], observation[2:])

    def get_state(self):
        return {}

    def set_state(self, state):
        assert state == {}


PAIR = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
BOTH = gym.spaces.Dict({"a": PAIR, "b": gym.spaces.Dict({"c": PAIR})})
SHOWN = {
    "ordered": (BOTH, lambda a, b: OrderedDict(a=a, b=OrderedDict(c=b))),
    "array class": (PAIR, lambda a, b: (a + b).view(Marked)),
    "array class in a dict": (BOTH, lambda a, b: {"a": a.view(Marked), "b": {"c": b}}),
    "masked": (PAIR, lambda a, b: np.ma.masked_array(a, [True, False])),
    "keys": (gym.spaces.Dict({1: PAIR, 2: PAIR}), lambda a, b: {1: a, 2: b}),
}
QUEUES = {
    "stack": lambda env: gym.wrappers.FrameStackObservation(env, 3),
    "delay": lambda env: gym.wrappers.DelayObservation(env, 2),
}


def classes_of(value):
    if isinstance(value, dict):
        return type(value), [classes_of(item) for item in value.values()]
    return type(value)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("shown", ["ordered", "array class", "array class in a dict"])
def test_ordered_dicts_and_arrays_of_a_class_come_back_as_they_were(queue, shown):
    def make():
        return QUEUES[queue](Seen(made(disable_env_checker=True), *SHOWN[shown]))

    env, other = make(), make()
    env.reset(seed=0)
    for _ in range(4):
        env.step(1)
    assert exact.reason_against(env) is None
    exact.set_state(other, unpacked(packed(exact.get_state(env))))
    for _ in range(5):
        (one, *_), (two, *_) = env.step(0), other.step(0)
        assert classes_of(one) == classes_of(two)
        assert repr(one) == repr(two)
    kept = [list(getattr(one, "obs_queue", None) or one.observation_queue) for one in (env, other)]
    assert [list(map(classes_of, queue)) for queue in kept] == [list(map(classes_of, kept[0]))] * 2


@pytest.mark.parametrize(
    ("shown", "what"),
    [
        ("masked", r"FrameStackObservation keeps .*: obs_queue\[0\]: .*MaskedArray"),
        ("keys", r"FrameStackObservation keeps .*: obs_queue\[0\]: keys that are no str"),
    ],
)
def test_what_a_known_wrapper_keeps_that_no_file_can_have_is_named(shown, what):
    env = QUEUES["stack"](Seen(made(disable_env_checker=True), *SHOWN[shown]))
    env.reset(seed=0)
    with pytest.raises(exact.NotKept, match=f"env: {what}"):
        exact.get_state(env)


def test_an_array_class_that_is_not_imported_or_none_is_refused():
    env = QUEUES["stack"](Seen(made(disable_env_checker=True), *SHOWN["array class"]))
    for name in ("nowhere.Marked", "os.system", "tests.environments.test_exact.Missing", ""):
        env.reset(seed=0)
        state = exact.get_state(env)
        state["layers"][0][1]["obs_queue"][1]["__class__"] = name
        with pytest.raises(ValueError, match=f"'{name}' is no class of arrays that is imported here"):
            exact.set_state(env, state)


def test_arrays_of_a_class_that_cannot_be_found_by_its_name_are_named():
    class Local(np.ndarray):
        pass

    env = QUEUES["stack"](Seen(made(disable_env_checker=True), PAIR, lambda a, b: a.view(Local)))
    env.reset(seed=0)
    with pytest.raises(exact.NotKept, match="Local"):
        exact.get_state(env)
