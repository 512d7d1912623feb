"""How fast the compiled core is here, beside what this machine can do at most: the cases of ``trpo-fast bench``.

Needs numpy alone. A case is timed on every number of threads asked for, in alternating rounds, together with the
multiply-add limit on the same threads; the medians count. Before it is timed its answer is compared with float64 NumPy
written here, which shares nothing with the kernels; a wrong answer has no time.

Operations and bytes are those that the mathematics needs, so that figures of different implementations compare:

- a Fisher product does ``B (8 P - 4 P1)`` operations for P weights, P1 of them in the first layer: J v costs a product
  with the weights and one with their tangents (the first layer's inputs have no tangent), J' the same; and reads or
  writes once each observation, each hidden activation, the parameters, the vector and the result;
- an iteration of CG does one product, and ``10 n`` operations on ``11 n`` items in its three vector updates (p'Ap; x
  and r with r'r; p), ``2 n`` on ``3 n`` more with damping, ``4 n k`` on ``5 n k`` in iteration k with
  reorthogonalization;
- a value fit does ``6 B P - 2 B P1`` operations an epoch; rollout cases count their networks' ``2 B P``.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._core import library
from ._core.critic import ValueKernel
from ._core.operator import CallableOperator, Operator
from ._core.policy import Actor, PolicyKernel
from .solvers import Status, conjugate_gradient, trust_region_step

SCHEMA = "trpo_fast.benchmarks/1"
KINDS = ("cg", "fisher", "update", "rollout")
DTYPES = ("float32", "float64")
# Below this share of a core, wall-clock times of long calls are stretched and those of short ones are not.
QUIET = 0.95

CHEETAH = (17, 64, 64, 6)  # HalfCheetah-v5 with the layers that everybody takes
HUMANOID = (376, 256, 256, 17)  # Humanoid-v4
WIDTHS = (CHEETAH, (17, 16, 16, 6), (17, 256, 256, 6), (17, 512, 512, 6), HUMANOID)
BATCHES = (2_048, 8_192, 50_000)

Vector = NDArray[Any]


class WrongAnswer(AssertionError):
    """What was to be timed computes something else."""


@dataclass(frozen=True)
class PolicyProblem:
    """One batch of a Gaussian tanh policy with a critic of the same hidden layers, synthetic, of the sizes of training.

    Attributes
    ----------
    widths : tuple of int
        Of the policy: observations D, hidden layers, action dimensions A.
    batch : int
        B.
    dtype : {"float32", "float64"}
        Of every array below.
    """

    widths: tuple[int, ...] = CHEETAH
    batch: int = 2_048
    dtype: str = "float32"

    def _draw(self, seed: int, *shape: int) -> Vector:
        return np.random.default_rng(seed).standard_normal(shape).astype(self.dtype)

    def _layers(self, widths: Sequence[int], seed: int) -> list[tuple[Vector, Vector]]:
        rng = np.random.default_rng(seed)
        layers = []
        for inputs, outputs in pairwise(widths):
            weight, bias = rng.standard_normal((outputs, inputs)) / np.sqrt(inputs), 0.1 * rng.standard_normal(outputs)
            layers.append((weight.astype(self.dtype), bias.astype(self.dtype)))
        return layers

    @cached_property
    def layers(self) -> list[tuple[Vector, Vector]]:
        """Weights (out, in) and biases (out,) of the policy."""
        return self._layers(self.widths, 1)

    @cached_property
    def critic_layers(self) -> list[tuple[Vector, Vector]]:
        """As `layers`, with one output."""
        return self._layers((*self.widths[:-1], 1), 2)

    @cached_property
    def log_std(self) -> Vector:
        """(A,)."""
        return np.linspace(-0.8, -0.2, self.widths[-1]).astype(self.dtype)

    @cached_property
    def parameters(self) -> Vector:
        """theta_old, (n,): ``log_std W1 b1 W2 b2 ...``."""
        return np.concatenate([self.log_std, flatten(self.layers)])

    @cached_property
    def observations(self) -> Vector:
        """(B, D), normalized."""
        return self._draw(3, self.batch, self.widths[0])

    @cached_property
    def actions(self) -> Vector:
        """(B, A), drawn from the policy."""
        mean = forward(self.layers, self.observations)[-1]
        return mean + np.exp(self.log_std) * self._draw(4, self.batch, self.widths[-1])

    @cached_property
    def advantages(self) -> Vector:
        """(B,), mean 0 and standard deviation 1: some actions in some states are better."""
        raw = self.actions[:, 0] * self.observations[:, 3] + self._draw(6, self.batch)
        return ((raw - raw.mean()) / (raw.std() or 1)).astype(self.dtype)  # a single row deviates by nothing

    @cached_property
    def returns(self) -> Vector:
        """(B,): a function of the observation that a critic can learn, and noise."""
        x = self.observations
        return (np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * self._draw(5, self.batch)).astype(self.dtype)

    @cached_property
    def direction(self) -> Vector:
        """A vector to multiply, (n,)."""
        return self._draw(8, self.size)

    @property
    def size(self) -> int:
        """n, the number of the policy's parameters."""
        return self.widths[-1] + sum(outputs * (inputs + 1) for inputs, outputs in pairwise(self.widths))

    @property
    def weights(self) -> int:
        """P: parameters that are multiplied with."""
        return sum(inputs * outputs for inputs, outputs in pairwise(self.widths))

    @property
    def fisher_flops(self) -> int:
        """Operations of one Fisher product."""
        return self.batch * (8 * self.weights - 4 * self.widths[0] * self.widths[1])

    @property
    def fisher_bytes(self) -> int:
        """Bytes that one Fisher product has to move at least."""
        return np.dtype(self.dtype).itemsize * (self.batch * sum(self.widths[:-1]) + 3 * self.size)

    @property
    def name(self) -> str:
        """As in "17-64-64-6"."""
        return "-".join(map(str, self.widths))


