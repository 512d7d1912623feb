from __future__ import annotations

import tracemalloc

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from tests.rollout.toys import Walk, copies_of, follow, make_environments, value, walks
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
GAMMA, LAMBDA = 0.9, 0.8


def finish(collector, rollout, values=value, normalize=False):
    return collector.finisher.finish(rollout, values, GAMMA, LAMBDA, normalize)


def advantages_of_episode(rewards, values, next_values, terminated):
    """GAE of one whole episode as the sum that defines it; float64."""
    deltas = rewards + GAMMA * next_values * ~terminated - values
    decay = (GAMMA * LAMBDA) ** np.arange(len(deltas))
    return np.array([np.sum(decay[: len(deltas) - t] * deltas[t:]) for t in range(len(deltas))])


def columns(rollout, batch, returns):
    """Per environment, a row for each valid transition: observation (3), reward, terminated, truncated, A, return."""
    valid = rollout.valid
    number = np.full(valid.shape, -1)
    number[valid] = np.arange(valid.sum())
    out = []
    for i in range(valid.shape[1]):
        rows = number[valid[:, i], i]
        flags = (rollout.terminated[valid[:, i], i], rollout.truncated[valid[:, i], i])
        out.append(
            np.column_stack(
                [
                    batch.observations[rows],
                    rollout.rewards[valid[:, i], i],
                    *flags,
                    batch.advantages[rows],
                    returns[rows],
                ]
            )
        )
    return out


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_truncation_bootstraps_from_the_final_observation_and_termination_does_not(mode):
    adapter = walks(3, mode)
    collector = follow(adapter, 60)
    rollout = collector.collect()
    batch, returns, _ = finish(collector, rollout)
    seen = {"terminated": 0, "truncated": 0}
    for column in columns(rollout, batch, returns):
        ends = np.flatnonzero(column[:, 4] + column[:, 5])
        for start, end in zip(np.concatenate(([0], ends[:-1] + 1)), ends, strict=True):
            episode = column[start : end + 1]
            rewards, terminated = episode[:, 3], episode[:, 4].astype(bool)
            # The reward tells the position reached, and so the final observation, which is not among the rows.
            reached = np.column_stack([rewards - 1.0, episode[:, 1] + 1, episode[:, 2]])
            expected = advantages_of_episode(rewards, value(episode[:, :3]), value(reached), terminated)
            np.testing.assert_allclose(episode[:, 6], expected, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(episode[:, 7], expected + value(episode[:, :3]), rtol=1e-12, atol=1e-13)
            seen["terminated" if terminated[-1] else "truncated"] += 1
    assert min(seen.values()) >= 3  # both kinds of ending occurred


def test_last_row_bootstraps_from_the_observation_after_it():
    collector = follow(walks(2, limit=100), 1)
    rollout = collector.collect()
    batch, _, _ = finish(collector, rollout)
    following = collector.collect().observations[0]
    assert not (rollout.terminated | rollout.truncated).any()
    expected = rollout.rewards[0] + GAMMA * value(following) - value(batch.observations)
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-12)
    np.testing.assert_array_equal(rollout.value_inputs[2:4], following)


def test_both_autoreset_modes_give_identical_advantages_on_matched_transitions():
    episodes = {}
    for mode in (SAME, NEXT):
        normalizer = ObservationNormalizer(3)
        normalizer.merge(np.random.default_rng(0).normal(size=(50, 3)) * 3)
        collector = follow(walks(4, mode), 80, observation_normalizer=normalizer, reward_scaler=RewardScaler(4, GAMMA))
        rollout = collector.collect()
        found = []
        for column in columns(rollout, *finish(collector, rollout)[:2]):
            last_end = np.flatnonzero(column[:, 4] + column[:, 5])[-1]
            found.append(column[: last_end + 1])  # an unfinished episode is cut at another place
        episodes[mode] = found
    assert sum(len(column) for column in episodes[NEXT]) > 200
    for same, following in zip(episodes[SAME], episodes[NEXT], strict=True):
        shared = min(len(same), len(following))
        assert shared > 40
        np.testing.assert_array_equal(same[:shared], following[:shared])


