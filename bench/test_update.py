"""One whole update: gradient, solve, line search and critic fit, with sb3-contrib's tuned settings for HalfCheetah."""

from __future__ import annotations

import pytest

from bench.baselines import OFFERS
from bench.checks import ExactPolicy, critic_loss, fitted_critic_loss
from bench.problems import PolicyProblem, UpdateSettings

SETTINGS = UpdateSettings()


@pytest.mark.parametrize("library", OFFERS["update"], indirect=True)
def test_update(benchmark, record, library):
    benchmark.group = "update 17-64-64-6 B=2,048, 25 CG, 20 critic epochs of 128"
    problem = PolicyProblem(batch=2_048, hidden=64)
    update = library.update(problem, SETTINGS)
    update.reset()
    update.run()
    updated = update.result()

    policy = ExactPolicy(problem)
    improvement, kl = policy.evaluate(updated.policy)
    exact_improvement, _ = policy.evaluate(policy.trust_region_step(SETTINGS))
    assert kl <= SETTINGS.max_kl * (1 + 1e-4)
    assert improvement == pytest.approx(exact_improvement, rel=0.01)
    # Minibatches are drawn differently by everybody: the fits agree in what they reach, not in how.
    exact_loss = fitted_critic_loss(problem, SETTINGS)
    assert critic_loss(problem, updated.critic) == pytest.approx(exact_loss, rel=0.1)

    benchmark.pedantic(update.run, setup=update.reset, rounds=9)
    steps = -(-problem.batch // SETTINGS.critic_batch_size) * SETTINGS.critic_epochs
    critic_flops = 6 * sum(weight.size for weight, _ in problem.critic_layers) * SETTINGS.critic_batch_size * steps
    record(SETTINGS.cg_iterations * problem.fisher_flops + critic_flops)
