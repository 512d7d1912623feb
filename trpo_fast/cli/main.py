"""Where the command line begins: ``trpo-fast train``, ``eval``, ``plot``, ``report`` and the others."""

from __future__ import annotations

import atexit
import gc
import importlib
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trpo_fast import starting

starting.begin()

from trpo_fast.cli.arguments import make_parser  # noqa: E402
from trpo_fast.cli.errors import CommandError, describe  # noqa: E402
from trpo_fast.cli.stopping import Signals, Stopped, say  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.

    0, 1 (failed on the way), 2 (cannot be done as asked), or 128 and the number of the signal that ended it: 130 for
    Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    name = "trpo-fast"
    signals = Signals()
    try:
        arguments = make_parser().parse_args(argv)
        name = f"trpo-fast {arguments.command}"
        # Without it an ending interpreter spends up to a second on collecting what torch and matplotlib leave behind.
        atexit.register(gc.freeze)
        with _own_warnings_in_a_line():
            command = _command(arguments.module)
            with signals:
                return int(command.run(arguments))
    except CommandError as error:
        say(f"{name}: error: {error}", sys.stderr)
        return 2
    except OSError as error:
        say(f"{name}: error: {describe(error)}", sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        say(f"{name}: {stopped.word}", sys.stderr)
        return stopped.code
    except Exception:
        if signals.stopped is None:
            raise
        # What the signal interrupted may well have turned it into an exception of its own.
        say(f"{name}: {signals.stopped.word}", sys.stderr)
        return signals.stopped.code
    finally:
        starting.end()


def _command(module: str) -> Any:
    try:
        # Loaded only now, so that --help and a misspelt option answer at once; bench and info need numpy alone.
        return importlib.import_module(f"trpo_fast.cli.{module}")
    except ModuleNotFoundError as error:
        raise CommandError(f"needs {error.name}, which is not installed") from error
    except ImportError as error:  # a package of another version than is wanted, which the error names
        raise CommandError(str(error)) from error


@contextmanager
def _own_warnings_in_a_line() -> Iterator[None]:
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
