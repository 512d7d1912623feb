"""Acting: what a rollout does between two steps of its environments."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy
from bench.problems import CHEETAH, PolicyProblem


@pytest.mark.parametrize("library", OFFERS["actor"], indirect=True)
@pytest.mark.parametrize("environments", [8, 1])
def test_act(benchmark, record, library, environments):
    benchmark.group = f"act 17-64-64-6, {environments} environments"
    problem = PolicyProblem(CHEETAH, environments)
    act = library.actor(problem)
    actions, log_probs = act()
    policy = ExactPolicy(problem)
    assert actions.shape == (environments, CHEETAH[-1])
    assert np.abs((actions - policy.mean()) / np.exp(problem.log_std)).max() < 6  # drawn from the policy
    np.testing.assert_allclose(log_probs, policy.log_prob(actions), rtol=1e-4)
    benchmark(act)
    record(2 * environments * problem.weights)
