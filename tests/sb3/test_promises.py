"""What the tests of sb3-contrib and Stable-Baselines3 promise of TRPO and of on-policy algorithms, kept by ours."""

import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

pytest.importorskip("sb3_contrib")

import sb3_contrib
from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import (
    IdentityEnv,
    IdentityEnvBox,
    IdentityEnvMultiBinary,
    IdentityEnvMultiDiscrete,
    SimpleMultiObsEnv,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from tests.sb3.pairs import IMAGES, Toy
from trpo_fast.sb3 import TRPO

SMALL = {"n_steps": 64, "batch_size": 64, "seed": 0, "device": "cpu"}


def state_of(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_trained(model, before):
    after = model.policy.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("value" in name for name in changed) and any("value" not in name for name in changed)


def learn(*args, steps=128, **kwargs):
    model = TRPO(*args, **SMALL | kwargs)
    before = state_of(model)
    model.learn(steps)
    assert_trained(model, before)
    return model


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_it_runs_from_an_id(env, capsys):
    model = learn("MlpPolicy", env, steps=300, policy_kwargs={"net_arch": [16]}, verbose=1)
    assert model.num_timesteps == 5 * 64  # whole rollouts
    assert "policy_objective" in capsys.readouterr().out


def test_gsde_and_subsampling():
    model = learn(
        "MlpPolicy",
        "Pendulum-v1",
        use_sde=True,
        sde_sample_freq=4,
        sub_sampling_factor=4,
        policy_kwargs={"net_arch": {"pi": [32], "vf": [32]}},
    )
    assert model.update_engine == "autograd"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"net_arch": []},
        {"net_arch": [12, 8], "activation_fn": nn.ReLU},
        {"net_arch": {"vf": [8], "pi": [6, 5]}, "share_features_extractor": False},
        {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.0}},
        {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"eps": 1e-5}},
        {"log_std_init": -1.0, "ortho_init": False},
    ],
    ids=str,
)
def test_policy_kwargs(kwargs):
    assert learn("MlpPolicy", "Pendulum-v1", policy_kwargs=kwargs).update_engine == "compiled"


def test_buffer_sizes_that_make_no_sense_are_named():
    with pytest.raises(AssertionError, match="must be greater than 1"):
        TRPO("MlpPolicy", "Pendulum-v1", n_steps=1)
    TRPO("MlpPolicy", "Pendulum-v1", n_steps=1, normalize_advantage=False, batch_size=1)
    with pytest.warns(UserWarning, match="truncated mini-batch"):
        TRPO("MlpPolicy", "Pendulum-v1", n_steps=6, batch_size=8)


@pytest.mark.parametrize("size", [1, 42])
def test_episode_statistics_have_the_window_asked_for(size):
    model = learn("MlpPolicy", "CartPole-v1", stats_window_size=size, steps=500)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == size
    assert 0 < len(model.ep_info_buffer) <= size


@pytest.mark.parametrize(
    "env",
    [
        IdentityEnv(10),
        IdentityEnvMultiDiscrete(3),
        IdentityEnvMultiBinary(3),
        IdentityEnvBox(eps=0.5),
    ],
    ids=lambda env: type(env).__name__,
)
def test_it_learns_to_answer_what_it_sees(env):
    # Chance gives 10, 11, 12.5 and about 25 of 100.
    env = DummyVecEnv([lambda: env])
    settings = SMALL | {"n_steps": 256, "gamma": 0.4, "target_kl": 0.03}
    model = TRPO("MlpPolicy", env, **settings).learn(6_000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=5, warn=False)
    assert mean > 70


def test_images(tmp_path):
    env = DummyVecEnv([lambda: Toy(IMAGES, spaces.Discrete(3))])
    model = learn(
        "CnnPolicy", env, n_steps=32, batch_size=16, policy_kwargs={"features_extractor_kwargs": {"features_dim": 16}}
    )
    assert model.update_engine == "autograd" and "NatureCNN" in model.update_reason
    observations = env.reset()
    action, _ = model.predict(observations, deterministic=True)
    model.save(tmp_path / "model.zip")
    loaded = TRPO.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], action)


