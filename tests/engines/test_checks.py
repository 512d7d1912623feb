"""What is said of a module that cannot serve, at the engines' and the agent's doors."""

import re
import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    Normal,
    StudentT,
    TanhTransform,
    TransformedDistribution,
    VonMises,
)

from tests.engines.networks import DISTRIBUTIONS, FORMS, Detached, Once, compiling, policy_of
from trpo_fast import TRPO, MLPPolicy, fisher_matrix, make_engine, trust_region_step
from trpo_fast.engines import AutogradEngine, NativeEngine
from trpo_fast.engines.checks import check_critic, check_policy
from trpo_fast.policies import Product
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers import Status

OBSERVATIONS = np.random.default_rng(0).normal(size=(6, 4))


def categorical():
    return policy_of(FORMS["frozen parameters"])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_an_engine_works_where_gradients_are_off(context):
    policy, batch = categorical(), Batch(OBSERVATIONS, np.zeros(6, int), np.arange(6.0))
    plain = make_engine(policy)
    plain.bind(batch)
    v = np.ones(plain.size)
    expected = plain.surrogate_gradient(), plain.fisher_operator() @ v
    with context():
        engine = make_engine(policy)
        engine.bind(batch)
        np.testing.assert_array_equal(engine.surrogate_gradient(), expected[0])
        np.testing.assert_array_equal(engine.fisher_operator() @ v, expected[1])
        assert trust_region_step(engine).status == Status.SUCCESS


@pytest.mark.parametrize("given", [OBSERVATIONS[::-1], OBSERVATIONS.astype(">f8"), OBSERVATIONS.tolist()])
def test_the_fisher_matrix_takes_every_array(given):
    policy = categorical()
    np.testing.assert_allclose(
        fisher_matrix(policy, given), fisher_matrix(policy, OBSERVATIONS), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (OBSERVATIONS[:0], ValueError, r"observations: shape \(0, 4\) given; want \(B, ...\) with B >= 1"),
        (3.0, ValueError, r"observations: shape \(\) given; want"),
        (None, TypeError, "observations: NoneType of object given; want numbers"),
        (OBSERVATIONS + 0j, TypeError, "observations: ndarray of complex128 given; want numbers"),
        ([[1.0, 2.0], [3.0]], ValueError, "observations: no array can be made of it"),
        (np.ones((2, 5)), ValueError, r"policy: forward failed for observations of shape \(2, 5\)"),
    ],
)
def test_the_fisher_matrix_names_what_is_wrong_with_its_observations(given, error, message):
    with pytest.raises(error, match=message):
        fisher_matrix(categorical(), given)


def test_the_fisher_matrix_refuses_what_an_engine_refuses():
    with pytest.raises(TypeError, match=r"policy: NoneType given; want a torch\.nn\.Module"):
        fisher_matrix(None, OBSERVATIONS)
    with pytest.raises(ValueError, match="policy: '0', a BatchNorm1d in training mode, mixes the rows"):
        fisher_matrix(nn.Sequential(nn.BatchNorm1d(4), categorical()), OBSERVATIONS)


class Headed(nn.Module):
    def __init__(self, head, outputs=1):
        super().__init__()
        self.layer = nn.Linear(4, outputs)
        self.head = head

    def forward(self, observations):
        return Independent(self.head(self.layer(observations)), 1)


@pytest.mark.parametrize("head", [lambda y: StudentT(5.0, y, 1.0), lambda y: VonMises(y, torch.ones(1))])
def test_a_distribution_is_called_by_its_own_name(head):
    name = type(head(torch.zeros(1))).__name__
    with pytest.raises(ValueError, match=f"policy: torch has no KL divergence for the {name} that it returns"):
        fisher_matrix(Headed(head), OBSERVATIONS)


def test_the_part_of_a_product_without_a_divergence_is_named():
    policy = Headed(lambda y: y, 3)
    policy.forward = lambda x: Product(
        [Categorical(logits=policy.layer(x)), Independent(StudentT(5.0, policy.layer(x), 1.0), 1)]
    )
    with pytest.raises(ValueError, match="no KL divergence for the StudentT in part 1 of a Product that it returns"):
        fisher_matrix(policy, OBSERVATIONS)


