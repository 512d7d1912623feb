"""Environments that only memory solves; without torch, as worker processes import them."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Tuple


class Recall(gym.Env):
    """The first observation says which action every later step wants; nothing else does. Masks, where asked for, forbid
    an action that changes from step to step and never is the one wanted."""

    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(3)

    def __init__(self, length=6, masks=False, truncates=False):
        self.length, self.masks, self.truncates = length, masks, truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wanted, self.t = int(self.np_random.integers(3)), 0
        return np.eye(3, dtype=np.float32)[self.wanted], {}

    def step(self, action):
        assert not self.masks or self.action_masks()[action]
        self.t += 1
        reward, over = float(action == self.wanted), self.t == self.length
        return np.zeros(3, np.float32), reward, over and not self.truncates, over and self.truncates, {}

    def get_state(self):
        return {"wanted": self.wanted, "t": self.t, "random": self.np_random.bit_generator.state}

    def set_state(self, state):
        self.wanted, self.t = state["wanted"], state["t"]
        self.np_random.bit_generator.state = state["random"]


class MaskedRecall(Recall):
    def __init__(self, **kwargs):
        super().__init__(masks=True, **kwargs)

    def action_masks(self):
        mask = np.ones(3, bool)
        mask[(self.wanted + 1 + self.t % 2) % 3] = False
        return mask


class HybridRecall(Recall):
    """Wants the action that the first observation named, with a mask, and half of it as a number beside it."""

    action_space = Tuple([Discrete(3), Box(-1, 1, (1,))])

    def step(self, action):
        choice, aim = action
        observation, reward, terminated, truncated, info = super().step(choice)
        return observation, reward - float(abs(aim[0] - self.wanted / 2)), terminated, truncated, info

    def action_masks(self):
        mask = np.ones(3, bool)
        mask[(self.wanted + 1 + self.t % 2) % 3] = False
        return mask, None
