"""Calls of the solvers, what they take and give, and operators."""

import dataclasses

import numpy as np
import torch

import trpo_fast
from tests.trust.catalogue.declaring import as_array, call, dtype_of, far, normal, target
from tests.trust.catalogue.engines import engine_of
from trpo_fast import solvers
from trpo_fast._core.operator import CallableOperator, DenseOperator
from trpo_fast._core.preconditioner import KroneckerPreconditioner


def settings_of(cls, rng):
    return {field.name: getattr(cls(), field.name) for field in dataclasses.fields(cls)}


STEP = {**settings_of(solvers.DirectionSettings, None), **settings_of(solvers.StepSettings, None)}


@target("conjugate_gradient", 6)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 9))
    matrix = normal(rng, dtype, n, n)
    matrix = matrix @ matrix.T + n * np.eye(n, dtype=dtype)
    kinds = [
        lambda: matrix,
        lambda: DenseOperator(matrix),
        lambda: lambda v: matrix @ v,
        lambda: torch.from_numpy(matrix),
    ]
    arguments = {
        "A": kinds[rng.integers(4)](),
        "b": normal(rng, dtype, n),
        "max_iter": int(rng.integers(0, 30)),
        "rtol": float(10.0 ** -rng.integers(1, 12)),
        "atol": 0.0,
        "damping": float(rng.random()),
        "preconditioner": np.diag(1 / np.diag(matrix)) if rng.random() < 0.3 else None,
        "x0": normal(rng, dtype, n) if rng.random() < 0.3 else None,
        "reorthogonalize": bool(rng.integers(2)),
        "callback": None,
        "progress_tol": 0.0,
    }

    def check(answer, A, b, damping, rtol, atol, x0, **_):
        x, b = as_array(answer.x), as_array(b)
        if not np.isfinite(x).all():
            return f"{answer.status.name}: {x}"
        if answer.status != 0 or not isinstance(A, np.ndarray) or A.dtype.kind not in "f":
            return None
        A = np.asarray(A, np.float64)
        symmetric = A.ndim == 2 and np.array_equal(A, A.T) and np.isfinite(A).all()
        if not symmetric:
            return None
        kind = np.finfo(np.asarray(answer.x).dtype)
        with np.errstate(all="ignore"):
            residual, size = np.linalg.norm(b - A @ x - float(damping) * x), np.linalg.norm(b)
            rounding = kind.eps * (np.abs(A).sum() + float(damping)) * np.linalg.norm(x)
            goal = max(float(rtol) * size, float(atol))
            if np.isfinite(residual) and residual > 1.1 * goal + 1e3 * (rounding + kind.tiny):
                return f"SUCCESS with a residual of {residual}; want {goal}"
        return None

    return call(trpo_fast.conjugate_gradient, arguments, check=check, dear="max_iter")


@target("backtracking_line_search", 3)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 6))
    theta = normal(rng, dtype, n)
    start = theta.copy()

    def objective(theta):
        with np.errstate(all="ignore"):
            return 1.0, float(np.sum(np.square(as_array(theta) - start)))

    arguments = {
        "objective": objective,
        "theta": theta,
        "step": normal(rng, dtype, n),
        "max_kl": float(rng.choice([1e-3, 1.0, np.inf])),
        "backtrack_factor": 0.5,
        "max_backtracks": int(rng.integers(20)),
        "accept": None,
    }

    def check(answer, theta, step, max_kl, **_):
        if answer.status == 0:
            return None if answer.kl <= float(max_kl) else f"accepted a KL of {answer.kl}"
        return None

    return call(trpo_fast.backtracking_line_search, arguments, "theta", check, dear="max_backtracks")


@target("trust_region_step", 3)
def _(rng):
    engine = engine_of(rng)
    before = engine.parameters().copy()

    def check(answer, engine, **_):
        moved = not np.array_equal(engine.parameters(), before)
        if moved != (answer.status == 0) and answer.step_norm > 1e-6:
            return f"{answer.status.name}, parameters {'moved' if moved else 'stayed'}"
        return None

    return call(
        trpo_fast.trust_region_step, {"engine": engine, **STEP}, "engine", check, dear="cg_iterations max_backtracks"
    )


@target("find_direction", 2)
def _(rng):
    engine = engine_of(rng)
    arguments = {
        "engine": engine,
        "gradient": normal(rng, engine.dtype, engine.size) if rng.random() < 0.5 else None,
        "settings": solvers.DirectionSettings(),
        "preconditioner": None,
        "rows": np.arange(4) if rng.random() < 0.5 else None,
    }
    return call(trpo_fast.find_direction, arguments)


