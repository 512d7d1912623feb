"""Policies of Stable-Baselines3 on kernels: the same numbers, live views, and who is turned down why."""

import copy
import io
import re

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

pytest.importorskip("sb3_contrib")

from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

from trpo_fast._core.library import MAX_LAYERS
from trpo_fast.sb3.networks import CompiledCritic, CompiledNetworks

BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)
ACTIONS = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "box of a shape": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(3),
}
OBSERVATIONS = {
    "box": BOX,
    "box of a shape": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "float64": spaces.Box(-1.0, 1.0, (4,), np.float64),
    "discrete": spaces.Discrete(6),
    "multidiscrete": spaces.MultiDiscrete([3, 5]),
    "multibinary": spaces.MultiBinary(4),
    "image": spaces.Box(0, 255, (1, 4, 4), np.uint8),
}


def make_policy(action_space=ACTIONS["box"], observation_space=BOX, policy_class=ActorCriticPolicy, **kwargs):
    torch.manual_seed(0)
    policy = policy_class(observation_space, action_space, lambda _: 1e-3, **kwargs)
    with torch.no_grad():
        for parameter in policy.parameters():  # away from the start: nearly uniform actions would hide a lot
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


def observations_of(space, count=7):
    space.seed(1)
    return torch.as_tensor(np.array([space.sample() for _ in range(count)]))


def distribution_parameters(distribution):
    """Mean, or normalized logits, of what SB3 makes of them."""
    inner = distribution.distribution
    if isinstance(inner, list):
        return torch.cat([part.logits for part in inner], dim=1)
    return inner.mean if hasattr(inner, "loc") else inner.logits


def normalized(outputs, policy):
    outputs = torch.from_numpy(outputs)
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        return outputs.log_softmax(1)
    if isinstance(space, spaces.MultiDiscrete):
        return torch.cat([part.log_softmax(1) for part in outputs.split(space.nvec.tolist(), dim=1)], dim=1)
    return outputs


