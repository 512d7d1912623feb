#!/usr/bin/env bash
# rl_zoo3 2.9.2: of the MuJoCo tasks' newest version, -v5, no algorithm's file has settings, and a training of one goes on with others.
#
# The files' blocks end at -v4. Asked for a -v5 task, rl_zoo3.train says one line, "Using 'default' hyperparameters", and takes a
# block named `default`, which has the timesteps and the class of the policy alone: the algorithm's own defaults, one environment in
# place of several, observations and rewards that are not normalized. A comparison on -v5 by the zoo's command line, which
# gymnasium's warning that -v4 is out of date asks for, is one with an algorithm that nobody tuned.
# Usage: findings/rl-zoo3-has-no-mujoco-v5.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6 rl_zoo3==2.9.2 sb3_contrib==2.9.2 \
    stable_baselines3==2.9.2 'gymnasium[mujoco]==1.4.0' mujoco==4.0.0
cd "$folder"
for id in HalfCheetah-v4 HalfCheetah-v5; do
    "$folder/venv/bin/python" -m rl_zoo3.train --algo trpo --env "$id" --n-timesteps 16 --eval-freq -1 --num-threads 1 --seed 0 \
        --log-folder logs > "$id.txt" 2>&1
done
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import yaml  # of rl_zoo3

print("rl_zoo3", version("rl_zoo3"))
newest = {}
for path in sorted(files("rl_zoo3").joinpath("hyperparams").iterdir()):
    blocks = yaml.safe_load(path.read_text())
    cheetahs = [id for id in blocks if id.startswith("HalfCheetah-v")]
    if cheetahs:
        newest[path.name] = max(cheetahs)
print("the newest HalfCheetah of each file:", newest)
defaults = yaml.safe_load(files("rl_zoo3").joinpath("hyperparams", "trpo.yml").read_text())["default"]
print("default of trpo.yml:", defaults)
words = {}
for id in ("HalfCheetah-v4", "HalfCheetah-v5"):
    lines = Path(f"{id}.txt").read_text().splitlines()
    words[id] = [line for line in lines if line.startswith("Using ") and "cpu" not in line]
    words[id].append(f"normalized: {any('normalize' in line for line in lines)}")
    print(id, words[id])
assert len(newest) > 5 and set(newest.values()) == {"HalfCheetah-v4"}
assert set(defaults) == {"n_timesteps", "policy"}
assert words["HalfCheetah-v4"] == ["Using 2 environments", "normalized: True"]
assert words["HalfCheetah-v5"] == ["Using 'default' hyperparameters", "Using 1 environments", "normalized: False"]
PYTHON
# Seen:
#   rl_zoo3 2.9.2
#   the newest HalfCheetah of each file: {'a2c.yml': 'HalfCheetah-v4', 'ars.yml': 'HalfCheetah-v4', 'crossq.yml': 'HalfCheetah-v4',
#   'ddpg.yml': 'HalfCheetah-v4', 'ppo.yml': 'HalfCheetah-v4', 'ppo_lstm.yml': 'HalfCheetah-v4', 'sac.yml': 'HalfCheetah-v4',
#   'td3.yml': 'HalfCheetah-v4', 'tqc.yml': 'HalfCheetah-v4', 'trpo.yml': 'HalfCheetah-v4'}
#   default of trpo.yml: {'n_timesteps': 1000000.0, 'policy': 'MlpPolicy'}
#   HalfCheetah-v4 ['Using 2 environments', 'normalized: True']
#   HalfCheetah-v5 ["Using 'default' hyperparameters", 'Using 1 environments', 'normalized: False']
