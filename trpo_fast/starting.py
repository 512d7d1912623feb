"""The command line before any of its own lines: importing this package and torch takes it seconds.

Ctrl-C ends it with a line there, since nothing has begun that could be lost. Raising KeyboardInterrupt would end in
tracebacks of other packages' imports or, from within the compiled part of one, in a crash.
"""

import os
import signal
import sys

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def is_command() -> bool:
    """Whether this process is ``trpo-fast`` or ``python -m trpo_fast``."""
    program = sys.argv[0] if sys.argv else ""
    # For the latter, "-m" still stands where the file's name will.
    return program.endswith("trpo-fast") or (program == "-m" and "trpo_fast" in sys.orig_argv)


def begin() -> None:
    """Let Ctrl-C end the process from now on; where it is ignored, as in the background, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: object) -> None:
    os.write(2, b"trpo-fast: interrupted\n")
    os._exit(INTERRUPTED)
