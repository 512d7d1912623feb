"""What commands raise for their user to read."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_ROOMS = ("trpo_fast.environments", "trpo_fast.spaces", "trpo_fast.rollout")
"""Where the answers of environments are looked at."""


class CommandError(Exception):
    """The command cannot be done as asked; shown without a traceback, exit code 2."""


def describe(error: Exception) -> str:
    """One line for the user; of an OSError the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def is_of_an_answer(error: Exception) -> bool:
    """Whether it was raised where an environment's answer was looked at: it says by itself what there is to mend."""
    if not isinstance(error, TypeError | ValueError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return any(module == room or module.startswith(f"{room}.") for room in _ROOMS)


@contextmanager
def errors_of(option: str) -> Iterator[None]:
    """Turn the ValueError of an argument, which begins with its name, into a CommandError of the option for it."""
    try:
        yield
    except ValueError as error:
        raise CommandError(f"{option}: {str(error).partition(': ')[2]}") from error


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turn the errors that the library raises for bad input, and ``more``, into CommandError."""
    expected: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, *more)
    try:
        yield
    except expected as error:
        raise CommandError(describe(error)) from error
