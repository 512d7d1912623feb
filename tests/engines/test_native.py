import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from tests.engines.cases import make_case
from trpo_fast._core import library
from trpo_fast.engines import NativeEngine, make_engine
from trpo_fast.policies import MLPPolicy
from trpo_fast.rollout.batch import Batch, Sequences
from trpo_fast.solvers import Status, trust_region_step


class Renamed(MLPPolicy):
    """An MLPPolicy but for its name."""


class Scaled(MLPPolicy):
    def forward(self, observations):
        return super().forward(2 * observations)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def policy_of(kind=MLPPolicy, hidden=(4, 4)):
    return kind(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), hidden, seed=0)


def frozen():
    policy = policy_of()
    policy.log_std.requires_grad_(False)
    return policy


def tied():
    policy = policy_of(hidden=(4, 4, 4))
    policy.layers[2].weight = policy.layers[1].weight
    return policy


def with_noise():
    policy = policy_of()
    policy.layers[1] = Noisy(4, 4)
    return policy


def hooked():
    policy = policy_of()
    policy.layers[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return policy


def with_forward(part):
    policy = policy_of()
    module = policy.get_submodule(part)
    module.forward = lambda x: x
    return policy


def extended():
    policy = policy_of()
    policy.temperature = nn.Parameter(torch.ones(1))
    return policy


def truncated():
    policy = policy_of()
    policy.layers[2].bias = None
    return policy


def normalized():
    policy = policy_of()
    nn.utils.parametrizations.weight_norm(policy.layers[0])
    return policy


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (frozen(), "'log_std' is frozen"),
        (tied(), "'layers.2.weight' is tied to 'layers.1.weight'"),
        (policy_of(Scaled), "Scaled has its own forward"),
        (with_noise(), "'layers.1' is a Noisy"),
        (hooked(), "'layers.0' has a forward hook"),
        (with_forward("layers.0"), "'layers.0' has a forward of its own"),
        (with_forward(""), "'MLPPolicy' has a forward of its own"),
        (extended(), "'temperature' of shape"),
        (truncated(), "'layers.2.bias' is missing"),
        (normalized(), "'layers.0' is a Parametrized"),
        (nn.Linear(2, 2), "Linear is not an MLPPolicy"),
    ],
    ids=lambda value: value.replace("'", "") if isinstance(value, str) else "",
)
def test_what_the_native_engine_cannot_serve_is_refused_by_name_and_left_to_autograd(policy, reason):
    with pytest.raises(ValueError, match=f"the native engine cannot serve this policy: .*{reason}"):
        make_engine(policy, "native")
    engine = make_engine(policy)
    assert engine.name == "autograd"
    assert reason in engine.reason


def test_a_subclass_with_the_same_forward_is_served():
    assert isinstance(make_engine(policy_of(Renamed)), NativeEngine)
    assert isinstance(make_engine(copy.deepcopy(policy_of())), NativeEngine)


def test_a_policy_changed_behind_the_engine_is_refused_by_name_at_bind():
    case = make_case()
    engine = make_engine(case.policy)
    case.policy.layers[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'layers.0.bias' is frozen"):
        engine.bind(case.batch())


def test_a_policy_with_another_activation_than_its_engine_is_refused():
    case = make_case()
    engine = make_engine(case.policy)
    own = case.policy.activation
    case.policy.activation = "relu"
    with pytest.raises(ValueError, match=f"policy: 'relu' where it had '{own}' when the engine was made; make another"):
        engine.bind(case.batch())
    case.policy.activation = own
    engine.bind(case.batch())


def test_sequences_are_for_a_recurrent_policy():
    case = make_case()
    batch = case.batch()
    shape = (1, len(batch))
    sequences = Sequences(np.zeros(shape, bool), np.ones(shape, bool), np.zeros((len(batch), 2)))
    batch = Batch(batch.observations, batch.actions, batch.advantages, sequences=sequences)
    with pytest.raises(ValueError, match="batch: sequences given; want none, the policy is not recurrent"):
        make_engine(case.policy, "native").bind(batch)


def act(engine, case, observations, narrow=False, **settings):
    rows = len(observations)
    shape, dtype = (rows, *case.actions.shape[1:]), np.int64 if case.oracle.discrete else case.dtype
    normalized, actions = np.empty((rows, 7), case.dtype), np.empty(shape, dtype)
    log_probs, env_actions = np.empty(rows, case.dtype), np.empty(shape, dtype)
    engine.actor(case.policy.action_space, seed=5, narrow=narrow).act(
        observations, 3, normalized, actions, log_probs, env_actions, **settings
    )
    return normalized, actions, log_probs


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "distribution", ["gaussian", "categorical", "masked multicategorical", "masked bernoulli", "masked product"]
)
@pytest.mark.parametrize("hidden", [(64, 64), (5, 7)], ids=str)
@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_the_first_ratio_is_exactly_one_for_actions_taken_a_few_rows_at_a_time(narrow, hidden, distribution, dtype):
    case = make_case(distribution, hidden, dtype=dtype, rows=203)
    engine = make_engine(case.policy)
    pieces = []
    for start in range(0, 203, 8):
        masks = None if case.masks is None else case.masks[start : start + 8]
        rows = case.observations[start : start + 8]
        pieces.append(act(engine, case, rows, narrow, first_row=start, action_masks=masks))
    case.observations, case.actions, log_probs = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    engine.bind(case.batch(log_probs=log_probs))
    assert engine.evaluate() == (0.0, 0.0)
    with_ratios = engine.surrogate_gradient()
    engine.bind(case.batch())
    np.testing.assert_array_equal(with_ratios, engine.surrogate_gradient())


