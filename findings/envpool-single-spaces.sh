#!/usr/bin/env bash
# EnvPool's Gymnasium vector environments name the spaces of one environment observation_space and action_space, where
# a VectorEnv has those of the batch there: what it returns is not in its observation_space, and
# env.step(env.action_space.sample()) is refused. Its spec is no EnvSpec and has no id; float actions are float64 where
# Gymnasium's own HalfCheetah has float32; reset(seed=) is ignored with a warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary envpool==1.2.5 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
import warnings
from importlib.metadata import version

import envpool
import gymnasium
import numpy as np

print("envpool", version("envpool"), "gymnasium", version("gymnasium"))
env = envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=3, seed=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first, second = (env.reset(seed=7)[0].copy() for _ in range(2))
print("is a VectorEnv:", isinstance(env, gymnasium.vector.VectorEnv), "spec has an id:", hasattr(env.spec, "id"))
print("observations", first.shape, "observation_space", env.observation_space.shape, "action", env.action_space.dtype)
print("reset(seed=7) twice gives the same:", np.array_equal(first, second), "--", caught[0].message)
try:
    env.step(env.action_space.sample())
except RuntimeError as error:
    print("step(action_space.sample()):", error)
else:
    raise SystemExit("action_space is the batch's now")
assert isinstance(env, gymnasium.vector.VectorEnv) and not hasattr(env.spec, "id")
assert not env.observation_space.contains(first) and env.observation_space == env.single_observation_space
assert env.action_space.dtype == np.float64 and not np.array_equal(first, second)
PYTHON
