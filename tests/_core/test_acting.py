"""Acting with compiled policies: what is written, for which noise, and what is refused."""

import numpy as np
import pytest

from tests import reference
from tests._core.policies import Setting, outputs_for, spoiled
from trpo_fast._core.acting import Actor, ActorCritic, gaussian_actions, sample
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_the_log_probability_of_an_action_is_the_one_that_binding_computes_to_the_bit(activation, dtype, distribution):
    """Binding computes derivatives, too, where they are kept; acting does not."""
    s = Setting(distribution, dtype, activation, (5, 33, 16, 3), rows=101)
    out = normalized, actions, log_probs, _ = outputs_for(s, 101)
    Actor(s.kernel, s.theta, seed=7).act(s.observations, 0, *out, action_masks=s.masks)
    s.bind(observations=normalized, actions=actions, log_probs=log_probs)
    np.testing.assert_array_equal(s.kernel.ratios(), np.ones(101, dtype))


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
        (
            {"action_low": np.ones(3), "action_high": np.array([1.0, 2.0, 0.0])},
            "action_low: .* given at 2; want at most 0",
        ),
        ({"action_low": np.full(3, np.nan), "action_high": np.ones(3)}, "action_low: .* given at .*; want at most"),
        ({"action_scale": np.full(3, np.nan), "action_offset": np.zeros(3)}, "action_scale: .*not finite"),
        ({"observation_mean": np.zeros(5), "observation_scale": np.full(5, np.nan)}, "observation_scale: .*not finite"),
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


def test_an_actor_that_could_not_be_made_does_not_act():
    s = Setting()
    actor = Actor.__new__(Actor)
    with pytest.raises(ValueError, match="parameters"):
        actor.__init__(s.kernel, s.theta[:-1].copy())
    with pytest.raises(TypeError, match="not initialized"):
        actor.act(s.observations, 0, *outputs_for(s))


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
    with pytest.raises(ValueError, match=r"means: .*want 1 to"):
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
    with pytest.raises(
        ValueError, match=f"critic: {inputs + 1} inputs in float32 given; want {inputs} inputs in float32"
    ):
        ActorCritic(s.kernel, s.theta, ValueKernel((inputs + 1, 1), "tanh", np.float32), phi)
    with pytest.raises(ValueError, match=f"critic: {inputs} inputs in float64 given; want {inputs} inputs in float32"):
        ActorCritic(s.kernel, s.theta, ValueKernel((inputs, 1), "tanh", np.float64), phi)
    with pytest.raises(ValueError, match="parameters"):
        ActorCritic(s.kernel, s.theta[1:], critic, phi)
    with pytest.raises(ValueError, match="critic_parameters"):
        ActorCritic(s.kernel, s.theta, critic, phi[1:])
    with pytest.raises(ValueError, match="observations"):
        ActorCritic(s.kernel, s.theta, critic, phi).forward(s.observations[:, 1:].copy())
