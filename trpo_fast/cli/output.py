"""Where lines for people go: stdout, or nowhere with --quiet.

Beside --json, which has stdout for itself, ``sys.stdout`` is stderr, for whatever else prints, tables of rows and
environments for instance; and so is file descriptor 1, for worker processes and compiled code.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

_mode = "text"  # of the command that this process is
_answers: TextIO | None = None  # of --json; None is sys.stdout


@contextmanager
def mode(*, json: bool = False, quiet: bool = False) -> Iterator[None]:
    """Print for a program, or nothing but errors and warnings, while it is entered; `quiet` wins for lines."""
    global _mode, _answers, unwritten
    unwritten = None
    before = _mode, _answers
    try:
        with _stdout_for_answers() if json else nullcontext(_answers) as answers:
            _mode, _answers = "quiet" if quiet else "json" if json else "text", answers
            yield
    finally:
        _mode, _answers = before


@contextmanager
def _stdout_for_answers() -> Iterator[TextIO]:
    """What stdout was; all that prints there in the meantime, child processes included, prints on stderr."""
    answers = sys.stdout
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        with suppress(OSError, ValueError, AttributeError):  # one that somebody put there may have no descriptor
            if answers.fileno() == 1:
                answers.flush()
                kept = os.fdopen(os.dup(1), "w", encoding=answers.encoding, errors=answers.errors)
                stack.callback(kept.close)
                stack.callback(os.dup2, kept.fileno(), 1)
                os.dup2(2, 1)
                answers = kept
        yield answers


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _mode == "quiet"


_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)
unwritten: OSError | None = None
"""Why some of what was to be printed on stdout is not there."""


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, by default one for people; nobody may be reading any more, a closed terminal for example.

    A `stream` that is given has errors and warnings, which --quiet leaves. What cannot be written for another reason,
    as a full disk, ends no training, and is `unwritten` from then on.
    """
    global unwritten
    if stream is None:
        if _mode == "quiet":
            return
        stream = sys.stdout
    try:
        try:
            print(line, file=stream, flush=True)
        except UnicodeEncodeError:  # of a file's name that is no text, or letters that the terminal has not
            encoding = stream.encoding or "ascii"
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if error.errno not in _NOBODY_READS and stream is not sys.stderr:
            unwritten = unwritten or error
        with suppress(OSError, ValueError):  # what waits in the buffer is not to fail again when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def answer(values: Any, indent: int | None = None) -> None:
    """Print JSON, a line without `indent`, and nothing else on stdout; what is not finite is null, as JSON has it."""
    say(json.dumps(_finite(values), indent=indent), _answers or sys.stdout)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def shows_progress() -> bool:
    """Whether somebody watches: stderr is a terminal, and --quiet was not given."""
    return _mode != "quiet" and sys.stderr.isatty()


def bar(total: int, unit: str, *, initial: int = 0) -> Any:
    """A tqdm bar on stderr, which shows nothing where nobody watches."""
    from tqdm import tqdm  # which bench and info do without

    return tqdm(total=total, initial=initial, unit=unit, leave=False, dynamic_ncols=True, disable=not shows_progress())


def progress(items: Iterable[Item], unit: str, total: int | None = None) -> Iterable[Item]:
    """`items`, with a bar of how many have been taken where somebody watches."""
    if not shows_progress():
        return items
    from tqdm import tqdm

    shown: Iterable[Item] = tqdm(items, total=total, unit=unit, leave=False, dynamic_ncols=True)
    return shown


@contextmanager
def own_warnings_in_a_line() -> Iterator[None]:
    """Print a warning of this package as its text: a line of its source tells who typed a command nothing."""
    before = warnings.formatwarning

    def text(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") == "warnings":
            frame = frame.f_back
        # Not `filename`: warnings point at who called this package.
        # NumPy's, of another category, have their place in this package to tell.
        is_own = (
            category is UserWarning
            and frame is not None
            and str(frame.f_globals.get("__name__")).partition(".")[0] == "trpo_fast"
        )
        return f"warning: {message}\n" if is_own else before(message, category, filename, lineno, line)

    warnings.formatwarning = text
    try:
        yield
    finally:
        warnings.formatwarning = before
