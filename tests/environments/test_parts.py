"""What parts of an observation may be: text is left out, what cannot be saved is refused when an agent is made."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Walk, make_environments
from trpo_fast import TRPO

SMALL = {"num_envs": 2, "steps_per_env": 8, "hidden_sizes": (4,), "critic_hidden_sizes": (4,), "seed": 0}
SMALL |= {"warm_up_steps": 2, "critic_epochs": 1}


class Mission(Walk):
    """A walk with words, as minigrid's environments have."""

    class Words(gymnasium.Space):
        def __init__(self):
            super().__init__(dtype=str)

        def contains(self, x):
            return isinstance(x, str)

        def sample(self, *_, **__):
            return "go"

    observation_space = gymnasium.spaces.Dict(
        [
            ("mission", Words()),
            ("walk", Walk.observation_space),
            ("more", gymnasium.spaces.Dict(text=gymnasium.spaces.Text(9), n=gymnasium.spaces.Discrete(3))),
        ]
    )
    numbers = gymnasium.spaces.Dict(
        [("walk", Walk.observation_space), ("more", gymnasium.spaces.Dict(n=gymnasium.spaces.Discrete(3)))]
    )

    def _observe(self):
        return {"mission": "go home", "walk": super()._observe(), "more": {"text": "now", "n": self.steps % 3}}


def test_text_in_an_observation_is_left_out_with_one_warning_that_names_it(tmp_path):
    with pytest.warns(UserWarning) as caught:
        agent = TRPO(Mission, **SMALL)
    (warning,) = caught
    assert str(warning.message).startswith("observation['mission'], observation['more']['text']: text")
    assert warning.filename == __file__
    assert agent.observation_space == Mission.numbers
    agent.learn(16)
    assert agent.evaluate(2).returns.shape == (2,)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", env=Mission)  # no second warning
    env = Mission()
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


def test_workers_leave_text_out_and_say_what_it_was():
    made = make_environments(Mission, num_envs=2, vectorization="workers", num_workers=2)
    assert made.left_out == ("observation['mission']", "observation['more']['text']")
    assert made.observation_space == Mission.numbers
    assert made.reset(0).shape == (2, made.observation_size)
    made.close()


def test_an_observation_of_text_alone_is_named():
    class Reader(Walk):
        observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Text(5))

    with pytest.raises(ValueError, match=r"observation\['a'\]: its space: Text.* given; want"):
        make_environments(Reader, num_envs=1)


@pytest.mark.parametrize(
    "part",
    [gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)), gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1), None)],
    ids=["sequence", "graph"],
)
def test_parts_that_hold_numbers_are_refused_and_not_left_out(part):
    class Strange(Walk):
        observation_space = gymnasium.spaces.Dict(a=part, b=Walk.observation_space)

    with pytest.raises(ValueError, match=r"observation\['a'\]: its space: (Sequence|Graph).* given; want"):
        make_environments(Strange, num_envs=1)


def test_keys_that_a_file_cannot_keep_are_refused_when_the_agent_is_made():
    class Keyed(Walk):
        observation_space = gymnasium.spaces.Dict([((0, 1), Walk.observation_space)])

    with pytest.raises(ValueError, match=r"observation: key \(0, 1\) given; want strings or integers as keys"):
        make_environments(Keyed, num_envs=1)

    class Alike(Walk):
        observation_space = gymnasium.spaces.Dict([(0, Walk.observation_space), ("0", Walk.observation_space)])

    with pytest.raises(ValueError, match=r"keys \[0, '0'\] given; want keys that differ as text"):
        make_environments(Alike, num_envs=1)


def test_integers_as_keys_and_parts_without_items_are_saved(tmp_path):
    class Odd(Walk):
        observation_space = gymnasium.spaces.Dict(
            [(1, Walk.observation_space), (0, gymnasium.spaces.Box(0, 1, (0,), np.float32))]
        )

        def _observe(self):
            return {1: super()._observe(), 0: np.zeros(0, np.float32)}

    agent = TRPO(Odd, **SMALL).learn(16)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", env=Odd)
    assert list(loaded.observation_space.spaces) == [1, 0]
    assert loaded.observation_space == Odd.observation_space


def test_a_mission_of_minigrid_is_left_out():
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    with pytest.warns(UserWarning, match=r"observation\['mission'\]: text"):
        agent = TRPO("minigrid:MiniGrid-Empty-5x5-v0", policy="mlp", **SMALL)
    assert list(agent.observation_space.spaces) == ["direction", "image"]
    agent.learn(16)
