#!/usr/bin/env bash
# ale-py's AtariVectorEnv writes its autoreset mode into metadata that it shares with every gymnasium VectorEnv class
# without metadata of its own: the environment made last decides what those made before it declare, also of other
# packages. The attribute autoreset_mode stays right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary ale-py==0.12.1 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv

print("ale-py", version("ale-py"), "gymnasium", version("gymnasium"))
print("VectorEnv.metadata before:", VectorEnv.metadata)
first = AtariVectorEnv("pong", num_envs=1, autoreset_mode=AutoresetMode.NEXT_STEP)
second = AtariVectorEnv("pong", num_envs=1, autoreset_mode=AutoresetMode.SAME_STEP)
print("the first declares", first.metadata["autoreset_mode"], "and has", first.autoreset_mode)
print("VectorEnv.metadata after:", VectorEnv.metadata)
assert first.autoreset_mode is AutoresetMode.NEXT_STEP
assert first.metadata["autoreset_mode"] is VectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
PYTHON
