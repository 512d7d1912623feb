"""Fisher products with cached output Jacobians: the oracle's products, and the same bits whatever runs beside them."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._core.policies import Setting
from tests._core.side_by_side import bits_by_threads, refused_or_right
from tests.engines.cases import KINDS
from trpo_fast._core.library import get_num_threads, set_num_threads
from trpo_fast._core.preconditioner import FisherFactors
from trpo_fast.solvers import conjugate_gradient

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
# Around the vector lengths, and more outputs than are contracted together.
problems = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "activation": st.sampled_from(["tanh", "relu", "elu", "leaky_relu", "sigmoid", "silu", "gelu", "softplus"]),
        "widths": st.tuples(
            st.integers(1, 9), st.lists(st.integers(1, 40), max_size=4).map(tuple), st.integers(1, 20)
        ).map(lambda parts: (parts[0], *parts[1], parts[2])),
        "rows": st.sampled_from([1, 2, 95, 96, 97, 250]),
    }
)


def cached(setting, **replace):
    F = setting.bind(**replace).fisher_operator()
    F.cache_jacobians()
    return F


def vector(kernel, seed=1):
    return np.random.default_rng(seed).normal(size=kernel.size).astype(kernel.dtype)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problem=problems)
def test_products_are_the_oracles_for_every_distribution_depth_and_precision(problem):
    setting = Setting(**problem)
    F = setting.bind().fisher_operator()
    if len(problem["widths"]) < 4:
        assert F.jacobian_bytes == 0
        with pytest.raises(ValueError, match="cache_jacobians: nothing to cache for widths"):
            F.cache_jacobians()
        return
    F.cache_jacobians()
    assert F.product == "jacobians"
    v = vector(setting.kernel)
    exact = (np.asarray(array, np.float64) for array in (setting.theta, setting.observations, v))
    expected = setting.oracle.fisher_product(*exact, masks=setting.masks)
    error = np.linalg.norm(F @ v - expected) / (np.linalg.norm(expected) or 1.0)
    assert error < TOLERANCE[problem["dtype"]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems.filter(lambda problem: len(problem["widths"]) >= 4))
def test_products_are_symmetric_and_never_of_negative_curvature(problem):
    F = cached(Setting(**problem))
    u, v = vector(F, 1), vector(F, 2)
    Fu, Fv = F @ u, F @ v
    scale = np.sqrt(float(u @ Fu) * float(v @ Fv)) + np.finfo(F.dtype).tiny
    assert abs(float(u @ Fv) - float(v @ Fu)) <= 1e3 * np.finfo(F.dtype).eps * max(scale, np.linalg.norm(Fu))
    assert float(u @ Fu) >= -1e2 * np.finfo(F.dtype).eps * np.linalg.norm(u) * np.linalg.norm(Fu)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [95, 700, 6200])  # one block, 8 and 32
def test_products_do_not_depend_on_the_number_of_threads(rows, dtype):
    setting = Setting(dtype=dtype, rows=rows)
    assert len(bits_by_threads(lambda: cached(setting), vector(setting.kernel))) == 1


def test_other_operators_of_the_batch_stay_as_they_are():
    setting = Setting(rows=300)
    kernel, v = setting.bind(), vector(setting.kernel)
    usual = kernel.fisher_operator()
    product = usual @ v
    F = kernel.fisher_operator()
    F.cache_jacobians()
    with_jacobians = F @ v
    assert (with_jacobians != product).any()  # rounding
    np.testing.assert_array_equal(usual @ v, product)
    np.testing.assert_array_equal(F @ v, with_jacobians)
    assert (usual.product, F.product) == ("weights", "jacobians")
    again = kernel.fisher_operator()
    again.cache_jacobians()
    np.testing.assert_array_equal(again @ v, with_jacobians)


def test_all_else_that_is_computed_from_the_batch_keeps_its_bits():
    setting = Setting("categorical", rows=300)
    trial = setting.theta + 0.01

    def everything():
        factors = FisherFactors(kernel).preconditioner("kfac", damping=0.1) @ vector(kernel)
        return kernel.surrogate_gradient().tobytes(), kernel.evaluate(trial), kernel.entropy(), factors.tobytes()

    kernel = setting.bind()
    before = everything()
    F = kernel.fisher_operator()
    F.cache_jacobians()
    F @ vector(kernel)
    assert everything() == before


def test_another_batch_has_jacobians_of_its_own_and_outlives_earlier_operators():
    setting = Setting(rows=200)
    first = cached(setting)
    v, moved = vector(setting.kernel), 2 * setting.theta
    second = cached(setting, parameters=moved)
    expected = setting.oracle.fisher_product(moved, setting.observations, v)
    np.testing.assert_allclose(second @ v, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    for refused in (lambda: first @ v, first.cache_jacobians):
        with pytest.raises(RuntimeError, match="outlived"):
            refused()
    assert setting.bind().fisher_operator().product == "weights"


def test_a_mean_over_some_rows_has_its_own_jacobians():
    setting = Setting(rows=400)
    rows = np.arange(0, 400, 3)
    F = setting.bind().fisher_operator(rows)
    F.cache_jacobians()
    v = vector(setting.kernel)
    expected = setting.oracle.fisher_product(setting.theta, setting.observations[rows], v)
    np.testing.assert_allclose(F @ v, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert F.rows == len(rows)


def test_a_total_of_several_ranks_divides_these_products_too():
    setting = Setting(rows=100)
    v = vector(setting.kernel)
    alone, shared = cached(setting) @ v, cached(setting, total=400) @ v
    np.testing.assert_allclose(4 * shared[3:], alone[3:], rtol=1e-12)


def test_where_activations_are_not_kept_there_is_nothing_to_cache():
    F = Setting(rows=300).bind(cache_bytes=0).fisher_operator()
    assert F.jacobian_bytes == 0
    with pytest.raises(ValueError, match="a batch whose activations are all kept"):
        F.cache_jacobians()


def test_jacobians_of_more_than_a_gibibyte_are_not_made():
    kernel = Setting(widths=(1, 2048, 1, 300), rows=500).bind()  # 500 rows in tiles of 96: 576 x 300 x 2,048 x 8 bytes
    F = kernel.fisher_operator()
    assert F.jacobian_bytes == 0
    with pytest.raises(ValueError, match="at most 1 GiB of Jacobians"):
        F.cache_jacobians()


def test_memory_counts_the_jacobians_and_is_used_again():
    setting = Setting(rows=300)
    kernel = setting.bind()
    before = kernel.memory
    F = kernel.fisher_operator()
    F.cache_jacobians()
    held = kernel.memory
    assert before + F.jacobian_bytes <= held
    cached(setting)
    assert kernel.memory == held


def test_parameters_that_overflow_give_products_that_are_not_finite_and_no_crash():
    setting = Setting(dtype=np.float32, activation="relu")
    F = cached(setting, parameters=np.concatenate([setting.theta[:3], setting.theta[3:] * np.float32(1e30)]))
    with np.errstate(all="ignore"):
        assert not np.isfinite(F @ vector(F)).all()


def test_a_solve_finds_the_same_direction():
    setting = Setting(rows=300)
    kernel = setting.bind()
    usual, F = kernel.fisher_operator(), kernel.fisher_operator()
    F.cache_jacobians()
    g = kernel.surrogate_gradient()
    expected, found = (conjugate_gradient(A, g, damping=0.1, reorthogonalize=True).x for A in (usual, F))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_an_operator_at_work_in_another_thread_refuses_and_is_not_disturbed():
    setting = Setting(rows=3000, widths=(5, 40, 40, 6))
    kernel = setting.bind()
    usual, F, v = kernel.fisher_operator(), kernel.fisher_operator(), vector(setting.kernel)
    F.cache_jacobians()

    def cached_again():
        F.cache_jacobians()
        return (F @ v).tobytes()

    refused_or_right({"weights": lambda: (usual @ v).tobytes(), "jacobians": cached_again}, 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads: it is what is tried here
def test_a_forked_child_multiplies_and_makes_jacobians_as_its_parent():
    setting, before = Setting(rows=3000), get_num_threads()
    set_num_threads(2)
    F, v = cached(setting), vector(setting.kernel)
    expected = (F @ v).tobytes()
    child = os.fork()
    if child == 0:
        same = (F @ v).tobytes() == expected and (cached(setting) @ v).tobytes() == expected
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    set_num_threads(before)
    assert status == 0
    assert (F @ v).tobytes() == expected