@pytest.mark.parametrize("channels_last", [False, True])
def test_dictionaries(channels_last):
    env = DummyVecEnv(
        [lambda: SimpleMultiObsEnv(random_start=True, discrete_actions=False, channel_last=channels_last)]
    )
    extractor = {"features_extractor_kwargs": {"cnn_output_dim": 8}}
    model = learn("MultiInputPolicy", VecFrameStack(env, n_stack=2), policy_kwargs={"net_arch": [8]} | extractor)
    assert "extractors.img is a NatureCNN" in model.update_reason
    evaluate_policy(model, model.get_env(), n_eval_episodes=1, warn=False)


def test_dictionaries_are_normalized():
    env = DummyVecEnv([lambda: Toy(spaces.Dict({"a": spaces.Box(-1, 1, (3,))}), spaces.Discrete(2))])
    model = learn("MultiInputPolicy", VecNormalize(env, norm_obs_keys=["a"]))
    assert (model.update_engine, model.critic_engine) == ("compiled", "compiled")


@pytest.mark.parametrize(
    ("policy", "observations", "settings", "says"),
    [
        ("MlpPolicy", spaces.Box(-1, 1, (3,)), {}, "device: meta given .* want device='cpu'"),
        ("MlpPolicy", spaces.Box(-1, 1, (3,)), {"use_sde": True}, "device: meta given .* want device='cpu'"),
        ("MultiInputPolicy", spaces.Dict({"a": spaces.Discrete(3)}), {}, "device: meta given .* want device='cpu'"),
        ("MlpPolicy", spaces.Box(-1, 1, (3,)), {"policy_kwargs": {"activation_fn": nn.Mish}}, "run TRPO on the GPU"),
        ("CnnPolicy", IMAGES, {}, None),
    ],
    ids=["mlp", "gSDE", "dict", "no kernel", "images"],
)
def test_a_perceptron_that_goes_to_a_gpu_is_told_once_of_the_cpu(
    monkeypatch, recwarn, policy, observations, settings, says
):
    """The GPU is torch's meta device: it has shapes and no numbers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("stable_baselines3.common.base_class.get_device", lambda _: torch.device("meta"))
    env = DummyVecEnv([lambda: Toy(observations, spaces.Box(-1, 1, (2,)))])
    TRPO(policy, env, **SMALL | {"device": "auto"} | settings)
    told = [str(warning.message) for warning in recwarn if "device" in str(warning.message)]
    assert len(told) == (says is not None)
    assert says is None or re.search(says, told[0])


class Regularized(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 6)
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

    def forward(self, observations):
        return self.layers(observations)


def test_batch_normalization_changes_in_training_only():
    with pytest.warns(UserWarning, match="sb3-contrib's own"):
        model = TRPO(
            "MlpPolicy", "Pendulum-v1", policy_kwargs={"features_extractor_class": Regularized}, **SMALL
        ).learn(64)
    statistics = model.policy.features_extractor.layers[1].running_mean
    before = statistics.clone()
    assert before.any()
    observation = np.ones(3, np.float32)
    actions = [model.predict(observation, deterministic=True)[0] for _ in range(3)]
    assert np.ptp(actions) == 0  # no dropout, no statistics of the batch
    assert rollout(model) and torch.equal(statistics, before)


def rollout(model):
    _, callback = model._setup_learn(64, None)
    return model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


class OwnNetwork(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        class Both(nn.Module):
            def __init__(self, inputs):
                super().__init__()
                self.latent_dim_pi = self.latent_dim_vf = 5
                self.pi, self.vf = (nn.Sequential(nn.Linear(inputs, 5), nn.SiLU()) for _ in range(2))

            def forward(self, features):
                return self.forward_actor(features), self.forward_critic(features)

            def forward_actor(self, features):
                return self.pi(features)

            def forward_critic(self, features):
                return self.vf(features)

        self.mlp_extractor = Both(self.features_dim)


def test_a_network_of_ones_own():
    assert "Both" in learn(OwnNetwork, "CartPole-v1").update_reason


def test_callbacks(tmp_path):
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1"),
        callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
        best_model_save_path=str(tmp_path),
        eval_freq=64,
        n_eval_episodes=2,
        verbose=0,
        warn=False,
    )
    checkpoints = CheckpointCallback(100, str(tmp_path), name_prefix="at")
    model = TRPO("MlpPolicy", "CartPole-v1", **SMALL)
    model.learn(256, CallbackList([evaluation, checkpoints]))
    assert evaluation.best_mean_reward > 0
    # Evaluated and saved within rollouts, while the policy acts compiled.
    for name in ("best_model", "at_100_steps", "at_200_steps"):
        saved = TRPO.load(tmp_path / name)
        assert saved.predict(np.zeros(4, np.float32))[0] in (0, 1)
        assert vars(saved.policy).keys() == vars(model.policy).keys()
    steps = []
    model.learn(64, callback=lambda variables, _: steps.append(variables["values"].shape) or True)
    assert steps == [(1, 1)] * 64


def test_a_callback_stops_training():
    model = TRPO("MlpPolicy", "CartPole-v1", **SMALL)
    model.learn(10_000, StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps < 500


def test_the_same_seed_is_the_same_run():
    runs = [learn("MlpPolicy", make_vec_env("Pendulum-v1", 2, seed=1), steps=512) for _ in range(2)]
    for one, other in zip(*(run.policy.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    other = learn("MlpPolicy", make_vec_env("Pendulum-v1", 2, seed=1), steps=512, seed=1)
    assert not torch.equal(other.policy.action_net.weight, runs[0].policy.action_net.weight)


def test_learning_goes_on_where_it_stopped():
    model = learn("MlpPolicy", "CartPole-v1")
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 192
    model.learn(64)
    assert model.num_timesteps == 64


def test_another_environment_is_taken_up():
    model = learn("MlpPolicy", make_vec_env("CartPole-v1", 2))
    other = make_vec_env("CartPole-v1", 2)
    model.set_env(other)
    model.learn(128)
    assert model.get_env() is other
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(make_vec_env("Pendulum-v1", 2))


def test_environments_in_processes():
    env = SubprocVecEnv([lambda: gym.make("CartPole-v1")] * 2, start_method="fork")
    try:
        learn("MlpPolicy", env)
    finally:
        env.close()


def test_what_is_saved_can_be_chosen(tmp_path):
    model = learn("MlpPolicy", "CartPole-v1", target_kl=0.02, cg_damping=0.2)
    model.save(tmp_path / "model", exclude=["target_kl"])
    loaded = TRPO.load(tmp_path / "model", env=model.get_env())
    assert (loaded.target_kl, loaded.cg_damping) == (0.01, 0.2)
    loaded.learn(64)


def test_a_policy_is_saved_by_itself(tmp_path):
    model = learn("MlpPolicy", "Pendulum-v1")
    model.policy.save(tmp_path / "policy")
    policy = type(model.policy).load(tmp_path / "policy")
    observation = np.ones(3, np.float32)
    # Matrix products of torch depend, by a rounding, on where in memory the weights lie.
    np.testing.assert_allclose(*(one.predict(observation, deterministic=True)[0] for one in (policy, model)), rtol=1e-5)


def test_names_of_policies_and_arguments_are_those_of_sb3_contrib():
    assert TRPO.policy_aliases == sb3_contrib.TRPO.policy_aliases
    assert issubclass(TRPO, sb3_contrib.TRPO)
    ours, theirs = (inspect.signature(kind).parameters for kind in (TRPO, sb3_contrib.TRPO))
    assert list(ours.values())[:-1] == list(theirs.values())
    assert list(ours)[-1] == "paper_kl" and ours["paper_kl"].kind is inspect.Parameter.KEYWORD_ONLY
    for method in ("learn", "load", "save", "predict"):
        assert inspect.signature(getattr(TRPO, method)) == inspect.signature(getattr(sb3_contrib.TRPO, method))


def test_tensorboard_gets_the_same_tags(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags = []
    for kind in (TRPO, sb3_contrib.TRPO):
        kind("MlpPolicy", "CartPole-v1", tensorboard_log=str(tmp_path / kind.__module__), **SMALL).learn(128)
        (folder,) = (tmp_path / kind.__module__).iterdir()
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        tags.append((folder.name, set(events.Tags()["scalars"])))
    assert tags[0] == tags[1] and "train/kl_divergence_loss" in tags[0][1]
