"""Problems that every engine is tried on, with what the oracle needs to judge them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from tests import reference
from trpo_fast.policies import MLPPolicy
from trpo_fast.rollout.batch import Batch

KINDS = (
    "gaussian",
    "categorical",
    "multicategorical",
    "bernoulli",
    "masked categorical",
    "masked multicategorical",
    "masked bernoulli",
    "product",
    "masked product",
)
"""What `make_case` makes problems of."""
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


@dataclass
class Case:
    policy: MLPPolicy
    oracle: reference.Policy | reference.Product
    observations: np.ndarray
    actions: np.ndarray
    advantages: np.ndarray
    rng: np.random.Generator
    masks: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.policy.flat.numpy.dtype

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.dtype]

    @property
    def theta(self) -> np.ndarray:
        """A float64 copy of the parameters."""
        return self.policy.flat.numpy.astype(np.float64)

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.observations, self.actions, self.advantages

    def batch(self, **more: Any) -> Batch:
        return Batch(*self.data, **{"action_masks": self.masks} | more)

    def vector(self) -> np.ndarray:
        return self.rng.normal(size=len(self.policy.flat)).astype(self.dtype)

    def move(self, size: float = 0.02) -> None:
        """Set trial parameters near the present ones."""
        self.policy.flat.numpy[:] += size * self.vector()
        self.policy.flat.bump_versions()


def make_case(
    distribution="gaussian", hidden=(16, 8), activation="tanh", dtype="float64", rows=131, inputs=7, outputs=3, seed=0
) -> Case:
    rng = np.random.default_rng(seed)
    masked, distribution = distribution.startswith("masked "), distribution.removeprefix("masked ")
    space = {
        "gaussian": lambda: spaces.Box(-1, 1, (outputs,)),
        "categorical": lambda: spaces.Discrete(outputs),
        "multicategorical": lambda: spaces.MultiDiscrete([n for n in (outputs - outputs // 2, outputs // 2) if n]),
        "bernoulli": lambda: spaces.MultiBinary(outputs),
        "product": lambda: product_space(outputs),
    }[distribution]()
    policy = MLPPolicy(
        spaces.Box(-np.inf, np.inf, (inputs,)), space, hidden, activation, dtype=getattr(torch, dtype), seed=seed
    )
    # Away from the initial point, where the biases are 0 and the outputs nearly so.
    policy.flat.numpy[:] += 0.3 * rng.normal(size=len(policy.flat))
    policy.flat.bump_versions()
    observations = rng.normal(size=(rows, inputs)).astype(dtype)
    oracle = reference.Policy(policy.widths, activation, policy.distribution, policy.nvec)
    if distribution == "product":
        kinds = tuple((part.distribution, part.outputs, part.nvec) for part in policy.action_parts)
        oracle = reference.Product(policy.widths, activation, kinds)
    masks = None
    if distribution == "gaussian":
        theta = policy.flat.numpy.astype(np.float64)
        noise = rng.normal(size=(rows, outputs)) * np.exp(theta[:outputs])
        actions = (oracle.forward(theta, observations) + noise).astype(dtype)
    elif distribution == "product":
        columns = []
        for part, own, _, _ in oracle.apart(policy.flat.numpy):
            if part.discrete:
                columns += [rng.integers(0, n, rows)[:, None] for n in part.blocks]
            else:
                noise = rng.normal(size=(rows, part.outputs)) * np.exp(part.split(own)[0])
                columns.append(part.forward(own, observations) + noise)
        actions = np.hstack(columns).astype(dtype)
        if masked:
            masks = (rng.random((rows, sum(oracle.blocks))) < 0.5) | (oracle.chosen(actions) > 0)
    else:
        actions = np.stack([rng.integers(0, n, rows) for n in oracle.blocks], axis=1)
        if masked:
            masks = (rng.random((rows, sum(oracle.blocks))) < 0.5) | (oracle.chosen(actions) > 0)
        if distribution == "categorical":
            actions = actions[:, 0].copy()
    return Case(policy, oracle, observations, actions, rng.normal(size=rows).astype(dtype), rng, masks)


def product_space(outputs):
    """Choices, numbers, flags and numbers, nested, that take so many outputs; as many parts as these are enough for."""
    choices = (outputs + 1) // 2
    rest = outputs - choices
    numbers, flags, more = (rest + 2) // 3, (rest + 1) // 3, rest // 3
    several = spaces.MultiDiscrete([[choices - 2, 2]]) if choices > 3 else spaces.Discrete(choices)
    inner = {"numbers": spaces.Box(-1, 1, (numbers,))} if numbers else {}
    inner |= {"flags": spaces.MultiBinary(flags)} if flags else {}
    parts = [several, *([spaces.Dict(inner)] if inner else []), *([spaces.Box(-1, 1, (more,))] if more else [])]
    return spaces.Tuple(parts)


def relative_error(actual, expected) -> float:
    """Of vectors, in the Euclidean norm; absolute where nothing is expected (a single choice: nothing to learn)."""
    return float(np.linalg.norm(np.asarray(actual, np.float64) - expected) / (np.linalg.norm(expected) or 1.0))


def improvement_scale(case: Case, theta, theta_old) -> float:
    """Mean size of the improvement's terms: they cancel, so that rounding is relative to this and not to their sum."""
    oracle, (observations, actions, advantages) = case.oracle, case.data
    new, old = (oracle.log_prob(at, observations, actions, case.masks) for at in (theta, theta_old))
    return float(np.abs(np.expm1(new - old) * advantages).mean())
