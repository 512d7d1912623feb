"""Buffers that are filled faster, beside Stable-Baselines3's filled with the same steps."""

import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces

pytest.importorskip("sb3_contrib")

from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from trpo_fast.sb3 import TRPO
from trpo_fast.sb3.buffers import QuickDictRolloutBuffer, QuickRolloutBuffer, quick

BOX = spaces.Box(-1, 1, (3,))
ARRAYS = ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
OBSERVATIONS = {
    "box": BOX,
    "wide box": spaces.Box(-1, 1, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "images": spaces.Box(0, 255, (3, 8, 8), np.uint8),
    "several": spaces.MultiBinary(4),
    "dict": spaces.Dict({"a": BOX, "b": spaces.Discrete(3), "c": spaces.MultiDiscrete([2, 3])}),
}
ACTIONS = (BOX, spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))


def filled(buffer, seed, steps, envs):
    """The buffer after these steps, which depend on the seed alone."""
    rng = np.random.default_rng(seed)
    space = buffer.observation_space
    space.seed(seed)
    buffer.action_space.seed(seed)
    starts = np.ones(envs, bool)
    for _ in range(steps):
        several = [space.sample() for _ in range(envs)]
        if isinstance(space, spaces.Dict):
            observations = {key: np.stack([one[key] for one in several]) for key in space}
        else:
            observations = np.stack(several)
        actions = np.stack([buffer.action_space.sample() for _ in range(envs)])
        rewards = rng.normal(size=envs).astype(np.float32)
        values = torch.from_numpy(rng.normal(size=(envs, 1)).astype(np.float32))
        log_probs = torch.from_numpy(rng.normal(size=envs).astype(np.float32))
        # Whoever collects writes into them again.
        given = observations, actions, rewards, starts, values, log_probs
        buffer.add(*given)
        actions.fill(1), rewards.fill(np.nan), values.fill_(np.nan), log_probs.fill_(np.nan)
        starts = rng.random(envs) < 0.3
    buffer.compute_returns_and_advantage(torch.from_numpy(rng.normal(size=(envs, 1)).astype(np.float32)), starts)
    return buffer


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("actions", ACTIONS, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_it_holds_the_same_bits(observations, actions, envs):
    space = OBSERVATIONS[observations]
    kind = DictRolloutBuffer if isinstance(space, spaces.Dict) else RolloutBuffer
    made = [kind(7, space, actions, "cpu", 0.93, 0.97, envs) for _ in range(2)]
    expected, found = filled(made[0], 3, 7, envs), filled(quick(made[1]), 3, 7, envs)
    assert type(found) is {RolloutBuffer: QuickRolloutBuffer, DictRolloutBuffer: QuickDictRolloutBuffer}[kind]
    assert expected.full and found.full and found.pos == 7
    for name in ARRAYS:
        one, other = getattr(expected, name), getattr(found, name)
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes()), name
    parts = expected.observations.items() if kind is DictRolloutBuffer else [(None, expected.observations)]
    for key, one in parts:
        other = found.observations if key is None else found.observations[key]
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (np.float64(0.9), np.float32(0.8)), (0, 1)])
def test_short_rollouts_and_discounts_of_other_types(steps, gamma, gae_lambda):
    made = [RolloutBuffer(steps, BOX, BOX, "cpu", gae_lambda, gamma, 2) for _ in range(2)]
    expected, found = filled(made[0], 1, steps, 2), filled(quick(made[1]), 1, steps, 2)
    assert expected.advantages.tobytes() == found.advantages.tobytes()
    assert expected.returns.tobytes() == found.returns.tobytes()


def test_it_refuses_what_the_other_refuses():
    buffer = quick(RolloutBuffer(1, BOX, BOX, "cpu", n_envs=2))
    rows, ones, two = np.zeros((2, 3)), np.zeros(2), torch.zeros(2)
    with pytest.raises(RuntimeError, match="requires grad"):
        buffer.add(rows, rows, ones, ones, two.requires_grad_(), torch.zeros(2))
    with pytest.raises(ValueError, match="reshape"):
        buffer.add(rows, rows[:1], ones, ones, torch.zeros(2), torch.zeros(2))
    assert buffer.pos == 0 and not buffer.full
    buffer.add(rows, rows, ones, ones, torch.zeros(2), torch.zeros(2))
    with pytest.raises(IndexError):
        buffer.add(rows, rows, ones, ones, torch.zeros(2), torch.zeros(2))


class Own(RolloutBuffer):
    """Somebody's."""


def test_the_users_own_class_stays():
    model = TRPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, rollout_buffer_class=Own, device="cpu")
    assert type(model.rollout_buffer) is Own


def test_a_model_has_one_and_its_file_names_none(tmp_path):
    model = TRPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, device="cpu")
    assert isinstance(model.rollout_buffer, QuickRolloutBuffer)
    assert model.rollout_buffer_class is RolloutBuffer
    model.learn(8)
    again = pickle.loads(pickle.dumps(model.rollout_buffer))
    assert again.advantages.tobytes() == model.rollout_buffer.advantages.tobytes()
    model.save(tmp_path / "model.zip")
    assert isinstance(TRPO.load(tmp_path / "model.zip").rollout_buffer, QuickRolloutBuffer)
