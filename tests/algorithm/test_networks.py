"""Images through a CNN, and policies and critics of the user's own."""

import re
import warnings
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from tests.algorithm.images import Halves, OwnCritic, OwnPolicy
from tests.algorithm.test_every_space import Anything
from tests.registered import newest
from trpo_fast import TRPO, model_file
from trpo_fast.deploy import load_actor
from trpo_fast.policies import CNNCritic, CNNPolicy, MLPCritic, MLPPolicy, RecurrentPolicy

UPDATE = 3 * 64


class HalvesContinuous(Halves):
    """The same with a number that is positive for the right half."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def step(self, action):
        return super().step(int(action[0] > 0))


def make_networks(kind):
    """Environment and networks of an agent that torch trains."""
    if kind == "cnn":
        return {"env": Halves}
    return {"env": "Pendulum-v1", "policy": OwnPolicy(), "critic": OwnCritic()}


@pytest.fixture(params=["cnn", "own"])
def kind(request):
    return request.param


def test_images_get_a_cnn_by_themselves_and_are_learned_from(make_agent):
    agent = make_agent(Halves, steps_per_env=128, critic_learning_rate=3e-3)
    assert type(agent.policy) is CNNPolicy
    assert type(agent.critic) is CNNCritic
    assert agent.engine.name == "autograd"
    assert agent.observation_normalizer is None
    before = agent.evaluate(20).mean
    agent.learn(8 * 3 * 128)
    assert agent.evaluate(20).mean >= 5.5 > before + 1.0


def test_an_mlp_can_be_asked_for_and_a_cnn_without_images_is_refused(make_agent):
    agent = make_agent(Halves, policy="mlp")
    assert type(agent.policy) is MLPPolicy
    assert type(agent.critic) is MLPCritic
    assert agent.observation_normalizer is not None
    with pytest.raises(ValueError, match=r"observation space: Box.*want a Box of two to four axes"):
        make_agent("Pendulum-v1", policy="cnn")
    with pytest.raises(ValueError, match="the native engine cannot serve this policy: CNNPolicy is not an MLPPolicy"):
        make_agent(Halves, engine="native")


def test_continuous_actions_from_images(make_agent):
    agent = make_agent(HalvesContinuous, log_std_init=-0.5)
    agent.learn(UPDATE)
    assert agent.last_update.status == 0
    assert agent.predict(np.zeros((1, 8, 8), np.uint8), deterministic=True)[0].shape == (1,)


def test_modules_of_ones_own_are_the_ones_that_are_trained(make_agent):
    policy, critic = OwnPolicy(), OwnCritic()
    before = [p.detach().clone() for module in (policy, critic) for p in module.parameters()]
    agent = make_agent("Pendulum-v1", policy=policy, critic=critic)
    assert agent.policy is policy
    assert agent.critic is critic
    agent.learn(2 * UPDATE)
    assert agent.last_update.status == 0
    after = [p for module in (policy, agent.critic) for p in module.parameters()]
    assert all((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("networks", "settings", "why"),
    [
        ("policy", {"hidden_sizes": (8,)}, "the policy is a module of one's own"),
        ("policy", {"log_std_init": 0.5}, "the policy is a module of one's own"),
        ("policy", {"log_std_limit": 2.0}, "the policy is a module of one's own"),
        ("critic", {"critic_hidden_sizes": (8,)}, "the critic is a module of one's own"),
        ("both", {"activation": "relu"}, "both networks are modules of one's own"),
        ("neither", {"env": "CartPole-v1", "log_std_init": 0.5}, "no action here is drawn from a Gaussian"),
    ],
)
def test_settings_that_do_nothing_for_modules_of_ones_own_are_refused(networks, settings, why):
    made = {"policy": OwnPolicy()} if networks in ("policy", "both") else {}
    made |= {"critic": OwnCritic()} if networks in ("critic", "both") else {}
    (name, value), *_ = ((name, value) for name, value in settings.items() if name != "env")
    with pytest.raises(ValueError, match=rf"^{name}: {re.escape(repr(value))} given; want it left out: {why}"):
        TRPO(settings.get("env", "Pendulum-v1"), **made, **{name: value})


@pytest.mark.parametrize(
    ("switch", "bound", "why"),
    [
        ("scale_rewards", "reward_clip", "rewards are not scaled"),
        ("normalize_observations", "observation_clip", "observations are not normalized"),
    ],
)
def test_a_bound_on_what_is_not_scaled_is_refused(switch, bound, why):
    with pytest.raises(ValueError, match=rf"^{bound}: 1\.0 given; want it left out: {why}"):
        TRPO("Pendulum-v1", **{switch: False, bound: 1.0})
    TRPO("Pendulum-v1", **{switch: False}).close()


def test_a_cnn_of_ones_own_that_reads_images_along_another_axis_is_not_the_saved_one(tmp_path):
    """Where all axes are as long the parameters do not tell."""

    def made(axis):
        return lambda observations, actions, seed: CNNPolicy(observations, actions, channel_axis=axis, seed=seed)

    def images():
        return Anything(spaces.Box(0, 255, (6, 6, 6), np.uint8), spaces.Discrete(2))

    agent = TRPO(images, policy=made("first"), channel_axis="first", num_envs=2, seed=0)
    agent.save(tmp_path / "a.trpo")
    agent.close()
    with pytest.raises(ValueError, match=r"policy: a CNNPolicy of channel_axis='last' given; want .*'first'"):
        TRPO.load(tmp_path / "a.trpo", env=images, policy=made("last"))
    TRPO.load(tmp_path / "a.trpo", env=images, policy=made("first")).close()


def test_settings_of_what_is_built_here_are_asked_of_that_alone():
    """A module of one's own may be a network of this package, which the settings do not reach."""

    def recurrent(observations, actions, seed):
        return RecurrentPolicy("gru", observations, actions, units=4, hidden_sizes=(4,), seed=seed)

    with pytest.raises(ValueError, match=r"^recurrent_size: 7 given; want it left out: no gru or lstm is built here"):
        TRPO("Pendulum-v1", policy=recurrent, recurrent_critic=False, recurrent_size=7)

    def plain(observations, actions, seed):
        return MLPPolicy(observations, actions, (4,), seed=seed)

    with pytest.raises(ValueError, match=r"^activation: 'relu' given; want it left out: the layers of a CNN have relu"):
        TRPO(Halves, policy=plain, activation="relu")


