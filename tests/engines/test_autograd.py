import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from tests.engines.cases import make_case, relative_error
from trpo_fast.engines import fisher_matrix, make_engine
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers import Status, trust_region_step

ROWS = 24


class Head(nn.Module):
    """A small network whose outputs become a distribution by `make`."""

    def __init__(self, outputs, make):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))
        self.make = make
        self.double()

    def forward(self, observations):
        return self.make(self.body(observations))


class Convolutional(nn.Module):
    """Images in, choices out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ELU(), nn.Flatten(), nn.Linear(27, 3))
        self.double()

    def forward(self, observations):
        assert observations.shape[1:] == (2, 4, 4)
        return Categorical(logits=self.body(observations))


def state_dependent_normal(outputs):
    mean, log_std = outputs.chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


def full_normal(outputs):
    scale = torch.diag_embed(outputs[:, 2:].exp()) + torch.tensor([[0.0, 0.0], [0.3, 0.0]]).double()
    return MultivariateNormal(outputs[:, :2], scale_tril=scale)


HEADS = {
    "Normal with a scale that depends on the state": (4, state_dependent_normal),
    "Normal of one dimension": (1, lambda outputs: Normal(outputs[:, 0], 0.7)),
    "Categorical from probabilities": (3, lambda outputs: Categorical(probs=outputs.softmax(-1))),
    "several Categoricals": (6, lambda outputs: Independent(Categorical(logits=outputs.view(-1, 2, 3)), 1)),
    "Bernoulli": (3, lambda outputs: Independent(Bernoulli(logits=outputs), 1)),
    "MultivariateNormal": (4, full_normal),
    "Beta": (4, lambda outputs: Independent(Beta(*(1 + outputs.exp()).chunk(2, -1)), 1)),
}


@pytest.fixture(params=HEADS)
def head(request):
    return Head(*HEADS[request.param])


def problem_of(policy, shape=(4,), actions=None):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(ROWS, *shape))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        distribution = policy(torch.from_numpy(observations))
        drawn = distribution.sample().numpy() if actions is None else actions
    return Batch(observations, drawn.reshape(ROWS, -1) if drawn.ndim > 1 else drawn, rng.normal(size=ROWS))


def by_functional_autograd(policy, batch, shape=(4,)):
    """(gradient of the surrogate, Hessian of torch's KL) by torch.autograd.functional, in named_parameters() order."""
    names = [name for name, _ in policy.named_parameters()]
    tensors = [parameter.detach().clone() for parameter in policy.parameters()]
    sizes = [tensor.numel() for tensor in tensors]
    observations = torch.from_numpy(batch.observations).view(ROWS, *shape)
    with torch.no_grad():
        old = policy(observations)
    actions = torch.from_numpy(batch.actions).reshape(ROWS, *old.event_shape)

    def distribution(flat):
        parts = [part.view(tensor.shape) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]
        return torch.func.functional_call(policy, dict(zip(names, parts, strict=True)), (observations,))

    def surrogate(flat):
        ratio = (distribution(flat).log_prob(actions) - old.log_prob(actions)).exp()
        return (ratio * torch.from_numpy(batch.advantages)).mean()

    def kl(flat):
        return torch.distributions.kl_divergence(old, distribution(flat)).mean()

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    gradient = torch.autograd.functional.jacobian(surrogate, flat)
    return gradient.numpy(), torch.autograd.functional.hessian(kl, flat).numpy()


def test_any_torch_distribution_has_gradient_and_fisher_products(head):
    batch = problem_of(head)
    gradient, hessian = by_functional_autograd(head, batch)
    engine = make_engine(head)
    assert engine.name == "autograd"
    engine.bind(batch)
    assert relative_error(engine.surrogate_gradient(), gradient) < 1e-10
    v = np.random.default_rng(2).normal(size=engine.size)
    assert relative_error(engine.fisher_operator() @ v, hessian @ v) < 1e-9
    np.testing.assert_allclose(fisher_matrix(head, batch.observations), hessian, rtol=1e-8, atol=1e-12)


def test_a_whole_step_with_any_torch_distribution(head):
    engine = make_engine(head)
    engine.bind(problem_of(head))
    assert engine.evaluate() == pytest.approx((0.0, 0.0), abs=1e-15)
    report = trust_region_step(engine, max_kl=1e-3)
    assert report.status == Status.SUCCESS
    assert report.improvement > 0
    assert 0 < report.kl <= 1e-3


def test_a_convolutional_policy_gets_observations_of_its_shape():
    policy, shape = Convolutional(), (2, 4, 4)
    batch = problem_of(policy, shape)
    assert batch.observations.shape == (ROWS, 32)
    gradient, hessian = by_functional_autograd(policy, batch, shape)
    engine = make_engine(policy, observation_shape=shape)
    engine.bind(batch)
    assert relative_error(engine.surrogate_gradient(), gradient) < 1e-10
    v = np.random.default_rng(2).normal(size=engine.size)
    assert relative_error(engine.fisher_operator() @ v, hessian @ v) < 1e-9


def test_a_frozen_parameter_has_no_gradient_no_curvature_and_does_not_move():
    case = make_case(rows=100)
    case.policy.layers[0].weight.requires_grad_(False)
    engine = make_engine(case.policy)
    assert "'layers.0.weight' is frozen" in engine.reason
    engine.bind(case.batch())
    frozen = np.zeros(engine.size, bool)
    frozen[3 : 3 + 16 * 7] = True
    v = case.vector()
    gradient, product = engine.surrogate_gradient(), engine.fisher_operator() @ v
    assert not gradient[frozen].any()
    assert not product[frozen].any()
    expected = case.oracle.surrogate_gradient(case.theta, *case.data)
    assert relative_error(gradient[~frozen], expected[~frozen]) < 1e-10
    expected = case.oracle.fisher_product(case.theta, case.observations, np.where(frozen, 0.0, v))
    assert relative_error(product[~frozen], expected[~frozen]) < 1e-10
    before = engine.parameters().copy()
    assert trust_region_step(engine).status == Status.SUCCESS
    assert engine.parameters()[frozen].tobytes() == before[frozen].tobytes()
    assert (engine.parameters()[~frozen] != before[~frozen]).any()
    assert not fisher_matrix(case.policy, case.observations)[frozen].any()


def test_a_policy_that_is_frozen_altogether_is_refused():
    with pytest.raises(ValueError, match="every parameter is frozen"):
        make_engine(Head(*HEADS["Bernoulli"]).requires_grad_(False))


def test_tied_weights_get_the_sum_of_their_uses():
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    tied[2].weight = tied[0].weight

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = tied

        def forward(self, observations):
            return Categorical(logits=self.body(observations))

    policy = Tied()
    batch = problem_of(policy)
    gradient, hessian = by_functional_autograd(policy, batch)
    engine = make_engine(policy)
    assert engine.size == 16 + 4 + 4
    engine.bind(batch)
    assert relative_error(engine.surrogate_gradient(), gradient) < 1e-10
    np.testing.assert_allclose(engine.fisher_operator() @ np.ones(24), hessian @ np.ones(24), rtol=1e-9, atol=1e-13)
    engine.parameters()[:] = 1.0
    assert policy.body[2].weight.min() == 1.0


def test_a_parameter_that_is_not_used_has_no_gradient():
    policy = Head(*HEADS["Bernoulli"])
    policy.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    engine = make_engine(policy)
    engine.bind(problem_of(policy))
    assert not engine.surrogate_gradient()[:2].any()
    assert not (engine.fisher_operator() @ np.ones(engine.size))[:2].any()


def test_masked_choices_take_no_part_in_the_update():
    case = make_case("categorical", outputs=4, rows=50)
    masks = np.ones((50, 4), bool)
    masks[:, 2] = False
    actions = case.rng.choice([0, 1, 3], 50)
    engine = make_engine(case.policy, "autograd")
    engine.bind(Batch(case.observations, actions, case.advantages, action_masks=masks))
    # The same policy over three choices, without the masked one's row.
    smaller = make_case("categorical", outputs=3, rows=50)
    state = copy.deepcopy(case.policy.state_dict())
    for name in ("layers.2.weight", "layers.2.bias"):
        state[name] = state[name][[0, 1, 3]]
    smaller.policy.load_state_dict(state)
    other = make_engine(smaller.policy, "native")
    other.bind(Batch(case.observations, np.where(actions == 3, 2, actions), case.advantages))
    # Where the last layer's weights (4, 8) begin, its biases (4,) following.
    head = 16 * 7 + 16 + 8 * 16 + 8
    keep = np.r_[0 : head + 16, head + 24 : head + 34, head + 35]
    gradient = engine.surrogate_gradient()
    np.testing.assert_allclose(gradient[keep], other.surrogate_gradient(), rtol=1e-9, atol=1e-13)
    assert np.abs(gradient[head + 16 : head + 24]).max() < 1e-15
    v = case.vector()
    product = engine.fisher_operator() @ v
    np.testing.assert_allclose(product[keep], other.fisher_operator() @ v[keep], rtol=1e-9, atol=1e-13)
    assert engine.entropy() == pytest.approx(other.entropy(), rel=1e-12)
    theta = engine.parameters().copy()
    engine.parameters()[:] += 0.01 * v
    other.parameters()[:] += 0.01 * v[keep]
    np.testing.assert_allclose(engine.evaluate(), other.evaluate(), rtol=1e-9)
    assert (engine.parameters() != theta).all()


def test_an_action_that_its_mask_forbids_is_named():
    case = make_case("categorical")
    masks = np.ones((131, 3), bool)
    masks[7, case.actions[7]] = False
    with pytest.raises(ValueError, match="sample 7 took an action that its mask forbids"):
        make_engine(case.policy, "autograd").bind(case.batch(action_masks=masks))


def test_masks_for_a_policy_without_choices_are_refused():
    with pytest.raises(ValueError, match="action_masks"):
        make_engine(make_case().policy, "autograd").bind(make_case().batch(action_masks=np.ones((131, 3), bool)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda outputs: outputs, TypeError, "forward returned Tensor, wanted a torch.distributions.Distribution"),
        (lambda outputs: Normal(outputs, 1.0), ValueError, r"batch shape \(24, 3\) for 24 .*Independent"),
    ],
)
def test_what_is_no_distribution_for_each_sample_is_refused(make, error, message):
    policy = Head(3, make)
    batch = Batch(np.zeros((ROWS, 4)), np.zeros((ROWS, 3)), np.ones(ROWS))
    with pytest.raises(error, match=message):
        make_engine(policy).bind(batch)
    with pytest.raises(error, match=message):
        fisher_matrix(policy, batch.observations)


def test_a_distribution_without_a_kl_divergence_is_named():
    def mixture(outputs):
        return MixtureSameFamily(Categorical(logits=outputs[:, :2]), Normal(outputs[:, 2:], 1.0))

    engine = make_engine(Head(4, mixture))
    engine.bind(Batch(np.zeros((ROWS, 4)), np.zeros(ROWS), np.ones(ROWS)))
    with pytest.raises(ValueError, match="no KL divergence for the MixtureSameFamily"):
        engine.fisher_operator()
    assert np.isnan(engine.entropy())


def test_an_error_in_the_policys_derivative_reaches_the_caller_through_the_solver():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            if torch.is_grad_enabled():
                raise ZeroDivisionError("no second derivative")
            return gradient

    policy = Head(3, lambda outputs: Categorical(logits=Once.apply(outputs)))
    engine = make_engine(policy)
    engine.bind(Batch(np.ones((ROWS, 4)), np.zeros(ROWS, int), np.arange(ROWS, dtype=float)))
    before = engine.parameters().copy()
    with pytest.raises(ZeroDivisionError, match="no second derivative"):
        trust_region_step(engine)
    np.testing.assert_array_equal(engine.parameters(), before)
