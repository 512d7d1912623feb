"""Acting: both engines' actors, of one interface and with one noise."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Beta, Categorical, Independent, Normal

from tests import reference
from tests.engines.cases import KINDS, make_case
from trpo_fast.engines import make_engine

ROWS = 6


@pytest.fixture(params=["native", "autograd"])
def name(request):
    return request.param


def act(actor, observations, step=0, dtype=np.float64, actions=None, **settings):
    """(normalized, actions, log_probs, env_actions); `actions` is an empty array of the wanted kind."""
    rows = len(observations)
    actions = np.empty((rows, 3), dtype) if actions is None else actions
    normalized, log_probs = np.empty_like(observations, dtype), np.empty(rows, dtype)
    out = normalized, actions, log_probs, np.empty_like(actions)
    actor.act(observations, step, *out, **settings)
    return out


def choices():
    return np.empty(ROWS, np.int64)


def case_of(distribution="gaussian", dtype="float64"):
    return make_case(distribution, dtype=dtype, rows=ROWS)


def actor_of(case, name, space=None, **settings):
    return make_engine(case.policy, name).actor(case.policy.action_space if space is None else space, **settings)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gaussian_actions_carry_their_log_probabilities(dtype, name):
    case = case_of(dtype=dtype)
    normalized, actions, log_probs, env_actions = act(actor_of(case, name), case.observations, dtype=dtype)
    np.testing.assert_array_equal(normalized, case.observations)
    expected = case.oracle.log_prob(case.theta, case.observations, actions)
    np.testing.assert_allclose(log_probs, expected, rtol=case.tolerance, atol=case.tolerance)
    np.testing.assert_array_equal(env_actions, np.clip(actions, -1, 1))
    assert (np.abs(actions) > 1).any()


@pytest.mark.parametrize("action_map", ["affine", "clip"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_actions_are_mapped_for_the_environment_and_carry_the_log_probabilities_of_the_policys_own(
    dtype, action_map, name
):
    case = case_of(dtype=dtype)
    low, high = np.array([-40.0, 0.0, -0.5]), np.array([7.0, 1.0, 0.25])
    actor = actor_of(case, name, spaces.Box(low, high, dtype=np.float64), action_map=action_map)
    _, actions, log_probs, env_actions = act(actor, case.observations, dtype=dtype)
    plain = act(actor_of(case, name), case.observations, dtype=dtype)
    np.testing.assert_array_equal(actions, plain[1])
    np.testing.assert_array_equal(log_probs, plain[2])
    expected = reference.environment_action(actions, low, high, action_map)
    np.testing.assert_allclose(env_actions, expected, rtol=1e-14 if dtype == "float64" else 1e-6, atol=1e-7)


def test_an_action_that_overflows_under_a_map_ends_at_the_bound_without_a_warning(name):
    case = case_of()
    largest = np.finfo(np.float64).max
    actor = actor_of(case, name, spaces.Box(-largest, largest, (3,), np.float64), action_map="affine")
    _, actions, _, env_actions = act(actor, case.observations * 3)
    outside = abs(actions) > 1
    assert outside.any()
    np.testing.assert_array_equal(env_actions[outside], np.sign(actions[outside]) * largest)


def test_a_map_that_a_space_cannot_have_is_refused(name):
    with pytest.raises(ValueError, match=r"action_map: 'affine' given, but dimension 0 of .* goes from 0 to inf"):
        actor_of(case_of(), name, spaces.Box(0, np.inf, (3,)), action_map="affine")


def test_discrete_actions_carry_their_log_probabilities_and_start_where_the_space_does(name):
    case = case_of("categorical")
    actor = actor_of(case, name, spaces.Discrete(3, start=5))
    _, actions, log_probs, env_actions = act(actor, case.observations, actions=choices())
    np.testing.assert_allclose(log_probs, case.oracle.log_prob(case.theta, case.observations, actions), rtol=1e-12)
    np.testing.assert_array_equal(env_actions, actions + 5)


def test_deterministic_actions_are_the_mode(name):
    case = case_of()
    actions = act(actor_of(case, name), case.observations, deterministic=True)[1]
    np.testing.assert_allclose(actions, case.oracle.forward(case.theta, case.observations), rtol=1e-12)
    case = case_of("categorical")
    actions = act(actor_of(case, name), case.observations, actions=choices(), deterministic=True)[1]
    np.testing.assert_array_equal(actions, case.oracle.forward(case.theta, case.observations).argmax(-1))


def test_both_engines_draw_the_same_noise():
    case = case_of()
    native, autograd = (
        act(actor_of(case, name, seed=3, stream=4), case.observations, 9) for name in ("native", "autograd")
    )
    for ours, torchs in zip(native, autograd, strict=True):
        np.testing.assert_allclose(ours, torchs, rtol=1e-12, atol=1e-12)
    case = make_case("categorical", rows=200)
    native, autograd = (
        act(actor_of(case, name, seed=3), case.observations, 9, actions=np.empty(200, np.int64))[1]
        for name in ("native", "autograd")
    )
    np.testing.assert_array_equal(native, autograd)


def test_noise_is_keyed_by_seed_stream_step_and_row(name):
    case = case_of()
    case.observations[:] = case.observations[0]
    base = act(actor_of(case, name, seed=1, stream=2), case.observations, 3)[1]
    np.testing.assert_array_equal(base, act(actor_of(case, name, seed=1, stream=2), case.observations, 3)[1])
    assert len(np.unique(base)) == base.size
    for settings in ({"seed": 9, "stream": 2}, {"seed": 1, "stream": 9}):
        assert (act(actor_of(case, name, **settings), case.observations, 3)[1] != base).all()
    assert (act(actor_of(case, name, seed=1, stream=2), case.observations, 4)[1] != base).all()
    tail = act(actor_of(case, name, seed=1, stream=2), case.observations[4:], 3, first_row=4)[1]
    np.testing.assert_allclose(tail, base[4:], rtol=1e-13)


def test_noise_is_standard_normal(name):
    # 3 x 4000 draws: mean within 5 standard errors, variance too; fails by chance about once in a million.
    case = make_case(rows=4000)
    actions = act(actor_of(case, name, seed=11), case.observations)[1]
    noise = (actions - case.oracle.forward(case.theta, case.observations)) / np.exp(case.theta[:3])
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs((noise**2).mean() - 1) < 5 * np.sqrt(2 / noise.size)
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 5 / np.sqrt(4000)


def test_choices_come_with_their_probabilities(name):
    case = make_case("categorical", rows=4000)
    case.observations[:] = case.observations[0]
    actions = act(actor_of(case, name, seed=11), case.observations, actions=np.empty(4000, np.int64))[1]
    p = np.exp(case.oracle.log_prob(case.theta, case.observations[:3], np.arange(3)))
    # 5 standard errors: fails by chance about once in a million.
    assert (np.abs(np.bincount(actions, minlength=3) / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000)).all()


@pytest.mark.parametrize("raw", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_observations_are_normalized_and_clipped_with_live_statistics(dtype, raw, name):
    case = case_of(dtype=dtype)
    mean, scale = np.linspace(-1, 1, 7), np.linspace(0.5, 3, 7)
    actor = actor_of(case, name, observation_mean=mean, observation_scale=scale, observation_clip=1.5)
    observations = case.observations.astype(raw)
    for _ in range(2):
        normalized, actions, log_probs, _ = act(actor, observations, dtype=dtype)
        np.testing.assert_array_equal(normalized, np.clip((observations - mean) * scale, -1.5, 1.5).astype(dtype))
        expected = case.oracle.log_prob(case.theta, normalized, actions)
        np.testing.assert_allclose(log_probs, expected, rtol=case.tolerance, atol=case.tolerance)
        mean += 0.25
        scale *= 2.0


def test_actors_see_parameters_as_they_are_now(name):
    case = case_of()
    engine = make_engine(case.policy, name)
    actor = engine.actor(case.policy.action_space)
    act(actor, case.observations)
    engine.parameters()[:] *= 0.5
    actions = act(actor, case.observations, deterministic=True)[1]
    np.testing.assert_allclose(actions, case.oracle.forward(case.theta, case.observations), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_that_is_not_finite_is_named_by_row(value, name):
    case = case_of()
    case.observations[4, 1] = value
    with pytest.raises(FloatingPointError, match=r"observation.*4"):
        act(actor_of(case, name), case.observations)


def test_an_action_that_is_not_finite_is_named(name):
    case = case_of()
    actor = actor_of(case, name)
    case.policy.flat.numpy[-1] = np.inf
    with pytest.raises(FloatingPointError, match="action"):
        act(actor, case.observations)


def test_a_space_that_does_not_fit_the_policy_is_refused(name):
    case = case_of()
    for space in (spaces.Box(-1, 1, (4,)), spaces.Discrete(3), spaces.MultiBinary(3)):
        with pytest.raises(ValueError, match="action_space"):
            actor_of(case, name, space)


class StateDependent(nn.Module):
    def __init__(self, family):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(7, 6, dtype=torch.float64)
        self.family = family

    def forward(self, observations):
        return Independent(self.family(*self.layer(observations).exp().chunk(2, -1)), 1)


@pytest.mark.parametrize("family", [Normal, Beta])
def test_other_policies_draw_keyed_noise_too_and_leave_torchs_generator_alone(family):
    case, policy = case_of(), StateDependent(family)
    actor = make_engine(policy).actor(spaces.Box(0, 0.5, (3,)), seed=1)
    state = torch.get_rng_state()
    _, actions, log_probs, env_actions = act(actor, case.observations, 5)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(actions, act(actor, case.observations, 5)[1])
    assert (actions != act(actor, case.observations, 6)[1]).all()
    np.testing.assert_array_equal(env_actions, np.clip(actions, 0, 0.5))
    expected = policy(torch.from_numpy(case.observations)).log_prob(torch.from_numpy(actions))
    np.testing.assert_allclose(log_probs, expected.detach(), rtol=1e-12)


@pytest.mark.parametrize("statistics", [{}, {"observation_mean": np.zeros(7), "observation_scale": np.ones(7)}])
def test_an_observation_too_large_for_the_policys_dtype_is_named_by_row_without_a_warning(statistics, name, recwarn):
    case = case_of(dtype="float32")
    observations = case.observations.astype(np.float64)
    observations[4, 1] = 1e39
    with pytest.raises(FloatingPointError, match=r"observation.*4"):
        act(actor_of(case, name, **statistics), observations, dtype=np.float32)
    assert not recwarn.list


def test_actors_see_parameters_that_were_replaced_after_a_refresh(name):
    case = case_of()
    engine = make_engine(case.policy, name)
    actor = engine.actor(case.policy.action_space)
    case.policy.layers[-1].bias = nn.Parameter(case.policy.layers[-1].bias.detach() + 1)
    engine.refresh()
    actions = act(actor, case.observations, deterministic=True)[1]
    np.testing.assert_allclose(actions, case.oracle.forward(case.theta, case.observations), rtol=1e-12)
    np.testing.assert_array_equal(engine.parameters()[-3:], case.policy.layers[-1].bias.detach())


@pytest.mark.parametrize("change", [lambda policy: policy.float(), lambda policy: setattr(policy, "extra", new())])
def test_a_refresh_refuses_parameters_of_another_dtype_or_number(change, name):
    case = case_of()
    engine = make_engine(case.policy, name)
    change(case.policy)
    with pytest.raises(ValueError, match="make another engine"):
        engine.refresh()


def new():
    return nn.Parameter(torch.zeros(2, dtype=torch.float64))


def test_a_refresh_names_a_parameter_that_is_not_finite(name):
    case = case_of()
    engine = make_engine(case.policy, name)
    engine.parameters()[-1] = np.nan
    with pytest.raises(ValueError, match=r"'layers.2.bias' contains nan"):
        engine.refresh()


DISCRETE = [kind for kind in KINDS if kind != "gaussian" and "product" not in kind]


def act_discretely(case, name, **settings):
    shape = case.actions.shape
    actor = actor_of(case, name, seed=3)
    return act(actor, case.observations, 9, case.dtype, np.empty(shape, np.int64), action_masks=case.masks, **settings)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", DISCRETE)
def test_both_engines_choose_the_same_allowed_actions(kind, deterministic):
    case = make_case(kind, rows=200, outputs=5)
    native, autograd = (act_discretely(case, name, deterministic=deterministic) for name in ("native", "autograd"))
    for ours, torchs in zip(native, autograd, strict=True):
        np.testing.assert_allclose(ours, torchs, rtol=1e-10, atol=1e-12)
    _, actions, log_probs, env_actions = native
    expected = case.oracle.log_prob(case.theta, case.observations, actions, case.masks)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(env_actions, actions)
    if case.masks is not None:
        assert (case.masks | (case.oracle.chosen(actions) == 0)).all()
    if deterministic:
        log_p = case.oracle.log_p(case.oracle.forward(case.theta, case.observations), case.masks)
        modes = [block.argmax(-1) for block in np.split(log_p, np.cumsum(case.oracle.blocks)[:-1], -1)]
        np.testing.assert_array_equal(actions.reshape(200, -1), np.stack(modes, axis=1))


def test_every_component_starts_where_the_space_does(name):
    case = make_case("multicategorical", rows=ROWS, outputs=5)
    actor = actor_of(case, name, spaces.MultiDiscrete([3, 2], start=[-4, 10]))
    _, actions, _, env_actions = act(actor, case.observations, actions=np.empty((ROWS, 2), np.int64))
    np.testing.assert_array_equal(env_actions, actions + np.array([-4, 10]))


def test_a_space_of_other_components_does_not_fit(name):
    case = make_case("multicategorical", outputs=5)
    for space in (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([5]), spaces.Discrete(5), spaces.MultiBinary(5)):
        with pytest.raises(ValueError, match="action_space"):
            actor_of(case, name, space)


@pytest.mark.parametrize("kind", ["masked categorical", "masked multicategorical", "masked bernoulli"])
def test_acting_refuses_a_mask_that_forbids_everything_by_row(kind, name):
    case = make_case(kind, rows=ROWS, outputs=4)
    case.masks[4] = False
    with pytest.raises(ValueError, match=r"action_masks: .*4"):
        act_discretely(case, name)


@pytest.mark.parametrize("kind", ["categorical", "multicategorical", "bernoulli"])
def test_logits_that_are_not_finite_are_named(kind, name):
    case = make_case(kind, rows=ROWS)
    actor = actor_of(case, name)
    case.policy.flat.numpy[-1] = np.nan
    with pytest.raises(FloatingPointError, match="action"):
        act(actor, case.observations, actions=np.empty(case.actions.shape, np.int64))


class Restricted(nn.Module):
    """Masks itself, with logits of -inf, as many policies do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 6, dtype=torch.float64)

    def forward(self, observations):
        logits = self.layer(observations).unflatten(1, (2, 3))
        logits = torch.where(torch.tensor([True, False, True]), logits, -torch.inf)
        return Independent(Categorical(logits=logits), 1)


