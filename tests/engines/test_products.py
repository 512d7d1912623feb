"""Products of several distributions: acting in both engines, and modules of a user's own that return one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Beta, Categorical, Independent, Laplace, Normal

from tests.engines.cases import make_case
from trpo_fast.engines import make_engine
from trpo_fast.policies import MLPPolicy, Product
from trpo_fast.policies.distributions import with_masks
from trpo_fast.policies.squashed import SquashedNormal
from trpo_fast.rollout.batch import Batch

ROWS = 200


@pytest.fixture(params=["native", "autograd"])
def name(request):
    return request.param


def act(engine, space, observations, width, masks=None, step=9, seed=3, dtype=np.float64, **settings):
    """(actions, log_probs, env_actions)."""
    rows = len(observations)
    options = {"action_map": settings.pop("action_map", "clip")}
    actions, log_probs = np.empty((rows, width), dtype), np.empty(rows, dtype)
    env_actions, normalized = np.empty((rows, width)), np.empty_like(observations, dtype)
    actor = engine.actor(space, seed=seed, stream=1, **options)
    actor.act(observations, step, normalized, actions, log_probs, env_actions, action_masks=masks, **settings)
    return actions, log_probs, env_actions


def act_in(case, name, **settings):
    engine = make_engine(case.policy, name)
    width = case.actions.shape[1]
    return act(engine, case.policy.action_space, case.observations, width, case.masks, dtype=case.dtype, **settings)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", ["product", "masked product"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_engines_choose_the_same_allowed_actions(dtype, kind, deterministic):
    case = make_case(kind, rows=ROWS, outputs=9, dtype=dtype)
    native, autograd = (act_in(case, name, deterministic=deterministic) for name in ("native", "autograd"))
    for ours, torchs in zip(native, autograd, strict=True):
        np.testing.assert_allclose(ours, torchs, rtol=10 * case.tolerance, atol=10 * case.tolerance)
    actions, log_probs, env_actions = native
    expected = case.oracle.log_prob(case.theta, case.observations, actions, case.masks)
    np.testing.assert_allclose(log_probs, expected, rtol=case.tolerance, atol=10 * case.tolerance)
    if case.masks is not None:
        assert (case.masks | (case.oracle.chosen(actions) == 0)).all()
    is_number = np.concatenate([np.full(part.shape, part.low is not None).ravel() for part in case.policy.action_parts])
    np.testing.assert_array_equal(env_actions[:, is_number], np.clip(actions[:, is_number], -1, 1))
    np.testing.assert_array_equal(env_actions[:, ~is_number], actions[:, ~is_number])
    assert (actions[:, ~is_number] == np.rint(actions[:, ~is_number])).all()
    if deterministic:
        mean = case.oracle.forward(case.theta, case.observations)
        np.testing.assert_allclose(actions[:, is_number][:, 0], mean[:, 6], rtol=case.tolerance, atol=case.tolerance)


def test_draws_have_the_distributions_of_their_parts_and_know_nothing_of_each_other(name):
    rows = 20_000
    space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-9, 9, (3,)), spaces.MultiBinary(2), spaces.Box(-9, 9, (1,))])
    policy = MLPPolicy(spaces.Box(-1, 1, (2,)), space, (4,), dtype="float64", seed=0)
    actions, _, _ = act(make_engine(policy, name), space, np.zeros((rows, 2)), 7)
    numbers = actions[:, [1, 2, 3, 6]]
    # standard errors at this many rows are 0.007 at most: five of them, one failure in a million
    np.testing.assert_allclose(numbers.mean(0), 0, atol=0.036)
    np.testing.assert_allclose(numbers.std(0), 1, atol=0.026)
    np.testing.assert_allclose([(actions[:, 0] == choice).mean() for choice in range(3)], 1 / 3, atol=0.017)
    np.testing.assert_allclose(actions[:, 4:6].mean(0), 0.5, atol=0.018)
    correlations = np.corrcoef(np.hstack([actions, numbers**2]).T) - np.eye(11)
    assert abs(correlations).max() < 0.036  # 55 of them


def test_noise_is_the_same_whatever_rows_are_beside(name):
    case = make_case("masked product", rows=50, outputs=9)
    whole, _, _ = act_in(case, name)
    engine, masks = make_engine(case.policy, name), case.masks
    space = case.policy.action_space
    pieces = [
        act(engine, space, case.observations[i : i + 7], 6, masks[i : i + 7], first_row=i)[0] for i in range(0, 50, 7)
    ]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-12, atol=1e-12)


def test_every_box_of_a_product_has_its_own_map(name):
    space = spaces.Dict(a=spaces.Box(0, 200, (2,)), b=spaces.Discrete(2, start=7), c=spaces.Box(-1, 1, (1,)))
    policy = MLPPolicy(spaces.Box(-1, 1, (2,)), space, (4,), dtype="float64", seed=0)
    actions, _, env_actions = act(make_engine(policy, name), space, np.zeros((500, 2)), 4, action_map="auto")
    expected = np.hstack([np.clip(100 * actions[:, :2] + 100, 0, 200), actions[:, 2:3], np.clip(actions[:, 3:], -1, 1)])
    np.testing.assert_allclose(env_actions, expected, rtol=1e-13)


@pytest.mark.parametrize(("column", "value", "last"), [(0, 3.0, 2), (0, -1.0, 2), (0, 0.5, 2), (1, 2.0, 1)])
def test_actions_that_are_not_choices_are_refused_with_their_part(column, value, last, name):
    case = make_case("product", outputs=5)
    case.actions[17, column] = value
    with pytest.raises(ValueError, match=rf"actions: .*part {column}.*; want 0 to {last}") as raised:
        make_engine(case.policy, name).bind(case.batch())
    assert "17" in str(raised.value) and f"{value:g}" in str(raised.value)


def test_a_space_of_other_parts_does_not_fit(name):
    policy = MLPPolicy(spaces.Box(-1, 1, (2,)), spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]))
    for other in (
        spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3)]),
        spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (3,))]),
        spaces.Box(-1, 1, (5,)),
        spaces.Discrete(5),
    ):
        with pytest.raises(ValueError, match="action_space"):
            make_engine(policy, name if name == "native" else "auto").actor(other)


class Own(nn.Module):
    """A choice, numbers whose scale depends on the state, and a Beta."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(4, 3 + 4 + 2, dtype=torch.float64)

    def forward(self, observations):
        logits, mean, log_std, shapes = self.out(observations).split([3, 2, 2, 2], 1)
        beta = Beta(*(1 + shapes.exp()).unbind(1))
        return Product([Categorical(logits=logits), Independent(Normal(mean, log_std.exp()), 1), beta])


