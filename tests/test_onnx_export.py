"""Exported graphs in onnxruntime beside the agents that they come from, and beside the float64 oracle."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests import reference
from tests.agents import ACTIONS, CHOICES, OBSERVATIONS, PLAIN, observations_of, random_agent
from tests.algorithm.hybrid import nested_space
from tests.algorithm.images import OwnPolicy
from trpo_fast import TRPO, onnx_graph
from trpo_fast.deploy import load_actor
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.gymnasium_spaces import space_from_json
from trpo_fast.model_file import ModelFileError
from trpo_fast.onnx_export import export_onnx

ROWS = 200


@pytest.fixture
def exported(tmp_path):
    """``exported(agent)``: an onnxruntime session of the agent's policy."""

    def make(agent):
        agent.save(tmp_path / "model.trpo")
        export = export_onnx(tmp_path / "model.trpo")
        assert export.path == tmp_path / "model.onnx"
        onnx.checker.check_model(onnx.load(export.path), full_check=True)
        session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
        session.export = export
        return session

    return make


def parts(value, name="observation"):
    """Arrays by the names of the graph's inputs."""
    if isinstance(value, dict):
        return {full: array for key, part in value.items() for full, array in parts(part, f"{name}/{key}").items()}
    if isinstance(value, tuple):
        return {full: array for key, part in enumerate(value) for full, array in parts(part, f"{name}/{key}").items()}
    return {name: value}


def run(session, observations):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, parts(observations)), strict=True))


def unit_of(agent):
    """How much of an action one of the policy's own is."""
    space = agent.action_space
    return (space.high.astype(np.float64) - space.low) / 2 if agent.config.action_map == "affine" else 1.0


def assert_agree(agent, session, rows=ROWS):
    _, batch = observations_of(agent, rows)
    expected, _ = agent.predict(batch, deterministic=True)
    found = run(session, batch)
    actions = found["action"]
    assert actions.shape == expected.shape and actions.dtype == expected.dtype
    if isinstance(agent.action_space, Box):
        rtol = max(1e-5, np.finfo(actions.dtype).eps)
        # Rounding in the network is of the policy's unit, of sums of some tens of float32 numbers of that size.
        assert (abs(actions - expected.astype(np.float64)) <= 3e-6 * unit_of(agent) + rtol * abs(expected)).all()
        assert np.ptp(expected.astype(np.float64)) > 0.01
    else:
        np.testing.assert_array_equal(actions, expected)
        assert (expected != expected[0]).any()
    assert all(np.asarray(action) in agent.action_space for action in actions)
    return found


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_actions_of_every_space_are_the_agents(exported, space):
    agent = random_agent(PLAIN, space)
    session = exported(agent)
    found = assert_agree(agent, session)
    assert session.export.difference <= (1e-3 if space.dtype == np.float16 else 1e-5)
    if isinstance(space, Box):
        assert found["mean"].shape == (ROWS, *space.shape)
        np.testing.assert_array_equal(found["log_std"].ravel(), agent.policy.log_std.detach().numpy())
        mapped = reference.environment_action(found["mean"], space.low, space.high, agent.config.action_map)
        rtol = 1e-3 if space.dtype == np.float16 else 1e-6
        assert (abs(found["action"] - mapped) <= rtol * abs(mapped) + 1e-15 * unit_of(agent)).all()


def test_an_action_of_parts_has_outputs_for_each(exported):
    agent = random_agent(PLAIN, nested_space())
    session = exported(agent)
    _, batch = observations_of(agent, ROWS)
    expected, found = agent.predict(batch, deterministic=True)[0], run(session, batch)
    actions = parts(expected, "action")
    assert set(actions) == {"action/kick", "action/arm/0", "action/arm/1", "action/power", "action/grid"}
    for name, array in actions.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=3e-6 * 5)
        assert (array != array[0]).any()
    others = {"logits/kick": (ROWS, 3), "mean/arm/0": (ROWS, 2), "log_std/arm/0": (2,), "logits/arm/1": (ROWS, 2)}
    others |= {"mean/power": (ROWS, 1), "log_std/power": (1,), "logits/grid": (ROWS, 5)}
    assert {name: array.shape for name, array in found.items() if name not in actions} == others
    log_std = np.concatenate([found["log_std/arm/0"], found["log_std/power"]])
    np.testing.assert_array_equal(log_std, agent.policy.log_std.detach())
    assert session.export.difference <= 1e-5


