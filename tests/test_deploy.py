"""Actors beside the agents that they were saved from, and beside the float64 oracle."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests import reference
from tests.agents import ACTIONS, OBSERVATIONS, PLAIN, observations_of, random_agent
from tests.algorithm.images import Halves, OwnCritic, OwnPolicy
from tests.discretes import discrete
from trpo_fast import TRPO, model_file
from trpo_fast.deploy import load_actor
from trpo_fast.model_file import ModelFileError
from trpo_fast.saved_policy import read_policy


@pytest.fixture
def saved(tmp_path):
    """``saved(observation_space, action_space, **settings)``: an agent, and an actor from its file."""

    def make(*spaces, **settings):
        agent = random_agent(*spaces, **settings)
        agent.save(tmp_path / "model.trpo")
        return agent, load_actor(tmp_path / "model.trpo")

    return make


def assert_same(one, other):
    assert type(one) is type(other)
    assert isinstance(one, np.ndarray | np.integer)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other, strict=True)


def assert_agree(agent, actor):
    """Single observations and batches, deterministic and not: the same bits, and noise that goes on in step."""
    samples, batch = observations_of(agent, 9)
    assert len({action.tobytes() for action in actor(batch)}) > 1
    actor.num_predictions = 0
    for deterministic in True, False:
        for observation in samples:
            expected, _ = agent.predict(observation, deterministic=deterministic)
            action = actor(observation, deterministic)
            assert_same(action, expected)
            assert action in agent.action_space
        assert_same(actor(batch, deterministic), agent.predict(batch, deterministic=deterministic)[0])
    assert actor.num_predictions == agent.num_predictions == 20


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_actions_of_every_space_are_the_agents_bit_for_bit(saved, space):
    agent, actor = saved(PLAIN, space)
    assert_agree(agent, actor)
    assert str(actor.action_space) == str(agent.action_space)


@pytest.mark.parametrize("given", [np.zeros(4, np.float32), [0.0] * 4], ids=["array", "list"])
def test_a_single_choice_is_a_number_that_can_be_a_key(saved, given):
    agent, actor = saved(PLAIN, discrete(3))
    for action in (actor(given), actor(given, deterministic=False), actor.predict(given)[0], agent.predict(given)[0]):
        assert isinstance(action, agent.action_space.dtype.type)
        assert {0: "left", 1: "stay", 2: "right"}[action]
    assert actor([given]).shape == agent.predict([given])[0].shape == (1,)


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_actions_on_every_observation_space_are_the_agents_bit_for_bit(saved, space):
    agent, actor = saved(space, Box(-0.3, 0.3, (2,), np.float32))
    assert_agree(agent, actor)
    assert (actor.normalizer is None) == (agent.observation_normalizer is None)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "float64"},
        {"normalize_observations": False},
        {"observation_clip": np.inf},
        {"observation_clip": 0.5},
        {"hidden_sizes": ()},
        {"activation": "relu"},
        {"activation": "elu", "dtype": "float64"},
        {"activation": "leaky_relu"},
        {"activation": "sigmoid"},
        {"activation": "silu"},
        {"activation": "gelu"},
        {"activation": "softplus", "dtype": "float64"},
    ],
    ids=str,
)
def test_actions_under_every_setting_are_the_agents_bit_for_bit(saved, settings):
    assert_agree(*saved(PLAIN, Box(-0.3, 0.3, (2,), np.float32), **settings))


def test_the_autograd_engines_actions_agree_to_rounding(saved):
    agent, actor = saved(PLAIN, Box(-9, 9, (2,), np.float64), engine="autograd", dtype="float64")
    _, batch = observations_of(agent, 20)
    np.testing.assert_allclose(actor(batch), agent.predict(batch, deterministic=True)[0], rtol=1e-12)


def test_mean_and_spread_are_those_of_the_oracle(saved):
    agent, actor = saved(PLAIN, Box(-np.inf, np.inf, (2,), np.float64), dtype="float64")
    oracle = reference.Policy((4, 8, 6, 2), "tanh", "gaussian")
    theta = np.concatenate([p.detach().numpy().ravel() for p in agent.policy.parameters()])
    statistics = agent.observation_normalizer.get_state()
    observation = np.array([0.5, -1.0, 2.0, 0.1])
    std = np.sqrt(statistics["m2"] / statistics["count"] + 1e-8)
    (mean,) = oracle.forward(theta, ((observation - statistics["mean"]) / std)[None])
    np.testing.assert_allclose(actor(observation), mean, rtol=1e-12)
    draws = actor(np.tile(observation, (20_000, 1)), deterministic=False)
    # Each of these is within 5 of its standard errors but in 1 of 1.7 million cases.
    sigma = np.exp(oracle.split(theta)[0])
    assert (np.abs(draws.mean(0) - mean) < 5 * sigma / np.sqrt(20_000)).all()
    assert (np.abs(draws.std(0) / sigma - 1) < 5 / np.sqrt(40_000)).all()


@pytest.mark.parametrize("space", [s for s in ACTIONS if not isinstance(s, Box)], ids=str)
def test_masked_actions_are_the_agents_and_allowed(saved, space):
    agent, actor = saved(PLAIN, space)
    _, batch = observations_of(agent, 30)
    rng = np.random.default_rng(2)
    if isinstance(space, MultiBinary):
        masks = rng.integers(0, 3, (30, *space.shape)).astype(np.int8)
    else:
        counts = np.atleast_1d(space.n if isinstance(space, Discrete) else space.nvec).ravel()
        components = [rng.random((30, n)) < 0.4 for n in counts]
        for component in components:
            component[np.arange(30), rng.integers(component.shape[1], size=30)] = True
        masks = np.concatenate(components, axis=1)
    for deterministic in True, False:
        expected, _ = agent.predict(batch, deterministic=deterministic, action_masks=masks)
        actions = actor(batch, deterministic, masks)
        assert_same(actions, expected)
        single = actor(batch[0], True, masks[0])
        assert_same(single, agent.predict(batch[0], deterministic=True, action_masks=masks[0])[0])
        if isinstance(space, MultiBinary):
            assert (actions == masks)[masks != 2].all()
        else:
            chosen = (actions - space.start).reshape(30, -1)
            assert all(component[np.arange(30), chosen[:, k]].all() for k, component in enumerate(components))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_recurrent_actions_of_every_space_are_the_agents_bit_for_bit(tmp_path, space, kind):
    agent = random_agent(action_space=space, policy=kind, recurrent_size=5)
    agent.save(tmp_path / "model.trpo")
    actor, states = load_actor(tmp_path / "model.trpo"), [None, None]
    rng = np.random.default_rng(0)
    for deterministic in (True, False, True, False):
        observations, starts = rng.normal(size=(6, 4)).astype(np.float32), rng.random(6) < 0.3
        found = [
            one.predict(observations, state, starts, deterministic)
            for one, state in zip((agent, actor), states, strict=True)
        ]
        states = [state for _, state in found]
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(*states)
        assert found[0][0].dtype == found[1][0].dtype
    # One observation alone goes another way, to the same bits.
    alone = [
        one.predict(observations[0], state[:1], None, True) for one, state in zip((agent, actor), states, strict=True)
    ]
    np.testing.assert_array_equal(alone[0][0], alone[1][0])
    np.testing.assert_array_equal(alone[0][1], alone[1][1])


def test_predict_has_the_signature_of_stable_baselines(saved):
    _, actor = saved()
    observation = np.zeros(4, np.float32)
    action, state = actor.predict(observation, state="kept", episode_start=np.array([True]), deterministic=True)
    assert state == "kept"
    assert_same(action, actor(observation))
    assert_same(actor.predict(observation, action_masks=[False, False, True])[0], np.int64(2))


def test_an_action_is_a_new_array(saved):
    _, actor = saved(PLAIN, Box(-np.inf, np.inf, (2,), np.float32))
    first = actor(np.ones(4))
    kept = first.copy()
    actor(-np.ones(4))
    np.testing.assert_array_equal(first, kept)
    assert not (actor(-np.ones(4)) == kept).any()


@pytest.mark.parametrize(
    "observation",
    [
        np.arange(8.0)[::2],
        np.arange(4, dtype=np.int8),
        np.arange(4, dtype=">f8"),
        np.broadcast_to(1.5, 4),
        [0, 1, 2, 3],
        np.ma.array(np.arange(4.0)),
    ],
    ids=str,
)
def test_arrays_of_any_layout_and_lists_are_observations(saved, observation):
    _, actor = saved(PLAIN, Box(-1, 1, (2,), np.float32))
    assert_same(actor(observation), actor(np.array(observation, np.float64)))


def test_noise_goes_on_where_the_saved_agent_stopped_or_is_that_of_the_seed(tmp_path):
    agent = random_agent(PLAIN, Box(-np.inf, np.inf, (2,), np.float32))
    observation = np.zeros(4)
    for _ in range(3):
        agent.predict(observation)
    agent.save(tmp_path / "model.trpo")
    actor, loaded = load_actor(tmp_path / "model.trpo"), TRPO.load(tmp_path / "model.trpo")
    assert (actor.seed, actor.num_predictions) == (3, 3)
    assert_same(actor(observation, False), loaded.predict(observation)[0])

    seeded, again, other = (load_actor(tmp_path / "model.trpo", seed=seed) for seed in (5, 5, 6))
    draws = [[a(observation, False) for _ in range(4)] for a in (seeded, again, other)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.isin(draws[0], draws[2]).any()
    assert len({draw.tobytes() for draw in draws[0]}) == 4
    seeded.num_predictions = 1
    assert_same(seeded(observation, False), draws[0][1])


def test_threads_share_an_actor(saved):
    # A network large enough that a thread is still at work in the core when the next one wants to begin.
    agent, actor = saved(PLAIN, Box(-1, 1, (2,), np.float32), hidden_sizes=(400, 400))
    _, batch = observations_of(agent, 400)
    expected = actor(batch)
    right = [0] * 4
    start = threading.Barrier(4)

    def act(first):
        start.wait()
        for i in range(first, len(batch), 4):
            pair = slice(i, i + 1 + first % 2)
            right[first] += (actor(batch[i]) == expected[i]).all() and (actor(batch[pair]) == expected[pair]).all()

    threads = [threading.Thread(target=act, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [100] * 4
    assert actor.num_predictions == 1 + 2 * len(batch)


def test_acts_where_torch_and_gymnasium_are_not_installed(saved, tmp_path):
    agent, _ = saved(Dict(a=Discrete(3), b=Box(-1, 1, (2,))), MultiDiscrete([3, 4]))
    samples, _ = observations_of(agent, 1)
    action, _ = agent.predict(samples[0], deterministic=True)
    program = """
