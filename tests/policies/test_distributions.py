import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from trpo_fast.policies.distributions import MultiCategorical, choices_of, divergence, family_of, with_masks

B = 6


def normal(loc, log_scale):
    return Independent(Normal(loc, log_scale.exp()), 1)


def categorical(logits):
    return Categorical(logits=logits)


def bernoulli(logits):
    return Independent(Bernoulli(logits=logits), 1)


def multicategorical(logits):
    return MultiCategorical(logits, (2, 2))


def draws(count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, 4, dtype=torch.float64, generator=generator).to(dtype) for _ in range(count)]


FAMILIES = [(normal, 2), (categorical, 1), (multicategorical, 1), (bernoulli, 1)]


@pytest.mark.parametrize(("family", "count"), FAMILIES)
def test_the_divergence_is_torchs(family, count):
    tensors = draws(2 * count)
    p, q = family(*tensors[:count]), family(*tensors[count:])
    torch.testing.assert_close(divergence(p, q), kl_divergence(p, q), rtol=1e-12, atol=0)


def test_the_gaussian_divergence_is_the_textbooks_and_joint_over_action_dimensions():
    p, q = normal(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)), normal(torch.zeros(1, 2), torch.full((1, 2), 0.5))
    # log(sq/sp) + (sp^2 + (mp - mq)^2) / (2 sq^2) - 1/2 in each dimension, added up and not averaged
    e = torch.tensor(0.5, dtype=torch.float64).mul(2).exp()
    expected = (0.5 + 1 / (2 * e) - 0.5) + (0.5 + 2 / (2 * e) - 0.5)
    torch.testing.assert_close(divergence(p, q)[0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("family", "count"), FAMILIES)
@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-6, 1e-3, 1.0, 30.0])
def test_the_divergence_is_never_negative(family, count, size, dtype):
    tensors = draws(2 * count, dtype)
    moved = [tensor + size * change for tensor, change in zip(tensors[:count], tensors[count:], strict=True)]
    p, q = family(*tensors[:count]), family(*moved)
    for pair in ((p, q), (q, p)):
        values = divergence(*pair)
        assert values.dtype == torch.float64
        assert (values >= 0).all()
        assert size > 0 or not values.any()


@pytest.mark.parametrize(("family", "count"), FAMILIES)
def test_the_metric_is_the_hessian_of_the_divergence(family, count):
    point, change = draws(2 * count)[:count], draws(2 * count)[count:]
    spec = family_of(family(*point))
    coordinates = spec.coordinates(family(*point))
    change = [tangent.reshape(c.shape) for tangent, c in zip(change, coordinates, strict=True)]
    product = spec.metric(coordinates, tuple(change))

    def along(t):
        moved = tuple(c + t * d for c, d in zip(coordinates, change, strict=True))
        return spec.divergence(moved, coordinates).sum()

    # second derivative by central differences of a function whose minimum, 0, is at t = 0
    t = 1e-4
    curvature = (along(t) + along(-t)) / t**2
    expected = sum((d * m).sum() for d, m in zip(change, product, strict=True))
    torch.testing.assert_close(curvature, expected, rtol=1e-5, atol=0)


def test_masked_choices_take_no_part_at_all():
    (logits,) = draws(1)
    masks = torch.tensor([[True, False, True, True]] * B)
    restricted = with_masks(categorical(logits), masks)
    smaller = categorical(logits[:, [0, 2, 3]])
    torch.testing.assert_close(restricted.probs[:, [0, 2, 3]], smaller.probs)
    assert not restricted.probs[:, 1].any()
    torch.testing.assert_close(restricted.entropy(), smaller.entropy())
    other = with_masks(categorical(logits.flip(0)), masks)
    expected = divergence(smaller, categorical(logits.flip(0)[:, [0, 2, 3]]))
    torch.testing.assert_close(divergence(restricted, other), expected)


def test_a_multicategorical_is_one_categorical_for_each_component():
    (logits,) = draws(1)
    joint = MultiCategorical(logits, (1, 3))
    parts = [Categorical(logits=block) for block in logits.split((1, 3), 1)]
    assert (joint.batch_shape, joint.event_shape) == ((B,), (2,))
    actions = joint.sample()
    expected = sum(part.log_prob(actions[:, j]) for j, part in enumerate(parts))
    torch.testing.assert_close(joint.log_prob(actions), expected)
    torch.testing.assert_close(joint.entropy(), sum(part.entropy() for part in parts))
    torch.testing.assert_close(joint.mode, torch.stack([part.mode for part in parts], 1))
    torch.testing.assert_close(joint.logits, torch.cat([part.logits for part in parts], 1))


