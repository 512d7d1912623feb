"""Whether the installed package computes what it should on this machine: ``python -m trpo_fast.selftest``.

Compiled answers beside float64 NumPy, in both precisions and for every instruction set that this CPU runs, each in a
process of its own. Needs numpy and safetensors alone and takes seconds. Exit code 0 says that all agree, 1 that not.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import model_file
from ._core import library, rollout
from ._core.acting import Actor
from ._core.critic import ValueKernel
from ._core.policy import PolicyKernel
from ._core.preconditioner import KroneckerPreconditioner
from ._core.recurrent import Cell
from .benchmarks.machine import describe_machine
from .benchmarks.oracle import ExactPolicy, exact_fit, relative_error
from .benchmarks.problems import DTYPES, PolicyProblem, Vector, flatten, forward
from .solvers import backtracking_line_search, conjugate_gradient

ROWS = 500  # several tiles of samples, the last one not full


class Check(NamedTuple):
    """One promise.

    `error` computes how far the compiled answer is off; `float32` and `float64` are what it may be, 0 for bits.
    """

    name: str
    error: Callable[[PolicyProblem], float]
    float32: float
    float64: float


def _bound(problem: PolicyProblem, log_probs: Vector | None = None) -> PolicyKernel:
    kernel = PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype)
    kernel.bind(problem.parameters, problem.observations, problem.actions, problem.advantages, log_probs)
    return kernel


def _worst(errors: Iterable[float]) -> float:
    """NaN where one is, which Python's max may pass over."""
    return float(np.max(list(errors)))


def _exact_outputs(problem: PolicyProblem) -> Vector:
    layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in problem.layers]
    return forward(layers, problem.observations.astype(np.float64))[-1]


def _activations(problem: PolicyProblem) -> float:
    x = np.linspace(-8, 8, 1_001, dtype=problem.dtype)
    z = x.astype(np.float64)
    exact = {
        "tanh": np.tanh(z),
        "relu": np.maximum(z, 0),
        "elu": np.where(z > 0, z, np.expm1(z)),
        "leaky_relu": np.where(z > 0, z, 0.01 * z),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "silu": z / (1 + np.exp(-z)),
        "gelu": z * np.array([math.erfc(-value) / 2 for value in z / math.sqrt(2)]),
        "softplus": np.logaddexp(0, z),
    }
    return _worst(relative_error(library.elementary(name, x), y) for name, y in exact.items())


def _forward(problem: PolicyProblem) -> float:
    kernel = PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype)
    return relative_error(kernel.forward(problem.parameters, problem.observations), _exact_outputs(problem))


def _log_probs(problem: PolicyProblem) -> float:
    log_std = problem.log_std.astype(np.float64)
    z = (problem.actions - _exact_outputs(problem)) / np.exp(log_std)
    exact = -(0.5 * z**2 + log_std + 0.5 * np.log(2 * np.pi)).sum(1)
    return relative_error(_bound(problem).log_probs(), exact)


def _acting(problem: PolicyProblem) -> float:
    """Rows whose ratio is not exactly 1, for the log-probabilities that acting wrote."""
    kernel = PolicyKernel(problem.widths, "tanh", "gaussian", problem.dtype)
    normalized, actions, env_actions = (np.empty((ROWS, width), problem.dtype) for width in (17, 6, 6))
    log_probs = np.empty(ROWS, problem.dtype)
    actor = Actor(kernel, problem.parameters)
    actor.act(problem.observations, 0, normalized, actions, log_probs, env_actions)
    kernel.bind(problem.parameters, normalized, actions, problem.advantages, log_probs)
    return float(np.count_nonzero(kernel.ratios() != 1))


def _gradient(problem: PolicyProblem) -> float:
    return relative_error(_bound(problem).surrogate_gradient(), ExactPolicy(problem).gradient())


def _fisher_product(problem: PolicyProblem) -> float:
    exact = ExactPolicy(problem).fisher_product(problem.direction)
    return relative_error(_bound(problem).fisher_operator().matvec(problem.direction), exact)


def _improvement_and_kl(problem: PolicyProblem) -> float:
    trial = problem.parameters + np.asarray(0.01, problem.dtype) * problem.direction
    found, exact = _bound(problem).evaluate(trial), ExactPolicy(problem).evaluate(trial)
    return _worst(abs(ours / theirs - 1) for ours, theirs in zip(found, exact, strict=True))


