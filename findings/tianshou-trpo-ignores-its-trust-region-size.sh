#!/usr/bin/env bash
# tianshou 2.0.1: the trust_region_size of TRPO decides nothing, and that of NPG is no size of a trust region.
#
# Both are documented as "the trust region size, which is the maximum KL divergence allowed between the old and new policy distributions". TRPO hands
# it on to NPG's constructor and reads max_kl alone: a trust_region_size of 1e-8 and one of 1e8 give the same bits. NPG multiplies its direction by
# it, without a bound: on Pendulum-v1 the KL of the same update is 0.0004 for a size of 0.5, the default, and 0.05 for 5, about its square, and that
# times what the gradient and the Fisher matrix happen to be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary torch==2.13.0 tianshou==2.0.1 gymnasium==1.4.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import NPG, TRPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Independent, Normal

print("tianshou", version("tianshou"))
torch.set_num_threads(1)


def update(algorithm, **settings):
    """KL of the first update of the same policy on the same 1024 steps, and its parameters."""
    torch.manual_seed(0)
    np.random.seed(0)
    actor, critic = (
        kind(preprocess_net=Net(state_shape=(3,), hidden_sizes=(32, 32), activation=torch.nn.Tanh), **more)
        for kind, more in ((ContinuousActorProbabilistic, {"action_shape": (1,), "unbounded": True}), (ContinuousCritic, {}))
    )
    policy = ProbabilisticActorPolicy(
        actor=actor, dist_fn=lambda parameters: Independent(Normal(*parameters), 1), action_space=gymnasium.spaces.Box(-2, 2, (1,))
    )
    learner = algorithm(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3), **settings)
    buffer = VectorReplayBuffer(2048, 2)
    collector = Collector(learner, DummyVectorEnv([lambda: gymnasium.make("Pendulum-v1")] * 2), buffer)
    collector.reset(gym_reset_kwargs={"seed": 0})
    collector.collect(n_step=1024)
    with policy_within_training_step(policy):
        kl = learner.update(buffer=buffer, batch_size=None, repeat=1).kl.mean
    return kl, b"".join(parameter.detach().numpy().tobytes() for parameter in actor.parameters())


bits, kls = set(), {}
for size in (1e-8, 0.5, 1e8):
    kl, parameters = update(TRPO, trust_region_size=size)
    bits.add(parameters)
    print(f"TRPO, trust_region_size={size:g}: KL {kl:.4g}")
print("different results of TRPO:", len(bits))
kl, parameters = update(TRPO, max_kl=0.001)
print(f"TRPO, max_kl=0.001: KL {kl:.4g}")
assert len(bits) == 1 and parameters not in bits and kl < 0.001, "the setting is read now"
for size in (0.5, 5):
    kls[size], _ = update(NPG, trust_region_size=size)
    print(f"NPG, trust_region_size={size:g}: KL {kls[size]:.4g}")
assert kls[0.5] < 0.01 and 50 < kls[5] / kls[0.5] < 200
PYTHON
# Seen:
#   tianshou 2.0.1
#   TRPO, trust_region_size=1e-08: KL 0.006515
#   TRPO, trust_region_size=0.5: KL 0.006515
#   TRPO, trust_region_size=1e+08: KL 0.006515
#   different results of TRPO: 1
#   TRPO, max_kl=0.001: KL 0.0006239
#   NPG, trust_region_size=0.5: KL 0.0004469
#   NPG, trust_region_size=5: KL 0.0517
