"""A policy at the kernel's boundary, with its oracle and a batch: what several test modules of this folder share."""

import numpy as np

from tests import reference
from tests.engines.cases import product_space
from trpo_fast._core.policy import PolicyKernel
from trpo_fast.gymnasium_spaces import action_layout

WIDTHS = (5, 16, 9, 3)


class Setting:
    """A kernel, its oracle, parameters and a batch of B = 40."""

    def __init__(self, kind="gaussian", dtype=np.float64, activation="tanh", widths=WIDTHS, rows=40):
        distribution, outputs = kind.removeprefix("masked "), widths[-1]
        nvec = (outputs - outputs // 3, *(1 for _ in range(outputs // 3)))  # some components of a single choice
        self.nvec = nvec if distribution == "multicategorical" else None
        parts = action_layout(product_space(outputs)).kernel_arguments[1] if distribution == "product" else None
        self.kernel = PolicyKernel(widths, activation, distribution, dtype, self.nvec, parts)
        if parts is None:
            self.oracle = reference.Policy(tuple(widths), activation, distribution, nvec)
        else:
            self.oracle = reference.Product(tuple(widths), activation, parts)
        rng = np.random.default_rng(0)
        self.theta = (0.4 * rng.normal(size=self.oracle.size)).astype(dtype)
        self.observations = rng.normal(size=(rows, widths[0])).astype(dtype)
        self.actions, self.masks = rng.normal(size=(rows, widths[-1])).astype(dtype), None
        if parts is not None:
            columns = []
            for part, _, _, _ in self.oracle.apart(self.theta):
                if part.discrete:
                    columns += [rng.integers(0, n, rows)[:, None] for n in part.blocks]
                else:
                    columns.append(rng.normal(size=(rows, part.outputs)))
            self.actions = np.hstack(columns).astype(dtype)
        elif self.oracle.discrete:
            self.actions = np.stack([rng.integers(0, n, rows) for n in self.oracle.blocks], axis=1)
        if distribution == "categorical":
            self.actions = self.actions[:, 0].copy()
        if kind.startswith("masked"):
            self.masks = (rng.random((rows, sum(self.oracle.blocks))) < 0.5) | (self.oracle.chosen(self.actions) > 0)
        self.advantages = rng.normal(size=rows).astype(dtype)

    @property
    def data(self):
        return self.observations, self.actions, self.advantages

    def bind(self, **replace):
        arguments = {
            "parameters": self.theta,
            "observations": self.observations,
            "actions": self.actions,
            "advantages": self.advantages,
            "action_masks": self.masks,
        }
        self.kernel.bind(**(arguments | replace))
        return self.kernel


def spoiled(array, how):
    match how:
        case "short":
            return array[:-1].copy()
        case "narrow":
            return array[:, :-1].copy()
        case "flat":
            return array.ravel()
        case "empty":
            return array[:0].copy()
        case "matrix":
            return array[:, None].copy()
        case "other dtype":
            return array.astype(np.float32)
        case "strided":
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "list":
            return array.tolist()


def outputs_for(s, rows=40, **types):
    discrete, dtype, shape = s.oracle.discrete, s.theta.dtype, (rows, *s.actions.shape[1:])
    actions = np.empty(shape, np.int64 if discrete else dtype)
    env_actions = np.empty(shape, np.int64 if discrete else types.get("env", dtype))
    return np.empty((rows, 5), dtype), actions, np.empty(rows, dtype), env_actions
