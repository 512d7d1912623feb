"""`calls` with a call that crashes, for its test."""

import os
import signal

from tests.trust import calls, planted

if __name__ == "__main__":
    planted.main(calls, lambda: os.kill(os.getpid(), signal.SIGSEGV))
