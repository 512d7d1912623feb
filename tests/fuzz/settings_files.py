"""Files of settings, as JSON and as presets in TOML."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

from tests.fuzz.decoding import Input
from trpo_fast.algorithm import presets
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.resuming import read_settings

MODULES = (
    "algorithm/presets.py",
    "algorithm/config.py",
    "settings.py",
    "cli/resuming.py:read_settings",
    "cli/values.py:read_json_object",
)
PLANTED = (
    "algorithm/presets.py",
    "            if not isinstance(entry[key], kind):",
    "            if False:",
    "AttributeError",
)
_FIELDS = [entry.name for entry in dataclasses.fields(TRPOConfig)]
_OLD = ("n_steps", "verbose", "gama", "", "hidden_size")
_ACTIONS = ("Box(3,)", "Discrete(2)", "x")
_TOML = (
    *("[", "]", "=", '"', "'''", "\n", "{", "}", ",", ".", "#", "1e400", "nan", "inf", "1979-05-27", "true", "\\u0000"),
    *(
        '["A-v1"]\n',
        'actions = "Box(3,)"\n',
        "settings = {",
        "gamma = 0.9",
        "}\n",
        'evidence = "e"\n',
        "[" * 3000,
        "9" * 5000,
    ),
)


def _settings(chosen: Input) -> dict[str, Any]:
    found = {}
    for _ in range(chosen.take(5)):
        name = chosen.choose((*_FIELDS, *_OLD))
        default = getattr(TRPOConfig, name, (64, 64))
        found[name] = copy.deepcopy(chosen.choose((default, default, chosen.value())))
    return found


def _json(chosen: Input, path: Path) -> None:
    content: Any = _settings(chosen)
    kind = chosen.take(6)
    if kind == 1:
        content = {"config": {**TRPOConfig().to_dict(), **content}, "environment": chosen.value()}
    if kind == 2:
        content = {"config": content}
    text = json.dumps(content).encode()
    if kind == 3:
        text = chosen.choose(
            (b"[" * 100_000, b"", b"[]", b"\xff", b'{"gamma": ' + b"9" * 5000 + b"}", text[:-1])
        ) + chosen.bytes(9)
    if kind == 4:
        path.mkdir()
    elif kind != 5:
        path.write_bytes(text)
    try:
        settings, _ = read_settings(str(path) if chosen.take(32) != 31 else None)
    except CommandError as error:
        assert str(error).startswith("--config: ") and str(path) in str(error) and len(str(error)) < 20_000, error
        return
    whole = settings if isinstance(settings, TRPOConfig) else TRPOConfig(**settings)
    assert TRPOConfig.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert TRPOConfig.from_saved(whole.to_dict()) == whole
    assert whole.direction_settings and whole.step_settings
    assert whole.resolved(policy="mlp", critic="mlp") is not None


def _toml(chosen: Input, path: Path) -> None:
    settings = _settings(chosen)
    try:
        name, actions = chosen.choose(("A-v1", "B-v1", 'C"\n', "")), chosen.choose((*_ACTIONS, 3))
        preset = presets.Preset(name, actions, settings, chosen.choose(("so", "so", 5)))
        text = presets.rendered(preset, "made")
    except (TypeError, ValueError):
        text = ""
    if chosen.take(2):
        text += presets.rendered(presets.Preset("D-v1", "Box(3,)", {"gamma": 0.5}, "more"), "again")
    if chosen.take(2):
        at = chosen.take(len(text) + 1)
        text = text[:at] + chosen.text(_TOML) + text[at + chosen.take(64) :]
    path.write_bytes(text.encode("utf-8", "surrogatepass") + (chosen.bytes(8) if chosen.take(4) == 1 else b""))
    name = str(path) if chosen.take(8) else chosen.choose(("CartPole-v1", "auto", "none", "Hopper-v5", "x"))
    try:
        known = {one: presets.candidates(one) for one in (name, presets.AUTO, None)}
        for plain in ("A-v1", "m:D-v1", "D-v2", "CartPole-v1", None):
            whole = chosen.take(2) == 1
            try:
                one = chosen.choose((name, presets.AUTO, None))
                found = presets.preset_for(one, known[one], plain, chosen.choose(_ACTIONS), whole_config=whole)
            except ValueError as error:
                assert "preset: " in str(error), error
                continue
            if found is not None:
                again = path.with_name("again.toml")
                again.write_text(presets.rendered(found, "again"), encoding="utf-8")
                kept = {key: value for key, value in found.settings.items() if value is not None}
                read = presets.read_presets(again)[found.name]
                assert read == dataclasses.replace(found, settings=kept), (read, found)
                assert found.described(TRPOConfig().replace(**found.settings)).startswith(found.name)
    except ValueError as error:
        assert str(error).startswith("preset: ") and len(str(error)) < 20_000, error


def run(data: bytes, folder: Path) -> None:
    """AssertionError where a file of settings is neither read, and written again the same, nor refused by name."""
    chosen = Input(data)
    if chosen.take(2):
        _json(chosen, folder / "settings.json")
    else:
        _toml(chosen, folder / "mine.toml")
