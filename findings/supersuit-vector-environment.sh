#!/usr/bin/env bash
# SuperSuit's vector of a PettingZoo game is a gymnasium VectorEnv by class, but not by behaviour: no
# single_observation_space, no autoreset_mode in its metadata (it resets in the step that ends an episode), infos a list
# of dicts with "terminal_observation" in Stable-Baselines3's way, flags uint8 (where ~ gives 255 and 254, both true).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary \
    supersuit==3.11.0 "pettingzoo[sisl]==1.27.0" gymnasium==1.4.0 numpy==2.3.5
cd "$work"
SDL_VIDEODRIVER=dummy "$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
import supersuit
from pettingzoo.sisl import pursuit_v5

print(*(f"{name} {version(name)}" for name in ("supersuit", "pettingzoo", "gymnasium")))
env = supersuit.pettingzoo_env_to_vec_env_v1(pursuit_v5.parallel_env(max_cycles=5))
env.reset(seed=0)
for _ in range(5):
    observations, rewards, terminated, truncated, infos = env.step(np.zeros(env.num_envs, int))
print("is a VectorEnv:", isinstance(env, gymnasium.vector.VectorEnv))
print("single_observation_space:", hasattr(env, "single_observation_space"), "autoreset_mode:", env.metadata.get("autoreset_mode"))
print("truncated:", truncated, truncated.dtype, "~truncated:", ~truncated)
print("infos:", type(infos).__name__, "of", sorted(infos[0]))
again = env.step(np.zeros(env.num_envs, int))
print("truncated one step later, without a reset:", again[3])
assert isinstance(env, gymnasium.vector.VectorEnv) and not hasattr(env, "single_observation_space")
assert env.metadata.get("autoreset_mode") is None and truncated.dtype == np.uint8 and truncated.all()
assert isinstance(infos, list) and list(infos[0]) == ["terminal_observation"] and not again[3].any()
PYTHON
