"""The compiled policy mathematics at its own boundary; tests/engines compares it with the oracle over a wider table."""

import threading

import numpy as np
import pytest

from tests import reference
from trpo_fast import get_num_threads, set_num_threads
from trpo_fast._core.acting import Actor, ActorCritic, gaussian_actions, sample
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
WIDTHS = (5, 16, 9, 3)


class Setting:
    """A kernel, its oracle, parameters and a batch of B = 40."""

    def __init__(self, kind="gaussian", dtype=np.float64, activation="tanh", widths=WIDTHS, rows=40):
        distribution, outputs = kind.removeprefix("masked "), widths[-1]
        nvec = (outputs - outputs // 3, *(1 for _ in range(outputs // 3)))  # some components of a single choice
        self.nvec = nvec if distribution == "multicategorical" else None
        self.kernel = PolicyKernel(widths, activation, distribution, dtype, self.nvec)
        self.oracle = reference.Policy(tuple(widths), activation, distribution, nvec)
        rng = np.random.default_rng(0)
        self.theta = (0.4 * rng.normal(size=self.oracle.size)).astype(dtype)
        self.observations = rng.normal(size=(rows, widths[0])).astype(dtype)
        self.actions, self.masks = rng.normal(size=(rows, widths[-1])).astype(dtype), None
        if self.oracle.discrete:
            self.actions = np.stack([rng.integers(0, n, rows) for n in self.oracle.blocks], axis=1)
        if distribution == "categorical":
            self.actions = self.actions[:, 0].copy()
        if kind.startswith("masked"):
            self.masks = (rng.random((rows, sum(self.oracle.blocks))) < 0.5) | (self.oracle.chosen(self.actions) > 0)
        self.advantages = rng.normal(size=rows).astype(dtype)

    @property
    def data(self):
        return self.observations, self.actions, self.advantages

    def bind(self, **replace):
        arguments = {
            "parameters": self.theta,
            "observations": self.observations,
            "actions": self.actions,
            "advantages": self.advantages,
            "action_masks": self.masks,
        }
        self.kernel.bind(**(arguments | replace))
        return self.kernel


@pytest.fixture(params=["gaussian", "categorical", "masked multicategorical", "masked bernoulli"])
def distribution(request):
    return request.param


def test_a_kernel_says_what_it_is(distribution):
    kernel = Setting(distribution, np.float32, "elu", [5, 16, 3]).kernel
    assert kernel.widths == (5, 16, 3)
    assert (kernel.activation, kernel.distribution) == ("elu", distribution.removeprefix("masked "))
    assert kernel.nvec == ((2, 1) if distribution == "masked multicategorical" else None)
    assert np.dtype(kernel.dtype) == np.float32
    assert kernel.size == 5 * 16 + 16 + 16 * 3 + 3 + (3 if distribution == "gaussian" else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "leaky_relu", "sigmoid"])
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
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "leaky_relu", "sigmoid"])
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
    for activation in ("tanh", "relu", "elu", "leaky_relu", "sigmoid"):
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
        (((5, 3), "gelu", "gaussian", np.float64), "activation.*gelu"),
        (((5, 3), "tanh", "beta", np.float64), "distribution.*beta"),
        (((5, 3), "tanh", "multicategorical", np.float64), "nvec.*None"),
        (((5, 3), "tanh", "multicategorical", np.float64, (2, 2)), r"nvec.*3 outputs.*\(2, 2\)"),
        (((5, 3), "tanh", "multicategorical", np.float64, (3, 0)), r"nvec.*\(3, 0\)"),
        (((5, 3), "tanh", "multicategorical", np.float64, ()), "nvec"),
        (((5, 3), "tanh", "multicategorical", np.float64, (1.5, 1.5)), "float"),
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


def spoiled(array, how):
    match how:
        case "short":
            return array[:-1].copy()
        case "narrow":
            return array[:, :-1].copy()
        case "flat":
            return array.ravel()
        case "empty":
            return array[:0].copy()
        case "matrix":
            return array[:, None].copy()
        case "other dtype":
            return array.astype(np.float32)
        case "strided":
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "list":
            return array.tolist()


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