# ---- the answers, in float64 ----


def flatten(layers: Any) -> Vector:
    """``W1 b1 W2 b2 ...`` of arrays, (n,)."""
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def forward(layers: Any, observations: Vector) -> list[Vector]:
    """Inputs, hidden activations and output of a tanh network, in the precision of its arguments."""
    values = [observations]
    for i, (weight, bias) in enumerate(layers):
        z = values[-1] @ weight.T + bias
        values.append(np.tanh(z) if i < len(layers) - 1 else z)
    return values


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
        """(improvement, KL(new || old)) of trial parameters."""
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
    """x after so many iterations of conjugate gradient from zero, every residual kept orthogonal to all before."""
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


def _require(error: float, tolerance: float, what: str) -> float:
    if not error <= tolerance:  # a NaN is wrong, too
        raise WrongAnswer(f"{what}: off by {error:.1e}, wanted at most {tolerance:.0e}; a wrong answer has no time")
    return error


# ---- what is timed ----


@dataclass(frozen=True)
class Case:
    """One thing to time.

    `make`, called under the number of threads in question, returns what is timed; that returns its answer. `check`
    takes the answer and returns its error, or raises WrongAnswer.
    """

    kind: str
    name: str
    size: int  # n
    batch: int
    dtype: str
    make: Callable[[], Callable[[], Any]]
    check: Callable[[Any], float]
    unit: str  # of what `count` in one call counts
    count: int
    flops: float  # of one call
    bytes: float
    threaded: bool = True  # whether more threads can make it faster


def _kernel(problem: PolicyProblem) -> PolicyKernel:
    kernel = PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype)
    kernel.bind(problem.parameters, problem.observations, problem.actions, problem.advantages)
    return kernel