def direction_of(rng, n=4):
    g = rng.normal(size=n)
    return trpo_fast.Direction(g, g.copy(), curvature=float(g @ g), damping=0.1)


@target("step_length")
def _(rng):
    return call(trpo_fast.step_length, {"direction": direction_of(rng), "settings": solvers.StepSettings()})


@target("try_step", 2)
def _(rng):
    engine = engine_of(rng)
    arguments = {
        "engine": engine,
        "step": normal(rng, engine.dtype, engine.size) / 100,
        "settings": solvers.StepSettings(),
        "accept": None,
    }
    return call(trpo_fast.try_step, arguments, "engine")


@target("Direction")
def _(rng):
    g = normal(rng, dtype_of(rng), 4)
    arguments = {"gradient": g, "x": rng.normal(size=4), "curvature": 1.0, "damping": 0.1}
    arguments |= {"status": solvers.Status.SUCCESS, "iterations": 3, "residual_norm": 0.1, "gradient_norm": np.nan}

    def check(answer, gradient, gradient_norm, **_):
        if gradient_norm is np.nan:
            g = as_array(gradient)
            return far(answer.gradient_norm, np.linalg.norm(g), np.float64, np.abs(g).sum())
        return None

    return call(trpo_fast.Direction, arguments, check=check)


@target("Direction.from_solution")
def _(rng):
    b = normal(rng, dtype_of(rng), 3)
    arguments = {"solution": trpo_fast.conjugate_gradient(np.eye(3, dtype=b.dtype), b), "gradient": b, "damping": 0.0}
    return call(
        trpo_fast.Direction.from_solution,
        arguments,
        aliases=("x", "status", "iterations", "residual_norm", "curvature"),
    )


@target("DirectionSettings")
def _(rng):
    return call(solvers.DirectionSettings, settings_of(solvers.DirectionSettings, rng))


@target("StepSettings")
def _(rng):
    return call(solvers.StepSettings, settings_of(solvers.StepSettings, rng))


@target("DirectionSettings.replace")
def _(rng):
    return call(solvers.DirectionSettings().replace, settings_of(solvers.DirectionSettings, rng))


@target("StepSettings.replace")
def _(rng):
    return call(solvers.StepSettings().replace, settings_of(solvers.StepSettings, rng))


@target("TrustRegionReport.of_parts")
def _(rng):
    arguments = {"direction": direction_of(rng), "length": 0.5, "search": None, "settings": solvers.StepSettings()}
    return call(solvers.TrustRegionReport.of_parts, arguments)


@target("Operator.matvec", 3)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 70))
    matrix = normal(rng, dtype, n, n)
    arguments = {
        "self": DenseOperator(matrix),
        "v": normal(rng, dtype, n),
        "out": np.zeros(n, dtype) if rng.random() < 0.5 else None,
    }

    def check(answer, self, v, out):
        v = as_array(v).reshape(-1)
        return far(answer, matrix.astype("f8") @ v, dtype, np.abs(matrix).max() * np.abs(v).sum())

    return call(lambda self, v, out: self.matvec(v, out), arguments, "out", check)


@target("Operator.matmat", 2)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 9))
    matrix = normal(rng, dtype, n, n)

    def check(answer, self, V):
        V = as_array(V)
        return far(answer, matrix.astype("f8") @ V, dtype, np.abs(matrix).max() * np.abs(V).sum())

    arguments = {"self": DenseOperator(matrix), "V": normal(rng, dtype, n, 3)}
    return call(lambda self, V: self.matmat(V), arguments, check=check)


@target("DenseOperator")
def _(rng):
    return call(DenseOperator, {"matrix": normal(rng, dtype_of(rng), 3, 3)})


@target("CallableOperator")
def _(rng):
    arguments = {"function": lambda v: 2 * v, "size": 3, "dtype": str(dtype_of(rng)), "name": "A"}
    return call(CallableOperator, arguments)


@target("KroneckerPreconditioner", 2)
def _(rng):
    dtype = dtype_of(rng)

    def positive(n):
        half = normal(rng, dtype, n, n)
        return half @ half.T + np.eye(n, dtype=dtype)

    arguments = {"blocks": [(positive(3), positive(2), 0, 6)], "size": 8, "dtype": str(dtype), "damping": 0.1}
    return call(
        KroneckerPreconditioner,
        arguments | {"diagonal": None},
        aliases=("inputs", "outputs", "weight", "bias", "layer"),
        dear="size",
    )