def test_a_product_with_a_part_of_torchs_own_has_the_hessian_of_its_kl():
    module = Own()
    engine = make_engine(module)
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(30, 4))
    space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.Box(0, 1, ())])
    actions, log_probs, _ = act(engine, space, observations, 4)
    again, _, _ = act(engine, space, observations, 4)
    np.testing.assert_array_equal(actions, again)
    with torch.no_grad():
        expected = module(torch.from_numpy(observations)).log_prob(torch.from_numpy(actions))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-12)
    engine.bind(Batch(observations, actions, rng.normal(size=30)))
    v = rng.normal(size=engine.size)
    curvature = v @ (engine.fisher_operator() @ v)
    step = 1e-4 / np.linalg.norm(v)
    kl = 0.0
    for sign in (1, -1):
        engine.parameters()[:] += sign * step * v
        engine.parameters_changed()
        kl += engine.evaluate()[1] / 2
        engine.parameters()[:] -= sign * step * v
    assert kl == pytest.approx(0.5 * step**2 * curvature, rel=1e-3)
    with pytest.raises(ValueError, match=r"deterministic: True.*whose mode torch does not know"):
        act(make_engine(Bare()), space, observations, 4, deterministic=True)


class Bare(Own):
    def forward(self, observations):
        whole = super().forward(observations)
        return Product([*whole.parts[:2], Modeless(*whole.parts[2].concentration1.expand(2, -1))])


