import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import AffineTransform, Beta, Independent, Normal, TanhTransform, TransformedDistribution

from trpo_fast import TRPO, MLPPolicy
from trpo_fast.engines import make_engine
from trpo_fast.policies.distributions import sample_inside
from trpo_fast.policies.squashed import SquashedNormal

LOW, HIGH = torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 5.0], dtype=torch.float64)


def squashed(scale, dtype=torch.float64):
    loc = torch.tensor([[0.3, -0.2], [1.5, 0.0]], dtype=dtype)
    return SquashedNormal(loc, torch.full_like(loc, scale), LOW.to(dtype), HIGH.to(dtype))


def test_inside_the_box_the_density_is_that_of_the_transformed_normal():
    ours = squashed(0.7)
    affine = AffineTransform((HIGH + LOW) / 2, (HIGH - LOW) / 2)
    torchs = Independent(TransformedDistribution(Normal(ours.loc, ours.scale), [TanhTransform(), affine]), 1)
    values = torch.tensor([[0.1, 4.0], [-0.99, 0.01]], dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(values), torchs.log_prob(values), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.5, 4.5, 100.0])
def test_density_and_atoms_add_up_to_one(scale, dtype):
    ours = squashed(scale, dtype)
    one = SquashedNormal(ours.loc[:1, :1], ours.scale[:1, :1], ours.low[:1], ours.high[:1])
    # The density by the trapezoidal rule over z, tanh(z) being the action.
    z = (
        torch.linspace(-6.9, 6.9, 40_001, dtype=dtype)
        if dtype == torch.float32
        else torch.linspace(-14.2, 14.2, 200_001)
    )
    z = z.to(torch.float64)
    t = torch.tanh(z).to(dtype).view(-1, 1, 1)
    inside = one.log_prob(t).exp().double().flatten() * (1 - torch.tanh(z) ** 2)
    atoms = one.log_prob(torch.tensor([[[-1.0]], [[1.0]]], dtype=dtype)).exp().sum()
    assert float(torch.trapezoid(inside, z) + atoms) == pytest.approx(1.0, abs=2e-2 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("log_std", [-14.0, -10.0, -8.0])
def test_small_deviations_have_finite_gradients_everywhere(log_std):
    loc = torch.linspace(-2, 2, 1_001)[:, None].requires_grad_()
    size = torch.tensor([log_std]).requires_grad_()
    one = SquashedNormal(loc, size.exp(), torch.tensor([-2.0]), torch.tensor([2.0]))
    torch.manual_seed(0)
    slopes = torch.autograd.grad(one.log_prob(one.sample()).sum(), (loc, size))
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.01, 4.5, 1e4])
def test_every_sample_has_a_finite_log_probability_with_finite_gradients(scale, dtype):
    ours = squashed(scale, dtype)
    torch.manual_seed(0)
    samples = ours.sample((2_000,))
    assert (samples >= ours.low).all()
    assert (samples <= ours.high).all()
    if scale > 1:
        assert (samples == ours.high).any()
        assert (samples == ours.low).any()
    loc, size = ours.loc.clone().requires_grad_(), ours.scale.clone().requires_grad_()
    log_probs = SquashedNormal(loc, size, ours.low, ours.high).log_prob(samples)
    assert log_probs.isfinite().all()
    assert all(part.isfinite().all() for part in torch.autograd.grad(log_probs.sum(), [loc, size]))


def test_the_share_of_samples_at_a_side_is_its_probability():
    ours = squashed(9.0, torch.float32)
    torch.manual_seed(0)
    at_high = (ours.sample((100_000,)) == ours.high).float().mean(0)
    other = torch.zeros(2, 2)
    both = ours.log_prob(torch.where(torch.eye(2, dtype=torch.bool), ours.high, other))
    assert both.isfinite().all()
    expected = torch.special.log_ndtr((ours.loc - np.arctanh(1 - 2.0**-19)) / ours.scale).exp()
    torch.testing.assert_close(at_high, expected, atol=5e-3, rtol=0)


FAR = [(1000.0, 1200.0, torch.float32), (-1e6, -8e5, torch.float32), (1000.0, 1000.0 + 1e-6, torch.float64)]