def test_what_a_preset_says_of_built_in_networks_is_no_setting_of_the_users():
    agent = TRPO("Pendulum-v1", policy=OwnPolicy())
    assert agent.preset_taken.settings["log_std_init"] == 0.0
    agent.close()


def test_what_makes_a_module_gets_spaces_and_seed(make_agent):
    seen = []

    def make(observation_space, action_space, seed):
        seen.append((observation_space.shape, action_space.shape, type(seed)))
        return OwnPolicy()

    agent = make_agent("Pendulum-v1", policy=make)
    assert seen == [((3,), (1,), int)]
    assert type(agent.policy) is OwnPolicy
    assert type(agent.critic) is MLPCritic


def test_the_same_seed_gives_the_same_bits_with_overlap_and_without(kind, make_agent, bits):
    learned = []
    for overlap in (True, False, True):
        agent = make_agent(**make_networks(kind), overlap_critic=overlap)
        agent.learn(3 * UPDATE)
        learned.append(bits(agent))
    assert learned[0] == learned[1] == learned[2]


def test_a_saved_agent_goes_on_as_it_would_have(kind, make_agent, bits, tmp_path):
    agent, path = make_agent(**make_networks(kind)), tmp_path / "agent.trpo"
    agent.learn(2 * UPDATE)
    agent.save(path)
    saved = bits(agent)
    agents = []
    for _ in range(2):
        networks = make_networks(kind)
        agents.append(TRPO.load(path, **networks))
        assert bits(agents[-1]) == saved
        agents[-1].learn(2 * UPDATE)
    assert bits(agents[0]) == bits(agents[1]) != saved
    assert type(agents[0].policy) is type(agent.policy)
    for loaded in agents:
        loaded.close()


