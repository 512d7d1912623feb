from __future__ import annotations

import numpy as np
import pytest

from trpo_fast.normalizers import ObservationNormalizer, RewardScaler


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_are_those_of_all_rows_however_they_came(dtype):
    rows = (np.random.default_rng(0).normal(size=(1000, 3)) * [1e-3, 1.0, 1e3] + [5.0, 0.0, -1e5]).astype(dtype)
    normalizer = ObservationNormalizer(3)
    for part in np.split(rows, [1, 2, 40, 700]):
        normalizer.merge(part)
    wide = rows.astype(np.float64)
    assert normalizer.count == 1000
    np.testing.assert_allclose(normalizer.mean, wide.mean(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(normalizer.scale, 1 / np.sqrt(wide.var(axis=0) + 1e-8), rtol=1e-9)


def test_normalized_observations_have_zero_mean_and_unit_variance():
    rows = np.random.default_rng(1).normal(3.0, 0.2, size=(500, 2))
    normalizer = ObservationNormalizer(2, clip=np.inf)
    normalizer.merge(rows)
    normalized = normalizer.normalize(rows, np.float64)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(normalized.std(axis=0), 1, rtol=1e-6)
    assert normalizer.normalize(rows).dtype == np.float32
    assert normalizer.normalize(rows[0]).shape == (2,)


def test_before_any_statistics_observations_pass_but_for_the_clip():
    normalizer = ObservationNormalizer(2, clip=4.0)
    np.testing.assert_array_equal(normalizer.normalize(np.array([[1.0, -9.0]])), [[1.0, -4.0]])
    normalizer.merge(np.array([[3.0, 3.0]]))  # one row says nothing about the spread
    np.testing.assert_array_equal(normalizer.scale, 1.0)


def test_constant_feature_stays_finite():
    normalizer = ObservationNormalizer(1)
    normalizer.merge(np.full((100, 1), 7.0))
    np.testing.assert_array_equal(normalizer.normalize(np.full((3, 1), 7.0)), 0.0)
    np.testing.assert_array_equal(normalizer.normalize(np.full((3, 1), 8.0)), 10.0)


def test_mean_and_scale_are_the_same_arrays_for_life():
    normalizer = ObservationNormalizer(2)
    mean, scale = normalizer.mean, normalizer.scale
    normalizer.merge(np.random.default_rng(0).normal(size=(10, 2)))
    other = ObservationNormalizer(2)
    other_mean, other_scale = other.mean, other.scale
    other.set_state(normalizer.get_state())
    np.testing.assert_array_equal(other_mean, mean)
    np.testing.assert_array_equal(other_scale, scale)
    assert normalizer.mean is mean
    assert normalizer.scale is scale


def test_columns_that_are_not_normalized_stay_as_they_are():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(5, 3, 200), rng.random(200) < 0.01, rng.normal(-2, 0.1, 200)])
    columns = np.array([True, False, True])
    normalizer, whole = ObservationNormalizer(3, columns=columns), ObservationNormalizer(3)
    for part in np.split(rows, [50, 51]):
        normalizer.merge(part)
        whole.merge(part)
    restored = ObservationNormalizer(3, columns=columns)
    restored.set_state(whole.get_state())  # whatever it says about the others
    for some in normalizer, restored:
        np.testing.assert_array_equal(some.normalize(rows, np.float64)[:, 1], rows[:, 1])
        np.testing.assert_array_equal(some.mean[columns], whole.mean[columns])
        np.testing.assert_array_equal(some.scale[columns], whole.scale[columns])
    assert restored.mean[1] == normalizer.get_state()["m2"][1] == 0


@pytest.mark.parametrize("columns", [np.ones(2, bool), np.ones(3), [[True] * 3]])
def test_columns_of_a_wrong_shape_or_kind_are_refused(columns):
    with pytest.raises(ValueError, match=r"columns: .* given; want bools of shape \(3,\)"):
        ObservationNormalizer(3, columns=columns)
    with pytest.raises(ValueError, match=r"unclipped: .* given; want bools of shape \(3,\)"):
        ObservationNormalizer(3, unclipped=columns)


def test_flags_of_columns_may_be_a_list():
    assert ObservationNormalizer(2, clip=5.0, unclipped=[True, False]).clip.tolist() == [np.inf, 5.0]


def test_restored_normalizer_goes_on_bit_for_bit():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    original, restored = ObservationNormalizer(3), ObservationNormalizer(3)
    original.merge(first)
    restored.set_state(original.get_state())
    for normalizer in (original, restored):
        normalizer.merge(second)
    for name, array in original.get_state().items():
        np.testing.assert_array_equal(restored.get_state()[name], array)
    np.testing.assert_array_equal(restored.scale, original.scale)


