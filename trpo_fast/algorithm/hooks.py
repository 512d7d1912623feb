"""Parts of an update that a user may replace by functions: the advantages, the step.

Functions are no settings: neither a configuration nor a file has them. A file says their names, so that training does
not go on without them unnoticed; acting needs none.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import as_double, in_words
from trpo_fast.rollout.advantages import AdvantageFunction
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers.settings import DirectionSettings, StepSettings
from trpo_fast.solvers.status import Status
from trpo_fast.solvers.trust_region import TrustRegionReport, trust_region_step

if TYPE_CHECKING:
    from trpo_fast.engines import AutogradEngine, DistributedEngine, NativeEngine


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What a step is taken with, beside the engine, which is bound to `batch` at the current parameters."""

    batch: Batch
    """The samples, advantages normalized where the configuration says so; its arrays must not be written. Of several
    ranks those of this one, while what the engine computes is of all."""
    direction: DirectionSettings
    """Of the configuration."""
    step: StepSettings
    """Of the configuration, `max_kl` as its schedule has it now."""
    fisher_rows: NDArray[np.int64] | None
    """(S,) rows of the batch that F is to be averaged over, by `fisher_subsample`; None for all."""

    def trust_region_step(self, engine: Any, **changes: Any) -> TrustRegionReport:
        """The step of an agent without a function of its own; `changes` are keywords of `trust_region_step`."""
        return trust_region_step(
            engine, **{"direction": self.direction, "step": self.step, "fisher_rows": self.fisher_rows, **changes}
        )


StepFunction = Callable[[Any, StepInputs], TrustRegionReport]
"""``function(engine, inputs) -> TrustRegionReport``, which changes the engine's parameters or leaves every bit."""

NAMES = ("advantages", "step")
_WANT = {
    "advantages": "a function (inputs) -> (advantages, returns)",
    "step": "a function (engine, inputs) -> TrustRegionReport",
}


@dataclass(frozen=True)
class Hooks:
    """The functions of one agent; None for what is built in."""

    advantages: AdvantageFunction | None = None
    step: StepFunction | None = None
    missing: Mapping[str, str] | None = None
    """Names of those that the saved agent had, and that were not given again."""

    @classmethod
    def of(cls, advantages: Any, step: Any, saved: Mapping[str, str | None] | None = None) -> Hooks:
        """What a user gives, checked; `saved` has the names of those that the saved agent had."""
        given = {"advantages": advantages, "step": step}
        for name, function in given.items():
            if function is not None and not callable(function):
                raise TypeError(f"{name}: {in_words(function)} given; want {_WANT[name]}")
        missing = {name: told for name, told in (saved or {}).items() if told is not None and given[name] is None}
        return cls(advantages, step, missing)

    @property
    def names(self) -> dict[str, str | None]:
        """Of each, where it is not the built-in one; for files."""
        missing = self.missing or {}
        functions = {"advantages": self.advantages, "step": self.step}
        return {name: missing.get(name) if f is None else name_of(f) for name, f in functions.items()}

    def require(self) -> None:
        """ValueError naming what the saved agent was trained with and this one lacks."""
        for name, told in (self.missing or {}).items():
            raise ValueError(
                f"{name}: this agent was trained with a function of its own, {told}, which a file does not hold; want "
                f"TRPO.load(path, {name}=...) with it, or with another, to learn on"
            )

    def take_step(
        self, engine: NativeEngine | AutogradEngine | DistributedEngine, inputs: StepInputs
    ) -> TrustRegionReport:
        """The step of one update.

        Raises
        ------
        TypeError, ValueError
            Of the user's function, beginning with "step": it returned something else than a report, or one with a field
            that is not what `TrustRegionReport` says of it, left a parameter that is not finite, or changed parameters
            and reported that no step was taken. What it raises travels to the caller.
        """
        if self.step is None:
            return inputs.trust_region_step(engine)
        before = engine.parameters().copy()
        report = _checked(self.step(engine, inputs))
        try:
            engine.refresh()
        except ValueError as error:
            raise ValueError(f"step: the function left parameters that cannot be: {error}") from error
        if report.status != Status.SUCCESS and engine.parameters().tobytes() != before.tobytes():
            raise ValueError(
                f"step: the function reported {report.status!r}, no step, and changed parameters; want them as they "
                "were, bit for bit, or SUCCESS"
            )
        return report


def _checked(report: Any) -> TrustRegionReport:
    """What a function returned, each field as a `TrustRegionReport` has it: others log, save and compare them."""
    if not isinstance(report, TrustRegionReport):
        raise TypeError(f"step: the function returned {type(report).__name__}; want a TrustRegionReport")
    found: dict[str, Any] = {}
    for entry in fields(report):
        found[entry.name] = _RULES[entry.type](entry.name, getattr(report, entry.name))
    nan = [name for name, value in found.items() if isinstance(value, float) and math.isnan(value)]
    if nan and report.status >= 0:  # where a step failed, as NON_FINITE, there may be nothing to say
        raise ValueError(f"step: the function reported {nan[0]} nan with {report.status!r}; want a number")
    return TrustRegionReport(**found)


def _reported(name: str, value: Any, want: str) -> str:
    return f"step: the function reported {name} {in_words(value)}; want {want}"


def _status(name: str, value: Any) -> Status:
    if not isinstance(value, Status):
        raise TypeError(_reported(name, value, "a Status"))
    return value


def _number(name: str, value: Any) -> float:
    try:
        return as_double(value, name)
    except (TypeError, ValueError) as error:
        raise type(error)(_reported(name, value, "a number that a float holds")) from None


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise TypeError(_reported(name, value, "an integer >= 0"))
    return int(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(_reported(name, value, "a string"))
    return value


def _timings(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise TypeError(_reported(name, value, "seconds by name"))
    seconds = {key: _number(f"{name}[{key!r}]", one) for key, one in value.items()}
    return {"gradient": 0.0, "solve": 0.0, "line_search": 0.0, **seconds}


# By what TrustRegionReport declares.
_RULES: Mapping[Any, Callable[[str, Any], Any]] = {
    "Status": _status,
    "float": _number,
    "int": _count,
    "str": _text,
    "dict[str, float]": _timings,
}


def name_of(function: Any) -> str:
    """Module and name of a function, or of the type of anything else."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
