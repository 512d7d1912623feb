#!/usr/bin/env bash
# gymnasium 1.4.0: AsyncVectorEnv(shared_memory=False) does not forget at reset() that an episode had just ended. The first
# step after it resets those copies once more: their action is not taken, the reward is 0, and the episode that reset(seed=)
# began is thrown away for one that continues the generator. With shared memory, the default, and in SyncVectorEnv the same
# calls take the step: what is to decide how observations travel only decides what is observed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv


class Clock(gymnasium.Env):
    """Observes a number drawn by reset and the steps since; an episode takes `length` steps, each rewarded with 1."""

    observation_space = gymnasium.spaces.Box(0, 1_000_000, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def seen(self):
        return np.array([self.drawn, self.steps], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.drawn, self.steps = self.np_random.integers(1_000_000), 0
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        return self.seen(), 1.0, self.steps == self.length, False, {}


print("gymnasium", version("gymnasium"))
functions = [lambda: Clock(3), lambda: Clock(1_000)]
found = {}
for name, env in (
    ("SyncVectorEnv", SyncVectorEnv(functions)),
    ("AsyncVectorEnv", AsyncVectorEnv(functions)),
    ("AsyncVectorEnv, shared_memory=False", AsyncVectorEnv(functions, shared_memory=False)),
):
    env.reset(seed=0)
    for _ in range(3):
        ended = env.step(np.zeros(2, int))[2]
    assert ended.tolist() == [True, False]
    first = env.reset(seed=7)[0]
    observations, rewards, *_ = env.step(np.zeros(2, int))
    found[name] = observations[:, 1].tolist(), rewards.tolist(), (observations[:, 0] == first[:, 0]).tolist()
    print(f"{name}: steps {found[name][0]}, rewards {found[name][1]}, still the episode of the reset: {found[name][2]}")
    env.close()
assert found["SyncVectorEnv"] == found["AsyncVectorEnv"] == ([1, 1], [1, 1], [True, True])
assert found["AsyncVectorEnv, shared_memory=False"] == ([0, 1], [0, 1], [False, True])
PYTHON
# Seen:
#   gymnasium 1.4.0
#   SyncVectorEnv: steps [1.0, 1.0], rewards [1.0, 1.0], still the episode of the reset: [True, True]
#   AsyncVectorEnv: steps [1.0, 1.0], rewards [1.0, 1.0], still the episode of the reset: [True, True]
#   AsyncVectorEnv, shared_memory=False: steps [0.0, 1.0], rewards [0.0, 1.0], still the episode of the reset: [False, True]