class Modeless(Beta):
    @property
    def mode(self):
        raise NotImplementedError


class Alike(nn.Module):
    """Seven numbers of median 0, three of them torch's own to draw and three in a product within the product."""

    def __init__(self):
        super().__init__()
        self.location = nn.Parameter(torch.zeros(7, dtype=torch.float64))

    def forward(self, observations):
        locations = (self.location + 0 * observations[:, :1]).unsqueeze(-1).unbind(1)
        one, side = torch.ones_like(locations[0]), torch.ones(1, dtype=torch.float64)
        laplace = [Independent(Laplace(at, one), 1) for at in locations[:3]]
        squashed = [SquashedNormal(at, one, -side, side) for at in locations[3:5]]
        normal = [Independent(Normal(at, one), 1) for at in locations[5:]]
        inner = Product([laplace[2], squashed[1], normal[1]])
        return Product([laplace[0], squashed[0], inner, laplace[1], normal[0]])


def test_no_two_parts_share_their_noise():
    rows, space = 20_000, spaces.Tuple([spaces.Box(-9, 9, ())] * 7)
    engine = make_engine(Alike())
    actions, log_probs, _ = act(engine, space, np.zeros((rows, 4)), 7)
    correlations = np.corrcoef(np.hstack([actions, abs(actions)]).T).reshape(2, 7, 2, 7)
    of_others = correlations.transpose(1, 3, 0, 2)[~np.eye(7, dtype=bool)]
    assert abs(of_others).max() < 0.036  # five standard errors
    with torch.no_grad():
        expected = Alike()(torch.zeros(rows, 4)).log_prob(torch.from_numpy(actions))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-12)
    modes, _, _ = act(engine, space, np.zeros((3, 4)), 7, deterministic=True)
    assert not modes.any()


def test_a_product_within_a_product_is_masked_as_its_parts():
    logits = torch.zeros(2, 3)
    nested = Product([Product([Categorical(logits=logits)]), Categorical(logits=logits)])
    masks = torch.tensor([[True, False, False, False, True, False]] * 2)
    np.testing.assert_array_equal(with_masks(nested, masks).sample(), [[0, 1]] * 2)


@pytest.mark.parametrize("rows", [1, 70])
def test_products_of_more_outputs_than_the_compiled_sampler_takes_act(rows):
    parts = [spaces.Box(-9, 9, (3,)), spaces.Discrete(5000), spaces.MultiBinary(2), spaces.Box(-9, 9, ())]
    parts.append(spaces.Discrete(5000))
    space = spaces.Tuple(parts)
    policy = MLPPolicy(spaces.Box(-1, 1, (4,)), space, (4,), dtype="float64", seed=0)
    observations, masks = np.zeros((rows, 4)), np.ones((rows, 10_004), np.bool_)
    masks[:, 100:5000] = False
    engine = make_engine(policy)
    actions, log_probs, _ = act(engine, space, observations, 8, masks)
    with torch.no_grad():
        restricted = with_masks(policy(torch.from_numpy(observations)), torch.from_numpy(masks))
        np.testing.assert_allclose(log_probs, restricted.log_prob(torch.from_numpy(actions)), rtol=1e-10)
    assert (actions[:, 3] < 100).all() and np.isin(actions[:, 4:6], [0, 1]).all()
    alone = [act(engine, space, observations[:1], 8, masks[:1], first_row=i)[0][0] for i in range(rows)]
    np.testing.assert_array_equal(actions, alone)
    if rows > 1:
        numbers = np.hstack([actions[:, [0, 1, 2, 6]], actions[:, [3, 7]]])
        assert abs(np.corrcoef(numbers.T) - np.eye(6)).max() < 0.6  # five standard errors
    best, _, _ = act(engine, space, observations, 8, masks, deterministic=True)
    assert not best[:, [0, 1, 2, 6]].any()
    np.testing.assert_array_equal(best, best[:1].repeat(rows, 0))