def _fisher_case(problem: PolicyProblem) -> Case:
    def make() -> Callable[[], Vector]:
        operator = _kernel(problem).fisher_operator()
        out = np.empty_like(problem.direction)
        return lambda: operator.matvec(problem.direction, out)

    exact = ExactPolicy(problem).fisher_product(problem.direction)
    tolerance = 1e-5 if problem.dtype == "float32" else 1e-12

    return Case(
        kind="fisher",
        name=f"F v {problem.name}",
        size=problem.size,
        batch=problem.batch,
        dtype=problem.dtype,
        make=make,
        check=lambda answer: _require(relative_error(answer, exact), tolerance, f"fisher {problem.name}"),
        unit="product",
        count=1,
        flops=problem.fisher_flops,
        bytes=problem.fisher_bytes,
    )


def _vector_work(n: int, iterations: int, damping: bool, reorthogonalize: bool) -> tuple[int, int]:
    """(operations, items moved) of CG besides its products."""
    k = iterations * (iterations + 1) // 2 if reorthogonalize else 0
    return n * (iterations * (12 if damping else 10) + 4 * k), n * (iterations * (14 if damping else 11) + 5 * k)


def _fisher_cg_case(problem: PolicyProblem, iterations: int = 10, damping: float = 0.1) -> Case:
    """As a trust-region step solves: damped, reorthogonalized."""
    policy = ExactPolicy(problem)
    gradient = policy.gradient()
    b = gradient.astype(problem.dtype)

    def make() -> Callable[[], Vector]:
        operator = _kernel(problem).fisher_operator()
        return lambda: (
            conjugate_gradient(operator, b, max_iter=iterations, rtol=0.0, damping=damping, reorthogonalize=True).x
        )

    exact = exact_solution(policy.fisher_product, gradient, iterations, damping)
    tolerance = 1e-4 if problem.dtype == "float32" else 1e-9
    flops, items = _vector_work(problem.size, iterations, damping=True, reorthogonalize=True)
    return Case(
        kind="cg",
        name=f"CG on F {problem.name}",
        size=problem.size,
        batch=problem.batch,
        dtype=problem.dtype,
        make=make,
        check=lambda answer: _require(relative_error(answer, exact), tolerance, f"cg {problem.name}"),
        unit="iteration",
        count=iterations,
        flops=flops + iterations * problem.fisher_flops,
        bytes=items * np.dtype(problem.dtype).itemsize + iterations * problem.fisher_bytes,
    )


def _diagonal_cg_case(size: int, dtype: str, iterations: int = 10) -> Case:
    """The loop itself: the product is n multiplications, by numpy."""
    rng = np.random.default_rng(7)
    diagonal = rng.permutation(np.geomspace(0.1, 10.0, size)).astype(dtype)
    b = rng.standard_normal(size).astype(dtype)

    def make() -> Callable[[], Vector]:
        operator: Operator = CallableOperator(lambda v: diagonal * v, size, dtype)
        return lambda: conjugate_gradient(operator, b, max_iter=iterations, rtol=0.0).x

    exact = exact_solution(lambda v: diagonal * v, b, iterations)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    flops, items = _vector_work(size, iterations, damping=False, reorthogonalize=False)
    return Case(
        kind="cg",
        name="CG on a diagonal",
        size=size,
        batch=0,
        dtype=dtype,
        make=make,
        check=lambda answer: _require(relative_error(answer, exact), tolerance, f"cg diagonal {size}"),
        unit="iteration",
        count=iterations,
        flops=flops + iterations * size,
        bytes=(items + 3 * iterations * size) * np.dtype(dtype).itemsize,
        threaded=False,
    )


class _NumpyEngine:
    """What `trust_region_step` calls, over a bound kernel and without torch."""

    def __init__(self, problem: PolicyProblem) -> None:
        self._problem = problem
        self._kernel = PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype)
        self._theta = problem.parameters.copy()

    def bind(self) -> None:
        """At the problem's theta_old."""
        problem = self._problem
        self._theta[:] = problem.parameters
        self._kernel.bind(self._theta, problem.observations, problem.actions, problem.advantages)

    def parameters(self) -> Vector:
        return self._theta

    def parameters_changed(self) -> None:
        pass

    def surrogate_gradient(self) -> Vector:
        return self._kernel.surrogate_gradient()

    def fisher_operator(self) -> Operator:
        return self._kernel.fisher_operator()

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        return self._kernel.evaluate(self._theta, kl_direction)


