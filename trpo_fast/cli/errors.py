"""What commands raise for their user to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """The command cannot be done as asked; shown without a traceback, exit code 2."""


def describe(error: Exception) -> str:
    """One line for the user; of an OSError the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turn the errors that the library raises for bad input, and ``more``, into CommandError."""
    expected: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, *more)
    try:
        yield
    except expected as error:
        raise CommandError(describe(error)) from error
