"""Action spaces of more outputs than the compiled core takes: by the autograd engine, from training to deployment."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from trpo_fast import TRPO, Batch, MLPPolicy, make_engine
from trpo_fast.deploy import load_actor
from trpo_fast.engines import autograd

SMALL = {"num_envs": 2, "steps_per_env": 32, "warm_up_steps": 4, "seed": 1, "hidden_sizes": (8,), "max_kl": 0.04}
SPACES = [
    Discrete(20481, start=-3),
    MultiDiscrete([100] * 50, start=[2] * 50),
    Discrete(5000),
    MultiBinary(4200),
    Box(-1, 1, (4100,), np.float32),
]


class Numbers(gymnasium.Env):
    """Reward for a small action; with masks, where it is asked for, that allow a tenth of everything."""

    observation_space = Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space, masked=False):
        self.action_space, self.masked = action_space, masked
        if masked:
            self.action_masks = lambda: self.mask

    def _show(self):
        size = {Discrete: "n", MultiBinary: "n"}.get(type(self.action_space))
        if self.masked and isinstance(self.action_space, MultiBinary):
            self.mask = self.np_random.integers(0, 3, self.action_space.n)
        elif self.masked:
            count = int(getattr(self.action_space, size)) if size else int(self.action_space.nvec.sum())
            self.mask = self.np_random.random(count) < 0.1
            self.mask[:: 100 if size is None else count] = True
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._show(), {}

    def step(self, action):
        assert action in self.action_space
        if self.masked:
            assert allowed(self.action_space, self.mask, np.asarray(action))
        self._step += 1
        return self._show(), -float(np.mean(action)), False, self._step == 8, {}


def allowed(space, mask, action):
    if isinstance(space, MultiBinary):
        return ((mask == 2) | (mask == action)).all()
    if isinstance(space, Discrete):
        return bool(mask[action - space.start])
    return all(mask[100 * k + choice] for k, choice in enumerate(action - space.start))


@pytest.mark.parametrize("space", SPACES, ids=["20481", "50 x 100", "5000", "binary", "box"])
def test_they_are_trained_saved_loaded_and_acted_in_without_torch(space, tmp_path):
    agent = TRPO(lambda: Numbers(space), **SMALL)
    assert agent.engine.name == "autograd"
    outputs = agent.policy.widths[-1]
    assert agent.engine.reason == f"MLPPolicy has {outputs:,} outputs, more than 4,096"
    agent.learn(2 * 64)
    assert agent.last_update.status == 0 and agent.last_update.kl > 0
    agent.save(tmp_path / "agent.trpo")
    loaded, actor = TRPO.load(tmp_path / "agent.trpo"), load_actor(tmp_path / "agent.trpo")
    observations = np.random.default_rng(3).uniform(-1, 1, (70, 3)).astype(np.float32)
    for deterministic in (False, True):
        wanted = agent.predict(observations, deterministic=deterministic)[0]
        assert all(action in space for action in wanted)
        np.testing.assert_array_equal(loaded.predict(observations, deterministic=deterministic)[0], wanted)
        found = actor(observations, deterministic=deterministic)
        assert found.dtype == wanted.dtype
        if isinstance(space, Box):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
        else:  # probabilities are rounded elsewhere
            assert (found != wanted).mean() < 0.01
    assert actor(observations[0]) in space
    with pytest.raises(ValueError, match=r"native engine cannot serve this policy: MLPPolicy has .* outputs"):
        TRPO(lambda: Numbers(space), **SMALL, engine="native")


@pytest.mark.parametrize("space", SPACES[1:4], ids=["50 x 100", "5000", "binary"])
def test_masks_hold_for_them(space, tmp_path):
    agent = TRPO(lambda: Numbers(space, masked=True), **SMALL).learn(64)  # who asserts it
    assert agent.last_update.status == 0
    assert len(agent.evaluate(2, deterministic=False).returns) == 2
    agent.save(tmp_path / "agent.trpo")
    actor, env = load_actor(tmp_path / "agent.trpo"), Numbers(space, masked=True)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        for deterministic in (False, True):
            action = actor(observation, deterministic=deterministic, action_masks=env.mask)
            assert allowed(space, env.mask, np.asarray(action))
            wanted = agent.predict(observation, deterministic=True, action_masks=env.mask)[0]
        np.testing.assert_array_equal(action, wanted)


@pytest.mark.parametrize("kl_direction", ["new_old", "old_new"])
def test_a_batch_in_chunks_gives_what_the_compiled_engine_gives(kl_direction, monkeypatch):
    monkeypatch.setattr(autograd, "_CHUNK_BYTES", 7 * 5 * 64)  # seven rows of five outputs
    rng = np.random.default_rng(1)
    policies = [MLPPolicy(Numbers.observation_space, Discrete(5), (6,), dtype="float64", seed=2) for _ in range(2)]
    batch = Batch(rng.normal(size=(24, 3)), rng.integers(0, 5, 24), rng.normal(size=24))
    engines = [make_engine(policy, name) for policy, name in zip(policies, ("autograd", "native"), strict=True)]
    found = []
    for engine in engines:
        engine.bind(batch, entropy_coefficient=0.3)
        gradient, entropy = engine.surrogate_gradient(), engine.entropy()
        product = engine.fisher_operator() @ np.sin(np.arange(engine.size))
        engine.parameters()[:] += 0.1 * np.cos(np.arange(engine.size))
        engine.parameters_changed()
        found.append((gradient, entropy, product, *engine.evaluate(kl_direction)))
    assert len(engines[0]._bound._chunks) == 4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_an_observation_that_is_too_large_is_named(tmp_path):
    TRPO(lambda: Numbers(SPACES[2]), **SMALL, normalize_observations=False).save(tmp_path / "agent.trpo")
    actor = load_actor(tmp_path / "agent.trpo")
    with pytest.raises(ValueError, match="observation: it, or the action that comes of it, is beyond float32"):
        actor(np.full(3, 1e300))
    with pytest.raises(ValueError, match="observation: column 1 is nan; want finite numbers"):
        actor([0.0, np.nan, 0.0])


def test_an_onnx_graph_gives_their_actions(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from trpo_fast.onnx_export import export_onnx

    space = SPACES[1]
    agent = TRPO(lambda: Numbers(space), **SMALL).learn(64)
    agent.save(tmp_path / "agent.trpo")
    export = export_onnx(tmp_path / "agent.trpo")
    assert export.difference < 0.02
    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
    observations = np.random.default_rng(3).uniform(-1, 1, (20, 3)).astype(np.float32)
    (found,) = session.run(["action"], {"observation": observations})
    assert (found != agent.predict(observations, deterministic=True)[0]).mean() < 0.01


def test_one_of_many_choices_is_learned():
    """The reward is near 0 where the choice is small, and -1 where it is large; chance has -0.5."""

    class Small(Numbers):
        def step(self, action):
            observation, _, terminated, truncated, info = super().step(action)
            return observation, -action / 4999, terminated, truncated, info

    agent = TRPO(lambda: Small(Discrete(5000)), num_envs=8, steps_per_env=64, seed=0, hidden_sizes=(16,), max_kl=0.1)
    agent.learn(6_000)
    assert agent.evaluate(20, deterministic=False).mean / 8 > -0.35
