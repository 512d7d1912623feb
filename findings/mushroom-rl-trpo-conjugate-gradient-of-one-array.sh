#!/usr/bin/env bash
# mushroom-rl 1.10.2: the conjugate gradient of its TRPO is none on a CPU: residual and direction are one array.
#
# TRPO._conjugate_gradient begins with p = b.detach().cpu().numpy() and r = b.detach().cpu().numpy(), which on a CPU both are the memory of the
# gradient b: "r -= v * z" changes p with it, so that the second direction is a multiple of the residual in place of one that is conjugate to the
# first, and its step has the wrong length. Ten iterations, its default, solve nothing that has ten dimensions, and a policy's step, scaled to max_kl,
# gains two thirds of what this KL allows, where ten of the real one gain 97%. On a GPU .cpu() copies, so that the same training takes other steps
# there. The gradient that was given is overwritten, too. Here its own method is run as it is, and with .copy() in these two lines.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary torch==2.13.0 numpy==2.4.6 scipy==1.17.1 \
    scikit-learn==1.9.1 joblib==1.6.0 matplotlib==3.11.2 tqdm==4.70.1 opencv-python-headless==5.0.0.93 pygame-ce==2.5.8
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --no-deps mushroom-rl==1.10.2 # which pins older ones of the same packages
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
import inspect
import textwrap
from copy import deepcopy
from importlib.metadata import version

import numpy as np
import torch
from mushroom_rl.algorithms.actor_critic import TRPO
from mushroom_rl.algorithms.actor_critic.deep_actor_critic import trpo
from mushroom_rl.core import MDPInfo
from mushroom_rl.policy import GaussianTorchPolicy
from mushroom_rl.utils.spaces import Box
from mushroom_rl.utils.torch import get_gradient, zero_grad
from torch import nn

print("mushroom-rl", version("mushroom-rl"))
torch.manual_seed(0)
torch.set_num_threads(1)


class Network(nn.Module):
    def __init__(self, input_shape, output_shape, **_):
        super().__init__()
        sizes = input_shape[0], 32, 32, output_shape[0]
        parts = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.Tanh())]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, x, **_):
        return self.layers(x.float())


critic = dict(network=Network, input_shape=(6,), output_shape=(1,), loss=nn.functional.mse_loss,
              optimizer={"class": torch.optim.Adam, "params": {"lr": 1e-3}})
policy = GaussianTorchPolicy(Network, (6,), (2,), std_0=0.5)
agent = TRPO(MDPInfo(Box(-1, 1, (6,)), Box(-1, 1, (2,)), 0.99, 100), policy, critic_params=critic)

source = textwrap.dedent(inspect.getsource(TRPO._conjugate_gradient))
shared = "b.detach().cpu().numpy()"
assert source.count(shared) == 2, "the lines are others now"
names = vars(trpo).copy()
exec(source.replace(shared, f"{shared}.copy()"), names)
methods = {"as it is": TRPO._conjugate_gradient, "with copies": names["_conjugate_gradient"]}

# a quadratic form: ten iterations solve ten dimensions
matrix = np.diag(np.arange(1, 11)).astype(np.float32)
agent._fisher_vector_product = lambda p, *_: torch.from_numpy(matrix @ p)
rest = {}
for name, method in methods.items():
    b = torch.ones(10)
    x = method(agent, b, None, None)
    rest[name] = float(np.linalg.norm(matrix @ x - 1) / np.sqrt(10))
    print(f"A = diag(1, ..., 10), b = ones, {name}: residual {rest[name]:.2g}, b changed: {not torch.equal(b, torch.ones(10))}")
del agent._fisher_vector_product

# a policy's gradient and Fisher matrix
observations = torch.randn(2000, 6)
with torch.no_grad():
    actions = policy.draw_action_t(observations)
advantages = torch.sin(3 * observations[:, :1]) * actions[:, :1]
advantages = (advantages - advantages.mean()) / advantages.std()
old = deepcopy(policy).distribution_t(observations)
zero_grad(policy.parameters())
agent._compute_loss(observations, actions, advantages, policy.log_prob_t(observations, actions).detach()).backward()
gradient = get_gradient(policy.parameters())


def times_fisher(vector):
    return agent._fisher_vector_product(vector.astype(np.float32), observations, old).detach().numpy().astype(np.float64)


g = gradient.numpy().astype(np.float64)
gains = {}
agent._n_epochs_cg = lambda: 200
best = methods["with copies"](agent, gradient.clone(), observations, old).astype(np.float64)
agent._n_epochs_cg = lambda: 10
for name, method in methods.items():
    x = method(agent, gradient.clone(), observations, old).astype(np.float64)
    fx = times_fisher(x)
    residual = np.linalg.norm(fx - g) / np.linalg.norm(g)
    gains[name] = (g @ x / np.sqrt(x @ fx)) / (g @ best / np.sqrt(best @ times_fisher(best)))
    print(f"a policy, 10 iterations, {name}: residual {residual:.2f}, {gains[name]:.0%} of the best gain for the same KL")
assert rest["as it is"] > 1e-3 > 1e-5 > rest["with copies"], "it is a conjugate gradient now"
assert gains["as it is"] < 0.85 < 0.9 < gains["with copies"]
PYTHON
# Seen:
#   mushroom-rl 1.10.2
#   A = diag(1, ..., 10), b = ones, as it is: residual 0.0045, b changed: True
#   A = diag(1, ..., 10), b = ones, with copies: residual 1e-07, b changed: False
#   a policy, 10 iterations, as it is: residual 0.41, 68% of the best gain for the same KL
#   a policy, 10 iterations, with copies: residual 0.24, 97% of the best gain for the same KL
