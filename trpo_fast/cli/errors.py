"""What commands raise for their user to read."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed on the way; of train what was done is saved",
    2: "cannot be done as asked: the message names what to change",
    129: "ended by SIGHUP",
    130: "ended by Ctrl-C (SIGINT)",
    143: "ended by SIGTERM",
}
"""What every command ends with; what a signal ends goes on with the same command, or as it says."""
_ROOMS = ("trpo_fast.environments", "trpo_fast.gymnasium_spaces", "trpo_fast.spaces", "trpo_fast.rollout")
"""Where the answers of environments are looked at."""


class CommandError(Exception):
    """The command cannot be done as asked; shown without a traceback, exit code 2."""


def describe(error: BaseException) -> str:
    """One line for the user; of an OSError the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return _words(error) or type(error).__name__


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an environment's own __str__
        return f"{type(error).__name__}, whose text cannot be made"


def is_of_an_answer(error: Exception) -> bool:
    """Whether it was raised where an environment's answer was looked at: it says by itself what there is to mend."""
    if not isinstance(error, TypeError | ValueError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return any(module == room or module.startswith(f"{room}.") for room in _ROOMS)


def is_of_environment(error: BaseException) -> bool:
    """Whether it came out of an environment: the notes of `trpo_fast.environments` say of which; or a worker ended."""
    return _is_of_a_worker(error) or any(
        re.match(r"environment \d+, ", note) for note in getattr(error, "__notes__", ())
    )


def in_short(error: BaseException) -> str:
    """An environment's own exception: its kind and words, where it was raised, and in which environment."""
    if isinstance(error, ExitError) or _is_of_a_worker(error):
        return describe(error)
    notes = list(getattr(error, "__notes__", ()))
    of_worker = [note for note in notes if "Traceback" in note]
    if of_worker:
        places = re.findall(r'File "(.*)", line (\d+), in (.*)', of_worker[-1])
    else:
        places = [tuple(map(str, frame[:3])) for frame in traceback.extract_tb(error.__traceback__)]
    where = " at {}:{} in {}".format(*places[-1]) if places else ""
    said = "; ".join(note for note in notes if note not in of_worker)
    return f"{type(error).__name__}: {_words(error)}{where} ({said or 'in a worker'}); --debug shows the traceback"


def _is_of_a_worker(error: BaseException) -> bool:
    module = sys.modules.get("trpo_fast.environments.worker_process")  # where nothing is loaded for it, it is none
    return module is not None and isinstance(error, module.WorkerError)


class ExitError(RuntimeError):
    """Something that a command calls, an environment mostly, wanted to end the process: signals are `Stopped`."""

    def __init__(self, end: SystemExit) -> None:
        frame = traceback.extract_tb(end.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno} in {frame.name}"
        super().__init__(f"SystemExit({'' if end.code is None else repr(end.code)}) at {where}")
        self.__cause__ = end


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
