import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical, Independent, Normal

from tests import reference
from trpo_fast._core import library
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.policies import ACTIVATIONS, MLPCritic, MLPPolicy
from trpo_fast.policies.distributions import MultiCategorical

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (2, 3))
CONTINUOUS = spaces.Box(-1, 1, (4,))
DISCRETE = spaces.Discrete(5, start=2)
SEVERAL = spaces.MultiDiscrete([[2, 3], [1, 4]])
FLAGS = spaces.MultiBinary((2, 3))


def test_log_std_is_a_parameter_and_comes_first():
    policy = MLPPolicy(OBSERVATIONS, CONTINUOUS, (8,), log_std_init=-0.5)
    names = [name for name, _ in policy.named_parameters()]
    assert names == ["log_std", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    np.testing.assert_array_equal(policy.flat.numpy[:4], np.float32(-0.5))
    assert policy.flat.names == tuple(names)
    assert "log_std" not in dict(MLPPolicy(OBSERVATIONS, DISCRETE).named_parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "space", [CONTINUOUS, DISCRETE, SEVERAL, FLAGS], ids=["Box", "Discrete", "MultiDiscrete", "MultiBinary"]
)
def test_forward_is_the_oracles(space, activation):
    policy = MLPPolicy(OBSERVATIONS, space, (8, 7), activation, log_std_init=0.3, dtype=torch.float64, seed=1)
    policy.flat.numpy[:] += 0.5 * np.random.default_rng(0).normal(size=len(policy.flat))
    oracle = reference.Policy(policy.widths, activation, policy.distribution, policy.nvec)
    observations = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distribution = policy(observations)
    theta, rows = policy.flat.numpy, observations.reshape(6, 6).numpy()
    if space is CONTINUOUS:
        assert isinstance(distribution, Independent)
        assert isinstance(distribution.base_dist, Normal)
        outputs = distribution.mean
        np.testing.assert_allclose(distribution.stddev.detach()[3], np.exp(theta[:4]), rtol=1e-14)
    else:
        kind = {"categorical": Categorical, "multicategorical": MultiCategorical, "bernoulli": Independent}
        assert isinstance(distribution, kind[policy.distribution])
        outputs = distribution.base_dist.logits if space is FLAGS else distribution.logits
    expected = oracle.forward(theta, rows)
    if space in (DISCRETE, SEVERAL):
        expected = oracle.log_p(expected)
    np.testing.assert_allclose(outputs.detach(), expected, rtol=1e-12)
    actions = distribution.sample()
    assert (
        distribution.event_shape
        == actions.shape[1:]
        == (() if space is DISCRETE else (policy.widths[-1] if space is FLAGS else 4,))
    )
    log_probs = oracle.log_prob(theta, rows, actions.long().numpy() if space is FLAGS else actions.numpy())
    np.testing.assert_allclose(distribution.log_prob(actions).detach(), log_probs, rtol=1e-12)
    assert distribution.batch_shape == (6,)


def test_flat_rows_serve_as_well_as_the_spaces_shape():
    policy = MLPPolicy(OBSERVATIONS, CONTINUOUS, seed=0)
    observations = torch.ones(3, 2, 3)
    torch.testing.assert_close(policy(observations).mean, policy(observations.flatten(1)).mean, rtol=0, atol=0)


def test_observations_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"observations: shape \(3, 5\) given; want 6 numbers"):
        MLPPolicy(OBSERVATIONS, CONTINUOUS)(torch.ones(3, 5))


