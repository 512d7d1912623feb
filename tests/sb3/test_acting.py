"""Compiled acting in the rollout: Stable-Baselines3's numbers, generators and objects."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

pytest.importorskip("sb3_contrib")

import sb3_contrib
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize

from tests.sb3.pairs import ACTIONS, OBSERVATIONS, collect, make
from trpo_fast.sb3 import TRPO
from trpo_fast.sb3.acting import compiled_acting
from trpo_fast.sb3.networks import CompiledNetworks

SPACES = {**ACTIONS, "box of a shape": spaces.Box(-1.0, 1.0, (2, 3), np.float32)}
BUFFERS = ("observations", "actions", "rewards", "values", "log_probs", "episode_starts", "advantages", "returns")


@pytest.fixture
def no_torch_forward(monkeypatch):
    """Calling a policy's own forward is an error, so that what passes was compiled."""

    def forward(self, obs, deterministic=False):
        raise AssertionError("the policy acted in torch")

    monkeypatch.setattr(ActorCriticPolicy, "forward", forward)


class Each(BaseCallback):
    """Calls `function(model)` at the step of that number; stops the rollout where it returns False."""

    def __init__(self, step, function):
        super().__init__()
        self._at, self._function = step, function

    def _on_step(self):
        return self.n_calls != self._at or self._function(self.model) is not False


