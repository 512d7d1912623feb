"""Ctrl-C before a command begins; tests/cli/test_commands.py has it in processes."""

import signal

from trpo_fast import starting


def test_ctrl_c_raises_again_once_everything_is_loaded_and_stays_ignored_where_it_is():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        starting.begin()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        starting.end()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        starting.begin()
        starting.end()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