def test_a_laplace_policy_has_a_fisher_matrix_and_learns():
    policy = Headed(lambda y: Laplace(y, 2.0))
    second = np.column_stack([OBSERVATIONS, np.ones(6)])
    expected = second.T @ second / 6 / 4.0
    np.testing.assert_allclose(fisher_matrix(policy, OBSERVATIONS), expected, rtol=1e-12)
    engine = make_engine(policy_of(DISTRIBUTIONS["Laplace"]))
    rng = np.random.default_rng(0)
    engine.bind(Batch(OBSERVATIONS, rng.normal(size=(6, 2)), rng.normal(size=6)))
    report = trust_region_step(engine, max_kl=0.01)
    assert report.status == Status.SUCCESS
    assert 0.003 < report.kl <= 0.01
    with pytest.raises(
        ValueError, match=r"linearization: 'double_backward' given; want another .* a Laplace: the second"
    ):
        pinned = make_engine(policy, linearization="double_backward")
        pinned.bind(Batch(OBSERVATIONS.astype(np.float32), np.ones((6, 1)), np.ones(6)))
        pinned.fisher_operator()


def test_an_engine_without_a_check_before_it_refuses_a_wrong_product():
    policy = policy_of(FORMS["a function whose backward detaches"])
    engine = make_engine(policy)
    engine.bind(Batch(OBSERVATIONS, np.zeros(6, int), np.ones(6)))
    operator = engine.fisher_operator()
    with pytest.raises(ValueError, match=r"policy: its backward \(Detached\) is not differentiated as it is computed"):
        operator @ np.ones(engine.size)


@pytest.mark.parametrize("function", [Once, Detached])
def test_a_function_that_all_outputs_pass_through_and_is_not_differentiated_is_refused(function):
    message = rf"policy: its backward \({function.__name__}\) is not differentiated as it is computed"
    normal = Headed(lambda y: Normal(function.apply(y), 1.0))
    squashed = Headed(lambda y: TransformedDistribution(Normal(function.apply(y), 1.0), [TanhTransform()]))
    for policy in (normal, squashed):
        with pytest.raises(ValueError, match=message):
            check_policy(policy, [torch.from_numpy(OBSERVATIONS).float()])
    with pytest.raises(ValueError, match=message):
        fisher_matrix(normal, OBSERVATIONS)


class Valued(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.function = function

    def forward(self, observations):
        return self.function(self.layer(observations)[:, 0])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda v: v + torch.randn(len(v)), "critic: two forward passes of the same rows differ, and the forward of"),
        (lambda v: v - v.mean(), "critic: a row's result depends on the other rows of the batch"),
        (lambda v: v.detach(), "critic: nothing connects its values to its parameters"),
    ],
)
def test_a_critic_is_checked_too(function, message):
    with pytest.raises(ValueError, match=message):
        check_critic(Valued(function), [torch.from_numpy(OBSERVATIONS).float()])
    check_critic(Valued(torch.tanh), [torch.from_numpy(OBSERVATIONS).float()])


def root_of_zero(y):
    return y + (y - y.detach()).abs().sqrt()


def norm_of_zeros(y):
    return y + (y * 0.0).pow(2).sum(1, keepdim=True).sqrt()


def what_a_where_leaves_out(y):
    return y + torch.where(y.abs() > 100.0, (y * 0.0).sqrt(), 0.0)


NOT_FINITE = (root_of_zero, norm_of_zeros, what_a_where_leaves_out)


@pytest.mark.parametrize("function", NOT_FINITE)
def test_derivatives_that_are_finite_for_no_row_are_refused(function):
    rows = torch.from_numpy(OBSERVATIONS).float()
    words = "its derivatives are not finite{} for any of the 12 rows of observations that were made up to try it"
    with pytest.raises(ValueError, match="policy: " + words.format(r" \(Function '\w+Backward0' returned nan.*\)")):
        check_policy(Headed(lambda y: Normal(function(y), 1.0)), [rows, -rows])
    with pytest.raises(ValueError, match=r"policy: its derivatives are not finite \(Function '\w+Backward0' returned"):
        check_policy(Headed(lambda y: TransformedDistribution(Normal(function(y), 1.0), [TanhTransform()])), [rows])
    with pytest.raises(ValueError, match="critic: " + words.format("")):
        check_critic(Valued(lambda v: function(v[:, None])[:, 0]), [rows, -rows])


