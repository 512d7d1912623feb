"""bench.learning_probe: what it says of a checkpoint, and that it changes nothing."""

from __future__ import annotations

import re

import pytest

import trpo_fast
from bench import learning_probe


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "model.trpo"
    agent = trpo_fast.TRPO("Pendulum-v1", seed=0, num_envs=2, steps_per_env=64)
    agent.learn(128)
    agent.save(path)
    agent.close()
    return path


def test_a_probe_says_what_noise_costs_and_how_much_of_an_update_is_signal(model, capsys):
    before = model.read_bytes()
    assert learning_probe.main([str(model), "--batches", "3"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^std x .* return ", said, re.MULTILINE)) == len(learning_probe.FACTORS)
    assert len(re.findall(r"improvement [\d.e-]+, KL [\d.e-]+$", said, re.MULTILINE)) == 3
    assert -1 <= float(re.search(r"mean cosine .* (-?[\d.]+)$", said)[1]) <= 1
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [("Pendulum-v1", ["--batches", "1"], "--batches: 1 given"), ("CartPole-v1", [], "model: .* want a Gaussian")],
)
def test_what_cannot_be_probed_is_said_in_a_line(env, options, message, tmp_path, capsys):
    with trpo_fast.TRPO(env, num_envs=2, steps_per_env=8) as agent:
        agent.save(tmp_path / "m.trpo")
    with pytest.raises(SystemExit):
        learning_probe.main([str(tmp_path / "m.trpo"), *options])
    assert re.search(message, capsys.readouterr().err)


def test_the_updates_are_of_the_moment_that_the_checkpoint_is_of(tmp_path):
    agent = trpo_fast.TRPO("Pendulum-v1", seed=0, num_envs=2, steps_per_env=64)
    agent.learn(128, horizon=4 * 128)
    lines, _ = learning_probe.updates(agent, batches=2)
    agent.close()
    kls = [float(re.search(r"KL (\S+)$", line)[1]) for line in lines]
    assert all(kl <= agent.config.max_kl * 3 / 4 for kl in kls)


def test_probed_updates_leave_the_policy_as_it_was(model):
    agent = trpo_fast.TRPO.load(model)
    before = agent.engine.parameters().copy()
    lines, cosine = learning_probe.updates(agent, batches=2)
    assert len(lines) == 2 and -1 <= cosine <= 1
    assert (agent.engine.parameters() == before).all()
    agent.close()


def test_a_direction_keeps_less_on_other_batches_than_it_promises(model):
    agent = trpo_fast.TRPO.load(model)
    before = agent.engine.parameters().copy()
    lines = learning_probe.kept(agent, batches=4)
    assert (agent.engine.parameters() == before).all()
    agent.close()
    found = {}
    for line in lines:
        name, value, promised, remains = re.fullmatch(r"(\w+) (\S+) +promises (\S+), keeps (\S+) \+- .*", line).groups()
        found[name, float(value)] = float(promised), float(remains)
    assert list(found) == [(name, value) for name, values in learning_probe.VARIANTS.items() for value in values]
    assert all(promised > remains for promised, remains in found.values())
    promises = [promised for (name, _), (promised, _) in found.items() if name == "relative_damping"]
    assert promises == sorted(promises, reverse=True), "what is promised is largest along F^-1 g"
