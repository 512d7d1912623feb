"""Where the command line begins: ``trpo-fast train``, ``eval``, ``plot``, ``export``, ``bench`` and ``info``."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Sequence

from trpo_fast.cli.arguments import make_parser
from trpo_fast.cli.errors import CommandError, describe

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 1 (failed on the way), 2 (cannot be done as asked), 130 (Ctrl-C)."""
    arguments = make_parser().parse_args(argv)
    # Without it an ending interpreter spends up to a second on collecting what torch and matplotlib leave behind.
    atexit.register(gc.freeze)
    try:
        # Loaded only now, so that --help and a misspelt option answer at once; bench and info need numpy alone.
        command = importlib.import_module(f"trpo_fast.cli.{arguments.module}")
    except ModuleNotFoundError as error:
        print(f"trpo-fast {arguments.command}: error: needs {error.name}, which is not installed", file=sys.stderr)
        return 2
    except ImportError as error:  # a package of another version than is wanted, which the error names
        print(f"trpo-fast {arguments.command}: error: {error}", file=sys.stderr)
        return 2
    try:
        return int(command.run(arguments))
    except CommandError as error:
        print(f"trpo-fast {arguments.command}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"trpo-fast {arguments.command}: error: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"trpo-fast {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
