"""One trust-region step, and the parts that it is made of: direction, length, search.

`find_direction` solves (F + lambda I) x = g, `step_length` says how far x may be followed, `try_step` goes there or
stays: each takes what the one before returns, and `trust_region_step` is the three in a row.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.library import as_double, in_words
from .._core.operator import Operator
from ..settings import described
from .arrays import as_numpy
from .conjugate_gradient import CGResult, as_operator, conjugate_gradient
from .engine import Engine, Evaluator
from .fisher_product import prepare_fisher
from .line_search import Condition, LineSearchResult, backtracking_line_search, full_step
from .settings import (
    DEFAULT_DIRECTION,
    DEFAULT_STEP,
    STEP_KEYWORDS,
    DirectionSettings,
    StepSettings,
    chosen_settings,
)
from .status import Status
from .validation import require_rows


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction x in parameter space, and what a step along it has to know; see `find_direction`."""

    gradient: NDArray[Any]
    """g, (n,) float32 or float64; of another library's array, its memory."""
    x: NDArray[np.float64]
    """(n,), from either dtype; zeros where there is none."""
    curvature: float = 0.0
    """x'Fx, without damping; infinite, or 0, where no double holds it."""
    damping: float = 0.0
    """lambda that x was solved with."""
    status: Status = Status.SUCCESS
    """Of the solve: ``> 0`` stopped early and usable, but for NO_GRADIENT; ``< 0`` failed, x the last good iterate."""
    iterations: int = 0
    residual_norm: float = 0.0
    """``||g - (F + damping I) x||``."""
    gradient_norm: float = math.nan
    """``||g||``; computed where it is not given."""
    fisher_product: str = ""
    """How products with F were computed: see `TrustRegionReport`."""
    fisher_precision: str = ""
    """Of the numbers that they multiplied: see there."""

    def __post_init__(self) -> None:
        values = vars(self)  # that of a frozen dataclass, which checks what it is made of
        values["gradient"] = g = _vector("gradient", self.gradient)
        values["x"] = _vector("x", self.x).astype(np.float64, copy=False)
        if self.x.shape != g.shape:
            raise ValueError(f"x: shape {self.x.shape} given; want {g.shape} as the gradient has")
        if not isinstance(self.status, Status):
            raise TypeError(f"status: {in_words(self.status)} given; want a Status")
        if (
            not isinstance(self.iterations, int | np.integer)
            or isinstance(self.iterations, bool)
            or self.iterations < 0
        ):
            raise TypeError(f"iterations: {in_words(self.iterations)} given; want an integer >= 0")
        for name in ("curvature", "damping", "residual_norm", "gradient_norm"):
            values[name] = as_double(values[name], name)
        if math.isnan(self.gradient_norm):
            values["gradient_norm"] = _norm(g)

    @classmethod
    def from_solution(
        cls,
        solution: CGResult,
        gradient: NDArray[Any],
        damping: float,
        gradient_norm: float = math.nan,
        fisher_product: str = "",
        fisher_precision: str = "",
    ) -> Direction:
        """Of what `conjugate_gradient` found with the right-hand side `gradient` and this damping."""
        if not isinstance(solution, CGResult):
            raise TypeError(f"solution: {type(solution).__name__} given; want a CGResult")
        return cls(
            gradient,
            solution.x,
            solution.curvature,
            damping,
            solution.status,
            solution.iterations,
            solution.residual_norm,
            gradient_norm,
            fisher_product,
            fisher_precision,
        )

    @property
    def usable(self) -> bool:
        """Whether there is a direction to go."""
        return self.status >= 0 and self.status != Status.NO_GRADIENT

    @property
    def residual(self) -> float:
        """``||g - (F + damping I) x|| / ||g||``; 0 for a gradient of zero."""
        return self.residual_norm / self.gradient_norm if self.residual_norm else 0.0

    @cached_property
    def slope(self) -> float:
        """x'g: by the linear model, what the surrogate gains along x."""
        with np.errstate(over="ignore"):
            return float(self.x @ self.gradient)

    @cached_property
    def squared_norm(self) -> float:
        """x'x."""
        with np.errstate(over="ignore"):
            return float(self.x @ self.x)


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
    damping: float = 0.0
    """lambda of the solve, `relative_damping`'s part included; 0 where there was none."""
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
    fisher_product: str = ""
    """How products with F were computed: through the "weights" of all layers, or with cached output "jacobians" (see
    `fisher_jacobians`); "" where the engine is not the native one, or there was nothing to solve."""
    fisher_precision: str = ""
    """Of the numbers that they multiplied: "float32", "float64" or "bfloat16"; "" as there."""

    @classmethod
    def of_parts(
        cls,
        direction: Direction,
        length: float | None = None,
        search: LineSearchResult | None = None,
        settings: StepSettings = DEFAULT_STEP,
        timings: Mapping[str, float] | None = None,
    ) -> TrustRegionReport:
        """Of what the parts of a step returned.

        Parameters
        ----------
        direction : Direction
        length, search : optional
            What `step_length` and `try_step` returned; None where it did not come to that.
        settings : StepSettings
            What they were called with.
        timings : mapping, optional
            Seconds; what is left out counts as 0.
        """
        _require("direction", direction, Direction)
        _require("settings", settings, StepSettings)
        if search is not None:
            _require("search", search, LineSearchResult)
        found: dict[str, Any] = {}
        status = Status.NO_CURVATURE if direction.usable else direction.status
        if length is not None and search is not None:
            length = as_double(length, "length")
            status = search.status
            tried = search.step_fraction if status == 0 else settings.backtrack_factor**search.backtracks
            found = {
                "backtracks": search.backtracks,
                "kl": search.kl,
                "improvement": search.improvement,
                "predicted_improvement": tried * length * direction.slope,
                "step_fraction": search.step_fraction,
                "step_norm": search.step_fraction * length * _norm(direction.x),
            }
        return cls(
            status,
            direction.status,
            direction.gradient_norm,
            {"gradient": 0.0, "solve": 0.0, "line_search": 0.0, **(timings or {})},
            direction.iterations,
            direction.residual,
            direction.curvature,
            direction.damping,
            fisher_product=direction.fisher_product,
            fisher_precision=direction.fisher_precision,
            **found,
        )