def _conjugate_gradient(problem: PolicyProblem) -> float:
    rng = np.random.default_rng(1)
    factor = rng.standard_normal((60, 60)) / np.sqrt(60)
    A = (factor @ factor.T + np.eye(60)).astype(problem.dtype)  # condition number about 5
    b = rng.standard_normal(60).astype(problem.dtype)
    exact = np.linalg.solve(A.astype(np.float64), b.astype(np.float64))
    return relative_error(conjugate_gradient(A, b, max_iter=60, rtol=0.0).x, exact)


def _preconditioner(problem: PolicyProblem) -> float:
    """One layer: ``G^-1 [W b] A^-1``."""
    rng = np.random.default_rng(2)
    A, G = (np.cov(rng.standard_normal((side, 400))).astype(problem.dtype) for side in (18, 64))
    v = rng.standard_normal(64 * 18).astype(problem.dtype)
    both = np.column_stack([v[: 64 * 17].reshape(64, 17), v[64 * 17 :]]).astype(np.float64)
    answer = np.linalg.solve(G.astype(np.float64), np.linalg.solve(A.astype(np.float64), both.T).T)
    exact = np.concatenate([answer[:, :17].ravel(), answer[:, 17]])
    M = KroneckerPreconditioner([(A, G, 0, 64 * 17)], v.size, problem.dtype, damping=0.0)
    return relative_error(M.matvec(v), exact)


def _recurrent_cells(problem: PolicyProblem) -> float:
    """Some steps of a GRU and of an LSTM."""
    rng, sequences, units = np.random.default_rng(3), 5, 16
    errors = []
    for kind, gates in (("gru", 3), ("lstm", 4)):
        weight = (rng.standard_normal((gates * units, units)) / 4).astype(problem.dtype)
        inputs = rng.standard_normal((4 * sequences, gates * units)).astype(problem.dtype)
        bias, starts = inputs[0].copy(), np.zeros(len(inputs), np.bool_)
        cell = Cell(kind, units, problem.dtype)
        first = np.zeros((sequences, cell.state_items), problem.dtype)
        states, _ = cell.forward(weight, bias, inputs, starts, first)
        h = c = np.zeros((sequences, units))
        exact = []
        for x in inputs.astype(np.float64).reshape(4, sequences, gates, units).transpose(0, 2, 1, 3):
            u = (h @ weight.astype(np.float64).T + bias).reshape(sequences, gates, units).transpose(1, 0, 2)
            gate = 1 / (1 + np.exp(-x - u))
            if kind == "gru":
                h = (1 - gate[1]) * np.tanh(x[2] + gate[0] * u[2]) + gate[1] * h
            else:
                c = gate[1] * c + gate[0] * np.tanh(x[2] + u[2])
                h = gate[3] * np.tanh(c)
            exact.append(h)
        errors.append(relative_error(states[:, :units], np.concatenate(exact)))
    return _worst(errors)


def _rejected_step(problem: PolicyProblem) -> float:
    """Parameters that a rejected step did not restore to the bit."""
    theta = problem.parameters.copy()
    backtracking_line_search(lambda _: (-1.0, 0.0), theta, problem.direction, max_kl=0.01)
    return float(np.count_nonzero(theta != problem.parameters))


def _advantages(problem: PolicyProblem) -> float:
    """Of 50 steps in 10 environments; episodes are terminated and truncated on the way."""
    shape, gamma, gae_lambda = (50, 10), 0.99, 0.95
    rewards, values, following = (part.reshape(shape) for part in np.split(problem.observations[:, :3], 3, axis=1))
    rewards, values, following = (np.ascontiguousarray(part) for part in (rewards, values, following))
    terminated, truncated = (problem.actions[:, i].reshape(shape) > 1 for i in (0, 1))
    found, returns = np.empty_like(rewards), np.empty_like(rewards)
    rollout.generalized_advantages(
        rewards, values, following, terminated, truncated, found, returns, gamma=gamma, gae_lambda=gae_lambda
    )
    exact, carry = np.empty(shape), np.zeros(shape[1])
    for t in reversed(range(shape[0])):
        delta = rewards[t] + gamma * following[t].astype(np.float64) * ~terminated[t] - values[t]
        exact[t] = carry = delta + gamma * gae_lambda * ~(terminated[t] | truncated[t]) * carry
    return _worst([relative_error(found, exact), relative_error(returns, exact + values)])


def _critic_fit(problem: PolicyProblem) -> float:
    """Adam on minibatches; the error is that of the way gone."""
    start = flatten(problem.critic_layers)
    theta, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    kernel = ValueKernel((*problem.widths[:-1], 1), "tanh", problem.dtype)
    kernel.fit(
        theta,
        m,
        v,
        problem.observations,
        problem.returns,
        adam_step=0,
        epochs=2,
        batch_size=128,
        learning_rate=1e-3,
        seed=0,
        stream=1,
        first_epoch=0,
    )
    exact = exact_fit(problem, epochs=2, minibatch=128, learning_rate=1e-3)
    return relative_error(theta.astype(np.float64) - start, exact - start)


