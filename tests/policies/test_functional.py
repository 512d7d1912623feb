"""Calling modules with other parameters, also where a part or a parameter has several names."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from trpo_fast.engines import make_engine
from trpo_fast.engines.value import make_value_kernel
from trpo_fast.policies.functional import call_with
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers import Status, trust_region_step


class Shared(nn.Module):
    """A body that is a part of its own and of `pi`, a tied weight, and a buffer."""

    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.pi = nn.Sequential(self.body, nn.Linear(6, outputs))
        self.other = nn.Linear(4, 6)
        self.other.weight = self.body[0].weight
        self.outputs = outputs
        self.register_buffer("shift", torch.zeros(6))

    def forward(self, x):
        y = self.pi(x) + self.pi[1](torch.tanh(self.other(x)) + self.shift)
        return Categorical(logits=y) if self.outputs > 1 else y.squeeze(-1)


def state_of(module):
    return [(name, id(p), p.dtype, p.requires_grad, p.detach().clone()) for name, p in module.named_parameters()]


def test_a_part_with_two_names_is_called_with_the_new_tensors_and_gets_its_own_back():
    module, x = Shared(), torch.ones(2, 4)
    before = state_of(module)
    values = {name: torch.full_like(p, 0.1).double() for name, p in module.named_parameters()}
    values["shift"] = torch.ones(6, dtype=torch.float64)
    found = call_with(module, values, (x.double(),))
    hidden = torch.tanh(torch.full((2, 6), 0.5, dtype=torch.float64))
    expected = 2 * (0.1 * hidden.sum(1, keepdim=True) + 0.1) + 0.1 * 6
    torch.testing.assert_close(found.logits, (expected.expand(2, 3)).log_softmax(1))
    for (name, own, dtype, trained, value), (_, *now) in zip(before, state_of(module), strict=True):
        assert now[:3] == [own, dtype, trained], name
        torch.testing.assert_close(now[3], value, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_moves_every_layer_of_such_a_policy(dtype):
    module, rng = Shared().to(dtype), np.random.default_rng(0)
    engine = make_engine(module)
    numpy_dtype = engine.dtype
    engine.bind(Batch(rng.normal(size=(64, 4)).astype(numpy_dtype), rng.integers(0, 3, 64), rng.normal(size=64)))
    before = state_of(module)
    assert trust_region_step(engine).status is Status.SUCCESS
    for (name, own, _, trained, value), (_, *now) in zip(before, state_of(module), strict=True):
        assert now[:3] == [own, dtype, trained], name
        assert (now[3] != value).any(), name


def test_a_fit_moves_every_layer_of_such_a_critic():
    module, rng = Shared(1), np.random.default_rng(0)
    kernel = make_value_kernel(module)
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    before, rows = theta.copy(), rng.normal(size=(64, 4)).astype(np.float32)
    moments = [np.zeros_like(theta), np.zeros_like(theta)]
    given = {"adam_step": 0, "epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "seed": 0, "stream": 1}
    kernel.fit(theta, *moments, rows, rng.normal(size=64).astype(np.float32), first_epoch=0, **given)
    assert (theta != before).all()


class Writes(Shared):
    def forward(self, x):
        x.zero_()
        return super().forward(x)


def test_what_a_forward_writes_to_its_argument_reaches_nobody_else():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(16, 4)).astype(np.float32)
    kept = rows.copy()
    engine = make_engine(Writes())
    engine.bind(Batch(rows, rng.integers(0, 3, 16), rng.normal(size=16)))
    engine.surrogate_gradient()
    engine.evaluate()
    critic = Writes(1)
    theta = torch.cat([p.detach().reshape(-1) for p in critic.parameters()]).numpy()
    make_value_kernel(critic).values(theta, rows)
    np.testing.assert_array_equal(rows, kept)
