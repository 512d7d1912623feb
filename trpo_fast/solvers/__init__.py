"""Solvers over the compiled loops; numpy only."""

from .conjugate_gradient import CGResult, conjugate_gradient
from .line_search import LineSearchResult, backtracking_line_search
from .status import Status
from .trust_region import TrustRegionReport, trust_region_step

__all__ = [
    "CGResult",
    "LineSearchResult",
    "Status",
    "TrustRegionReport",
    "backtracking_line_search",
    "conjugate_gradient",
    "trust_region_step",
]
