#!/usr/bin/env bash
# SuperSuit's concat_vec_envs_v1 with num_cpus=2: the second game of the first process and the first game of the second
# get the same seed from reset(seed=), so that they play the same game for as long as their actions agree. In one process
# (num_cpus=0) all seeds differ. And reset of the processes returns infos as a list of (index, info) pairs for each
# process, where step, and reset in one process, return one dict for each agent.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary supersuit==3.11.0 pettingzoo==1.27.0 gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
import supersuit
from pettingzoo import ParallelEnv


class Dealt(ParallelEnv):
    """One agent, who sees the seed that the game was reset with."""

    metadata = {"name": "dealt_v0", "render_modes": []}
    render_mode = None
    possible_agents = ["player"]

    def observation_space(self, agent):
        return gymnasium.spaces.Box(-1, 99, (1,), np.float32)

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents = self.possible_agents
        return {"player": np.array([seed], np.float32)}, {"player": {"dealt": seed}}


print("supersuit", version("supersuit"), "pettingzoo", version("pettingzoo"), "gymnasium", version("gymnasium"))
seeds, infos = {}, {}
for cpus in (0, 2):
    env = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(Dealt()), 4, num_cpus=cpus)
    observations, infos[cpus] = env.reset(seed=7)
    seeds[cpus] = observations[:, 0].astype(int).tolist()
    print(f"num_cpus={cpus}: seeds {seeds[cpus]}, infos {infos[cpus]}")
    env.close()
assert seeds == {0: [7, 8, 9, 10], 2: [7, 8, 8, 9]}
assert infos[0][0] == {"dealt": 7} and infos[2][0] == [(0, {"dealt": 7}), (1, {"dealt": 8})]
PYTHON
