from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.algorithm.images import OwnPolicy
from trpo_fast import TRPO


@pytest.fixture
def trained(command, small, tmp_path):
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0
    return tmp_path / "run"


def test_export_writes_beside_the_model_what_plays_as_the_agent(command, trained):
    result = command("export", "run", "--format", "onnx")
    assert (result.code, result.out.strip(), result.err) == (0, "run/model.onnx", "")
    agent = TRPO.load(trained / "model.trpo")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(trained / "model.onnx", providers=["CPUExecutionProvider"])
    (actions,) = session.run(["action"], {"observation": observations})
    np.testing.assert_array_equal(actions, agent.predict(observations, deterministic=True)[0])


def test_export_takes_a_model_file_and_replaces_what_was_there(command, trained, tmp_path):
    (tmp_path / "policy.onnx").write_text("old")
    options = ("--out", "policy.onnx", "--precision", "float32", "--opset", "15")
    result = command("export", "run/model.trpo", "--format", "onnx", *options)
    assert result.code == 0 and re.fullmatch(r"trpo-fast export: differs from the policy by at most \S+\n", result.err)
    model = onnx.load(tmp_path / "policy.onnx")
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == 15
    assert all(constant.data_type != onnx.TensorProto.DOUBLE for constant in model.graph.initializer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.onnx", "run"]


def test_a_checkpoint_serves_where_the_run_has_no_model_yet(command, trained):
    (trained / "model.trpo").unlink()
    *_, checkpoint = sorted((trained / "checkpoints").glob("*.trpo"))
    result = command("export", "run", "--format", "onnx")
    assert result.out.strip() == f"run/checkpoints/{checkpoint.stem}.onnx"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--format", "torchscript"), r"argument --format: invalid choice: 'torchscript'"),
        (("run",), "the following arguments are required: --format"),
        (("nowhere", "--format", "onnx"), "nowhere given; want a run's folder"),
        (("notes.txt", "--format", "onnx"), "notes.txt is truncated, or not a model file"),
        (("run", "--format", "onnx", "--out", "none/policy.onnx"), "cannot write none/policy.onnx: folder none does"),
        (("run", "--format", "onnx", "--out", "run"), "out: the folder run given; want the name of a file"),
        (("run", "--format", "onnx", "--opset", "3"), "opset: 3 given; want 12 to"),
        (("own.trpo", "--format", "onnx"), "own.trpo: its policy is a module of its own"),
    ],
)
def test_mistakes_are_one_line_without_traceback(command, trained, tmp_path, arguments, message):
    (tmp_path / "notes.txt").write_text("no model")
    agent = TRPO("Pendulum-v1", policy=OwnPolicy(), num_envs=2, seed=0)
    agent.save(tmp_path / "own.trpo")
    agent.close()
    before = sorted(tmp_path.rglob("*"))
    result = command("export", *arguments)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_export_without_onnx_says_what_to_install(command, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = command("export", "run", "--format", "onnx")
    assert result.code == 2
    assert "pip install 'trpo-fast[export]'" in result.err
