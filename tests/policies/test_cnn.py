import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Bernoulli, Categorical, Independent, Normal

from trpo_fast.policies import CNNCritic, CNNPolicy
from trpo_fast.policies.distributions import MultiCategorical


def images(*shape, low=0, high=255, dtype=np.uint8):
    return spaces.Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (images(84), "two to four axes"),
        (images(9, 3, 9), r"Box\(0, 255, \(9, 3, 9\), uint8\) given, of which the shape does not tell"),
        (spaces.Box(-np.inf, np.inf, (3, 9, 9)), ".*want bounds of at most 65535"),
        (spaces.Discrete(3), r"Discrete\(3\) given; want a Box of two"),
    ],
)
def test_what_is_no_image_is_named(space, message):
    for make in (CNNCritic, lambda space: CNNPolicy(space, spaces.Discrete(2))):
        with pytest.raises(ValueError, match=message):
            make(space)


@pytest.mark.parametrize(
    ("shape", "axes"),  # f frames, c channels, h height, w width
    [
        ((9, 8), "hw"),
        ((9, 8, 1), "hwc"),
        ((1, 9, 8), "chw"),
        ((3, 9, 8), "chw"),
        ((9, 8, 3), "hwc"),
        ((2, 9, 8, 3), "fhwc"),
        ((2, 3, 9, 8), "fchw"),
    ],
)
def test_every_order_of_axes_reaches_the_convolution_as_planes_of_height_and_width(shape, axes):
    critic = CNNCritic(images(*shape), seed=1)
    seen = []
    critic.convolutions[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    values = critic(torch.from_numpy(pixels)), critic(torch.from_numpy(pixels).reshape(4, -1).double())
    torch.testing.assert_close(*values)
    in_order = pixels.transpose(0, *(1 + axes.index(axis) for axis in "fchw" if axis in axes))
    for x in seen:
        np.testing.assert_array_equal(x.detach().numpy(), in_order.reshape(4, -1, 9, 8).astype(np.float32) / 255)


def test_the_axis_that_is_said_is_the_one_that_is_used():
    cube = spaces.Box(0, 1, (8, 8, 8), np.float32)
    with pytest.raises(ValueError, match="does not tell"):
        CNNCritic(cube)
    x = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    first, last = (CNNCritic(cube, channel_axis=axis, seed=0) for axis in ("first", "last"))
    torch.testing.assert_close(first(x), last(x.permute(0, 2, 3, 1)))
    assert (first(x) != last(x)).all()


@pytest.mark.parametrize(
    ("space", "divisor"),
    [
        (spaces.Box(0, 1, (2, 6, 7), np.float32), 1),
        (spaces.Box(0, 10, (6, 7, 2), np.uint8), 10),
        (spaces.Box(0, 1, (3, 3, 2), np.bool_), 1),
        (spaces.MultiBinary([4, 4, 1]), 1),
    ],
    ids=str,
)
def test_boards_are_divided_by_their_largest_bound(space, divisor):
    space.seed(3)
    critic, board = CNNCritic(space, seed=2, dtype="float64"), space.sample()
    seen = []
    critic.convolutions[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert critic(torch.from_numpy(board[None])).isfinite().all()
    assert seen[0].sum() == pytest.approx(board.sum() / divisor)


@pytest.mark.parametrize(
    ("action_space", "kind", "base", "outputs"),
    [
        (spaces.Discrete(5), Categorical, Categorical, 5),
        (spaces.MultiDiscrete([2, 3]), MultiCategorical, Categorical, 5),
        (spaces.MultiBinary(4), Independent, Bernoulli, 4),
        (spaces.Box(-1, 1, (2, 3)), Independent, Normal, 6),
    ],
)
def test_every_action_space_has_its_distribution(action_space, kind, base, outputs):
    policy = CNNPolicy(images(1, 5, 5), action_space, log_std_init=-0.5, seed=0)
    distribution = policy(torch.zeros(3, 25))
    assert type(distribution) is kind
    assert type(getattr(distribution, "base_dist", distribution)) is base
    assert distribution.batch_shape == (3,)
    assert policy.head.weight.shape[0] == outputs
    if base is Normal:
        assert (policy.log_std == -0.5).all()


@pytest.mark.parametrize(
    ("side", "weights"),
    [
        (36, [(32, 3, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 64), (1, 512)]),
        (84, [(32, 3, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (1, 512)]),
        (35, [(16, 3, 3, 3), (128, 16 * 33 * 33), (1, 128)]),
    ],
)
def test_the_network_is_natures_from_36_pixels_on_and_minatars_below(side, weights):
    critic = CNNCritic(images(3, side, side))
    assert [tuple(p.shape) for name, p in critic.named_parameters() if name.endswith("weight")] == weights


def test_values_are_those_of_convolutions_a_dense_layer_and_a_head_with_relu_between():
    critic = CNNCritic(images(3, 9, 9), seed=1)
    pixels = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = critic(pixels)
    assert values.shape == (4,)
    x = pixels.float() / 255
    for convolution in critic.convolutions:
        x = torch.relu(torch.conv2d(x, convolution.weight, convolution.bias))
    hidden = torch.relu(x.flatten(1) @ critic.dense.weight.T + critic.dense.bias)
    torch.testing.assert_close(values, (hidden @ critic.head.weight.T + critic.head.bias)[:, 0])


def test_weights_are_orthogonal_with_the_gains_of_the_mlp():
    policy = CNNPolicy(images(1, 6, 6), spaces.Discrete(3), seed=0, dtype="float64")
    for layer, gain in ((policy.convolutions[0], 2**0.5), (policy.dense, 2**0.5), (policy.head, 0.01)):
        weight = layer.weight.detach().flatten(1)
        small = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(small, gain**2 * torch.eye(len(small), dtype=torch.float64), atol=1e-12, rtol=0)
        assert not layer.bias.any()


def test_a_seed_gives_the_same_weights_in_both_precisions_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    single, double = (CNNPolicy(images(1, 6, 6), spaces.Discrete(3), seed=7, dtype=d) for d in ("float32", "float64"))
    assert (torch.random.get_rng_state() == before).all()
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-6, atol=1e-8)
    assert CNNPolicy(images(1, 6, 6), spaces.Discrete(3), seed=8).dense.weight.ne(single.dense.weight).any()
    twin = copy.deepcopy(single)
    torch.testing.assert_close(twin(torch.ones(2, 36)).logits, single(torch.ones(2, 36)).logits, rtol=0, atol=0)


def test_observations_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"observations: shape \(2, 35\) given; want \(B, 36\)"):
        CNNCritic(images(1, 6, 6))(torch.zeros(2, 35))
