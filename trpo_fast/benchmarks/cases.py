"""What is timed, with its check and its operations and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.acting import Actor
from .._core.critic import ValueKernel
from .._core.library import in_words
from .._core.operator import CallableOperator, Operator
from .._core.policy import PolicyKernel
from ..solvers import Status, conjugate_gradient, trust_region_step
from .oracle import ExactPolicy, WrongAnswer, exact_fit, exact_solution, relative_error, require
from .problems import BATCHES, CHEETAH, DTYPES, WIDTHS, PolicyProblem, Vector, flatten, forward

KINDS = ("cg", "fisher", "update", "rollout")


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
        check=lambda answer: require(relative_error(answer, exact), tolerance, f"fisher {problem.name}"),
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
        check=lambda answer: require(relative_error(answer, exact), tolerance, f"cg {problem.name}"),
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
        check=lambda answer: require(relative_error(answer, exact), tolerance, f"cg diagonal {size}"),
        unit="iteration",
        count=iterations,
        flops=flops + iterations * size,
        bytes=(items + 3 * iterations * size) * np.dtype(dtype).itemsize,
        threaded=False,
    )


class NumpyEngine:
    """What `trust_region_step` calls, over a bound kernel and without torch."""

    def __init__(self, problem: PolicyProblem) -> None:
        self._problem = problem
        self._kernel = PolicyKernel(problem.widths, "tanh", problem.distribution, problem.dtype)
        self._theta = problem.parameters.copy()

    def bind(self) -> None:
        """At the problem's theta_old."""
        problem = self._problem
        self._theta[:] = problem.parameters
        self._kernel.bind(
            self._theta, problem.observations, problem.actions, problem.advantages, action_masks=problem.masks
        )

    def parameters(self) -> Vector:
        """The trial parameters, which may be written to."""
        return self._theta

    def parameters_changed(self) -> None:
        """Nothing is cached of them."""

    def surrogate_gradient(self) -> Vector:
        """g at theta_old."""
        return self._kernel.surrogate_gradient()

    def fisher_operator(self) -> Operator:
        """F at theta_old."""
        return self._kernel.fisher_operator()

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """Improvement and KL of the trial parameters."""
        return self._kernel.evaluate(self._theta, kl_direction)


def _step_case(problem: PolicyProblem, iterations: int = 10, max_kl: float = 0.02, damping: float = 0.1) -> Case:
    """Bind, gradient, solve and line search."""

    def make() -> Callable[[], Any]:
        engine = NumpyEngine(problem)

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
        return require(error, 1e-3 if problem.dtype == "float32" else 1e-9, f"update {problem.name}")

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
        exact = exact_fit(problem, epochs, minibatch, learning_rate)
        error = relative_error(answer - start, exact - start)
        return require(error, 1e-2 if problem.dtype == "float32" else 1e-8, f"update {problem.name}: critic")

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
        return require(relative_error(log_probs, exact), 1e-5 if problem.dtype == "float32" else 1e-12, "rollout act")

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
        return require(relative_error(answer, exact), 1e-5 if problem.dtype == "float32" else 1e-12, "rollout values")

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


def make_cases(kind: str, dtypes: Sequence[str] = DTYPES, quick: bool = False) -> Iterator[Case]:
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
            raise ValueError(f"kind: {in_words(kind)} given; want one of {', '.join(KINDS)}")
