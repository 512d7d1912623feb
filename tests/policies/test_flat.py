import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from trpo_fast.policies import FlatParameters, MLPCritic, MLPPolicy
from trpo_fast.policies.flat import GatheredParameters, flat_parameters


def make_policy(**settings):
    return MLPPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)), (4, 5), seed=0, **settings)


def values_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).numpy()


def test_the_buffer_holds_the_parameters_in_named_parameters_order_without_a_copy():
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    before = values_of(module).copy()
    flat = FlatParameters(module)
    assert flat.names == ("0.weight", "0.bias", "1.weight", "1.bias")
    np.testing.assert_array_equal(flat.numpy, before)
    flat.numpy[:] = np.arange(len(flat))
    np.testing.assert_array_equal(values_of(module), np.arange(len(flat)))
    with torch.no_grad():
        module[1].bias[-1] = -7.0
    assert flat.numpy[-1] == flat.tensor[-1] == -7.0
    assert np.shares_memory(flat.numpy, flat.tensor.numpy())


def test_an_optimizer_and_load_state_dict_write_into_the_buffer():
    policy = make_policy()
    policy(torch.ones(1, 3)).mean.sum().backward()
    torch.optim.SGD(policy.parameters(), lr=0.1).step()
    assert policy.flat.is_intact()
    np.testing.assert_array_equal(policy.flat.numpy, values_of(policy))
    other = make_policy(log_std_init=1.0)
    policy.load_state_dict(other.state_dict())
    assert policy.flat.is_intact()
    np.testing.assert_array_equal(policy.flat.numpy, other.flat.numpy)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copied_policy_has_a_buffer_of_its_own(duplicate):
    policy = make_policy()
    copied = duplicate(policy)
    assert copied.flat.is_intact()
    np.testing.assert_array_equal(copied.flat.numpy, policy.flat.numpy)
    copied.flat.numpy[:] = 0.0
    assert values_of(copied).max() == 0.0
    assert values_of(policy).max() > 0.0
    assert policy.flat.is_intact()


def test_a_change_of_dtype_makes_a_new_buffer_that_the_policy_uses():
    policy = make_policy()
    before = policy.flat.numpy.copy()
    policy.double()
    assert policy.flat.is_intact()
    assert policy.flat.numpy.dtype == np.float64
    policy.flat.numpy[0] = 2.0
    assert policy.log_std[0] == 2.0
    np.testing.assert_array_equal(policy.flat.numpy[1:], before[1:])


@pytest.mark.parametrize(
    "replace",
    [
        lambda policy, state: policy.load_state_dict(state, assign=True),
        lambda policy, state: setattr(policy.layers[1], "weight", nn.Parameter(state["layers.1.weight"])),
        lambda policy, state: setattr(policy.layers[1].weight, "data", state["layers.1.weight"]),
    ],
    ids=["load_state_dict(assign=True)", "another parameter", "other data"],
)
def test_a_replaced_parameter_is_noticed_and_made_a_view_again_of_the_same_buffer(replace):
    policy = make_policy()
    buffer = policy.flat.numpy
    state = {name: tensor + 1.0 for name, tensor in policy.state_dict().items()}
    replace(policy, state)
    assert not policy.flat.is_intact()
    expected = values_of(policy)
    policy.flat.restore()
    assert policy.flat.is_intact()
    assert policy.flat.numpy is buffer
    np.testing.assert_array_equal(buffer, expected)


def test_a_module_in_the_place_of_one_that_is_gone_is_noticed():
    # The new one may lie where the old one lay, and have its id.
    for _ in range(20):
        module = nn.Module()
        module.body, module.head = nn.Linear(3, 2), nn.Linear(2, 1)
        flat = FlatParameters(module)
        assert flat.is_intact()
        del module.head
        module.head = nn.Linear(2, 1)
        assert not flat.is_intact()
        flat.restore()
        np.testing.assert_array_equal(flat.numpy, values_of(module))


def test_memory_that_share_memory_moved_is_noticed_and_the_array_made_again():
    # torch moves the storage below its tensors; an array made before points to memory that was given back.
    module = nn.Linear(3, 2)
    flat = FlatParameters(module)
    before = flat.numpy.copy()
    module.share_memory()
    assert not flat.is_intact()
    flat.restore()
    assert flat.is_intact() and module.weight.is_shared()
    np.testing.assert_array_equal(flat.numpy, before)
    flat.numpy[0] = 5.0
    assert module.weight[0, 0] == 5.0


def test_a_parameter_less_makes_a_shorter_array_of_the_same_buffer():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    flat = FlatParameters(module)
    del module[1]
    flat.restore()
    assert flat.numpy.shape == flat.tensor.shape == (8,)
    np.testing.assert_array_equal(flat.numpy, values_of(module))


def test_two_parameters_that_swapped_their_places_keep_their_values():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    flat = FlatParameters(module)
    module[0].weight, module[1].weight = module[1].weight, module[0].weight
    expected = values_of(module)
    assert not flat.is_intact()
    flat.restore()
    np.testing.assert_array_equal(values_of(module), expected)
    np.testing.assert_array_equal(flat.numpy, expected)