def _step_case(problem: PolicyProblem, iterations: int = 10, max_kl: float = 0.02, damping: float = 0.1) -> Case:
    """Bind, gradient, solve and line search."""

    def make() -> Callable[[], Any]:
        engine = _NumpyEngine(problem)

        def step() -> Any:
            engine.bind()
            report = trust_region_step(
                engine,  # type: ignore[arg-type]
                max_kl=max_kl,
                damping=damping,
                cg_iterations=iterations,
                cg_rtol=0.0,
            )
            return report, engine.parameters()

        return step

    policy = ExactPolicy(problem)
    x = exact_solution(policy.fisher_product, policy.gradient(), iterations, damping)
    beta = np.sqrt(2 * max_kl / (x @ policy.fisher_product(x)))

    def check(answer: Any) -> float:
        report, theta = answer
        if report.status != Status.SUCCESS:
            raise WrongAnswer(f"update {problem.name}: the step ended with {report.status.name}")
        step = report.step_fraction * beta * x
        error = relative_error(theta.astype(np.float64) - problem.parameters, step)
        improvement, kl = policy.evaluate(theta)
        if not (improvement > 0 and kl <= max_kl * (1 + 1e-4)):
            raise WrongAnswer(f"update {problem.name}: improvement {improvement}, KL {kl} over {max_kl}")
        return _require(error, 1e-3 if problem.dtype == "float32" else 1e-9, f"update {problem.name}")

    flops, items = _vector_work(problem.size, iterations, damping=True, reorthogonalize=True)
    passes = problem.batch * (2 + 4 + 2) * problem.weights  # bind, gradient, and the least that a line search tries
    return Case(
        kind="update",
        name=f"policy step {problem.name}",
        size=problem.size,
        batch=problem.batch,
        dtype=problem.dtype,
        make=make,
        check=check,
        unit="step",
        count=1,
        flops=flops + iterations * problem.fisher_flops + passes,
        bytes=items * np.dtype(problem.dtype).itemsize + (iterations + 3) * problem.fisher_bytes,
    )