def test_row_that_is_not_finite_leaves_the_statistics_untouched():
    normalizer = ObservationNormalizer(2)
    normalizer.merge(np.random.default_rng(0).normal(size=(10, 2)))
    before = normalizer.get_state()
    with pytest.raises(ValueError, match="row"):
        normalizer.merge(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    for name, array in normalizer.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_reward_scale_is_that_of_the_discounted_return():
    rng = np.random.default_rng(0)
    rewards = rng.normal(2.0, 1.0, size=(50, 3))
    done = rng.random((50, 3)) < 0.1
    valid = ~np.concatenate((np.zeros((1, 3), bool), done[:-1]))
    done &= valid
    rewards[~valid] = 1e6  # what a dummy row holds counts for nothing
    scaler = RewardScaler(3, 0.9)
    for part in (slice(0, 7), slice(7, 8), slice(8, 50)):
        scaler.merge(rewards[part], done[part], valid[part])

    sums = []
    for i in range(3):
        running = 0.0
        for t in range(50):
            if valid[t, i]:
                running = 0.9 * running + rewards[t, i]
                sums.append(running)
                running = 0.0 if done[t, i] else running
    assert scaler.get_state()["count"] == len(sums)
    assert scaler.scale == pytest.approx(1 / np.sqrt(np.var(sums) + 1e-8), rel=1e-10)


def test_restart_forgets_the_running_sums_and_keeps_the_statistics():
    rewards, flags = np.ones((4, 2)), np.zeros((4, 2), bool)
    restarted, continued = RewardScaler(2, 1.0), RewardScaler(2, 1.0)
    for scaler in (restarted, continued):
        scaler.merge(rewards, flags, ~flags)
    restarted.restart()
    for scaler in (restarted, continued):
        scaler.merge(rewards, flags, ~flags)
    assert restarted.scale == pytest.approx(1 / np.sqrt(np.var([1, 2, 3, 4]) + 1e-8))
    assert continued.scale == pytest.approx(1 / np.sqrt(np.var(np.arange(1, 9)) + 1e-8))


def test_scaled_rewards_are_clipped_and_not_shifted():
    scaled = RewardScaler(2, 0.9, clip=3.0).scaled(np.array([[0.0, 1.0], [-8.0, 8.0]]), 0.5, np.float32)
    np.testing.assert_array_equal(scaled, np.array([[0.0, 0.5], [-3.0, 3.0]], np.float32))
    assert scaled.dtype == np.float32


def test_restored_reward_scaler_has_the_same_scale():
    scaler, restored = RewardScaler(2, 0.9), RewardScaler(2, 0.9)
    flags = np.zeros((4, 2), bool)
    scaler.merge(np.arange(8.0).reshape(4, 2), flags, ~flags)
    restored.set_state(scaler.get_state())
    assert restored.scale == scaler.scale != 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObservationNormalizer(0), "size: 0 given; want at least 1"),
        (lambda: ObservationNormalizer(2, clip=0.0), "clip: 0.0 given; want a number > 0"),
        (lambda: ObservationNormalizer(2, clip=float("nan")), "clip: nan given; want a number > 0"),
        (lambda: ObservationNormalizer(2, epsilon=0.0), "epsilon: 0.0 given; want a finite number > 0"),
        (lambda: RewardScaler(0, 0.9), "num_envs: 0 given; want at least 1"),
        (lambda: RewardScaler(2, 10**400), r"gamma: .* given; want a number that a double can hold"),
        (
            lambda: ObservationNormalizer(2).merge(np.array([[1e300] * 2, [-1e300] * 2])),
            "observations: numbers up to 1e[+]300 given",
        ),
        (lambda: RewardScaler(2, 1.1), r"gamma: 1.1 given; want a number in \[0, 1\]"),
        (lambda: RewardScaler(2, 0.9, clip=-1.0), "clip: -1.0 given; want a number > 0"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises((OverflowError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "want 'mean', too"),
        ({"mean": np.zeros(3)}, r"state\['mean'\]: shape \(3,\) given; want \(2,\)"),
        ({"m2": np.array([1.0, -1.0])}, r"state\['m2'\]: .* given; want finite and not negative"),
        ({"count": np.array(np.nan)}, r"state\['count'\]: .* given; want finite and not negative"),
        ({"mean": np.array([0.0, np.inf])}, r"state\['mean'\]: .* given; want finite"),
    ],
)
def test_bad_states_are_named_and_change_nothing(changes, message):
    normalizer = ObservationNormalizer(2)
    normalizer.merge(np.random.default_rng(0).normal(size=(10, 2)))
    before = normalizer.get_state()
    state = {name: array for name, array in {**before, **changes}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        normalizer.set_state(state)
    for name, array in normalizer.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_columns_that_are_not_clipped_keep_their_values():
    rows = np.array([[1.0, 200.0], [3.0, 100.0], [90.0, 255.0]])
    unclipped = np.array([False, True])
    normalizer = ObservationNormalizer(2, clip=0.5, columns=~unclipped, unclipped=unclipped)
    normalizer.merge(rows)
    normalized = normalizer.normalize(rows, np.float64)
    np.testing.assert_array_equal(normalized[:, 1], rows[:, 1])
    assert np.abs(normalized[:, 0]).max() == 0.5
    np.testing.assert_array_equal(normalizer.clip, [0.5, np.inf])
