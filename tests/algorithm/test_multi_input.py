"""Images beside other parts, in a Dict or Tuple: through a CNN, concatenated with the flattened rest."""

from __future__ import annotations

import copy
import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.algorithm.images import OwnPolicy
from trpo_fast import TRPO, model_file
from trpo_fast.deploy import load_actor
from trpo_fast.policies import CNNPolicy, MLPCritic, MLPPolicy, MultiInputCritic, MultiInputPolicy

SMALL = {"num_envs": 2, "steps_per_env": 16, "warm_up_steps": 4, "seed": 1, "device": "cpu"}
VECTOR = spaces.Box(-5, 5, (3,), np.float32)


def pixels(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def beside(**parts):
    return spaces.Dict(list(parts.items()))  # in this order


CAMERA = beside(speed=VECTOR, camera=pixels(8, 9, 3), choice=spaces.Discrete(3, start=1))
NESTED = spaces.Tuple([beside(near=pixels(2, 8, 8), far=pixels(36, 40)), spaces.MultiBinary(2)])
IMAGES_ALONE = beside(one=pixels(8, 8, 3), other=pixels(1, 5, 5))
BOARDS = beside(board=spaces.Box(0, 1, (4, 4, 9), np.float32), flags=spaces.MultiBinary((2, 3, 3)), score=VECTOR)


class Samples(gymnasium.Env):
    """Samples of a space; 1 where the action is 1. Episodes of 7."""

    def __init__(self, space, action_space=None):
        self.observation_space = copy.deepcopy(space)  # with a generator of its own
        self.action_space = spaces.Discrete(2) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._step = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self._step += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self._step == 7, {}


@pytest.fixture
def make():
    made = []

    def agent(space, action_space=None, **settings):
        made.append(TRPO(lambda: Samples(space, action_space), **{**SMALL, **settings}))
        return made[-1]

    yield agent
    for one in made:
        one.close()


def parameters(agent):
    return [p.detach().numpy() for module in (agent.policy, agent.critic) for p in module.parameters()]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def batch_of(space, count):
    space.seed(4)
    found = [space.sample() for _ in range(count)]

    def stacked(part, *values):
        if isinstance(part, spaces.Dict):
            return {key: stacked(part[key], *(value[key] for value in values)) for key in part}
        if isinstance(part, spaces.Tuple):
            return tuple(stacked(one, *(value[i] for value in values)) for i, one in enumerate(part))
        return np.stack(values)

    return found, stacked(space, *found)


@pytest.mark.parametrize("space", [CAMERA, NESTED, IMAGES_ALONE], ids=["dict", "nested", "images alone"])
def test_it_is_learned_from_saved_and_loaded_and_goes_on_with_the_same_bits(make, space, tmp_path):
    agent = make(space)
    assert type(agent.policy) is MultiInputPolicy and type(agent.critic) is MultiInputCritic
    assert agent.networks.kinds == {"policy": "cnn", "critic": "cnn"}
    agent.learn(64)
    assert agent.last_update.status == 0
    agent.save(tmp_path / "agent.trpo")
    loaded = TRPO.load(tmp_path / "agent.trpo", env=lambda: Samples(space))
    assert same(loaded, agent) and loaded.config == agent.config
    singles, batch = batch_of(space, 5)
    wanted = agent.predict(batch, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(batch, deterministic=True)[0], wanted)
    assert [loaded.predict(one, deterministic=True)[0] for one in singles] == wanted.tolist()
    assert len(loaded.evaluate(2).returns) == 2
    loaded.learn(32)
    with pytest.raises(ValueError, match="its policy is a CNN, for which there are no compiled kernels; want an MLP"):
        load_actor(tmp_path / "agent.trpo")


def test_workers_give_the_same_bits(make):
    agents = [make(CAMERA, **how).learn(64) for how in ({}, {"vectorization": "workers", "num_workers": 2})]
    assert same(*agents)


def test_boards_beside_other_parts_are_images_where_a_cnn_is_asked_for(make, tmp_path):
    assert type(make(BOARDS).policy) is MLPPolicy
    agent = make(BOARDS, policy="cnn", channel_axis="last")
    assert [image.planes for _, image in agent.policy.parts.images] == [9, 3]
    agent.learn(32)
    agent.save(tmp_path / "agent.trpo")
    assert same(TRPO.load(tmp_path / "agent.trpo"), agent)
    with pytest.raises(ValueError, match=r".*want a part of two to four axes with bounds for a CNN"):
        make(beside(a=VECTOR, b=spaces.Discrete(2)), policy="cnn")


def test_vectors_are_normalized_and_pixels_are_not(make):
    agent = make(CAMERA, observation_clip=0.5)
    agent.learn(64)
    normalizer, image = agent.observation_normalizer, slice(3, 3 + 8 * 9 * 3)
    assert (normalizer.mean[image] == 0).all() and (normalizer.scale[image] == 1).all()
    assert (normalizer.scale[:3] != 1).all() and (normalizer.scale[image.stop :] == 1).all()
    batch, _, _ = agent.collector.finisher.finish(
        agent.collector.collect(), agent.critic_trainer.values, 0.99, 0.95, True
    )
    rows = np.asarray(batch.observations)
    assert np.abs(rows[:, :3]).max() == 0.5
    assert rows[:, image].max() > 200
    assert set(np.unique(rows[:, image.stop :])) <= {0.0, 0.5}  # one-hot, clipped like every number that is no pixel


def test_rows_of_bytes_stay_bytes(make):
    for space, dtype in ((NESTED, np.uint8), (IMAGES_ALONE, np.uint8), (CAMERA, np.float32)):
        assert make(space).collector._buffers[0].observations.dtype == dtype
    assert make(CAMERA, normalize_observations=False).collector._buffers[0].observations.dtype == np.float32


def convolved(image, weight, bias):
    """Valid convolution of (B, C, H, W), stride 1, with relu; written out, in float64."""
    k = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(image, (k, k), axis=(2, 3))
    return np.maximum(np.einsum("bchwij,fcij->bfhw", windows, weight) + bias[:, None, None], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_those_of_an_oracle(dtype):
    policy = MultiInputPolicy(CAMERA, spaces.Box(-1, 1, (2,)), (7,), "relu", dtype=dtype, seed=3)
    p = {name: value.detach().numpy().astype(np.float64) for name, value in policy.named_parameters()}
    assert next(iter(p)) == "log_std"
    _, batch = batch_of(CAMERA, 6)
    choice = np.eye(3)[batch["choice"] - 1]
    image = batch["camera"].transpose(0, 3, 1, 2) / 255.0
    features = convolved(image, p["images.0.convolutions.0.weight"], p["images.0.convolutions.0.bias"]).reshape(6, -1)
    features = np.maximum(features @ p["images.0.dense.weight"].T + p["images.0.dense.bias"], 0)
    x = np.concatenate([features, batch["speed"], choice], 1)
    x = np.maximum(x @ p["layers.0.weight"].T + p["layers.0.bias"], 0)
    wanted = x @ p["layers.1.weight"].T + p["layers.1.bias"]
    rows = np.concatenate([batch["speed"], batch["camera"].reshape(6, -1), choice], 1)
    found = policy(torch.from_numpy(rows)).base_dist.loc.detach().numpy()
    np.testing.assert_allclose(
        found, wanted, rtol=0, atol=np.abs(wanted).max() * {"float32": 1e-5, "float64": 1e-12}[dtype]
    )


def test_the_image_and_the_vector_both_tell_where_the_reward_is(make):
    """The action has to be the bright half of the image where the sign is positive, and the dark one where not."""

    class Signed(gymnasium.Env):
        observation_space = beside(image=pixels(6, 6, 1), sign=spaces.Box(-1, 1, (1,), np.float32))
        action_space = spaces.Discrete(2)

        def _show(self):
            bright, sign = int(self.np_random.integers(2)), int(self.np_random.integers(2))
            image = self.np_random.integers(0, 60, (6, 6, 1), np.uint8)
            image[:, 3 * bright : 3 * bright + 3] += 150
            self._right = bright ^ sign
            return {"image": image, "sign": np.array([1.0 - 2.0 * sign], np.float32)}

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self._step = 0
            return self._show(), {}

        def step(self, action):
            self._step += 1
            reward = float(int(action) == self._right)
            return self._show(), reward, False, self._step == 8, {}

    settings = {"num_envs": 8, "steps_per_env": 64, "critic_learning_rate": 3e-3, "device": "cpu"}
    agent = TRPO(Signed, seed=0, **settings).learn(8_000)
    assert agent.evaluate(20).mean > 7  # of 8; 4 is what either of the two alone is worth
    agent.close()


def test_settings_of_the_mlp_behind_are_heeded_and_those_of_no_use_refused(make):
    agent = make(CAMERA, hidden_sizes=(5,), critic_hidden_sizes=(6,), activation="relu", normalize_observations=False)
    assert agent.policy.widths == (128 + 6, 5, 2) and agent.critic.widths == (128 + 6, 6, 1)
    assert agent.policy.activation == "relu" and agent.observation_normalizer is None
    with pytest.raises(ValueError, match=r"hidden_sizes: .*want positive integers"):
        MultiInputPolicy(CAMERA, spaces.Discrete(2), (0,))
    with pytest.raises(ValueError, match="activation: 'mish'"):
        MultiInputCritic(CAMERA, activation="mish")
    with pytest.raises(ValueError, match=r"observations: shape \(2, 7\) given; want flat rows \(B, 222\)"):
        MultiInputCritic(CAMERA)(torch.zeros(2, 7))


def test_a_policy_of_ones_own_gets_the_same_rows_as_before(make):
    agent = make(CAMERA, spaces.Box(-1, 1, (1,), np.float32), policy=OwnPolicy(222))
    assert type(agent.critic) is MLPCritic
    assert (agent.observation_normalizer.scale[3:219] == 1).all()  # until there are statistics
    agent.learn(32)
    assert (agent.observation_normalizer.scale[3:219] != 1).all()


def test_a_policy_of_ones_own_may_call_its_layers_convolutions(make, tmp_path):
    class Rolling(OwnPolicy):
        def __init__(self):
            super().__init__(3)
            self.convolutions = torch.nn.ModuleList([torch.nn.Conv1d(1, 1, 3, padding=1)])

        def forward(self, observations):
            return super().forward(self.convolutions[0](observations[:, None])[:, 0])

    agent = make(VECTOR, spaces.Box(-1, 1, (1,), np.float32), policy=Rolling())
    agent.save(tmp_path / "agent.trpo")
    assert same(TRPO.load(tmp_path / "agent.trpo", policy=Rolling()), agent)


def test_an_mlp_that_older_files_have_for_such_a_dict_stays_one(make, tmp_path):
    agent = make(CAMERA, policy="mlp", hidden_sizes=(4,), critic_hidden_sizes=(4,))
    agent.learn(32)
    agent.save(tmp_path / "agent.trpo")
    arrays, metadata = model_file.read(tmp_path / "agent.trpo")
    metadata["config"]["policy"] = "auto"
    model_file.write(tmp_path / "old.trpo", arrays, json.loads(json.dumps(metadata)))
    loaded = TRPO.load(tmp_path / "old.trpo", env=lambda: Samples(CAMERA))
    assert type(loaded.policy) is MLPPolicy and same(loaded, agent)
    loaded.learn(32)
    singles, _ = batch_of(CAMERA, 1)
    assert load_actor(tmp_path / "old.trpo")(singles[0]) == agent.predict(singles[0], deterministic=True)[0]


def test_a_damaged_array_of_an_image_is_named(make, tmp_path):
    agent = make(CAMERA)
    agent.save(tmp_path / "agent.trpo")
    arrays, metadata = model_file.read(tmp_path / "agent.trpo")
    name = "policy.images.0.dense.weight"
    model_file.write(tmp_path / "bad.trpo", {**arrays, name: arrays[name][:, 1:]}, metadata)
    for read in (TRPO.load, load_actor):
        with pytest.raises(model_file.ModelFileError, match=r"policy\.images\.0\.dense\.weight: .* given; want \(128,"):
            read(tmp_path / "bad.trpo")


@pytest.mark.parametrize("space", [pixels(5, 5, 3), spaces.Box(0, 1, (5, 5, 3), np.float32)], ids=str)
def test_a_small_board_takes_an_mlp_by_setting_and_the_actor_takes_its_file(make, space, tmp_path):
    agent = make(space, policy="mlp")
    assert type(agent.policy) is MLPPolicy and type(agent.critic) is MLPCritic
    assert agent.engine.name == "native"
    agent.learn(64)
    agent.save(tmp_path / "agent.trpo")
    actor = load_actor(tmp_path / "agent.trpo")
    singles, batch = batch_of(space, 20)
    np.testing.assert_array_equal(actor(batch), agent.predict(batch, deterministic=True)[0])
    assert actor(singles[0]) == agent.predict(singles[0], deterministic=True)[0]
    assert type(make(space, policy="cnn").policy) is CNNPolicy