def _fit_case(problem: PolicyProblem, epochs: int = 2, minibatch: int = 128, learning_rate: float = 1e-3) -> Case:
    """Minibatch Adam on the critic, from the same start every time."""
    widths = (*problem.widths[:-1], 1)
    start = flatten(problem.critic_layers)
    options: dict[str, Any] = {"batch_size": minibatch, "learning_rate": learning_rate, "seed": 0, "stream": 1}

    def make() -> Callable[[], Vector]:
        kernel = ValueKernel(widths, "tanh", problem.dtype)
        theta, m, v = (np.empty_like(start) for _ in range(3))

        def fit() -> Vector:
            theta[:], m[:], v[:] = start, 0, 0
            kernel.fit(
                theta, m, v, problem.observations, problem.returns, adam_step=0, epochs=epochs, first_epoch=0, **options
            )
            return theta

        return fit

    def check(answer: Vector) -> float:
        exact = _exact_fit(problem, epochs, minibatch, learning_rate)
        error = relative_error(answer - start, exact - start)
        return _require(error, 1e-2 if problem.dtype == "float32" else 1e-8, f"update {problem.name}: critic")

    weights = problem.weights - problem.widths[-2] * (problem.widths[-1] - 1)
    first = problem.widths[0] * problem.widths[1]
    steps = epochs * -(-problem.batch // minibatch)
    item = np.dtype(problem.dtype).itemsize
    return Case(
        kind="update",
        name=f"critic fit {'-'.join(map(str, widths))}",
        size=start.size,
        batch=problem.batch,
        dtype=problem.dtype,
        make=make,
        check=check,
        unit="minibatch",
        count=steps,
        flops=epochs * problem.batch * (6 * weights - 2 * first) + 12 * steps * start.size,
        bytes=item * (epochs * problem.batch * sum(problem.widths[:-1]) + 9 * steps * start.size),
        threaded=False,
    )


def _exact_fit(problem: PolicyProblem, epochs: int, minibatch: int, learning_rate: float) -> Vector:
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


def _act_case(problem: PolicyProblem) -> Case:
    """One call per environment step: normalize, forward, sample, log-probability, clip."""
    rows, inputs, outputs = problem.batch, problem.widths[0], problem.widths[-1]
    mean, scale = np.linspace(-0.1, 0.1, inputs), np.linspace(0.9, 1.1, inputs)

    def make() -> Callable[[], Any]:
        actor = Actor(
            PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype),
            problem.parameters,
            observation_mean=mean,
            observation_scale=scale,
            action_low=np.full(outputs, -1.0),
            action_high=np.full(outputs, 1.0),
        )
        out = [np.empty((rows, width), problem.dtype) for width in (inputs, outputs, outputs)]
        normalized, actions, env_actions = out
        log_probs = np.empty(rows, problem.dtype)

        def act() -> Any:
            actor.act(problem.observations, 7, normalized, actions, log_probs, env_actions)
            return actions, log_probs, env_actions

        return act

    def check(answer: Any) -> float:
        actions, log_probs, env_actions = answer
        observations = (problem.observations.astype(np.float64) - mean) * scale
        layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in problem.layers]
        z = (actions - forward(layers, observations)[-1]) / np.exp(problem.log_std.astype(np.float64))
        exact = -(0.5 * z**2 + problem.log_std + 0.5 * np.log(2 * np.pi)).sum(1)
        if not (np.array_equal(env_actions, actions.clip(-1, 1)) and np.abs(z).max() < 8):
            raise WrongAnswer(f"rollout {problem.name}: the actions are not clipped draws from the policy")
        return _require(relative_error(log_probs, exact), 1e-5 if problem.dtype == "float32" else 1e-12, "rollout act")

    item = np.dtype(problem.dtype).itemsize
    return Case(
        kind="rollout",
        name=f"act {problem.name}",
        size=problem.size,
        batch=rows,
        dtype=problem.dtype,
        make=make,
        check=check,
        unit="step",
        count=rows,
        flops=2 * rows * problem.weights,
        bytes=item * (problem.size + rows * (2 * inputs + 2 * outputs + 1)),
        threaded=False,
    )


def _values_case(problem: PolicyProblem) -> Case:
    """The critic's values of a whole rollout in one call."""
    widths = (*problem.widths[:-1], 1)

    def make() -> Callable[[], Vector]:
        kernel, theta = ValueKernel(widths, "tanh", problem.dtype), flatten(problem.critic_layers)
        out = np.empty(problem.batch, problem.dtype)
        return lambda: kernel.values(theta, problem.observations, out)

    def check(answer: Vector) -> float:
        layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in problem.critic_layers]
        exact = forward(layers, problem.observations.astype(np.float64))[-1][:, 0]
        return _require(relative_error(answer, exact), 1e-5 if problem.dtype == "float32" else 1e-12, "rollout values")

    weights = problem.weights - problem.widths[-2] * (problem.widths[-1] - 1)
    item = np.dtype(problem.dtype).itemsize
    return Case(
        kind="rollout",
        name=f"values {'-'.join(map(str, widths))}",
        size=flatten(problem.critic_layers).size,
        batch=problem.batch,
        dtype=problem.dtype,
        make=make,
        check=check,
        unit="step",
        count=problem.batch,
        flops=2 * problem.batch * weights,
        bytes=item * (problem.batch * (problem.widths[0] + 1) + weights),
    )


