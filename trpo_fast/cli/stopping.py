"""How a command is stopped: Ctrl-C, SIGTERM and SIGHUP end it in one line, and training saves first."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from typing import Any

from trpo_fast import starting

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
_PATIENCE = 10.0  # seconds for which an impatient second one spoils nothing


class Stopped(KeyboardInterrupt):
    """A signal asks for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        # Seconds for a critic's fit under way. Who types Ctrl-C waits for the end; a scheduler sends other signals, and
        # wants the training to go on elsewhere, to the bit.
        self.patience = 0.3 if number == signal.SIGINT else 5.0

    @property
    def code(self) -> int:
        """The exit code, as shells report a signal."""
        return 128 + self.number

    @property
    def word(self) -> str:
        """What happened."""
        return _WORDS[signal.Signals(self.number)]


class Signals:
    """While it is entered, the first signal raises :class:`Stopped` in the main thread, whatever it is doing.

    Further ones are ignored for ten seconds, as they would spoil the saving. A signal that is ignored when the command
    begins, as in the background or under nohup, stays so. Where a library swallows the exception, it is raised again.

    Attributes
    ----------
    stopped : Stopped or None
        The one that was raised.
    """

    def __init__(self) -> None:
        self.stopped: Stopped | None = None
        self._raised_at = -_PATIENCE
        self._before: dict[int, Any] = {}
        self._hook: Any = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # only it gets signals
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler) or starting.is_own(before):
                self._before[number] = before
                signal.signal(number, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            # Of a command nothing is left but to end: its interpreter's ending is not interrupted by a traceback.
            signal.signal(number, _leave if starting.is_command() else before)
        if self._hook is not None:
            sys.unraisablehook = self._hook

    def _raise(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._raised_at < _PATIENCE:
            return
        self._raised_at = now
        self.stopped = Stopped(number)
        raise self.stopped

    def _unraisable(self, unraisable: Any) -> None:
        """An exception is lost in a destructor or a callback of C: the signal is meant for the command all the same."""
        if isinstance(unraisable.exc_value, Stopped):
            self._raised_at = -_PATIENCE
            # From another thread, and not at once: raised within this hook it would be lost, too.
            _thread.start_new_thread(_interrupt_soon, (unraisable.exc_value.number,))
        else:
            self._hook(unraisable)


def _interrupt_soon(number: int) -> None:
    time.sleep(1e-3)
    signal.pthread_kill(threading.main_thread().ident or 0, number)  # which ends a wait in C, too


def _leave(number: int, frame: object) -> None:
    os._exit(128 + number)
