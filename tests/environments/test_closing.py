"""Copies that raise when they are closed: named, wherever they are stepped, and all are closed."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.environments import worker_toys as toys
from tests.environments.pids import gone
from trpo_fast import TRPO
from trpo_fast.environments import processes
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.vector import VectorAdapter
from trpo_fast.environments.workers import WorkerEnvironments

SAID = "; ".join(f"environment {i} raised OSError('the port is jammed') when it was closed" for i in range(3))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Workers that close their copies end by themselves, however slow the machine is."""
    monkeypatch.setattr(processes, "PATIENCE", 100.0)


def vector_made_again(makers):
    given = SyncVectorEnv([toys.Sum], autoreset_mode=AutoresetMode.SAME_STEP)
    given.env_fns = makers
    return EnvironmentRecipe(given).make_again(len(makers), like=VectorAdapter(given))


@pytest.mark.parametrize("make", [InProcessEnvironments, WorkerEnvironments, vector_made_again])
def test_copies_that_cannot_be_closed_are_named_and_all_are_tried(tmp_path, make):
    environments = make([functools.partial(toys.Jammed, str(tmp_path))] * 3)
    environments.reset(0)
    ids = getattr(environments, "processes", ())
    with pytest.warns(UserWarning, match=f"^env: {re.escape(SAID)}$"):
        environments.close()
    assert len(list(tmp_path.glob("closed-*"))) == 3
    assert all(map(gone, ids))


def test_copies_that_cannot_be_closed_are_named_where_an_answer_was_not_waited_for(tmp_path):
    environments = WorkerEnvironments([functools.partial(toys.Jammed, str(tmp_path))] * 3, 2)
    environments.reset(0)
    for part, own in enumerate(environments.parts):
        environments.send(part, np.zeros((own.stop - own.start, 1), np.float32))
    with pytest.warns(UserWarning, match=f"^env: {re.escape(SAID)}$"):
        environments.close()


def test_a_vector_environment_that_cannot_be_closed_is_named():
    class Stiff(SyncVectorEnv):
        def close_extras(self, **_):
            raise OSError("no")

    adapter = VectorAdapter(Stiff([toys.Sum] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    with pytest.warns(UserWarning, match=r"^env: Stiff raised OSError\('no'\) when it was closed$"):
        adapter.close()
    adapter._env.closed = True  # or it is asked once more when it is forgotten


def test_an_agent_whose_environments_cannot_be_closed_is_closed(tmp_path):
    agent = TRPO(functools.partial(toys.Jammed, str(tmp_path)), num_envs=3, steps_per_env=8)
    with pytest.warns(UserWarning, match="the port is jammed"):
        agent.close()
    assert agent.environments is None and len(list(tmp_path.glob("closed-*"))) == 3
