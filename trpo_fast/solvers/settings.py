"""What a trust-region step is asked for: two small frozen dataclasses, each keyword declared here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.library import in_words
from ..settings import (
    COUNT,
    FLAG,
    INNER_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_COUNT,
    Settings,
    choice,
    document,
    log_range,
    names_near,
    one_of,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class DirectionSettings(Settings):
    """How the direction x of (F + lambda I) x = g is found.

    A value that cannot work raises TypeError or ValueError with the field, what is wanted and the value.
    """

    damping: float = setting(
        0.1,
        NOT_NEGATIVE,
        "lambda of (F + lambda I) x = g",
        why="the value of the TRPO implementations that published results; it bounds the step along directions that "
        "the samples say nothing about",
        search=log_range(0.01, 1.0),
    )
    cg_iterations: int = setting(
        10,
        POSITIVE_COUNT,
        "largest number of conjugate-gradient iterations, one Fisher product each",
        why="25 cost more and ended lower on all five tasks that both were tried on for 1,000,000 timesteps, one seed "
        "each, and on CartPole-v1 (docs/defaults.md)",
        search=one_of(5, 10, 15, 25),
    )
    cg_rtol: float = setting(
        1e-10,
        NOT_NEGATIVE,
        "goal of the solve: ||g - A x|| / ||g||; 0 spends all iterations",
        why="small enough that only a solved system (tiny policies) stops early",
    )
    cg_progress_tol: float = setting(
        0.0,
        NOT_NEGATIVE,
        "stop the solve when the last 10 iterations (or a tenth of all) lowered x'(F + lambda I)x/2 - g'x by less than "
        "this part of it each; 0: never",
        why="needs at least ten iterations to judge by; for solves of many iterations, 5e-4 is Martens's choice (2010)",
    )
    relative_damping: float = setting(
        0.0,
        NOT_NEGATIVE,
        "added to damping: this part of g'Fg / g'g, the curvature along the gradient, which takes one product more",
        why="lambda is then damping, as it is given; agents have a default of their own",
        search=log_range(0.01, 1.0),
    )
    preconditioner: str | None = setting(
        None,
        choice("kfac", "diagonal", None),
        "of the solve, native engine only: Kronecker-factored blocks (kfac) or the diagonal of F, from the batch "
        "itself; None: plain CG",
        why="in the study of solvers (docs/defaults.md) five kfac products, which solve as well as 25 plain ones, did "
        "best on Hopper and worst on HalfCheetah (2,609 against 4,504 with 10 plain ones): a better solve is not "
        "always a better update",
    )
    reorthogonalize: bool = setting(
        True,
        FLAG,
        "keep CG's residuals orthogonal explicitly",
        why="float32 CG loses orthogonality after about ten products on real policies; the repair costs under 1%",
    )
    fisher_jacobians: str = setting(
        "auto",
        choice("auto", "always", "never"),
        "make the outputs' Jacobians once for all Fisher products of a solve, native engine (always is refused with "
        "another) with two hidden layers or more only: the same products but for rounding; auto decides by layer "
        "sizes, samples, products and this machine's L2 and L3 caches (docs/algorithm.md has the rule), and where "
        "these are not known never does",
        why="a solve takes up to a quarter less time with one or two outputs, or with wide layers and many products, "
        "and elsewhere more (docs/benchmarks.md); never or always where other machines are to give the same bits",
    )
    fisher_precision: str = setting(
        "float32",
        choice("float32", "bfloat16"),
        "of the numbers that Fisher products multiply: bfloat16 rounds them to eight bits and sums in float32, native "
        "engine in float32 only, on CPUs that have AVX512_BF16 or BF16 instructions; with float32 they are of the "
        "networks' dtype. Gradient, KL and line search never are bfloat16",
        why="other numbers than those that the published returns were learned with; on rounded products the direction "
        "gained as much to a thousandth (docs/algorithm.md), and three seeds of two tasks learned alike "
        "(docs/defaults.md)",
    )


@dataclass(frozen=True, kw_only=True)
class StepSettings(Settings):
    """How far a step goes along its direction, and which trial is accepted.

    A value that cannot work raises TypeError or ValueError with the field, what is wanted and the value.
    """

    max_kl: float = setting(
        0.04,
        POSITIVE,
        "trust region delta: largest mean KL, summed over action dimensions, of one update (nats)",
        why="0.02 strands a seed of CartPole-v1 where this leaves none of five (docs/learning.md); libraries that "
        "average the KL over dimensions run larger joint values",
        search=log_range(0.005, 0.2),
    )
    kl_direction: str = setting(
        "new_old",
        choice("new_old", "old_new"),
        "which KL is bounded: new_old is KL(pi_theta || pi_old), old_new the TRPO paper's KL(pi_old || pi_theta)",
        why="the constraint of the text this library implements; both have the same Hessian at theta_old",
    )
    step_curvature: str = setting(
        "fisher",
        choice("fisher", "damped"),
        "curvature of the step size sqrt(2 delta / curvature): fisher is x'Fx, damped x'(F + lambda I)x",
        why="the quadratic model of the KL is x'Fx, so the first trial aims exactly at max_kl",
    )
    line_search: bool = setting(
        True,
        FLAG,
        "backtrack until the step improves within the trust region; False takes the full step as it is: natural policy "
        "gradient with a step normalized by max_kl",
        why="it is what makes the bound on the KL hold; without it, max_kl is only what the quadratic model promises",
    )
    backtrack_factor: float = setting(
        0.8,
        INNER_FRACTION,
        "ratio of one trial step of the line search to the one before",
        why="the factor of the published implementations; KL is quadratic in the step, so one backtrack takes 36% off",
    )
    max_backtracks: int = setting(
        10,
        COUNT,
        "backtracks before the step is given up; 0 tries the full step only",
        why="0.8^10 is a tenth of the step; a direction that fails there is better dropped with its batch",
    )


document(DirectionSettings)
document(StepSettings)

DEFAULT_DIRECTION, DEFAULT_STEP = DirectionSettings(), StepSettings()

STEP_KEYWORDS: Mapping[str, dataclasses.Field[Any]] = {
    entry.name: entry for kind in (DirectionSettings, StepSettings) for entry in dataclasses.fields(kind)
}
"""Every field of both, by name."""


def chosen_settings(
    direction: DirectionSettings | None, step: StepSettings | None, changes: Mapping[str, Any]
) -> tuple[DirectionSettings, StepSettings]:
    """Both, the defaults for None, with the fields in `changes` replaced.

    Raises
    ------
    TypeError
        Something else than such settings; or a name that neither has, with those nearest to it.
    """
    for name, given, kind in (("direction", direction, DirectionSettings), ("step", step, StepSettings)):
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name}: {in_words(given)} given; want {kind.__name__}")
    for name in changes:
        if name not in STEP_KEYWORDS:
            hint = names_near(name, STEP_KEYWORDS, "there are")
            raise TypeError(f"{name!r} is no setting of a trust-region step; {hint}")
    of_direction = {name: value for name, value in changes.items() if name in DEFAULT_DIRECTION.__dataclass_fields__}
    of_step = {name: value for name, value in changes.items() if name not in of_direction}
    direction, step = direction or DEFAULT_DIRECTION, step or DEFAULT_STEP
    return (
        direction.replace(**of_direction) if of_direction else direction,
        step.replace(**of_step) if of_step else step,
    )
