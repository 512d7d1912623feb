#!/usr/bin/env bash
# gymnasium 1.4.0: RescaleObservation(env, 0, 1) makes every uint8 image black, without a word.
#
# It keeps the dtype of the space, for what it multiplies with, too (rescale_box: gradient = np.ones_like(new_min, dtype=box.dtype)): 1/255 is 0 as
# uint8, and so is every pixel of every observation; 127/255 is 0 as well. Where the factor is above 1 its fraction is lost: 0 to 100 become 0 to 200
# in place of 0 to 255. The space says uint8 from 0 to 1, which the zeros are in, so that no check complains and a policy learns from nothing. The
# vector wrapper does the same. With DtypeObservation(env, np.float32) before it the pixels are right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import DtypeObservation, RescaleObservation
from gymnasium.wrappers import vector

print("gymnasium", version("gymnasium"))


class Noise(gymnasium.Env):
    """Shows images of evenly distributed noise from 0 to `highest`."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, highest=255):
        self.observation_space = gymnasium.spaces.Box(0, highest, (64, 64, 3), np.uint8)

    def image(self):
        space = self.observation_space
        return self.np_random.integers(0, space.high, space.shape, np.uint8, endpoint=True)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.image(), {}

    def step(self, action):
        return self.image(), 0.0, False, False, {}


def values(env):
    """Smallest, mean and largest entry of the observations of some steps."""
    seen = [env.reset(seed=0)[0]] + [env.step(env.action_space.sample())[0] for _ in range(10)]
    assert all(observation in env.observation_space for observation in seen)
    return float(np.min(seen)), float(np.mean(seen)), float(np.max(seen))


check_env(RescaleObservation(Noise(), 0, 1), skip_render_check=True)
print("check_env found nothing")
found = {}
for what, env in (
    ("images as they are", Noise()),
    ("0 to 1", RescaleObservation(Noise(), 0, 1)),
    ("0 to 1, vector", vector.RescaleObservation(gymnasium.vector.SyncVectorEnv([Noise] * 2), 0, 1)),
    ("0 to 127", RescaleObservation(Noise(), 0, 127)),
    ("0 to 100, rescaled to 0 to 255", RescaleObservation(Noise(100), 0, 255)),
    ("0 to 1, float32 before", RescaleObservation(DtypeObservation(Noise(), np.float32), 0, 1)),
):
    found[what] = values(env)
    print(f"{what}: {env.observation_space.dtype}, smallest {found[what][0]:g}, mean {found[what][1]:.4g}, largest {found[what][2]:g}")
assert found["0 to 1"] == found["0 to 1, vector"] == found["0 to 127"] == (0, 0, 0), "images are seen now"
assert found["0 to 100, rescaled to 0 to 255"][2] == 200
assert found["0 to 1, float32 before"][2] == 1
PYTHON
# Seen:
#   gymnasium 1.4.0
#   check_env found nothing
#   images as they are: uint8, smallest 0, mean 127.2, largest 255
#   0 to 1: uint8, smallest 0, mean 0, largest 0
#   0 to 1, vector: uint8, smallest 0, mean 0, largest 0
#   0 to 127: uint8, smallest 0, mean 0, largest 0
#   0 to 100, rescaled to 0 to 255: uint8, smallest 0, mean 99.81, largest 200
#   0 to 1, float32 before: float32, smallest 0, mean 0.4988, largest 1