def test_choices_that_a_policy_itself_excludes_are_never_taken():
    case = make_case("multicategorical", rows=200, outputs=6)
    actor = make_engine(Restricted()).actor(spaces.MultiDiscrete([3, 3]))
    actions, log_probs = act(actor, case.observations, actions=np.empty((200, 2), np.int64))[1:3]
    assert set(actions.ravel().tolist()) == {0, 2}
    assert np.isfinite(log_probs).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deterministic": 10**5000}, "deterministic: .* given; want True or False"),
        ({"deterministic": np.ones(2)}, "deterministic: .* given; want True or False"),
        ({"step": -1}, "step: -1 given; want"),
        ({"step": "now"}, "step: 'now' given; want an integer"),
        ({"first_row": 2**32}, f"first_row: {2**32} given; want at most"),
        ({"action_masks": np.ones((ROWS, 3))}, "action_masks: float64 array .* given; want"),
        ({"action_masks": np.ones((ROWS, 4), bool)}, r"action_masks: .*4"),
        ({"actions": np.empty((ROWS, 2), np.int64)}, r"actions: .*\(6, 2\) given; want"),
    ],
)
def test_what_acting_cannot_take_is_named(settings, message, name):
    case = case_of("categorical")
    with pytest.raises((TypeError, ValueError), match=message):
        act(actor_of(case, name), case.observations, **({"actions": choices()} | settings))


def test_masks_may_be_read_only_and_one_row_may_run_backwards(name, recwarn):
    case = case_of("categorical")
    masks = np.eye(3, dtype=bool)[:1]
    masks.flags.writeable = False
    backwards = np.flip(np.empty((1, case.observations.shape[1])), 0)
    actions, log_probs = np.empty(1, np.int64), np.empty(1)
    actor = actor_of(case, name)
    actor.act(case.observations[:1], 0, backwards, actions, log_probs, actions.copy(), action_masks=masks)
    assert actions == [0] and log_probs == [0.0]
    assert not recwarn.list
