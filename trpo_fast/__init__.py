"""Trust Region Policy Optimization with a compiled core.

Importing this package costs what importing numpy costs: a name is loaded when it is first used, and torch and gymnasium
with the first one that needs them.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import starting as _starting

_starting.begin()
try:
    from ._core.library import get_num_threads, instruction_set, set_num_threads
except ImportError as error:
    import sys

    # The command imports this package before any of its own lines could catch what its user is to read.
    if not _starting.is_command():
        raise
    print(f"trpo-fast: error: {error}", file=sys.stderr)
    sys.exit(2)
finally:
    _starting.end()  # whatever else this program is, its Ctrl-C is its own; the command begins again
from .threadpool import register_with_threadpoolctl as _register_with_threadpoolctl  # noqa: E402

if TYPE_CHECKING:
    from ._core.preconditioner import KroneckerPreconditioner
    from .algorithm.callbacks import (
        Callback,
        CheckpointCallback,
        EvaluationCallback,
        EveryNTimesteps,
        ProgressBar,
        StopAtReturn,
    )
    from .algorithm.config import TRPOConfig
    from .algorithm.evaluation import EvaluationResult
    from .algorithm.hooks import StepInputs
    from .algorithm.logging import RunLogger
    from .algorithm.trpo import TRPO
    from .engines import DistributedEngine, fisher_matrix, make_engine
    from .policies import MLPCritic, MLPPolicy
    from .ranks import RankError, Ranks
    from .rollout.advantages import AdvantageInputs
    from .rollout.batch import Batch
    from .solvers import (
        CGResult,
        Direction,
        DirectionSettings,
        LineSearchResult,
        Status,
        StepSettings,
        Trial,
        TrustRegionReport,
        backtracking_line_search,
        conjugate_gradient,
        find_direction,
        step_length,
        trust_region_step,
        try_step,
    )

__version__ = "0.1.0"

_register_with_threadpoolctl(__version__)

_HOMES = {
    "TRPO": "algorithm.trpo",
    "TRPOConfig": "algorithm.config",
    "EvaluationResult": "algorithm.evaluation",
    "Callback": "algorithm.callbacks",
    "CheckpointCallback": "algorithm.callbacks",
    "EvaluationCallback": "algorithm.callbacks",
    "EveryNTimesteps": "algorithm.callbacks",
    "ProgressBar": "algorithm.callbacks",
    "StopAtReturn": "algorithm.callbacks",
    "RunLogger": "algorithm.logging",
    "MLPPolicy": "policies",
    "MLPCritic": "policies",
    "AdvantageInputs": "rollout.advantages",
    "StepInputs": "algorithm.hooks",
    "Batch": "rollout.batch",
    "DistributedEngine": "engines",
    "RankError": "ranks",
    "Ranks": "ranks",
    "make_engine": "engines",
    "fisher_matrix": "engines",
    "KroneckerPreconditioner": "_core.preconditioner",
    "CGResult": "solvers",
    "Direction": "solvers",
    "DirectionSettings": "solvers",
    "LineSearchResult": "solvers",
    "Status": "solvers",
    "StepSettings": "solvers",
    "Trial": "solvers",
    "TrustRegionReport": "solvers",
    "backtracking_line_search": "solvers",
    "conjugate_gradient": "solvers",
    "find_direction": "solvers",
    "step_length": "solvers",
    "trust_region_step": "solvers",
    "try_step": "solvers",
}

__all__ = [
    "TRPO",
    "AdvantageInputs",
    "Batch",
    "CGResult",
    "Callback",
    "CheckpointCallback",
    "Direction",
    "DirectionSettings",
    "DistributedEngine",
    "EvaluationCallback",
    "EvaluationResult",
    "EveryNTimesteps",
    "KroneckerPreconditioner",
    "LineSearchResult",
    "MLPCritic",
    "MLPPolicy",
    "ProgressBar",
    "RankError",
    "Ranks",
    "RunLogger",
    "Status",
    "StepInputs",
    "StepSettings",
    "StopAtReturn",
    "TRPOConfig",
    "Trial",
    "TrustRegionReport",
    "backtracking_line_search",
    "conjugate_gradient",
    "find_direction",
    "fisher_matrix",
    "get_num_threads",
    "instruction_set",
    "make_engine",
    "set_num_threads",
    "step_length",
    "trust_region_step",
    "try_step",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = _import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __name__:
            raise
        raise ImportError(
            f"trpo_fast.{name} needs {error.name}, which is not installed: pip install torch gymnasium tqdm. "
            "The solvers need numpy alone."
        ) from error
    value: object = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