def find_direction(
    engine: Engine,
    gradient: NDArray[Any] | None = None,
    settings: DirectionSettings = DEFAULT_DIRECTION,
    *,
    preconditioner: Any = None,
    rows: NDArray[np.int64] | None = None,
) -> Direction:
    """Solve ``(F + damping I) x = g`` by conjugate gradient, F being the Fisher matrix at theta_old.

    With `relative_damping` c that much of the curvature along the gradient, ``c g'Fg / g'g``, is added to the damping:
    a unit that policies of any standard deviation share, as Levenberg and Marquardt scale theirs.

    Parameters
    ----------
    engine : Engine
        With a batch bound; its parameters are neither read nor written.
    gradient : float32 or float64 ndarray, shape (n,), optional
        g; the gradient of the engine's objective by default, or any other, a penalty's added for example.
    settings : DirectionSettings
    preconditioner : operator or callable, optional
        One of your own, as `conjugate_gradient` takes it, in place of what the settings name.
    rows : ndarray of int64, shape (S,), optional
        Rows of the bound batch that F is averaged over, sorted and unique; all by default.

    Returns
    -------
    Direction
        With status NO_GRADIENT where g is zero, and NON_FINITE where its norm, or a statistic of the preconditioner, is
        not finite.

    Raises
    ------
    TypeError, ValueError
        Misuse. What the engine raises travels to the caller.
    """
    _require_engine(engine, "fisher_operator")
    _require("settings", settings, DirectionSettings)
    g = _vector("gradient", _gradient_of(engine) if gradient is None else gradient)
    rows = require_rows("rows", rows)
    fisher = engine.fisher_operator() if rows is None else engine.fisher_operator(rows)
    shape = getattr(fisher, "shape", None)
    if shape and g.shape != tuple(shape[:1]):
        raise ValueError(f"gradient, engine.fisher_operator(): shapes {g.shape} and {shape} given; want one size")
    dtype = getattr(fisher, "dtype", None)
    if dtype in (np.float32, np.float64) and dtype != g.dtype:
        raise TypeError(f"gradient: {g.dtype} given; want {dtype}, as engine.fisher_operator() has")
    gradient_norm = _norm(g)

    def nothing(status: Status) -> Direction:
        return Direction(g, np.zeros(g.shape), 0.0, settings.damping, status, gradient_norm=gradient_norm)

    if not math.isfinite(gradient_norm):
        return nothing(Status.NON_FINITE)
    if gradient_norm == 0:
        return nothing(Status.NO_GRADIENT)
    operator = as_operator(fisher, g.size, g.dtype, "engine.fisher_operator()")
    products = settings.cg_iterations + (settings.relative_damping > 0)
    prepared = prepare_fisher(operator, products, settings.fisher_jacobians, settings.fisher_precision)
    damping = settings.damping
    if settings.relative_damping > 0:
        damping += settings.relative_damping * _curvature_along(g, gradient_norm, operator)
        if not math.isfinite(damping):
            return nothing(Status.NON_FINITE)
    inverse = preconditioner
    if inverse is None and settings.preconditioner is not None:
        if not callable(getattr(engine, "preconditioner", None)):
            raise TypeError(
                f"preconditioner: {settings.preconditioner!r} given, {type(engine).__name__} makes none; want None"
            )
        try:
            inverse = engine.preconditioner(settings.preconditioner, damping=damping, rows=rows)
        except FloatingPointError:  # a statistic overflowed
            return nothing(Status.NON_FINITE)
    solution = conjugate_gradient(
        operator,
        g,
        max_iter=settings.cg_iterations,
        rtol=settings.cg_rtol,
        progress_tol=settings.cg_progress_tol,
        damping=damping,
        preconditioner=inverse,
        reorthogonalize=settings.reorthogonalize and can_keep(g, settings.cg_iterations, inverse),
    )
    return Direction.from_solution(solution, g, damping, gradient_norm, *prepared)


