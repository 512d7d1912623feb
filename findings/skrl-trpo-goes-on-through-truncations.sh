#!/usr/bin/env bash
# skrl 2.1.1: by default its TRPO (and PPO, A2C, RPO) learns from returns that go on into the next episode wherever one is truncated.
#
# compute_gae stops at terminations alone where time_limit_bootstrap is False, the default: the value that follows the last step of a truncated
# episode is that of the next one's first observation, and the rest of the sum are its rewards. The setting is documented as whether to bootstrap at a
# truncation; what it decides is whether there is an episode's end at all. Tasks that only a time limit ends, as HalfCheetah-v5, Swimmer-v5 or
# Pendulum-v1 are, are one endless episode whose state jumps. In an environment that pays 1 in its first step, where actions decide nothing, and 0
# after it, the last steps of an episode "earn" the next one's pay. With time_limit_bootstrap=True the episodes are apart, and gamma * V(last
# observation) is added.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary torch==2.13.0 skrl==2.1.1 gymnasium==1.4.0 numpy==2.4.6 \
    tensorboard==2.21.0
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
import torch
from skrl.agents.torch.trpo import TRPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed

print("skrl", version("skrl"))
LENGTH, EPISODES, GAMMA = 8, 8, 0.9


class PaidAtFirst(gymnasium.Env):
    """Pays 1 for its first step and nothing for the others, whatever is done; sees how many steps there were."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps / LENGTH, np.float32), float(self.steps == 1), False, self.steps == LENGTH, {}


class Policy(GaussianMixin, Model):
    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        GaussianMixin.__init__(self)
        self.net, self.log_std = torch.nn.Linear(1, 1), torch.nn.Parameter(torch.zeros(1))

    def compute(self, inputs, role):
        return self.net(inputs["observations"]), {"log_std": self.log_std.expand(len(inputs["observations"]), 1)}


class Value(DeterministicMixin, Model):
    """0 everywhere, as of a critic that has learned nothing."""

    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)

    def compute(self, inputs, role):
        return self.net(inputs["observations"]), {}


returns = {}
for bootstrap in (False, True):
    set_seed(0)
    env = wrap_env(PaidAtFirst(), wrapper="gymnasium", verbose=False)
    memory = RandomMemory(memory_size=LENGTH * EPISODES, num_envs=1, device="cpu")
    agent = TRPO(
        models={"policy": Policy(env), "value": Value(env)}, memory=memory, device="cpu",
        observation_space=env.observation_space, action_space=env.action_space,
        cfg={"rollouts": LENGTH * EPISODES, "discount_factor": GAMMA, "gae_lambda": 1.0, "time_limit_bootstrap": bootstrap,
             "experiment": {"write_interval": 0, "checkpoint_interval": 0}},
    )
    trainer = SequentialTrainer(env=env, agents=agent, cfg={"timesteps": LENGTH * EPISODES, "headless": True, "disable_progressbar": True})
    trainer.train()
    assert memory.get_tensor_by_name("truncated").sum() == EPISODES and not memory.get_tensor_by_name("terminated").any()
    returns[bootstrap] = memory.get_tensor_by_name("returns").reshape(EPISODES, LENGTH)[0].numpy()
    print(f"time_limit_bootstrap={bootstrap}, returns of the first episode: {returns[bootstrap].astype(float).round(2).tolist()}")
alone = np.eye(LENGTH)[0]
print(f"rewards of its own that are left: {alone.astype(int).tolist()}")
assert np.allclose(returns[True], alone)
whole = 1 / (1 - GAMMA**LENGTH)
assert returns[False][-1] > 0.8 and abs(returns[False][0] - whole) < 0.1, "truncated episodes end now"
PYTHON
# Seen:
#   skrl 2.1.1
#   time_limit_bootstrap=False, returns of the first episode: [1.75, 0.84, 0.93, 1.03, 1.15, 1.28, 1.42, 1.58]
#   time_limit_bootstrap=True, returns of the first episode: [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
#   rewards of its own that are left: [1, 0, 0, 0, 0, 0, 0, 0]
