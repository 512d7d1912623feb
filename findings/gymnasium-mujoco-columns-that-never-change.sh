#!/usr/bin/env bash
# Gymnasium 1.4.0: of Humanoid-v5's 348 observations 13 are the bodies' masses, and of Ant-v5's 78 contact forces 24 are of bodies that nothing touches.
#
# Each body's ten numbers of `cinert` end with its mass, a constant: 13 columns with a variance of exactly 0. Ant's four bodies between torso and legs
# are never touched, also where the robot tumbles and is let lie for as long as it likes. Pusher-v5's goal and the height of its object never move either.
# Whoever divides by a running standard deviation divides these by its epsilon alone, and who makes a covariance of the inputs meets a singular one.
# Usage: findings/gymnasium-mujoco-columns-that-never-change.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet numpy==2.4.6 'gymnasium[mujoco]==1.4.0' mujoco==4.0.0
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium as gym
import numpy as np

print("gymnasium", version("gymnasium"), "mujoco", version("mujoco"))


def seen(env, steps=20_000):
    """Observations of random actions."""
    env.action_space.seed(0)
    rows = [env.reset(seed=0)[0]]
    for _ in range(steps):
        row, _, terminated, truncated, _ = env.step(env.action_space.sample())
        rows.append(row)
        if terminated or truncated:
            rows.append(env.reset()[0])
    return np.array(rows)


def constant(rows):
    return np.flatnonzero(np.ptp(rows, axis=0) == 0)


env = gym.make("Humanoid-v5", terminate_when_unhealthy=False)
parts = env.unwrapped.observation_structure
first = parts["qpos"] + parts["qvel"]
rows = seen(env)
columns = constant(rows)
masses = env.unwrapped.model.body_mass[1:]
print("Humanoid-v5:", rows.shape[1], "columns, constant:", columns.tolist())
assert columns.tolist() == [first + 10 * body + 9 for body in range(13)]
assert np.array_equal(rows[0, columns], masses)

env = gym.make("Ant-v5", terminate_when_unhealthy=False)
parts = env.unwrapped.observation_structure
first = parts["qpos"] + parts["qvel"]
rows = seen(env)
columns = constant(rows)
bodies = sorted({1 + int(column - first) // 6 for column in columns})
names = [env.unwrapped.model.body(body).name for body in bodies]
print("Ant-v5:", rows.shape[1], "columns, always 0:", columns.tolist(), "of the bodies", names)
assert not rows[:, columns].any() and len(columns) == 6 * len(bodies) == 24
assert names == ["front_left_leg", "front_right_leg", "back_leg", "right_back_leg"]

rows = seen(gym.make("Pusher-v5"))
columns = constant(rows)
print("Pusher-v5:", rows.shape[1], "columns, constant:", columns.tolist(), "at", rows[0, columns].round(3).tolist())
assert columns.tolist() == [19, 20, 21, 22]
PYTHON
# Seen:
#   gymnasium 1.4.0 mujoco 4.0.0
#   Humanoid-v5: 348 columns, constant: [54, 64, 74, 84, 94, 104, 114, 124, 134, 144, 154, 164, 174]
#   Ant-v5: 105 columns, always 0: [33, 34, 35, 36, 37, 38, 51, 52, 53, 54, 55, 56, 69, 70, 71, 72, 73, 74, 87, 88, 89, 90, 91, 92] of the
#   bodies ['front_left_leg', 'front_right_leg', 'back_leg', 'right_back_leg']
#   Pusher-v5: 23 columns, constant: [19, 20, 21, 22] at [-0.275, 0.45, -0.05, -0.323]
