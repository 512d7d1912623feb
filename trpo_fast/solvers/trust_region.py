"""One trust-region step: direction, length, acceptance."""

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conjugate_gradient import as_operator, conjugate_gradient
from .engine import Engine
from .line_search import LineSearchResult, backtracking_line_search, full_step
from .status import Status
from .validation import require_bool, require_choice, require_count, require_fraction, require_number

# Of the protocol, what a step calls: whoever binds is the caller.
_ENGINE_METHODS = ("surrogate_gradient", "fisher_operator", "parameters", "parameters_changed", "evaluate")


@dataclass(frozen=True)
class TrustRegionReport:
    """What one trust-region step did."""

    status: Status
    """SUCCESS: a step was taken. Otherwise the parameters are what they were, bit for bit."""
    cg_status: Status
    gradient_norm: float
    timings: dict[str, float]
    """Seconds: gradient, solve, line_search."""
    cg_iterations: int = 0
    cg_residual: float = 0.0
    """``||g - (F + damping I) x|| / ||g||``."""
    curvature: float = 0.0
    """x'Fx of the direction."""
    backtracks: int = 0
    step_fraction: float = 0.0
    """s^j of the accepted step; 0 where none was."""
    step_norm: float = 0.0
    """Of the accepted step; 0 where none was."""
    kl: float = 0.0
    """Mean joint KL of the accepted step, or of the last trial, in nats."""
    improvement: float = 0.0
    """Of the surrogate, by the accepted step or the last trial."""
    predicted_improvement: float = 0.0
    """g' times the accepted (or last tried) step: the linear model."""


