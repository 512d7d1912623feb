"""Calls that make policies and critics."""

import gymnasium as gym
import torch

import trpo_fast
from tests.trust.catalogue.declaring import BOX, CHOICES, IMAGES, call, target
from trpo_fast import policies


def network(rng, cls, observation_space, action_space=None, **others):
    arguments = {"observation_space": observation_space}
    if action_space is not None:
        arguments |= {"action_space": action_space, "log_std_init": 0.0}
    dtypes = ["float32", "float64", torch.float32]
    arguments |= others | {"dtype": dtypes[rng.integers(3)], "seed": int(rng.integers(3))}
    return call(cls, arguments, dear="hidden_sizes units", aliases=("space", "observation", "action"))


MLP = {"hidden_sizes": (4,), "activation": "tanh"}


@target("MLPPolicy", 3)
def _(rng):
    return network(rng, trpo_fast.MLPPolicy, BOX, [BOX, CHOICES][rng.integers(2)], **MLP)


@target("MLPCritic")
def _(rng):
    return network(rng, trpo_fast.MLPCritic, BOX, **MLP)


@target("CNNPolicy", 0.3)
def _(rng):
    return network(rng, policies.CNNPolicy, IMAGES, CHOICES, channel_axis="auto")


@target("CNNCritic", 0.3)
def _(rng):
    return network(rng, policies.CNNCritic, IMAGES, channel_axis="auto")


@target("MultiInputPolicy", 0.3)
def _(rng):
    space = gym.spaces.Dict({"image": IMAGES, "numbers": BOX})
    return network(rng, policies.MultiInputPolicy, space, CHOICES, **MLP, channel_axis="auto", boards=False)


@target("MultiInputCritic", 0.3)
def _(rng):
    space = gym.spaces.Dict({"image": IMAGES, "numbers": BOX})
    return network(rng, policies.MultiInputCritic, space, **MLP, channel_axis="auto", boards=False)


@target("RecurrentPolicy", 0.5)
def _(rng):
    kind = str(rng.choice(["gru", "lstm"]))
    return network(rng, policies.RecurrentPolicy, BOX, CHOICES, kind=kind, units=4, **MLP)


@target("RecurrentCritic", 0.5)
def _(rng):
    return network(rng, policies.RecurrentCritic, BOX, kind="gru", units=4, **MLP)


@target("FlatParameters", 0.5)
def _(rng):
    return call(policies.FlatParameters, {"module": torch.nn.Linear(2, 2)}, "module")


@target("Product")
def _(rng):
    several = [
        torch.distributions.Categorical(logits=torch.zeros(2, 3)),
        torch.distributions.Categorical(logits=torch.ones(2, 2)),
    ]
    return call(policies.Product, {"parts": several})
