"""`calls` with a call that hangs, for its test."""

import threading

from tests.trust import calls, planted

if __name__ == "__main__":
    calls.LIMIT = 1
    planted.main(calls, threading.Event().wait)
