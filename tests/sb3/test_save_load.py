"""Files and copies: exchanged with sb3-contrib both ways, with nothing compiled in them."""

import copy
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")

import sb3_contrib
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

from tests.sb3.pairs import ACTIONS, IMAGES, collect, environment, flat, make, optimizer_state, pair, share, train
from trpo_fast.sb3 import TRPO

KINDS = {"ours to theirs": (TRPO, sb3_contrib.TRPO), "theirs to ours": (sb3_contrib.TRPO, TRPO), "ours": (TRPO, TRPO)}


def trained(kind, **settings):
    model = make(kind, **settings)
    collect(model)
    train(model)
    return model


def reopened(model, kind, **settings):
    """`model` as `kind` reads it from a file."""
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = kind.load(file, env=environment(model.observation_space, model.action_space), device="cpu", **settings)
    loaded.set_logger(configure(None, []))
    return loaded


def assert_equal_states(one, other):
    for name, tensor in one.policy.state_dict().items():
        assert torch.equal(tensor, other.policy.state_dict()[name]), name
    state, wanted = optimizer_state(one), optimizer_state(other)
    assert list(state) == list(wanted)
    for name, (step, m, v) in wanted.items():
        assert state[name][0] == step
        assert torch.equal(state[name][1], m)
        assert torch.equal(state[name][2], v)
    groups = [
        [
            {key: value for key, value in group.items() if key != "params"}
            for group in model.policy.optimizer.param_groups
        ]
        for model in (one, other)
    ]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("direction", KINDS)
def test_files_are_exchanged_and_training_goes_on_from_them(direction, actions):
    writer, reader = KINDS[direction]
    model = trained(writer, action_space=ACTIONS[actions])
    loaded = reopened(model, reader)
    assert type(loaded) is reader
    assert_equal_states(loaded, model)
    observations = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )
    assert (loaded.cg_max_steps, loaded.target_kl, loaded.num_timesteps) == (5, 0.01, model.num_timesteps)
    # The next update from one rollout: equal bits where one class does both.
    collect(model)
    share(model, loaded)
    train(model)
    train(loaded)
    if writer is reader:
        assert_equal_states(loaded, model)
    np.testing.assert_allclose(flat(loaded, False), flat(model, False), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(flat(loaded, True), flat(model, True), rtol=1e-3, atol=1e-5)


def test_going_on_after_loading_is_going_on():
    def started():
        model = make(TRPO, n_steps=32, batch_size=32)
        model.set_random_seed(5)
        return model.learn(2 * 64)

    def go_on(model):
        model.set_random_seed(6)
        model._last_obs = None
        model.learn(2 * 64, reset_num_timesteps=False)
        return model

    straight, resumed = go_on(started()), go_on(reopened(started(), TRPO))
    assert_equal_states(straight, resumed)
    assert resumed.num_timesteps == straight.num_timesteps == 256
    assert resumed._n_updates == 4


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["compiled", "autograd"])
def test_a_file_holds_nothing_of_this_package(settings):
    model = trained(TRPO, **settings)
    file = io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        data = archive.read("data").decode()
        assert set(json.loads(data)) - set(json.loads(_data_of(trained(sb3_contrib.TRPO, **settings)))) == {"paper_kl"}
        assert "trpo_fast" not in data
        assert not any(b"trpo_fast" in archive.read(name) for name in archive.namelist() if name.endswith(".pth"))


def _data_of(model):
    file = io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("data").decode()


def test_paper_kl_is_kept_is_the_default_in_files_of_sb3_contrib_and_can_be_given():
    model = make(TRPO, paper_kl=True)
    assert reopened(model, TRPO).paper_kl
    assert not reopened(make(sb3_contrib.TRPO), TRPO).paper_kl
    assert reopened(make(sb3_contrib.TRPO), TRPO, paper_kl=True).paper_kl
    assert not reopened(model, TRPO, custom_objects={"paper_kl": False}).paper_kl
    with pytest.raises(TypeError, match=r"paper_kl: 'no'.* given; want True or False"):
        make(TRPO, paper_kl="no")


def test_a_file_of_a_policy_of_images():
    model = trained(TRPO, policy="CnnPolicy", observation_space=IMAGES, n_steps=16, batch_size=16)
    assert_equal_states(reopened(model, sb3_contrib.TRPO), model)
    assert_equal_states(reopened(model, TRPO), model)


def test_parameters_go_out_and_in():
    model, other = trained(TRPO), make(TRPO, seed=9)
    parameters = copy.deepcopy(model.get_parameters())  # torch's optimizers keep the tensors that they are given
    other.set_parameters(parameters)
    assert_equal_states(other, model)
    for one in (model, other):
        collect(one)
    share(model, other)
    train(model)
    train(other)
    assert_equal_states(other, model)


def test_a_copy_trains_by_itself():
    model = trained(TRPO)
    twin = copy.deepcopy(model)
    assert twin.update_engine is None
    before = [tensor.clone() for tensor in model.policy.state_dict().values()]
    for one in (model, twin):
        collect(one)
    share(model, twin)
    train(twin)
    assert all(torch.equal(a, b) for a, b in zip(model.policy.state_dict().values(), before, strict=True))
    train(model)
    assert_equal_states(twin, model)


def test_what_is_compiled_is_not_pickled():
    model = trained(TRPO)
    backend = pickle.loads(pickle.dumps(model._backend))
    assert backend.policy_engine is None
    assert model._backend.policy_engine == "compiled"


def test_a_policy_that_is_replaced_is_the_one_that_is_trained():
    ours, theirs = pair()
    train(ours)
    train(theirs)
    ours.policy = copy.deepcopy(theirs.policy)
    ours.policy.optimizer = copy.deepcopy(theirs.policy.optimizer)
    share(theirs, ours)
    before = flat(ours, False)
    train(ours)
    train(theirs)
    assert (flat(ours, False) != before).any()
    np.testing.assert_allclose(flat(ours, False), flat(theirs, False), rtol=1e-3, atol=1e-5)


def test_parameters_whose_data_was_replaced_are_trained():
    ours, theirs = pair()
    for model in (ours, theirs):
        train(model)
        for parameter in model.policy.parameters():
            parameter.data = parameter.data.clone() * 1.01
    share(theirs, ours)
    before = flat(ours, True)
    train(ours)
    train(theirs)
    assert (flat(ours, True) != before).any()
    np.testing.assert_allclose(flat(ours, True), flat(theirs, True), rtol=1e-3, atol=1e-5)


def test_normalization_statistics_are_saved_beside_the_model(tmp_path):
    env = VecNormalize(environment())
    model = TRPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu").learn(64)
    model.save(tmp_path / "model")
    env.save(tmp_path / "env.pkl")
    again = VecNormalize.load(tmp_path / "env.pkl", environment())
    loaded = TRPO.load(tmp_path / "model", env=again, device="cpu")
    np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)
    loaded.learn(64)
    assert loaded.update_engine == "compiled"
