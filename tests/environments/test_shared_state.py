from __future__ import annotations

import random

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Gate, Walk, make_environments
from trpo_fast.environments.shared_state import STEPS, shared_state


class Steady(Walk):
    """Does not count its episodes."""

    def _observe(self):
        return super()._observe() * [1, 1, 0]


class OneAircraft(Walk):
    """Every copy flies the same one: its position belongs to the class, as to a module of a simulator."""

    position = 0.0

    def __init__(self):
        super().__init__(limit=1000, edge=np.inf)

    def _observe(self):
        return np.array([self.position, self.steps, 0.0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        OneAircraft.position = self.__dict__.pop("position")
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        OneAircraft.position += float(action[0])
        return self._observe(), self.position, False, False, {}


class OneDiceCup(Walk):
    """Every copy draws from one generator of the class."""

    cup = np.random.default_rng(0)

    def _observe(self):
        return np.zeros(3)

    def reset(self, *, seed=None, options=None):
        OneDiceCup.cup = np.random.default_rng(seed)
        return super().reset(seed=seed)

    def step(self, action):
        observation, _, *others = super().step(action)
        return observation, float(self.cup.random()), *others


def test_one_simulator_behind_all_copies_is_found():
    found = shared_state([OneAircraft(), OneAircraft()])
    assert found.shared is True and "OneAircraft" in found.reason


def test_a_generator_that_all_copies_draw_from_is_found():
    assert shared_state([OneDiceCup(), OneDiceCup()]).shared is True


@pytest.mark.parametrize(
    "make",
    [
        Steady,
        lambda: Gate(gymnasium.spaces.Discrete(5), "info"),
        lambda: Gate(gymnasium.spaces.Discrete(5, start=2), "method"),
        lambda: gymnasium.make("CartPole-v1"),
        lambda: gymnasium.make("Blackjack-v1"),
    ],
)
def test_copies_that_share_nothing_are_found_so(make):
    assert shared_state([make(), make()]).shared is False


def test_what_counts_its_resets_shares_nothing_for_that():
    found = shared_state([Walk(), Walk()])
    assert found.shared is False and "alike" in found.reason


class Global(Steady):
    """Pays what the process's generators give."""

    def _observe(self):
        return np.zeros(3)

    def step(self, action):
        observation, _, *others = super().step(action)
        return observation, np.random.random() + random.random(), *others


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Box(-1, 1, (2,)),
        gymnasium.spaces.Dict(
            a=gymnasium.spaces.Discrete(3), b=gymnasium.spaces.Tuple([gymnasium.spaces.MultiBinary(2)])
        ),
    ],
    ids=str,
)
def test_samples_of_a_space_that_copies_have_in_common_are_no_shared_state(space):
    class Toy(gymnasium.Env):
        observation_space = space
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), float(self.action_space.sample()), False, False, {}

    space.seed(9)
    expected = space.sample()
    space.seed(9)
    assert shared_state([Toy(), Toy()]).shared is False
    assert str(space.sample()) == str(expected)


class Gambler(Walk):
    """Pays what its action space gives, a class's as most are."""

    def __init__(self, seeds=False, alone=False):
        super().__init__()
        self.seeds = seeds
        if alone:
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def _observe(self):
        return np.array([self.position, self.steps, 0.0])

    def step(self, action):
        observation, _, *others = super().step(action)
        if self.seeds:
            self.action_space.seed(self.steps)
        return observation, float(self.action_space.sample()[0]), *others


def test_a_space_that_copies_have_in_common_and_draw_from_is_named():
    found = shared_state([Gambler(), Gambler()])
    assert (found.shared, found.drawn_from) == (False, ("action_space",))
    state = Gambler.action_space.np_random.bit_generator.state
    shared_state([Gambler(), Gambler()])
    assert Gambler.action_space.np_random.bit_generator.state == state


@pytest.mark.parametrize("kind", [{"seeds": True}, {"alone": True}], ids=str)
def test_a_space_of_ones_own_and_one_that_is_seeded_before_it_is_drawn_from_are_not_named(kind):
    assert shared_state([Gambler(**kind), Gambler(**kind)]).drawn_from == ()


def test_a_part_of_a_space_that_copies_have_in_common_is_named():
    die = gymnasium.spaces.Discrete(6)

    class Dice(Walk):
        def __init__(self):
            super().__init__()
            self.observation_space = gymnasium.spaces.Dict(die=die, place=gymnasium.spaces.Box(-9, 9, (1,)))

        def _observe(self):
            return {"die": die.sample(), "place": np.zeros(1, np.float32)}

    assert shared_state([Dice(), Dice()]).drawn_from == ("observation_space",)


def test_drawing_from_the_global_generators_is_no_shared_state_and_leaves_them_as_they_were():
    np.random.seed(4), random.seed(4)
    expected = np.random.random(), random.random()
    np.random.seed(4), random.seed(4)
    assert shared_state([Global(), Global()]).shared is False
    assert (np.random.random(), random.random()) == expected