def step_length(direction: Direction, settings: StepSettings = DEFAULT_STEP) -> float | None:
    """``sqrt(2 max_kl / curvature)``: how far x may be followed until the quadratic model of the KL is at `max_kl`.

    The curvature is x'Fx, or x'(F + damping I)x where `step_curvature` is "damped".

    Returns
    -------
    float or None
        None where there is no direction, or its curvature is not more than rounding, or more than a double holds.
    """
    _require("direction", direction, Direction)
    _require("settings", settings, StepSettings)
    damped = settings.step_curvature == "damped" and direction.damping != 0
    curvature = direction.curvature + (direction.damping * direction.squared_norm if damped else 0.0)
    if not (direction.usable and _is_curvature(curvature, direction)):
        return None
    return math.sqrt(2 * settings.max_kl / curvature)


def try_step(
    engine: Evaluator, step: NDArray[Any], settings: StepSettings = DEFAULT_STEP, *, accept: Condition | None = None
) -> LineSearchResult:
    """Change the engine's parameters by the longest part of `step` that is accepted, or leave them as they are.

    Parts are s^j, j in 0..`max_backtracks`: the first is accepted that improves the surrogate, whose KL is within
    `max_kl`, and to which `accept` says True. Without `line_search` it is the whole step or nothing, whatever
    improvement and KL are, if only finite.

    Parameters
    ----------
    engine : Engine
        With a batch bound at the current parameters, which are changed in place; of its methods, `parameters`,
        `parameters_changed` and `evaluate` are called, so that whatever else has these will do.
    step : ndarray, shape (n,)
        ``length * direction.x``; not modified.
    settings : StepSettings
    accept : callable, optional
        ``accept(trial) -> bool``, a further condition, see `backtracking_line_search`. The policy is the trial's while
        it runs; this engine must not be bound to another batch in it, another engine over the same policy may be
        evaluated.

    Returns
    -------
    LineSearchResult
        Where no trial was accepted, or anything raised, the parameters are what they were, bit for bit.
    """
    _require_engine(engine, "parameters", "parameters_changed", "evaluate")
    _require("settings", settings, StepSettings)
    if not isinstance(step, np.ndarray) or step.dtype.kind != "f":
        raise TypeError(f"step: {getattr(step, 'dtype', type(step).__name__)} given; want an ndarray of floats")
    theta = engine.parameters()
    if theta.shape != step.shape:
        raise ValueError(f"step, engine.parameters(): {step.shape} and {theta.shape} given; want one shape")
    with np.errstate(over="ignore"):  # a step that is not finite there is an outcome
        whole = step.astype(theta.dtype)

    def objective(_: NDArray[Any]) -> tuple[float, float]:
        engine.parameters_changed()
        return engine.evaluate(settings.kl_direction)

    try:
        if not settings.line_search:
            return full_step(objective, theta, whole, accept)
        return backtracking_line_search(
            objective,
            theta,
            whole,
            max_kl=settings.max_kl,
            backtrack_factor=settings.backtrack_factor,
            max_backtracks=settings.max_backtracks,
            accept=accept,
        )
    finally:
        engine.parameters_changed()


