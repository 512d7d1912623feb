#!/usr/bin/env bash
# ale-py's cloneState(include_rng=True) leaves out the action that a sticky one repeats (repeat_action_probability,
# 0.25 by default): a new emulator that is put into that state with restoreState goes another way from some states on.
# Without sticky actions it goes the same way from every one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary ale-py==0.12.1 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import ale_py
import gymnasium
import numpy as np

gymnasium.register_envs(ale_py)
print("ale-py", version("ale-py"))


def made(sticky):
    env = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=sticky, obs_type="ram")
    env.reset(seed=4)
    return env.unwrapped


def ways_that_part(sticky, points=15):
    env, rng, parted = made(sticky), np.random.default_rng(0), 0
    for _ in range(points):
        for _ in range(int(rng.integers(1, 30))):
            if env.step(int(rng.integers(4)))[2]:
                env.reset()
        state = env.ale.cloneState(include_rng=True)
        actions = rng.integers(4, size=60)
        other = made(sticky)
        other.ale.restoreState(state)
        parted += [env.ale.act(int(a)) for a in actions] != [other.ale.act(int(a)) for a in actions] or any(
            env.ale.getRAM() != other.ale.getRAM()
        )
    return parted


never, sometimes = ways_that_part(0.0), ways_that_part(0.25)
print(f"other ways after restoreState: {never} of 15 without sticky actions, {sometimes} of 15 with them")
assert never == 0 < sometimes
PYTHON
