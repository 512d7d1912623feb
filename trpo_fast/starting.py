"""The command line before any of its own lines: importing this package and torch takes it seconds.

Ctrl-C ends it with a line there, since nothing has begun that could be lost. Raising KeyboardInterrupt would end in
tracebacks of other packages' imports or, from within the compiled part of one, in a crash.
"""

import os
import signal
import sys
import threading

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def is_command() -> bool:
    """Whether this process is ``trpo-fast`` or ``python -m trpo_fast``."""
    program = sys.argv[0] if sys.argv else ""
    # While the package is imported, "-m" stands where later the file's name does.
    if program == "-m" or program == os.path.join(os.path.dirname(__file__), "__main__.py"):
        return "-m" in sys.orig_argv and sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["trpo_fast"]
    name, suffix = os.path.splitext(os.path.basename(program))
    return name == "trpo-fast" and suffix in ("", ".exe") and not os.path.isdir(program)


def begin() -> None:
    """Let Ctrl-C end the command from now on; where it is ignored, as in the background, it stays so.

    Does nothing in any other program, nor in a process that the command started, which imports its file again.
    """
    started = sys.modules.get("multiprocessing.process")
    if not is_command() or (started is not None and started.parent_process() is not None):
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_own(handler: object) -> bool:
    """Whether `handler` of a signal is what :func:`begin` put there."""
    return handler is _leave


def _leave(number: int, frame: object) -> None:
    os.write(2, b"trpo-fast: interrupted\n")
    os._exit(INTERRUPTED)