def assert_the_same_networks(networks, policy, observations):
    rows = networks.rows(observations)
    with torch.no_grad():
        wanted = distribution_parameters(policy.get_distribution(observations))
        values = policy.predict_values(observations).flatten()
    outputs = normalized(networks.actor.forward(networks.actor_parameters, rows), policy)
    torch.testing.assert_close(outputs, wanted.reshape(outputs.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(networks.critic.values(networks.critic_parameters, rows), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_kernels_give_what_the_policy_gives(actions, observations):
    policy = make_policy(ACTIONS[actions], OBSERVATIONS[observations])
    networks = CompiledNetworks(policy)
    assert networks.actor.size + networks.critic.size == sum(p.numel() for p in policy.parameters())
    assert_the_same_networks(networks, policy, observations_of(policy.observation_space))


def test_every_other_observation_is_a_batch():
    policy = make_policy()
    assert_the_same_networks(CompiledNetworks(policy), policy, observations_of(BOX)[::2])


@pytest.mark.parametrize("actions", ["box", "multidiscrete"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"net_arch": []},
        {"net_arch": [8]},
        {"net_arch": {"pi": [8, 9, 10], "vf": []}},
        {"net_arch": {"vf": [70, 3]}},
        {"activation_fn": nn.ReLU},
        {"activation_fn": lambda: nn.ReLU(inplace=True)},
        {"activation_fn": nn.ELU},
        {"activation_fn": nn.LeakyReLU},
        {"activation_fn": nn.Sigmoid},
        {"activation_fn": lambda: nn.SiLU(inplace=True)},
        {"activation_fn": nn.GELU},
        {"activation_fn": nn.Softplus},
        {"share_features_extractor": False},
        {"log_std_init": -1.0, "ortho_init": False},
        {"optimizer_class": torch.optim.RMSprop},
    ],
    ids=lambda kwargs: re.sub(" at 0x[0-9a-f]+", "", str(kwargs)),  # xdist wants the same in every worker
)
def test_kernels_follow_the_architecture(actions, kwargs):
    policy = make_policy(ACTIONS[actions], **kwargs)
    assert_the_same_networks(CompiledNetworks(policy), policy, observations_of(BOX))


@pytest.mark.parametrize("actions", ACTIONS)
def test_action_dimensions_are_what_sb3_divides_the_kl_by(actions):
    policy, other = make_policy(ACTIONS[actions]), make_policy(ACTIONS[actions])
    with torch.no_grad():
        other.action_net.bias.add_(torch.linspace(-0.5, 0.5, len(other.action_net.bias)))
        x = observations_of(BOX)
        new, old = policy.get_distribution(x), other.get_distribution(x)
        averaged = kl_divergence(new, old).mean()
        # The joint KL, from torch's own distributions one by one.
        parts = zip(new.distribution, old.distribution, strict=True) if actions == "multidiscrete" else None
        if parts is None:
            parts = [(new.distribution, old.distribution)]
        joint = sum(torch.distributions.kl_divergence(a, b).sum() for a, b in parts) / len(x)
    assert joint / averaged == pytest.approx(CompiledNetworks(policy).action_dimensions, rel=1e-5)


class OwnForward(ActorCriticPolicy):
    def forward(self, obs, deterministic=False):
        return super().forward(obs, deterministic)


class OwnValues(ActorCriticPolicy):
    def predict_values(self, obs):
        return 2 * super().predict_values(obs)


class OwnDistribution(ActorCriticPolicy):
    def get_distribution(self, obs):
        return super().get_distribution(obs)


class OwnFeatures(ActorCriticPolicy):
    def extract_features(self, obs, features_extractor=None):
        return super().extract_features(obs, features_extractor)


class OwnExtractor(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        super()._build_mlp_extractor()
        self.mlp_extractor.policy_net.insert(1, nn.LayerNorm(64))


class OwnFlatten(FlattenExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


def changed(change, **kwargs):
    policy = make_policy(**kwargs)
    change(policy)
    return policy


def freeze(policy):
    policy.mlp_extractor.policy_net[0].bias.requires_grad_(False)


def tie(policy):
    policy.mlp_extractor.value_net[0].weight = policy.mlp_extractor.policy_net[0].weight


def tie_data(policy):
    policy.mlp_extractor.value_net[0].weight.data = policy.mlp_extractor.policy_net[0].weight.data


def drop_bias(policy):
    policy.action_net.bias = None


def constant_log_std(policy):
    value = policy._parameters.pop("log_std").detach()
    policy.register_buffer("log_std", value)


def one_log_std(policy):
    policy.log_std = nn.Parameter(torch.zeros(1))


def own_forward_of_a_layer(policy):
    policy.action_net.forward = lambda x: x


def mix_activations(policy):
    policy.mlp_extractor.policy_net[1] = nn.ReLU()


IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
DICT = spaces.Dict({"a": BOX, "image": IMAGE})


def reorder(policy):
    extractors = policy.vf_features_extractor.extractors
    extractors.update({"a": extractors.pop("a")})


OBSTACLES = {
    "OwnForward has its own forward": lambda: make_policy(policy_class=OwnForward),
    "OwnValues has its own predict_values": lambda: make_policy(policy_class=OwnValues),
    "OwnDistribution has its own get_distribution": lambda: make_policy(policy_class=OwnDistribution),
    "OwnFeatures has its own extract_features": lambda: make_policy(policy_class=OwnFeatures),
    "ActorCriticPolicy has its own forward": lambda: changed(lambda p: setattr(p, "forward", p.forward)),
    "mlp_extractor.policy_net.1 is a LayerNorm, not one of": lambda: make_policy(policy_class=OwnExtractor),
    "pi_features_extractor is a NatureCNN": lambda: make_policy(
        observation_space=IMAGE, policy_class=ActorCriticCnnPolicy
    ),
    "pi_features_extractor.extractors.image is a NatureCNN": lambda: make_policy(
        observation_space=DICT, policy_class=MultiInputActorCriticPolicy
    ),
    "vf_features_extractor has its keys in another order": lambda: changed(
        reorder,
        observation_space=spaces.Dict({"a": BOX, "b": BOX}),
        policy_class=MultiInputActorCriticPolicy,
        share_features_extractor=False,
    ),
    "pi_features_extractor is a OwnFlatten": lambda: make_policy(features_extractor_class=OwnFlatten),
    "use_sde=True": lambda: make_policy(use_sde=True),
    "mlp_extractor.policy_net.1 is a Mish": lambda: make_policy(activation_fn=nn.Mish),
    "mlp_extractor.policy_net.1 has negative_slope 0.2": lambda: make_policy(activation_fn=lambda: nn.LeakyReLU(0.2)),
    "mlp_extractor.policy_net.1 has alpha 0.5": lambda: make_policy(activation_fn=lambda: nn.ELU(0.5)),
    "mlp_extractor.policy_net.1 has approximate 'tanh', not 'none'": lambda: make_policy(
        activation_fn=lambda: nn.GELU("tanh")
    ),
    "mlp_extractor.policy_net.1 has beta 2": lambda: make_policy(activation_fn=lambda: nn.Softplus(2)),
    "mlp_extractor.policy_net.1 has threshold 30": lambda: make_policy(activation_fn=lambda: nn.Softplus(1, 30)),
    "several activations: relu, tanh": lambda: changed(mix_activations),
    "mlp_extractor.policy_net.0.bias is frozen": lambda: changed(freeze),
    "mlp_extractor.value_net.0.weight is tied to mlp_extractor.policy_net.0.weight": lambda: changed(tie),
    "value_net.0.weight is tied": lambda: changed(tie_data),
    "layer without bias": lambda: changed(drop_bias),
    "log_std has shape (1,), not (3,)": lambda: changed(one_log_std),
    "log_std is no parameter": lambda: changed(constant_log_std),
    "torch.float64": lambda: make_policy().double(),
    "is on meta": lambda: make_policy().to("meta"),
    "action_net has its own forward": lambda: changed(own_forward_of_a_layer),
    "mlp_extractor has its own forward_critic": lambda: changed(
        lambda p: setattr(p.mlp_extractor, "forward_critic", torch.abs)
    ),
    "its action_dist has its own log_prob": lambda: changed(lambda p: setattr(p.action_dist, "log_prob", torch.sum)),
    "action_net has a hook": lambda: changed(lambda p: p.action_net.register_forward_hook(lambda *_: None)),
    "ActorCriticPolicy has a hook": lambda: changed(lambda p: p.register_forward_pre_hook(lambda *_: None)),
    "value_net has a hook": lambda: changed(lambda p: p.value_net.register_full_backward_hook(lambda *_: None)),
    "action_net.bias has a hook": lambda: changed(lambda p: p.action_net.bias.register_hook(lambda g: g)),
    "value_net.bias has a hook": lambda: changed(
        lambda p: p.value_net.bias.register_post_accumulate_grad_hook(lambda _: None)
    ),
    f"more than {MAX_LAYERS}": lambda: make_policy(net_arch=[2] * MAX_LAYERS),
    "action_net has 4,097 outputs, more than 4,096": lambda: make_policy(spaces.Discrete(4097)),
    "DQNPolicy is not an ActorCriticPolicy": lambda: dqn_policy(),
}


def dqn_policy():
    from stable_baselines3.dqn.policies import DQNPolicy

    return DQNPolicy(BOX, spaces.Discrete(2), lambda _: 1e-3)


@pytest.mark.parametrize("culprit", OBSTACLES)
def test_obstacle_names_the_culprit(culprit):
    with pytest.raises(ValueError, match=re.escape(culprit)):
        CompiledNetworks(OBSTACLES[culprit]())


def test_hook_on_every_module_is_an_obstacle():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ValueError, match="hook on every module"):
            CompiledNetworks(make_policy())
    finally:
        handle.remove()


def test_a_subclass_that_leaves_the_mathematics_alone_is_compiled():
    class Named(ActorCriticPolicy):
        def _predict(self, observation, deterministic=False):
            return super()._predict(observation, deterministic=True)

    CompiledNetworks(make_policy(policy_class=Named))


def test_buffer_and_policy_are_one():
    policy = make_policy()
    before = dict(policy.named_parameters())
    networks = CompiledNetworks(policy)
    assert all(parameter is before[name] for name, parameter in policy.named_parameters())
    assert networks.actor_tensors[0] is policy.log_std
    networks.actor_parameters[:] = np.arange(networks.actor.size)
    assert policy.log_std.tolist() == [0.0, 1.0, 2.0]
    assert policy.action_net.bias[-1] == networks.actor.size - 1
    with torch.no_grad():
        policy.value_net.bias.fill_(7.0)
    assert networks.critic_parameters[-1] == 7.0


def test_tensors_stand_in_the_order_of_the_buffers():
    networks = CompiledNetworks(make_policy())
    for tensors, buffer in (
        (networks.actor_tensors, networks.actor_parameters),
        (networks.critic_tensors, networks.critic_parameters),
    ):
        assert torch.equal(torch.cat([t.detach().flatten() for t in tensors]), torch.from_numpy(buffer))


def test_optimizer_steps_reach_the_buffer():
    policy = make_policy()
    networks = CompiledNetworks(policy)
    before = networks.critic_parameters.copy()
    policy.predict_values(observations_of(BOX)).square().mean().backward()
    policy.optimizer.step()
    assert networks.is_current() and not np.array_equal(networks.critic_parameters, before)


def test_a_write_to_the_buffer_spoils_an_older_graph():
    policy = make_policy()
    networks = CompiledNetworks(policy)
    loss = policy.predict_values(observations_of(BOX)).sum()
    networks.critic_parameters += 1
    networks.bump_versions()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_load_state_dict_writes_into_the_views():
    policy, other = make_policy(), make_policy()
    networks = CompiledNetworks(policy)
    with torch.no_grad():
        other.log_std.fill_(0.5)
    policy.load_state_dict(other.state_dict())
    assert networks.is_current() and networks.actor_parameters[0] == 0.5


def replace_data(policy):
    policy.action_net.weight.data = torch.ones_like(policy.action_net.weight)


def replace_parameter(policy):
    policy.action_net.weight = nn.Parameter(torch.ones_like(policy.action_net.weight))


def replace_log_std(policy):
    policy.log_std = nn.Parameter(torch.full((3,), 0.25))


def replace_module(policy):
    policy.mlp_extractor.policy_net[2] = nn.Linear(64, 64)


def load_from_vector(policy):
    policy.load_from_vector(np.linspace(-1, 1, sum(p.numel() for p in policy.parameters())))


def assign_state(policy):
    policy.load_state_dict(make_policy(log_std_init=1.0).state_dict(), assign=True)


def widen(policy):
    policy.mlp_extractor.policy_net[2], policy.action_net = nn.Linear(64, 10), nn.Linear(10, 3)


@pytest.mark.parametrize(
    "replace",
    [replace_data, replace_parameter, replace_log_std, replace_module, load_from_vector, assign_state, widen],
)
def test_replaced_parameters_become_views_again(replace):
    policy = make_policy()
    networks = CompiledNetworks(policy)
    replace(policy)
    values = [parameter.detach().clone() for parameter in policy.parameters()]
    networks.refresh()
    assert networks.is_current()
    assert all(torch.equal(a, b) for a, b in zip(values, policy.parameters(), strict=True))
    assert_the_same_networks(networks, policy, observations_of(BOX))
    networks.actor_parameters[:] = 0
    assert not policy.action_net.weight.any() and not policy.log_std.any()


@pytest.mark.parametrize(
    "replace",
    [replace_data, replace_parameter, replace_log_std, load_from_vector, assign_state, nn.Module.share_memory],
)
def test_replaced_parameters_are_noticed(replace):
    policy = make_policy()
    networks = CompiledNetworks(policy)
    assert networks.is_current()
    replace(policy)
    assert not networks.is_current()


def test_shared_memory_is_followed():
    # share_memory moves the storage below every view, and below an array made earlier.
    policy = make_policy()
    networks = CompiledNetworks(policy)
    policy.share_memory()
    networks.refresh()
    networks.actor_parameters[:3] = 4.0
    assert policy.log_std.is_shared() and policy.log_std.tolist() == [4.0] * 3


def test_refresh_names_what_became_an_obstacle():
    policy = make_policy()
    networks = CompiledNetworks(policy)
    policy.action_net.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"action_net\.bias is frozen"):
        networks.refresh()


def test_a_deep_copy_stands_on_its_own():
    policy = make_policy()
    networks = CompiledNetworks(policy)
    twin = copy.deepcopy(policy)
    networks.actor_parameters[:] = 0
    assert twin.action_net.weight.any()
    assert_the_same_networks(CompiledNetworks(twin), twin, observations_of(BOX))
    assert networks.is_current()


def test_a_second_wrapping_shares_the_buffers():
    policy = make_policy()
    first, second = CompiledNetworks(policy), CompiledNetworks(policy)
    assert first.is_current() and np.shares_memory(first.actor_parameters, second.actor_parameters)


def test_a_saved_state_has_every_number_once():
    policy = make_policy()
    CompiledNetworks(policy)
    file = io.BytesIO()
    torch.save(policy.state_dict(), file)
    numbers = sum(p.numel() for p in policy.parameters())
    assert len(file.getvalue()) < 4 * numbers + 10_000
    file.seek(0)
    other = make_policy(log_std_init=2.0)
    other.load_state_dict(torch.load(file))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters(), strict=True))


def test_a_critic_has_its_kernel_where_the_actor_has_none():
    policy = make_policy(use_sde=True)
    compiled = CompiledCritic(policy)
    observations = observations_of(BOX)
    with torch.no_grad():
        wanted = policy.predict_values(observations).flatten()
    values = compiled.critic.values(compiled.critic_parameters, compiled.rows(observations))
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)
    compiled.critic_parameters[-1] += 1.0  # the last bias
    with torch.no_grad():
        torch.testing.assert_close(policy.predict_values(observations).flatten(), wanted + 1.0)
    policy.value_net.bias.data = policy.value_net.bias.data.clone()
    compiled.refresh()
    assert policy.value_net.bias.data_ptr() == compiled.critic_parameters[-1:].ctypes.data


def test_a_critic_on_features_of_its_own_has_none():
    policy = make_policy(policy_class=ActorCriticCnnPolicy, observation_space=spaces.Box(0, 255, (1, 36, 36), np.uint8))
    with pytest.raises(ValueError, match="vf_features_extractor is a NatureCNN"):
        CompiledCritic(policy)