def test_an_interrupted_update_leaves_the_agent_as_it_was(kind, make_agent, bits):
    agent, other = (make_agent(**make_networks(kind)) for _ in range(2))
    for one in (agent, other):
        one.learn(2 * UPDATE)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    agent.engine.bind, bind = interrupt, agent.engine.bind
    with pytest.raises(KeyboardInterrupt):
        agent.learn(UPDATE, reset_num_timesteps=False)
    agent.engine.bind = bind
    assert bits(agent) == bits(other)


def test_buffers_are_saved_even_where_they_are_infinite(make_agent, tmp_path):
    agent = make_agent("Pendulum-v1", policy=OwnPolicy())
    agent.policy.least.fill_(-torch.inf)
    agent.save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo", policy=OwnPolicy())
    assert loaded.policy.least == -torch.inf


def test_a_buffer_of_a_critic_of_ones_own_may_be_infinite_for_an_actor_and_a_parameter_not(make_agent, tmp_path):
    critic, path = OwnCritic(), tmp_path / "agent.trpo"
    critic.register_buffer("mask", torch.tensor([-torch.inf]))
    make_agent("Pendulum-v1", critic=critic).save(path)
    load_actor(path)
    arrays, metadata = model_file.read(path)
    assert metadata["buffers"] == ["critic.mask"]
    model_file.write(path, arrays, {name: value for name, value in metadata.items() if name != "buffers"})
    load_actor(path)  # of an earlier version, which did not say them
    arrays["critic.body.0.bias"][0] = np.nan
    model_file.write(path, arrays, metadata)
    with pytest.raises(model_file.ModelFileError, match=r"critic\.body\.0\.bias: nan given; want finite numbers"):
        load_actor(path)


def test_loading_asks_for_the_modules_by_name(make_agent, tmp_path):
    path = tmp_path / "agent.trpo"
    make_agent("Pendulum-v1", policy=OwnPolicy(), critic=OwnCritic()).save(path)
    with pytest.raises(
        ValueError, match=r"policy: this agent was saved with a policy of its own, a .*\.OwnPolicy; want"
    ):
        TRPO.load(path)
    with pytest.raises(
        ValueError, match=r"critic: this agent was saved with a critic of its own, a .*\.OwnCritic; want"
    ):
        TRPO.load(path, policy=OwnPolicy())
    with pytest.raises(ValueError, match=r"policy: 'policy\.body\.0\.bias' of shape \(9,\) given; want \(8,\)"):
        TRPO.load(path, policy=OwnPolicy(width=9), critic=OwnCritic())
    larger = OwnCritic()
    larger.more = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"critic: the module given has 'critic\.more\.bias'; want the parameters of"):
        TRPO.load(path, policy=OwnPolicy(), critic=larger)
    make_agent("Pendulum-v1").save(path)
    with pytest.raises(ValueError, match=r"policy: OwnPolicy given; want none, .* saved with the built-in policy"):
        TRPO.load(path, policy=OwnPolicy())


def own_mlp(**options):
    return lambda observations, actions, seed: MLPPolicy(observations, actions, (8,), seed=seed, **options)


@pytest.mark.parametrize(("saved", "given"), [(True, False), (False, True)])
def test_a_policy_that_squashes_and_one_that_does_not_are_not_taken_for_each_other(saved, given, make_agent, tmp_path):
    path = tmp_path / "agent.trpo"
    make_agent("Pendulum-v1", policy=own_mlp(squash=saved)).save(path)
    with pytest.raises(ValueError, match=rf"^policy: a MLPPolicy of squash={given} given; want squash={saved}, with"):
        TRPO.load(path, policy=own_mlp(squash=given))
    assert TRPO.load(path, policy=own_mlp(squash=saved)).policy.squash == saved
    arrays, metadata = model_file.read(path)
    del metadata["own_settings"]  # as in files of earlier versions
    model_file.write(path, arrays, metadata)
    TRPO.load(path, policy=own_mlp(squash=given)).close()


