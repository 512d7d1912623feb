"""Starting and ending of worker processes: what a worker knows, and that nothing stays."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch

import trpo_fast
from tests.environments import worker_toys as toys
from tests.environments.pids import gone, wait_until
from trpo_fast._core.library import floating_mode, set_floating_mode
from trpo_fast.environments.worker_process import _dumped
from trpo_fast.environments.workers import WorkerEnvironments


def test_workers_have_no_torch_and_one_thread_beside_the_watch_on_their_parent(made, monkeypatch):
    assert "torch" in sys.modules
    monkeypatch.setenv("TRPO_FAST_NUM_THREADS", "3")  # of the main process
    environments = made(toys.Surroundings, 2, 2)
    rows = environments.reset()
    np.testing.assert_array_equal(rows, [[0, 1102]] * 2)
    environments.step(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("flushed", [False, True])
def test_workers_treat_denormal_numbers_as_the_process_does_that_makes_them(flushed, made):
    before = floating_mode()
    try:
        torch.set_flush_denormal(flushed)
        assert made(toys.Tiny, 2, 2).reset()[:, 0].tolist() == [0.0 if flushed else 2.0**-1032] * 2
    finally:
        set_floating_mode(before)
    assert floating_mode() == before


def test_a_class_that_is_registered_is_imported_in_the_workers_that_make_it_and_in_no_others(made):
    # By a class, as the agent's module has it: what its module imports is of no concern to other environments.
    gymnasium.register("Elsewhere-v0", entry_point=torch.nn.Linear)
    gymnasium.register("Summed-v0", entry_point=toys.Sum)
    try:
        assert made(toys.Surroundings, 2, 2).reset()[:, 0].tolist() == [0, 0]
        assert made(lambda: gymnasium.make("Summed-v0"), 2, 2).reset(0).shape == (2, 2)
        with pytest.raises(TypeError, match="in_features"):
            made(lambda: gymnasium.make("Elsewhere-v0"), 2, 2)
    finally:
        del gymnasium.registry["Elsewhere-v0"], gymnasium.registry["Summed-v0"]


class Pickled:
    """Calls something in the middle of being pickled."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        self.call()
        return int, ()


