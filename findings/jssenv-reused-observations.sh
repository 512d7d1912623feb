#!/usr/bin/env bash
# JSSEnv (job-shop scheduling) returns its own state arrays as observations: the next step changes every observation
# that was returned before, and the action mask in it. What is kept for learning is wrong unless it is copied first.
# The mask is bool, too, where its space says float32.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary \
    gymnasium==1.4.0 numpy==2.3.5 pandas==2.3.3 plotly==6.3.1
"$work/venv/bin/pip" install --quiet --no-deps jssenv==1.1.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import JSSEnv
import numpy as np
from JSSEnv.envs import JssEnv

print("jssenv", version("jssenv"), "gymnasium", version("gymnasium"))
env = JssEnv({"instance_path": Path(JSSEnv.__file__).parent / "envs" / "instances" / "ta01"})
first = env.reset()
copies = {name: array.copy() for name, array in first.items()}
second, *_ = env.step(int(np.flatnonzero(first["action_mask"])[0]))
for name in first:
    changed = int((first[name] != copies[name]).sum())
    print(f"{name}: same array before and after the step: {first[name] is second[name]}; {changed} entries changed")
    assert first[name] is second[name] and changed > 0, "observations are copies now"
dtype, said = first["action_mask"].dtype, env.observation_space["action_mask"].dtype
print(f"action_mask is {dtype}, its space says {said}")
assert dtype == bool and said == np.float32, "the mask is what its space says now"
PYTHON
