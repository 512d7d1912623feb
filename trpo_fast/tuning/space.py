"""What a search tries, from the declarations of TRPOConfig: no torch, no Optuna."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.settings import Search, names_near

SIGNIFICANT = 3  # digits of a number that is tried, so that a preset says all of it

Space = Mapping[str, Search]


def declared_space() -> Space:
    """Every setting that declares a search, by name."""
    entries = dataclasses.fields(TRPOConfig)
    return {entry.name: entry.metadata["search"] for entry in entries if entry.metadata["search"] is not None}


def require_searchable(names: Iterable[str]) -> None:
    """ValueError for a name that is no setting that declares a search."""
    known = declared_space()
    for name in names:
        if name not in known:
            raise ValueError(f"search: {name!r} given; {names_near(name, known, 'want some of')}")


def space_for(names: Iterable[str] | None, fixed: Iterable[str], kinds: Iterable[str]) -> Space:
    """What is searched: `names`, None for all, but for what is fixed, or does nothing for agents of these `kinds`.

    Parameters
    ----------
    kinds
        Those of "gaussian" and "recurrent" that the agent is.

    Raises
    ------
    ValueError
        Nothing is left, or one of the `names` is fixed, or does nothing.
    """
    kinds = {"all", *kinds}
    left = {name: search for name, search in declared_space().items() if name not in fixed and search.of in kinds}
    if names is None:
        # A bound that was given would do nothing, and be refused, in trials that do not scale.
        wanted = [name for name in left if name != "scale_rewards" or "reward_clip" not in fixed]
    else:
        wanted = list(dict.fromkeys(names))
        require_searchable(wanted)
        for name in wanted:
            if name not in left:
                if name in fixed:
                    raise ValueError(f"search: {name!r} given, which has a value given, too; want one of the two")
                kind = declared_space()[name].of
                raise ValueError(f"search: {name!r} given, which is for {kind} agents alone; want another setting")
    if not wanted:
        raise ValueError("search: no setting is left to search; want at least one without a value given")
    return {name: left[name] for name in left if name in wanted}


def suggested(trial: Any, space: Space) -> dict[str, Any]:
    """Settings that an Optuna trial asks for; numbers of three significant digits."""
    values: dict[str, Any] = {}
    for name, search in space.items():
        if search.choices:
            texts = [json.dumps(choice) for choice in search.choices]
            values[name] = search.choices[texts.index(trial.suggest_categorical(name, texts))]
        else:
            number = trial.suggest_float(name, search.low, search.high, log=search.logarithmic)
            values[name] = min(max(float(f"{number:.{SIGNIFICANT}g}"), search.low), search.high)
    return values


def as_parameters(settings: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Settings as Optuna's parameters, to begin with; those that the space does not hold are left out."""
    found = {}
    for name, search in space.items():
        if name in settings and holds(search, settings[name]):
            found[name] = json.dumps(settings[name]) if search.choices else settings[name]
    return found


def holds(search: Search, value: Any) -> bool:
    """Whether it is one of the values that are tried."""
    return value in search.choices if search.choices else search.low <= value <= search.high


def as_json(space: Space) -> dict[str, str]:
    """For a study's file, to be compared."""
    return {name: search.described for name, search in space.items()}
