"""Solvers over the compiled loops; numpy only."""

from .conjugate_gradient import CGResult, conjugate_gradient
from .line_search import LineSearchResult, Trial, backtracking_line_search
from .settings import DirectionSettings, StepSettings
from .status import Status
from .trust_region import Direction, TrustRegionReport, find_direction, step_length, trust_region_step, try_step

__all__ = [
    "CGResult",
    "Direction",
    "DirectionSettings",
    "LineSearchResult",
    "Status",
    "StepSettings",
    "Trial",
    "TrustRegionReport",
    "backtracking_line_search",
    "conjugate_gradient",
    "find_direction",
    "step_length",
    "trust_region_step",
    "try_step",
]
