"""Every policy of the table is right, or refused with the words that docs/networks.md quotes."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.engines.cases import relative_error
from tests.engines.networks import ROWS, TABLES, policy_of
from trpo_fast.engines import make_engine
from trpo_fast.engines.binding import plain_module
from trpo_fast.engines.checks import check_policy
from trpo_fast.engines.linearization import LINEARIZATIONS
from trpo_fast.rollout.batch import Batch

ENTRIES = {f"{group}: {name}": entry for group, table in TABLES.items() for name, entry in table.items()}


RIGHT = {name: entry for name, entry in ENTRIES.items() if entry.refused is None}


@pytest.mark.parametrize("entry", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_so_in_float32(entry):
    policy = plain_module(policy_of(entry).float())
    rows = torch.randn(ROWS, *entry.shape, generator=torch.Generator().manual_seed(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_policy(policy, [rows])
    assert bool(caught) == entry.warned


def by_double_backward(policy, rows, v, divergence):
    """F v in float64 from the Hessian of a divergence, with torch's functions alone."""
    values = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in policy.named_parameters()}
    leaves = [value for value in values.values() if value.requires_grad]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        old = policy(rows)
    with sdpa_kernel(SDPBackend.MATH):
        new = functional_call(policy, values, (rows,))
    options = {"allow_unused": True, "materialize_grads": True}
    slopes = torch.autograd.grad(divergence(old, new).mean(), leaves, create_graph=True, **options)
    parts = torch.from_numpy(v).split([value.numel() for value in values.values()])
    vectors = [part.view_as(p) for part, p in zip(parts, values.values(), strict=True) if p.requires_grad]
    along = torch.autograd.grad(slopes, leaves, vectors, **options)
    product = iter(along)
    return np.concatenate(
        [(next(product) if p.requires_grad else torch.zeros_like(p)).flatten().numpy() for p in values.values()]
    )


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_policy_is_right_or_refused_by_name(entry):
    policy = plain_module(policy_of(entry))
    rows = torch.randn(ROWS, *entry.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if entry.refused is not None:
        with pytest.raises(ValueError, match=re.escape(entry.refused)):
            check_policy(policy, [rows])
            make_engine(policy)
        return
    if entry.warned:
        with pytest.warns(UserWarning, match="policy: its gradients are not the derivatives of what it computes"):
            check_policy(policy, [rows])
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_policy(policy, [rows])
    with torch.no_grad(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Singular sample detected", of a Wishart
        torch.manual_seed(4)
        actions = policy(rows).sample().numpy()
        actions = actions.reshape(ROWS, -1) if actions.ndim > 1 else actions
    batch = Batch(rows.reshape(ROWS, -1).numpy(), actions, np.ones(ROWS))
    v = np.random.default_rng(5).normal(size=sum(parameter.numel() for parameter in policy.parameters()))
    expected = by_double_backward(policy, rows, v, entry.divergence)
    assert np.abs(expected).max() > 1e-6
    for method in LINEARIZATIONS:
        engine = make_engine(policy, observation_shape=entry.shape, linearization=method)
        engine.bind(batch)
        try:
            product = engine.fisher_operator() @ v
        except (NotImplementedError, RuntimeError, ValueError):
            assert method != "auto"  # what cannot be done in another way is refused there
            continue
        assert relative_error(product, expected) < 1e-7, method


def test_the_checks_leave_the_generator_alone():
    policy = policy_of(ENTRIES["Distributions: Beta"])
    before = torch.get_rng_state()
    check_policy(policy, [torch.zeros(ROWS, 4, dtype=torch.float64)])
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_that_a_policy_does_not_take_are_not_held_against_it():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 3)

        def forward(self, observations):
            if (observations < 0).any():
                raise KeyError("negative")
            return Categorical(logits=self.embed(observations.long()).sum(1))

    check_policy(Picky(), [-torch.ones(3, 2)])
    check_policy(Picky(), [-torch.ones(3, 2), torch.full((3, 2), 9.0), torch.ones(3, 2)])
