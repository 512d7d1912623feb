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


def test_a_state_of_another_version_of_the_simulator_is_refused_and_both_are_named():
    mujoco = pytest.importorskip("mujoco")
    env = gym.make("InvertedPendulum-v5")
    env.reset(seed=0)
    state = exact.get_state(env)
    state["layers"][-1][1]["version"] = "2.3.7"
    with pytest.raises(ValueError, match=f"saved with MuJoCo 2.3.7, and {mujoco.__version__} is installed"):
        exact.set_state(env, state)
