import copy
import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from tests.engines.cases import make_case, relative_error
from trpo_fast.engines import autograd, fisher_matrix, make_engine
from trpo_fast.policies.flat import GatheredParameters
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


class Bare(nn.Module):
    """A distribution that keeps a parameter itself, which a trial writes to."""

    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        self.kept = nn.Parameter(torch.tensor([0.6, 0.8]))
        self.make = make
        self.double()

    def forward(self, observations):
        return self.make(self.body(observations), self.kept)


BARE = {
    "scale of a Normal": lambda outputs, kept: Independent(Normal(outputs, kept), 1),
    "view of a scale": lambda outputs, kept: Independent(Normal(outputs, kept.expand_as(outputs)), 1),
    "mean of a Normal": lambda outputs, kept: Independent(Normal(kept.expand_as(outputs), outputs.exp()), 1),
    "scale of a Laplace": lambda outputs, kept: Independent(Laplace(outputs, kept), 1),
    "logits of a Bernoulli": lambda outputs, kept: Independent(Bernoulli(logits=kept.expand_as(outputs)), 1),
}


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize("direction", ["new_old", "old_new"])
def test_a_parameter_that_the_distribution_keeps_counts_in_every_kl(kind, direction):
    policy = Bare(BARE[kind])
    engine, batch = make_engine(policy), problem_of(policy)
    before = copy.deepcopy(policy)(torch.from_numpy(batch.observations))
    engine.bind(batch, entropy_coefficient=0.0 if "Laplace" in kind else 0.1)
    entropy = engine.entropy()
    assert engine.evaluate(direction) == pytest.approx((0.0, 0.0), abs=1e-15)
    with torch.no_grad():
        policy.kept.mul_(1.5)
        after = policy(torch.from_numpy(batch.observations))
        pair = (after, before) if direction == "new_old" else (before, after)
        kl = torch.distributions.kl_divergence(*pair).mean().item()
        actions = torch.from_numpy(batch.actions).view(ROWS, 2)
        growth = (after.log_prob(actions) - before.log_prob(actions)).expm1()
        improvement = (growth * torch.from_numpy(batch.advantages)).mean().item()
        if "Laplace" not in kind:
            improvement += 0.1 * (after.entropy() - before.entropy()).mean().item()
    assert kl > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine.evaluate(direction) == pytest.approx((improvement, kl), rel=1e-9)
        assert engine.entropy() == entropy == pytest.approx(before.entropy().mean().item())


def test_a_batch_and_its_graph_go_when_another_is_bound():
    head = Head(*HEADS["Bernoulli"])
    engine, batch = make_engine(head), problem_of(head)
    gc.collect()
    gc.disable()
    try:
        engine.bind(batch)
        engine.surrogate_gradient()
        operator = engine.fisher_operator()
        product = operator @ np.ones(engine.size)
        old = weakref.ref(engine._bound)
        graph = weakref.ref(old()._graph)
        engine.bind(batch)
        assert old() is None
        assert graph() is None
        np.testing.assert_array_equal(engine.fisher_operator() @ np.ones(engine.size), product)
        last = weakref.ref(engine._bound)
        vector = np.ones(engine.size)
        del engine
        with pytest.raises(RuntimeError, match="outlived"):
            operator @ vector
    finally:
        gc.enable()
    del operator
    gc.collect()
    assert last() is None


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


def test_a_policy_that_computes_without_a_graph_is_refused():
    class Detached(Head):
        def forward(self, observations):
            with torch.no_grad():
                return super().forward(observations)

    policy = Detached(*HEADS["Bernoulli"])
    engine = make_engine(policy)
    engine.bind(problem_of(policy))
    with pytest.raises(ValueError, match=r"policy: nothing connects its log-probabilities to its parameters"):
        engine.surrogate_gradient()


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
        (lambda outputs: outputs, TypeError, "forward returned Tensor; want a torch.distributions.Distribution"),
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


