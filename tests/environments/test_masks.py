"""Masks on their way from an environment into the batch: every form, every source, every vectorization."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tests.registered import newest
from tests.rollout.toys import Gate, LuckyEngine, Walk, copies_of, make_environments
from trpo_fast.algorithm.acting import AgentActor
from trpo_fast.algorithm.evaluation import play_episodes
from trpo_fast.environments.masks import MaskFormat
from trpo_fast.rollout.collector import Collector

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
SPACES = [
    Discrete(5, start=-2),
    MultiDiscrete([2, 4, 3], start=[5, 0, -1]),
    MultiDiscrete([3, 3]),  # whose tuples of masks look like one array
    MultiDiscrete([[2, 3], [1, 4]]),
    MultiBinary(4),
    MultiBinary((2, 2)),
]


class VectorGate(gymnasium.vector.VectorEnv):
    """Gates behind a VectorEnv of no known kind, which has the masks itself; resets in the next step."""

    metadata = {"autoreset_mode": NEXT}  # noqa: RUF012 -- as gymnasium has it

    def __init__(self, make, num_envs, source):
        self.inner = SyncVectorEnv([make] * num_envs, autoreset_mode=NEXT)
        self.num_envs, self.source = num_envs, source
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        if source == "method":
            self.action_masks = lambda: np.stack([env.canonical() for env in self.inner.envs])

    def _infos(self):
        dense = np.stack([env.canonical() for env in self.inner.envs]).astype(np.int8)
        return {"action_mask": dense} if self.source == "info" else {}

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed)[0], self._infos()

    def step(self, actions):
        return *self.inner.step(actions)[:4], self._infos()


def wrapped(make):
    return TimeLimit(make(), 4)


def vectorized(kind, make, num_envs=3, source="method"):
    makers = [make] * num_envs
    return {
        "ours": lambda: make_environments(make, num_envs=num_envs),
        "wrapped": lambda: make_environments(functools.partial(wrapped, make), num_envs=num_envs),
        "async, same step": lambda: make_environments(AsyncVectorEnv(makers, autoreset_mode=SAME)),
        "sync, same step": lambda: make_environments(SyncVectorEnv(makers, autoreset_mode=SAME)),
        "sync, next step": lambda: make_environments(SyncVectorEnv(makers, autoreset_mode=NEXT)),
        "async, next step": lambda: make_environments(AsyncVectorEnv(makers, autoreset_mode=NEXT)),
        "statistics": lambda: make_environments(RecordEpisodeStatistics(SyncVectorEnv(makers, autoreset_mode=SAME))),
        "custom": lambda: make_environments(VectorGate(make, num_envs, source)),
    }[kind]()


KINDS = ["ours", "wrapped", "sync, same step", "sync, next step", "statistics", "custom"]
WORKERS = ["async, same step", "async, next step"]


def collector_of(adapter, steps=40):
    return Collector(adapter, LuckyEngine(), steps_per_env=steps, seed=1)


@pytest.mark.parametrize("source", ["method", "info"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_masked_actions_never_reach_the_environment(space, flat, kind, source):
    adapter = vectorized(kind, functools.partial(Gate, space, source, flat), source=source)
    collector = collector_of(adapter)
    for _ in range(2):
        rollout = collector.collect()
    assert rollout.action_masks.shape == (40, 3, MaskFormat(space).size)
    assert len(np.unique(rollout.action_masks.reshape(120, -1), axis=0)) > 3
    actor = AgentActor(LuckyEngine(), space, None, seed=0, stream=0)
    assert len(play_episodes(adapter, actor, 6, deterministic=True, seed=0, max_steps=99).returns) == 6
    adapter.close()


@pytest.mark.parametrize("source", ["method", "info"])
@pytest.mark.parametrize("kind", ["ours", "sync, same step"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_everything_that_is_allowed_stays_so(space, flat, kind, source):
    adapter = vectorized(kind, functools.partial(Gate, space, source, flat))
    collector = collector_of(adapter, 1)
    for _ in range(20):
        collector.collect()
        np.testing.assert_array_equal(adapter.action_masks, [env.canonical() for env in copies_of(adapter)])


@pytest.mark.parametrize("source", ["method", "info"])
@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize("space", [SPACES[0], SPACES[1], SPACES[4]], ids=str)
def test_masks_come_from_worker_processes_too(space, kind, source):
    adapter = vectorized(kind, functools.partial(Gate, space, source), num_envs=2)
    rollout = collector_of(adapter, 20).collect()
    assert not rollout.action_masks.all()
    adapter.close()


@pytest.mark.parametrize("kind", [*KINDS, *WORKERS])
def test_environments_without_masks_get_none(kind):
    adapter = vectorized(kind, functools.partial(Gate, SPACES[1], None), source=None)
    collector = collector_of(adapter, 10)
    rollout = collector.collect()
    assert rollout.action_masks is None
    batch, _, _ = collector.finisher.finish(rollout, lambda rows: np.zeros(len(rows), np.float32), 0.9, 0.9, True)
    assert batch.action_masks is None
    adapter.close()


@pytest.mark.parametrize("source", ["method", "info"])
@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_masks_in_the_batch_are_those_that_each_action_was_chosen_under(mode, source):
    class Counting(Gate):
        """Shows its mask to the policy as well."""

        observation_space = Box(0, 1, (5,), np.float32)

        def reset(self, **options):
            _, info = super().reset(**options)
            return self.canonical().astype(np.float32), info

        def step(self, action):
            answer = super().step(action)
            return self.canonical().astype(np.float32), *answer[1:]

    envs = SyncVectorEnv([lambda: Counting(Discrete(5), source)] * 3, autoreset_mode=mode)
    collector = collector_of(make_environments(envs))
    dropped = 0
    for _ in range(3):
        rollout = collector.collect()
        batch, _, _ = collector.finisher.finish(rollout, lambda rows: np.zeros(len(rows), np.float32), 0.9, 0.9, True)
        np.testing.assert_array_equal(batch.action_masks, batch.observations.astype(bool))
        assert batch.action_masks[np.arange(len(batch)), batch.actions].all()
        dropped += rollout.valid.size - len(batch)
        assert rollout.action_masks[~rollout.valid].all()  # a finished game allows nothing, a dummy row anything
    assert (dropped > 20) == (mode is NEXT)


def test_a_method_goes_before_the_info():
    class Both(Gate):
        def action_masks(self):
            return self.canonical()

        def _info(self):
            return {"action_mask": "nonsense"}

    collector_of(make_environments(lambda: Both(Discrete(4), None), num_envs=2)).collect()


def test_masks_of_a_box_are_not_looked_for():
    class Pushed(Walk):
        def action_masks(self):
            raise AssertionError

    adapter = make_environments(Pushed, num_envs=2)
    adapter.reset(0)
    assert adapter.action_masks is None


class Telling(Gate):
    """Gives the masks it is told in place of its own: ``masks[t]`` after t steps."""

    def __init__(self, masks, space=None):
        self.masks, self.time = masks, 0
        super().__init__(Discrete(3) if space is None else space, "info")

    def _info(self):
        mask = self.masks[self.time]
        self.time += 1
        return {} if mask is None else {"action_mask": mask}

    def step(self, action):
        return self._draw(), 0.0, False, False, self._info()


def told(*lists, space=None):
    """One environment for each list."""
    iterator = iter(lists)
    return make_environments(lambda: Telling(next(iterator), space), num_envs=len(lists))


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (Discrete(3), np.zeros(3, np.int8), "forbids every choice; want at least one allowed"),
        (Discrete(3), np.ones(4, np.int8), r"int8 of 4 items given; want 3 items of 0 and 1 for Discrete\(3\)"),
        (Discrete(3), np.array([0, 1, 2]), r"\[0 1 2\] given; want 3 items of 0 and 1 for Discrete"),
        (Discrete(3), np.array([0, 0.5, 1]), r"\[0\. .*given; want 3 items of 0 and 1 for Discrete"),
        (Discrete(3), "all", "'all' given; want 3 items"),
        (Discrete(3), 1, "of 1 items given; want 3 items"),
        (MultiDiscrete([2, 3]), np.array([1, 0, 0, 0, 0]), "forbids every choice of component 1"),
        (
            MultiDiscrete([2, 3]),
            (np.ones(3), np.ones(2)),
            "float64 of sizes 3, 2 given; want 5 items of 0 and 1, or a tuple of arrays of sizes 2, 3, for Multi",
        ),
        (MultiDiscrete([2, 4]), (np.ones(3, int), np.ones(3, int)), "of sizes 3, 3 given"),
        (
            MultiBinary(2),
            np.array([0, 3], np.int8),
            r"\[0 3\] given; want 2 numbers 0, 1 or 2 \(free\), or 4 of",
        ),
        (MultiBinary(2), np.array([True, False]), "bool of 2 items given; want 2 numbers 0, 1 or 2"),
        (MultiBinary(2), np.array([0, 0, 1, 1], bool), "forbids every choice of component 0"),
    ],
)
@pytest.mark.parametrize("steps", [0, 2])
def test_bad_mask_is_refused_by_environment_and_step(space, mask, message, steps):
    good = np.ones(MaskFormat(space).size, np.int8)
    adapter = told([good] * 4, [good] * steps + [mask], [good] * 4, space=space)
    action = np.zeros(adapter.action_shape, np.int64)
    with pytest.raises(ValueError, match=rf"action mask of environment 1 at step {steps} after the reset.* {message}"):
        adapter.reset(0)
        for _ in range(steps):
            adapter.step(action)


def test_environment_that_has_no_mask_for_once_allows_everything():
    mask = np.array([0, 1, 0], np.int8)
    adapter = told([mask, None], [None, mask])
    adapter.reset(0)
    np.testing.assert_array_equal(adapter.action_masks, [mask == 1, [True] * 3])
    adapter.step(np.zeros(2, np.int64))
    np.testing.assert_array_equal(adapter.action_masks, [[True] * 3, mask == 1])


def test_a_reset_without_masks_does_not_end_them():
    mask = np.array([0, 1, 0], np.int8)
    adapter = told([mask, None, None], [mask, None, mask])
    adapter.reset(0)
    adapter.reset(1)
    assert adapter.action_masks.all()
    adapter.step(np.zeros(2, np.int64))
    np.testing.assert_array_equal(adapter.action_masks, [[True] * 3, mask == 1])


def test_mask_that_comes_with_a_step_only_is_refused():
    mask = np.array([0, 1, 0], np.int8)
    lists = [[None, mask]] * 2
    iterator = iter(lists)
    gymnasiums = SyncVectorEnv([lambda: Telling(next(iterator))] * 2, autoreset_mode=SAME)
    for adapter in told(*lists), make_environments(gymnasiums):
        adapter.reset(0)
        with pytest.raises(ValueError, match=r"info\['action_mask'\].* came with a step, but with no reset"):
            adapter.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("whose", [0, 1, 2])
def test_mask_that_comes_with_a_later_step_of_one_environment_only_is_refused(whose):
    mask = np.array([0, 1, 0], np.int8)
    adapter = told(*([None, None, mask if i == whose else None] for i in range(3)))
    adapter.reset(0)
    adapter.step(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=rf"info\['action_mask'\] of environment {whose} came with a step"):
        adapter.step(np.zeros(3, np.int64))


def test_method_that_only_some_environments_have_is_refused():
    sources = iter(["method", "method", "info"])
    adapter = make_environments(lambda: Gate(Discrete(3), next(sources)), num_envs=3)
    with pytest.raises(ValueError, match="action_masks: environment 2 has no such method, others have"):
        adapter.reset(0)


@pytest.mark.parametrize(("answer", "given"), [(None, "None"), (np.ones((2, 4)), "2 masks")])
def test_vector_environments_method_must_give_one_mask_for_each(answer, given):
    env = VectorGate(functools.partial(Gate, Discrete(4)), 3, "method")
    env.action_masks = lambda: answer
    with pytest.raises(ValueError, match=f"action_masks: {given} given; want one for each of 3 environments"):
        make_environments(env).reset(0)


def test_gymnasiums_own_masks_of_multibinary_mean_what_its_sample_makes_of_them():
    space = MultiBinary(3)
    mask = np.array([0, 1, 2], np.int8)
    samples = np.array([space.sample(mask=mask) for _ in range(100)])
    may_be = np.stack([(samples == 0).any(0), (samples == 1).any(0)], axis=1).ravel()
    np.testing.assert_array_equal(MaskFormat(space).rows([mask], name="row")[0], may_be)


def test_masks_of_gymnasiums_own_taxi_are_found():
    adapter = make_environments(newest("Taxi"), num_envs=2)
    rollout = collector_of(adapter, 30).collect()
    assert rollout.observations.shape == (30, 2, 500)
    np.testing.assert_array_equal(rollout.observations.sum(-1), 1)
    assert 0.2 < rollout.action_masks.mean() < 0.9
    adapter.close()


@pytest.mark.parametrize("kind", ["attribute", "property"])
@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_masks_may_be_an_attribute_or_a_property(kind, vectorization):
    class Attribute(Gate):
        def reset(self, **kwargs):
            answer = super().reset(**kwargs)
            self.action_masks = self.canonical()
            return answer

        def step(self, action):
            answer = super().step(action)
            self.action_masks = self.canonical()
            return answer

    class Property(Gate):
        action_masks = property(lambda self: self.canonical())

    one = {"attribute": Attribute, "property": Property}[kind]
    adapter = make_environments(lambda: one(Discrete(4), None), num_envs=2, vectorization=vectorization)
    collector = collector_of(adapter)
    rollout = collector.collect()
    rows = rollout.action_masks.reshape(-1, rollout.action_masks.shape[-1])
    assert not rows.all()
    assert rows[np.arange(len(rows)), rollout.actions.reshape(-1)].all()
    adapter.close()