def trust_region_step(
    engine: Engine,
    *,
    direction: DirectionSettings | None = None,
    step: StepSettings | None = None,
    fisher_rows: NDArray[np.int64] | None = None,
    accept: Condition | None = None,
    **settings: Any,
) -> TrustRegionReport:
    """Improve the surrogate of the bound batch within a KL trust region [1]_.

    ``(F + damping I) x = g`` by conjugate gradient; ``theta' = theta + s^j sqrt(2 max_kl / x'Fx) x`` for the smallest j
    that improves and whose KL stays within `max_kl`. The same by hand: `find_direction`, `step_length`, `try_step`.

    Parameters
    ----------
    engine : Engine
        With a batch bound at the current parameters, which the step changes in place.
    direction : DirectionSettings, optional
    step : StepSettings, optional
        Settings as objects; those given by name, below, replace theirs.
    fisher_rows : ndarray of int64, shape (S,), optional
        Rows of the bound batch that F is averaged over, sorted and unique; all by default. The gradient and the line
        search use the whole batch [1]_.
    accept : callable, optional
        ``accept(trial) -> bool``, a further condition on an accepted step: see `try_step`.
    **settings
        Fields of both. `preconditioner` may also be an operator or a callable, as `conjugate_gradient` takes it; a name
        is made by ``engine.preconditioner`` with this damping, in the time of the solve. Reorthogonalization is left
        out where it would keep more than 2 GiB. ``line_search=False`` is natural policy gradient with a step normalized
        by `max_kl` [2]_, which the KL may then exceed.

    References
    ----------
    .. [1] Schulman et al., "Trust Region Policy Optimization", ICML 2015, appendix C.
    .. [2] Rajeswaran et al., "Towards Generalization and Simplicity in Continuous Control", NeurIPS 2017, eq. 5.
    """
    _require_engine(engine, "surrogate_gradient", "fisher_operator", "parameters", "parameters_changed", "evaluate")
    inverse = None
    if not isinstance(settings.get("preconditioner"), str | None):
        inverse = settings.pop("preconditioner")
    direction, step = chosen_settings(direction, step, settings)
    rows = require_rows("fisher_rows", fisher_rows)

    start = perf_counter()
    g = _gradient_of(engine)
    measured = perf_counter()
    found = find_direction(engine, g, direction, preconditioner=inverse, rows=rows)
    length = step_length(found, step)
    solved = perf_counter()
    search = None if length is None else try_step(engine, length * found.x, step, accept=accept)
    end = perf_counter()
    timings = {"gradient": measured - start, "solve": solved - measured, "line_search": end - solved}
    return TrustRegionReport.of_parts(found, length, search, step, timings)