def test_the_activation_of_a_network_of_this_package_is_the_saved_one(make_agent, tmp_path):
    path = tmp_path / "agent.trpo"

    def critic(activation):
        return lambda observations, actions, seed: MLPCritic(observations, (8,), activation)

    make_agent("Pendulum-v1", policy=own_mlp(activation="relu"), critic=critic("relu")).save(path)
    with pytest.raises(ValueError, match="policy: a MLPPolicy of activation='tanh' given; want activation='relu'"):
        TRPO.load(path, policy=own_mlp(), critic=critic("relu"))
    with pytest.raises(ValueError, match="critic: a MLPCritic of activation='tanh' given; want activation='relu'"):
        TRPO.load(path, policy=own_mlp(activation="relu"), critic=critic("tanh"))


class Returns(nn.Module):
    """`result` of a linear layer, whatever that is."""

    def __init__(self, result, outputs=2):
        super().__init__()
        self.layer = nn.Linear(3, outputs)
        self.result = result

    def forward(self, observations):
        return self.result(self.layer(observations))


BAD_POLICIES = {
    "no module": (3, TypeError, "policy: 3 given; want a torch module, or a callable"),
    "no distribution": (Returns(lambda y: y), TypeError, "policy: forward returned Tensor; want a torch.distributions"),
    "no batch": (
        Returns(lambda y: Normal(y, 1.0)),
        ValueError,
        r"batch shape \(2, 2\) for 2 observations; want \(2,\)",
    ),
    "another space": (Returns(lambda y: Categorical(logits=y)), ValueError, "over the actions .* gaussian of shape"),
    "another size": (OwnPolicy(actions=2), ValueError, r"event shape \(2,\); want one over the actions"),
    "another input": (
        OwnPolicy(inputs=4),
        ValueError,
        r"policy: forward failed for observations of zeros of shape \(2, 3",
    ),
    "nan": (
        Returns(lambda y: Normal(y[:, 0] * torch.nan, 1.0, validate_args=False)),
        ValueError,
        "policy: forward returned .* with NaN",
    ),
    "no divergence": (
        Returns(lambda y: MixtureSameFamily(Categorical(logits=y), Normal(y, 1.0))),
        ValueError,
        "policy: forward returned a MixtureSameFamily, for which torch has no KL divergence",
    ),
    "another dtype": (OwnPolicy().double(), ValueError, "'body.0.weight' is torch.float64; want torch.float32"),
    "dropout": (
        nn.Sequential(nn.Dropout(0.5), OwnPolicy()),
        ValueError,
        "policy: '0', a Dropout in training mode, draws random numbers",
    ),
    "a class with other arguments": (CNNPolicy, TypeError, "takes 3 positional arguments"),
    "a maker of something else": (lambda *arguments: 7, TypeError, "policy: the callable returned int; want a torch"),
}


@pytest.mark.parametrize(("policy", "error", "message"), BAD_POLICIES.values(), ids=BAD_POLICIES)
def test_a_policy_that_cannot_serve_is_named(policy, error, message, make_agent):
    with pytest.raises(error, match=message):
        make_agent("Pendulum-v1", policy=policy)


def test_an_entropy_bonus_for_a_distribution_without_entropy_is_refused_when_the_agent_is_made(make_agent):
    squashed = Returns(lambda y: TransformedDistribution(Normal(y[:, 0], 1.0), [TanhTransform()]))
    make_agent("Pendulum-v1", policy=squashed)
    with pytest.raises(ValueError, match=r"entropy_coefficient: 0.1 given; want 0 .* TransformedDistribution"):
        make_agent("Pendulum-v1", policy=squashed, entropy_coefficient=0.1)


