"""Two models, sb3-contrib's and ours, with the same parameters, rollout and generators."""

import copy

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from trpo_fast.sb3 import TRPO

BOX = spaces.Box(-1.0, 1.0, (6,), np.float32)
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (9,), np.float32)
IMAGES = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS = {
    "box": BOX,
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(6),
}
ENVIRONMENTS = 2


class Toy(gym.Env):
    """Random observations; rewards that actions have a say in; episodes of 20 steps that end in a truncation."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = copy.deepcopy((observation_space, action_space))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        reward = float(np.sum(action)) + self.np_random.normal()
        return self.observation_space.sample(), reward, False, self.steps == 20, {}


def bounded(space):
    """`space` with bounds that can be sampled uniformly from."""
    return spaces.Box(-2.0, 2.0, space.shape, np.float32) if space is OBSERVATIONS else space


def environment(observation_space=OBSERVATIONS, action_space=BOX, count=ENVIRONMENTS):
    observation_space = bounded(observation_space)
    return DummyVecEnv([lambda: Toy(observation_space, action_space)] * count)


def make(kind, observation_space=OBSERVATIONS, action_space=BOX, *, policy="MlpPolicy", **settings):
    settings = {"n_steps": 128, "batch_size": 64, "cg_max_steps": 5, "n_critic_updates": 3, "seed": 0} | settings
    model = kind(policy, environment(observation_space, action_space), device="cpu", **settings)
    model.set_logger(configure(None, []))
    return model


def collect(model):
    """One rollout, by the model itself."""
    _, callback = model._setup_learn(10**6, None)
    model.set_logger(configure(None, []))
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)


def pair(observation_space=OBSERVATIONS, action_space=BOX, *, paper_kl=False, **settings):
    """(ours, theirs): equal parameters away from the start, and one full rollout buffer of theirs."""
    theirs = make(sb3_contrib.TRPO, observation_space, action_space, **settings)
    ours = make(TRPO, observation_space, action_space, **settings, paper_kl=paper_kl)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    collect(theirs)
    share(theirs, ours)
    return ours, theirs


def share(theirs, ours):
    """Give `ours` the parameters, the optimizer and the rollout of `theirs`."""
    ours.set_parameters(copy.deepcopy(theirs.get_parameters()))
    if hasattr(theirs.policy.action_dist, "exploration_mat"):
        ours.policy.action_dist.exploration_mat = theirs.policy.action_dist.exploration_mat
    for name, value in vars(theirs.rollout_buffer).items():
        setattr(ours.rollout_buffer, name, copy.deepcopy(value))


def train(model, seed=3):
    """One ``train()`` from seeded global generators; the state that they are left in."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    model.train()
    return np.random.get_state(), torch.get_rng_state()


def flat(model, value):
    """The parameters of the value function, or all others."""
    chosen = [p.detach().reshape(-1) for n, p in model.policy.named_parameters() if ("value" in n) == value]
    return torch.cat(chosen).double().numpy()


def optimizer_state(model):
    """(step, exp_avg, exp_avg_sq) of every parameter that has one, by name."""
    state = model.policy.optimizer.state
    return {
        name: (float(state[p]["step"]), state[p]["exp_avg"].clone(), state[p]["exp_avg_sq"].clone())
        for name, p in model.policy.named_parameters()
        if state.get(p)
    }


def relative(ours, theirs):
    """Distance relative to the second."""
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