def test_the_fisher_operator_of_some_rows_is_that_of_a_batch_of_them(head):
    batch, rows = problem_of(head), np.array([0, 3, 4, 11, 23])
    engine = make_engine(head)
    engine.bind(Batch(batch.observations[rows], batch.actions[rows], batch.advantages[rows]))
    v = np.random.default_rng(2).normal(size=engine.size)
    expected = engine.fisher_operator() @ v
    engine.bind(batch)
    whole = engine.fisher_operator()
    before = whole @ v
    part = engine.fisher_operator(rows)
    assert relative_error(part @ v, expected) < 1e-12
    # Each of them stays what it is, though one graph is kept.
    assert relative_error(whole @ v, before) < 1e-12
    assert relative_error(part @ v, expected) < 1e-12
    gradient = engine.surrogate_gradient()
    engine.bind(batch, total=2 * ROWS)
    assert relative_error(engine.fisher_operator(rows) @ v, expected / 2) < 1e-12
    assert relative_error(engine.surrogate_gradient(), gradient / 2) < 1e-12
    with pytest.raises(RuntimeError, match="outlived"):
        part @ v


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([0.0, 1.0]), r"rows: shape \(2,\) of float64"),
        (np.zeros((1, 1), np.int64), r"rows: shape \(1, 1\)"),
        (np.empty(0, np.int64), r"rows: shape \(0,\)"),
        (np.array([1, 0]), "rows: item 1 is 0; want increasing row numbers from 0 to 23"),
        (np.array([1, 1]), "rows: item 1 is 1; want increasing"),
        (np.array([-1, 1]), "rows: item 0 is -1; want increasing"),
        (np.array([1, 24]), "rows: item 1 is 24; want increasing"),
    ],
)
def test_rows_that_cannot_be_are_named(rows, message):
    policy = Head(*HEADS["Bernoulli"])
    engine = make_engine(policy)
    engine.bind(problem_of(policy))
    with pytest.raises(ValueError, match=message):
        engine.fisher_operator(rows)


def test_the_entropy_bonus_is_in_gradient_and_improvement(head):
    batch, c = problem_of(head), 0.3
    engine = make_engine(head)
    engine.bind(batch)
    plain, theta, step = engine.surrogate_gradient(), engine.parameters().copy(), 1e-2 * np.ones(engine.size)
    engine.parameters()[:] += step
    without = engine.evaluate()
    engine.parameters()[:] = theta
    engine.bind(batch, entropy_coefficient=0.0)
    assert engine.surrogate_gradient().tobytes() == plain.tobytes()
    engine.bind(batch, entropy_coefficient=c)
    with_bonus = engine.surrogate_gradient()

    names, tensors = zip(*head.named_parameters(), strict=True)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    observations = torch.from_numpy(batch.observations)

    def entropy(values):
        distribution = torch.func.functional_call(head, dict(zip(names, values, strict=True)), (observations,))
        # The second term is nothing but a graph, where the entropy is constant.
        return distribution.entropy().mean() + 0.0 * sum(value.sum() for value in values)

    gradients = torch.autograd.grad(entropy(leaves), leaves, allow_unused=True, materialize_grads=True)
    expected = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
    assert np.linalg.norm(with_bonus - plain - c * expected) <= 1e-12 * max(np.linalg.norm(plain), 1.0)
    assert engine.evaluate() == pytest.approx((0.0, 0.0), abs=1e-15)
    before = float(entropy(tensors).detach())
    engine.parameters()[:] += step
    engine.parameters_changed()
    gain = float(entropy(tensors).detach()) - before
    improvement, kl = engine.evaluate()
    assert improvement == pytest.approx(without[0] + c * gain, abs=1e-13)
    assert kl == without[1]