def test_parts_whose_places_would_have_one_name_are_refused(tmp_path):
    random_agent(PLAIN, Dict({"a/0": CHOICES, "a": Tuple([CHOICES])})).save(tmp_path / "model.trpo")
    with pytest.raises(ValueError, match=r"action space: Dict.*; want keys that give every part its own name"):
        export_onnx(tmp_path / "model.trpo")


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_actions_on_every_observation_space_are_the_agents(exported, space):
    agent = random_agent(space, Box(-9, 9, (2,), np.float32))
    assert_agree(agent, exported(agent))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation_in_both_precisions(exported, activation, dtype):
    agent = random_agent(PLAIN, Box(-99, 99, (2,), np.float64), activation=activation, dtype=dtype)
    found = assert_agree(agent, exported(agent))
    assert found["mean"].dtype == dtype


@pytest.mark.parametrize(
    "settings",
    [{"normalize_observations": False}, {"observation_clip": np.inf}, {"observation_clip": 0.3}, {"hidden_sizes": ()}],
    ids=str,
)
def test_actions_under_every_setting_are_the_agents(exported, settings):
    agent = random_agent(PLAIN, Box(-99, 99, (2,), np.float32), **settings)
    assert_agree(agent, exported(agent))


@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu", "softplus"])
@pytest.mark.parametrize("kind", ["gaussian", "categorical", "multicategorical", "bernoulli"])
def test_distribution_parameters_are_the_oracles(exported, kind, activation):
    space = {
        "gaussian": Box(-1, 1, (3,), np.float32),
        "categorical": Discrete(4, start=2),
        "multicategorical": MultiDiscrete([2, 3]),
        "bernoulli": MultiBinary(3),
    }[kind]
    agent = random_agent(PLAIN, space, dtype="float64", normalize_observations=False, activation=activation)
    nvec = (2, 3) if kind == "multicategorical" else ()
    oracle = reference.Policy(agent.policy.widths, activation, kind, nvec)
    theta = np.concatenate([p.detach().numpy().ravel() for p in agent.policy.parameters()])
    _, batch = observations_of(agent, 20)
    found = run(exported(agent), batch)
    np.testing.assert_allclose(found["mean" if kind == "gaussian" else "logits"], oracle.forward(theta, batch), 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("space", ACTIONS[::3], ids=str)
def test_recurrent_policies_step_by_step(exported, space, kind, dtype):
    agent = random_agent(action_space=space, policy=kind, recurrent_size=5, dtype=dtype)
    session, rng = exported(agent), np.random.default_rng(0)
    _, observations = observations_of(agent, ROWS)
    state, expected_state = np.zeros((ROWS, agent.policy.state_items), dtype), None
    for _ in range(4):
        starts = rng.random(ROWS) < 0.2
        expected, expected_state = agent.predict(observations, expected_state, starts, deterministic=True)
        names = [output.name for output in session.get_outputs()]
        state = np.where(starts[:, None], np.array([np.nan, np.inf, -np.inf], dtype)[rng.integers(3)], state)
        given = {"observation": observations, "state": state, "episode_start": starts}
        found = dict(zip(names, session.run(names, given), strict=True))
        state = found["next_state"]
        np.testing.assert_allclose(state, expected_state, atol=1e-5)
        if isinstance(space, Box):
            np.testing.assert_allclose(found["action"], expected, rtol=1e-3, atol=1e-4 * np.max(unit_of(agent)))
        else:
            assert (found["action"] != expected).mean() < 0.02


def types_of(model):
    """Of every tensor in a graph, and what it casts to."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = (*graph.input, *graph.output, *graph.value_info)
    casts = (attribute.i for node in graph.node if node.op_type == "Cast" for attribute in node.attribute)
    return {*(value.type.tensor_type.elem_type for value in known), *(c.data_type for c in graph.initializer), *casts}


FAR = {"count": 1000.0, "mean": np.array([1e3, -20.0, 0.1]), "m2": np.array([10.0, 1e3, 1e5])}
NARROW = {
    "float64": {"activation": "gelu", "dtype": "float64"},
    "parts": {"action_space": nested_space(), "activation": "softplus"},
    "gru": {"policy": "gru", "dtype": "float64"},
    "choices": {"action_space": MultiDiscrete([3, 4]), "activation": "elu"},
}


@pytest.mark.parametrize("name", NARROW)
def test_a_float32_graph_has_no_float64_and_acts_as_the_other(tmp_path, name):
    """Within 1e-5 of a Box's half width; 1e-6 was seen of policies of HalfCheetah-v5 and Hopper-v5."""
    settings = {"action_space": Box(np.array([-0.1, -3.0]), np.array([0.1, 5.0]), dtype=np.float64)} | NARROW[name]
    agent = random_agent(Box(-np.inf, np.inf, (3,), np.float64), **settings)
    agent.observation_normalizer.set_state(FAR)
    agent.save(tmp_path / "model.trpo")
    exports = {p: export_onnx(tmp_path / "model.trpo", tmp_path / p, precision=p) for p in ("float64", "float32")}
    double = onnx.TensorProto.DOUBLE
    assert double in types_of(onnx.load(exports["float64"].path))
    assert double not in types_of(onnx.load(exports["float32"].path))
    assert exports["float32"].difference < (0.02 if name == "choices" else 1e-5)
    rng = np.random.default_rng(5)
    rows = (FAR["mean"] + rng.normal(size=(ROWS, 3)) * np.sqrt(FAR["m2"] / 1000)).astype(np.float32)
    found = {}
    for precision, export in exports.items():
        session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
        inputs = {"observation": rows.astype(precision)}
        for extra in session.get_inputs()[1:]:
            dtype = bool if extra.name == "episode_start" else precision
            inputs[extra.name] = np.zeros((ROWS, *extra.shape[1:]), dtype)
        outputs = [output.name for output in session.get_outputs() if output.name.startswith("action")]
        found[precision] = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    for output, wide in found["float64"].items():
        narrow = found["float32"][output]
        if wide.dtype.kind == "f":
            np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(wide).max()))
            assert name == "parts" or settings["action_space"].contains(narrow.min(0).astype(np.float64))
        else:
            assert (narrow != wide).mean() < 0.02


