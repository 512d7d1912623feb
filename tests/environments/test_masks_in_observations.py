"""The action mask that is a part of a Dict observation: obeyed, and not observed, whoever steps the copies."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from tests.rollout.masked_toys import SPACES, Shown
from tests.rollout.toys import Gate, LuckyEngine
from trpo_fast.environments.masks import MaskFormat, without_mask
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.rollout.collector import Collector

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP


def made(kind, make, *, obeys_masks=True):
    vectors = {"same": SAME, "next": NEXT, "async": NEXT}
    if kind in vectors:
        given = (AsyncVectorEnv if kind == "async" else SyncVectorEnv)([make] * 3, autoreset_mode=vectors[kind])
        return EnvironmentRecipe(given).make(3, obeys_masks=obeys_masks)
    workers = {"num_workers": 2} if kind == "workers" else {}
    return EnvironmentRecipe(make, kind, **workers).make(3, obeys_masks=obeys_masks)


@pytest.mark.parametrize("kind", ["sync", "same", "next"])
@pytest.mark.parametrize(
    ("space", "form"),
    [
        *((space, form) for space in SPACES for form in ("bits", "floats")),
        *((space, "tuple") for space in SPACES[1:3]),
        (SPACES[3], "choices"),
    ],
    ids=str,
)
def test_what_the_observation_forbids_never_reaches_the_environment(space, form, kind):
    environments = made(kind, functools.partial(Shown, space, form))  # which raises otherwise
    assert environments.mask_left_out
    assert environments.observation_space == Gate.observation_space
    rollout = Collector(environments, LuckyEngine(), steps_per_env=40, seed=1).collect()
    assert rollout.observations.shape == (40, 3, 5)
    assert rollout.action_masks.shape == (40, 3, MaskFormat(space).size)
    assert len(np.unique(rollout.action_masks.reshape(120, -1), axis=0)) > 3
    environments.close()


@pytest.mark.parametrize("kind", ["workers", "async"])
def test_other_processes_obey_it_too(kind):
    collected = {}
    for one in ("sync", kind):
        environments = made(one, functools.partial(Shown, SPACES[1], "floats"))
        assert environments.mask_left_out
        collected[one] = Collector(environments, LuckyEngine(), steps_per_env=20, seed=1).collect()
        environments.close()
    assert not collected[kind].action_masks.all()
    if kind == "workers":
        for name in ("observations", "actions", "action_masks"):
            np.testing.assert_array_equal(getattr(collected[kind], name), getattr(collected["sync"], name))


@pytest.mark.parametrize("kind", ["sync", "next"])
def test_a_method_comes_before_the_observation(kind):
    environments = made(kind, functools.partial(Shown, SPACES[0], source="method"))
    rollout = Collector(environments, LuckyEngine(), steps_per_env=40, seed=1).collect()  # or a Gate raises
    assert not rollout.action_masks.all()
    assert rollout.observations.shape[-1] == 5


@pytest.mark.parametrize("kind", ["sync", "same"])
def test_who_is_not_asked_to_obey_sees_it(kind):
    environments = made(kind, functools.partial(Shown, SPACES[0], source="method"), obeys_masks=False)
    assert not environments.mask_left_out
    assert environments.observation_size == 10


@pytest.mark.parametrize("kind", ["sync", "next"])
def test_copies_are_put_back_with_the_masks_of_their_observations(kind):
    environments = made(kind, functools.partial(Shown, SPACES[0]))
    last = environments.reset(3).copy()
    state, masks = environments.get_state(), environments.action_masks.copy()
    for _ in range(2):
        environments.step(np.array([np.flatnonzero(mask)[0] for mask in environments.action_masks]) - 2)
    assert not np.array_equal(environments.action_masks, masks)
    environments.set_state(state, last)
    np.testing.assert_array_equal(environments.action_masks, masks)


@pytest.mark.parametrize("kind", ["sync", "same"])
def test_an_observation_without_the_mask_of_its_space_is_named(kind):
    class Forgetful(Shown):
        def _draw(self):
            drawn = super()._draw()
            del drawn["action_mask"]
            return drawn

    environments = made(kind, functools.partial(Forgetful, SPACES[0])) if kind == "sync" else None
    if environments is not None:
        with pytest.raises(ValueError, match=r"observation of environment 0 lacks 'action_mask', which its space has"):
            environments.reset(0)
        return
    environments = made(kind, functools.partial(Shown, SPACES[0]))
    reset = environments._env.reset
    environments._env.reset = lambda **how: ({"here": 0}, reset(**how)[1])
    with pytest.raises(ValueError, match="observations of SyncVectorEnv lack 'action_mask', which their space has"):
        environments.reset(0)


def test_a_mask_with_other_values_is_named():
    class Loose(Shown):
        def _draw(self):
            return {**super()._draw(), "action_mask": np.full(5, 0.5, np.float32)}

    environments = made("sync", functools.partial(Loose, SPACES[0], "floats"))
    with pytest.raises(ValueError, match=r"action mask of environment 0 .* want 5 items of 0 and 1 for Discrete\(5"):
        environments.reset(0)


REST = Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("part", "action_space"),
    [
        (MultiBinary(4), Discrete(5)),
        (Discrete(5), Discrete(5)),
        (MultiDiscrete([2, 3]), Discrete(5)),
        (MultiBinary(4), MultiBinary(4)),  # allowed, or wanted: it does not say
        (Tuple([MultiBinary(3), MultiBinary(2)]), MultiDiscrete([2, 3])),
        (Tuple([MultiBinary(2), Discrete(3)]), MultiDiscrete([2, 3])),
        (Dict(a=MultiBinary(5)), Discrete(5)),
        (MultiBinary(2), Box(-1, 1, (2,), np.float32)),
    ],
    ids=str,
)
def test_a_part_of_another_shape_stays_an_input(part, action_space):
    space = Dict(action_mask=part, rest=REST)
    assert without_mask(space, action_space) == (space, False)


def test_nothing_but_a_mask_stays_an_input():
    space = Dict(action_mask=MultiBinary(5))
    assert without_mask(space, Discrete(5)) == (space, False)
    assert without_mask(REST, Discrete(5)) == (REST, False)
    assert without_mask(Dict(mask=MultiBinary(5), rest=REST), Discrete(5))[1] is False


def test_copies_for_who_sees_the_mask_show_it_and_for_who_does_not_obey_it():
    recipe = EnvironmentRecipe(functools.partial(Shown, SPACES[0]))
    for obeys in (False, True):
        like = recipe.make(1, obeys_masks=obeys)
        for again in (recipe.make_again(2, like), recipe.make_like(2, like)):
            assert again.observation_space == like.observation_space
            assert again.mask_left_out is obeys
