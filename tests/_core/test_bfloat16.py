"""Fisher products of bf16 numbers, with the portable kernels: all but the instruction is tried on any machine."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from tests._core.policies import Setting
from tests._core.side_by_side import bits_by_threads, refused_or_right
from tests._core.test_jacobians import problems, vector
from tests.reference import as_bfloat16, exactly
from trpo_fast._core import library

pytestmark = pytest.mark.usefixtures("portable_bfloat16")
# A product's oracle has no rounded operands.
float32_problems = problems.filter(lambda problem: "product" not in problem["kind"]).map(
    lambda problem: {**problem, "dtype": np.float32}
)
ROUNDING = 2.0**-9  # of one number: half of the spacing of eight bits
TINY = 1e-6  # where a product is zero but for rounding: one choice in every row


def narrow(setting, rows=None, **replace):
    F = setting.bind(**replace).fisher_operator(rows)
    F.use_bfloat16()
    return F


def exact_product(setting, v, operands=exactly):
    """F v by the oracle; of operands that are rounded where these are `as_bfloat16`."""
    exact = (np.asarray(array, np.float64) for array in (setting.theta, setting.observations, v))
    return dataclasses.replace(setting.oracle, operands=operands).fisher_product(*exact, masks=setting.masks)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problem=float32_problems)
def test_products_are_those_of_rounded_operands_for_every_distribution_and_depth(problem):
    setting = Setting(**problem)
    F = narrow(setting)
    assert (F.precision, F.product, F.jacobian_bytes) == ("bfloat16", "weights", 0)
    v = vector(setting.kernel)
    product, expected = F @ v, exact_product(setting, v)
    # Of products of such vectors: terms of this one may cancel, and their roundings do not.
    size = max(np.linalg.norm(exact_product(setting, vector(setting.kernel, seed))) for seed in range(8))
    # One rounding that falls to the other side, as its operand was a float32 sum, is a whole spacing in one place.
    assert np.linalg.norm(product - exact_product(setting, v, as_bfloat16)) <= 4 * ROUNDING * size + TINY
    assert np.linalg.norm(product - expected) <= 16 * ROUNDING * size + TINY


def test_where_all_roundings_are_the_same_products_agree_as_float32_does():
    # The rows are a power of two, so that cotangents divided by their number have the same digits.
    setting = Setting(dtype=np.float32, widths=(17, 64, 64, 6), rows=512)
    F, v = narrow(setting), vector(setting.kernel)
    rounded, exact = exact_product(setting, v, as_bfloat16), exact_product(setting, v)
    assert np.linalg.norm(F @ v - rounded) < 2e-4 * np.linalg.norm(exact)
    assert np.linalg.norm(F @ v - exact) > 1e-3 * np.linalg.norm(exact)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=float32_problems)
def test_products_are_symmetric_and_of_positive_curvature_within_roundings(problem):
    F = narrow(Setting(**problem))
    u, v = vector(F, 1), vector(F, 2)
    Fu, Fv = F @ u, F @ v
    scale = np.linalg.norm(u) * np.linalg.norm(Fv) + np.linalg.norm(v) * np.linalg.norm(Fu) + 1e-6
    assert abs(float(u @ Fv) - float(v @ Fu)) <= 8 * ROUNDING * scale
    assert float(u @ Fu) >= -8 * ROUNDING * np.linalg.norm(u) * np.linalg.norm(Fu)


@pytest.mark.parametrize("rows", [95, 700, 6200])  # one block, 8 and 32
def test_products_do_not_depend_on_the_number_of_threads(rows):
    setting = Setting(dtype=np.float32, rows=rows)
    assert len(bits_by_threads(lambda: narrow(setting), vector(setting.kernel))) == 1


def test_activations_that_are_not_kept_give_the_same_bits():
    setting = Setting(dtype=np.float32, rows=300)
    v = vector(setting.kernel)
    kept = narrow(setting) @ v
    np.testing.assert_array_equal(narrow(setting, cache_bytes=0) @ v, kept)


def test_other_operators_and_all_else_of_the_batch_keep_their_bits():
    setting = Setting("categorical", np.float32, rows=300)
    kernel, trial = setting.bind(), setting.theta + np.float32(0.01)
    v, usual = vector(kernel), kernel.fisher_operator()
    cached = kernel.fisher_operator()
    cached.cache_jacobians()

    def everything():
        return usual @ v, cached @ v, kernel.surrogate_gradient(), np.array(kernel.evaluate(trial)), kernel.entropy()

    before = everything()
    F = kernel.fisher_operator()
    F.use_bfloat16()
    product = F @ v
    for one, other in zip(before, everything(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (product != before[0]).any()
    np.testing.assert_array_equal(F @ v, product)
    assert usual.precision == "float32"


def test_another_batch_has_weights_of_its_own_and_outlives_earlier_operators():
    setting = Setting(dtype=np.float32, rows=200)
    first, v = narrow(setting), vector(setting.kernel)
    moved = np.concatenate([setting.theta[:3], 2 * setting.theta[3:]])
    second = narrow(setting, parameters=moved)
    expected = setting.oracle.fisher_product(*(a.astype(np.float64) for a in (moved, setting.observations, v)))
    assert np.linalg.norm(second @ v - expected) < 0.02 * np.linalg.norm(expected)
    for refused in (lambda: first @ v, first.use_bfloat16):
        with pytest.raises(RuntimeError, match="outlived"):
            refused()
    assert setting.bind().fisher_operator().precision == "float32"


def test_a_mean_over_some_rows_is_of_bf16_too():
    setting = Setting(dtype=np.float32, rows=400)
    rows = np.arange(0, 400, 3)
    v = vector(setting.kernel)
    expected = setting.oracle.fisher_product(
        *(a.astype(np.float64) for a in (setting.theta, setting.observations[rows], v))
    )
    assert np.linalg.norm(narrow(setting, rows) @ v - expected) < 0.02 * np.linalg.norm(expected)


def test_memory_counts_what_these_products_need_and_is_used_again():
    setting = Setting(dtype=np.float32, rows=300)
    kernel = setting.bind()
    before = kernel.memory
    narrow(setting)
    held = kernel.memory
    assert held > before
    narrow(setting)
    assert kernel.memory == held


def test_numbers_that_overflow_give_products_that_are_not_finite_and_no_crash():
    setting = Setting(dtype=np.float32, activation="relu")
    F = narrow(setting, parameters=np.concatenate([setting.theta[:3], setting.theta[3:] * np.float32(1e30)]))
    with np.errstate(all="ignore"):
        assert not np.isfinite(F @ vector(F)).all()


def test_float64_and_cached_jacobians_are_refused_by_name():
    with pytest.raises(TypeError, match="bfloat16: an operator of float64 given; want float32"):
        Setting().bind().fisher_operator().use_bfloat16()
    F = Setting(dtype=np.float32).bind().fisher_operator()
    F.cache_jacobians()
    with pytest.raises(ValueError, match="bfloat16: this operator has cached its Jacobians"):
        F.use_bfloat16()
    F = narrow(Setting(dtype=np.float32))
    with pytest.raises(ValueError, match="cache_jacobians: nothing to cache"):
        F.cache_jacobians()


def test_an_operator_at_work_in_another_thread_refuses_and_is_not_disturbed():
    setting = Setting(dtype=np.float32, rows=3000, widths=(5, 40, 40, 6))
    kernel = setting.bind()
    usual, F, v = kernel.fisher_operator(), kernel.fisher_operator(), vector(setting.kernel)
    F.use_bfloat16()
    refused_or_right({A.precision: lambda A=A: (A @ v).tobytes() for A in (usual, F)}, 60)


def test_the_limit_of_these_multiply_adds_can_be_measured():
    assert library.multiply_adds("bfloat16", 10) > 0


def test_kernels_of_another_name_are_refused():
    assert library.bfloat16_products() == "portable"
    assert library.bfloat16_obstacle() is None
    with pytest.raises(ValueError, match=r"name: 'fast'.* given; want 'portable' or None"):
        library.choose_bfloat16("fast")


def test_a_machine_without_such_products_says_so():
    library.choose_bfloat16(None)
    if library.bfloat16_products() is not None:
        assert library.bfloat16_obstacle() is None
        return
    F = Setting(dtype=np.float32).bind().fisher_operator()
    with pytest.raises(ValueError, match=r"bfloat16: .*; want 'float32'"):
        F.use_bfloat16()
    assert F.precision == "float32"
    with pytest.raises(ValueError, match="bfloat16"):
        library.multiply_adds("bfloat16", 10)
