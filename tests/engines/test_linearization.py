"""Every way to a Fisher product gives the product."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, ContinuousBernoulli, Independent

from tests import reference
from tests.engines.cases import make_case, relative_error
from trpo_fast.engines import fisher_matrix, make_engine
from trpo_fast.engines.linearization import LINEARIZATIONS
from trpo_fast.rollout.batch import Batch

METHODS = [method for method in LINEARIZATIONS if method != "auto"]


def used(engine):
    """The method of the operator in use."""
    return engine._bound._fisher.method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("distribution", ["gaussian", "categorical", "masked multicategorical", "masked bernoulli"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)], ids=str)
def test_every_method_gives_the_oracles_product(hidden, activation, distribution, method):
    case = make_case(distribution, hidden, activation)
    engine = make_engine(case.policy, "autograd", linearization=method)
    engine.bind(case.batch())
    v = case.vector()
    expected = case.oracle.fisher_product(case.theta, case.observations, v, masks=case.masks)
    assert relative_error(engine.fisher_operator() @ v, expected) < 1e-10
    assert used(engine) == method


class Network(nn.Module):
    def __init__(self, body, head=lambda outputs: Categorical(logits=outputs)):
        super().__init__()
        self.body, self.head = body, head
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in self.parameters():
                parameter.normal_(0, 0.4)
        self.double()

    def forward(self, observations):
        return self.head(self.body(observations))


class LastStep(nn.Module):
    """A recurrent layer's last output."""

    def __init__(self, kind):
        super().__init__()
        self.layer = kind(4, 3, batch_first=True)

    def forward(self, observations):
        return self.layer(observations)[0][:, -1]


NETWORKS = {
    "convolutions": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)), (2, 4, 4)),
    "GRU": (lambda: LastStep(nn.GRU), (5, 4)),
    "LSTM": (lambda: LastStep(nn.LSTM), (5, 4)),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)), (4,)),
}


def bound(policy, shape, **options):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(20, *shape))
    engine = make_engine(policy, observation_shape=shape, **options)
    engine.bind(Batch(observations, rng.integers(0, 3, 20), rng.normal(size=20)))
    return engine, observations


@pytest.mark.parametrize("name", NETWORKS)
def test_methods_agree_on_other_networks_and_auto_goes_by_convolutions(name):
    make, shape = NETWORKS[name]
    policy = Network(make())
    v = np.random.default_rng(1).normal(size=sum(p.numel() for p in policy.parameters()))
    products = {}
    for method in LINEARIZATIONS:
        engine, _ = bound(policy, shape, linearization=method)
        products[method] = engine.fisher_operator() @ v
        if method == "auto":
            assert used(engine) == ("forward" if name == "convolutions" else "double_vjp")
    for method in METHODS:
        assert relative_error(products[method], products["double_backward"]) < 1e-10
    # Exactly its bits: the choice is not made by a clock.
    chosen = "forward" if name == "convolutions" else "double_vjp"
    assert products["auto"].tobytes() == products[chosen].tobytes()


class WithoutForwardDerivative(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return 2.0 * x

    @staticmethod
    def backward(context, gradient):
        return 2.0 * gradient


class BehindNoGrad(nn.Module):
    """Scales by one of its parameters, which no gradient reaches."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        with torch.no_grad():
            scale = self.scale * 1.0
        return x * scale


class Apply(nn.Module):
    def forward(self, x):
        return WithoutForwardDerivative.apply(x)


@pytest.mark.parametrize(("part", "error"), [(Apply, NotImplementedError), (BehindNoGrad, ValueError)])
def test_auto_settles_for_double_vjp_where_forward_mode_cannot_be_trusted(part, error):
    policy = Network(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), part(), nn.Flatten(), nn.Linear(27, 3)))
    v = np.random.default_rng(1).normal(size=sum(p.numel() for p in policy.parameters()))
    engine, observations = bound(policy, (2, 4, 4))
    product = engine.fisher_operator() @ v
    assert used(engine) == "double_vjp"
    assert relative_error(product, fisher_matrix(policy, observations) @ v) < 1e-10
    engine, _ = bound(policy, (2, 4, 4), linearization="forward")
    with pytest.raises(error):
        engine.fisher_operator() @ v


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="linearization: 'fast' given; want one of 'auto', 'forward'"):
        make_engine(make_case().policy, "autograd", linearization="fast")


def test_a_distribution_without_closed_form_takes_the_divergence_only():
    def continuous(outputs):
        return Independent(ContinuousBernoulli(logits=outputs), 1)

    policy = Network(nn.Linear(4, 1), continuous)
    batch = Batch(np.ones((3, 4)), np.full((3, 1), 0.5), np.ones(3))
    engine = make_engine(policy)
    engine.bind(batch)
    engine.fisher_operator()
    assert used(engine) == "double_backward"
    for method in ("forward", "double_vjp"):
        engine = make_engine(policy, linearization=method)
        engine.bind(batch)
        with pytest.raises(ValueError, match=f"linearization: '{method}'.*ContinuousBernoulli.*closed form"):
            engine.fisher_operator()
