"""Policies from real training, 17-64-64-6 on 2,048 samples of HalfCheetah-v5, updated beside sb3-contrib."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

pytest.importorskip("sb3_contrib")

import sb3_contrib

from tests import reference
from tests.sb3.pairs import BOX, flat, make, relative, train
from trpo_fast.sb3 import TRPO

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "trust_region_problems"
FILES = sorted(FOLDER.glob("*.npz"))

pytestmark = pytest.mark.skipif(not FILES, reason="no shared/data/trust_region_problems beside the repository")


def model(kind, problem, iterations):
    observations = spaces.Box(-2.0, 2.0, (17,), np.float32)
    made = make(kind, observations, BOX, n_steps=1024, cg_max_steps=iterations, n_critic_updates=1)
    policy, buffer = made.policy, made.rollout_buffer
    rows = {name: problem[name] for name in ("observations", "actions", "advantages")}
    with torch.no_grad():
        policy.log_std.copy_(torch.from_numpy(problem["log_std"]))
        for i, layer in enumerate([*policy.mlp_extractor.policy_net[::2], policy.action_net]):
            layer.weight.copy_(torch.from_numpy(problem[f"w{i}"]))
            layer.bias.copy_(torch.from_numpy(problem[f"b{i}"]))
        distribution = policy.get_distribution(torch.from_numpy(rows["observations"]))
        rows["log_probs"] = distribution.log_prob(torch.from_numpy(rows["actions"])).numpy()
    rows["returns"] = rows["advantages"]
    for name, array in rows.items():
        getattr(buffer, name)[:] = array.reshape(1024, 2, *array.shape[1:])
    buffer.full = True
    return made


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_five_iterations_move_the_actor_as_there_and_twenty_five_gain_no_less(path):
    problem = np.load(path)
    policy = reference.Policy((17, 64, 64, 6), "tanh", "gaussian")
    advantages = problem["advantages"].astype(np.float64)
    advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)

    def step(kind, iterations):
        trained = model(kind, problem, iterations)
        theta = flat(trained, False)
        train(trained)
        assert trained.logger.name_to_value["train/is_line_search_success"] == 1
        return theta, flat(trained, False) - theta

    (theta, ours), (_, theirs) = (step(kind, 5) for kind in (TRPO, sb3_contrib.TRPO))
    assert relative(ours, theirs) < 1e-3

    g = policy.surrogate_gradient(theta, problem["observations"], problem["actions"], advantages)

    def gain(x):  # g'x / sqrt(x'(F/A + lambda I)x), whatever the length of x
        product = policy.fisher_product(theta, problem["observations"], x) / 6 + 0.1 * x
        return (g @ x) / math.sqrt(x @ product)

    (_, ours), (_, theirs) = (step(kind, 25) for kind in (TRPO, sb3_contrib.TRPO))
    assert gain(ours) > (1 - 1e-6) * gain(theirs)
