import warnings
from dataclasses import replace

import pytest

from trpo_fast import TRPO
from trpo_fast.tuning.trial import EVALUATION_SEED, Task, probed, scored

SMALL = {"num_envs": 2, "steps_per_env": 16, "warm_up_steps": 4, "hidden_sizes": (8,), "critic_hidden_sizes": (8,)}


@pytest.fixture
def task():
    return Task("CartPole-v1", {}, None, (), 200, (3, 4, 5), 2, SMALL)


def test_the_score_is_that_of_trainings_by_themselves(task):
    moments = []
    settings = {"gamma": 0.9, "max_kl_schedule": "linear"}
    score = scored(task, settings, lambda steps, value: moments.append((steps, value)))
    means = []
    for seed in task.seeds:
        with_seed = TRPO("CartPole-v1", seed=seed, preset=None, **SMALL, **settings)
        means.append(with_seed.learn(200).evaluate(2, seed=EVALUATION_SEED).mean)
        with_seed.close()
    assert score.means == means
    low, middle, high = sorted(means)
    assert score.value == pytest.approx((low / 4 + middle + high / 4) / 1.5)
    assert [steps for steps, _ in moments] == list(range(moments[0][0], 201, 10))  # at equal steps for every trial
    assert len(moments) > 10 and all(value > 0 for _, value in moments)


def test_what_report_raises_ends_a_trial(task):
    def report(steps, value):
        raise LookupError

    with pytest.raises(LookupError):
        scored(task, {}, report)


def test_a_probe_measures_whole_updates(task, monkeypatch):
    monkeypatch.setattr("trpo_fast.tuning.trial.PROBE_SECONDS", 0.0)
    task = replace(task, seeds=(3,), timesteps=700, fixed={**SMALL, "steps_per_env": 600})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of calls of learn that nobody made
        probe = probed(task, {})
        scored(task, {}, lambda steps, value: None)
    assert probe.updates == 1 and probe.steps_per_second > 0 and probe.actions.n == 2 and not probe.recurrent