@pytest.mark.parametrize("actions", [np.array([3] + [0] * 39), np.array([-1] + [0] * 39)])
def test_an_action_outside_the_choices_is_refused(actions):
    with pytest.raises(ValueError, match="actions"):
        Setting("categorical").bind(actions=actions)


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


def outputs_for(s, rows=40, **types):
    discrete, dtype, shape = s.oracle.discrete, s.theta.dtype, (rows, *s.actions.shape[1:])
    actions = np.empty(shape, np.int64 if discrete else dtype)
    env_actions = np.empty(shape, np.int64 if discrete else types.get("env", dtype))
    return np.empty((rows, 5), dtype), actions, np.empty(rows, dtype), env_actions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_acting_writes_the_very_log_probabilities_that_the_kernel_computes(dtype, distribution):
    s = Setting(distribution, dtype)
    out = normalized, actions, log_probs, _ = outputs_for(s)
    Actor(s.kernel, s.theta, seed=1).act(s.observations, 0, *out, action_masks=s.masks)
    np.testing.assert_array_equal(normalized, s.observations)
    np.testing.assert_array_equal(log_probs, s.bind(actions=actions).log_probs())
    s.bind(actions=actions, log_probs=log_probs)
    np.testing.assert_array_equal(s.kernel.ratios(), 1.0)
    assert s.kernel.evaluate(s.theta) == (0.0, 0.0)