def _threads(problem: PolicyProblem) -> float:
    """Numbers that differ between one thread and several."""

    def everything(threads: int) -> Vector:
        library.set_num_threads(threads)
        kernel = _bound(problem)
        product = kernel.fisher_operator().matvec(problem.direction)
        return np.concatenate([kernel.surrogate_gradient(), product, kernel.evaluate(problem.direction / 100)])

    before = library.get_num_threads()
    try:
        return float(np.count_nonzero(everything(1) != everything(4)))
    finally:
        library.set_num_threads(before)


def _model_file(problem: PolicyProblem) -> float:
    """Numbers that came back from a file otherwise than they went in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "selftest.trpo"
        model_file.write(path, {"parameters": problem.parameters}, {"widths": problem.widths})
        tensors, metadata = model_file.read(path)
    if metadata != {"widths": list(problem.widths)}:
        return float("inf")
    return float(np.count_nonzero(tensors["parameters"] != problem.parameters))


CHECKS = (
    Check("activations", _activations, 3e-7, 1e-15),
    Check("forward pass", _forward, 1e-6, 1e-14),
    Check("log-probabilities", _log_probs, 1e-5, 1e-13),
    Check("ratio after acting is 1", _acting, 0, 0),
    Check("gradient", _gradient, 1e-5, 1e-12),
    Check("Fisher product", _fisher_product, 1e-5, 1e-12),
    Check("improvement and KL", _improvement_and_kl, 1e-3, 1e-10),
    Check("conjugate gradient", _conjugate_gradient, 1e-5, 1e-13),
    Check("preconditioner", _preconditioner, 1e-2, 1e-6),  # its factors are shifted by sqrt(eps)
    Check("rejected step restored", _rejected_step, 0, 0),
    Check("advantages", _advantages, 1e-5, 1e-13),
    Check("critic fit", _critic_fit, 1e-3, 1e-8),
    Check("recurrent cells", _recurrent_cells, 1e-6, 1e-14),
    Check("threads change no bit", _threads, 0, 0),
    Check("model file", _model_file, 0, 0),
)


def failures(checks: Sequence[Check]) -> Iterator[str]:
    """Run `checks` on the instruction set in use, print what each found, and yield a line for each that failed."""
    isa = library.instruction_set()
    for check in checks:
        for dtype in DTYPES:
            allowed = getattr(check, dtype)
            try:
                error = check.error(PolicyProblem(batch=ROWS, dtype=dtype))
            except Exception as problem:  # whatever it is, it is a failed check, and the others are of interest
                yield f"{isa} {dtype} {check.name}: {type(problem).__name__}: {problem}"
                continue
            print(f"{isa:<10} {dtype}  {check.name:<24} {error:.1e} (at most {allowed:.0e})", flush=True)
            if not error <= allowed:  # a NaN is wrong, too
                yield f"{isa} {dtype} {check.name}: off by {error:.1e}; want at most {allowed:.0e}"


def _run_all() -> int:
    """Every instruction set in a process of its own, as it is chosen at import; how many of them failed."""
    machine = describe_machine(measure=False)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"{versions}, Python {machine['python']}, {machine['system']}, {machine['cpu']}")
    print(f"testing {Path(__file__).parent}", flush=True)
    failed = 0
    for isa in library.available_instruction_sets():
        command = [sys.executable, "-m", "trpo_fast.selftest", "--one"]
        code = subprocess.run(command, env={**os.environ, "TRPO_FAST_ISA": isa}, check=False).returncode
        if code < 0:
            print(f"FAILED: {isa} ended by signal {-code}", file=sys.stderr)
        failed += code != 0
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 where all agree, 1 else."""
    parser = argparse.ArgumentParser(prog="python -m trpo_fast.selftest", description=__doc__)
    parser.add_argument("--one", action="store_true", help="only the instruction set in use, in this process")
    arguments = parser.parse_args(argv)
    if arguments.one:
        found = list(failures(CHECKS))
        for line in found:
            print(f"FAILED: {line}", file=sys.stderr)
        return int(bool(found))
    started = time.perf_counter()
    failed, sets = _run_all(), len(library.available_instruction_sets())
    outcome = f"FAILED on {failed} of {sets}" if failed else f"ok on {sets}"
    took = time.perf_counter() - started
    print(f"{outcome} instruction sets: {len(CHECKS)} checks in two precisions each, {took:.1f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
