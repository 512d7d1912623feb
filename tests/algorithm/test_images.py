"""Images and boards of every kind through `TRPO`: the network, what it is given, its settings and where it computes."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.algorithm.images import Catch, Halves, OwnCritic, OwnPolicy
from trpo_fast import TRPO, model_file
from trpo_fast.algorithm import networks
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.policies import CNNCritic, CNNPolicy, MLPCritic, MLPPolicy

UPDATE = 2 * 16
SMALL = {"num_envs": 2, "steps_per_env": 16, "warm_up_steps": 4, "seed": 1}


class Pictures(gymnasium.Env):
    """Samples of a space; 1 where the action is 1. Episodes of 7."""

    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = copy.deepcopy(space)  # with a generator of its own

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._step = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self._step += 1
        return self.observation_space.sample(), float(action), False, self._step == 7, {}


@pytest.fixture
def make(request):
    made = []

    def agent(space, **settings):
        # Bits are compared on the CPU, also where there is a GPU; networks of one's own have no setting for it.
        device = {} if {"policy", "critic"} <= settings.keys() else {"device": "cpu"}
        made.append(TRPO(lambda: Pictures(space), **{**SMALL, **device, **settings}))
        return made[-1]

    yield agent
    for one in made:
        one.close()


def pixels(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def parameters(agent):
    return [p.detach().cpu().numpy() for module in (agent.policy, agent.critic) for p in module.parameters()]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


AUTO = [pixels(3, 40, 36), pixels(36, 40), pixels(40, 36, 1), pixels(2, 9, 8, 3), pixels(2, 3, 9, 8)]
ASKED = [
    pixels(8, 9),
    spaces.Box(0, 1, (12, 8, 8), np.float32),
    spaces.Box(0, 1, (8, 8, 12), np.bool_),
    spaces.Box(-1, 1, (6, 7, 2), np.float64),
    spaces.Box(0, 2, (3, 3), np.int8),
    spaces.MultiBinary([2, 6, 7]),
]


@pytest.mark.parametrize(
    ("space", "policy"), [(space, "auto") for space in AUTO] + [(space, "cnn") for space in ASKED], ids=str
)
def test_every_kind_of_image_is_learned_from_saved_and_loaded(make, space, policy, tmp_path):
    agent = make(space, policy=policy)
    assert type(agent.policy) is CNNPolicy and type(agent.critic) is CNNCritic
    assert agent.observation_normalizer is None
    agent.learn(2 * UPDATE)
    assert agent.last_update.status == 0
    agent.save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo")
    assert same(loaded, agent)
    assert loaded.config == agent.config
    observation = space.sample()
    assert loaded.predict(observation)[0] == agent.predict(observation)[0]


@pytest.mark.parametrize("space", ASKED, ids=str)
def test_tables_boards_and_planes_stay_with_the_mlp_where_no_cnn_is_asked_for(make, space):
    assert type(make(space).policy) is MLPPolicy


def test_a_space_that_does_not_tell_its_channels_is_refused_by_name_until_they_are_said(make, tmp_path):
    cube = spaces.Box(0, 1, (8, 8, 8), np.float32)
    with pytest.raises(ValueError, match=r"observation space: Box\(0.0, 1.0, \(8, 8, 8\), float32\).*channel_axis="):
        make(cube, policy="cnn")
    agent = make(cube, policy="cnn", channel_axis="last")
    assert agent.policy.image.channels_last and agent.critic.image.channels_last
    agent.save(tmp_path / "agent.trpo")
    assert TRPO.load(tmp_path / "agent.trpo").policy.image.channels_last


@pytest.mark.parametrize(
    "space", [pixels(9, 3, 9), spaces.Dict(a=pixels(9, 3, 9), b=spaces.Discrete(2))], ids=["alone", "in a Dict"]
)
def test_an_image_that_is_flattened_is_said_in_one_warning(make, space, tmp_path):
    with pytest.warns(UserWarning, match=r"observation space: Box\(0, 255, .*uint8\) looks like an image") as said:
        agent = make(space, hidden_sizes=(4,), critic_hidden_sizes=(4,))
    assert len(said) == 1
    assert type(agent.policy) is MLPPolicy
    agent.save(tmp_path / "agent.trpo")
    TRPO.load(tmp_path / "agent.trpo")  # has been said
    make(space, policy="mlp", hidden_sizes=(4,), critic_hidden_sizes=(4,))  # was asked for


IDLE = {
    "hidden_sizes": (32, 32),
    "critic_hidden_sizes": (32,),
    "activation": "relu",
    "normalize_observations": False,
    "observation_clip": 5.0,
}


@pytest.mark.parametrize("name", IDLE)
def test_a_setting_that_does_nothing_for_images_is_refused_by_name(make, name):
    with pytest.raises(ValueError, match=rf"{name}: .* given; want it left out: "):
        make(pixels(3, 8, 8), **{name: IDLE[name]})
    make(pixels(3, 8, 8), **{name: getattr(TRPOConfig, name)})
    make(pixels(3, 8, 8), policy="mlp", **{name: IDLE[name]})


def test_a_setting_of_cnns_is_refused_without_one(make):
    with pytest.raises(ValueError, match="channel_axis: 'last' given; want it left out: there is no CNN here"):
        make(pixels(3, 8, 8), policy="mlp", channel_axis="last")


def test_settings_of_an_mlp_beside_a_cnn_are_taken(make):
    """The critic of the configuration sees images by a CNN, whatever the policy is."""
    policy = MLPPolicy(pixels(3, 8, 8), spaces.Discrete(2), hidden_sizes=(4,), seed=0)
    agent = make(pixels(3, 8, 8), policy=policy)
    assert agent.networks.kinds == {"policy": "mlp", "critic": "cnn"}
    with pytest.raises(ValueError, match="critic_hidden_sizes: "):
        make(pixels(3, 8, 8), policy=policy, critic_hidden_sizes=(4,))
    critic = MLPCritic(pixels(3, 8, 8), (4,), seed=0)
    make(pixels(3, 8, 8), critic=critic, activation="tanh")


def test_a_file_with_such_settings_is_loaded(make, tmp_path):
    path = tmp_path / "agent.trpo"
    make(pixels(3, 8, 8)).save(path)
    rewrite_config(path, **IDLE)
    assert TRPO.load(path).config.hidden_sizes == (32, 32)


def rewrite_config(path, **changes):
    arrays, metadata = model_file.read(path)
    for name, value in changes.items():
        if value is None:
            del metadata["config"][name]
        else:
            metadata["config"][name] = value
    model_file.write(path, arrays, metadata)


def test_an_mlp_that_older_files_have_for_what_is_an_image_now_stays_one(make, tmp_path):
    agent, path = make(pixels(36, 36), policy="mlp", hidden_sizes=(4,), critic_hidden_sizes=(4,)), tmp_path / "a.trpo"
    agent.learn(UPDATE)
    agent.save(path)
    rewrite_config(path, policy="auto", channel_axis=None, device=None)
    loaded = TRPO.load(path)
    assert type(loaded.policy) is MLPPolicy and type(loaded.critic) is MLPCritic
    assert same(loaded, agent)


# What depends on the kind of network.


def test_defaults_of_images_are_in_the_config_of_the_agent(make, tmp_path):
    flat, images = make(spaces.Box(-1, 1, (3,))), make(pixels(3, 8, 8))
    assert (flat.config.fisher_subsample, flat.config.critic_epochs) == (1.0, 20)
    assert (images.config.fisher_subsample, images.config.critic_epochs) == (1.0, 4)  # 32 samples
    for steps, samples in ((256, 256), (2048, 409.6)):
        agent = make(pixels(3, 8, 8), steps_per_env=steps)
        assert agent.config.fisher_subsample == samples / (2 * steps)
    both = {"fisher_subsample": 0.5, "critic_epochs": 3}
    agent = make(pixels(3, 8, 8), **both)
    assert (agent.config.fisher_subsample, agent.config.critic_epochs) == (0.5, 3)
    images.save(tmp_path / "agent.trpo")
    assert TRPO.load(tmp_path / "agent.trpo").config == images.config


def test_a_policy_of_ones_own_has_the_defaults_of_an_mlp(make):
    agent = make(pixels(3, 8, 8), policy=CNNPolicy(pixels(3, 8, 8), spaces.Discrete(2), seed=0))
    assert (agent.config.fisher_subsample, agent.config.critic_epochs) == (1.0, 4)  # the critic is built here


# Bytes.


def test_the_rollout_of_atari_images_takes_a_quarter_of_what_floats_would(make):
    agent = make(pixels(4, 84, 84), steps_per_env=4, warm_up_steps=0)
    rollout = agent.collector.collect()
    assert rollout.observations.dtype == rollout.value_inputs.dtype == np.uint8
    assert rollout.observations.nbytes == 2 * 4 * 84 * 84 * 4
    batch, _, _ = agent.collector.finisher.finish(rollout, agent.critic_trainer.values, 0.99, 0.95, True)
    assert batch.observations.dtype == np.uint8
    assert np.shares_memory(batch.observations, rollout.observations)
    for buffer in agent.collector._buffers:
        assert buffer.inputs.nbytes == (2 * 2 * 4 + 2) * 84 * 84 * 4  # a row a step, one more where it may be cut


@pytest.mark.parametrize("space", [pixels(4, 8, 8), spaces.Box(0, 1, (8, 8, 12), np.bool_)], ids=str)
def test_bytes_and_floats_give_the_same_bits(make, space, monkeypatch):
    agent = make(space, policy="cnn")
    monkeypatch.setattr(networks, "fits_bytes", lambda space: False)
    other = make(space, policy="cnn")
    for one, dtype in ((agent, np.uint8), (other, np.float32)):
        assert one.collector._buffers[0].observations.dtype == dtype
        one.learn(3 * UPDATE)
    assert same(agent, other)


def test_networks_of_ones_own_see_floats_whatever_the_rollout_keeps(make):
    seen = []

    class Watching(CNNPolicy):
        def forward(self, observations):
            seen.append((observations.dtype, float(observations.max())))
            return super().forward(observations)

    space = pixels(3, 8, 8)
    critic = MLPCritic(space, (4,), seed=0)  # compiled, for which bytes are converted
    agent = make(space, policy=Watching(space, spaces.Discrete(2), seed=0), critic=critic)
    seen.clear()  # of the checks, some of which are made in float64
    agent.learn(UPDATE)
    assert agent.collector._buffers[0].observations.dtype == np.uint8
    assert {dtype for dtype, _ in seen} == {torch.float32}
    assert max(largest for _, largest in seen) > 200


def test_a_compiled_policy_of_ones_own_gets_floats(make):
    space = pixels(3, 8, 8)
    agent = make(space, policy=MLPPolicy(space, spaces.Discrete(2), hidden_sizes=(4,), seed=0))
    assert agent.engine.name == "native"
    agent.learn(UPDATE)
    assert agent.collector._buffers[0].observations.dtype == np.float32


# Where networks compute.


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_cuda")
def test_a_device_that_is_not_here_is_refused_by_name(make):
    with pytest.raises(ValueError, match="device: 'cuda' given; want 'auto' or 'cpu': torch finds no CUDA device here"):
        make(pixels(3, 8, 8), device="cuda")
    for device in ("auto", "cpu"):
        agent = make(pixels(3, 8, 8), device=device)
        assert {p.device.type for p in (*agent.policy.parameters(), *agent.critic.parameters())} == {"cpu"}


@pytest.mark.usefixtures("without_cuda")
def test_an_agent_of_a_gpu_is_loaded_where_there_is_none(make, tmp_path):
    agent, path = make(pixels(3, 8, 8)), tmp_path / "agent.trpo"
    agent.learn(UPDATE)
    agent.save(path)
    rewrite_config(path, device="cuda")
    loaded = TRPO.load(path, env=lambda: Pictures(pixels(3, 8, 8)))
    assert same(loaded, agent)
    assert loaded.config.device == "auto"
    loaded.learn(UPDATE)
    loaded.close()
    with pytest.raises(ValueError, match="device: 'cuda' given; want 'auto' or 'cpu'"):  # by a person, and not a file
        TRPO.load(path, device="cuda")


def test_a_device_for_modules_of_ones_own_is_refused():
    with pytest.raises(ValueError, match="device: 'cpu' given; want it left out: modules of one's own stay where"):
        TRPO("Pendulum-v1", policy=OwnPolicy(), critic=OwnCritic(), device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here that torch can use")
@pytest.mark.parametrize("env", [Halves, "CartPole-v1"], ids=["cnn", "mlp"])
def test_built_in_networks_learn_on_a_gpu_what_they_learn_on_the_cpu(env, tmp_path):
    settings = {"num_envs": 2, "steps_per_env": 32, "warm_up_steps": 4, "seed": 1, "dtype": "float64"}
    agents = [TRPO(env, device=device, **settings) for device in ("cuda", "cpu")]
    for agent in agents:
        agent.learn(64)
    for one, other in zip(*map(parameters, agents), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
    gpu = agents[0]
    assert gpu.engine.name == "autograd"
    assert {p.device.type for p in (*gpu.policy.parameters(), *gpu.critic.parameters())} == {"cuda"}
    gpu.save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo")
    assert same(loaded, gpu)
    observation = gpu.observation_space.sample()
    assert loaded.predict(observation)[0] == gpu.predict(observation)[0]
    with pytest.raises(ValueError, match=r"the native engine cannot serve this policy: .* is on cuda"):
        TRPO("CartPole-v1", device="cuda", engine="native")
    for agent in agents:
        agent.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here that torch can use")
def test_a_gpu_is_for_convolutions_unless_it_is_asked_for():
    assert next(TRPO(Halves, num_envs=1).policy.parameters()).is_cuda
    assert not next(TRPO("CartPole-v1", num_envs=1).policy.parameters()).is_cuda


# Learning.


def test_a_dot_that_falls_is_caught_after_a_short_training():
    """Chance catches three of ten: a return of -0.4. A perfect player has 1."""
    settings = {"num_envs": 8, "steps_per_env": 64, "critic_learning_rate": 3e-3, "device": "cpu"}
    agent = TRPO(Catch, policy="cnn", seed=0, **settings)
    assert agent.policy.image[:4] == (1, 1, 10, 10)
    before = agent.evaluate(50).mean
    agent.learn(12_000)
    assert before < 0 < 0.9 <= agent.evaluate(50).mean
    agent.close()
