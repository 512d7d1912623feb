"""Running means of a policy beside its training."""

import numpy as np
import pytest

from bench.averaging import LATEST, PARTS, Means, file_of, read, weights
from trpo_fast import TRPO

SMALL = {"num_envs": 2, "steps_per_env": 8, "hidden_sizes": (4,), "critic_hidden_sizes": (4,), "critic_epochs": 1}


def test_weights_are_those_of_the_means_that_they_say():
    shares = {name: np.zeros(400) for name in weights(1)}  # of each update in the mean
    for count in range(1, 401):
        for name, weight in weights(count).items():
            shares[name] *= 1 - weight
            shares[name][count - 1] += weight
    ages = 400 - np.arange(1, 401)
    for name, share in shares.items():
        assert share.sum() == pytest.approx(1)
        assert name not in weights(1) or weights(1)[name] == 1
    for updates in LATEST:
        assert ages @ shares[f"{updates} updates"] == pytest.approx(updates - 1, rel=0.1)
    for part in PARTS:
        assert ages @ shares[f"1/{part} of all"] == pytest.approx(400 / (part + 1), rel=0.02)


def test_the_training_knows_nothing_of_its_means():
    agents = [TRPO("CartPole-v1", seed=3, preset=None, **SMALL) for _ in range(2)]
    means, scores = Means(agents[0]), []

    def note(agent):
        means.add(agent.num_updates)
        scores.append(means.scores(agent, 1))

    agents[0].learn(3 * 16, note)
    agents[1].learn(3 * 16)
    for one, other in zip(*(agent.policy.parameters() for agent in agents), strict=True):
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes()
    assert [set(found) for found in scores] == [{"last", *weights(1)}] * 3
    assert len(set(scores[0].values())) == 1, "after one update every mean is the policy"


def test_a_run_has_a_file_of_its_own():
    assert file_of("Ant-v5", 2, 1_000_000, "").name == "Ant-v5-2.json"
    assert file_of("Ant-v5", 2, 300_000, "").name == "Ant-v5-300000-2.json"
    settings = "log_std_init=-1.5,max_kl=0.02"
    assert file_of("Ant-v5", 2, 1_000_000, settings).name == "Ant-v5-log-std-init--1.5-max-kl-0.02-2.json"
    assert read("log_std_init=-1.5,max_kl=0.02") == {"log_std_init": -1.5, "max_kl": 0.02}
