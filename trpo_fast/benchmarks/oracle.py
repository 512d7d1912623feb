"""The answers, in float64 NumPy that shares nothing with the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from .._core import library
from .problems import PolicyProblem, Vector, flatten, forward


class WrongAnswer(AssertionError):
    """What was to be timed computes something else."""


def _pullback(layers: Any, values: list[Vector], d: Vector) -> Vector:
    """J'd summed over samples, flat: reverse mode from cotangents d (B, A) of the output."""
    pieces: list[Vector] = []
    for i in reversed(range(len(layers))):
        pieces += [d.sum(0), (d.T @ values[i]).ravel()]
        if i:
            d = (d @ layers[i][0]) * (1 - values[i] ** 2)
    return np.concatenate(pieces[::-1])


class ExactPolicy:
    """A problem's policy at theta_old, in float64 and NumPy; what goes in and out is flat, ``log_std W1 b1 ...``."""

    def __init__(self, problem: PolicyProblem) -> None:
        self._problem = problem
        self._layers = self._split(problem.parameters)[1]
        self._log_std = problem.log_std.astype(np.float64)

    def _split(self, theta: Vector) -> tuple[Vector, list[tuple[Vector, Vector]]]:
        theta = theta.astype(np.float64)
        at, layers = self._problem.widths[-1], []
        for inputs, outputs in pairwise(self._problem.widths):
            weight = theta[at : at + outputs * inputs].reshape(outputs, inputs)
            at += outputs * inputs
            layers.append((weight, theta[at : at + outputs]))
            at += outputs
        return theta[: self._problem.widths[-1]], layers

    def _blocks(self) -> Iterator[slice]:
        rows = 8_192  # bounds the memory of the activations
        return (slice(start, start + rows) for start in range(0, self._problem.batch, rows))

    def fisher_product(self, v: Vector) -> Vector:
        """``F v = (1/B) sum J'M J v``: forward mode, the Gaussian's Fisher matrix, reverse mode."""
        v_log_std, tangents = self._split(v)
        total = np.zeros(self._problem.size - len(v_log_std))
        for rows in self._blocks():
            values = forward(self._layers, self._problem.observations[rows].astype(np.float64))
            t = np.zeros_like(values[0])
            for i, ((weight, _), (d_weight, d_bias)) in enumerate(zip(self._layers, tangents, strict=True)):
                t = t @ weight.T + values[i] @ d_weight.T + d_bias
                if i < len(tangents) - 1:
                    t *= 1 - values[i + 1] ** 2
            total += _pullback(self._layers, values, t * np.exp(-2 * self._log_std))
        return np.concatenate([2 * v_log_std, total / self._problem.batch])

    def gradient(self) -> Vector:
        """Of the surrogate, (n,)."""
        problem, sigma = self._problem, np.exp(self._log_std)
        values = forward(self._layers, problem.observations.astype(np.float64))
        z = (problem.actions - values[-1]) / sigma
        a = problem.advantages.astype(np.float64)[:, None] / problem.batch
        return np.concatenate([(a * (z**2 - 1)).sum(0), _pullback(self._layers, values, a * z / sigma)])

    def evaluate(self, theta: Vector) -> tuple[float, float]:
        """Improvement and KL(new || old) of trial parameters."""
        problem, (log_std, layers) = self._problem, self._split(theta)
        observations = problem.observations.astype(np.float64)
        old, new = (forward(some, observations)[-1] for some in (self._layers, layers))

        def log_prob(mean: Vector, log_std: Vector) -> Vector:
            return -(0.5 * ((problem.actions - mean) / np.exp(log_std)) ** 2 + log_std).sum(1)

        growth = np.expm1(log_prob(new, log_std) - log_prob(old, self._log_std))
        shrink = log_std - self._log_std
        kl = 0.5 * (np.expm1(2 * shrink) - 2 * shrink + ((new - old) / np.exp(self._log_std)) ** 2).sum(1)
        return float((growth * problem.advantages).mean()), float(kl.mean())


def exact_solution(product: Callable[[Vector], Vector], b: Vector, iterations: int, damping: float = 0.0) -> Vector:
    """The x after so many iterations of conjugate gradient from zero, every residual kept orthogonal to all before."""
    b = b.astype(np.float64)
    x, r, p = np.zeros_like(b), b.copy(), b.copy()
    earlier: list[Vector] = []
    for _ in range(iterations):
        Ap = product(p) + damping * p
        rr = r @ r
        earlier.append(r / np.sqrt(rr))
        alpha = rr / (p @ Ap)
        x += alpha * p
        r = r - alpha * Ap
        for q in earlier * 2:
            r -= (q @ r) * q
        p = r + (r @ r / rr) * p
    return x


def relative_error(x: Vector, exact: Vector) -> float:
    """``||x - exact|| / ||exact||``."""
    return float(np.linalg.norm(x - exact) / np.linalg.norm(exact))


def require(error: float, tolerance: float, what: str) -> float:
    """`error` itself, or WrongAnswer where it is above `tolerance`."""
    if not error <= tolerance:  # a NaN is wrong, too
        raise WrongAnswer(f"{what}: off by {error:.1e}; want at most {tolerance:.0e}; a wrong answer has no time")
    return error


def exact_fit(problem: PolicyProblem, epochs: int, minibatch: int, learning_rate: float) -> Vector:
    """Adam (Kingma & Ba 2015, Algorithm 1) in float64, on the kernel's own permutations."""
    observations, returns = (a.astype(np.float64) for a in (problem.observations, problem.returns))
    theta = flatten(problem.critic_layers).astype(np.float64)
    shapes = [part.shape for layer in problem.critic_layers for part in layer]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    m, v, step = np.zeros_like(theta), np.zeros_like(theta), 0
    for epoch in range(epochs):
        order = library.permutation(problem.batch, seed=0, stream=1, step=epoch)
        for rows in np.split(order, range(minibatch, problem.batch, minibatch)):
            parts = [part.reshape(shape) for part, shape in zip(np.split(theta, ends), shapes, strict=True)]
            layers = list(zip(parts[::2], parts[1::2], strict=True))
            values = forward(layers, observations[rows])
            g = _pullback(layers, values, 2 * (values[-1] - returns[rows, None]) / len(rows))
            step += 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            theta = theta - learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return theta
