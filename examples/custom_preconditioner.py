"""A preconditioner of your own on a Fisher system: fewer products for the same gain.

python examples/custom_preconditioner.py [samples]        4,000 by default
"""

import sys
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import nn

import trpo_fast

INPUTS, ACTIONS, DAMPING = 20, 4, 0.03
Block = tuple[np.ndarray, np.ndarray, int, int]


def kronecker_factors(policy: trpo_fast.MLPPolicy, observations: torch.Tensor) -> list[Block]:
    """K-FAC by hand: A = E[a a'] of a layer's inputs and a 1, G = E[d d'] of the score's derivatives; and offsets."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append((inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(keep) for layer in policy.layers]
    distribution = policy(observations)
    distribution.log_prob(distribution.sample()).sum().backward()
    policy.zero_grad()
    blocks, at, rows = [], ACTIONS, len(observations)
    for hook, (inputs, output) in zip(hooks, seen, strict=True):
        hook.remove()
        a, d = torch.cat([inputs, torch.ones(rows, 1)], dim=1).numpy(), np.asarray(output.grad)
        # The vector is in the order of named_parameters(): log_std, then each layer's weight (outputs, inputs), bias.
        bias = at + (a.shape[1] - 1) * d.shape[1]
        blocks.append((a.T @ a / rows, d.T @ d / rows, at, bias))
        at = bias + d.shape[1]
    return blocks


def blockwise(blocks: list[Block]) -> Callable[[np.ndarray], np.ndarray]:
    """Any function r -> M r will do: this is G^-1 R A^-1 for each layer, in NumPy."""

    def inverse(factor: np.ndarray) -> np.ndarray:
        return np.linalg.inv(factor + 0.1 * np.sqrt(DAMPING) * np.eye(len(factor), dtype=np.float32))

    inverses = [(inverse(A), inverse(G), weight, bias) for A, G, weight, bias in blocks]

    def product(r: np.ndarray) -> np.ndarray:
        out = r / (2 + DAMPING)  # the Fisher information of log_std is 2
        for A, G, weight, bias in inverses:
            end = bias + len(G)
            M = G @ np.column_stack([r[weight:bias].reshape(len(G), -1), r[bias:end]]) @ A
            out[weight:bias], out[bias:end] = M[:, :-1].ravel(), M[:, -1]
        return out

    return product


def main(samples: int) -> None:
    """Count products."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    policy = trpo_fast.MLPPolicy(gym.spaces.Box(-9, 9, (INPUTS,)), gym.spaces.Box(-9, 9, (ACTIONS,)), (64, 64))
    observations = (rng.normal(size=(samples, INPUTS)) * np.geomspace(0.1, 3, INPUTS)).astype(np.float32)
    actions = rng.normal(size=(samples, ACTIONS)).astype(np.float32)
    advantages = np.tanh(observations[:, 0] * actions[:, 0] * 10) + actions[:, 1] * observations[:, 9]
    engine = trpo_fast.make_engine(policy)
    engine.bind(trpo_fast.Batch(observations, actions, advantages / advantages.std()))
    g, F = engine.surrogate_gradient(), engine.fisher_operator()

    def gains(M: object) -> list[float]:
        """After 1 to 20 products: g'x / sqrt(x'Fx), what a step gains for its KL."""
        found = []
        for k in range(1, 21):
            solution = trpo_fast.conjugate_gradient(F, g, max_iter=k, damping=DAMPING, preconditioner=M, rtol=0.0)
            found.append(float(g @ solution.x) / np.sqrt(solution.curvature))
        return found

    blocks = kronecker_factors(policy, torch.from_numpy(observations))
    log_std = np.full(g.size, 2.0, np.float32)  # looked at where no block is
    compiled = trpo_fast.KroneckerPreconditioner(blocks, g.size, g.dtype, DAMPING, log_std)
    plain = gains(None)
    for name, M in {"none": None, "a function": blockwise(blocks), "the same, compiled": compiled}.items():
        reached = gains(M)
        needed = next(k for k, gain in enumerate(reached, 1) if gain >= 0.99 * plain[-1])
        print(f"{name:<20} gain {reached[0]:.4f} after 1 product, {reached[4]:.4f} after 5; {needed:2d} products")
        assert M is None or needed <= 5
    print(f"... for what 20 plain ones gain, {plain[-1]:.4f}, within 1%")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
