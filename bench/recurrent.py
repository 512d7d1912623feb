"""A recurrent policy's Fisher product: by the engine, and by plain double backward in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from trpo_fast.engines import make_engine
from trpo_fast.policies.recurrent import RecurrentPolicy
from trpo_fast.rollout.batch import Batch, Sequences

Product = Callable[[NDArray[Any]], NDArray[Any]]


class RecurrentProblem:
    """A policy of `units` units and 64 behind them, HalfCheetah's sizes, and 2,048 steps of eight environments.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    dtype : {"float32", "float64"}
    """

    inputs, actions, steps, sequences = 17, 6, 256, 8

    def __init__(self, kind: str, units: int = 64, dtype: str = "float32") -> None:
        rng = np.random.default_rng(0)
        seen, acted = Box(-np.inf, np.inf, (self.inputs,)), Box(-1, 1, (self.actions,))
        self.policy = RecurrentPolicy(kind, seen, acted, units=units, dtype=dtype, seed=0)
        rows, shape = self.steps * self.sequences, (self.steps, self.sequences)
        self.observations = rng.normal(size=(rows, self.inputs)).astype(dtype)
        self.taken = rng.normal(size=(rows, self.actions)).astype(dtype)
        self.advantages = rng.normal(size=rows).astype(dtype)
        self.starts = rng.random(shape) < 0.005
        self.direction = rng.normal(size=sum(p.numel() for p in self.policy.parameters())).astype(dtype)
        gates = 3 if kind == "gru" else 4
        forward = gates * units * (self.inputs + units) + 64 * (units + self.actions)
        self.flops = 2 * 4 * rows * forward  # J v and J'w, each twice the forward pass

    def by_engine(self) -> Product:
        """F v of trpo_fast."""
        state = np.zeros((self.sequences, self.policy.state_items), self.observations.dtype)
        sequences = Sequences(self.starts, np.ones_like(self.starts), state)
        engine = make_engine(self.policy)
        engine.bind(Batch(self.observations, self.taken, self.advantages, sequences=sequences))
        return engine.fisher_operator().matvec

    def by_double_backward(self) -> Product:
        """F v as the derivative of the KL divergence's gradient, through torch's own cells step by step."""
        theta = {name: tensor.detach().clone().requires_grad_() for name, tensor in self.policy.named_parameters()}
        new = self._distribution(theta)
        with torch.no_grad():
            old = self._distribution(theta)
        leaves = list(theta.values())
        gradient = torch.autograd.grad(kl_divergence(old, new).mean(), leaves, create_graph=True)
        flat = torch.cat([part.reshape(-1) for part in gradient])

        def product(v: NDArray[Any]) -> NDArray[Any]:
            parts = torch.autograd.grad(flat @ torch.from_numpy(v), leaves, retain_graph=True)
            found: NDArray[Any] = torch.cat([part.reshape(-1) for part in parts]).numpy()
            return found

        return product

    def _distribution(self, theta: dict[str, Tensor]) -> Independent:
        policy = self.policy
        observations = torch.from_numpy(self.observations).view(self.steps, self.sequences, -1)
        parameters = [theta[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        state, hidden = policy.initial_state(self.sequences), []
        for x, goes_on in zip(observations, ~torch.from_numpy(self.starts), strict=True):
            state = state * goes_on[:, None]
            if policy.kind == "gru":
                h = state = torch.gru_cell(x, state, *parameters)
            else:
                h, c = torch.lstm_cell(x, state.chunk(2, dim=1), *parameters)
                state = torch.cat([h, c], 1)
            hidden.append(h)
        y = torch.tanh(torch.cat(hidden) @ theta["layers.0.weight"].T + theta["layers.0.bias"])
        mean = y @ theta["layers.1.weight"].T + theta["layers.1.bias"]
        return Independent(Normal(mean, theta["log_std"].exp().expand_as(mean)), 1)
