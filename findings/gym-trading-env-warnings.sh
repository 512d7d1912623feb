#!/usr/bin/env bash
# gym-trading-env: making an environment turns every later warning of the whole process into an error
# (warnings.filterwarnings("error") where it is imported), so that any other library's warning ends a training. And
# reset(seed=) does not reach numpy's global generator, which its starting position is drawn from.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5 pandas==2.3.3
"$work/venv/bin/pip" install --quiet --no-deps gym-trading-env==0.3.5 # without what only its renderer wants
cd "$work"
"$work/venv/bin/python" - 2> /dev/null <<'PYTHON'
import warnings
from importlib.metadata import version

import gymnasium
import gym_trading_env
import numpy as np
import pandas

print("gym-trading-env", version("gym-trading-env"), "gymnasium", version("gymnasium"))
close = np.linspace(100.0, 120.0, 200)
frame = pandas.DataFrame({name: close for name in ("open", "high", "low", "close", "feature_close")})
frame.index = pandas.date_range("2024-01-01", periods=len(frame), freq="h")
warnings.warn("a warning of somebody else before: nothing happens")
env = gymnasium.make("TradingEnv", df=frame, positions=[-1, 0, 1], max_episode_duration=50, verbose=0, disable_env_checker=True)
try:
    warnings.warn("a warning of somebody else after")
except UserWarning as error:
    print("raised as an error:", error)
else:
    raise SystemExit("warnings stay warnings now")
np.random.seed(0)
starts = {tuple(env.reset(seed=7)[0].tolist()) for _ in range(20)}
print("twenty times reset(seed=7):", len(starts), "different first observations")
assert len(starts) > 1
PYTHON