def test_an_entropy_bonus_that_cannot_be_is_named():
    case = make_case()
    engine = make_engine(case.policy, "autograd")
    with pytest.raises(ValueError, match="entropy_coefficient: nan"):
        engine.bind(case.batch(), entropy_coefficient=np.nan)

    def mixture(outputs):
        return MixtureSameFamily(Categorical(logits=outputs[:, :2]), Normal(outputs[:, 2:], 1.0))

    engine = make_engine(Head(4, mixture))
    batch = Batch(np.zeros((ROWS, 4)), np.zeros(ROWS), np.ones(ROWS))
    engine.bind(batch)
    with pytest.raises(
        ValueError, match=r"entropy_coefficient: 0\.1 given for a policy that returns a MixtureSameFamily"
    ):
        engine.bind(batch, entropy_coefficient=0.1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Dropout(0.5), "'body.1', a Dropout in training mode, draws random numbers"),
        (nn.BatchNorm1d(5), "'body.1', a BatchNorm1d in training mode, mixes the rows of a batch"),
        (nn.RReLU(), "'body.1', a RReLU in training mode, draws random numbers"),
    ],
)
def test_layers_that_do_not_map_rows_to_rows_are_refused_in_training_mode(layer, message):
    policy = Head(*HEADS["Bernoulli"])
    policy.body[1] = layer.double()
    with pytest.raises(ValueError, match=f"policy: {message}.*policy.eval"):
        make_engine(policy)
    engine = make_engine(policy.eval())
    engine.bind(problem_of(policy))
    assert trust_region_step(engine, max_kl=1e-3).status == Status.SUCCESS
    batch = problem_of(policy)
    policy.train()
    with pytest.raises(ValueError, match=message):
        engine.bind(batch)


def test_a_log_probability_that_is_not_finite_is_named():
    policy = Head(2, lambda outputs: Normal(outputs[:, 0], (outputs[:, 1] * 0).clamp_min(0.0), validate_args=False))
    batch = Batch(np.ones((ROWS, 4)), np.zeros(ROWS), np.ones(ROWS))
    with pytest.raises(ValueError, match=r"policy: the log-probability of sample 0 is (-inf|nan)"):
        make_engine(policy).bind(batch)


def test_a_trial_that_the_distribution_refuses_is_not_finite():
    policy = Head(4, state_dependent_normal)
    engine = make_engine(policy)
    engine.bind(problem_of(policy))
    engine.parameters()[:] = 1e300
    engine.parameters_changed()
    assert np.isnan(engine.evaluate()).all()


def test_an_engine_over_gathered_parameters_makes_the_same_step(monkeypatch):
    """As for a module on a GPU, on whose place the CPU stands here."""
    monkeypatch.setattr(autograd, "flat_parameters", GatheredParameters)
    policy, viewed = Head(4, state_dependent_normal), Head(4, state_dependent_normal)
    batch = problem_of(policy)
    engine = make_engine(policy)
    engine.bind(batch)
    monkeypatch.undo()
    other = make_engine(viewed)
    other.bind(batch)
    for one in (engine, other):
        assert trust_region_step(one, max_kl=1e-3).status == Status.SUCCESS
    assert engine.parameters().tobytes() == other.parameters().tobytes()
    for a, b in zip(policy.parameters(), viewed.parameters(), strict=True):
        assert torch.equal(a, b)
    # What is written to the module is found when the engine binds again.
    with torch.no_grad():
        policy.body[0].bias.fill_(0.5)
    engine.bind(batch)
    assert (engine.parameters()[20:25] == 0.5).all()


def images_of(rows=ROWS):
    """A batch of bytes for `Bright`, with masks, and log-probabilities that are not quite the policy's."""
    rng = np.random.default_rng(4)
    actions, advantages = rng.integers(3, size=rows), rng.normal(size=rows)
    log_probs = rng.normal(-1.1, 0.1, rows)
    masks = np.ones((rows, 3), bool)
    masks[::3, 2] = actions[::3] == 2
    return Batch(rng.integers(0, 256, (rows, 32)).astype(np.uint8), actions, advantages, log_probs, masks)


class Bright(Convolutional):
    def forward(self, observations):
        assert observations.dtype == torch.float64
        return super().forward(observations / 255)