@pytest.mark.parametrize(("low", "high", "dtype"), FAR)
def test_far_from_zero_too_just_the_probability_of_a_side_ends_there(low, high, dtype):
    rows = 200_000
    zeros, sides = torch.zeros(rows, 1, dtype=dtype), torch.tensor([[low], [high]], dtype=dtype)
    ours = SquashedNormal(zeros, zeros + 4.5, *sides)
    torch.manual_seed(0)
    samples = ours.sample()
    both = SquashedNormal(zeros[:2], zeros[:2] + 4.5, *sides).log_prob(sides).exp()
    shares = torch.stack([(samples == side).to(dtype).mean() for side in sides])
    # Standard errors are at most 0.0008.
    torch.testing.assert_close(shares, both, atol=4e-3, rtol=0)
    assert (samples >= sides[0]).all() and (samples <= sides[1]).all()
    # The rest is the density's: its integral by the midpoint rule over z, up to the last z on either side.
    z = torch.linspace(-20, 20, rows, dtype=torch.float64)
    values = ours.squash(z.to(dtype)[:, None])
    inside = ((values != sides[0]) & (values != sides[1])).flatten()
    slope = (high - low) / 2 / torch.cosh(z).square()
    mass = float((ours.log_prob(values).double().exp() * slope)[inside].sum() * 40 / (rows - 1))
    assert mass + float(both.sum()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(3, 3, "float64"), (0, 0, "float32"), (1000, 1001, "float32"), (1e9, 1e9 + 0.1, "float64")],
)
def test_sides_that_rounding_takes_for_one_are_refused_by_name(low, high, dtype):
    message = r"low, high: .* given for dimension 1 in torch.float..; want sides that are at least 2\^20 roundings"
    space = spaces.Box(np.array([-1.0, low]), np.array([1.0, high]), dtype=np.float64)
    with pytest.raises(ValueError, match=message):
        squashing(space, dtype=dtype)
    zeros = torch.zeros(2, 2, dtype=getattr(torch, dtype))
    with pytest.raises(ValueError, match=message):
        SquashedNormal(zeros, zeros + 1, *(torch.tensor(side).to(zeros) for side in (space.low, space.high)))


def squashing(space, **options):
    return MLPPolicy(spaces.Box(-1, 1, (3,)), space, squash=True, **options)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, np.inf, (1,))])
def test_a_policy_squashes_into_finite_sides_alone(space):
    with pytest.raises(ValueError, match=r"squash: True for .* given; want False, or a Box of finite sides"):
        squashing(space)


def test_a_squashing_policy_acts_inside_its_box_and_has_a_mode():
    space = spaces.Box(np.float32([-2, 0]), np.float32([2, 5]))
    policy = squashing(space, log_std_init=1.5, seed=0)
    engine = make_engine(policy)
    assert "squashes its actions" in engine.reason
    actor = engine.actor(space, seed=3)
    rows = np.zeros((400, 3), np.float32)
    out = [np.empty((400, 3), np.float32), np.empty((400, 2), np.float32), np.empty(400, np.float32)]
    sent = np.empty((400, 2), np.float32)
    actor.act(rows, 0, *out, sent)
    assert np.isfinite(out[2]).all()
    np.testing.assert_array_equal(out[1], sent)  # nothing is left to clip
    assert (sent == space.high).any()
    assert (sent == space.low).any()
    actor.act(rows[:1], 0, *(array[:1] for array in out), sent[:1], deterministic=True)
    assert space.contains(sent[0])
    with pytest.raises(ValueError, match="action_map: 'affine' given; want 'clip' for a policy that squashes"):
        engine.actor(space, action_map="affine")


def test_a_training_of_a_squashing_policy_goes_on_at_the_edge():
    def wide(observation_space, action_space, seed):
        return MLPPolicy(observation_space, action_space, log_std_init=1.5, seed=seed, squash=True)

    agent = TRPO("Pendulum-v1", policy=wide, num_envs=2, steps_per_env=128, seed=0)
    try:
        agent.learn(3 * 256)
        assert agent.last_update.status == 0
        assert np.isfinite(agent.evaluate(2).mean)
        action, _ = agent.predict(np.zeros(3), deterministic=True)
        assert gym.spaces.Box(-2, 2, (1,)).contains(action)
    finally:
        agent.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_of_others_stay_inside_their_support(dtype):
    wide = Normal(torch.zeros(4_000, 1, dtype=dtype), torch.full((4_000, 1), 40.0, dtype=dtype))
    affine = AffineTransform(torch.tensor(0.5, dtype=dtype), torch.tensor(3.0, dtype=dtype))
    for distribution in (
        Independent(TransformedDistribution(wide, [TanhTransform()]), 1),
        Independent(TransformedDistribution(wide, [TanhTransform(), affine]), 1),
        Independent(Beta(*torch.full((2, 4_000, 1), 0.01, dtype=dtype)), 1),
    ):
        torch.manual_seed(0)
        samples = sample_inside(distribution)
        assert distribution.log_prob(samples).isfinite().all()
