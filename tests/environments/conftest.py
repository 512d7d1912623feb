"""A module that registers environments, as a package does; environments in worker processes."""

import sys

import gymnasium
import pytest

from trpo_fast.environments import registry
from trpo_fast.environments.workers import WorkerEnvironments

MODULE = """
import gymnasium
from tests.rollout.toys import Walk
gymnasium.register("Wandering-v0", Walk)
calls = []

class Longer(gymnasium.Wrapper):
    def reset(self, **options):
        self.unwrapped.limit = 99
        return super().reset(**options)

def register_envs():
    calls.append(1)
    gymnasium.register("Called-v0", Walk)

def broken(env):
    raise RuntimeError("no wrapper today")

def nothing(env):
    return None
"""


@pytest.fixture
def wanders(tmp_path, monkeypatch):
    """Name of a module, not imported yet, that registers an id, another by a call, and has wrappers."""
    (tmp_path / "wanders_for_a_test.py").write_text(MODULE)
    (tmp_path / "fails_for_a_test.py").write_text("raise RuntimeError('not on this machine')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_called", set())
    yield "wanders_for_a_test"
    sys.modules.pop("wanders_for_a_test", None)
    for id in ("Wandering-v0", "Called-v0"):
        gymnasium.registry.pop(id, None)


@pytest.fixture
def made():
    """Makes environments that are closed in the end."""
    every = []

    def make(make_one, copies, workers):
        environments = WorkerEnvironments([make_one] * copies, workers)
        every.append(environments)
        return environments

    yield make
    for environments in every:
        environments.close()
