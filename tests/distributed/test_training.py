"""Whole trainings in float64 on 1 to 4 ranks, beside the same program in one process that knows of no ranks."""

import os
import sys

import numpy as np
import pytest

from tests.distributed import training_scenarios as scenarios
from tests.distributed.conftest import SIZES, sized

NAMES = [name for name in scenarios.TRAININGS if name != "workers"]
# Rounding grows from update to update; the K-FAC solve, whose signs are of a rank's own rows, ends at its tolerance.
TOLERANCE = dict.fromkeys(scenarios.TRAININGS, 1e-9) | {"kfac": 1e-7}
STATISTICS = ("observation_normalizer", "reward_scaler")


def cases(sizes):
    """Trainings, each with a number of ranks."""
    return [sized(size, name) for size in sizes for name in NAMES] + [("workers", 2)]


@pytest.fixture
def trainings(of_ranks):
    """``trainings(size)``: what came of them on each rank."""
    return lambda size: [found["trainings"] for found in of_ranks(size)]


def assert_close(found, expected, tolerance):
    for part in ("policy", "critic", *STATISTICS):
        assert (part in found) == (part in expected)
        for one, other in zip(found.get(part, []), expected.get(part, []), strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=part)
    assert found["counts"] == expected["counts"]
    np.testing.assert_allclose(found["episodes"], expected["episodes"], rtol=tolerance, atol=tolerance)
    assert (found["inexact"] is None) == (expected["inexact"] is None)


@pytest.mark.filterwarnings("ignore:env")
@pytest.mark.parametrize(("name", "size"), cases(SIZES))
def test_a_training_is_that_of_one_process(trainings, alone, name, size):
    expected = alone(name)[1]
    for found in trainings(size):
        found = found[name]
        assert_close(found, expected, TOLERANCE[name])
        for field, array in expected["first"].items():
            if name in scenarios.ROWS_APART:
                assert array.tobytes() == found["first"][field].tobytes(), field
            else:
                np.testing.assert_allclose(array, found["first"][field], rtol=1e-12, atol=1e-12, err_msg=field)
        assert len(found["updates"]) == len(expected["updates"]) >= scenarios.UPDATES
        for update, other in zip(found["updates"], expected["updates"], strict=True):
            np.testing.assert_allclose(update["numbers"], other["numbers"], rtol=1e-6, atol=TOLERANCE[name])
            assert update["counts"] == other["counts"]
            if name != "kfac":
                assert update["iterations"] == other["iterations"]


@pytest.mark.parametrize(("name", "size"), cases(SIZES[1:]))
def test_ranks_have_the_same_bits(trainings, name, size):
    first, *others = (found[name] for found in trainings(size))
    for other in others:
        for part in ("policy", "critic", *STATISTICS):
            for one, its in zip(first.get(part, []), other.get(part, []), strict=True):
                assert one.tobytes() == its.tobytes(), part
        assert first["digest"] == other["digest"]
        assert first["episodes"].tobytes() == other["episodes"].tobytes()


@pytest.mark.parametrize(
    ("name", "size"), [sized(size, name) for name in scenarios.ROWS_APART[:-1] for size in SIZES[1:]]
)
def test_any_number_of_ranks_that_divides_the_parts_gives_the_same_bits(trainings, name, size):
    expected, found = trainings(1)[0][name], trainings(size)[0][name]
    for part in ("policy", "critic", *STATISTICS):
        for one, its in zip(expected.get(part, []), found.get(part, []), strict=True):
            assert one.tobytes() == its.tobytes(), part
    assert expected["digest"] == found["digest"]


def test_a_module_that_begins_at_random_begins_as_that_of_rank_0(trainings, alone):
    expected = alone("own")[1]["policy"][0]
    scenarios.torch.manual_seed(101)
    other = scenarios.Own(3).bias.numpy()
    for found in trainings(2):
        bias = found["own"]["policy"][0]
        np.testing.assert_array_equal(bias, expected)
        assert abs(bias - other).max() > 0.01


@pytest.mark.parametrize("name", scenarios.SAVED)
def test_a_checkpoint_of_two_ranks_goes_on_with_two_to_the_bit(trainings, name):
    for found in trainings(2):
        assert found[name]["inexact"] is None
        assert found[f"{name}, of two"]["digest"] == found[name]["digest"]


@pytest.mark.parametrize("name", scenarios.SAVED)
def test_a_checkpoint_of_two_ranks_goes_on_with_one_and_with_three(trainings, common_folder, name):
    expected = trainings(2)[0][name]
    file = common_folder / "scenarios-everything-2" / f"{name}.trpo"
    assert_close(scenarios.go_on(file, None), expected, TOLERANCE[name])
    for found in trainings(3):
        assert_close(found[f"{name}, of two"], expected, TOLERANCE[name])


@pytest.mark.parametrize("name", scenarios.SAVED)
def test_a_checkpoint_of_one_process_goes_on_with_two_ranks(trainings, alone, name):
    for found in trainings(2):
        assert_close(found[f"{name}, of one"], alone(name)[1], TOLERANCE[name])


def test_an_update_takes_as_many_rounds_as_it_has_products_and_trials(trainings):
    for found in trainings(3):
        for index, update in enumerate(found["sync"]["updates"]):
            rounds, _ = update["traffic"]
            # The rollout twice, entropy, gradient, products, that of relative_damping first, trials; a checksum now and
            # then, first of all.
            trials = update["counts"][1] + 1
            assert rounds == 2 + 2 + 1 + update["iterations"] + trials + (index == 0)
    for found in trainings(1):
        assert found["sync"]["updates"][0]["traffic"] == (0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="wants /proc, and Linux's scheduling policies")
def test_threads_that_receive_do_not_preempt_what_computes(of_ranks):
    for found in of_ranks(2):
        policies = found["schedulers"]
        assert policies.pop("gloo_tcp_loop") == {os.SCHED_BATCH}
        assert set().union(*policies.values()) == {os.SCHED_OTHER}
