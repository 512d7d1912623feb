"""Advantages: generalized ones against the definition, and those of a function of the user's own."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st

from tests import reference
from tests.rollout.toys import follow, value, walks
from trpo_fast import AdvantageInputs
from trpo_fast.rollout.advantages import estimated_by

SHAPE = (5, 3)


def inputs_of(seed=0, dtype=np.float64, **changes):
    rng = np.random.default_rng(seed)
    rewards, values, following = (rng.normal(size=SHAPE).astype(dtype) for _ in range(3))
    terminated = rng.random(SHAPE) < 0.2
    return AdvantageInputs(
        **{
            "rewards": rewards,
            "values": values,
            "next_values": following,
            "terminated": terminated,
            "truncated": (rng.random(SHAPE) < 0.2) & ~terminated,
            "valid": np.ones(SHAPE, bool),
            "observations": rng.normal(size=(*SHAPE, 2)).astype(dtype),
            "actions": rng.integers(3, size=SHAPE),
            "log_probs": np.zeros(SHAPE, dtype),
            "gamma": 0.9,
            "gae_lambda": 0.8,
        }
        | changes
    )


def by_definition(inputs, rewards, values, following):
    ends, gamma = (inputs.terminated, inputs.truncated), inputs.gamma
    advantages, returns = reference.generalized_advantages(rewards, values, following, *ends, gamma, inputs.gae_lambda)
    own = inputs.critic_gae_lambda
    if own is not None:
        _, returns = reference.generalized_advantages(rewards, values, following, *ends, gamma, own)
    return advantages, returns


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
    own=st.booleans(),
    critic=st.sampled_from([None, 0.0, 0.8, 0.95, 1.0]),
)
def test_generalized_advantages_are_those_of_the_definition_of_these_rewards_or_others(seed, dtype, own, critic):
    inputs, others = inputs_of(seed, dtype, critic_gae_lambda=critic), inputs_of(seed + 100)
    given = [others.rewards, others.values, others.next_values] if own else [None] * 3
    found = inputs.gae(*given)
    of = others if own else inputs
    expected = by_definition(inputs, *(np.asarray(a, dtype) for a in (of.rewards, of.values, of.next_values)))
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == dtype and mine.flags.writeable
        np.testing.assert_allclose(mine, right, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-5)


def test_what_a_function_is_given_cannot_be_written_and_done_is_either_end():
    inputs = inputs_of()
    for name in ("rewards", "values", "next_values", "terminated", "truncated", "valid", "observations", "log_probs"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(inputs, name)[...] = 0
    np.testing.assert_array_equal(inputs.done, inputs.terminated | inputs.truncated)


@pytest.mark.parametrize("kind", ["ndarray", "tensor", "integers", "lists"])
def test_what_a_function_returns_is_copied_in_the_policys_dtype(kind):
    inputs = inputs_of(dtype=np.float32)
    advantages, returns = np.arange(15.0).reshape(SHAPE), np.ones(SHAPE)
    make = {"ndarray": np.asarray, "tensor": torch.from_numpy, "integers": np.int64, "lists": np.ndarray.tolist}[kind]
    given = make(advantages), make(returns)
    found = estimated_by(lambda _: given, inputs, 0)
    for mine, right in zip(found, (advantages, returns), strict=True):
        np.testing.assert_array_equal(mine, right)
        assert mine.dtype == np.float32 and mine.flags.c_contiguous
        mine[...] = 7
    np.testing.assert_array_equal(np.asarray(given[0]), advantages)


WRONG = np.ones(SHAPE)
WRONG[2, 1] = np.nan


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, TypeError, r"returned NoneType; want \(advantages, returns\), arrays of shape \(5, 3\)"),
        (np.ones(SHAPE), TypeError, "returned ndarray; want"),
        ((np.ones(SHAPE),), TypeError, "returned 1 items; want"),
        ((np.ones(SHAPE), np.ones(15)), ValueError, r"returned returns of shape \(15,\); want \(5, 3\), \(T, E\)"),
        ((np.ones((3, 5)), np.ones(SHAPE)), ValueError, r"returned advantages of shape \(3, 5\); want \(5, 3\)"),
        ((np.ones(SHAPE, bool), np.ones(SHAPE)), TypeError, "returned advantages of bool; want numbers of float32"),
        ((np.ones(SHAPE), np.full(SHAPE, "1")), TypeError, "returned returns of <U1; want numbers of float32"),
        ((np.ones(SHAPE), [[1.0], [1.0, 2.0]]), ValueError, "returned returns that are no array: "),
        (
            (WRONG, np.ones(SHAPE)),
            ValueError,
            r"advantages of nan at \[2, 1\], for environment 1 at step 42; want finite numbers",
        ),
        (
            (np.ones(SHAPE), -1e300 * np.ones(SHAPE)),
            ValueError,
            r"returns of -1e\+300 at \[0, 0\], for environment 0 at step 40",
        ),
        ((torch.ones(SHAPE, dtype=torch.bfloat16), 0), TypeError, "advantages: .* given; want one that NumPy"),
    ],
)
def test_what_a_function_should_not_return_is_named(answer, error, message):
    with pytest.raises(error, match=f"^advantages: .*{message}"):
        estimated_by(lambda _: answer, inputs_of(dtype=np.float32), first_step=40)


def finish(collector, estimate=None, normalize=False):
    return collector.finisher.finish(collector.collect(), value, 0.9, 0.8, normalize, estimate)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_function_that_estimates_as_the_built_in_one_gives_the_same_batch(mode):
    seen = []

    def estimate(inputs):
        seen.append(inputs)
        return by_definition(inputs, inputs.rewards, inputs.values, inputs.next_values)

    usual, own = finish(follow(walks(mode=mode), 30)), finish(follow(walks(mode=mode), 30), estimate)
    assert len(seen) == 1 and (seen[0].gamma, seen[0].gae_lambda) == (0.9, 0.8)
    np.testing.assert_allclose(own[0].advantages, usual[0].advantages, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(own[1], usual[1], rtol=1e-12)
    np.testing.assert_array_equal(own[0].observations, usual[0].observations)
    assert own[2] == pytest.approx(usual[2])


def test_what_a_function_says_of_dummy_rows_is_dropped():
    def estimate(inputs):
        assert not inputs.valid.all()
        spoilt = np.where(inputs.valid, 1.0, np.nan)
        return spoilt, spoilt

    batch, returns, _ = finish(follow(walks(mode=AutoresetMode.NEXT_STEP), 30), estimate)
    assert (batch.advantages == 1).all() and (returns == 1).all()


def test_a_functions_advantages_are_normalized_where_that_is_wanted_and_its_own_array_is_left_alone():
    kept = []

    def estimate(inputs):
        kept.append(np.arange(float(inputs.values.size)).reshape(inputs.values.shape))
        return kept[0], inputs.values

    batch, _, _ = finish(follow(walks(mode=AutoresetMode.SAME_STEP), 30), estimate, normalize=True)
    assert abs(batch.advantages.mean()) < 1e-12 and batch.advantages.std() == pytest.approx(1)
    np.testing.assert_array_equal(kept[0].ravel(), np.arange(kept[0].size))


@pytest.mark.parametrize("name", ["rewards", "values", "next_values"])
@pytest.mark.parametrize("wrong", [[[10**400] * 3] * 5, [["a"] * 3] * 5, np.zeros(SHAPE, complex)])
def test_what_is_no_array_of_numbers_is_named(name, wrong):
    with pytest.raises(TypeError, match=f"{name}: .* given; want real numbers"):
        inputs_of().gae(**{name: wrong})


def test_numbers_of_a_function_that_no_float_holds_are_named():
    huge = [[10**400] * 3] * 5
    with pytest.raises(TypeError, match="advantages: the function returned returns of object; want numbers"):
        estimated_by(lambda inputs: (inputs.values, huge), inputs_of(), 0)


def test_a_number_that_is_not_finite_is_named_by_its_place_in_the_functions_own_array():
    spoiled = np.zeros(SHAPE)
    spoiled[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"returned returns of nan at \[3, 2\], for environment 2 at step 103"):
        estimated_by(lambda inputs: (inputs.values, spoiled), inputs_of(), 100)