def cases(kind: str, dtypes: Sequence[str] = DTYPES, quick: bool = False) -> Iterator[Case]:
    """The cases of one of KINDS, made one by one: the large ones take hundreds of megabytes."""
    for dtype in dtypes:
        if kind == "cg":
            for size in (5_708,) if quick else (1_000, 5_708, 100_000, 1_000_000):
                yield _diagonal_cg_case(size, dtype)
            # The oracle's ten products in float64 take the time here.
            grid = [(CHEETAH, 2_048)] if quick else [(w, b) for w in WIDTHS for b in BATCHES if b * max(w) <= 4e6]
            yield from (_fisher_cg_case(PolicyProblem(widths, batch, dtype)) for widths, batch in grid)
        elif kind == "fisher":
            grid = [(CHEETAH, 2_048)] if quick else [(w, b) for w in WIDTHS for b in BATCHES]
            yield from (_fisher_case(PolicyProblem(widths, batch, dtype)) for widths, batch in grid)
        elif kind == "update":
            yield _step_case(PolicyProblem(CHEETAH, 2_048, dtype))
            yield _fit_case(PolicyProblem(CHEETAH, 2_048, dtype))
        elif kind == "rollout":
            yield from (_act_case(PolicyProblem(CHEETAH, rows, dtype)) for rows in ((8,) if quick else (1, 8, 64)))
            yield _values_case(PolicyProblem(CHEETAH, 2_048, dtype))
        else:
            raise ValueError(f"kind: wanted one of {', '.join(KINDS)}, got {kind!r}")


# ---- timing ----


class Timing(NamedTuple):
    """Of one function called repeatedly."""

    seconds: float  # median, wall clock
    cpu_share: float  # CPU time of this thread / wall clock: 1 on a quiet machine


def timed(function: Callable[[], object], repeats: int) -> Timing:
    """Median wall-clock time, and this thread's share of a core over all repeats."""
    seconds = []
    cpu = time.thread_time()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), (time.thread_time() - cpu) / sum(seconds))


class Peak(NamedTuple):
    """One measurement of the multiply-add limit."""

    gflops: float
    cpu_share: float  # of all its threads


def measure_peak(dtype: str, rounds: int = 500_000) -> Peak:
    """The multiply-add limit of the instruction set in use on the threads in use, once; about two milliseconds."""
    cpu, start = time.process_time(), time.perf_counter()
    operations = library.multiply_adds(dtype, rounds)
    seconds = time.perf_counter() - start
    return Peak(operations / seconds / 1e9, (time.process_time() - cpu) / seconds / library.get_num_threads())