@pytest.mark.parametrize(
    "distribution", ["gaussian", "categorical", "masked multicategorical", "masked bernoulli", "masked product"]
)
def test_results_do_not_depend_on_the_number_of_threads(distribution):
    case = make_case(distribution, (32, 32), dtype="float32", rows=3000)
    engine, v, theta = make_engine(case.policy), case.vector(), case.policy.flat.numpy.copy()
    threads, results = library.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            library.set_num_threads(count)
            engine.parameters()[:] = theta
            engine.bind(case.batch(), entropy_coefficient=0.1)
            gradient, product = engine.surrogate_gradient(), engine.fisher_operator() @ v
            engine.parameters()[:] += 0.01 * v
            engine.parameters_changed()
            results.append((gradient.tobytes(), product.tobytes(), engine.evaluate(), engine.evaluate("old_new")))
    finally:
        library.set_num_threads(threads)
    assert all(result == results[0] for result in results)


def test_two_engines_serve_two_python_threads():
    cases = [make_case(seed=seed, rows=500) for seed in range(4)]

    def work(case):
        engine = make_engine(case.policy)
        v = np.ones(len(case.policy.flat))
        products = []
        for _ in range(20):
            engine.bind(case.batch())
            products.append((engine.fisher_operator() @ v).tobytes())
        return set(products), case.oracle.fisher_product(case.theta, case.observations, v)

    with ThreadPoolExecutor(4) as pool:
        for products, expected in pool.map(work, cases):
            assert len(products) == 1
            np.testing.assert_allclose(np.frombuffer(products.pop()), expected, rtol=1e-9, atol=1e-12)


def test_a_failed_bind_leaves_the_engine_usable():
    case = make_case()
    engine = make_engine(case.policy)
    engine.bind(case.batch())
    gradient = engine.surrogate_gradient()
    broken = case.batch()
    broken.actions = np.zeros((131, 5))
    with pytest.raises(ValueError, match="actions"):
        engine.bind(broken)
    engine.bind(case.batch())
    np.testing.assert_array_equal(engine.surrogate_gradient(), gradient)


@pytest.mark.parametrize("kind", ["gaussian", "categorical", "multicategorical", "bernoulli"])
def test_a_network_whose_outputs_overflow_is_a_status_and_leaves_the_parameters_alone(kind):
    case = make_case(kind, dtype="float32")
    case.policy.flat.numpy[-5:] = 3e38  # weights and biases of the last layer: finite, their sums are not
    case.policy.flat.bump_versions()
    engine = make_engine(case.policy)
    engine.bind(case.batch())
    before = engine.parameters().copy()
    assert trust_region_step(engine).status == Status.NON_FINITE
    np.testing.assert_array_equal(engine.parameters(), before)


@pytest.mark.parametrize("value", [60.0, -1000.0])
def test_a_log_std_beyond_the_dtype_is_refused_by_name(value):
    case = make_case(dtype="float32")
    case.policy.flat.numpy[2] = value
    with pytest.raises(ValueError, match=f"log_std: item 2 is {value}; want -43 to 43"):
        make_engine(case.policy).bind(case.batch())
