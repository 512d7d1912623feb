#!/usr/bin/env bash
# sb3-contrib 2.9.2: TRPO's target_kl bounds the mean of the KL over the dimensions of a Box or MultiBinary action, and the sum over those of a
# MultiDiscrete one.
#
# The same target_kl, 0.01, and six dimensions: an update of a Box policy may change the distribution of the whole action by a KL of 0.06,
# one of a MultiDiscrete policy by 0.01, and that although six choices of two are what MultiBinary(6) is. What is logged as
# train/kl_divergence_loss has the same two meanings. A target_kl that was found on one kind of action, or with one number of dimensions, is
# another trust region elsewhere, and a comparison with an implementation that takes the KL of the whole action has to multiply.
# Usage: findings/sb3-contrib-trpo-kl-of-box-is-a-mean-of-multidiscrete-a-sum.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6 sb3_contrib==2.9.2 stable_baselines3==2.9.2 \
    gymnasium==1.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import copy
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

DIMENSIONS = 6
print("sb3_contrib", version("sb3_contrib"))


class Sum(gym.Env):
    """The reward is the sum of the action's entries; an episode takes 32 steps."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), float(np.sum(action)), False, self.steps == 32, {}


def of_whole_action(old, new, observations):
    """KL of the joint distribution, averaged over the observations."""
    with torch.no_grad():
        before, after = (policy.get_distribution(observations).distribution for policy in (old, new))
    if isinstance(before, list):  # MultiDiscrete
        return sum(kl_divergence(b, a).mean().item() for b, a in zip(after, before, strict=True))
    assert isinstance(before, Normal | Bernoulli | Categorical)
    return kl_divergence(after, before).sum(dim=1).mean().item()


times = {}
for space in (
    spaces.Box(-1, 1, (DIMENSIONS,), np.float32),
    spaces.MultiBinary(DIMENSIONS),
    spaces.MultiDiscrete([2] * DIMENSIONS),
):
    model = TRPO("MlpPolicy", Sum(space), n_steps=1024, target_kl=0.01, seed=0)
    before = copy.deepcopy(model.policy)
    model.learn(1024)
    logged = model.logger.name_to_value["train/kl_divergence_loss"]
    observations = torch.as_tensor(model.rollout_buffer.observations.reshape(-1, 3))
    whole = of_whole_action(before, model.policy, observations)
    times[type(space).__name__] = whole / logged
    print(f"{space}: logged {logged:.5f}, of the whole action {whole:.5f}, {whole / logged:.3f} times")
    assert 0 < logged <= 0.01
assert abs(times["Box"] - DIMENSIONS) < 0.01 and abs(times["MultiBinary"] - DIMENSIONS) < 0.01, times
assert abs(times["MultiDiscrete"] - 1) < 0.01, times
PYTHON
# Seen:
#   sb3_contrib 2.9.2
#   Box(-1.0, 1.0, (6,), float32): logged 0.00634, of the whole action 0.03802, 6.000 times
#   MultiBinary(6): logged 0.00303, of the whole action 0.01819, 6.000 times
#   MultiDiscrete([2 2 2 2 2 2]): logged 0.00833, of the whole action 0.00833, 1.000 times
