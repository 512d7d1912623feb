"""The pool beside its process: limits, signals, affinity and forks. Linux tells what each thread does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from trpo_fast import get_num_threads, set_num_threads
from trpo_fast._core import library
from trpo_fast._core.policy import PolicyKernel

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")


@pytest.fixture(autouse=True)
def restored_threads():
    count = get_num_threads()
    yield
    set_num_threads(count)


def bound(rows=5000, widths=(7, 32, 32, 3)):
    rng = np.random.default_rng(0)
    kernel = PolicyKernel(widths, "tanh", "gaussian", np.float32)
    theta = (0.3 * rng.normal(size=kernel.size)).astype(np.float32)
    batch = [rng.normal(size=shape).astype(np.float32) for shape in ((rows, widths[0]), (rows, widths[-1]), (rows,))]
    kernel.bind(theta, *batch)
    return kernel, theta, rng.normal(size=kernel.size).astype(np.float32)


def sections(kernel, theta, v):
    """One of each kind on a bound batch."""
    kernel.fisher_operator() @ v
    kernel.surrogate_gradient()
    kernel.evaluate(theta)
    kernel.entropy()


def until(holds: Callable[[], bool], do: Callable[[], object]) -> None:
    """Repeat until it holds; it does at some time, on however busy a machine."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        do()


def pool_threads() -> set[str]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # another's, at its end
            if (task / "comm").read_text() == "trpo-fast pool\n":
                found.add(task.name)
    return found


def _state(thread: str) -> str:
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(") ")[2][0]


def worked(threads: set[str]) -> dict[str, str]:
    """Nanoseconds on a processor, and number of turns there, of each thread once it sleeps."""
    until(lambda: all(_state(thread) == "S" for thread in threads), lambda: None)
    spent = {thread: Path(f"/proc/self/task/{thread}/schedstat").read_text().split() for thread in threads}
    return {thread: " ".join((run, turns)) for thread, (run, _, turns) in spent.items()}


@pytest.fixture(autouse=True)
def pool():
    """Every thread of the pool, of which there are at least three."""
    set_num_threads(4)
    until(lambda: len(pool_threads()) >= 3, lambda: library.multiply_adds(np.float32, 10))
    return pool_threads()


def test_a_bound_batch_obeys_a_lower_limit_from_the_next_section_on(pool):
    set_num_threads(4)
    problem = bound()
    sections(*problem)
    set_num_threads(1)
    before = worked(pool)
    for _ in range(20):
        sections(*problem)
    assert worked(pool) == before


def test_a_bound_batch_obeys_threadpoolctl(pool):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    set_num_threads(4)
    problem = bound()
    with threadpoolctl.threadpool_limits(1):
        before = worked(pool)
        for _ in range(20):
            sections(*problem)
        assert worked(pool) == before


@pytest.mark.parametrize(
    "section",
    [
        lambda kernel, theta, v: kernel.fisher_operator() @ v,
        lambda kernel, theta, v: kernel.surrogate_gradient(),
        lambda kernel, theta, v: kernel.evaluate(theta),
    ],
)
def test_a_bound_batch_uses_more_threads_once_more_are_allowed(pool, section):
    set_num_threads(1)
    kernel, theta, v = bound()
    memory = kernel.memory
    before = worked(pool)
    set_num_threads(3)
    until(lambda: worked(pool) != before, lambda: section(kernel, theta, v))
    assert memory < kernel.memory <= memory + 3 * 2**20
    kernel.bind(theta, *(np.zeros(shape, np.float32) for shape in ((1, 7), (1, 3), (1,))))
    assert kernel.memory <= memory  # the wider room is given back


def test_more_threads_for_a_bound_batch_change_no_bit(pool):
    set_num_threads(1)
    kernel, theta, v = bound()

    def found():
        return (kernel.fisher_operator() @ v).tobytes(), kernel.evaluate(theta + np.float32(0.01)), kernel.entropy()

    expected = found()
    for count in (2, 16, 3):
        set_num_threads(count)
        assert [found() for _ in range(5)] == [expected] * 5


def _until_they_run_on(allowed, pool, problem):
    until(lambda: all(os.sched_getaffinity(int(thread)) == allowed for thread in pool), lambda: sections(*problem))


def test_workers_follow_the_affinity_of_their_caller(pool):
    granted = os.sched_getaffinity(0)
    problem = bound()
    try:
        for allowed in ({min(granted)}, granted):
            os.sched_setaffinity(0, allowed)
            set_num_threads(len(pool) + 1)
            _until_they_run_on(allowed, pool, problem)
    finally:
        os.sched_setaffinity(0, granted)


def run(program: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.strip()


# Without a thread that blocks it, SIGTERM is pending; any other would take it, and the process would end.
SIGNALS = """
import os, signal
import numpy as np
from trpo_fast import set_num_threads
from trpo_fast._core import library
set_num_threads(4)
library.multiply_adds(np.float32, 10)
assert len(os.listdir("/proc/self/task")) > 3
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
for _ in range(20):
    os.kill(os.getpid(), signal.SIGTERM)
    library.multiply_adds(np.float32, 10)
print(signal.sigpending() == {signal.SIGTERM}, signal.sigwait({signal.SIGTERM}).name)
"""


def test_a_signal_that_the_main_thread_blocks_waits_for_it():
    assert run(SIGNALS) == "True SIGTERM"


# Other threads are inside a product, an action and a preconditioner at most moments, so at those of the forks.
FORKS = """
import os, signal, threading, warnings
import numpy as np
from trpo_fast import KroneckerPreconditioner, set_num_threads
from trpo_fast._core.acting import Actor
from trpo_fast._core.policy import PolicyKernel
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is what is tried here
set_num_threads(1)
rng = np.random.default_rng(0)
kernel = PolicyKernel((50, 128, 128, 3), "tanh", "gaussian", np.float64)
theta = 0.1 * rng.normal(size=kernel.size)
observations, v = rng.normal(size=(3000, 50)), rng.normal(size=kernel.size)
kernel.bind(theta, observations, rng.normal(size=(3000, 3)), rng.normal(size=3000))
F, actor = kernel.fisher_operator(), Actor(kernel, theta)
M = KroneckerPreconditioner([(np.eye(301), np.eye(300), 0, 90_000)], 90_300, np.float64, 0.1)
w = rng.normal(size=M.size)
written = [[np.empty((3000, 50)), np.empty((3000, 3)), np.empty(3000), np.empty((3000, 3))] for _ in range(2)]
def act(out):
    actor.act(observations, 7, *out)
    return out[1].tobytes()
def multiply(out):
    return (F @ v).tobytes()
def precondition(out):
    return (M @ w).tobytes()
jobs = act, multiply, precondition
expected = [job(written[0]) for job in jobs]
running = True
def work(job):
    while running:
        job(written[1])
threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
for thread in threads:
    thread.start()
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if [job(written[0]) for job in jobs] == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
running = False
for thread in threads:
    thread.join()
print("done")
"""


def test_what_another_thread_was_at_work_with_can_be_used_in_a_forked_child():
    assert run(FORKS) == "done"
