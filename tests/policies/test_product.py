"""The product of distributions: what it adds up, beside torch's own and the parts."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Independent,
    Laplace,
    Normal,
    kl_divergence,
)

from trpo_fast.policies import Product
from trpo_fast.policies.distributions import MultiCategorical, divergence, family_of, with_masks


def parts(seed=0, rows=4):
    torch.manual_seed(seed)
    new = functools.partial(torch.randn, dtype=torch.float64)
    return [
        Categorical(logits=new(rows, 3)),
        Independent(Normal(new(rows, 2, 1), new(rows, 2, 1).exp()), 2),
        MultiCategorical(new(rows, 5), (2, 3)),
        Independent(Bernoulli(logits=new(rows, 2)), 1),
    ]


def test_everything_adds_up_over_the_parts():
    p, q = Product(parts(0)), Product(parts(1))
    assert (p.batch_shape, p.event_shape) == ((4,), (7,))
    value = p.sample()
    assert value.shape == (4, 7) and value.dtype == torch.float64
    pieces = [value[:, 0].long(), value[:, 1:3].reshape(4, 2, 1), value[:, 3:5].long(), value[:, 5:]]
    expected = sum(part.log_prob(piece) for part, piece in zip(p.parts, pieces, strict=True))
    torch.testing.assert_close(p.log_prob(value), expected)
    torch.testing.assert_close(p.entropy(), sum(part.entropy() for part in p.parts))
    assert p.sample((6,)).shape == (6, 4, 7)
    torch.testing.assert_close(p.mode[:, 1:3], p.parts[1].mode.reshape(4, 2))
    kl = sum(kl_divergence(one, other) for one, other in zip(p.parts, q.parts, strict=True))
    torch.testing.assert_close(kl_divergence(p, q), kl)
    torch.testing.assert_close(divergence(p, q), kl)


def test_m_has_a_block_for_each_part():
    p = Product(parts())
    family = family_of(p)
    coordinates = family.coordinates(p)
    tangents = tuple(torch.randn_like(one) for one in coordinates)
    found, at = family.metric(coordinates, tangents), 0
    for part in p.parts:
        own = family_of(part)
        own_coordinates = own.coordinates(part)
        end = at + len(own_coordinates)
        for block, expected in zip(found[at:end], own.metric(own_coordinates, tangents[at:end]), strict=True):
            torch.testing.assert_close(block, expected, rtol=0, atol=0)
        at = end
    assert at == len(coordinates) == len(found)
    terms = family.divergence(coordinates, family.coordinates(Product(parts(1))))
    torch.testing.assert_close(terms.sum(1), divergence(p, Product(parts(1))))


def test_a_part_without_a_metric_leaves_the_product_without_one_and_with_a_divergence():
    p = Product([Categorical(logits=torch.zeros(2, 3)), ContinuousBernoulli(torch.full((2,), 0.3))])
    assert family_of(p) is None
    assert not family_of(Product([Categorical(logits=torch.zeros(2, 3)), Laplace(torch.ones(2), 1.0)])).differentiable
    torch.testing.assert_close(divergence(p, p), torch.zeros(2, dtype=torch.float64))


def test_masks_reach_the_parts_that_have_choices():
    p = Product(parts())
    masks = torch.ones(4, 3 + 5 + 4, dtype=torch.bool)
    masks[:, 0] = masks[:, 4] = masks[:, 9] = False
    restricted = with_masks(p, masks)
    drawn = restricted.sample((500,))
    assert (drawn[..., 0] != 0).all() and (drawn[..., 3] != 1).all() and (drawn[..., 5] == 0).all()
    assert restricted.parts[1] is p.parts[1]
    with pytest.raises(ValueError, match=r"action_masks: shape \(4, 11\) given; want \(4, 12\)"):
        with_masks(p, masks[:, 1:])
    masks[2, :3] = False
    with pytest.raises(ValueError, match=r"action_masks: row 2 forbids every choice of component 0 of part 0"):
        with_masks(p, masks)
    with pytest.raises(ValueError, match=r"action_masks: shape \(4, 2\)"):
        with_masks(Product([p.parts[1]]), masks[:, :2])


def test_choices_alone_are_a_row_of_the_policys_floats():
    p = Product([Categorical(logits=torch.zeros(2, 3, dtype=torch.float64))])
    assert p.sample().dtype == p.mode.dtype == torch.float64


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, r"parts: batch shapes \[\] given; want one \(B,\) of at least one"),
        ([Normal(torch.zeros(2, 3), 1.0)], ValueError, r"parts: batch shapes \[\(2, 3\)\] given; want one"),
        (
            [Categorical(logits=torch.zeros(2, 3)), Normal(torch.zeros(4), 1.0)],
            ValueError,
            r"parts: batch shapes \[\(2,\), \(4,\)\]",
        ),
        (np.array(1.0), TypeError, r"parts: array\(1\.\) given; want a sequence of torch distributions"),
        ([torch.zeros(2)], TypeError, r"parts: Tensor given among them; want torch distributions"),
    ],
    ids=str,
)
def test_parts_that_are_no_product_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        Product(given)
