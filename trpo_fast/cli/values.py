"""What options take: texts become numbers, names and settings, or an error that says what is wanted."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from trpo_fast.algorithm.config import LOG
from trpo_fast.cli.errors import CommandError
from trpo_fast.files import read_regular


def option_of(field_name: str) -> str:
    """The option of ``train`` that sets a field of TRPOConfig."""
    return "--" + field_name.replace("_", "-")


def field_parser(entry: dataclasses.Field[Any]) -> Callable[[str], Any]:
    """What reads a field of TRPOConfig."""
    rule = entry.metadata["rule"]

    def parse(text: str) -> Any:
        try:
            return rule.convert(_from_text(text, entry))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"{text!r} given; want {_want(entry)}") from None

    return parse


def _from_text(text: str, entry: dataclasses.Field[Any]) -> Any:
    default: Any = entry.default
    if text.lower() == "none" and ("None" in str(entry.type) or "like" in entry.metadata):
        return None
    if "like" in entry.metadata:
        default = entry.metadata["like"]
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else text
    if isinstance(default, tuple):
        return () if text.lower() == "none" else tuple(map(int, text.split(",")))
    return text if default is None else type(default)(text)


def _want(entry: dataclasses.Field[Any]) -> str:
    if isinstance(entry.default, bool):
        return "true or false"
    if isinstance(entry.default, tuple):
        return "integers >= 1 with commas between them, at most 2**24 each, e.g. 64,64; or none"
    return str(entry.metadata["rule"].want)


def sinks(text: str) -> Any:
    """Names of where rows go."""
    try:
        return LOG.convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; want {LOG.want}") from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} given; want a JSON object, e.g. '{{\"gravity\": 9.8}}'")
    return value


def shown(default: Any) -> str:
    """A setting's value as its option takes it."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "none"
    return str(default)


def text(value: str) -> str:
    """A name or path; an empty one, of a variable that is not set, would be taken for none given."""
    if not value:
        raise argparse.ArgumentTypeError("'' given; want it with a value, or left out")
    return value


def _whole_number(text: str, least: int, most: int = 2**63 - 1) -> int:
    try:
        value = Decimal(text)  # so that 1e6 is understood, and 1e30 is what it says
    except InvalidOperation:
        value = Decimal("nan")
    if not (value.is_finite() and least <= value <= most and value == int(value)):
        want = f">= {least}, below 2**63" if most == 2**63 - 1 else f"from {least} to 2**{most.bit_length()} - 1"
        raise argparse.ArgumentTypeError(f"{text!r} given; want an integer {want}")
    return int(value)


def count(text: str) -> int:
    """An integer >= 1."""
    return _whole_number(text, 1)


def count_or_zero(text: str) -> int:
    """An integer >= 0."""
    return _whole_number(text, 0)


def seed(text: str) -> int:
    """What NumPy's generators and simulators take."""
    return _whole_number(text, 0, 2**32 - 1)


def read_json_object(path: Path, name: object) -> dict[str, Any]:
    """What a file says.

    FileNotFoundError where there is none; CommandError, which begins with `name`, where it cannot be read as an object.
    """
    try:
        content = json.loads(read_regular(path).decode())
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise CommandError(f"{name} is a folder; want a file, as config.json of a run's folder") from error
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise CommandError(f"{name} is no JSON object: nested too deeply") from error
    except ValueError as error:
        raise CommandError(f"{name} is no JSON object: {error}") from error
    if not isinstance(content, dict):
        raise CommandError(f"{name} is no JSON object: it holds a {type(content).__name__}")
    return content