def can_keep(g: NDArray[Any], iterations: int, preconditioner: Any = None) -> bool:
    """Whether what reorthogonalization keeps, a vector an iteration or two with a preconditioner, fits in 2 GiB."""
    return (1 if preconditioner is None else 2) * min(iterations, g.size) * g.nbytes <= 2**31


def _is_curvature(curvature: float, direction: Direction) -> bool:
    """Whether x'Fx, a difference of numbers of the size of x'g in g's precision, is more than rounding; not for NaN."""
    rounding = 8 * float(np.finfo(direction.gradient.dtype).eps) * abs(direction.slope)
    return rounding < curvature < math.inf


def _curvature_along(g: NDArray[Any], norm: float, operator: Operator) -> float:
    """g'Fg / g'g; 0 where it is negative or NaN, which the solve says."""
    along = (g.astype(np.float64) / norm).astype(g.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return max(0.0, float(along.astype(np.float64) @ operator.matvec(along).astype(np.float64)))


def _norm(g: NDArray[Any]) -> float:
    """||g|| in float64, also where squares of its items leave the range of double."""
    with np.errstate(over="ignore", under="ignore"):
        norm = float(np.linalg.norm(g.astype(np.float64)))
        if 1e-140 < norm < math.inf:
            return norm
        largest = float(np.abs(g).max(initial=0.0))
        if largest == 0 or not math.isfinite(largest):
            return largest
        exponent = math.frexp(largest)[1]
        return float(np.ldexp(np.linalg.norm(np.ldexp(g.astype(np.float64), -exponent)), exponent))


def _vector(name: str, value: Any) -> NDArray[Any]:
    array = as_numpy(value, name)
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        what = f"one of {array.dtype}" if isinstance(array, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: {what} given; want an ndarray of float32 or float64")
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {array.shape} given; want (n,)")
    return array


def _gradient_of(engine: Engine) -> NDArray[Any]:
    _require_engine(engine, "surrogate_gradient")
    g = engine.surrogate_gradient()
    if not isinstance(g, np.ndarray):
        raise TypeError(f"engine.surrogate_gradient(): {type(g).__name__} given; want an ndarray")
    return g


def _require_engine(engine: Any, *methods: str) -> None:
    # Of the protocol, what is called: whoever binds is the caller.
    lacking = [method for method in methods if not callable(getattr(engine, method, None))]
    if lacking:
        raise TypeError(
            f"engine: {type(engine).__name__} given, which has no {', '.join(lacking)}; want an engine, as "
            "make_engine(policy) returns"
        )


def _require(name: str, value: Any, kind: type[Any]) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: {in_words(value)} given; want {kind.__name__}")


def _with_settings_declared(function: Any) -> None:
    """Let ``help``, and whoever reads signatures, see the fields of both settings objects among the keywords."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    names = dict.fromkeys(("max_kl", *STEP_KEYWORDS))  # the region first, then in the order of the parts
    of_settings = [
        inspect.Parameter(name, own[-1].KEYWORD_ONLY, default=entry.default, annotation=entry.type)
        for name, entry in ((name, STEP_KEYWORDS[name]) for name in names)
    ]
    function.__signature__ = signature.replace(parameters=[own[0], *of_settings, *own[1:]])
    text = "\n".join(described(STEP_KEYWORDS[name]) for name in names)
    before, heading, after = (function.__doc__ or "").partition("    References\n")
    section = textwrap.indent(f"Other Parameters\n----------------\n{text}\n\n", "    ")
    function.__doc__ = f"{before}{section}{heading}{after}"


_with_settings_declared(trust_region_step)
