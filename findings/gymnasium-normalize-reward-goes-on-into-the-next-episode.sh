#!/usr/bin/env bash
# gymnasium 1.4.0: NormalizeReward divides the same rewards of the same episodes by very different numbers as an environment, as a
# vector in NEXT_STEP mode and as one in SAME_STEP mode.
#
# The number is the standard deviation of the discounted sum of rewards so far, which the first two do not begin anew with an
# episode, nor at reset(): where it was truncated the whole sum goes on into the next one, and where it terminated the last reward
# does. With one reward of 100 at the end of 10 steps they divide by 4.9 after 500 terminations, and by 106 after 500 truncations,
# where the sum of each episode by itself has 30; with a reward of 1 in each step and truncations, the sum settles, and what they
# divide by falls for as long as the training goes on. SAME_STEP begins anew. No seed, order or policy is involved.
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeReward
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward

STEPS, EPISODES = 10, 500


class Task(gymnasium.Env):
    """The same ten rewards in each episode."""

    observation_space = gymnasium.spaces.Box(0, STEPS, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, rewards, terminates):
        self.rewards, self.terminates = rewards, terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        ends = self.steps == STEPS
        reward = self.rewards[self.steps - 1]
        return np.array([self.steps], np.float32), reward, ends and self.terminates, ends and not self.terminates, {}


def alone(rewards, terminates, episodes=EPISODES):
    env = NormalizeReward(Task(rewards, terminates))
    for _ in range(episodes):
        env.reset()
        for _ in range(STEPS):
            env.step(0)
    return env


def vector(mode, rewards, terminates):
    env = VectorNormalizeReward(SyncVectorEnv([lambda: Task(rewards, terminates)], autoreset_mode=mode))
    env.reset()
    for _ in range(EPISODES * (STEPS + (mode is AutoresetMode.NEXT_STEP))):
        env.step(np.zeros(1, int))
    return env


def of_each_episode(rewards):
    sums = [0.0]
    for reward in rewards:
        sums.append(0.99 * sums[-1] + reward)
    return np.std(sums[1:])


print("gymnasium", version("gymnasium"))
found = {}
for kind, rewards in (("100 at the end", [0.0] * 9 + [100.0]), ("1 each step", [1.0] * 10)):
    for terminates in (True, False):
        envs = [alone(rewards, terminates)]
        envs += [vector(mode, rewards, terminates) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)]
        numbers = [of_each_episode(rewards), *(float(np.sqrt(env.return_rms.var)) for env in envs)]
        found[kind, terminates] = [round(float(number), 1) for number in numbers]
        print(f"{kind}, {'terminated' if terminates else 'truncated'}: of each episode {found[kind, terminates][0]}, divides by "
              f"{found[kind, terminates][1]} alone, {found[kind, terminates][2]} NEXT_STEP, {found[kind, terminates][3]} SAME_STEP")
assert found == {
    ("100 at the end", True): [30.0, 4.9, 4.9, 30.0],
    ("100 at the end", False): [30.0, 105.7, 105.7, 30.0],
    ("1 each step", True): [2.7, 2.7, 2.7, 2.6],
    ("1 each step", False): [2.7, 9.7, 9.7, 2.7],
}, found
falling = [round(float(np.sqrt(alone([1.0] * 10, False, episodes).return_rms.var)), 2) for episodes in (100, 500, 10_000)]
print("1 each step, truncated: after 100, 500, 10000 episodes divides by", falling)
assert falling[0] > 15 and falling[2] < 2.5
PYTHON
# Seen:
#   gymnasium 1.4.0
#   100 at the end, terminated: of each episode 30.0, divides by 4.9 alone, 4.9 NEXT_STEP, 30.0 SAME_STEP
#   100 at the end, truncated: of each episode 30.0, divides by 105.7 alone, 105.7 NEXT_STEP, 30.0 SAME_STEP
#   1 each step, terminated: of each episode 2.7, divides by 2.7 alone, 2.7 NEXT_STEP, 2.6 SAME_STEP
#   1 each step, truncated: of each episode 2.7, divides by 9.7 alone, 9.7 NEXT_STEP, 2.7 SAME_STEP
#   1 each step, truncated: after 100, 500, 10000 episodes divides by [19.86, 9.73, 2.22]
