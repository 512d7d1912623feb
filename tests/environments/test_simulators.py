"""Environments of simulators that are not installed with the tests go on with the same bits, where those are."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

from trpo_fast.environments import exact
from trpo_fast.state import packed, unpacked


def bits(answer):
    return [np.asarray(part).tobytes() for part in answer[:-1]]


def played(env, actions):
    """Everything that comes of `actions`, new episodes where they end."""
    seen = []
    for action in actions:
        answer = env.step(action)
        seen.append(bits(answer))
        if answer[2] or answer[3]:
            seen.append(np.asarray(env.reset()[0]).tobytes())
    return seen


def actions_of(env, count, rng):
    """Of a Box also those that are beyond it, as a policy may draw them."""
    if isinstance(env.action_space, gym.spaces.Discrete):
        return list(rng.integers(env.action_space.n, size=count))
    return list(rng.normal(size=(count, *env.action_space.shape)).astype(np.float32))


def lander(limit=120, **arguments):
    pytest.importorskip("Box2D")
    env = gym.make("LunarLander-v3", max_episode_steps=limit, **arguments)
    exact.watch(env)
    return env


LANDERS = [{}, {"continuous": True}, {"enable_wind": True, "wind_power": 17.0}]
LANDERS += [{"continuous": True, "enable_wind": True, "gravity": -7.0}]


def require_the_same_bits_from_many_points(make, points, resets, between, steps):
    """Play on with what `make` makes, a reset every `resets` points, at most `between` steps from one to the next.

    At each a new environment, or one that has been used, has to give the same bits for so many `steps`.
    """
    env = make()
    assert exact.reason_against(env) is None
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for point in range(points):
        played(env, actions_of(env, int(rng.integers(0, between)) if point else 0, rng))
        if point % resets == resets - 1:
            env.reset()
        state = packed(exact.get_state(env))
        other = make()
        if point % 2:  # one that has been used, too
            other.reset(seed=8)
            played(other, actions_of(other, 30, rng))
        exact.set_state(other, unpacked(state))
        assert packed(exact.get_state(other)).tobytes() == state.tobytes()
        actions = actions_of(env, steps, rng)
        assert played(env, actions) == played(other, actions), point


@pytest.mark.parametrize("arguments", LANDERS)
def test_a_new_lunar_lander_goes_on_with_the_same_bits_from_many_points(arguments):
    require_the_same_bits_from_many_points(lambda: lander(**arguments), points=20, resets=5, between=60, steps=130)


class Gusts(gym.Wrapper):
    """Draws from the lander's generator after a reset, and before and after some steps."""

    def reset(self, **arguments):
        answer = self.env.reset(**arguments)
        self.calm = int(self.np_random.integers(1, 4))
        return answer

    def step(self, action):
        self.calm -= 1
        if self.calm == 0:
            self.calm, action = int(self.np_random.integers(1, 4)), int(self.np_random.integers(4))
        observation, reward, *answer = self.env.step(action)
        return observation, reward + (self.np_random.normal() if self.calm == 1 else 0.0), *answer

    def get_state(self):
        return {"calm": self.calm}

    def set_state(self, state):
        self.calm = state["calm"]


@pytest.mark.parametrize("wrap", [lambda env: gym.wrappers.StickyAction(env, 0.3), Gusts], ids=["sticky", "own"])
def test_a_lunar_lander_from_whose_generator_a_wrapper_draws_goes_on_with_the_same_bits(wrap):
    for arguments in ({}, {"enable_wind": True}):
        require_the_same_bits_from_many_points(
            lambda arguments=arguments: wrap(lander(**arguments)), points=10, resets=5, between=60, steps=130
        )


def test_a_lunar_lander_from_whose_generator_nobody_draws_keeps_no_states_of_it():
    env = lander()
    env.reset(seed=3)
    played(env, actions_of(env, 50, np.random.default_rng(0)))
    assert exact.get_state(env)["layers"][-1][1]["moved"] == []


