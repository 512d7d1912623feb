from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from tests.rollout.toys import Gate, LuckyEngine, Walk, copies_of, make_environments, play
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.rollout.collector import Collector


class Particular(Walk):
    """Takes Python's integers only; `refuse` is how it says so."""

    action_space = Discrete(3, start=-1)

    def __init__(self, refuse=None):
        super().__init__()
        self.refuse = refuse

    def step(self, action):
        if not isinstance(action, int):
            raise self.refuse or TypeError
        return super().step([float(action)])


class Showing(Gate):
    """A Gate whose mask is a part of its observation, `name`, beside what else it shows, or beside one part alone."""

    def __init__(self, space, name="action_mask", only=None):
        super().__init__(space, "observation", flat=True)
        self.name, self.kept = name, [only] if only else list(Gate.observation_space)
        count = int(space.n if isinstance(space, Discrete) else space.nvec.sum())
        parts = {key: Gate.observation_space[key] for key in self.kept}
        self.observation_space = Dict({name: MultiBinary(count), **parts})

    def _draw(self):
        drawn = super()._draw()
        return {self.name: self.canonical().astype(np.int8), **{key: drawn[key] for key in self.kept}}


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
        ("atari", TypeError, "wrappers: 'atari' given; want a sequence of .*"),
        (
            [3],
            ValueError,
            "3 given; want 'module:callable', a callable, or atari, int-actions, mask-in-observation, none",
        ),
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
    with pytest.raises(ValueError, match=r"wrappers: \('atari',\) given; want it left out with a VectorEnv"):
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


@pytest.mark.parametrize("env", ["CartPole-v1", Walk], ids=["id", "callable"])
def test_atari_on_another_kind_of_environment_is_refused_by_name(env):
    with pytest.raises(ValueError, match=r"wrappers: 'atari' cannot be applied: ValueError: \w+ is no game of ale-py"):
        make_environments(env, wrappers=["atari"])


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


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_an_environment_that_takes_no_numpy_integer_gets_pythons(vectorization):
    made = make_environments(Particular, 2, vectorization=vectorization, wrappers=["int-actions"])
    _, rewards, _, _ = play(made)
    assert rewards.shape == (60, 2)
    assert len(np.unique(rewards)) > 100


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize(
    "error",
    [
        TypeError("Action must be an integer"),
        AssertionError("not an int: 1"),
        TypeError("Object of type int64 is not JSON serializable"),
    ],
    ids=str,
)
def test_an_environment_that_takes_no_numpy_integer_is_told_the_wrapper(vectorization, error):
    made = make_environments(Particular, 2, vectorization=vectorization, env_kwargs={"refuse": error})
    made.reset(0)
    with pytest.raises(type(error)) as caught:
        made.step(np.zeros(2, np.int64))
    assert any("wrappers=['int-actions']" in note for note in caught.value.__notes__)
    made.close()


def test_other_errors_of_a_step_are_told_no_wrapper():
    class Failing(Particular):
        def step(self, action):
            if self.steps:
                raise TypeError("an int is wanted, later")
            raise self.refuse

    for error in (TypeError("no pointer"), RuntimeError("an int")):
        made = make_environments(Failing, 1, env_kwargs={"refuse": error})
        made.reset(0)
        with pytest.raises(type(error)) as caught:
            made.step(np.zeros(1, np.int64))
        assert not any("int-actions" in note for note in caught.value.__notes__)


def test_int_actions_are_for_discrete_actions():
    with pytest.raises(
        ValueError, match=r"'int-actions' cannot be applied: .*action space: Box.* given; want a Discrete one"
    ):
        make_environments(Walk, 1, wrappers=["int-actions"])


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize("name", ["action_mask", "mask"])
@pytest.mark.parametrize("space", [Discrete(5, start=-2), MultiDiscrete([2, 4, 3])], ids=str)
def test_a_mask_in_the_observation_is_obeyed_and_not_observed(space, name, vectorization):
    made = make_environments(
        lambda: Showing(space, name), 3, vectorization=vectorization, wrappers=["mask-in-observation"]
    )
    assert made.observation_space == Gate.observation_space
    rollout = Collector(made, LuckyEngine(), steps_per_env=40, seed=1).collect()  # a Gate raises otherwise
    assert len(np.unique(rollout.action_masks.reshape(120, -1), axis=0)) > 3
    made.close()


def test_what_is_left_alone_beside_a_mask_is_the_observation():
    made = make_environments(lambda: Showing(Discrete(4), only="far"), 2, wrappers=["mask-in-observation"])
    assert made.observation_space == Box(-1, 1, (2,), np.float32)
    rows = made.reset(0)
    assert rows.shape == (2, 2)
    assert made.action_masks.shape == (2, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Gate(Discrete(3)),
            r"Dict\('here'.* given; want a Dict with a part action_mask, action_masks or mask ",
        ),
        (lambda: Showing(Discrete(3), "masked"), r"Dict\(.*'masked'.* given; want a Dict with a part "),
        (Walk, r"Box.* given; want a Dict with a part .* for every choice of Box\("),
    ],
    ids=["no such part", "another name", "no Dict"],
)
def test_an_observation_without_a_mask_is_named(make, message):
    with pytest.raises(ValueError, match=f"'mask-in-observation' cannot be applied: .*{message}"):
        make_environments(make, 1, wrappers=["mask-in-observation"])


def test_nothing_but_a_mask_is_no_observation():
    class Bare(Showing):
        def __init__(self):
            super().__init__(Discrete(3))
            self.observation_space = Dict({"mask": MultiBinary(3)})

    with pytest.raises(ValueError, match="given; want a part besides 'mask'"):
        make_environments(Bare, 1, wrappers=["mask-in-observation"])


def test_a_mask_that_is_only_observed_is_named_once_with_the_wrapper():
    class Lenient(Showing):
        def __init__(self):
            super().__init__(Discrete(3))
            self.source = None

    collector = Collector(make_environments(Lenient, 2), LuckyEngine(), steps_per_env=5, seed=1)
    message = r"observation\['action_mask'\] .* wrappers=\['mask-in-observation'\]"
    with pytest.warns(UserWarning, match=message) as caught:
        collector.collect()
    assert len(caught) == 1
    assert collector.collect().action_masks is None


def test_names_of_wrappers_are_kept_in_a_file():
    recipe = EnvironmentRecipe(f"{__name__}:Absent-v0", wrappers=["int-actions", "mask-in-observation"])
    again = EnvironmentRecipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again.wrappers == ("int-actions", "mask-in-observation")
    assert again.code == [__name__]