def test_copies_that_differ_share_nothing_for_that():
    found = shared_state([Global(limit=3, edge=np.inf), Global(limit=5, edge=np.inf)])
    assert found.shared is False


class Clock(Walk):
    """No seed reproduces it."""

    def step(self, action):
        observation, _, *others = super().step(action)
        return observation, np.random.default_rng().random(), *others


def test_what_no_seed_reproduces_cannot_be_told():
    found = shared_state([Clock(), Clock()])
    assert found.shared is None and "differ" in found.reason


def test_what_raises_cannot_be_told():
    class Failing(Walk):
        def step(self, action):
            raise RuntimeError("no display")

    found = shared_state([Failing(), Failing()])
    assert found.shared is None and "no display" in found.reason


def test_what_has_its_spaces_from_a_wrapper_cannot_be_told():
    class Spaceless(gymnasium.Env):
        def __init__(self):
            self.walk = Walk()

        def reset(self, *, seed=None, options=None):
            return self.walk.reset(seed=seed)

        def step(self, action):
            return self.walk.step(action)

    class Spaced(gymnasium.Wrapper):
        def __init__(self):
            super().__init__(Spaceless())
            self.observation_space, self.action_space = Walk.observation_space, Walk.action_space

    found = make_environments(Spaced, 2).shared_state(3)
    assert found.shared is None and "a wrapper gives it its spaces" in found.reason


def test_a_copy_that_fails_only_after_another_one_was_stepped_shares_state():
    class Broken(OneAircraft):
        def reset(self, *, seed=None, options=None):
            answer = super().reset(seed=seed)
            self.expected = self.position
            return answer

        def step(self, action):
            if self.position != self.expected:
                raise RuntimeError("where is my aircraft?")
            answer = super().step(action)
            self.expected = self.position
            return answer

    assert shared_state([Broken(), Broken()]).shared is True


def test_an_aircraft_that_no_seed_brings_back_exactly_is_found_all_the_same():
    class Drifting(OneAircraft):
        rng = np.random.default_rng()

        def step(self, action):
            OneAircraft.position += 1.0 + 1e-3 * self.rng.normal()
            return self._observe(), self.position, False, False, {}

    assert shared_state([Drifting(), Drifting()]).shared is True


@pytest.mark.parametrize("rate", [1.0, 0.05, 0.01])
def test_what_comes_from_no_seed_is_not_taken_for_shared_state(rate):
    rng = np.random.default_rng(5)

    class Moody(Global):
        def step(self, action):
            observation, _, *others = super().step(action)
            return observation, float(rng.random() < rate) * rng.normal(), *others

    found = [shared_state([Moody(), Moody()]).shared for _ in range(200)]
    assert found.count(True) <= 2  # a rare event has to fall on both looks at one copy beside the other


def test_one_copy_has_nobody_to_share_with():
    env = OneAircraft()
    assert shared_state([env]).shared is False
    assert env.episode == -1


def test_two_copies_are_stepped_a_few_times_below_their_wrappers_and_no_more():
    envs = [gymnasium.wrappers.NormalizeObservation(Steady(limit=100, edge=np.inf)) for _ in range(4)]
    count = [env.obs_rms.count for env in envs]
    assert shared_state(envs).shared is False
    assert [len(env.unwrapped.history) for env in envs] == [STEPS, 2 * STEPS, 0, 0]
    assert [env.obs_rms.count for env in envs] == count


def test_actions_are_drawn_without_the_environments_own_generator():
    envs = [Walk(), Walk()]
    for space in (envs[0].action_space, envs[0].observation_space):
        space.seed(3)
        expected = space.sample()
        space.seed(3)
        shared_state(envs)
        np.testing.assert_array_equal(space.sample(), expected)


def test_environments_are_looked_at_before_their_first_reset_and_not_after():
    made = make_environments(OneAircraft, 3)
    assert made.shared_state(3).shared is True
    made.reset(0)
    assert made.shared_state(3).shared is True  # remembered
    late = make_environments(OneAircraft, 3)
    late.reset(0)
    before = OneAircraft.position
    assert late.shared_state(3).shared is None
    assert OneAircraft.position == before
    made.close(), late.close()


class Kept(Walk):
    """Draws its level in the first reset, and keeps it."""

    level = None

    def reset(self, *, seed=None, options=None):
        if self.level is None:
            self.level = np.random.default_rng(seed).normal()
        return super().reset(seed=0)

    def _observe(self):
        return np.array([self.level, self.steps, 0.0])


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_copies_that_keep_what_their_first_seed_made_have_that_of_the_training(vectorization):
    adapter = make_environments(Kept, num_envs=4, vectorization=vectorization)
    assert adapter.shared_state(17).shared is False
    firsts = adapter.reset(17)[:, 0].tolist()
    adapter.close()
    assert firsts == [np.random.default_rng(17 + i).normal() for i in range(4)]
