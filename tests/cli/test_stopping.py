"""Signals that come where an exception is lost."""

import os
import signal
import time

import pytest

from trpo_fast.cli.stopping import Signals, Stopped


class Stubborn:
    """Gets the signal in its destructor, where Python drops whatever is raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_a_signal_whose_exception_is_lost_in_a_destructor_stops_the_command_all_the_same():
    for _ in range(20):
        with Signals() as signals:
            with pytest.raises(Stopped):
                one = Stubborn()
                del one
                time.sleep(5)
            assert signals.stopped is not None
            assert signals.stopped.number == signal.SIGTERM
