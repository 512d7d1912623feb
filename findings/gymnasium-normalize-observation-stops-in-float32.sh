#!/usr/bin/env bash
# gymnasium 1.4.0: the mean of NormalizeObservation stops following float32 observations, a Box's default, as it is kept in
# float32 itself. A step moves it by its distance over the number of steps so far; where that is less than half the distance of
# two floats there, it does not move at all, for ever after.
#
# With an air pressure of 101325 +- 100 Pa that is so from some 100,000 steps on. Where the policy then comes to a place with a
# pressure of 200 Pa more, the mean stays where it was, while the standard deviation goes on and counts the difference again and
# again. The same observations as float64 are followed, so that a wrapper that only changes the dtype changes what is learned
# from. The vector wrapper keeps float32, too.
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
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation
from gymnasium.wrappers.utils import RunningMeanStd
from gymnasium.wrappers.vector import NormalizeObservation as VectorNormalizeObservation

BEFORE, STEPS = 80_000, 200_000
rng = np.random.default_rng(0)
pressures = 101_325 + 100 * rng.standard_normal(STEPS + 1)
pressures[BEFORE:] += 200
pressures = pressures.astype(np.float32)


class Barometer(gymnasium.Env):
    """Observes the next pressure, in Pa."""

    observation_space = gymnasium.spaces.Box(80_000, 110_000, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return pressures[:1].copy(), {}

    def step(self, action):
        self.steps += 1
        return pressures[self.steps : self.steps + 1].copy(), 0.0, False, False, {}


print("gymnasium", version("gymnasium"), "numpy", version("numpy"))
env, double = NormalizeObservation(Barometer()), RunningMeanStd(shape=(1,))
vector = VectorNormalizeObservation(SyncVectorEnv([Barometer]))
env.reset(seed=0)
vector.reset(seed=0)
double.update(pressures[None, :1].astype(np.float64))
means = []
for step in range(1, STEPS + 1):
    env.step(0)
    double.update(pressures[None, step : step + 1].astype(np.float64))
    if step % 40_000 == 0:
        means.append(float(env.obs_rms.mean[0]))
        print(f"{step} steps: mean {means[-1]:.2f}, of the same as float64 {double.mean[0]:.2f}; standard deviation "
              f"{env.obs_rms.var[0] ** 0.5:.1f}, of the same as float64 {double.var[0] ** 0.5:.1f}")
print("means are kept in", env.obs_rms.mean.dtype, "alone,", vector.obs_rms.mean.dtype, "by the vector wrapper,", double.mean.dtype)
assert env.obs_rms.mean.dtype == vector.obs_rms.mean.dtype == np.float32
assert means[-1] == means[-2] and means[-1] - means[1] < 20, "the mean follows now"
assert abs(double.mean[0] - pressures.mean(dtype=np.float64)) < 0.1 and double.mean[0] - means[-1] > 80
assert env.obs_rms.var[0] ** 0.5 > 1.1 * double.var[0] ** 0.5
PYTHON
# Seen:
#   gymnasium 1.4.0 numpy 2.3.5
#   40000 steps: mean 101324.90, of the same as float64 101325.23; standard deviation 100.3, of the same as float64 100.3
#   80000 steps: mean 101324.72, of the same as float64 101324.95; standard deviation 100.0, of the same as float64 100.0
#   120000 steps: mean 101336.10, of the same as float64 101391.56; standard deviation 149.2, of the same as float64 137.5
#   160000 steps: mean 101336.21, of the same as float64 101424.98; standard deviation 167.8, of the same as float64 141.6
#   200000 steps: mean 101336.21, of the same as float64 101445.01; standard deviation 177.9, of the same as float64 140.1
#   means are kept in float32 alone, float32 by the vector wrapper, float64
