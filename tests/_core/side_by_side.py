"""Calls in several threads at once, and products for several numbers of threads."""

import threading

from trpo_fast._core.library import get_num_threads, set_num_threads


def refused_or_right(calls, times):
    """Make every call of `calls`, {name: call}, `times` times in a thread of its own, all at the same time.

    Each has to come to what it comes to alone, or to be refused as another thread is at work.
    """
    expected, wrong, refused = {name: call() for name, call in calls.items()}, [], []

    def repeat(name, call):
        for _ in range(times):
            try:
                if call() != expected[name]:
                    wrong.append(name)
            except RuntimeError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=repeat, args=arguments) for arguments in calls.items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong
    assert all("another thread" in text for text in refused)


def bits_by_threads(make, v):
    """The different bits of ``make() @ v``, made with one number of threads and multiplied with another."""
    before, found = get_num_threads(), set()
    try:
        for making, using in ((1, 1), (8, 1), (1, 8), (3, 2)):
            set_num_threads(making)
            F = make()
            set_num_threads(using)
            found.add((F @ v).tobytes())
    finally:
        set_num_threads(before)
    return found
