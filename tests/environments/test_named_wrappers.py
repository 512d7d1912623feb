from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Walk, copies_of, make_environments
from trpo_fast.environments.recipe import EnvironmentRecipe


def test_wrappers_are_applied_in_order_to_ids_and_callables(wanders):
    def outer(env):
        return gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward)

    for source in (Walk, f"{wanders}:Wandering-v0"):
        made = make_environments(source, num_envs=2, wrappers=[f"{wanders}:Longer", outer], env_kwargs={"limit": 3})
        made.reset(0)
        for env in copies_of(made):
            assert isinstance(env, gymnasium.wrappers.TransformReward)
            assert type(env.env).__name__ == "Longer"
            assert env.unwrapped.limit == 99


def test_copies_made_again_have_the_wrappers(wanders):
    recipe = EnvironmentRecipe(Walk, wrappers=[f"{wanders}:Longer"])
    again = recipe.make_again(1, like=recipe.make(1))
    assert type(copies_of(again)[0]).__name__ == "Longer"


@pytest.mark.parametrize(
    ("wrappers", "error", "message"),
    [
        ("atari", TypeError, "wrappers must be a sequence of .* got 'atari'"),
        ([3], ValueError, "wrappers: 3 given; want 'module:callable', a callable, or atari, none"),
        (["unknown"], ValueError, "wrappers: 'unknown' given; want 'module:callable'"),
        ([":x"], ValueError, "wrappers: ':x' given; want 'module:callable'"),
        (["none", "atari"], ValueError, r"wrappers: \['none', 'atari'\] given; want 'none' alone"),
        (["wanders_for_a_test:broken"], ValueError, "broken' cannot be applied: RuntimeError: no wrapper today"),
        (["wanders_for_a_test:nothing"], TypeError, "nothing' returned None; want a gymnasium.Env"),
        (["wanders_for_a_test:absent"], ValueError, "absent' cannot be applied: AttributeError"),
    ],
    ids=str,
)
def test_wrappers_that_cannot_be_used_are_named(wanders, wrappers, error, message):
    with pytest.raises(error, match=message):
        make_environments(Walk, wrappers=wrappers)


def test_what_has_no_copies_to_wrap_refuses_wrappers():
    with pytest.raises(ValueError, match=r"wrappers: .* given; want none with vectorization='vector'"):
        make_environments("CartPole-v1", vectorization="vector", wrappers=["gymnasium.wrappers:NormalizeReward"])
    env = gymnasium.make_vec("CartPole-v1", num_envs=1)
    with pytest.raises(ValueError, match="wrappers and imports must be left out with a VectorEnv"):
        make_environments(env, wrappers=["atari"])
    env.close()


def test_an_environment_is_closed_where_a_wrapper_fails(wanders):
    closed = []

    class Closing(Walk):
        def close(self):
            closed.append(self)

    with pytest.raises(ValueError, match="cannot be applied"):
        make_environments(Closing, num_envs=1, wrappers=[f"{wanders}:broken"])
    assert len(closed) == 1


def test_ale_py_images_are_four_gray_frames_unless_something_else_is_said():
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    pytest.importorskip("cv2", reason="opencv-python is not installed")
    recipe = EnvironmentRecipe("ale_py:ALE/Pong-v5").resolved()
    assert recipe.wrappers == ("atari",)
    made = recipe.make(1)
    assert made.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    (env,) = copies_of(made)
    assert env.unwrapped._frameskip == 1
    rows = made.reset(0)
    assert rows.shape == (1, 4 * 84 * 84)
    raw = EnvironmentRecipe("ale_py:ALE/Pong-v5", wrappers=["none"]).resolved()
    assert raw.wrappers == ()
    assert raw.make(1).observation_space.shape == (210, 160, 3)
    ram = EnvironmentRecipe("ale_py:ALE/Pong-v5", env_kwargs={"obs_type": "ram"}).resolved()
    assert ram.wrappers == ()
    assert ram.make(1).observation_space.shape == (128,)


def test_ale_py_with_a_frameskip_and_the_wrapper_says_which_of_the_two_skips():
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    with pytest.raises(ValueError, match=r"env_kwargs: frameskip=4 given; want it left out with the wrapper 'atari'"):
        make_environments("ale_py:ALE/Pong-v5", env_kwargs={"frameskip": 4})