@pytest.mark.parametrize("opset", [12, onnx.defs.onnx_opset_version() - 4])
@pytest.mark.parametrize("name", ["float64", "parts", "gru"])
def test_the_operators_version_is_the_one_that_was_asked_for(tmp_path, name, opset):
    random_agent(**NARROW[name]).save(tmp_path / "model.trpo")
    export = export_onnx(tmp_path / "model.trpo", opset=opset)
    assert export.difference is not None
    assert [one.version for one in onnx.load(export.path).opset_import] == [opset]


@pytest.mark.parametrize("opset", [11, 1000, 13.0, True])
def test_other_versions_and_precisions_are_named(tmp_path, opset):
    random_agent().save(tmp_path / "model.trpo")
    with pytest.raises(ValueError, match=f"opset: {opset} given; want 12 to "):
        export_onnx(tmp_path / "model.trpo", opset=opset)
    with pytest.raises(ValueError, match="precision: 'half' given; want one of 'float64', 'float32'"):
        export_onnx(tmp_path / "model.trpo", precision="half")


def test_a_recurrent_policy_of_many_choices_is_exported_without_comparing(exported, tmp_path):
    session = exported(random_agent(action_space=Discrete(5000), policy="gru", recurrent_size=4))
    assert session.export.difference is None
    with pytest.raises(ValueError, match="has 5,000 outputs; want at most 4,096 of a recurrent one"):
        load_actor(tmp_path / "model.trpo")


def test_observations_far_from_zero_keep_their_digits(exported):
    """As float32, a mean of a million would leave a spread of one with 4 bits."""
    agent = random_agent(Box(-np.inf, np.inf, (3,), np.float64), Box(-np.inf, np.inf, (2,), np.float64))
    rng = np.random.default_rng(4)
    agent.observation_normalizer.set_state({"count": 1000.0, "mean": np.full(3, 1e6), "m2": np.full(3, 1000.0)})
    batch = 1e6 + rng.normal(size=(ROWS, 3))
    expected, _ = agent.predict(batch, deterministic=True)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(run(exported(agent), batch)["action"], expected, rtol=1e-5, atol=1e-6)


