"""Settings for some environments by their id, each with its evidence: trpo_fast/presets.toml."""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from trpo_fast.settings import names_near

AUTO = "auto"


@dataclass(frozen=True)
class Preset:
    """What one environment is trained with in place of the defaults."""

    name: str
    """The environment's id, version included."""
    actions: str
    """Its action space as `describe_actions` has it; for another one the settings mean something else."""
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
    """All there are, by name."""
    text = importlib.resources.files("trpo_fast").joinpath("presets.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)
    return {
        name: Preset(name, entry["actions"], entry["settings"], " ".join(entry["evidence"].split()))
        for name, entry in entries.items()
    }


def describe_actions(space: spaces.Space[Any]) -> str:
    """Kind and size of an action space, e.g. ``"Discrete(2)"`` or ``"Box(6,)"``; bounds do not count."""
    if isinstance(space, spaces.Box):
        return f"Box{space.shape}"
    return str(space)


def require_known(preset: Any) -> None:
    """ValueError for what is neither "auto", nor None, nor the name of one; near ones are named."""
    if preset in (None, AUTO) or (isinstance(preset, str) and preset in all_presets()):
        return
    hint = names_near(str(preset), all_presets(), "there are")
    raise ValueError(f"preset: {preset!r} given; want {AUTO!r}, None (--preset none) or the name of one: {hint}")


def preset_for(
    preset: str | None, env_id: str | None, action_space: spaces.Space[Any], *, whole_config: bool
) -> Preset | None:
    """The preset to train with, or None.

    Parameters
    ----------
    preset : str or None
        "auto": that of `env_id`, where there is one for these actions and nothing is said by a whole configuration; or
        the name of one, which `require_known` lets pass.
    env_id : str or None
        None for what is not made by its id.
    action_space : gymnasium.spaces.Space
    whole_config : bool
        Whether every setting has been given already.

    Raises
    ------
    ValueError
        The one named is of another version of the environment, or for other actions; or a whole configuration leaves it
        nothing to say.
    """
    if preset is None:
        return None
    plain = None if env_id is None else env_id.rpartition(":")[2]  # without the module that registers it
    actions = describe_actions(action_space)
    if preset == AUTO:
        auto = None if whole_config or plain is None else all_presets().get(plain)
        return auto if auto is not None and auto.actions == actions else None
    if whole_config:
        raise ValueError(f"preset: {preset!r} given with a config, which says every setting; want one of the two")
    if plain is not None and plain != preset and _unversioned(plain) == _unversioned(preset):
        raise ValueError(f"preset: {preset!r} given for {plain}, another version; want preset=None, --preset none")
    found = all_presets()[preset]
    if found.actions != actions:
        raise ValueError(
            f"preset: {preset!r} given, which is for actions {found.actions}; the environment has {actions}; want "
            "preset=None, --preset none"
        )
    return found


def _unversioned(env_id: str) -> str:
    return env_id.rpartition("-v")[0] or env_id
