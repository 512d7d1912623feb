"""Where the command line begins: ``trpo-fast COMMAND``; :mod:`trpo_fast.cli.arguments` has the commands."""

from __future__ import annotations

import atexit
import gc
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from trpo_fast import starting

starting.begin()

from trpo_fast.cli import output  # noqa: E402
from trpo_fast.cli.arguments import make_parser  # noqa: E402
from trpo_fast.cli.errors import CommandError, ExitError, describe, in_short, is_of_environment  # noqa: E402
from trpo_fast.cli.output import say  # noqa: E402
from trpo_fast.cli.stopping import Signals, Stopped  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code, one of `EXIT_CODES`."""
    name, debug = "trpo-fast", False
    signals = Signals()
    try:
        arguments = make_parser().parse_args(argv)
        name, debug = f"trpo-fast {arguments.command}", getattr(arguments, "debug", False)
        # Without it an ending interpreter spends up to a second on collecting what torch and matplotlib leave behind.
        atexit.register(gc.freeze)
        json, quiet = (bool(getattr(arguments, option, False)) for option in ("json", "quiet"))
        with output.own_warnings_in_a_line(), output.mode(json=json, quiet=quiet):
            command = _command(arguments.module)
            with signals:
                try:
                    code = int(command.run(arguments))
                except SystemExit as end:
                    raise ExitError(end) from end
        if output.unwritten is None:
            return code
        say(f"{name}: error: stdout, some of which is missing: {describe(output.unwritten)}", sys.stderr)
        return code or 1
    except (CommandError, OSError) as error:
        if debug:
            traceback.print_exception(error)
        say(f"{name}: error: {describe(error)}", sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        say(f"{name}: {stopped.word}", sys.stderr)
        return stopped.code
    except Exception as error:
        if signals.stopped is not None:
            # What the signal interrupted may well have turned it into an exception of its own.
            say(f"{name}: {signals.stopped.word}", sys.stderr)
            return signals.stopped.code
        if debug or not (isinstance(error, ExitError) or is_of_environment(error)):
            raise
        say(f"{name}: error: {in_short(error)}", sys.stderr)
        return 1
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