IMAGES = [(1, 8, 8), (8, 9, 3), (2, 40, 36), (36, 44, 1), (9, 8), (2, 9, 8, 3), (2, 3, 9, 8)]
BOARDS = [
    Box(0, 1, (17, 6, 6), np.float32),
    Box(-2, 2, (3, 3, 2), np.float64),
    Box(0, 1, (8, 8, 12), np.bool_),
    MultiBinary((2, 6, 7)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_convolutional_policies(exported, shape, dtype):
    agent = random_agent(Box(0, 255, shape, np.uint8), Box(-99, 99, (2,), np.float32), dtype=dtype, policy="cnn")
    assert type(agent.policy).__name__ == "CNNPolicy"
    session = exported(agent)
    assert session.export.difference is None
    assert_agree(agent, session, rows=20)


MIXED = [
    Dict(
        [
            ("speed", Box(-9, 9, (3,), np.float64)),
            ("camera", Box(0, 255, (8, 9, 3), np.uint8)),
            ("n", Discrete(3, start=2)),
        ]
    ),
    Tuple([Box(0, 255, (1, 8, 8), np.uint8), Dict(far=Box(0, 255, (36, 40), np.uint8))]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("space", MIXED, ids=["beside others", "alone"])
def test_policies_of_images_beside_other_parts(exported, space, dtype):
    agent = random_agent(space, Box(-99, 99, (2,), np.float32), dtype=dtype, activation="elu")
    assert type(agent.policy).__name__ == "MultiInputPolicy"
    assert_agree(agent, exported(agent), rows=20)


@pytest.mark.parametrize("action_map", ["affine", "clip"])
def test_convolutional_policies_hand_on_actions_by_the_agents_map(exported, action_map):
    space = Box(np.array([0.5, -3], np.float32), np.array([3, 2], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that 0.5 is far from 0
        agent = random_agent(Box(0, 255, (1, 8, 8), np.uint8), space, action_map=action_map)
    found = assert_agree(agent, exported(agent), rows=20)
    mapped = reference.environment_action(found["mean"], space.low, space.high, action_map)
    np.testing.assert_allclose(found["action"], mapped, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("high", [1e-6, 1e6])
def test_the_comparison_before_an_export_is_in_the_policys_unit(exported, high):
    """Else a wide box would never pass, and a narrow one always."""
    agent = random_agent(PLAIN, Box(0, high, (2,), np.float32), action_map="affine")
    assert 1e-12 < exported(agent).export.difference < 1e-5


@pytest.mark.parametrize("space", BOARDS, ids=str)
def test_convolutional_policies_over_boards(exported, space):
    agent = random_agent(space, Discrete(3), policy="cnn")  # float32 sums of 130 terms would be compared to 1e-6
    assert_agree(agent, exported(agent), rows=20)


def test_a_graph_reads_the_axis_that_the_agent_was_told(exported):
    agent = random_agent(
        Box(0, 1, (6, 6, 6), np.float32), Box(-99, 99, (2,), np.float32), policy="cnn", channel_axis="last"
    )
    assert_agree(agent, exported(agent), rows=20)


def test_convolutional_policy_of_choices(exported):
    agent = random_agent(Box(0, 255, (1, 8, 8), np.uint8), Discrete(3, start=1))
    assert_agree(agent, exported(agent), rows=50)


def test_the_graph_names_its_inputs_and_outputs_and_where_it_comes_from(exported):
    space = Dict(far=Box(-1, 1, (2,), np.float32), here=gymnasium.spaces.Tuple([Discrete(3), MultiBinary((2, 2))]))
    agent = random_agent(space, MultiDiscrete([2, 3]))
    agent.num_timesteps = 7
    agent.recipe = EnvironmentRecipe("Somewhere-v1")
    session = exported(agent)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("observation/far", "tensor(float)", ["batch", 2]),
        ("observation/here/0", "tensor(int64)", ["batch"]),
        ("observation/here/1", "tensor(int8)", ["batch", 2, 2]),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("action", "tensor(int64)", ["batch", 2]),
        ("logits", "tensor(float)", ["batch", 5]),
    ]
    properties = session.get_modelmeta().custom_metadata_map
    assert (properties["environment"], properties["num_timesteps"]) == ("Somewhere-v1", "7")
    assert space_from_json(json.loads(properties["observation_space"])) == space
    assert space_from_json(json.loads(properties["action_space"])) == MultiDiscrete([2, 3])
    assert json.loads(properties["versions"])["torch"]
    (opset,) = onnx.load(session.export.path).opset_import
    assert opset.version == 13


def test_what_is_no_path_is_named(tmp_path):
    random_agent().save(tmp_path / "model.trpo")
    with pytest.raises(TypeError, match=r"^model: 3 given; want a path"):
        export_onnx(3)
    with pytest.raises(TypeError, match=r"^out: 3 given; want a path"):
        export_onnx(tmp_path / "model.trpo", 3)
    with pytest.raises(FileNotFoundError, match=r"^model: the folder .* given; want a model file"):
        (tmp_path / "empty").mkdir()
        export_onnx(tmp_path / "empty")


def test_a_graph_that_acts_otherwise_is_not_written(tmp_path, monkeypatch):
    random_agent(PLAIN, Box(-1, 1, (2,), np.float32)).save(tmp_path / "model.trpo")
    (tmp_path / "model.onnx").write_text("old")
    activate = onnx_graph._activate
    monkeypatch.setattr(onnx_graph, "_activate", lambda graph, _, *rest: activate(graph, "sigmoid", *rest))
    with pytest.raises(
        RuntimeError, match=r"model\.trpo: onnxruntime .* other actions than the compiled actor: off by"
    ):
        export_onnx(tmp_path / "model.trpo")
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_a_graph_that_onnxruntime_does_not_take_is_not_written(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("an opset under development")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    random_agent().save(tmp_path / "model.trpo")
    with pytest.raises(RuntimeError, match="does not take the graph; nothing was written: an opset under development"):
        export_onnx(tmp_path / "model.trpo")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("space", [Discrete(3), MultiBinary(2)], ids=str)
def test_a_graph_that_chooses_otherwise_is_not_written(tmp_path, monkeypatch, space):
    random_agent(PLAIN, space).save(tmp_path / "model.trpo")
    activate = onnx_graph._activate
    monkeypatch.setattr(onnx_graph, "_activate", lambda graph, _, *rest: activate(graph, "sigmoid", *rest))
    with pytest.raises(RuntimeError, match="other actions than the compiled actor"):
        export_onnx(tmp_path / "model.trpo")
    assert not (tmp_path / "model.onnx").exists()


def test_exports_where_torch_and_gymnasium_are_not_installed_and_unchecked_without_onnxruntime(tmp_path):
    agent = random_agent()
    agent.save(tmp_path / "model.trpo")
    program = """
import importlib.util, sys
for name in ("torch", "gymnasium"):
    sys.modules[name] = None  # importing them raises ImportError
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "onnxruntime" else find_spec(name, *more)
from trpo_fast.onnx_export import export_onnx
print(export_onnx(sys.argv[1], sys.argv[2]).difference)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "model.trpo"), str(tmp_path / "out.onnx")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert_agree(agent, session)


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    own = TRPO("Pendulum-v1", policy=OwnPolicy(), num_envs=2, seed=0)
    own.save(tmp_path / "own.trpo")
    own.close()
    with pytest.raises(ValueError, match=r"own\.trpo: its policy is a module of its own, .*OwnPolicy.*torch\.onnx"):
        export_onnx(tmp_path / "own.trpo")
    keys = Dict({"a/0": Discrete(2), "a": gymnasium.spaces.Tuple([Discrete(2)])})
    random_agent(keys).save(tmp_path / "keys.trpo")
    with pytest.raises(ValueError, match="want keys that give every part its own name"):
        export_onnx(tmp_path / "keys.trpo")
    (tmp_path / "foreign.trpo").write_text("{}")
    with pytest.raises(ModelFileError, match=r"foreign\.trpo is truncated, or not a model file"):
        export_onnx(tmp_path / "foreign.trpo")
    random_agent().save(tmp_path / "model.trpo")
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        export_onnx(tmp_path / "model.trpo", tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(
        ValueError, match=r"out: the folder .* given; want the name of a file, e\.g\. model\.onnx in it"
    ):
        export_onnx(tmp_path / "model.trpo", tmp_path)
    with pytest.raises(ValueError, match=r"out: .*model\.trpo given, the model itself; want another file"):
        export_onnx(tmp_path / "model.trpo", tmp_path / "model.trpo")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"onnx is not installed, .*pip install 'trpo-fast\[export\]'"):
        export_onnx(tmp_path / "model.trpo")