class Pairs(gymnasium.Env):
    """Two choices of three, some of which are forbidden."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.MultiDiscrete([3, 3], start=[1, 0])
    info: ClassVar = {"action_mask": (np.array([1, 0, 1], np.int8), np.array([0, 1, 1], np.int8))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), self.info

    def step(self, action):
        assert action[0] in (1, 3)
        assert action[1] in (1, 2)
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, float(action.sum()), False, bool(self.np_random.random() < 0.1), self.info


def test_independent_categoricals_of_ones_own_serve_a_multidiscrete_with_masks(make_agent):
    agent = make_agent(Pairs, policy=Returns(lambda y: Independent(Categorical(logits=y.unflatten(1, (2, 3))), 1), 6))
    agent.learn(2 * UPDATE)
    assert agent.last_update.status == 0
    wrong = Returns(lambda y: Independent(Categorical(logits=y.unflatten(1, (2, 4))), 1), 8)
    with pytest.raises(
        ValueError,
        match=r"and choices \(4, 4\); want .*, which are multicategorical of shape \(2,\) and choices \(3, 3\)",
    ):
        make_agent(Pairs, policy=wrong)


@pytest.mark.parametrize(
    ("critic", "error", "message"),
    [
        (
            Returns(lambda y: y, 1),
            ValueError,
            r"critic: forward returned shape \(2, 1\) for 2 observations; want \(2,\)",
        ),
        (Returns(lambda y: [y]), TypeError, "critic: forward returned list; want a Tensor"),
        (Returns(lambda y: y[:, 0] / 0), ValueError, "critic: forward returned values that are not finite"),
        (OwnCritic().requires_grad_(False), ValueError, "critic: every parameter is frozen"),
        ("mlp", TypeError, "critic: 'mlp' given; want a torch module"),
    ],
)
def test_a_critic_that_cannot_serve_is_named(critic, error, message, make_agent):
    with pytest.raises(error, match=message):
        make_agent("Pendulum-v1", critic=critic)


@pytest.mark.parametrize("critic", [None, OwnCritic])
def test_parameters_of_a_critic_can_be_frozen_and_thawed_between_two_trainings(critic, make_agent):
    agent = make_agent("Pendulum-v1", critic=None if critic is None else critic())
    agent.learn(UPDATE)
    first, *others = agent.critic.parameters()
    for freeze in (True, False):
        first.requires_grad_(not freeze)
        before = [parameter.detach().clone() for parameter in (first, *others)]
        agent.learn(UPDATE)
        changed = [bool((a != b).any()) for a, b in zip(agent.critic.parameters(), before, strict=True)]
        assert changed == [not freeze, *([True] * len(others))]


def test_networks_that_share_a_parameter_are_refused(make_agent):
    policy, critic = OwnPolicy(), OwnCritic()
    critic.body[0].weight = policy.body[0].weight
    with pytest.raises(ValueError, match=r"critic: its parameter 'body\.0\.weight' is the policy's 'body\.0\.weight'"):
        make_agent("Pendulum-v1", policy=policy, critic=critic)


def test_values_that_become_nan_are_named(make_agent):
    class Fragile(OwnPolicy):
        def forward(self, observations):
            if len(observations) > 3:  # the batch, not the acting
                observations = observations * torch.nan
            mean = self.body(observations)[:, 0]
            return Normal(mean, 1.0, validate_args=False)

    agent = make_agent("Pendulum-v1", policy=Fragile())
    with pytest.raises(ValueError, match="policy: the log-probability of sample 0 is nan"):
        agent.learn(UPDATE)


def test_a_module_gets_the_shape_of_a_box_and_flat_rows_of_everything_else(make_agent):
    shapes = []

    class Watching(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)

        def forward(self, observations):
            shapes.append(tuple(observations.shape[1:]))
            return Categorical(logits=self.layer(observations.flatten(1)))

    make_agent(Halves, policy=Watching(64, 2)).learn(UPDATE)
    assert set(shapes) == {(1, 8, 8)}
    shapes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_agent(lambda: gymnasium.make(newest("CliffWalking")), policy=Watching(48, 4)).learn(UPDATE)
    assert set(shapes) == {(48,)}


def test_a_box_that_nothing_can_be_drawn_from_is_no_obstacle():
    most = np.finfo(np.float64).max
    space = gymnasium.spaces.Box(-most, most, (2,), np.float64)
    for policy in (None, lambda *_: MLPPolicy(space, gymnasium.spaces.Discrete(2), (4,))):
        TRPO(lambda: Anything(space, gymnasium.spaces.Discrete(2)), policy=policy, num_envs=1).close()