def numbers_of(engine, rows=None):
    v = np.random.default_rng(2).normal(size=engine.size)
    found = [engine.surrogate_gradient(), engine.fisher_operator(rows) @ v, engine.entropy()]
    theta = engine.parameters().copy()
    for direction in ("new_old", "old_new"):
        engine.parameters()[:] = theta + 0.01 * v
        engine.parameters_changed()
        found += engine.evaluate(direction)
    engine.parameters()[:] = theta
    engine.parameters_changed()
    return found


def test_bytes_are_the_floats_that_they_stand_for():
    policy, batch = Bright(), images_of()
    assert batch.observations.dtype == np.uint8
    found = []
    for observations in (batch.observations, batch.observations.astype(np.float64)):
        engine = make_engine(policy, observation_shape=(2, 4, 4))
        engine.bind(
            Batch(observations, batch.actions, batch.advantages, batch.log_probs, batch.action_masks),
            entropy_coefficient=0.1,
        )
        found.append(numbers_of(engine))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("rows", [None, np.arange(0, ROWS, 4)], ids=["all", "some"])
def test_bytes_in_several_chunks_give_the_same_sums(monkeypatch, rows):
    batch = images_of()
    whole, chunked = (make_engine(Bright(), observation_shape=(2, 4, 4)) for _ in range(2))
    whole.bind(batch, total=2 * ROWS, entropy_coefficient=0.1)
    monkeypatch.setattr(autograd, "_CHUNK_BYTES", 7 * 32 * 8)
    chunked.bind(batch, total=2 * ROWS, entropy_coefficient=0.1)
    assert [chunk.start for chunk in chunked._bound._chunks] == [0, 7, 14, 21]
    for one, other in zip(numbers_of(whole, rows), numbers_of(chunked, rows), strict=True):
        assert relative_error(np.asarray(one), np.asarray(other)) < 1e-12
    for engine in (whole, chunked):
        assert trust_region_step(engine, max_kl=1e-3, fisher_rows=rows).status == Status.SUCCESS
    assert relative_error(whole.parameters(), chunked.parameters()) < 1e-10


class TwoOffsets(Bright):
    """With two offsets of its logits, whose gradients are one tensor of torch's."""

    def __init__(self):
        super().__init__()
        self.offset, self.other_offset = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))

    def forward(self, observations):
        return Categorical(logits=super().forward(observations).logits + (self.offset + self.other_offset))


def test_parameters_that_are_added_to_each_other_get_their_gradient_once_from_every_chunk(monkeypatch):
    whole, chunked = (make_engine(TwoOffsets(), observation_shape=(2, 4, 4)) for _ in range(2))
    whole.bind(images_of())
    monkeypatch.setattr(autograd, "_CHUNK_BYTES", 7 * 32 * 8)
    chunked.bind(images_of())
    assert relative_error(whole.surrogate_gradient(), chunked.surrogate_gradient()) < 1e-12


def test_a_preconditioner_by_name_needs_the_native_engine():
    with pytest.raises(ValueError, match="preconditioner: 'kfac' needs the native engine"):
        make_engine(make_case().policy, "autograd").preconditioner("kfac", damping=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here that torch can use")
def test_a_policy_on_a_gpu_is_served_where_it_lives():
    policy, twin = Head(4, state_dependent_normal), Head(4, state_dependent_normal)
    batch = problem_of(twin)
    policy.cuda()
    engine, other = make_engine(policy), make_engine(twin)
    for one in (engine, other):
        one.bind(batch)
    v = np.random.default_rng(2).normal(size=engine.size)
    assert relative_error(engine.surrogate_gradient(), other.surrogate_gradient()) < 1e-10
    assert relative_error(engine.fisher_operator() @ v, other.fisher_operator() @ v) < 1e-10
    for one in (engine, other):
        assert trust_region_step(one, max_kl=1e-3).status == Status.SUCCESS
    assert relative_error(engine.parameters(), other.parameters()) < 1e-9
    assert next(policy.parameters()).is_cuda
    assert relative_error(next(policy.parameters()).detach().cpu(), next(twin.parameters()).detach().numpy()) < 1e-9