def test_masked_choices_of_a_component_take_no_part_at_all():
    (logits,) = draws(1)
    masks = torch.tensor([[True, False, True, True]] * B)
    restricted, smaller = (
        with_masks(MultiCategorical(logits, (2, 2)), masks),
        MultiCategorical(logits[:, [0, 2, 3]], (1, 2)),
    )
    actions = smaller.sample()
    torch.testing.assert_close(restricted.log_prob(actions), smaller.log_prob(actions))
    torch.testing.assert_close(restricted.entropy(), smaller.entropy())
    torch.testing.assert_close(
        divergence(restricted, with_masks(MultiCategorical(logits.flip(0), (2, 2)), masks)),
        divergence(smaller, MultiCategorical(logits.flip(0)[:, [0, 2, 3]], (1, 2))),
    )


def test_masks_reach_the_components_of_torchs_own_independent_categoricals():
    (logits,) = draws(1)
    masks = torch.tensor([[True, False, True, True]] * B)
    theirs = with_masks(Independent(Categorical(logits=logits.view(B, 2, 2)), 1), masks)
    ours = with_masks(MultiCategorical(logits, (2, 2)), masks)
    assert choices_of(theirs) == choices_of(ours) == (2, 2)
    assert theirs.event_shape == ours.event_shape
    actions = ours.sample()
    torch.testing.assert_close(theirs.log_prob(actions), ours.log_prob(actions), rtol=0, atol=0)
    torch.testing.assert_close(theirs.entropy(), ours.entropy(), rtol=0, atol=0)


def test_a_masked_bernoulli_is_certain_where_one_value_is_left():
    (logits,) = draws(1)
    logits.requires_grad_()
    # the first may not be 0, the third not be 1
    masks = torch.tensor([[False, True, True, True, True, False, True, True]] * B)
    restricted = with_masks(bernoulli(logits), masks)
    free = bernoulli(logits[:, [1, 3]])
    actions = restricted.sample()
    assert (actions[:, 0] == 1).all()
    assert (actions[:, 2] == 0).all()
    torch.testing.assert_close(restricted.log_prob(actions), free.log_prob(actions[:, [1, 3]]))
    torch.testing.assert_close(restricted.entropy(), free.entropy())
    (gradient,) = torch.autograd.grad((restricted.log_prob(actions) + restricted.entropy()).sum(), logits)
    assert not gradient[:, [0, 2]].any()
    assert gradient[:, [1, 3]].all()
    torch.testing.assert_close(
        divergence(restricted, with_masks(bernoulli(logits.flip(0)), masks)),
        divergence(free, bernoulli(logits.flip(0)[:, [1, 3]])),
    )


@pytest.mark.parametrize(("family", "width"), [(categorical, 4), (multicategorical, 4), (bernoulli, 8)])
def test_masks_that_forbid_everything_are_refused_by_row_and_component(family, width):
    masks = torch.ones(B, width, dtype=torch.bool)
    masks[3, -4 if family is categorical else -2 :] = False
    component = {categorical: 0, multicategorical: 1, bernoulli: 3}[family]
    with pytest.raises(ValueError, match=f"action_masks: row 3 forbids every choice of component {component}"):
        with_masks(family(draws(1)[0]), masks)


def test_sizes_that_do_not_fit_the_logits_are_refused():
    for nvec in ((2, 1), (), (4, 0), (5,)):
        with pytest.raises(ValueError, match=r"nvec: .* for logits .*; want sizes"):
            MultiCategorical(draws(1)[0], nvec)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="action_masks"):
        with_masks(categorical(draws(1)[0]), torch.ones(B, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="action_masks"):
        with_masks(normal(*draws(2)), torch.ones(B, 4, dtype=torch.bool))


def test_a_choice_of_vanishing_probability_leaves_the_divergence_finite():
    sure, unsure = categorical(torch.tensor([[0.0, -2000.0]])), categorical(torch.tensor([[0.0, 0.0]]))
    torch.testing.assert_close(divergence(sure, unsure)[0], torch.tensor(2.0, dtype=torch.float64).log())
    assert divergence(unsure, sure)[0] > 900
    impossible = categorical(torch.tensor([[0.0, -torch.inf]]))
    torch.testing.assert_close(divergence(impossible, unsure)[0], torch.tensor(2.0, dtype=torch.float64).log())
    assert divergence(unsure, impossible)[0] == torch.inf
    assert divergence(impossible, impossible)[0] == 0


def test_other_distributions_and_subclasses_are_left_to_torch():
    class Shifted(Normal):
        pass

    assert family_of(Shifted(torch.zeros(2), torch.ones(2))) is None
    assert family_of(MultivariateNormal(torch.zeros(1, 2), torch.eye(2))) is None
    p, q = Beta(torch.ones(3), torch.ones(3)), Beta(torch.ones(3) * 2, torch.ones(3))
    torch.testing.assert_close(divergence(p, q), kl_divergence(p, q).double())