import json, sys
sys.modules["torch"] = sys.modules["gymnasium"] = None  # importing them raises ImportError
from trpo_fast.deploy import load_actor
a, b = json.loads(sys.argv[2])
print(load_actor(sys.argv[1])({"a": a, "b": b}).tolist())
"""
    observation = json.dumps([int(samples[0]["a"]), samples[0]["b"].tolist()])
    arguments = [sys.executable, "-c", program, str(tmp_path / "model.trpo"), observation]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == action.tolist()


def test_metadata_say_where_the_policy_comes_from(tmp_path):
    agent = TRPO("CartPole-v1", num_envs=2, steps_per_env=16, hidden_sizes=(4,), warm_up_steps=0).learn(32)
    agent.save(tmp_path / "model.trpo")
    agent.close()
    actor = load_actor(tmp_path / "model.trpo")
    assert actor.metadata["environment"]["id"] == "CartPole-v1"
    assert actor.metadata["counters"]["num_timesteps"] == 32
    assert "torch" in actor.metadata["versions"]
    np.testing.assert_array_equal(actor.normalizer.mean, agent.observation_normalizer.mean)
    assert actor.observation_space.shape == (4,) and actor.action_space.n == 2


def test_a_runs_folder_means_its_latest_model_or_checkpoint(saved, tmp_path):
    agent, _ = saved()
    for steps in (900, 1000):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        agent.num_timesteps = steps
        agent.save(tmp_path / "checkpoints" / f"{steps:012d}.trpo")
    assert (tmp_path / "model.trpo").exists(), "of 0 timesteps"
    assert load_actor(str(tmp_path)).metadata["counters"]["num_timesteps"] == 1000
    assert load_actor(tmp_path / "checkpoints").metadata["counters"]["num_timesteps"] == 1000
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"path: the folder .*empty given; want a model file, or the"):
        load_actor(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"no model file at .*none"):
        load_actor(tmp_path / "none")


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (np.zeros(5), ValueError, r"shape \(5,\) given; want \(4,\) for one observation or \(n, 4\) for several"),
        (np.zeros((2, 3, 4)), ValueError, r"shape \(2, 3, 4\) given; want \(4,\)"),
        (3.0, ValueError, r"shape \(\) given; want \(4,\)"),
        ([[0.0], []], ValueError, "no array can be made of it"),
        (np.zeros(4, complex), TypeError, "dtype complex128 given; want real numbers"),
        (["a"] * 4, TypeError, "dtype <U1 given; want real numbers"),
        ({"a": 1}, TypeError, "dtype object given"),
        (np.array([0, np.nan, 0, 0]), ValueError, r"observation: column 1 is nan; want finite numbers"),
        (np.array([[0.0] * 4, [0, 0, np.inf, 0]]), ValueError, r"observation: row 1, column 2 is inf; want finite"),
    ],
)
def test_an_observation_that_does_not_fit_is_named(saved, observation, error, message):
    _, actor = saved()
    if isinstance(observation, dict):
        error, message = ValueError, r"shape \(\) given"
    with pytest.raises(error, match=message):
        actor(observation)
    assert actor.num_predictions == 0
    assert actor(np.zeros(4)).shape == ()  # the next call is served


def test_an_observation_beyond_the_policys_dtype_is_named(saved):
    _, actor = saved(Box(-np.inf, np.inf, (4,), np.float64), Discrete(3), normalize_observations=False)
    for observation in np.full(4, 1e300), np.full((2, 4), 1e300):
        with pytest.raises(ValueError, match="observation: it, or the action that comes of it, is beyond float32; wa"):
            actor(observation)


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        ({"a": 1}, ValueError, r"observation: \['a'\] given; want a dict with a, b"),
        ({"a": 1, "b": (np.zeros(3),)}, ValueError, r"observation\['b'\]\[0\]: shape \(3,\) given; want \(2,\)"),
        ({"a": 9, "b": (np.zeros(2),)}, ValueError, r"observation\['a'\]: 9 is no choice of Discrete\(3\)"),
        ({"a": 1.5, "b": (np.zeros(2),)}, TypeError, r"observation\['a'\]: dtype float64 given; want the integers of"),
    ],
)
def test_the_part_of_an_observation_that_does_not_fit_is_named(saved, observation, error, message):
    _, actor = saved(Dict(a=Discrete(3), b=Tuple([Box(-1, 1, (2,))])), Discrete(2))
    with pytest.raises(error, match=message):
        actor(observation)


def test_masks_that_do_not_fit_are_named(saved):
    _, actor = saved()
    one, two = np.zeros(4), np.zeros((2, 4))
    for observation, masks, message in (
        (one, np.ones(4, bool), r"action mask of observation 0: bool of 4 items given; want 3 items"),
        (one, np.zeros(3, bool), "action mask of observation 0 forbids every choice"),
        (two, np.ones((3, 3)), "action_masks: 3 masks given; want one for each of 2 observations"),
    ):
        with pytest.raises(ValueError, match=message):
            actor(observation, action_masks=masks)
    _, actor = saved(PLAIN, Box(-1, 1, (2,), np.float32))
    with pytest.raises(ValueError, match=r"action_masks: given for Box\(.*; want None, masks are for discrete actions"):
        actor(one, action_masks=np.ones(2, bool))


@pytest.mark.parametrize("count", [-1, 2**63, 1.5, True, "1", None])
def test_a_count_of_predictions_that_cannot_be_is_refused_where_it_is_set(saved, count):
    _, actor = saved()
    with pytest.raises(ValueError, match=r"num_predictions: .* want an integer"):
        actor.num_predictions = count
    actor.num_predictions = np.int64(3)
    assert actor.num_predictions == 3


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "3", True])
def test_a_seed_that_is_none_is_named(saved, tmp_path, seed):
    saved()
    with pytest.raises(ValueError, match=r"seed: .* given; want an integer from 0 to 2\*\*32 - 1"):
        load_actor(tmp_path / "model.trpo", seed=seed)


@pytest.mark.parametrize("given", [3, None, b"model.trpo"])
def test_what_is_no_path_is_named(given):
    with pytest.raises(TypeError, match=f"^path: {given!r} given; want a path, a str or an os.PathLike"):
        load_actor(given)


def test_policies_that_only_torch_can_evaluate_are_refused_with_what_can_act(tmp_path):
    small = {"num_envs": 2, "seed": 0}
    images = TRPO(Halves, **small)
    images.save(tmp_path / "images.trpo")
    with pytest.raises(ValueError, match=r"images\.trpo: its policy is a CNN, .*TRPO\.load.*predict.*onnx"):
        load_actor(tmp_path / "images.trpo")
    own = TRPO("Pendulum-v1", policy=OwnPolicy(), **small)
    own.save(tmp_path / "own.trpo")
    with pytest.raises(ValueError, match=r"own\.trpo: its policy is a module of its own, .*OwnPolicy.*torch\.onnx"):
        load_actor(tmp_path / "own.trpo")
    critic = TRPO("Pendulum-v1", critic=OwnCritic(), **small)
    critic.save(tmp_path / "critic.trpo")
    assert load_actor(tmp_path / "critic.trpo")(np.zeros(3)).shape == (1,)
    for agent in images, own, critic:
        agent.close()


def test_files_that_are_no_agents_are_refused_by_name(saved, tmp_path):
    saved()
    path, content = tmp_path / "model.trpo", (tmp_path / "model.trpo").read_bytes()
    tensors, metadata = model_file.read(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match=r"model\.trpo is truncated"):
        load_actor(path)
    path.write_bytes(b"something else altogether")
    with pytest.raises(ModelFileError, match=r"model\.trpo is truncated, or not a model file"):
        load_actor(path)
    path.write_bytes(content.replace(rb"\"version\": 1,", rb"\"version\": 2,"))
    with pytest.raises(ModelFileError, match=r"format version 2, this trpo_fast reads up to 1: install a newer one"):
        load_actor(path)
    model_file.write(path, tensors, {**metadata, "kind": "something"})
    with pytest.raises(ModelFileError, match=r"holds 'something'; want an agent saved by TRPO\.save"):
        load_actor(path)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.trpo"
    random_agent(PLAIN, Box(-1, 1, (2,), np.float32)).save(path)
    return model_file.read(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((name, "missing") for name in ("config", "seed", "observation_space", "action_space", "counters")),
        *((name, value) for name in ("config", "seed", "action_space", "counters") for value in (None, "text", -1, [])),
        ("seed", True),
        ("own_networks", {"policy": 3}),
        ("own_networks", "text"),
        ("counters.num_predictions", -1),
        ("counters.num_predictions", "3"),
        *((f"config.{name}", "missing") for name in ("dtype", "activation", "normalize_observations")),
        ("config.activation", "swish"),
        ("config.activation", 3),
        ("config.dtype", "float16"),
        ("config.dtype", "float64"),
        ("config.normalize_observations", "yes"),
        ("config.action_map", "tanh"),
        ("config.action_map", 3),
        ("config.observation_clip", -1),
        ("config.observation_clip", "wide"),
        ("observation_space", {"type": "Graph"}),
        ("observation_space", {"type": "Dict", "spaces": []}),
        ("observation_space", {"type": "Box", "low": 0, "high": 1, "shape": [10**6, 10**6], "dtype": "float32"}),
        ("observation_space", {"type": "Box", "low": 0, "high": 1, "shape": [4], "dtype": None}),
        ("observation_space", functools.reduce(lambda inner, _: {"type": "Tuple", "spaces": [inner]}, range(300), {})),
        ("action_space", {"type": "MultiBinary", "n": 10**12}),
        ("observation_space", {"type": "Discrete", "n": 3, "start": 0}),
        ("action_space", {"type": "Box", "low": 0, "high": 5, "shape": [2], "dtype": "int64"}),
        ("action_space", {"type": "Dict", "spaces": []}),
        ("action_space", {"type": "Discrete", "n": 2, "start": 0}),
        ("action_space", {"type": "Box", "low": 1, "high": -1, "shape": [2], "dtype": "float32"}),
    ],
)
def test_damaged_descriptions_are_refused_by_file(content, tmp_path, where, value):
    # By whatever reads them: exporting has no kernel that would refuse an activation.
    tensors, metadata = copy.deepcopy(content)
    *groups, last = where.split(".")
    place = metadata
    for group in groups:
        place = place[group]
    place[last] = value
    if value == "missing":
        del place[last]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    for read in (load_actor, read_policy):
        with pytest.raises(ModelFileError, match=r"bad\.trpo: damaged description of an agent: "):
            read(tmp_path / "bad.trpo")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("policy.log_std", None, r"policy\.log_std: missing; want \(2,\) of float32"),
        ("policy.layers.1.weight", None, r"policy\.layers\.\d\.weight: "),
        ("policy.layers.2.bias", None, r"policy\.layers\.2\.bias: missing; want \(2,\) of float32"),
        (
            "policy.layers.0.weight",
            np.zeros((8, 5), np.float32),
            r"\(8, 5\) of float32 given; want \(8, 4\) of float32",
        ),
        ("policy.layers.0.weight", np.zeros((8, 4)), r"\(8, 4\) of float64 given; want \(8, 4\) of float32"),
        ("policy.layers.0.weight", np.zeros(8, np.float32), r"\(8,\) of float32 given; want \(8, 4\) of float32"),
        ("policy.layers.0.bias", np.full(8, np.nan, np.float32), r"nan given; want finite numbers"),
        ("policy.extra", np.zeros(2, np.float32), r"policy\.extra: given; want no such parameter"),
        ("observation_normalizer.mean", None, r"mean: missing; want"),
        ("observation_normalizer.m2", -np.ones(4), r"numbers >= 0"),
        ("observation_normalizer.mean", np.zeros(3), r"\(3,\) of float64 given; want \(4,\)"),
    ],
)
def test_damaged_arrays_are_refused_by_file_and_name(content, tmp_path, name, array, message):
    tensors, metadata = content
    tensors = {**tensors, name: array}
    if array is None:
        del tensors[name]
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    with pytest.raises(ModelFileError, match=rf"bad\.trpo: damaged description of an agent: .*{message}"):
        load_actor(tmp_path / "bad.trpo")


@pytest.mark.parametrize(
    "name", ["critic.layers.0.weight", "adam.second_moment", "reward_scaler.mean", "episodes.returns"]
)
def test_what_acting_does_not_need_makes_a_latest_as_damaged_as_it_is_for_load(content, tmp_path, name):
    tensors, metadata = content
    model_file.write(tmp_path / "model.trpo", tensors, metadata)
    (tmp_path / "checkpoints").mkdir()
    counters = {**metadata["counters"], "num_timesteps": metadata["counters"]["num_timesteps"] + 100}
    spoilt = tensors[name].copy() if tensors[name].size else np.zeros(1)
    spoilt[(0,) * spoilt.ndim] = np.nan
    newest = tmp_path / "checkpoints" / "000000000100.trpo"
    model_file.write(newest, {**tensors, name: spoilt}, {**metadata, "counters": counters})
    for read in (TRPO.load, load_actor, read_policy):
        with pytest.warns(
            UserWarning, match=rf"000000000100\.trpo: .*{name}: nan given.*; taken instead: .*model\.trpo"
        ):
            read(tmp_path)


@pytest.mark.parametrize("action_map", ["affine", "clip"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_are_mapped_as_the_oracle_does(saved, action_map, dtype):
    space = Box(np.array([-3, -0.3, 0], dtype), np.array([2, 0.1, 0.5], dtype), dtype=dtype)
    agent, actor = saved(PLAIN, space, action_map=action_map, dtype="float64")
    assert_agree(agent, actor)
    _, batch = observations_of(agent, 50)
    means = agent.policy(torch.from_numpy(agent.observation_normalizer.normalize(batch, np.dtype(float)))).mean
    expected = reference.environment_action(means.detach(), space.low, space.high, action_map)
    np.testing.assert_allclose(actor(batch), expected, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=1e-9)


def test_a_file_from_before_there_was_a_map_is_clipped_to_the_same_bits(saved, tmp_path):
    agent, actor = saved(PLAIN, Box(-0.3, 0.5, (2,), np.float32), action_map="clip")
    tensors, metadata = model_file.read(tmp_path / "model.trpo")
    assert metadata["config"]["action_map"] == "clip"
    del metadata["config"]["action_map"]
    model_file.write(tmp_path / "old.trpo", tensors, metadata)
    _, batch = observations_of(agent, 20)
    old, loaded = load_actor(tmp_path / "old.trpo"), TRPO.load(tmp_path / "old.trpo")
    assert loaded.config.action_map == "clip"
    for deterministic in True, False:
        expected = actor(batch, deterministic)
        assert_same(old(batch, deterministic), expected)
        assert_same(loaded.predict(batch, deterministic=deterministic)[0], expected)


def test_a_file_from_before_there_was_a_map_is_clipped_where_the_default_is_another_now(content, tmp_path):
    tensors, metadata = copy.deepcopy(content)
    metadata["action_space"] = {"type": "Box", "low": 0, "high": 200, "shape": [2], "dtype": "float32"}
    assert metadata["config"].pop("action_map") == "clip"
    model_file.write(tmp_path / "old.trpo", tensors, metadata)
    observations = np.random.default_rng(0).normal(size=(20, 4))
    actions = load_actor(tmp_path / "old.trpo")(observations)
    assert (actions == 0).any() and actions.max() < 10
    assert_same(TRPO.load(tmp_path / "old.trpo").predict(observations, deterministic=True)[0], actions)


def test_a_file_from_before_predictions_were_counted_is_read(content, tmp_path):
    tensors, metadata = copy.deepcopy(content)
    del metadata["counters"]["num_predictions"], metadata["own_networks"]
    model_file.write(tmp_path / "old.trpo", tensors, metadata)
    assert load_actor(tmp_path / "old.trpo").num_predictions == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"state": torch.zeros(1, 64, dtype=torch.bfloat16)},
            TypeError,
            "state: .*bfloat16 given; want one that",
        ),
        ({"state": [[1.0], [1.0, 2.0]]}, ValueError, "state: no array can be made of it"),
        ({"state": np.full((1, 64), np.inf, np.float32)}, ValueError, "state: float32 .* given; want finite numbers"),
        ({"episode_start": [[True], [True, False]]}, ValueError, "episode_start: no array can be made of it"),
    ],
)
def test_states_and_episode_starts_that_do_not_fit_are_named(saved, given, error, message):
    _, actor = saved(policy="gru")
    with pytest.raises(error, match=message):
        actor.predict(np.zeros(4), **given)


def test_a_state_whose_square_is_infinite_serves_without_a_warning(saved):
    _, actor = saved(policy="gru")
    action, _ = actor.predict(np.zeros(4), np.full((1, 64), 1e30, np.float64))
    assert action.shape == ()