def measure_bandwidth(threads: int, repeats: int = 7, items: int = 8_000_000) -> float:
    """GB/s of ``c = a + b`` on arrays that no cache holds (64 MB each), counting the three of them; median."""
    a, b, c = (np.full(items, value) for value in (1.0, 2.0, 0.0))
    parts = [slice(i * items // threads, (i + 1) * items // threads) for i in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            list(pool.map(lambda part: np.add(a[part], b[part], out=c[part]), parts))
            seconds.append(time.perf_counter() - start)
    return 3 * a.nbytes / statistics.median(seconds[1:]) / 1e9  # the first touches the pages


@dataclass(frozen=True)
class Figure:
    """One case on one number of threads; a case of unit "iteration" with rate 100 does 100 iterations a second."""

    kind: str
    name: str
    size: int
    """n, the number of parameters."""
    batch: int
    """B; 0 where there is none."""
    dtype: str
    threads: int
    seconds: float
    """Of one call: median over the rounds of the mean of the calls in a round."""
    unit: str
    rate: float
    """Units a second."""
    gflops: float
    peak_gflops: float
    """The multiply-add limit on as many threads, median of the same rounds."""
    fraction_of_peak: float
    bytes: int
    """Of one call, by the model in this module's documentation."""
    gbytes_per_second: float
    error: float
    """Relative to float64 NumPy."""
    cpu_share: float
    """Share of its cores that the process got while this was measured."""

    @property
    def quiet(self) -> bool:
        """Whether the machine was ours, so that the figure means something."""
        return self.cpu_share >= QUIET


@dataclass(frozen=True)
class Limit:
    """What one number of threads can do at most."""

    threads: int
    dtype: str
    gflops: float
    gbytes_per_second: float
    cpu_share: float


@dataclass
class Report:
    """All that a run found."""

    machine: dict[str, Any]
    limits: list[Limit] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what the fields mean stands at `Figure` and `Limit`."""
        figures = [asdict(figure) | {"quiet": figure.quiet} for figure in self.figures]
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "limits": [asdict(x) for x in self.limits],
            "figures": figures,
        }


class _Variant(NamedTuple):
    """A case on one number of threads, and what its rounds gave."""

    threads: int
    work: Callable[[], Any]
    error: float
    calls: int  # a round
    seconds: list[float]
    peaks: list[Peak]
    shares: list[float]


def measure(case: Case, threads: Sequence[int], rounds: int = 9, round_seconds: float = 0.02) -> list[Figure]:
    """Figures of one case, one for each number of threads, from alternating rounds.

    Raises WrongAnswer before anything is timed. The number of threads in use is afterwards what it was.
    """
    before = library.get_num_threads()
    try:
        variants = [_prepared(case, count, round_seconds) for count in (threads if case.threaded else threads[:1])]
        for _ in range(rounds):
            for variant in variants:
                _one_round(case, variant)
    finally:
        library.set_num_threads(before)
    return [_figure(case, variant) for variant in variants]


def _prepared(case: Case, threads: int, round_seconds: float) -> _Variant:
    library.set_num_threads(threads)
    work = case.make()
    error = case.check(work())
    start = time.perf_counter()
    work()
    calls = max(1, round(round_seconds / (time.perf_counter() - start)))
    return _Variant(threads, work, error, calls, [], [], [])


def _one_round(case: Case, variant: _Variant) -> None:
    library.set_num_threads(variant.threads)
    variant.peaks.append(measure_peak(case.dtype))
    cpu, start = time.thread_time(), time.perf_counter()
    for _ in range(variant.calls):
        variant.work()
    seconds = time.perf_counter() - start
    variant.seconds.append(seconds / variant.calls)
    variant.shares.append((time.thread_time() - cpu) / seconds)


def _figure(case: Case, variant: _Variant) -> Figure:
    seconds = statistics.median(variant.seconds)
    peak = statistics.median(peak.gflops for peak in variant.peaks)
    # On several threads this one sleeps while the last of the others ends; the peak's threads all end together.
    own = statistics.median(variant.shares) if variant.threads == 1 else 1.0
    gflops = case.flops / seconds / 1e9
    return Figure(
        kind=case.kind,
        name=case.name,
        size=case.size,
        batch=case.batch,
        dtype=case.dtype,
        threads=variant.threads,
        seconds=seconds,
        unit=case.unit,
        rate=case.count / seconds,
        gflops=gflops,
        peak_gflops=peak,
        fraction_of_peak=gflops / peak,
        bytes=round(case.bytes),
        gbytes_per_second=case.bytes / seconds / 1e9,
        error=variant.error,
        cpu_share=min(own, statistics.median(peak.cpu_share for peak in variant.peaks)),
    )


def run(
    kind: str = "all",
    *,
    threads: Sequence[int] | None = None,
    dtypes: Sequence[str] = DTYPES,
    quick: bool = False,
    progress: Callable[[Limit | Figure], object] | None = None,
) -> Report:
    """Measure the cases of `kind` on this machine.

    Parameters
    ----------
    kind : {"all", "cg", "fisher", "update", "rollout"}
        "cg": iterations of conjugate gradient, on a diagonal and on Fisher matrices; "fisher": single Fisher products;
        "update": a whole policy step, and the critic's fit; "rollout": acting and values, without any simulator.
    threads : sequence of int, optional
        Numbers of threads to measure on; by default 1 and all that are in use.
    dtypes : sequence of {"float32", "float64"}
    quick : bool
        A few small cases in shorter rounds: whether it works, rather than how fast.
    progress : callable, optional
        Gets every `Limit` and `Figure` as soon as it is known.

    Raises
    ------
    WrongAnswer
        An answer is not what float64 NumPy says.
    """
    if kind not in (*KINDS, "all"):
        raise ValueError(f"kind: wanted all or one of {', '.join(KINDS)}, got {kind!r}")
    if unknown := set(dtypes) - set(DTYPES):
        raise ValueError(f"dtypes: wanted some of {', '.join(DTYPES)}, got {', '.join(sorted(map(str, unknown)))}")
    counts = sorted({1, library.get_num_threads()} if threads is None else set(threads))
    report = Report(machine())

    def add(known: list[Any], one: Limit | Figure) -> None:
        known.append(one)
        if progress is not None:
            progress(one)

    for limit in _limits(counts, dtypes, quick):
        add(report.limits, limit)
    for one in KINDS if kind == "all" else (kind,):
        for case in cases(one, dtypes, quick):
            for figure in measure(case, counts, rounds=7 if quick else 9, round_seconds=0.002 if quick else 0.02):
                add(report.figures, figure)
    return report


def _limits(counts: Sequence[int], dtypes: Sequence[str], quick: bool) -> Iterator[Limit]:
    before = library.get_num_threads()
    try:
        for count in counts:
            library.set_num_threads(count)
            bandwidth = measure_bandwidth(count, items=1_000_000 if quick else 8_000_000)
            for dtype in dtypes:
                peaks = [measure_peak(dtype) for _ in range(9)]
                gflops, share = (statistics.median(column) for column in zip(*peaks, strict=True))
                yield Limit(count, dtype, gflops, bandwidth, share)
    finally:
        library.set_num_threads(before)


# ---- what stands beside every figure ----

PACKAGES = ("trpo-fast", "numpy")


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Machine and versions, JSON-able."""
    return {
        "cpu": _cpu_model(),
        "processors": os.cpu_count(),
        "threads": library.get_num_threads(),
        "instruction_set": library.instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---- for people ----

_COLUMNS = (
    ("case", -26), ("n", 9), ("B", 6), ("dtype", 7), ("threads", 7), ("time", 9), ("rate", 17), ("GFLOP/s", 8),
    ("of peak", 7), ("GB/s", 6), ("error", 7), ("", -4),
)  # fmt: skip


def _row(texts: Sequence[str]) -> str:
    cells = (
        f"{text:<{-width}}" if width < 0 else f"{text:>{width}}"
        for text, (_, width) in zip(texts, _COLUMNS, strict=True)
    )
    return "  ".join(cells).rstrip()


def header() -> str:
    """Of the table whose lines `line` makes."""
    return _row([name for name, _ in _COLUMNS])


def line(figure: Figure | Limit) -> str:
    """One figure as a line of an aligned table, a limit as its caption."""
    if isinstance(figure, Limit):
        threads = f"{figure.threads} thread{'s' if figure.threads > 1 else ''}"
        busy = "" if figure.cpu_share >= QUIET else "  BUSY"
        return (
            f"limit on {threads}, {figure.dtype}: {figure.gflops:.1f} GFLOP/s of multiply-adds, "
            f"{figure.gbytes_per_second:.1f} GB/s of c = a + b{busy}"
        )
    rate = f"{figure.rate:,.0f}" if figure.rate >= 100 else f"{figure.rate:.1f}"
    short = {"iteration": "it/s", "product": "/s", "step": "steps/s", "minibatch": "batches/s"}[figure.unit]
    return _row(
        [
            figure.name,
            f"{figure.size:,}",
            f"{figure.batch:,}" if figure.batch else "-",
            figure.dtype,
            str(figure.threads),
            duration(figure.seconds),
            f"{rate} {short}",
            f"{figure.gflops:.1f}",
            f"{figure.fraction_of_peak:.0%}",
            f"{figure.gbytes_per_second:.1f}",
            f"{figure.error:.0e}",
            "" if figure.quiet else "BUSY",
        ]
    )


def duration(seconds: float) -> str:
    """As in "1.23 ms"."""
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3)) if seconds * s >= 1), ("us", 1e6))
    return f"{seconds * scale:.3g} {unit}"