def test_a_lunar_lander_lands_with_the_same_bits():
    """Contacts of the legs, and bodies that fall asleep, are in an episode, too."""
    pytest.importorskip("Box2D")
    from gymnasium.envs.box2d.lunar_lander import heuristic

    env, other, landed = lander(limit=1000), None, 0
    observation, _ = env.reset(seed=4)
    for step in range(700):
        if step % 50 == 25:  # again and again in an episode, from what was put back before
            state = unpacked(packed(exact.get_state(env if other is None else other)))
            other = lander(limit=1000)
            exact.set_state(other, state)
        action = heuristic(env.unwrapped, observation)
        answer = env.step(action)
        assert other is None or bits(other.step(action)) == bits(answer), step
        observation, reward, terminated, truncated, _ = answer
        if terminated or truncated:
            landed += reward == 100
            observation, _ = env.reset()
            assert other is None or np.array_equal(other.reset()[0], observation)
    assert landed


def test_a_lunar_lander_whose_replay_comes_elsewhere_is_refused():
    env = lander()
    env.reset(seed=0)
    played(env, [0, 1, 2])
    state = exact.get_state(env)
    state["layers"][-1][1]["reached"][0, 0] += 1e-6
    with pytest.raises(ValueError, match="played again, has come elsewhere"):
        exact.set_state(lander(), state)
    state["layers"][-1][1]["actions"] = np.array([7, 1, 2])
    with pytest.raises(ValueError, match="want those of Discrete"):
        exact.set_state(lander(), state)
    state["layers"][-1][1]["actions"] = [1, 2]
    with pytest.raises(ValueError, match="want one of Discrete"):
        exact.set_state(lander(), state)


@pytest.mark.parametrize("name", ["BipedalWalker-v3", "BipedalWalkerHardcore-v3"])
def test_a_box2d_world_that_lives_across_episodes_is_named(name):
    pytest.importorskip("Box2D")
    assert "keeps one Box2D world from episode to episode" in exact.reason_against(gym.make(name))


@pytest.mark.parametrize("name", ["LunarLander-v3", "ALE/Breakout-v5"])
def test_in_another_process_a_simulator_goes_on_with_the_same_bits(name, tmp_path):
    pytest.importorskip("Box2D" if "Lunar" in name else "ale_py")
    script = """
import sys
import numpy as np
from tests.environments.test_simulators import atari, lander, played
from trpo_fast.environments import exact
from trpo_fast.state import unpacked
env = lander() if "Lunar" in sys.argv[1] else atari()
exact.set_state(env, unpacked(np.fromfile(sys.argv[2], np.uint8)))
print(repr(played(env, [1, 3, 2, 0] * 30)))
"""
    env = lander() if "Lunar" in name else atari()
    env.reset(seed=1)
    played(env, [1, 2, 3, 0] * 11)
    packed(exact.get_state(env)).tofile(tmp_path / "state")
    command = [sys.executable, "-W", "ignore", "-c", script, name, str(tmp_path / "state")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.strip() == repr(played(env, [1, 3, 2, 0] * 30))


def atari(game="Breakout", sticky=0.0, wrap=True):
    ale_py = pytest.importorskip("ale_py")
    gym.register_envs(ale_py)
    env = gym.make(f"ALE/{game}-v5", frameskip=1 if wrap else 4, repeat_action_probability=sticky)
    if wrap:
        pytest.importorskip("cv2")
        env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4)
        env = gym.wrappers.FrameStackObservation(env, 4)
    return env


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("game", ["Breakout", "Pong", "SpaceInvaders"])
def test_a_new_atari_game_goes_on_with_the_same_bits_from_many_points(game, wrap):
    require_the_same_bits_from_many_points(lambda: atari(game, wrap=wrap), points=8, resets=4, between=150, steps=250)


def test_an_atari_game_with_sticky_actions_is_named():
    assert "does not tell the action it would repeat" in exact.reason_against(atari(sticky=0.25))


def test_a_simulator_of_an_earlier_version_is_told_by_what_it_has():
    env = TaxiEnv()
    for name in ("fickle_passenger", "fickle_probability"):  # which Gymnasium 1.1 does not have
        vars(env).pop(name, None)
    assert exact.simulators.parts_of_making(env) == ("P", "initial_state_distrib")
    assert exact.simulators.digest_of_making(env) == exact.simulators.digest_of_making(env) is not None