@pytest.mark.parametrize("env", [np.float32, np.float64])
@pytest.mark.parametrize("raw", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actors_take_and_give_either_precision(dtype, raw, env):
    s = Setting(dtype=dtype)
    out = normalized, actions, _, env_actions = outputs_for(s, env=env)
    low, high = np.array([-0.5, -np.inf, -0.1]), np.array([0.25, np.inf, 0.1])
    actor = Actor(s.kernel, s.theta, action_low=low, action_high=high)
    actor.act(s.observations.astype(raw), 0, *out)
    np.testing.assert_array_equal(normalized, s.observations.astype(raw).astype(dtype))
    np.testing.assert_array_equal(env_actions, np.clip(actions.astype(np.float64), low, high).astype(env))


@pytest.mark.parametrize("env", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actors_map_what_goes_to_the_environment_and_nothing_else(dtype, env):
    s = Setting(dtype=dtype)
    low, high = np.array([0.0, 8.0, -0.1]), np.array([200.0, 40.0, 0.1])
    scale, offset = (high - low) / 2, (high + low) / 2
    plain, mapped = outputs_for(s, env=env), outputs_for(s, env=env)
    Actor(s.kernel, s.theta, seed=2).act(s.observations, 0, *plain)
    bounds = {"action_low": low, "action_high": high, "action_scale": scale, "action_offset": offset}
    Actor(s.kernel, s.theta, seed=2, **bounds).act(s.observations, 0, *mapped)
    for without, with_map in zip(plain[:3], mapped[:3], strict=True):
        assert without.tobytes() == with_map.tobytes()
    expected = reference.environment_action(mapped[1], low, high, "affine")
    np.testing.assert_allclose(mapped[3], expected, rtol=1e-15 if env == np.float64 else 6e-8, atol=1e-14)
    assert (abs(mapped[1]) < 1).mean() > 0.3 and (abs(mapped[1]) > 1).mean() > 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_a_map_an_action_inside_the_bounds_keeps_every_bit(dtype):
    kernel = PolicyKernel((1, 1), "tanh", "gaussian", dtype)
    values = np.array([-0.0, 0.0, np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).tiny, 1 / 3, -0.1, 2.0], dtype)
    for value in values:
        theta = np.array([0, value, 0], dtype)  # log_std, weight, bias
        out = np.empty((1, 1), dtype), np.empty((1, 1), dtype), np.empty(1, dtype), np.empty((1, 1), dtype)
        actor = Actor(kernel, theta, action_low=np.full(1, -2.0), action_high=np.full(1, 2.0))
        actor.act(np.ones((1, 1), dtype), 0, *out, deterministic=True)
        assert out[3].tobytes() == out[1].tobytes()
        assert out[1] == value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sample_is_what_the_actor_does(dtype, distribution):
    s = Setting(distribution, dtype)
    out = _, actions, log_probs, _ = outputs_for(s)
    Actor(s.kernel, s.theta, seed=7, stream=3).act(s.observations, 11, *out, first_row=5, action_masks=s.masks)
    forward = s.kernel.forward(s.theta, s.observations)
    log_std = s.theta[:3].copy() if distribution == "gaussian" else None
    drawn, their_log_probs = np.empty_like(actions), np.empty_like(log_probs)
    more = {"first_row": 5, "nvec": s.nvec, "action_masks": s.masks}
    sample(s.kernel.distribution, forward, log_std, 11, drawn, their_log_probs, seed=7, stream=3, **more)
    np.testing.assert_array_equal(drawn, actions)
    np.testing.assert_allclose(their_log_probs, log_probs, rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_acting_does_not_depend_on_how_the_rows_are_grouped(distribution):
    s = Setting(distribution)
    whole = outputs_for(s)
    actor = Actor(s.kernel, s.theta, seed=7)
    actor.act(s.observations, 2, *whole, action_masks=s.masks)
    for start in range(0, 40, 8):
        part = outputs_for(s, 8)
        masks = None if s.masks is None else s.masks[start : start + 8]
        actor.act(s.observations[start : start + 8], 2, *part, first_row=start, action_masks=masks)
        for ours, theirs in zip(part, whole, strict=True):
            np.testing.assert_array_equal(ours, theirs[start : start + 8])


@pytest.mark.parametrize(
    ("position", "how"),
    [
        (0, "short"),
        (0, "narrow"),
        (1, "short"),
        (1, "narrow"),
        (2, "short"),
        (3, "short"),
        (3, "narrow"),
        (2, "strided"),
    ],
)
def test_rollout_arrays_that_do_not_fit_are_refused(position, how):
    s = Setting()
    out = list(outputs_for(s))
    out[position] = spoiled(out[position], how)
    with pytest.raises((ValueError, TypeError), match=("normalized", "actions", "log_probs", "env_actions")[position]):
        Actor(s.kernel, s.theta).act(s.observations, 0, *out)


def test_read_only_rollout_arrays_are_refused():
    s = Setting()
    for position, name in enumerate(("normalized", "actions", "log_probs", "env_actions")):
        out = outputs_for(s)
        out[position].flags.writeable = False
        with pytest.raises((ValueError, TypeError), match=name):
            Actor(s.kernel, s.theta).act(s.observations, 0, *out)


def test_the_environments_actions_may_not_be_the_policys_own(distribution):
    # Clipping, or adding the start, would change the actions that the log-probabilities are of.
    s = Setting(distribution)
    normalized, actions, log_probs, _ = outputs_for(s)
    with pytest.raises(ValueError, match="env_actions: shares memory with actions"):
        Actor(s.kernel, s.theta).act(s.observations, 0, normalized, actions, log_probs, actions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation_mean": np.zeros(4), "observation_scale": np.ones(5)}, "observation_mean"),
        ({"observation_mean": np.zeros(5), "observation_scale": np.ones(5, np.float32)}, "observation_scale"),
        ({"observation_mean": np.zeros(5)}, "observation_scale"),
        ({"action_low": np.zeros(2), "action_high": np.ones(3)}, "action_low"),
        ({"action_low": np.zeros(3)}, "action_high"),
        ({"action_scale": np.zeros(2), "action_offset": np.zeros(3)}, "action_scale"),
        ({"action_scale": np.zeros(3), "action_offset": np.zeros(2)}, "action_offset"),
        ({"action_scale": np.zeros(3)}, "action_offset"),
    ],
)
def test_an_actor_that_cannot_be_is_refused_by_name(settings, message):
    s = Setting()
    with pytest.raises((ValueError, TypeError), match=message):
        Actor(s.kernel, s.theta, **settings)


def test_rows_that_are_not_finite_are_named():
    s = Setting()
    s.observations[13, 2] = np.nan
    with pytest.raises(FloatingPointError, match=r"observation.*13"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s))
    s = Setting()
    s.theta[-1] = np.inf
    with pytest.raises(FloatingPointError, match=r"action.*0"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s))


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


