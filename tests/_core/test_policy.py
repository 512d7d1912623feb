"""The compiled policy mathematics at its own boundary; tests/engines compares it with the oracle over a wider table."""

import numpy as np
import pytest

from tests import reference
from tests._core.policies import Setting, outputs_for, spoiled
from tests._core.side_by_side import refused_or_right
from trpo_fast import get_num_threads, set_num_threads
from trpo_fast._core.acting import Actor
from trpo_fast._core.policy import PolicyKernel

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def test_a_kernel_says_what_it_is(distribution):
    kernel = Setting(distribution, np.float32, "elu", [5, 16, 3]).kernel
    assert kernel.widths == (5, 16, 3)
    assert (kernel.activation, kernel.distribution) == ("elu", distribution.removeprefix("masked "))
    assert kernel.nvec == ((2, 1) if distribution == "masked multicategorical" else None)
    assert np.dtype(kernel.dtype) == np.float32
    assert kernel.size == 5 * 16 + 16 + 16 * 3 + 3 + (3 if distribution == "gaussian" else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 3), (1, 1, 2), (5, 16, 9, 3), (17, 64, 64, 6)], ids=str)
def test_forward_log_prob_and_entropy_are_the_oracles(widths, activation, dtype, distribution):
    s = Setting(distribution, dtype, activation, widths, rows=101)
    oracle, theta = s.oracle, s.theta.astype(np.float64)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    outputs = s.kernel.forward(s.theta, s.observations)
    assert outputs.dtype == dtype
    expected = oracle.forward(theta, s.observations)
    if distribution == "categorical":  # logits are determined up to a constant in each row
        outputs, expected = reference.log_softmax(outputs), reference.log_softmax(expected)
    np.testing.assert_allclose(outputs, expected, **tolerance)
    expected = oracle.log_prob(theta, s.observations, s.actions, s.masks)
    np.testing.assert_allclose(s.bind().log_probs(), expected, **tolerance)
    np.testing.assert_array_equal(s.kernel.ratios(), 1.0)
    assert s.kernel.entropy() == pytest.approx(oracle.entropy(theta, s.observations, s.masks), rel=tolerance["rtol"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_a_rows_result_does_not_depend_on_the_batch_or_its_place_there(activation, dtype, distribution):
    s = Setting(distribution, dtype, activation, (17, 64, 61, 6), rows=300)
    outputs = s.kernel.forward(s.theta, s.observations)
    log_probs = s.bind().log_probs()
    rng = np.random.default_rng(1)
    for rows in (slice(0, 1), slice(7, 8), slice(90, 99), slice(200, 300), rng.permutation(300)):
        observations, actions = s.observations[rows].copy(), s.actions[rows].copy()
        np.testing.assert_array_equal(s.kernel.forward(s.theta, observations), outputs[rows])
        masks = None if s.masks is None else s.masks[rows].copy()
        s.bind(observations=observations, actions=actions, advantages=s.advantages[rows].copy(), action_masks=masks)
        np.testing.assert_array_equal(s.kernel.log_probs(), log_probs[rows])


def test_saturated_and_huge_inputs_keep_values_finite(distribution):
    for activation in reference.ACTIVATIONS:
        s = Setting(distribution, np.float32, activation)
        s.observations *= 1e4
        outputs = s.kernel.forward(s.theta, s.observations)
        assert np.isfinite(outputs).all()
        s.bind()
        assert np.isfinite(s.kernel.surrogate_gradient()).all()
        assert np.isfinite(s.kernel.entropy())
        assert s.kernel.evaluate(s.theta) == (0.0, 0.0)


@pytest.mark.parametrize("direction", ["new_old", "old_new"])
@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-2, 1.0])
def test_kl_is_accurate_and_positive_however_small_the_step(size, direction, distribution):
    s = Setting(distribution, rows=200)
    s.bind()
    trial = s.theta + size * np.random.default_rng(3).normal(size=s.theta.shape)
    improvement, kl = s.kernel.evaluate(trial, direction)
    assert kl > 0
    # Parameters are rounded to 1e-16: a step of 1e-7 is known to 1e-9, its square too.
    tolerance = 1e-10 + 1e-15 / size
    expected = s.oracle.evaluate(trial, s.theta, *s.data, direction, masks=s.masks)
    assert kl == pytest.approx(expected[1], rel=tolerance)
    assert improvement == pytest.approx(expected[0], rel=10 * tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_ratio_is_exactly_one_for_any_number_of_outputs(dtype, distribution):
    # With fused multiply-adds, one formula compiled twice can round in two ways: it did for 3 outputs and 1 row.
    for outputs in (*range(1, 20), 31, 64):
        for rows in (1, 3, 50, 97):
            s = Setting(distribution, dtype, widths=(5, 8, outputs), rows=rows)
            assert s.bind().evaluate(s.theta) == (0.0, 0.0), f"{outputs} outputs, {rows} rows"
            log_probs = s.kernel.log_probs()
            assert s.bind(log_probs=log_probs).evaluate(s.theta, "old_new") == (0.0, 0.0)
            np.testing.assert_array_equal(s.kernel.ratios(), 1.0)


def test_kl_is_joint_over_action_dimensions():
    # log_std alone moves: the KL of one dimension, once for each of them.
    s = Setting(widths=(2, 4))
    s.theta[:4] = 0.0
    s.bind()
    trial = s.theta.copy()
    trial[:4] = 0.1
    one = 0.5 * (np.expm1(0.2) - 0.2)
    assert s.kernel.evaluate(trial)[1] == pytest.approx(4 * one, rel=1e-12)
    trial[1:4] = 0.0
    assert s.kernel.evaluate(trial)[1] == pytest.approx(one, rel=1e-12)
    assert s.kernel.evaluate(trial, "old_new")[1] == pytest.approx(0.5 * (np.expm1(-0.2) + 0.2), rel=1e-12)


def test_log_std_has_gradient_and_curvature():
    s = Setting()
    kernel = s.bind()
    assert (kernel.surrogate_gradient()[:3] != 0).all()
    unit = np.zeros(kernel.size)
    unit[1] = 1.0
    product = kernel.fisher_operator() @ unit
    np.testing.assert_allclose(product, 2.0 * unit, rtol=1e-14, atol=1e-15)


def test_gradient_and_product_are_written_into_out(distribution):
    s = Setting(distribution)
    kernel = s.bind()
    out = np.full(kernel.size, np.nan)
    assert kernel.surrogate_gradient(out) is out
    np.testing.assert_array_equal(out, kernel.surrogate_gradient())
    operator, v = kernel.fisher_operator(), np.random.default_rng(0).normal(size=kernel.size)
    product = operator.matvec(v)
    assert operator.matvec(v, out) is out
    np.testing.assert_array_equal(out, product)
    np.testing.assert_array_equal(operator @ v, product)
    assert operator.shape == (kernel.size, kernel.size)
    assert operator.size == kernel.size


def test_an_operator_outlived_by_a_rebind_raises(distribution):
    s = Setting(distribution)
    operator = s.bind().fisher_operator()
    s.bind()
    with pytest.raises(RuntimeError, match="outlived"):
        operator @ np.ones(s.kernel.size)


def test_an_unbound_kernel_says_so(distribution):
    kernel = Setting(distribution).kernel
    for use in (
        kernel.surrogate_gradient,
        kernel.fisher_operator,
        kernel.entropy,
        kernel.log_probs,
        kernel.ratios,
        lambda: kernel.evaluate(np.zeros(kernel.size)),
    ):
        with pytest.raises(RuntimeError, match="bind"):
            use()


def test_trials_that_overflow_are_outcomes_and_not_errors(distribution):
    s = Setting(distribution)
    kernel = s.bind()
    for value in (np.nan, np.inf, 1e300):
        trial = s.theta.copy()
        trial[-1] = value
        improvement, kl = kernel.evaluate(trial)
        assert not (improvement > 0 and kl <= 0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((5,), "tanh", "gaussian", np.float64), "widths"),
        (((), "tanh", "gaussian", np.float64), "widths"),
        (((5, 0, 3), "tanh", "gaussian", np.float64), "widths"),
        (((5, -1), "tanh", "gaussian", np.float64), "widths"),
        (((5, 3), "gelu_tanh", "gaussian", np.float64), "activation.*gelu_tanh"),
        (((5, 3), "tanh", "beta", np.float64), "distribution.*beta"),
        (((5, 3), "tanh", "multicategorical", np.float64), "nvec.*None"),
        (((5, 3), "tanh", "multicategorical", np.float64, (2, 2)), r"nvec.*\(2, 2\).*3 outputs"),
        (((5, 3), "tanh", "multicategorical", np.float64, (3, 0)), r"nvec.*\(3, 0\)"),
        (((5, 3), "tanh", "multicategorical", np.float64, ()), "nvec"),
        (((5, 3), "tanh", "multicategorical", np.float64, (1.5, 1.5)), "nvec: .* want a sequence of integers"),
        (((5, 3), "tanh", "bernoulli", np.float64, (3,)), "nvec.*'bernoulli'"),
        (((5, 3), "tanh", "gaussian", np.float16), "dtype.*float16"),
        (((5, 3), "tanh", "gaussian", np.int64), "dtype.*int64"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PolicyKernel(*arguments)


BAD_ARRAYS = {
    "parameters": ["short", "other dtype", "strided", "list"],
    "observations": ["narrow", "flat", "empty", "other dtype", "strided", "list"],
    "actions": ["short", "narrow", "other dtype", "strided"],
    "advantages": ["short", "matrix", "other dtype", "strided"],
    "log_probs": ["short", "other dtype", "strided"],
}


@pytest.mark.parametrize(("name", "how"), [(name, how) for name, hows in BAD_ARRAYS.items() for how in hows])
def test_arrays_that_do_not_fit_are_named(name, how):
    s = Setting()
    arrays = {
        "parameters": s.theta,
        "observations": s.observations,
        "actions": s.actions,
        "advantages": s.advantages,
        "log_probs": np.zeros(40),
    }
    with pytest.raises((ValueError, TypeError), match=name):
        s.bind(**{name: spoiled(arrays[name], how)})


@pytest.mark.parametrize("name", ["parameters", "observations", "actions", "advantages", "log_probs"])
def test_read_only_input_is_fine(name):
    s = Setting()
    arrays = {"parameters": s.theta, "observations": s.observations, "actions": s.actions, "advantages": s.advantages}
    array = np.zeros(40) if name == "log_probs" else arrays[name]
    array.flags.writeable = False
    assert np.isfinite(s.bind(**{name: array}).surrogate_gradient()).all()


def test_bad_outputs_are_refused():
    s = Setting()
    kernel = s.bind()
    read_only = np.zeros(kernel.size)
    read_only.flags.writeable = False
    for out in (
        read_only,
        np.zeros(kernel.size - 1),
        np.zeros(kernel.size, np.float32),
        np.zeros(2 * kernel.size)[::2],
    ):
        with pytest.raises((ValueError, TypeError), match="out"):
            kernel.surrogate_gradient(out)
        with pytest.raises((ValueError, TypeError), match="out"):
            kernel.fisher_operator().matvec(np.ones(kernel.size), out)
    for v in (np.zeros(kernel.size - 1), np.zeros(kernel.size, np.float32), np.zeros((kernel.size, 1))):
        with pytest.raises((ValueError, TypeError)):
            kernel.fisher_operator().matvec(v, np.zeros(kernel.size))
        with pytest.raises((ValueError, TypeError)):
            kernel.evaluate(v)


def test_a_product_into_its_own_operand_is_refused():
    s = Setting()
    v = np.ones(2 * s.kernel.size)
    for out in (v[: s.kernel.size], v[1 : 1 + s.kernel.size]):
        with pytest.raises(ValueError, match="overlap"):
            s.bind().fisher_operator().matvec(v[: s.kernel.size], out)


@pytest.mark.parametrize("total", [0, -1, 39])
def test_a_total_must_cover_the_batch(total):
    with pytest.raises(ValueError, match="total"):
        Setting().bind(total=total)


def test_an_unknown_direction_is_named():
    s = Setting()
    with pytest.raises(ValueError, match=r"kl_direction.*sideways"):
        s.bind().evaluate(s.theta, "sideways")


@pytest.mark.parametrize("direction", ["new_old", "old_new"])
@pytest.mark.parametrize("logit", [-800.0, -1e30, 800.0])
def test_categorical_kl_is_finite_where_an_action_all_but_vanishes(logit, direction):
    kernel = PolicyKernel((1, 3), "tanh", "categorical", np.float64)
    old = np.array([0.0, 0.0, 0.0, *np.log([0.5, 0.49, 0.01])])
    new = old.copy()
    new[5] = logit
    kernel.bind(old, np.zeros((1, 1)), np.zeros(1, np.int64), np.ones(1))
    p, q = np.exp(old[3:]), np.exp(new[3:] - np.logaddexp.reduce(new[3:]))
    log_p, log_q = old[3:], new[3:] - np.logaddexp.reduce(new[3:])
    a, difference = (q, log_q - log_p) if direction == "new_old" else (p, log_p - log_q)
    expected = sum(x * d for x, d in zip(a, difference, strict=True) if x > 0)
    assert kernel.evaluate(new, direction)[1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["categorical", "multicategorical", "bernoulli"])
def test_masks_that_allow_everything_change_no_bit(kind):
    s = Setting(kind)
    kernel = s.bind(entropy_coefficient=0.1)
    trial, v = s.theta + 0.01, np.ones(kernel.size)
    plain = kernel.log_probs(), kernel.surrogate_gradient(), kernel.fisher_operator() @ v, kernel.evaluate(trial)
    s.bind(entropy_coefficient=0.1, action_masks=np.ones((40, sum(s.oracle.blocks)), bool))
    masked = kernel.log_probs(), kernel.surrogate_gradient(), kernel.fisher_operator() @ v, kernel.evaluate(trial)
    for ours, theirs in zip(plain, masked, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["masked multicategorical", "masked bernoulli"])
def test_where_one_choice_is_left_there_is_nothing_to_learn(kind):
    s = Setting(kind)
    masks = s.oracle.chosen(s.actions) > 0
    kernel = s.bind(action_masks=masks, entropy_coefficient=1.0)
    assert not kernel.log_probs().any()
    assert not kernel.surrogate_gradient().any()
    assert not (kernel.fisher_operator() @ np.ones(kernel.size)).any()
    assert kernel.entropy() == 0.0
    assert kernel.evaluate(s.theta + 1.0) == (0.0, 0.0)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_outputs_that_are_not_finite_are_refused_in_acting_and_no_number_in_an_update(value, distribution):
    s = Setting(distribution)
    kernel = s.bind()
    trial = s.theta.copy()
    trial[-1] = value
    assert not np.isfinite(kernel.evaluate(trial)[0])
    s.bind(parameters=trial)
    assert np.isnan(kernel.ratios()).all()
    assert np.isnan(kernel.surrogate_gradient()).any()
    with pytest.raises(FloatingPointError, match="action of environment 0 is not finite"):
        Actor(kernel, trial).act(s.observations, 0, *outputs_for(s), action_masks=s.masks)


def test_a_subset_of_rows_computes_the_very_bits_of_those_rows(distribution):
    s = Setting(distribution)
    kernel = s.bind(total=50)
    rows = np.array([0, 3, 17, 39])
    part = kernel.subset(rows)
    np.testing.assert_array_equal(part.log_probs(), kernel.log_probs()[rows])
    everything = kernel.subset(np.arange(40)).fisher_operator()
    v = np.random.default_rng(0).normal(size=kernel.size)
    np.testing.assert_array_equal(everything @ v, kernel.fisher_operator() @ v)
    assert kernel.fisher_operator(rows) @ v == pytest.approx(part.fisher_operator() @ v, rel=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_entropy_coefficient_must_be_finite(value):
    with pytest.raises(ValueError, match="entropy_coefficient"):
        Setting().bind(entropy_coefficient=value)


def everything(kernel, trial, v):
    """All that a bound batch gives."""
    results = [kernel.log_probs(), kernel.ratios(), kernel.surrogate_gradient(), kernel.fisher_operator() @ v]
    return [r.tobytes() for r in results], kernel.evaluate(trial), kernel.evaluate(trial, "old_new"), kernel.entropy()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_beyond_the_budget_are_computed_again_to_the_same_bits(dtype, threads, distribution):
    setting = Setting(distribution, dtype, rows=5 * 96 + 7)
    rng = np.random.default_rng(1)
    v = rng.normal(size=setting.kernel.size).astype(dtype)
    trial = setting.theta + 0.01 * v
    count = get_num_threads()
    try:
        set_num_threads(threads)
        everything_kept = everything(setting.bind(), trial, v)
        for budget in (0, 1, 20_000, 50_000):
            assert everything(setting.bind(cache_bytes=budget), trial, v) == everything_kept
    finally:
        set_num_threads(count)


@pytest.mark.parametrize("activation", ["silu", "gelu", "softplus"])
def test_derivatives_that_are_kept_are_computed_again_to_the_same_bits_and_counted_as_memory(activation):
    setting = Setting(activation=activation, dtype=np.float32, widths=(5, 32, 16, 3), rows=5 * 96 + 7)
    v = np.random.default_rng(1).normal(size=setting.kernel.size).astype(np.float32)
    trial = setting.theta + 0.01 * v
    everything_kept = everything(setting.bind(), trial, v)
    kept = setting.kernel.memory
    for budget in (0, 50_000):
        assert everything(setting.bind(cache_bytes=budget), trial, v) == everything_kept
    plain = Setting(activation="tanh", dtype=np.float32, widths=(5, 32, 16, 3), rows=5 * 96 + 7).bind().memory
    # of the six tiles and of one scratch for each block's thread
    assert 6 * 96 * (32 + 16) * 4 <= kept - plain <= (6 + 32) * 96 * (32 + 16) * 4


def test_a_million_rows_take_the_memory_that_is_stated(distribution):
    few = Setting(distribution, np.float32, widths=(4, 16, 2), rows=1000)
    v = np.random.default_rng(1).normal(size=few.kernel.size).astype(np.float32)
    exact = few.oracle.fisher_product(few.theta, few.observations, v, masks=few.masks)
    many = Setting(distribution, np.float32, widths=(4, 16, 2), rows=1)
    many.observations, many.actions, many.advantages = (
        np.concatenate([array] * 1000) for array in (few.observations, few.actions, few.advantages)
    )
    many.masks = None if few.masks is None else np.concatenate([few.masks] * 1000)
    budget = 2**24
    product = many.bind(cache_bytes=budget).fisher_operator() @ v
    assert np.linalg.norm(product - exact) <= 1e-5 * np.linalg.norm(exact)
    per_row = 4 + 8 + 8 * (few.actions.size // 1000 if few.oracle.discrete else 0)
    assert many.kernel.memory <= budget + 1_000_000 * per_row + 2**20
    # In items a row: both widths rounded up to at most 16 items, the last twice where discrete
    assert many.bind().memory <= 1_000_000 * (4 * (32 + (16 if few.oracle.discrete else 0)) + per_row) + 2**20


def test_a_kernel_at_work_in_another_thread_gives_no_entropy_and_is_not_disturbed():
    """Where activations were not kept the entropy needs the work memory, as a product does."""
    setting = Setting("categorical", rows=20_000)
    kernel = setting.bind(cache_bytes=0)
    v = np.random.default_rng(1).normal(size=kernel.size)
    F = kernel.fisher_operator()
    refused_or_right({"product": lambda: (F @ v).tobytes(), "entropy": kernel.entropy}, 60)


def test_a_negative_budget_is_named():
    with pytest.raises(ValueError, match=r"cache_bytes: -1.* given; want >= 0"):
        Setting().bind(cache_bytes=-1)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("dimensions", [6, 300])
def test_the_improvement_of_a_small_step_does_not_drown_in_the_rounding_of_log_probabilities(dimensions, written):
    # log pi is about -1.4 a dimension: at 300, a float's last digit is a thousandth of what this step changes.
    rng, rows = np.random.default_rng(3), 200
    kernel = PolicyKernel((4, 8, dimensions), "tanh", "gaussian", np.float32)
    theta = (0.2 * rng.normal(size=kernel.size)).astype(np.float32)
    observations = rng.normal(size=(rows, 4)).astype(np.float32)
    advantages = rng.normal(size=rows).astype(np.float32)
    means = kernel.forward(theta, observations).astype(np.float64)
    deviations = np.exp(theta[:dimensions].astype(np.float64))
    actions = (means + deviations * rng.normal(size=means.shape)).astype(np.float32)
    trial = theta.copy()
    trial[1] += np.float32(2.0**-10)

    def log_probs(parameters):
        log_std = parameters[:dimensions].astype(np.float64)
        z = (actions.astype(np.float64) - means) * np.exp(-log_std)
        return (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)

    expected = np.mean(advantages.astype(np.float64) * np.expm1(log_probs(trial) - log_probs(theta)))
    kernel.bind(theta, observations, actions, advantages)
    if written:  # by a rollout, in the policy's precision
        kernel.bind(theta, observations, actions, advantages, kernel.log_probs())
    assert kernel.log_probs().dtype == np.float32
    np.testing.assert_array_equal(kernel.ratios(), 1)
    assert kernel.evaluate(theta) == (0, 0)
    assert kernel.evaluate(trial)[0] == pytest.approx(expected, rel=1e-9)


def test_log_probabilities_of_another_policy_are_the_denominators_as_they_were_given():
    rng = np.random.default_rng(4)
    kernel = PolicyKernel((3, 2), "tanh", "gaussian", np.float32)
    theta = rng.normal(size=kernel.size).astype(np.float32) / 4
    observations, actions = rng.normal(size=(2, 9, 3)).astype(np.float32)
    actions, advantages = actions[:, :2].copy(), rng.normal(size=9).astype(np.float32)
    kernel.bind(theta, observations, actions, advantages)
    own = kernel.log_probs()
    given = own + np.float32(0.25)
    kernel.bind(theta, observations, actions, advantages, given)
    np.testing.assert_array_equal(kernel.log_probs(), given)
    np.testing.assert_allclose(kernel.ratios(), np.exp(-0.25), rtol=1e-6)
    expected = np.mean(advantages * np.expm1(own.astype(np.float64) - given))
    assert kernel.evaluate(theta)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nvec", [(2,), (7,), (18,), (3, 4, 11), (5,) * 6], ids=str)
def test_no_rounding_of_probabilities_gives_the_fisher_matrix_negative_curvature(nvec, dtype):
    # One logit more for all choices of a component changes nothing: curvature that is exactly 0, where p, rounded,
    # adds up to more than 1.
    rng, logits = np.random.default_rng(5), sum(nvec)
    kernel = PolicyKernel((3, logits), "tanh", "multicategorical", dtype, nvec)
    epsilon = np.finfo(np.float64).eps
    component = np.zeros((len(nvec), kernel.size), dtype)
    for k, start in enumerate(np.cumsum((0, *nvec[:-1]))):
        component[k, 3 * logits + start : 3 * logits + start + nvec[k]] = 1
    for _ in range(50):
        theta = rng.normal(size=kernel.size).astype(dtype)
        observations, actions = rng.normal(size=(1, 3)).astype(dtype), np.zeros((1, len(nvec)), np.int64)
        kernel.bind(theta, observations, actions, np.ones(1, dtype))
        for v in (*component, component.sum(0)):
            assert v @ kernel.fisher_operator().matvec(v) >= -8 * epsilon


@pytest.mark.parametrize("hidden", [(), (16,)], ids=str)
def test_sums_over_a_million_rows_are_as_exact_for_a_bias_as_for_a_weight(hidden):
    # An input that is 1 everywhere has the gradient of the bias.
    rng, rows = np.random.default_rng(6), 1_000_000
    widths = (2, *hidden, 1)
    results = {}
    observations = np.stack([np.ones(rows), rng.normal(size=rows)], 1)
    actions, advantages = rng.normal(size=(rows, 1)) + 1, np.abs(rng.normal(size=rows)) + 0.5
    theta = rng.normal(size=PolicyKernel(widths, "tanh", "gaussian", np.float64).size) / 4
    v = rng.normal(size=theta.size)
    for dtype in (np.float32, np.float64):
        kernel = PolicyKernel(widths, "tanh", "gaussian", dtype)
        arrays = (array.astype(np.float32).astype(dtype) for array in (theta, observations, actions, advantages))
        kernel.bind(*arrays)
        product = kernel.fisher_operator() @ v.astype(np.float32).astype(dtype)
        results[dtype] = [array.astype(np.float64) for array in (kernel.surrogate_gradient(), product)]
    outputs = widths[1]
    for found, expected in zip(results[np.float32], results[np.float64], strict=True):
        error = np.abs(found - expected) / np.abs(expected).max()
        weights, biases = error[1 : 1 + 2 * outputs : 2], error[1 + 2 * outputs : 1 + 3 * outputs]
        assert biases.max() <= 3 * weights.max() + 3e-8
