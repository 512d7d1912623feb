"""A saved policy acting: from the compiled core alone, as an ONNX graph, and as the agent it was."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest

import trpo_fast
from trpo_fast.deploy import load_actor

onnxruntime = pytest.importorskip("onnxruntime")


class Saved(NamedTuple):
    agent: trpo_fast.TRPO
    model: str
    graph: str


class Cheetah(gym.Env):
    """Spaces of HalfCheetah-v5, and noise."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (6,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=17), {}

    def step(self, action):
        return self.np_random.normal(size=17), 0.0, False, False, {}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from trpo_fast.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("deploy")
    model, graph = str(folder / "model.trpo"), str(folder / "model.onnx")
    agent = trpo_fast.TRPO(Cheetah, seed=0).learn(2_048)  # a normalizer that has seen something
    agent.save(model)
    export_onnx(model, graph)
    return Saved(agent, model, graph)


def actor(saved):
    return load_actor(saved.model)


def agent(saved):
    return lambda observation: saved.agent.predict(observation, deterministic=True)[0]


def onnx(saved):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(saved.graph, options, providers=["CPUExecutionProvider"])
    return lambda observation: session.run(["action"], {"observation": np.atleast_2d(observation)})[0]


@pytest.mark.parametrize("act", [actor, agent, onnx])
@pytest.mark.parametrize("rows", [1, 1_000])
def test_a_saved_policy_acts(benchmark, saved, rows, act):
    benchmark.group = f"saved 17-64-64-6 policy, {rows} observations"
    observations = np.random.default_rng(0).normal(size=(rows, 17))
    exact = saved.agent.predict(observations, deterministic=True)[0]
    chosen = observations[0] if rows == 1 else observations
    act = act(saved)
    np.testing.assert_allclose(np.atleast_2d(act(chosen)), exact, atol=1e-5)
    benchmark(act, chosen)