@pytest.mark.parametrize("value", [1e39, np.inf, np.nan])
def test_an_observation_too_large_for_the_policy_is_refused_by_row(value):
    kernel = PolicyKernel((2, 3), "tanh", "categorical", np.float32)
    actor = Actor(kernel, np.zeros(kernel.size, np.float32))
    observations = np.zeros((4, 2))
    observations[2, 1] = value
    outputs = np.empty((4, 2), np.float32), np.empty(4, np.int64), np.empty(4, np.float32), np.empty(4, np.int64)
    with pytest.raises(FloatingPointError, match="environment 2"):
        actor.act(observations, 0, *outputs)


def test_component_j_of_a_row_draws_with_its_jth_uniform_number():
    # All logits are equal: a draw says in which of n cells its number lies.
    s = Setting("multicategorical", widths=(5, 9), rows=400)
    s.kernel = PolicyKernel((5, 9), "tanh", "multicategorical", np.float64, (4, 5))
    one = PolicyKernel((5, 4), "tanh", "categorical", np.float64)
    several, single = np.empty((400, 2), np.int64), np.empty(400, np.int64)
    out = np.empty((400, 5)), several, np.empty(400), np.empty_like(several)
    Actor(s.kernel, np.zeros(s.kernel.size), seed=3).act(s.observations, 8, *out)
    out = np.empty((400, 5)), single, np.empty(400), np.empty_like(single)
    Actor(one, np.zeros(one.size), seed=3).act(s.observations, 8, *out)
    np.testing.assert_array_equal(several[:, 0], single)
    # 20 cells of 20 draws expected each; chi-square with 19 degrees of freedom is below 60 but once in 400,000.
    cells = np.bincount(several @ [5, 1], minlength=20)
    assert ((cells - 20) ** 2 / 20).sum() < 60


@pytest.mark.parametrize("kind", ["categorical", "multicategorical", "bernoulli"])
def test_choices_come_with_their_probabilities_over_the_allowed_ones(kind):
    s = Setting("masked " + kind, rows=4000)
    s.observations[:], s.masks[:] = s.observations[0], s.masks[0]
    out = _, actions, log_probs, _ = outputs_for(s, 4000)
    Actor(s.kernel, s.theta, seed=11).act(s.observations, 0, *out, action_masks=s.masks)
    p = np.exp(s.oracle.log_p(s.oracle.forward(s.theta, s.observations[:1]), s.masks[:1]))[0]
    taken = s.oracle.chosen(actions).mean(0)
    assert not taken[~s.masks[0]].any()
    # 5 standard errors: fails by chance about once in a million.
    assert (np.abs(taken - p) <= 5 * np.sqrt(p * (1 - p) / 4000) + 1e-12).all()
    expected = s.oracle.log_prob(s.theta, s.observations, actions, s.masks)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-12, atol=1e-13)
    Actor(s.kernel, s.theta).act(s.observations, 0, *out, deterministic=True, action_masks=s.masks)
    np.testing.assert_array_equal(
        s.oracle.chosen(actions)[0],
        np.concatenate(
            [
                np.arange(n) == np.argmax(q)
                for n, q in zip(s.oracle.blocks, np.split(p, np.cumsum(s.oracle.blocks)[:-1]), strict=True)
            ]
        ),
    )


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.masks.__setitem__((7, slice(2, 4)), False),
            "action_masks: row 7, component 1 forbids every choice",
        ),
        (lambda s: s.actions.__setitem__((9, 1), 2), "actions: row 9, component 1 holds 2; wanted 0 to 1"),
        (lambda s: s.actions.__setitem__((9, 1), -1), "actions: row 9, component 1 holds -1; wanted 0 to 1"),
        (
            lambda s: s.masks.__setitem__((3, slice(0, 2)), np.arange(2) != s.actions[3, 0]),
            r"actions: row 3, component 0 holds \d, which its mask forbids",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_named_by_row_and_component(change, message):
    s = Setting("masked bernoulli")
    change(s)
    with pytest.raises(ValueError, match=message):
        s.bind()


def test_acting_names_a_mask_that_forbids_everything_by_its_environment():
    s = Setting("masked multicategorical")
    s.masks[13, 2] = False
    with pytest.raises(ValueError, match="action_masks: row 113, component 1 forbids every choice"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s), first_row=100, action_masks=s.masks)


