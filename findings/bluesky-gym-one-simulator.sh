#!/usr/bin/env bash
# bluesky-gym: all environments of a process fly in one simulator. Stepping one moves the aircraft of the other, and
# resetting one resets the other: copies in one process, as vector environments step them, learn from mixed-up data
# without an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
# From numpy 2.4 on its step refuses every action: an array of one item is no number any more.
"$work/venv/bin/pip" install --quiet --prefer-binary bluesky-gym==0.2.0 bluesky-simulator==1.1.1 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - > "$work/out" 2> "$work/errors" <<'PYTHON' || { cat "$work/out" "$work/errors"; exit 1; }
from importlib.metadata import version

import bluesky_gym
import gymnasium
import numpy as np

bluesky_gym.register_envs()
nothing = np.zeros(1, np.float32)


def distance(observation):
    return float(observation["runway_distance"][0])


print("RESULT bluesky-gym", version("bluesky-gym"), "gymnasium", version("gymnasium"))
ours = gymnasium.make("DescentEnv-v0", disable_env_checker=True)
start = distance(ours.reset(seed=0)[0])
alone = start - distance(ours.step(nothing)[0])
other = gymnasium.make("DescentEnv-v0", disable_env_checker=True)
start = distance(ours.reset(seed=0)[0])
other.reset(seed=1)
for _ in range(5):
    other.step(nothing)
beside = start - distance(ours.step(nothing)[0])
print(f"RESULT one step brings the runway nearer by {alone:.4f} alone, by {beside:.4f} after 5 steps of another environment")
assert beside > 4 * alone, "environments have simulators of their own now"
PYTHON
grep RESULT "$work/out" | sed 's/^RESULT //'