def rollout(model, seed=5, callback=None):
    """One rollout from seeded global generators; whether it was completed."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    _, callback = model._setup_learn(10**6, callback)
    model.set_logger(configure(None, []))
    return model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


def assert_the_same_rollout(ours, theirs):
    for name in BUFFERS:
        one, other = getattr(ours.rollout_buffer, name), getattr(theirs.rollout_buffer, name)
        if isinstance(other, dict):
            assert list(one) == list(other)
            one, other = (np.concatenate([a.ravel() for a in both.values()]) for both in (one, other))
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=name)


def two(action_space=ACTIONS["box"], **settings):
    """(ours, theirs) with the same parameters, away from the start."""
    models = [make(kind, action_space=action_space, **settings) for kind in (TRPO, sb3_contrib.TRPO)]
    torch.manual_seed(1)
    changes = [0.2 * torch.randn_like(parameter) for parameter in models[0].policy.parameters()]
    with torch.no_grad():
        for model in models:
            for parameter, change in zip(model.policy.parameters(), changes, strict=True):
                parameter.add_(change)
    return models


@pytest.mark.parametrize("actions", SPACES)
def test_a_rollout_is_that_of_sb3(actions):
    ours, theirs = two(SPACES[actions])
    states = []
    for model in (ours, theirs):
        rollout(model)
        states.append((torch.get_rng_state(), np.random.get_state()[1]))
    assert_the_same_rollout(ours, theirs)
    assert torch.equal(states[0][0], states[1][0])
    np.testing.assert_array_equal(states[0][1], states[1][1])


@pytest.mark.parametrize(("env", "steps"), [("Pendulum-v1", 250), ("CartPole-v1", 150)])
def test_a_rollout_through_an_environment_and_vecnormalize_is_that_of_sb3(env, steps):
    models = []
    for kind in (TRPO, sb3_contrib.TRPO):
        venv = VecNormalize(make_vec_env(env, 2, seed=3))
        models.append(kind("MlpPolicy", venv, n_steps=steps, batch_size=50, seed=3, device="cpu"))
        rollout(models[-1])
    assert_the_same_rollout(*models)
    normalizers = [model.get_vec_normalize_env().obs_rms for model in models]
    np.testing.assert_allclose(normalizers[0].mean, normalizers[1].mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "observations",
    [spaces.Discrete(4), spaces.MultiDiscrete([3, 2]), spaces.Box(-1, 1, (3, 2), np.float64)],
    ids=str,
)
def test_other_observations_are_seen_as_sb3_sees_them(observations, no_torch_forward, monkeypatch):
    ours = make(TRPO, observations)
    rollout(ours)
    monkeypatch.undo()
    theirs = make(sb3_contrib.TRPO, observations)
    rollout(theirs)
    assert_the_same_rollout(ours, theirs)


PARTS = spaces.Dict(
    {
        "z": spaces.Box(-1.0, 1.0, (3,), np.float32),
        "b": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
        "c": spaces.Discrete(3),
        "a": spaces.MultiBinary(2),
    }
)
ACTING = {
    "dict": {"policy": "MultiInputPolicy", "observation_space": PARTS},
    "dict, extractors apart": {
        "policy": "MultiInputPolicy",
        "observation_space": PARTS,
        "policy_kwargs": {"share_features_extractor": False},
    },
    "gSDE": {"use_sde": True, "policy_kwargs": {"net_arch": {"pi": [16, 12], "vf": [8]}}},
    "gSDE, often": {"use_sde": True, "sde_sample_freq": 3},
    "gSDE, squashed": {"use_sde": True, "policy_kwargs": {"squash_output": True, "activation_fn": nn.ReLU}},
    "gSDE, expln": {"use_sde": True, "policy_kwargs": {"use_expln": True, "full_std": False}},
    "gSDE, dict": {"use_sde": True, "policy": "MultiInputPolicy", "observation_space": PARTS},
}


@pytest.mark.parametrize("case", ACTING)
def test_dicts_and_gsde_act_compiled_as_sb3_does(case, no_torch_forward, monkeypatch):
    ours, theirs = two(**ACTING[case])
    rollout(ours)
    generator = torch.get_rng_state()
    monkeypatch.undo()
    rollout(theirs)
    assert_the_same_rollout(ours, theirs)
    assert torch.equal(generator, torch.get_rng_state())
    one, other = (model.policy.action_dist.distribution for model in (ours, theirs))
    torch.testing.assert_close(one.stddev, other.stddev, rtol=1e-4, atol=1e-5)


def test_gsde_without_a_hidden_layer_acts_in_torch():
    ours, theirs = two(use_sde=True, policy_kwargs={"net_arch": []})
    for model in (ours, theirs):
        rollout(model)
    np.testing.assert_array_equal(ours.rollout_buffer.actions, theirs.rollout_buffer.actions)


@pytest.mark.parametrize("actions", SPACES)
def test_the_rollout_does_not_act_in_torch(actions, no_torch_forward):
    collect(make(TRPO, action_space=SPACES[actions]))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("count", [1, 2, 17])
@pytest.mark.parametrize("actions", SPACES)
def test_tensors_are_those_of_the_policy(actions, count, deterministic):
    policy = two(SPACES[actions])[0].policy
    observations = torch.randn(count, *OBSERVATIONS.shape)
    with torch.no_grad():
        torch.manual_seed(2)
        wanted = policy(observations, deterministic=deterministic)
        with compiled_acting(policy, CompiledNetworks(policy)):
            torch.manual_seed(2)
            given = policy(observations, deterministic=deterministic)
    for one, other in zip(given, wanted, strict=True):
        assert (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
        assert one.is_contiguous() and one.device == other.device
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("actions", SPACES)
@pytest.mark.parametrize("look", [lambda one: one, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_callbacks_see_the_distribution_of_the_step(actions, look, no_torch_forward):
    seen = []

    def compare(model):
        observations = model.policy.obs_to_tensor(callback.locals["obs_tensor"].numpy())[0]
        ours = look(model.policy.action_dist.distribution)
        theirs = model.policy.get_distribution(observations).distribution
        pairs = zip(ours, theirs, strict=True) if isinstance(theirs, list) else [(ours, theirs)]
        for one, other in pairs:
            assert isinstance(one, type(other))
            torch.testing.assert_close(one.entropy(), other.entropy(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-5, equal_nan=True)
            assert type(one) is type(other) and repr(one) == repr(other) and set(vars(other)) <= set(vars(one))
        seen.append(actions)

    model, _ = two(SPACES[actions])
    callback = Each(2, compare)
    rollout(model, callback=callback)
    assert seen == [actions]


def test_log_probabilities_are_the_bits_that_the_update_computes():
    policy = two()[0].policy
    networks = CompiledNetworks(policy)
    observations = torch.randn(40, 9)
    with torch.no_grad(), compiled_acting(policy, networks):
        actions, _, log_probs = policy(observations)
    networks.actor.bind(networks.actor_parameters, observations.numpy(), actions.numpy(), np.ones(40, np.float32))
    np.testing.assert_array_equal(log_probs.numpy(), networks.actor.log_probs())


def test_small_deviations_do_not_spoil_log_probabilities():
    # The action is rounded to where its mean is: the noise that it was drawn with is no longer the one that it has.
    policy = two()[0].policy
    with torch.no_grad():
        policy.log_std.fill_(-12.0)
        with compiled_acting(policy, CompiledNetworks(policy)):
            observations = torch.randn(5, 9)
            actions, _, log_probs = policy(observations)
        mean = policy.get_distribution(observations).distribution.mean
        exact = torch.distributions.Normal(mean.double(), policy.log_std.double().exp()).log_prob(actions.double())
    # Means agree to 1e-7, which is 1e-2 deviations.
    torch.testing.assert_close(log_probs.double(), exact.sum(1), rtol=0.02, atol=0.3)


def test_gradients_are_recorded_by_torch():
    policy = two()[0].policy
    observations = torch.randn(4, 9)
    with compiled_acting(policy, CompiledNetworks(policy)):
        _, values, log_probs = policy(observations)
        assert values.requires_grad and log_probs.requires_grad
        with torch.no_grad():
            assert policy(observations.requires_grad_())[1].shape == (4, 1)


def test_torchs_default_dtype_does_not_matter():
    policy = two()[0].policy
    observations = torch.randn(4, 9)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), compiled_acting(policy, CompiledNetworks(policy)):
            given = policy(observations)
    finally:
        torch.set_default_dtype(torch.float32)
    assert [tensor.dtype for tensor in given] == [torch.float32] * 3


def nan_bias(model):
    with torch.no_grad():
        model.policy.action_net.bias.fill_(float("nan"))


@pytest.mark.parametrize("actions", ACTIONS)
def test_what_is_not_finite_is_refused_as_by_sb3(actions):
    errors = []
    for model in two(ACTIONS[actions]):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            rollout(model, callback=Each(3, nan_bias))
        errors.append((type(caught.value), torch.get_rng_state()))
        assert "_compiled_call_impl" not in vars(model.policy)
    assert errors[0][0] is errors[1][0] and torch.equal(errors[0][1], errors[1][1])


@pytest.mark.parametrize("log_std", [-60.0, 60.0])
def test_extreme_deviations_are_left_to_torch(log_std):
    models = two()
    for model in models:
        with torch.no_grad():
            model.policy.log_std.fill_(log_std)
        rollout(model)
    np.testing.assert_allclose(*(model.rollout_buffer.actions for model in models), rtol=1e-5, atol=1e-6)


def in_place(model):
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(0.5)


def data(model):
    for parameter in model.policy.parameters():
        parameter.data = 0.5 * parameter.data


def parameter_replaced(model):
    model.policy.log_std = nn.Parameter(torch.full((6,), -1.0))


def module_replaced(model):
    layer = nn.Linear(64, 6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.linspace(-0.2, 0.2, parameter.numel()).view(parameter.shape))
    model.policy.action_net = layer


def state_loaded(model):
    model.policy.load_state_dict({key: 0.5 * value for key, value in model.policy.state_dict().items()})


def policy_replaced(model):
    model.policy = copy.deepcopy(model.policy)
    in_place(model)


def refreshed(model):
    data(model)
    if isinstance(model, TRPO):
        model._backend.networks(model.policy)


def hooked(model):
    model.policy.action_net.register_forward_hook(lambda module, args, output: output + 1.0)


def memory_shared(model):
    model.policy.share_memory()
    in_place(model)


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        data,
        parameter_replaced,
        module_replaced,
        state_loaded,
        policy_replaced,
        refreshed,
        hooked,
        memory_shared,
    ],
)
def test_what_a_callback_changes_counts_from_the_next_step(change):
    ours, theirs = two()
    for model in (ours, theirs):
        rollout(model, callback=Each(20, change))
    assert_the_same_rollout(ours, theirs)
    unchanged, _ = two()
    rollout(unchanged)
    assert not np.allclose(unchanged.rollout_buffer.actions[21:], ours.rollout_buffer.actions[21:], atol=1e-2)


def saved_and_loaded(policy):
    file = io.BytesIO()
    torch.save(policy, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy)), saved_and_loaded])
def test_copies_made_within_a_rollout_are_sb3s_own(copied):
    copies = []
    model = make(TRPO)
    rollout(model, callback=Each(3, lambda model: copies.append(copied(model.policy))))
    assert type(copies[0]) is ActorCriticPolicy and "_compiled_call_impl" not in vars(copies[0])
    assert CompiledNetworks(copies[0]).actor.size == CompiledNetworks(model.policy).actor.size
    observations = torch.randn(3, 9)
    with torch.no_grad():
        torch.testing.assert_close(copies[0](observations, True), model.policy(observations, True))


def test_saving_within_a_rollout_saves_the_model(tmp_path):
    model = make(TRPO)
    rollout(model, callback=Each(3, lambda model: model.save(tmp_path / "model")))
    loaded = TRPO.load(tmp_path / "model")
    for one, other in zip(loaded.policy.parameters(), model.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_stopped_rollout_leaves_the_policy_as_it_was():
    model = make(TRPO)
    before = set(vars(model.policy))
    assert not rollout(model, callback=Each(3, lambda model: False))
    assert set(vars(model.policy)) == before


def test_a_policy_that_the_user_compiled_is_left_alone():
    policy = make(TRPO).policy
    calls = []
    policy._compiled_call_impl = lambda *args: calls.append(args)  # as nn.Module.compile has it
    with torch.no_grad(), compiled_acting(policy, CompiledNetworks(policy)):
        policy("observations")
    assert calls == [("observations",)] and "_compiled_call_impl" in vars(policy)


def test_a_policy_that_is_compiled_within_a_rollout_stays_so():
    model = make(TRPO)
    rollout(model, callback=Each(3, lambda model: model.policy.compile(backend="eager")))
    assert model.policy._compiled_call_impl is not None


def test_a_hook_on_every_module_counts_from_the_next_step():
    seen, handles = [], []

    def listen(_):
        handles.append(nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module))))

    try:
        rollout(make(TRPO), callback=Each(20, listen))
    finally:
        handles[0].remove()
    assert seen.count(ActorCriticPolicy) == 128 - 20


def test_torchs_default_device_does_not_matter():
    ours, theirs = two()
    with torch.device("meta"):  # where nothing can be computed
        rollout(ours)
    rollout(theirs)
    assert_the_same_rollout(ours, theirs)


def test_a_policy_that_cannot_be_compiled_acts_in_torch():
    ours, theirs = two(policy_kwargs={"activation_fn": nn.Mish})
    for model in (ours, theirs):
        rollout(model)
    for name in BUFFERS:
        np.testing.assert_array_equal(getattr(ours.rollout_buffer, name), getattr(theirs.rollout_buffer, name))
