"""Trust Region Policy Optimization with a compiled core.

Importing this package is quick: torch and gymnasium load only when a name that needs them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._core.library import get_num_threads, instruction_set, set_num_threads
from ._core.preconditioner import KroneckerPreconditioner
from .solvers import (
    CGResult,
    LineSearchResult,
    Status,
    TrustRegionReport,
    backtracking_line_search,
    conjugate_gradient,
    trust_region_step,
)
from .threadpool import register_with_threadpoolctl

if TYPE_CHECKING:
    from .algorithm.config import TRPOConfig
    from .algorithm.evaluation import EvaluationResult
    from .algorithm.trpo import TRPO
    from .engines import fisher_matrix, make_engine
    from .policies import MLPCritic, MLPPolicy
    from .rollout.batch import Batch

__version__ = "0.1.0"

register_with_threadpoolctl(__version__)

_LAZY = {
    "TRPO": ".algorithm.trpo",
    "TRPOConfig": ".algorithm.config",
    "EvaluationResult": ".algorithm.evaluation",
    "MLPPolicy": ".policies",
    "MLPCritic": ".policies",
    "Batch": ".rollout.batch",
    "make_engine": ".engines",
    "fisher_matrix": ".engines",
}

__all__ = [
    "TRPO",
    "Batch",
    "CGResult",
    "EvaluationResult",
    "KroneckerPreconditioner",
    "LineSearchResult",
    "MLPCritic",
    "MLPPolicy",
    "Status",
    "TRPOConfig",
    "TrustRegionReport",
    "backtracking_line_search",
    "conjugate_gradient",
    "fisher_matrix",
    "get_num_threads",
    "instruction_set",
    "make_engine",
    "set_num_threads",
    "trust_region_step",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