@pytest.mark.parametrize("masks", [np.ones((40, 4), bool), np.ones((40, 3), np.uint8), np.ones((39, 3), bool), [True]])
def test_masks_that_do_not_fit_are_named(masks):
    s = Setting("categorical")
    with pytest.raises((ValueError, TypeError), match="action_masks"):
        s.bind(action_masks=masks)
    with pytest.raises((ValueError, TypeError), match="action_masks"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s), action_masks=masks)
    with pytest.raises(ValueError, match="action_masks: a gaussian policy takes none"):
        Setting().bind(action_masks=np.ones((40, 3), bool))


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 44.0), (np.float32, -1000.0), (np.float64, 1000.0)])
def test_a_log_std_that_overflows_is_named_and_never_becomes_nan(dtype, value):
    s = Setting(dtype=dtype)
    before = s.theta.copy()
    s.theta[1] = value
    with pytest.raises(ValueError, match=f"log_std: item 1 is {value}; wanted -"):
        s.bind()
    with pytest.raises(ValueError, match=f"log_std: item 1 is {value}; wanted -"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s))
    improvement, kl = s.bind(parameters=before).evaluate(s.theta)
    assert not (improvement > 0 and kl <= 0.01)
    s.theta[1] = np.copysign(43.0 if dtype == np.float32 else 354.0, value)
    s.actions = s.kernel.forward(s.theta, s.observations)
    s.bind()
    assert np.isfinite(s.kernel.surrogate_gradient()).all()
    assert np.isfinite(s.kernel.fisher_operator() @ np.ones(s.kernel.size, dtype)).all()


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
    per_row = 2 * 4 + 8 * (few.actions.size // 1000 if few.oracle.discrete else 0)
    assert many.kernel.memory <= budget + 1_000_000 * per_row + 2**20
    # In items a row: both widths rounded up to at most 16 items, the last twice where discrete
    assert many.bind().memory <= 1_000_000 * (4 * (32 + (16 if few.oracle.discrete else 0)) + per_row) + 2**20


def test_a_kernel_at_work_in_another_thread_gives_no_entropy_and_is_not_disturbed():
    """Where activations were not kept the entropy needs the work memory, as a product does."""
    setting = Setting("categorical", rows=20_000)
    kernel = setting.bind(cache_bytes=0)
    v = np.random.default_rng(1).normal(size=kernel.size)
    F, entropy, wrong, refused = kernel.fisher_operator(), kernel.entropy(), [], []
    product = (F @ v).tobytes()

    def repeat(work, expected):
        for _ in range(60):
            try:
                if work() != expected:
                    wrong.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    workers = [
        threading.Thread(target=repeat, args=arguments)
        for arguments in ((lambda: (F @ v).tobytes(), product), (kernel.entropy, entropy))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong
    assert all("another thread" in text for text in refused)


def test_an_actor_that_could_not_be_made_does_not_act():
    s = Setting()
    actor = Actor.__new__(Actor)
    with pytest.raises(ValueError, match="parameters"):
        actor.__init__(s.kernel, s.theta[:-1].copy())
    with pytest.raises(TypeError, match="not initialized"):
        actor.act(s.observations, 0, *outputs_for(s))


def test_a_negative_budget_is_named():
    with pytest.raises(ValueError, match="cache_bytes: wanted >= 0, got -1"):
        Setting().bind(cache_bytes=-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gaussian_actions_are_mean_and_scaled_noise_with_the_kernels_log_probabilities(dtype):
    s = Setting(dtype=dtype)
    means, log_std = s.kernel.forward(s.theta, s.observations), s.theta[:3].copy()
    noise = np.random.default_rng(3).normal(size=means.shape).astype(dtype)
    actions = noise.copy()
    log_probs = gaussian_actions(means, log_std, actions)
    std = np.exp(log_std.astype(np.float64))
    np.testing.assert_allclose(actions, means + noise * std, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    np.testing.assert_array_equal(log_probs, s.bind(actions=actions).log_probs())


def test_gaussian_actions_refuse_what_does_not_fit_by_name():
    means, log_std, noise = np.zeros((4, 3)), np.zeros(3), np.zeros((4, 3))
    with pytest.raises(ValueError, match="log_std"):
        gaussian_actions(means, log_std[:2], noise)
    with pytest.raises(ValueError, match="noise"):
        gaussian_actions(means, log_std, noise[:3])
    with pytest.raises(TypeError, match="noise"):
        gaussian_actions(means, log_std, noise.astype(np.float32))
    with pytest.raises(ValueError, match="noise"):
        gaussian_actions(means, log_std, means)
    with pytest.raises(ValueError, match="log_std: item 1 is 400"):
        gaussian_actions(means, np.array([0.0, 400.0, 0.0]), noise)
    with pytest.raises(ValueError, match="means: wanted 1 to"):
        gaussian_actions(np.zeros((4, 0)), np.zeros(0), np.zeros((4, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actor_and_critic_give_what_their_kernels_give_at_the_parameters_of_now(dtype, distribution):
    s = Setting(distribution, dtype)
    critic = ValueKernel((s.kernel.widths[0], 9, 1), "relu", dtype)
    phi = np.random.default_rng(4).normal(size=critic.size).astype(dtype)
    both = ActorCritic(s.kernel, s.theta, critic, phi)
    for change in (lambda: None, lambda: s.theta.__imul__(0.5), lambda: phi.__imul__(-2.0)):
        change()
        outputs, values = both.forward(s.observations)
        np.testing.assert_array_equal(outputs, s.kernel.forward(s.theta, s.observations))
        np.testing.assert_array_equal(values, critic.values(phi, s.observations))


def test_actor_and_critic_give_nothing_where_there_is_no_distribution(distribution):
    s = Setting(distribution, np.float32)
    critic = ValueKernel((s.kernel.widths[0], 1), "tanh", np.float32)
    both = ActorCritic(s.kernel, s.theta, critic, np.zeros(critic.size, np.float32))
    assert both.forward(s.observations) is not None
    at = -1
    for value in (np.nan, np.inf):
        kept, s.theta[at] = s.theta[at], value
        assert both.forward(s.observations) is None
        s.theta[at] = kept
    if distribution == "gaussian":
        s.theta[1] = 44.0
        assert both.forward(s.observations) is None


def test_actor_and_critic_refuse_what_does_not_fit_by_name():
    s = Setting(dtype=np.float32)
    inputs = s.kernel.widths[0]
    critic = ValueKernel((inputs, 1), "tanh", np.float32)
    phi = np.zeros(critic.size, np.float32)
    with pytest.raises(ValueError, match="critic: wanted"):
        ActorCritic(s.kernel, s.theta, ValueKernel((inputs + 1, 1), "tanh", np.float32), phi)
    with pytest.raises(ValueError, match="critic: wanted"):
        ActorCritic(s.kernel, s.theta, ValueKernel((inputs, 1), "tanh", np.float64), phi)
    with pytest.raises(ValueError, match="parameters"):
        ActorCritic(s.kernel, s.theta[1:], critic, phi)
    with pytest.raises(ValueError, match="critic_parameters"):
        ActorCritic(s.kernel, s.theta, critic, phi[1:])
    with pytest.raises(ValueError, match="observations"):
        ActorCritic(s.kernel, s.theta, critic, phi).forward(s.observations[:, 1:].copy())