@pytest.mark.parametrize("steps_per_env", [1, 2, 3, 5, 8])
def test_dummy_rows_are_dropped_also_where_an_episode_ended_with_the_rollout(steps_per_env):
    transitions = {}
    for mode in (SAME, NEXT):
        collector = follow(walks(3, mode), steps_per_env)
        found = [[], [], []]
        for _ in range(60 // steps_per_env):
            rollout = collector.collect()
            batch, returns, _ = finish(collector, rollout)
            assert len(batch) == rollout.steps == rollout.valid.sum() == len(returns)
            for column, rows in zip(found, columns(rollout, batch, returns), strict=True):
                column.append(rows[:, :6])
        transitions[mode] = [np.concatenate(column) for column in found]
    for same, following in zip(transitions[SAME], transitions[NEXT], strict=True):
        assert 30 < len(following) < len(same)
        np.testing.assert_array_equal(same[: len(following)], following)


def test_a_rollout_of_one_step_that_only_reset_is_followed_by_one_with_rows():
    normalizer, scaler = ObservationNormalizer(3), RewardScaler(2, 0.9)
    options = {"observation_normalizer": normalizer, "reward_scaler": scaler}
    collector = follow(walks(2, NEXT, limit=1), 1, **options)
    for _ in range(4):
        rollout = collector.collect()
        batch, returns, _ = finish(collector, rollout)
        assert len(batch) == len(returns) == rollout.steps == len(rollout.episode_returns) == 2
        np.testing.assert_array_equal(rollout.episode_lengths, [1, 1])
    assert normalizer.count == 8


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_dummy_rows_count_in_no_statistic_and_no_step_count(mode):
    normalizer, scaler = ObservationNormalizer(3), RewardScaler(4, GAMMA)
    adapter = walks(4, mode)
    collector = follow(adapter, 10, observation_normalizer=normalizer, reward_scaler=scaler)
    walkers = copies_of(adapter)
    steps, raw = 0, []
    for _ in range(5):
        raw.append((normalizer.mean.copy(), normalizer.scale.copy()))
        rollout = collector.collect()
        steps += rollout.steps
    made = sum(len(walker.history) for walker in walkers)
    assert steps == made == normalizer.count == scaler.get_state()["count"]
    assert steps < 200 if mode is NEXT else steps == 200


def test_statistics_are_those_of_the_raw_observations_and_change_only_between_rollouts():
    normalizer = ObservationNormalizer(3)
    collector = follow(walks(4), 20, observation_normalizer=normalizer)
    seen = []
    for _ in range(3):
        mean, scale = normalizer.mean.copy(), normalizer.scale.copy()
        rollout = collector.collect()
        # Undoing the normalization with the statistics from before the rollout gives plain step counts.
        raw = rollout.observations.reshape(-1, 3) / scale + mean
        np.testing.assert_allclose(raw[:, 1], np.round(raw[:, 1]), atol=1e-9)
        finals = rollout.value_inputs[80 + 4 :] / scale + mean
        np.testing.assert_allclose(finals[:, 1], 7.0)  # the limit: these episodes were truncated
        seen.append(raw)
    rows = np.concatenate(seen)
    np.testing.assert_allclose(normalizer.mean, rows.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(normalizer.scale, 1 / np.sqrt(rows.var(axis=0) + 1e-8), rtol=1e-9)
    assert normalizer.mean is collector.toy_actor.options["observation_mean"]
    assert normalizer.scale is collector.toy_actor.options["observation_scale"]


def test_rewards_are_scaled_by_the_statistics_from_before_the_rollout():
    scaler = RewardScaler(4, GAMMA, clip=0.8)
    collector = follow(walks(4), 20, reward_scaler=scaler)
    collector.collect()
    scale = scaler.scale
    assert scale != 1.0
    rollout = collector.collect()
    assert scaler.scale != scale == rollout.reward_scale
    _, returns, _ = collector.finisher.finish(rollout, lambda rows: np.zeros(len(rows)), 0.0, 1.0, False)
    expected = np.clip(rollout.rewards * scale, -0.8, 0.8)
    assert 0 < (np.abs(expected) == 0.8).mean() < 1
    np.testing.assert_array_equal(returns, expected.ravel())  # gamma 0: the return is the scaled reward


def test_warm_up_starts_the_statistics_and_is_no_rollout():
    normalizer, scaler = ObservationNormalizer(3), RewardScaler(4, GAMMA)
    collector = follow(walks(4), 10, observation_normalizer=normalizer, reward_scaler=scaler)
    collector.warm_up(25)
    assert normalizer.count == 100
    assert scaler.scale != 1.0
    assert collector.collect().steps == 40
    assert collector.toy_actor.steps == list(range(35))
    without = follow(walks(4), 10)
    without.warm_up(25)
    assert without.get_state()["step"] == 0


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_episodes_are_accounted_for_across_rollouts(mode):
    adapter = walks(3, mode)
    collector = follow(adapter, 4)
    returns, lengths = [], []
    for _ in range(20):
        rollout = collector.collect()
        assert rollout.episode_returns.dtype == np.float64
        assert rollout.episode_lengths.dtype == np.int64
        returns.extend(rollout.episode_returns)
        lengths.extend(rollout.episode_lengths)
    expected = []
    for walker in copies_of(adapter):
        total, length = 0.0, 0
        for reward, terminated, truncated in walker.history:
            total, length = total + reward, length + 1
            if terminated or truncated:
                expected.append((total, length))
                total, length = 0.0, 0
    np.testing.assert_allclose(sorted(zip(returns, lengths, strict=True)), sorted(expected), rtol=1e-12)


def test_noise_counter_goes_on_across_rollouts_and_after_a_resume():
    collector = follow(walks(2), 5)
    collector.collect()
    collector.collect()
    assert collector.toy_actor.steps == list(range(10))
    resumed = follow(walks(2), 5)
    resumed.resume(collector.get_state())
    resumed.collect()
    assert resumed.toy_actor.steps == list(range(10, 15))
    assert (resumed.toy_actor.options["seed"], resumed.toy_actor.options["stream"]) == (3, 0)


def test_environments_depend_on_the_seed_and_start_afresh_after_a_resume():
    def first_rows(collector):
        return collector.collect().observations[0].copy()

    original = follow(walks(4), 5)
    start = first_rows(original)
    assert len(np.unique(start[:, 0])) == 4  # each copy has a generator of its own
    np.testing.assert_array_equal(first_rows(follow(walks(4), 5)), start)
    assert not np.isin(first_rows(follow(walks(4), 5, seed=4))[:, 0], start[:, 0]).any()

    starts = []
    for _ in range(2):
        resumed = follow(walks(4), 5)
        resumed.resume(original.get_state())
        starts.append(first_rows(resumed))
    assert not np.isin(starts[0][:, 0], start[:, 0]).any()
    np.testing.assert_array_equal(*starts)  # resuming twice from one checkpoint is the same training


def test_values_come_from_one_call_over_all_rows():
    collector = follow(walks(4), 15)
    rollout = collector.collect()
    calls = []

    def values(rows):
        calls.append(rows)
        return value(rows)

    finish(collector, rollout, values)
    truncated = (rollout.truncated & ~rollout.terminated).sum()
    assert truncated > 0
    assert [len(rows) for rows in calls] == [15 * 4 + 4 + truncated]


def test_batch_is_views_of_the_rollout_and_outlives_the_next_one():
    collector = follow(walks(4), 15)
    rollout = collector.collect()
    batch, _, _ = finish(collector, rollout)
    for array in (batch.observations, batch.actions, batch.log_probs):
        assert not array.flags.owndata
    assert np.shares_memory(batch.observations, rollout.value_inputs)
    before = [np.array(array) for array in (batch.observations, batch.actions, batch.advantages, batch.log_probs)]
    collector.collect()
    for array, copy in zip((batch.observations, batch.actions, batch.advantages, batch.log_probs), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_advantages_are_normalized_after_the_returns_were_made():
    collector = follow(walks(4), 30)
    rollout = collector.collect()
    plain, returns, _ = finish(collector, rollout)
    batch, same_returns, explained_variance = finish(collector, rollout, normalize=True)
    np.testing.assert_array_equal(returns, same_returns)
    np.testing.assert_allclose(returns, plain.advantages + value(plain.observations), rtol=1e-12)
    expected = (plain.advantages - plain.advantages.mean()) / plain.advantages.std()
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-9, atol=1e-12)
    values = value(plain.observations)
    assert explained_variance == pytest.approx(1 - np.var(returns - values) / np.var(returns))


def test_advantages_without_variance_become_zeros():
    collector = follow(walks(2, limit=100), 4)
    rollout = collector.collect()
    rollout.rewards[...] = 1.0
    batch, _, explained_variance = collector.finisher.finish(rollout, lambda rows: np.zeros(len(rows)), 0.0, 1.0, True)
    np.testing.assert_array_equal(batch.advantages, 0.0)
    assert np.isnan(explained_variance)


class Faulty(Walk):
    """Returns something that is not finite, in the copy and at the step that it is told."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(limit=6)
        self.what = what
        self.at = at

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        self.position = 0.0  # never terminated
        if len(self.history) == self.at:
            if self.what == "observation":
                observation[1] = np.nan
            else:
                reward = np.inf
        return observation, reward, False, truncated, info


@pytest.mark.parametrize(
    ("what", "at", "named"),
    [
        ("observation", 4, 4),  # what step 3 returned is what step 4 acts on, counted from 0
        ("observation", 6, 6),  # the final one of a truncated episode, which nothing acts on
        ("observation", 10, 10),  # the one after the last step
        ("reward", 5, 4),
    ],
)
def test_what_is_not_finite_is_named_with_environment_and_step(what, at, named):
    faults = iter([("reward", 0), ("reward", 0), (what, at)])
    collector = follow(make_environments(lambda: Faulty(*next(faults)), num_envs=3), 10)
    with pytest.raises(ValueError, match=rf"{what} of environment 2 at step {named}: .* given; want finite"):
        collector.collect()


class TooLarge(Faulty):
    """The same with numbers that float64 holds and float32 does not."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        observation[np.isnan(observation)] = 1e39
        return observation, min(reward, 1e39), terminated, truncated, info


@pytest.mark.parametrize(("what", "at", "named"), [("observation", 6, 6), ("observation", 10, 10), ("reward", 5, 4)])
@pytest.mark.parametrize("clip", [None, 1e300])
def test_what_is_too_large_for_the_policys_dtype_is_named_without_a_warning(what, at, named, clip, recwarn):
    options = {}
    if clip is not None:
        # Statistics that hardly scale, and a clip that lets everything pass.
        options = {
            "observation_normalizer": ObservationNormalizer(3, clip),
            "reward_scaler": RewardScaler(3, 0.9, clip),
        }
    faults = iter([("reward", 0), ("reward", 0), (what, at)])
    adapter = make_environments(lambda: TooLarge(*next(faults)), num_envs=3)
    collector = follow(adapter, 10, dtype=np.float32, **options)
    with pytest.raises(
        ValueError, match=rf"{what} of environment 2 at step {named}: .*1.* given; want finite ones in float32"
    ):
        collector.collect()
    assert not recwarn.list


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("size", "dtype"), [(3e38, np.float32), (1e300, np.float64), (1.7e308, np.float64)])
def test_rewards_too_large_for_their_sums_are_named_without_a_warning(size, dtype, scaled, recwarn):
    class Large(Walk):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            return observation, size if self.late and self.steps == 4 else size / 2, terminated, truncated, info

    def make():
        env = Large(limit=50, edge=np.inf)
        env.late = next(lates)
        return env

    lates = iter([False, True])
    scaler = RewardScaler(2, 0.99) if scaled else None
    collector = follow(make_environments(make, num_envs=2), 20, dtype=dtype, reward_scaler=scaler)
    if scaled and dtype is np.float32:
        assert np.isfinite(finish(collector, collector.collect())[1]).all()  # clipped to a size that serves
    else:
        with pytest.raises(ValueError, match=r"rewards?.* of environment 1 at step 3.*(want what serves|up to 0)"):
            finish(collector, collector.collect(), lambda rows: np.zeros(len(rows)))
    if scaled and dtype is np.float64:
        assert (scaler.scale, scaler.get_state()["count"]) == (1.0, 0)
    assert not recwarn.list


def test_observations_too_large_for_their_statistics_are_named():
    normalizer = ObservationNormalizer(3)

    class Large(Walk):
        def _observe(self):
            return super()._observe() * (1e300 if self.steps == 2 else 1)

    collector = follow(make_environments(Large, num_envs=1), 4, observation_normalizer=normalizer)
    with pytest.raises(ValueError, match=r"observation of environment 0 at step 2: .* given; want what serves its"):
        collector.collect()
    assert normalizer.count == 0
    np.testing.assert_array_equal(normalizer.scale, 1)


def test_rewards_that_their_scaler_clips_may_be_of_any_size(recwarn):
    faults = iter([("reward", 0), ("reward", 5)])
    adapter = make_environments(lambda: TooLarge(*next(faults)), num_envs=2)
    collector = follow(adapter, 10, dtype=np.float32, reward_scaler=RewardScaler(2, 0.9))
    _, returns, _ = finish(collector, collector.collect())
    assert np.isfinite(returns).all()
    assert not recwarn.list


def test_the_policy_is_looked_at_again_before_every_rollout(monkeypatch):
    calls = []
    monkeypatch.setattr("tests.rollout.toys.FollowingEngine.refresh", lambda engine: calls.append(len(actor.steps)))
    collector = follow(walks(2), 5, observation_normalizer=ObservationNormalizer(3))
    actor = collector.toy_actor
    collector.warm_up(3)
    collector.collect()
    collector.collect()
    assert calls == [0, 3, 8]


def test_action_that_is_not_finite_is_named_with_environment_and_step():
    collector = follow(walks(3), 4)
    collector.collect()
    act = collector.toy_actor.act

    def broken(observations, step, normalized, actions, *others, **more):
        act(observations, step, normalized, actions, *others, **more)
        actions[1] = np.nan
        raise FloatingPointError("row 1")

    collector.toy_actor.act = broken
    with pytest.raises(ValueError, match=r"action of environment 1 at step 4: .* given; want finite"):
        collector.collect()


def test_statistics_do_not_change_in_a_rollout_that_failed():
    normalizer, scaler = ObservationNormalizer(3), RewardScaler(1, GAMMA)
    adapter = make_environments(lambda: Faulty("reward", 5), num_envs=1)
    collector = follow(adapter, 10, observation_normalizer=normalizer, reward_scaler=scaler)
    with pytest.raises(ValueError, match="reward"):
        collector.collect()
    assert normalizer.count == 0
    assert scaler.get_state()["count"] == 0


class Interrupted(Walk):
    at = -1

    def step(self, action):
        if len(self.history) == self.at:
            self.history.clear()
            raise KeyboardInterrupt
        return super().step(action)


def test_interrupted_rollout_is_dropped_and_the_next_starts_fresh_episodes():
    adapter = make_environments(Interrupted, num_envs=2)
    collector = follow(adapter, 6)
    kept, _, _ = finish(collector, collector.collect())
    before = kept.observations.copy()
    copies_of(adapter)[1].at = 9
    with pytest.raises(KeyboardInterrupt):
        collector.collect()
    copies_of(adapter)[1].at = -1
    rollout = collector.collect()
    np.testing.assert_array_equal(rollout.observations[0, :, 1], 0)  # steps in the episode
    np.testing.assert_array_equal(kept.observations, before)
    ended = np.flatnonzero((rollout.terminated | rollout.truncated)[:, 0])
    if len(ended):
        assert rollout.episode_lengths.max() <= 6


class KeepsAction(Walk):
    last = None

    def step(self, action):
        result = super().step(action)
        if self.last is not None:
            np.testing.assert_array_equal(self.last, self.copy_of_last)
        self.last, self.copy_of_last = action, np.array(action)
        return result


def test_environments_may_keep_the_action_they_were_given():
    collector = follow(make_environments(KeepsAction, num_envs=2), 10)  # the environments compare at every step
    assert collector.collect().steps == 20


class Choices(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(3, start=5)
    observation_space = gymnasium.spaces.Box(0, 255, (2, 2), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((2, 2), 7, np.uint8), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.full((2, 2), 9, np.uint8), 0.0, False, False, {}


def test_integer_observations_and_discrete_actions_have_their_places():
    adapter = make_environments(Choices, num_envs=3)
    collector = follow(adapter, 4, dtype=np.float32)

    def act(observations, step, normalized, actions, log_probs, env_actions, first_row):
        assert observations.dtype == np.float32
        assert observations.shape == normalized.shape == (3, 4)
        assert actions.dtype == env_actions.dtype == np.int64
        normalized[...] = observations
        actions[...] = step % 3
        env_actions[...] = actions + 5
        log_probs[...] = 0

    collector.toy_actor.act = act
    rollout = collector.collect()
    batch, returns, _ = finish(collector, rollout)
    assert batch.observations.dtype == batch.advantages.dtype == returns.dtype == np.float32
    np.testing.assert_array_equal(batch.actions, np.repeat([0, 1, 2, 0], 3))
    np.testing.assert_array_equal(rollout.observations[:2, 0, 0], [7, 9])


@pytest.mark.parametrize(("option", "bad"), [("steps_per_env", 0), ("steps_per_env", -3), ("seed", -1)])
def test_bad_options_are_named(option, bad):
    with pytest.raises(ValueError, match=f"{option}: {bad} given; want"):
        follow(walks(1), **{"steps_per_env": 4, option: bad})


def test_bad_values_and_states_are_named():
    collector = follow(walks(2), 4)
    rollout = collector.collect()
    with pytest.raises(ValueError, match=r"values: shape .* returned; want"):
        finish(collector, rollout, lambda rows: np.zeros((len(rows), 1)))
    with pytest.raises(ValueError, match="values: some not finite given"):
        finish(collector, rollout, lambda rows: np.full(len(rows), np.nan))
    with pytest.raises(ValueError, match=r"state of a collector: \['step'\] given; want \['resets'\], too"):
        collector.resume({"step": 1})
    with pytest.raises(ValueError, match="steps: -1 given; want 0 or more"):
        collector.warm_up(-1)


def test_batches_survive_that_training_is_put_back():
    collector = follow(walks(2), 6)
    before = collector.get_state()
    batch, _, _ = finish(collector, collector.collect())
    kept = batch.observations.copy()
    collector.put_back(before)
    for _ in range(3):
        collector.collect()
    np.testing.assert_array_equal(batch.observations, kept)


def test_state_of_a_version_that_saved_more_is_taken():
    collector = follow(walks(2), 4)
    collector.resume({"step": 8, "resets": 1, "other": 3})
    assert collector.get_state() == {"step": 8, "resets": 1, "episodes": None}


class Wide(gymnasium.Env):
    """Observations of 20,000 numbers, always the same."""

    observation_space = gymnasium.spaces.Box(-1, 1, (20_000,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation = np.linspace(-1, 1, 20_000, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action):
        return self.observation, 1.0, False, False, {}


def test_raw_observations_are_kept_once_for_the_statistics():
    """A rollout that is merged into them costs its own size for a moment, and no copy of that."""
    normalizer = ObservationNormalizer(20_000)
    collector = follow(make_environments(Wide, 2), 50, observation_normalizer=normalizer)
    collector.collect()
    raw = 2 * 50 * 20_000 * 4
    tracemalloc.start()
    try:
        collector.collect()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert normalizer.count == 200
    assert raw < peak < 1.3 * raw


def test_another_dtype_for_observations_does_not_go_with_their_normalization():
    with pytest.raises(ValueError, match="observation_dtype: uint8 given with a normalizer; want None or float"):
        follow(walks(2), 4, observation_normalizer=ObservationNormalizer(3), observation_dtype=np.uint8)
