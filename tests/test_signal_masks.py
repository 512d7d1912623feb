"""What blocks signals for a moment gives them back, also where a Ctrl-C that came before is raised by that itself."""

import signal

import numpy as np
import pytest

from trpo_fast.algorithm.critic import PendingFit
from trpo_fast.environments.worker_process import deaf_to_interrupts


def start_workers():
    with deaf_to_interrupts():
        pytest.fail("goes on without the interrupt")


@pytest.mark.parametrize(
    "start", [lambda: PendingFit(np.zeros(1)).run_beside(lambda _: None), start_workers], ids=["fit", "workers"]
)
def test_an_interrupt_as_signals_are_blocked_leaves_none_blocked(monkeypatch, start):
    block, before = signal.pthread_sigmask, signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def interrupted(how, signals):
        found = block(how, signals)
        if how == signal.SIG_BLOCK and signals:  # as the call itself lets handlers run
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert block(signal.SIG_BLOCK, ()) == before
    finally:
        block(signal.SIG_SETMASK, before)