def trust_region_step(
    engine: Engine,
    *,
    max_kl: float = 0.02,
    damping: float = 0.1,
    cg_iterations: int = 10,
    cg_rtol: float = 1e-10,
    preconditioner: Any = None,
    cg_progress_tol: float = 0.0,
    reorthogonalize: bool = True,
    step_curvature: str = "fisher",
    kl_direction: str = "new_old",
    line_search: bool = True,
    backtrack_factor: float = 0.8,
    max_backtracks: int = 10,
    fisher_rows: NDArray[np.int64] | None = None,
) -> TrustRegionReport:
    """Improve the surrogate of the bound batch within a KL trust region [1]_.

    ``(F + damping I) x = g`` by conjugate gradient; ``theta' = theta + s^j sqrt(2 max_kl / x'Fx) x`` for the smallest j
    that improves and whose KL stays within `max_kl`.

    Parameters
    ----------
    engine : Engine
        With a batch bound at the current parameters, which the step changes in place.
    max_kl : float
        delta, in nats, of the joint action distribution averaged over samples.
    preconditioner : {"kfac", "diagonal"}, operator or callable, optional
        A name is made by ``engine.preconditioner`` with this damping, in the time of the solve; what else it may be is
        as for `conjugate_gradient`.
    damping, cg_iterations, cg_rtol, cg_progress_tol, reorthogonalize
        Of `conjugate_gradient` without the cg_. Reorthogonalization is left out where it would keep more than 2 GiB.
    step_curvature : {"fisher", "damped"}
        x'Fx, or x'(F + damping I)x as several libraries have it.
    kl_direction : {"new_old", "old_new"}
        KL(pi || pi_old), or KL(pi_old || pi) as in the paper.
    line_search : bool
        False takes the full step as it is, unless its improvement or KL is not finite: natural policy gradient
        [2]_ with a step normalized by `max_kl`, which the KL may then exceed.
    backtrack_factor, max_backtracks
        Of `backtracking_line_search`.
    fisher_rows : ndarray of int64, shape (S,), optional
        Rows of the bound batch that F is averaged over, sorted and unique; all by default. The gradient and the line
        search use the whole batch [1]_.

    References
    ----------
    .. [1] Schulman et al., "Trust Region Policy Optimization", ICML 2015, appendix C.
    .. [2] Rajeswaran et al., "Towards Generalization and Simplicity in Continuous Control", NeurIPS 2017, eq. 5.
    """
    lacking = [method for method in _ENGINE_METHODS if not callable(getattr(engine, method, None))]
    if lacking:
        raise TypeError(
            f"engine: wanted an engine, as make_engine(policy) returns, got {type(engine).__name__}, "
            f"which has no {', '.join(lacking)}"
        )
    max_kl = require_number("max_kl", max_kl, low=0, inclusive=False)
    damping = require_number("damping", damping, low=0)
    cg_iterations = require_count("cg_iterations", cg_iterations, low=1)
    cg_rtol = require_number("cg_rtol", cg_rtol, low=0, finite=False)
    cg_progress_tol = require_number("cg_progress_tol", cg_progress_tol, low=0)
    backtrack_factor = require_fraction("backtrack_factor", backtrack_factor)
    max_backtracks = require_count("max_backtracks", max_backtracks, low=0)
    reorthogonalize = require_bool("reorthogonalize", reorthogonalize)
    line_search = require_bool("line_search", line_search)
    require_choice("step_curvature", step_curvature, ("fisher", "damped"))
    require_choice("kl_direction", kl_direction, ("new_old", "old_new"))

    start = perf_counter()
    g = engine.surrogate_gradient()
    if not isinstance(g, np.ndarray):
        raise TypeError(f"engine.surrogate_gradient(): wanted an ndarray, got {type(g).__name__}")
    gradient_norm = float(np.linalg.norm(g.astype(np.float64)))
    timings = {"gradient": perf_counter() - start, "solve": 0.0, "line_search": 0.0}

    def report(status: Status, **found: Any) -> TrustRegionReport:
        return TrustRegionReport(
            **{"cg_status": status} | found, status=status, gradient_norm=gradient_norm, timings=timings
        )

    if not math.isfinite(gradient_norm):
        return report(Status.NON_FINITE)
    if gradient_norm == 0:
        return report(Status.NO_GRADIENT)

    start = perf_counter()
    if isinstance(preconditioner, str):
        require_choice("preconditioner", preconditioner, ("kfac", "diagonal"))
        if not callable(getattr(engine, "preconditioner", None)):
            raise TypeError(f"preconditioner: got {preconditioner!r}, but {type(engine).__name__} makes none")
        try:
            preconditioner = engine.preconditioner(preconditioner, damping=damping, rows=fisher_rows)
        except FloatingPointError:  # a statistic overflowed
            return report(Status.NON_FINITE)
    fisher = engine.fisher_operator() if fisher_rows is None else engine.fisher_operator(fisher_rows)
    cg = conjugate_gradient(
        as_operator(fisher, g.size, g.dtype, "engine.fisher_operator()"),
        g,
        max_iter=cg_iterations,
        rtol=cg_rtol,
        progress_tol=cg_progress_tol,
        damping=damping,
        preconditioner=preconditioner,
        reorthogonalize=reorthogonalize and can_keep(g, cg_iterations, preconditioner),
    )
    timings["solve"] = perf_counter() - start
    found: dict[str, Any] = {
        "cg_status": cg.status,
        "cg_iterations": cg.iterations,
        "cg_residual": cg.residual_norm / gradient_norm,
        "curvature": cg.curvature,
    }
    if cg.status < 0:
        return report(cg.status, **found)
    x = cg.x.astype(np.float64)
    squared_norm = float(x @ x)
    curvature = cg.curvature + (damping * squared_norm if step_curvature == "damped" else 0.0)
    if not is_curvature(curvature, x, g):
        return report(Status.NO_CURVATURE, **found)

    start = perf_counter()
    beta = math.sqrt(2 * max_kl / curvature)
    step = (beta * x).astype(g.dtype)
    theta = engine.parameters()
    if theta.shape != g.shape:
        raise ValueError(f"engine.parameters(): wanted shape {g.shape} as the gradient has, got {theta.shape}")

    def objective(_: Any) -> tuple[float, float]:
        engine.parameters_changed()
        return engine.evaluate(kl_direction)

    search: LineSearchResult
    try:
        if line_search:
            search = backtracking_line_search(
                objective, theta, step, max_kl=max_kl, backtrack_factor=backtrack_factor, max_backtracks=max_backtracks
            )
        else:
            search = full_step(objective, theta, step)
    finally:
        engine.parameters_changed()
    timings["line_search"] = perf_counter() - start
    tried = search.step_fraction if search.status == 0 else backtrack_factor**search.backtracks
    found |= {
        "backtracks": search.backtracks,
        "kl": search.kl,
        "improvement": search.improvement,
        "predicted_improvement": tried * beta * float(x @ g),
        "step_fraction": search.step_fraction,
        "step_norm": search.step_fraction * beta * math.sqrt(squared_norm),
    }
    return report(search.status, **found)


def can_keep(g: NDArray[Any], iterations: int, preconditioner: Any = None) -> bool:
    """Whether what reorthogonalization keeps, a vector an iteration or two with a preconditioner, fits in 2 GiB."""
    return (1 if preconditioner is None else 2) * min(iterations, g.size) * g.nbytes <= 2**31


def is_curvature(curvature: float, x: NDArray[np.float64], g: NDArray[Any]) -> bool:
    """Whether x'Fx, a difference of numbers of the size of x'g in g's precision, is more than rounding; not for NaN."""
    return curvature > 8 * float(np.finfo(g.dtype).eps) * abs(float(x @ g))
