#!/usr/bin/env bash
# ale-py's AtariVectorEnv in SAME_STEP mode: infos["final_obs"] is one array for all environments, without the
# "_final_obs" that says in Gymnasium's vector environments who has one. Rows of environments whose episode goes on are
# no observation of theirs. Rewards are int32.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary ale-py==0.12.1 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

print("ale-py", version("ale-py"), "gymnasium", version("gymnasium"))
env = AtariVectorEnv("breakout", num_envs=4, autoreset_mode=AutoresetMode.SAME_STEP)
env.action_space.seed(0)
before = env.reset(seed=0)[0].copy()
for step in range(5_000):
    observations, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
    ended = terminated | truncated
    if ended.any():
        break
    before = observations.copy()
final = infos["final_obs"]
print(f"step {step}: ended {ended.tolist()}, keys {sorted(infos)}, final_obs {final.dtype}{final.shape}, rewards {rewards.dtype}")
known = [bool((final[i] == observations[i]).all() or (final[i] == before[i]).all()) for i in np.flatnonzero(~ended)]
print(f"rows of final_obs of the {len(known)} that go on that are their observation, of this step or the one before: {sum(known)}")
assert not ended.all() and "_final_obs" not in infos and final.dtype == np.uint8, "final_obs is marked now"
assert not any(known) and rewards.dtype == np.int32, "rows of the others are observations now"
PYTHON