@pytest.fixture
def main_of_a_child(monkeypatch):
    """What multiprocessing's spawn makes of the main module."""
    main = types.ModuleType("__mp_main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    exec("def make(): return 7", vars(main))
    return main


def test_threads_that_pickle_what_a_childs_main_module_defines_do_not_disturb_each_other(main_of_a_child):
    other = threading.Thread(target=_dumped, args=(main_of_a_child.make,))

    def let_the_other_go_on():
        other.start()
        other.join(0.2)

    dumped = _dumped([Pickled(let_the_other_go_on), main_of_a_child.make])
    other.join()
    del sys.modules["__mp_main__"]  # no worker has it
    assert pickle.loads(dumped)[1]() == 7
    assert not cloudpickle.list_registry_pickle_by_value()


def test_a_users_registration_with_cloudpickle_stays(main_of_a_child):
    cloudpickle.register_pickle_by_value(main_of_a_child)
    try:
        _dumped(main_of_a_child.make)
        assert "__mp_main__" in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(main_of_a_child)


def test_workers_leave_ctrl_c_to_the_main_process(made):
    environments = made(toys.Sum, 2, 2)
    environments.reset(0)
    for process in environments.processes:
        os.kill(process, signal.SIGINT)
    environments.step(np.zeros((2, 1), np.float32))


def test_what_cannot_be_pickled_is_refused_by_name():
    lock = threading.Lock()

    def make():
        with lock:
            return toys.Sum()

    with pytest.raises(TypeError, match=r"env: cannot be sent to a worker process.*lock.*vectorization='sync'"):
        WorkerEnvironments([make] * 2, 2)


@pytest.mark.parametrize("stubborn", [False, True])
def test_closing_ends_a_worker_that_is_stuck_in_a_step(stubborn, made):
    environments = made(functools.partial(toys.Stuck, stubborn), 3, 2)
    environments.reset(0)
    environments.send(1, np.ones((2, 1), np.float32))
    processes = environments.processes
    began = time.monotonic()
    environments.close()
    assert time.monotonic() - began < 5
    assert all(map(gone, processes))
    assert environments.processes == ()
    environments.close()
    with pytest.raises(RuntimeError, match="closed; want a reset first"):
        environments.step(np.zeros((3, 1), np.float32))
    environments.reset(0)
    environments.step(np.zeros((3, 1), np.float32))


def test_what_is_registered_here_is_known_in_workers(made):
    id = "trpo-fast-test/Registered-v0"

    class Local(toys.Sum):  # of no module that a worker could import it from
        def __init__(self, start=0.0):
            self.start = start

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.total = self.start
            return self._observe(), {}

    gymnasium.register(id, entry_point=Local, kwargs={"start": 2.5}, max_episode_steps=3)
    try:
        environments = made(lambda: gymnasium.make(id), 2, 2)
        np.testing.assert_array_equal(environments.reset(0), [[2.5, 0]] * 2)
        for _ in range(3):
            result = environments.step(np.zeros((2, 1), np.float32))
        assert result.truncated.all()
    finally:
        del gymnasium.registry[id]


SCRIPT = """
import gymnasium, multiprocessing, numpy as np, os, sys
from gymnasium import spaces

class Mine(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([self.np_random.random()]), {}

    def step(self, action):
        if action == 1:
            raise Mistake("of mine")
        return np.array([self.np_random.random()]), 0.0, False, False, {}

class Mistake(Exception):
    pass

def use(*makers):
    from trpo_fast.environments.in_process import InProcessEnvironments
    from trpo_fast.environments.workers import WorkerEnvironments
    for make in makers:
        environments, wanted = WorkerEnvironments([make] * 3, 2), InProcessEnvironments([make] * 3)
        assert (environments.reset(1) == wanted.reset(1)).all()
        try:
            environments.step(np.array([0, 0, 1]))
        except Mistake as error:
            assert "environment 2, step 1" in "".join(error.__notes__), error.__notes__
    print("used", *environments.processes, flush=True)
    return environments  # and never closed
"""
REGISTER = """
gymnasium.register("Mine-v0", entry_point=Mine)
gymnasium.register("MineByName-v0", entry_point="__main__:Mine")
"""
EVERY = """
every = [Mine, lambda: Mine(), lambda: gymnasium.make("Mine-v0"), lambda: gymnasium.make("MineByName-v0")]
"""


def run_script(tmp_path, *parts, **options):
    path = tmp_path / "script.py"
    path.write_text("\n".join(map(textwrap.dedent, parts)))
    root = os.path.dirname(os.path.dirname(trpo_fast.__file__))
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, "-W", "error", str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


def pids_of(done):
    return [int(pid) for line in done.stdout.splitlines() if line.startswith("used") for pid in line.split()[1:]]


def test_no_main_guard_is_needed_and_an_unclosed_end_leaves_nothing(tmp_path):
    done = run_script(tmp_path, SCRIPT, REGISTER, EVERY, "environments = use(*every)")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(pids_of(done)) == 2 and all(map(gone, pids_of(done)))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method_will_do_also_in_a_daemonic_process(method, tmp_path):
    guarded = """
    if __name__ == "__main__":
        gymnasium.register("Mine-v0", entry_point=Mine)
        gymnasium.register("MineByName-v0", entry_point="__main__:Mine")
        multiprocessing.set_start_method({method!r})
        use(lambda: gymnasium.make("MineByName-v0")).close()
        # Its main module is this one under another name, where nothing is registered.
        inner = multiprocessing.Process(target=inside, daemon=True)
        inner.start()
        inner.join()
        sys.exit(inner.exitcode)
    """
    inside = """
    def inside():
        gymnasium.register("Mine-v0", entry_point=Mine)
        gymnasium.register("MineByName-v0", entry_point=Mine)
        use(lambda: gymnasium.make("MineByName-v0")).close()
    """
    # In the forked process both are registered already, which Gymnasium warns of.
    quiet = "\nimport warnings; warnings.filterwarnings('ignore', '.*Overriding')"
    done = run_script(tmp_path, SCRIPT, quiet, inside, textwrap.dedent(guarded).format(method=method))
    assert done.returncode == 0, done.stderr
    assert len(pids_of(done)) == 4 and all(map(gone, pids_of(done)))


@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_when_their_parent_is_killed(busy, tmp_path):
    program = f"""
    import functools, os, signal, time
    import numpy as np
    from tests.environments.worker_toys import Stuck
    from trpo_fast.environments.workers import WorkerEnvironments
    environments = WorkerEnvironments([functools.partial(Stuck, True)] * 2, 2)
    environments.reset(0)
    if {busy}:
        environments.send(0, np.ones((1, 1), np.float32))
        environments.send(1, np.ones((1, 1), np.float32))
    print("used", *environments.processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_script(tmp_path, program)
    assert done.returncode == -signal.SIGKILL
    assert len(pids_of(done)) == 2
    for pid in pids_of(done):
        assert wait_until(functools.partial(gone, pid))
