"""Settings that are declared once: a default, a rule for values, a meaning, and the reason for the default.

A dataclass whose fields are made by `setting` is checked, documented, read from a command line and written to
docs/configuration.md from these declarations alone; `declared` puts one of them into another dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from trpo_fast._core.library import as_double, in_words


class UnavailableError(ValueError):
    """A setting that can be, asks for what this machine or build has not."""


@dataclass(frozen=True)
class Rule:
    """What a setting accepts.

    ``convert`` returns the stored value, or raises TypeError for another kind of thing and ValueError for a value that
    cannot be; ``want`` says in words what can.
    """

    want: str
    convert: Callable[[Any], Any]


def checked(name: str, value: Any, rule: Rule) -> Any:
    """``value`` as ``rule`` stores it; ValueError naming ``name``, the value and what is wanted."""
    try:
        return rule.convert(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {in_words(value)} given; want {rule.want}") from None


def required(name: str, value: Any, rule: Rule) -> Any:
    """As `checked`, in the words of the solvers: TypeError where `value` is another kind of thing."""
    try:
        return rule.convert(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {in_words(value)} given; want {rule.want}") from None


def real(want: str, accepts: Callable[[float], bool]) -> Rule:
    """A real number, stored as a float, of which `accepts` says whether it can be."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError
        number = as_double(value, want)  # ValueError beyond the largest float
        if not accepts(number):  # NaN fails every comparison, so it is never accepted
            raise ValueError
        return number

    return Rule(want, convert)


def integer(want: str, least: int, most: float = math.inf) -> Rule:
    """An integer from `least` to `most`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError
        if not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return Rule(want, convert)


def choice(*names: str | None) -> Rule:
    """One of `names`."""

    def convert(value: Any) -> str | None:
        if not (value is None or isinstance(value, str)) or value not in names:
            raise ValueError
        return value

    return Rule("one of " + ", ".join(map(repr, names)), convert)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


FLAG = Rule("True or False", _flag)
POSITIVE = real("a finite number > 0", lambda v: 0 < v < math.inf)
NOT_NEGATIVE = real("a finite number >= 0", lambda v: 0 <= v < math.inf)
INNER_FRACTION = real("a number in (0, 1)", lambda v: 0 < v < 1)
# The core's counters are C integers.
COUNT = integer("an integer >= 0, below 2**31", 0, 2**31 - 1)
POSITIVE_COUNT = integer("an integer >= 1, below 2**31", 1, 2**31 - 1)
SEED = integer("an integer from 0 to 2**32 - 1", 0, 2**32 - 1)
COUNTER = integer("an integer from 0 to 2**63 - 1", 0, 2**63 - 1)


@dataclass(frozen=True)
class Search:
    """What a search for better values tries: numbers from `low` to `high`, or one of `choices`."""

    low: float = math.nan
    high: float = math.nan
    logarithmic: bool = False
    """Whether numbers are drawn evenly in their logarithm."""
    choices: tuple[Any, ...] = ()
    of: str = "all"
    """The agents for which the setting does something: "all", those of "gaussian" actions, "recurrent" ones."""

    @property
    def described(self) -> str:
        """In words."""
        if self.choices:
            return f"one of {', '.join(map(repr, self.choices))}"
        return f"{self.low:g} to {self.high:g}{', by its logarithm' if self.logarithmic else ''}"


def log_range(low: float, high: float) -> Search:
    """Numbers from `low` to `high`, drawn evenly in their logarithm."""
    return Search(low, high, logarithmic=True)


def linear_range(low: float, high: float, *, of: str = "all") -> Search:
    """Numbers from `low` to `high`, drawn evenly; `of` is as in :class:`Search`."""
    return Search(low, high, of=of)


def one_of(*choices: Any, of: str = "all") -> Search:
    """One of `choices`; `of` is as in :class:`Search`."""
    return Search(choices=choices, of=of)


def setting(default: Any, rule: Rule, meaning: str, *, why: str, search: Search | None = None) -> Any:
    """A dataclass field: `meaning` and `why`, the reason for `default`, are parts of sentences without their stops.

    `search` is what ``trpo-fast tune`` tries; None where it leaves the setting alone.
    """
    return field(default=default, metadata={"rule": rule, "meaning": meaning, "why": why, "search": search})


def declared(kind: type[Any], name: str, **changes: Any) -> Any:
    """A dataclass field as `kind` declares it under `name`, but for `changes`: another `default`, and its `why`."""
    entry = kind.__dataclass_fields__[name]
    default = changes.pop("default", entry.default)
    return field(default=default, metadata={**entry.metadata, **changes})


def described(entry: dataclasses.Field[Any]) -> str:
    """What documentation has to say of one setting, in numpydoc's form."""
    meta = entry.metadata
    return (
        f"{entry.name} : {entry.type}, default {entry.default!r}\n"
        f"    {meta['meaning']}. Want: {meta['rule'].want}.\n"
        f"    Why {entry.default!r}: {meta['why']}."
    )


def document(kind: type[Any]) -> None:
    """Add to the docstring of a dataclass what it declares."""
    attributes = "\n".join(map(described, dataclasses.fields(kind)))
    kind.__doc__ = f"{kind.__doc__}\n\nAttributes\n----------\n{attributes}"


def names_near(name: str, known: Collection[str], otherwise: str) -> str:
    """Names of `known` that `name` may have been meant to be; all of them, after `otherwise`, where none is near."""
    near = difflib.get_close_matches(str(name), known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {', '.join(known)}"


@dataclass(frozen=True)
class Settings:
    """Base of a frozen dataclass of settings that is checked when it is made, in the words of the solvers."""

    def __post_init__(self) -> None:
        values = vars(self)
        for name, entry in self.__dataclass_fields__.items():
            values[name] = required(name, values[name], entry.metadata["rule"])

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; TypeError for an unknown one, with the names nearest to it."""
        known = self.__dataclass_fields__
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"{name!r} is no field of {type(self).__name__}; {names_near(name, known, 'the fields are')}"
                )
        return type(self)(**{**vars(self), **changes})