def test_two_users_of_one_module_share_its_buffer():
    module = nn.Linear(3, 2)
    first, second = FlatParameters(module), FlatParameters(module)
    first.numpy[:] = 1.0
    assert second.numpy.min() == module.weight.min() == 1.0
    assert first.is_intact()
    assert second.is_intact()


def test_writing_behind_autograds_back_makes_a_recorded_graph_fail():
    policy = make_policy()
    loss = policy(torch.ones(1, 3)).mean.sum()
    policy.flat.numpy[:] = 0.0
    policy.flat.bump_versions()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_parameter_of_two_layers_has_one_place():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    flat = FlatParameters(module)
    assert flat.names == ("0.weight", "0.bias", "1.bias")
    flat.numpy[:4] = 3.0
    assert module[1].weight.min() == 3.0


def test_parameters_that_share_memory_are_refused_by_name():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight.data = module[0].weight.data
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' share memory"):
        FlatParameters(module)


def test_dtypes_and_devices_that_cannot_be_flattened_are_refused_by_name():
    with pytest.raises(TypeError, match=r"module: \[\] given; want a Module"):
        FlatParameters([])
    with pytest.raises(ValueError, match="no parameters"):
        FlatParameters(nn.Tanh())
    with pytest.raises(ValueError, match=r"'weight' is torch.float16"):
        FlatParameters(nn.Linear(2, 2, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"'1.weight' is torch.float64 but '0.weight' is torch.float32"):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.float64)))
    with pytest.raises(ValueError, match="'weight' is on meta"):
        FlatParameters(nn.Linear(2, 2, device="meta"))


def test_an_index_of_the_buffer_is_named():
    flat = make_policy().flat
    assert [flat.name_at(index) for index in (0, 1, 2, 13, 14)] == ["log_std"] * 2 + ["layers.0.weight"] * 2 + [
        "layers.0.bias"
    ]
    assert flat.name_at(len(flat) - 1) == "layers.2.bias"
    with pytest.raises(IndexError):
        flat.name_at(len(flat))


def test_the_policys_and_the_critics_buffers_are_separate():
    space = spaces.Box(-1, 1, (3,))
    policy, critic = make_policy(), MLPCritic(space, (4,), seed=0)
    assert not np.shares_memory(policy.flat.numpy, critic.flat.numpy)
    assert critic.flat.names == ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")


def test_gathered_parameters_are_a_copy_that_is_exchanged_on_demand():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)).double()
    places = [parameter.data_ptr() for parameter in module.parameters()]
    flat = GatheredParameters(module)
    assert flat.names == ("0.weight", "0.bias", "1.weight", "1.bias")
    expected = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    assert (flat.tensor == expected).all()
    assert flat.is_intact()
    buffer = flat.numpy
    buffer += 1.0
    assert module[0].weight[0, 0] == expected[0]
    version = module[0].weight._version
    flat.bump_versions()
    assert module[0].weight[0, 0] == expected[0] + 1.0
    assert module[0].weight._version > version
    assert flat.is_intact()
    # Nothing of the module has moved.
    assert [parameter.data_ptr() for parameter in module.parameters()] == places


def test_gathered_parameters_notice_what_is_written_to_the_module():
    module = torch.nn.Linear(3, 2)
    flat = GatheredParameters(module)
    buffer = flat.numpy
    with torch.no_grad():
        module.bias.fill_(7.0)
    assert not flat.is_intact()
    flat.restore()
    assert flat.is_intact()
    assert flat.numpy is buffer
    assert (buffer[6:] == 7.0).all()
    module.weight = torch.nn.Parameter(torch.full((2, 3), 2.0))
    assert not flat.is_intact()
    module.double()
    flat.restore()
    assert flat.numpy.dtype == np.float64
    assert (flat.numpy[:6] == 2.0).all()


def test_the_device_chooses_how_parameters_are_kept():
    assert type(flat_parameters(torch.nn.Linear(2, 1))) is FlatParameters
    module = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1, device="meta"))
    for make in (flat_parameters, FlatParameters, GatheredParameters):
        with pytest.raises(ValueError, match=r"parameter '1.weight' is on meta; want one device, cpu"):
            make(module)


def test_a_parameter_that_was_cut_in_its_place_is_noticed():
    module = nn.Linear(3, 2)
    flat = flat_parameters(module)
    assert flat.is_intact()
    module.bias.data = module.bias.data[:1]
    assert not flat.is_intact()


def test_modules_that_keep_their_parts_in_an_ordered_dictionary_are_intact():
    """As those that an older torch has pickled."""
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    for part in module.modules():
        part._modules, part._parameters = OrderedDict(part._modules), OrderedDict(part._parameters)
    flat = flat_parameters(module)
    assert flat.is_intact() and flat.is_as_seen()
    module[0].weight = nn.Parameter(torch.zeros(2, 3))
    assert not flat.is_as_seen() and not flat.is_intact()
