#!/usr/bin/env bash
# gymnasium 1.4.0: the vector environments gather what infos have under a name in an array of the type that the first copy
# has there in this step. Where that is an int, the floats of the others are cut to integers, without a word: the values
# of one copy depend on which number another one has, and on which of the two comes first.
#
# Its own FrozenLake-v1 does it: info["prob"] is the int 1 after a reset and a float after a step, so that in every step in
# which the first copy is reset a "prob" of 1/3 of the others becomes 0, marked as there. It is the same for True before
# 0.75, in SyncVectorEnv and AsyncVectorEnv, in both autoreset modes; the copies' own infos are right.
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv

print("gymnasium", version("gymnasium"))


class Profit(gymnasium.Env):
    """Has the profit that it is made with in its infos."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, profit):
        self.profit = profit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {"profit": self.profit}


found = {}
for profits in ((0, 0.75), (0.75, 0), (True, 0.75)):
    infos = SyncVectorEnv([lambda profit=profit: Profit(profit) for profit in profits]).reset(seed=0)[1]
    found[profits] = infos["profit"].tolist()
    print(f"profits {profits}: infos {found[profits]}, there: {infos['_profit'].tolist()}")
assert found == {(0, 0.75): [0, 0], (0.75, 0): [0.75, 0.0], (True, 0.75): [True, True]}

for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
    env = gymnasium.make_vec("FrozenLake-v1", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    env.reset(seed=0)
    env.action_space.seed(0)
    zeros = np.zeros(3, int)
    for _ in range(2_000):
        infos = env.step(env.action_space.sample())[4]
        assert infos["_prob"].all()
        zeros += infos["prob"] == 0
    print(f"FrozenLake-v1, {mode.value}: steps of 2000 with a probability of 0, by copy: {zeros.tolist()}")
    assert zeros[0] == 0 and (zeros[1:] > 100).all(), "no probability is cut any more"
PYTHON
# Seen:
#   gymnasium 1.4.0
#   profits (0, 0.75): infos [0, 0], there: [True, True]
#   profits (0.75, 0): infos [0.75, 0.0], there: [True, True]
#   profits (True, 0.75): infos [True, True], there: [True, True]
#   FrozenLake-v1, NextStep: steps of 2000 with a probability of 0, by copy: [0, 202, 200]
#   FrozenLake-v1, SameStep: steps of 2000 with a probability of 0, by copy: [0, 241, 234]
