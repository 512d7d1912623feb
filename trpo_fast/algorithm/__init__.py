"""The algorithm: configuration, the TRPO agent, its files, callbacks and logs.

Names load when they are first used, so that the command line reads the configuration's declarations without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import Callback, CheckpointCallback, EvaluationCallback, ProgressBar, StopAtReturn
    from .config import TRPOConfig
    from .evaluation import EvaluationResult
    from .logging import RunLogger
    from .report import UpdateReport
    from .trpo import TRPO

_HOMES = {
    "Callback": "callbacks",
    "CheckpointCallback": "callbacks",
    "EvaluationCallback": "callbacks",
    "EvaluationResult": "evaluation",
    "ProgressBar": "callbacks",
    "RunLogger": "logging",
    "StopAtReturn": "callbacks",
    "TRPO": "trpo",
    "TRPOConfig": "config",
    "UpdateReport": "report",
}

__all__ = [
    "TRPO",
    "Callback",
    "CheckpointCallback",
    "EvaluationCallback",
    "EvaluationResult",
    "ProgressBar",
    "RunLogger",
    "StopAtReturn",
    "TRPOConfig",
    "UpdateReport",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
