"""Symptoms of trainings that were made to fail, and none of one that learns."""

import dataclasses
import re

import gymnasium as gym
import numpy as np
import pytest

from trpo_fast import TRPO, RunLogger, Status, TRPOConfig
from trpo_fast.progress import as_columns, read_progress
from trpo_fast.symptoms import SYMPTOMS, Log, diagnose

SMALL = {"num_envs": 4, "steps_per_env": 64, "hidden_sizes": (16,), "critic_hidden_sizes": (16,), "warm_up_steps": 8}


class Walk(gym.Env):
    """Observes noise; `rewarded` is for action 1, and an episode has `length` steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, rewarded=0.0, length=10):
        self.rewarded, self.length, self.steps = rewarded, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observed(), {}

    def step(self, action):
        self.steps += 1
        return self._observed(), self.rewarded * float(action), False, self.steps == self.length, {}

    def _observed(self):
        return self.np_random.normal(size=2).astype(np.float32)


def log_of(folder, env, updates=12, **settings):
    agent = TRPO(env, seed=0, **{**SMALL, **settings})
    logger = RunLogger(folder, tensorboard=False)
    agent.learn(updates * agent.config.num_envs * agent.config.steps_per_env, callback=logger)
    agent.close()
    return Log(as_columns(read_progress(folder / "progress.csv")))


def names(log):
    return {finding.symptom.name for finding in diagnose(log)}


def test_a_run_that_learns_has_no_symptom(tmp_path):
    log = log_of(tmp_path, "CartPole-v1", updates=15, steps_per_env=128)
    assert log["rollout/ep_rew_mean"][-1] > 2 * log["rollout/ep_rew_mean"][0]
    assert diagnose(log) == []


FAILING = {
    "The trust region is tiny": ("CartPole-v1", {"max_kl": 1e-6}),
    "The trust region is too large": ("CartPole-v1", {"max_kl": 5.0}),
    "Damping outweighs the curvature": ("CartPole-v1", {"damping": 1e6}),
    "Steps fall short of the trust region": ("CartPole-v1", {"damping": 1e3, "step_curvature": "damped"}),
    "The line search ends outside the trust region": ("Pendulum-v1", {"max_backtracks": 0, "max_kl": 0.1}),
    "Steps leave the trust region": ("Pendulum-v1", {"line_search": False, "max_kl": 1.0}),
    "The policy does not explore": ("Pendulum-v1", {"log_std_init": -8.0}),
    "The noise of the actions grows": ("Pendulum-v1", {"entropy_coefficient": 10.0, "max_kl": 0.2, "updates": 30}),
    "The critic is worse than the mean": ("CartPole-v1", {"critic_learning_rate": 1e-9, "gamma": 0.9}),
    "The critic explains nothing": (lambda: Walk(rewarded=1.0, length=2), {}),
    "Every episode returns the same": (Walk, {}),
    "No episode ends": (lambda: Walk(rewarded=1.0, length=10**9), {}),
    "The return does not rise": (lambda: Walk(rewarded=1.0), {"max_kl": 1e-7, "updates": 32}),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_training_that_was_made_to_fail_has_the_symptom(name, tmp_path):
    env, settings = FAILING[name]
    log = log_of(tmp_path, env, **settings)
    assert name in names(log), {column: values[-3:] for column, values in log.columns.items()}


def test_a_trust_region_that_falls_is_too_large_for_where_it_begins():
    """The default is a linear fall, whose median is half of max_kl."""
    for max_kl in (np.full(20, 0.3), np.linspace(0.3, 0.0, 20, endpoint=False)):
        log = columns(
            max_kl=max_kl,
            status=[0] * 20,
            predicted_objective=[0.4] * 20,
            policy_objective=[0.1] * 20,
            kl_divergence_loss=max_kl,
        )
        assert names(log) == {"The trust region is too large"}


def test_returns_of_few_episodes_are_neither_the_same_nor_without_a_rise():
    episodes = np.minimum(np.arange(40), 1)  # one, in the second of 40 updates
    log = Log({"rollout/ep_rew_mean": np.where(episodes, -250.0, np.nan), "rollout/episodes": episodes})
    assert names(log) == set()


def of_status(status, part=0.5):
    return Log({"train/status": np.where(np.arange(20) < 20 * part, status, 0.0)})


def columns(**values):
    whole = {"rew": "rollout/ep_rew_mean", "critic_fit": "timings/critic_fit"}
    return Log({whole.get(name, f"train/{name}"): np.array(given, np.float64) for name, given in values.items()})


MADE_UP = {
    "The training failed": Log({}, "reward: nan given; want a finite number"),
    "The return fell": columns(rew=[*range(100, 500, 20), *[120] * 6]),
    "The line search finds no improvement": of_status(Status.NO_IMPROVEMENT),
    "There is no gradient": of_status(Status.NO_GRADIENT),
    "Numbers of an update were not finite": of_status(Status.NON_FINITE, 0.05),
    "The Fisher matrix is not positive definite": of_status(Status.NOT_POSITIVE_DEFINITE),
    "The direction has no curvature": of_status(Status.NO_CURVATURE),
    "A condition of yours refuses the steps": of_status(Status.CONDITION_VIOLATED),
    "The line search cuts most steps": columns(backtracks=[6] * 10, status=[0] * 10),
    "The solve is far from done": columns(cg_residual=[0.99] * 9, cg_status=[1] * 9, cg_iterations=[10] * 9),
    "The critic's fit was not finite": columns(value_loss=[0.1, np.nan], critic_fit=[1.0, 1.0]),
    "Exploration ended too early": columns(rew=[*range(0, 100, 10), *[70] * 5], std=np.geomspace(0.4, 0.001, 15)),
}


@pytest.mark.parametrize("name", MADE_UP)
def test_rows_that_are_hard_to_come_by_have_the_symptom(name):
    assert names(MADE_UP[name]) == {name}


def test_every_symptom_is_tested_and_says_what_to_try():
    assert {symptom.name for symptom in SYMPTOMS} == {*FAILING, *MADE_UP}
    assert len(SYMPTOMS) == len({symptom.name for symptom in SYMPTOMS})
    assert all(symptom.cause and symptom.cures for symptom in SYMPTOMS)


def test_every_setting_that_a_cure_names_is_one():
    settings = {field.name for field in dataclasses.fields(TRPOConfig)} | {
        "max_episode_steps",
        "trpo_fast",
        "make_engine",
    }
    texts = [text for symptom in SYMPTOMS for text in (symptom.cause, *symptom.cures)]
    named = {name for text in texts for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text)}
    assert len(named) > 20 and named <= settings


def test_a_critic_that_has_nothing_left_to_explain_is_no_symptom():
    # As CartPole's in the end, when every return is 500: the loss is small, what explained variance is left is noise.
    variance, losses = np.r_[np.full(10, 0.6), np.full(20, -3.0)], np.r_[np.full(10, 0.1), np.full(20, 1e-5)]
    assert not names(Log({"train/explained_variance": variance, "train/value_loss": losses}))
    assert names(Log({"train/explained_variance": variance, "train/value_loss": np.full(30, 0.1)})) == {
        "The critic is worse than the mean"
    }


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_that_has_hardly_begun_has_no_symptom(rows):
    found = {"rollout/ep_rew_mean": np.ones(rows), "train/status": np.full(rows, float(Status.NO_IMPROVEMENT))}
    assert not names(Log(found))