def test_derivatives_that_are_not_finite_for_some_rows_are_not_held_against_a_module():
    rows = torch.from_numpy(OBSERVATIONS).float()
    rows[:, 0] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])

    def rooted(y, x):
        return y + 2.0 * (y * x[:, :1]).pow(2).sum(1, keepdim=True).sqrt()

    class Rooted(nn.Module):
        def __init__(self, detached=False, value=False):
            super().__init__()
            self.layer, self.detached, self.value = nn.Linear(4, 1), detached, value

        def forward(self, observations):
            y = self.layer(observations)
            found = rooted(y, observations) * (y.detach() if self.detached else 1.0)
            return found[:, 0] if self.value else Independent(Normal(found, 1.0), 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_policy(Rooted(), [rows])
    with pytest.warns(UserWarning, match="policy: its gradients are not the derivatives"):
        check_policy(Rooted(detached=True), [rows])
    check_critic(Rooted(value=True), [rows])
    rows[:, 0] = 0.0
    with pytest.raises(ValueError, match=r"policy: its derivatives are not finite .* any of the 6 rows"):
        check_policy(Rooted(), [rows])


class Gaussian(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, observations):
        return Independent(Normal(self.body(observations), 0.5), 1)


def plain_body():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def test_an_agent_refuses_noise_and_serves_a_compiled_module_as_the_plain_one(tmp_path):
    noisy = nn.Sequential(plain_body(), nn.Dropout(0.5)).eval()
    noisy[1].forward = lambda x: nn.functional.dropout(x, 0.5)
    with pytest.raises(ValueError, match=re.escape("policy: two forward passes of the same rows differ, and 'body.1'")):
        TRPO("Pendulum-v1", policy=Gaussian(noisy))
    with compiling():
        compiled = torch.compile(Gaussian(plain_body()))
    agent = TRPO("Pendulum-v1", policy=compiled, num_envs=1, steps_per_env=64)
    agent.learn(64)
    agent.save(tmp_path / "agent.trpo")
    again = TRPO.load(tmp_path / "agent.trpo", policy=Gaussian(plain_body()))
    for one, other in zip(agent.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    agent.close()
    again.close()


def test_a_lazy_layer_is_named():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LazyLinear(2)

        def forward(self, observations):
            return Categorical(logits=self.layer(observations))

    with pytest.raises(ValueError, match="policy: 'layer', a LazyLinear, has no weight before its first forward pass"):
        make_engine(Lazy())
    with pytest.raises(ValueError, match="policy: 'layer', a LazyLinear"):
        fisher_matrix(Lazy(), OBSERVATIONS)


def serving(name="autograd"):
    engine = make_engine(MLPPolicy(Box(-1.0, 1.0, (4,)), Discrete(3), (2,)), name)
    engine.bind(Batch(OBSERVATIONS, np.zeros(6, int), np.arange(6.0)))
    return engine


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_engine(categorical(), np.array(["auto", "native"])), "engine: .* given; want one of 'auto'"),
        (lambda: AutogradEngine([], ""), r"policy: \[\] given; want a Module"),
        (
            lambda: AutogradEngine(categorical(), "", observation_shape=np.array(4)),
            r"observation_shape: array\(4\) given",
        ),
        (lambda: AutogradEngine(categorical(), "", linearization=[]), r"linearization: \[\] given; want one of 'auto'"),
        (lambda: NativeEngine(categorical()), "(?s)policy: .* given; want a MLPPolicy"),
        (lambda: serving("native").bind(...), "batch: Ellipsis given; want a Batch"),
        (lambda: serving().bind(...), "batch: Ellipsis given; want a Batch"),
        (lambda: serving().evaluate(np.array(["new_old", "old_new"])), "kl_direction: .* given; want one of 'new_old'"),
        (lambda: serving().fisher_operator([[0], [0, 1]]), "rows: no array can be made of it"),
        (lambda: serving().fisher_operator(np.arange(7)), "rows: 7 given; want increasing row numbers from 0 to 5"),
        # Differences of neighbours that are beyond int64
        (lambda: serving().fisher_operator(np.array([0, 2**62, -(2**63), 3])), f"rows: item 1 is {2**62}; want"),
        (lambda: serving().actor(Discrete(3), narrow=3), "narrow: 3 given; want True or False"),
        (lambda: fisher_matrix(categorical(), torch.ones(2, 4, device="meta")), "observations: a tensor on meta given"),
        (lambda: fisher_matrix(categorical(), torch.ones(2, 4).bfloat16()), "observations: .*bfloat16 given"),
    ],
)
def test_what_is_of_another_kind_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
