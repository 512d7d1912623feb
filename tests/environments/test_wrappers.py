from __future__ import annotations

import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from tests.rollout.toys import Walk, copies_of
from trpo_fast import TRPO

SMALL = {"num_envs": 3, "steps_per_env": 16, "warm_up_steps": 4, "critic_epochs": 1, "hidden_sizes": (8,)}


def normalized():
    return wrappers.NormalizeObservation(wrappers.TimeLimit(Walk(), 9))


def scaled():
    return wrappers.NormalizeReward(Walk())


def walks(kind=SyncVectorEnv, one=Walk):
    return kind([one] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize(
    "make",
    [
        lambda: normalized,
        lambda: walks(SyncVectorEnv, normalized),
        lambda: walks(AsyncVectorEnv, normalized),
        lambda: vector_wrappers.NormalizeObservation(walks()),
    ],
    ids=["copies", "sync", "async", "vector"],
)
def test_observations_that_are_normalized_already_are_said_once(make):
    env = make()
    with pytest.warns(UserWarning) as caught:
        agent = TRPO(env, seed=0, **SMALL)
        agent.learn(64)
        agent.learn(64)
    agent.close()
    if not callable(env):
        env.close()
    said = [str(one.message) for one in caught if "NormalizeObservation" in str(one.message)]
    assert len(said) == 1
    assert "observations are normalized twice" in said[0]


@pytest.mark.parametrize("make", [lambda: scaled, lambda: vector_wrappers.NormalizeReward(walks())])
def test_rewards_that_are_normalized_already_are_said(make):
    with pytest.warns(UserWarning, match=r"in NormalizeReward: rewards are normalized twice.*scale_rewards=True"):
        TRPO(make(), seed=0, scale_rewards=True, **SMALL)


def test_statistics_of_a_wrapper_are_said_to_be_lost_where_the_state_of_environments_is_not_known():
    with pytest.warns(UserWarning, match="in NormalizeObservation: its statistics are neither saved"):
        TRPO(normalized, seed=0, normalize_observations=False, **SMALL)


def test_statistics_of_a_wrapper_are_said_to_be_kept_for_a_resumed_training_where_they_are(tmp_path):
    def known():
        return wrappers.NormalizeObservation(gymnasium.make("CartPole-v1"))

    with pytest.warns(UserWarning, match="in NormalizeObservation: its statistics are kept for a training that is res"):
        agent = TRPO(known, seed=0, normalize_observations=False, **SMALL)
    agent.learn(64)
    agent.save(tmp_path / "m.trpo")
    before = [copy.get_wrapper_attr("obs_rms").count for copy in copies_of(agent.environments)]
    agent.close()
    with pytest.warns(UserWarning, match="in NormalizeObservation: its statistics are kept"):
        other = TRPO.load(tmp_path / "m.trpo", env=known)
        other.learn(1, reset_num_timesteps=False)
    after = [copy.get_wrapper_attr("obs_rms").count for copy in copies_of(other.environments)]
    other.close()
    assert min(before) > 32 and all(now >= then + 16 for now, then in zip(after, before, strict=True))


def test_all_is_said_in_one_warning():
    with pytest.warns(UserWarning) as caught:
        TRPO(lambda: wrappers.NormalizeReward(normalized()), seed=0, **SMALL)
    assert len(caught) == 1
    assert "NormalizeObservation" in str(caught[0].message)
    assert "NormalizeReward" in str(caught[0].message)


class Drawn(Walk):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 -- as gymnasium has it
    render_mode = "rgb_array"


@pytest.fixture
def filmed(tmp_path, monkeypatch):
    """Makes environments that record nothing, as videos need a package; by prefix."""
    monkeypatch.setitem(sys.modules, "moviepy", types.ModuleType("moviepy"))

    def make(prefix):
        return wrappers.RecordVideo(
            Drawn(), str(tmp_path / "videos"), episode_trigger=lambda episode: False, name_prefix=prefix
        )

    return make


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
@pytest.mark.parametrize("make", [lambda one: one, lambda one: walks(SyncVectorEnv, one)], ids=["copies", "sync"])
def test_copies_that_write_one_video_are_said(filmed, make):
    with pytest.warns(UserWarning, match=r"in RecordVideo: 3 copies write the same files, .*videos/walk-\*"):
        TRPO(make(lambda: filmed("walk")), seed=0, **SMALL)


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
def test_videos_with_names_apart_and_plain_environments_are_not_spoken_of(filmed):
    names = iter("abc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TRPO(lambda: filmed(next(names)), seed=0, **SMALL)
        TRPO(lambda: gymnasium.make("CartPole-v1"), seed=0, **SMALL)
    assert not [one for one in caught if "env: it is" in str(one.message)]


class Pixels(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (4,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(4, 200, np.uint8), {}

    def step(self, action):
        return np.full(4, 200, np.uint8), 0.0, False, False, {}


def dark():
    return wrappers.TimeLimit(wrappers.RescaleObservation(Pixels(), 0, 1), 9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dark,
        lambda: walks(SyncVectorEnv, dark),
        lambda: vector_wrappers.RescaleObservation(walks(AsyncVectorEnv, Pixels), 0, 1),
    ],
    ids=["copies", "sync", "vector"],
)
def test_integers_that_are_rescaled_as_integers_are_said(make):
    assert not dark().reset()[0].any()  # Gymnasium's own doing
    env = make()
    with pytest.warns(UserWarning, match="in RescaleObservation: it multiplies integers by integers.*DtypeObservation"):
        TRPO(env, seed=0, **SMALL).close()
    if not callable(env):
        env.close()


def test_numbers_with_a_fraction_may_be_rescaled():
    def light():
        return wrappers.RescaleObservation(wrappers.DtypeObservation(Pixels(), np.float32), 0, 1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TRPO(light, seed=0, **SMALL).close()
    assert light().reset()[0] == pytest.approx(200 / 255)
    assert not [one for one in caught if "env: it is" in str(one.message)]
