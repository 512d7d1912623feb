"""Settings for some environments by their id, each with its evidence: trpo_fast/presets.toml, or a file of one's own.

Neither torch nor Gymnasium is needed to read them.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_fast._core.library import in_words
from trpo_fast.algorithm.config import TRPOConfig, check_field_names
from trpo_fast.files import read_regular
from trpo_fast.settings import names_near

AUTO = "auto"
SUFFIX = ".toml"
"""What the name of a preset ends with that is a file."""


@dataclass(frozen=True)
class Preset:
    """What one environment is trained with in place of the defaults."""

    name: str
    """The environment's id, version included."""
    actions: str
    """Its action space as `action_words` has it; for another one the settings mean something else."""
    settings: Mapping[str, Any]
    """Fields of TRPOConfig."""
    evidence: str
    """What was measured, and with what the defaults compare."""

    def described(self, config: Any) -> str:
        """Its name, and those of its settings that are in force in `config`."""
        own = [f"{name}={value!r}" for name, value in self.settings.items() if getattr(config, name) == value]
        return f"{self.name} ({', '.join(own) or 'of which other settings were given'})"


@functools.cache
def all_presets() -> Mapping[str, Preset]:
    """All that this package has, by name."""
    return _parsed(importlib.resources.files("trpo_fast").joinpath("presets.toml").read_text(encoding="utf-8"))


def read_presets(path: str | Path) -> Mapping[str, Preset]:
    """Those of a file, by name; ValueError, naming it, where it cannot be read or is not one of presets.

    It is TOML: a table for each environment's id, with ``actions``, ``settings`` and ``evidence``.
    """
    try:
        found = _parsed(read_regular(path).decode())
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"preset: {path} given, which cannot be read ({why}); want a file of presets") from error
    except RecursionError as error:
        raise ValueError(f"preset: {path}: nested too deeply") from error
    except (ValueError, TypeError) as error:  # of TOML and of UTF-8 are ValueErrors
        raise ValueError(f"preset: {path}: {error}") from error
    if not found:
        raise ValueError(f"preset: {path} is empty; want a table of actions, settings and evidence for an environment")
    return found


def _parsed(text: str) -> Mapping[str, Preset]:
    wanted = {"actions": str, "settings": dict, "evidence": str}
    found = {}
    for name, entry in tomllib.loads(text).items():
        if not isinstance(entry, dict) or entry.keys() != wanted.keys():
            keys = sorted(entry) if isinstance(entry, dict) else entry
            raise ValueError(f"{in_words(name)}: {in_words(keys)} given; want a table of {', '.join(wanted)}")
        for key, kind in wanted.items():
            if not isinstance(entry[key], kind):
                raise ValueError(f"{in_words(name)}: {key}: {in_words(entry[key])} given; want a {kind.__name__}")
        settings = entry["settings"]
        check_field_names(settings)
        if "num_envs" in settings:
            what = f"{in_words(name)}: settings: num_envs given"
            raise ValueError(f"{what}; want it left out: environments are made before")
        made = TRPOConfig(**settings)
        settings = {key: getattr(made, key) for key in settings}
        found[name] = Preset(name, entry["actions"], settings, " ".join(entry["evidence"].split()))
    return found


def rendered(preset: Preset, head: str) -> str:
    """A file of one preset under a line of comment; settings that are None, which TOML has not, are left out."""
    settings = ", ".join(f"{key} = {_toml(value)}" for key, value in preset.settings.items() if value is not None)
    return (
        f"# {head}\n[{_toml(preset.name)}]\nactions = {_toml(preset.actions)}\n"
        f"settings = {{ {settings} }}\nevidence = {_toml(preset.evidence)}\n"
    )


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):  # what is no text, as a file's name may be, is none in TOML either
        value = value.encode(errors="replace").decode()
    # JSON's strings, numbers and booleans are TOML's, but for surrogate pairs and this one.
    return "inf" if value == math.inf else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def candidates(preset: Any) -> Mapping[str, Preset]:
    """What `preset` may mean, by name: all for "auto", the one named, those of a file, none for None.

    A file is read here alone: an environment that is made afterwards may change the working folder, or the file.

    Raises
    ------
    ValueError
        It is none of these, near names are named; or a file that cannot be read, or is not one of presets.
    """
    if preset is None:
        return {}
    if isinstance(preset, str):
        if preset == AUTO:
            return all_presets()
        if preset in all_presets():
            return {preset: all_presets()[preset]}
        if preset.endswith(SUFFIX):
            return read_presets(preset)
    hint = names_near(in_words(preset), all_presets(), "there are")
    raise ValueError(
        f"preset: {in_words(preset)} given; want {AUTO!r}, None (--preset none), a file of trpo-fast tune (*{SUFFIX}) "
        f"or the name of one: {hint}"
    )


def preset_for(
    preset: str | None, found: Mapping[str, Preset], env_id: str | None, actions: str, *, whole_config: bool
) -> Preset | None:
    """The preset to train with, or None.

    Parameters
    ----------
    preset : str or None
        "auto": that of `env_id`, where there is one for these actions and nothing is said by a whole configuration; or
        the name of one, or its file.
    found : mapping
        The `candidates` that it may mean.
    env_id : str or None
        None for what is not made by its id.
    actions : str
        The environment's action space, as `action_words` has it.
    whole_config : bool
        Whether every setting has been given already.

    Raises
    ------
    ValueError
        The one named is of another version of the environment, or for other actions, or a file has several and none
        for the environment; or a whole configuration leaves it nothing to say.
    """
    if preset is None:
        return None
    plain = plain_id(env_id)
    if preset == AUTO:
        auto = None if whole_config or plain is None else found.get(plain)
        return auto if auto is not None and auto.actions == actions else None
    if whole_config:
        raise ValueError(f"preset: {preset!r} given with a config, which says every setting; want one of the two")
    if plain is not None and plain in found:
        one = found[plain]
    elif len(found) == 1:
        (one,) = found.values()
    else:
        raise ValueError(f"preset: {preset} given, which has none for {plain}; it is for {', '.join(found)}")
    given = repr(preset) if preset == one.name else f"{preset!r}, of {one.name},"
    if plain is not None and plain != one.name and _unversioned(plain) == _unversioned(one.name):
        raise ValueError(f"preset: {given} given for {plain}, another version; want preset=None, --preset none")
    if one.actions != actions:
        raise ValueError(
            f"preset: {given} given, which is for actions {one.actions}; the environment has {actions}; want "
            "preset=None, --preset none"
        )
    return one


def plain_id(env_id: str | None) -> str | None:
    """An id without the module that registers it."""
    return None if env_id is None else env_id.rpartition(":")[2]


def _unversioned(env_id: str) -> str:
    return env_id.rpartition("-v")[0] or env_id
