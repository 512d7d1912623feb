#!/usr/bin/env bash
# simglucose's Gymnasium class: reset(seed=) decides nothing. The patient is drawn once, when the environment is made,
# from the system's entropy: equal seeds give different episodes, different seeds the same one again and again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary \
    simglucose==0.2.11 gymnasium==0.29.1 gym==0.9.4 setuptools==80.9.0 numpy==2.3.5 scipy==1.16.3 pandas==2.3.3
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

from simglucose.envs import T1DSimGymnaisumEnv


def make():
    return T1DSimGymnaisumEnv(patient_name="adolescent#002")


print("simglucose", version("simglucose"), "gymnasium", version("gymnasium"))
equal_seeds = [float(make().reset(seed=0)[0][0]) for _ in range(5)]
print("first observation (mg/dL) of five environments, each reset(seed=0):", equal_seeds)
env = make()
other_seeds = [float(env.reset(seed=seed)[0][0]) for seed in (0, 1, 2, 3)]
print("of one environment, reset(seed=0), 1, 2, 3:", other_seeds)
assert len(set(equal_seeds)) > 1, "equal seeds give equal episodes now"
assert len(set(other_seeds)) == 1, "different seeds give different episodes now"
PYTHON