def test_critic_gives_one_value_a_row():
    critic = MLPCritic(OBSERVATIONS, (8, 8), "elu", dtype=torch.float64, seed=0)
    observations = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = reference.MLP(critic.widths, "elu").forward(critic.flat.numpy, observations.reshape(5, 6).numpy())[0]
    values = critic(observations)
    assert values.shape == (5,)
    np.testing.assert_allclose(values.detach(), expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize(("network", "output_gain"), [("policy", 0.01), ("critic", 1.0)])
def test_weights_start_orthogonal_and_biases_zero(network, output_gain):
    module = MLPPolicy(OBSERVATIONS, CONTINUOUS) if network == "policy" else MLPCritic(OBSERVATIONS)
    gains = [math.sqrt(2.0), math.sqrt(2.0), output_gain]
    for layer, gain in zip(module.layers, gains, strict=True):
        singular_values = torch.linalg.svdvals(layer.weight.detach())
        torch.testing.assert_close(singular_values, torch.full_like(singular_values, gain), rtol=1e-5, atol=1e-6)
        assert not layer.bias.any()


def test_a_seed_fixes_the_weights_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    first, second = (MLPPolicy(OBSERVATIONS, CONTINUOUS, seed=7) for _ in range(2))
    double = MLPPolicy(OBSERVATIONS, CONTINUOUS, seed=7, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first.flat.numpy, second.flat.numpy)
    np.testing.assert_array_equal(first.flat.numpy, double.flat.numpy.astype(np.float32))
    assert (first.flat.numpy != MLPPolicy(OBSERVATIONS, CONTINUOUS, seed=8).flat.numpy).any()


@pytest.mark.parametrize("width", [64, 300])
def test_a_seed_fixes_every_bit_of_the_weights_for_any_number_of_threads(width):
    space = spaces.Box(-1.0, 1.0, (24,))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(MLPCritic(space, hidden_sizes=(width, width), dtype="float64", seed=3).state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def test_without_a_seed_torchs_generator_decides():
    torch.manual_seed(0)
    first = MLPPolicy(OBSERVATIONS, DISCRETE)
    torch.manual_seed(0)
    np.testing.assert_array_equal(first.flat.numpy, MLPPolicy(OBSERVATIONS, DISCRETE).flat.numpy)
    assert (first.flat.numpy != MLPPolicy(OBSERVATIONS, DISCRETE).flat.numpy).any()


def test_a_policy_without_hidden_layers_is_linear():
    assert MLPPolicy(OBSERVATIONS, DISCRETE, ()).widths == (6, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": (64, 0)}, r"hidden_sizes: \(64, 0\)"),
        ({"hidden_sizes": (2**24 + 1,)}, r"hidden_sizes: \(16777217,\) given; want positive integers up to 2\*\*24"),
        ({"hidden_sizes": (64, True)}, r"hidden_sizes: \(64, True\)"),
        ({"hidden_sizes": "64"}, "hidden_sizes: '64' given; want positive integers"),
        ({"hidden_sizes": (64, 1.5)}, r"hidden_sizes: \(64, 1.5\)"),
        ({"activation": "mish"}, "activation: 'mish' given; want one of 'tanh', 'relu'"),
        ({"activation": np.array(["tanh", "relu"])}, "activation: .* given; want one of 'tanh', 'relu'"),
        ({"log_std_init": math.nan}, "log_std_init: nan"),
        ({"log_std_init": 1e300}, "log_std_init: 1e[+]300 given; want a finite number of torch.float32"),
        ({"dtype": np.array(["float32", "float64"])}, "dtype: .* given; want torch.float32, torch.float64 or"),
        ({"dtype": torch.float16}, r"dtype: torch.float16"),
        ({"dtype": "float16"}, r"dtype: 'float16' given; want torch.float32, torch.float64 or their names"),
        ({"dtype": np.float32}, r"dtype: <class 'numpy.float32'>"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MLPPolicy(OBSERVATIONS, CONTINUOUS, **settings)


def test_one_hidden_size_must_be_a_sequence_too():
    for make in (MLPPolicy, lambda space, _, sizes: MLPCritic(space, sizes)):
        with pytest.raises(TypeError, match="hidden_sizes: 64 given; want a sequence of positive integers"):
            make(OBSERVATIONS, CONTINUOUS, 64)


def test_sizes_of_every_integer_type_become_ints():
    for sizes in ([np.int64(3), 4], np.array([3, 4], np.int32)):
        widths = MLPPolicy(OBSERVATIONS, CONTINUOUS, sizes).widths
        assert widths == (6, 3, 4, 4)
        assert {type(width) for width in widths} == {int}


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_dtype_may_be_given_by_name(name):
    policy = MLPPolicy(OBSERVATIONS, CONTINUOUS, dtype=name)
    assert {parameter.dtype for parameter in policy.parameters()} == {getattr(torch, name)}
    assert policy.flat.numpy.dtype == MLPCritic(OBSERVATIONS, dtype=name).flat.numpy.dtype == name


def test_unsupported_spaces_are_named():
    for space in (spaces.Text(3), spaces.Box(0, 5, (2,), np.int64)):
        with pytest.raises(ValueError, match=rf"action space: {type(space).__name__}.* given; want a Box"):
            MLPPolicy(OBSERVATIONS, space)
    for network in (lambda space: MLPPolicy(space, CONTINUOUS), MLPCritic):
        with pytest.raises(ValueError, match=r"observation space.*Text.*Box"):
            network(spaces.Text(3))
        assert network(spaces.Dict(a=spaces.Discrete(3), b=OBSERVATIONS)).widths[0] == 9


def test_the_lists_of_activations_are_one():
    assert tuple(ACTIVATIONS) == library.ACTIVATIONS == tuple(reference.ACTIVATIONS)
    with pytest.raises(ValueError, match=f"want one of {', '.join(map(repr, ACTIVATIONS))}$"):
        TRPOConfig(activation="mish")


EDGES = [-np.inf, -1e30, -800.0, -105.0, -20.5, -0.0, 0.0, 5e-42, 19.9, 20.1, 40.0, 90.0, 800.0, 1e30, np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernels_and_torch_agree_on_extreme_values(activation, dtype):
    # torch's in float64: of three float32 numbers and more its gelu (oneDNN's) is infinite at 3e38 and NaN at infinity
    points = np.array(EDGES, dtype)
    x = torch.from_numpy(points.astype(np.float64)).requires_grad_()
    y = ACTIVATIONS[activation](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    tolerances = {"rtol": 4 * float(np.finfo(dtype).eps), "atol": 40 * float(np.finfo(dtype).eps)}
    np.testing.assert_allclose(library.elementary(activation, points), y.detach(), **tolerances)
    if activation in ("silu", "gelu", "softplus"):
        np.testing.assert_allclose(library.elementary(f"{activation}_derivative", points), slope, **tolerances)
