#!/usr/bin/env bash
# gymnasium-robotics allows every mujoco from 2.2 on, so that pip installs 4.0.0; its Fetch and hand environments then
# cannot be made: AssertionError without a word, since MuJoCo's enums no longer are what it compares with. Mazes work.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary gymnasium-robotics==1.4.2 gymnasium==1.4.0 mujoco==4.0.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import requires, version

import gymnasium
import gymnasium_robotics

print("gymnasium-robotics", version("gymnasium-robotics"), "mujoco", version("mujoco"))
print("it asks for", [requirement for requirement in requires("gymnasium-robotics") if requirement.startswith("mujoco")])
gymnasium.register_envs(gymnasium_robotics)
gymnasium.make("PointMaze_UMaze-v3").reset(seed=0)
print("PointMaze_UMaze-v3 works")
for name in ("FetchReach-v4", "HandReach-v3"):
    try:
        gymnasium.make(name).reset(seed=0)
    except Exception as error:
        print(f"{name}: {type(error).__name__}, its words: {str(error)!r}")
        assert type(error) is AssertionError and not str(error)
    else:
        raise SystemExit(f"{name} works now")
PYTHON
