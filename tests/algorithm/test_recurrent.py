"""Agents with recurrent policies: what they remember in rollouts, predictions, evaluations, files and workers."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.distributions import Categorical

from tests.algorithm.recall import HybridRecall, MaskedRecall, Recall
from tests.algorithm.test_resume import everything
from trpo_fast import TRPO, model_file
from trpo_fast.deploy import load_actor
from trpo_fast.engines.value import SequenceValueKernel
from trpo_fast.policies.recurrent import RecurrentCritic, RecurrentPolicy
from trpo_fast.rollout.batch import CriticSequences


def recall(env=Recall, **overrides):
    small = {"num_envs": 4, "steps_per_env": 32, "warm_up_steps": 4, "seed": 3, "recurrent_size": 8}
    small |= {"critic_epochs": 2}
    for name, sizes in (("policy", "hidden_sizes"), ("critic", "critic_hidden_sizes")):
        small |= {sizes: (8,)} if isinstance(overrides.get(name, ""), str) else {}
    return TRPO(env, **{"policy": "gru", **small, **overrides})


class Own(nn.Module):
    """A recurrent module of a user's own: a policy over three actions, or with one output a critic."""

    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(5)
        self.cell, self.head, self.outputs = nn.GRUCell(3, 6), nn.Linear(6, outputs), outputs

    def initial_state(self, count):
        return torch.full((count, 6), 0.25)

    def forward(self, observations, state, episode_starts):
        rows = []
        for x, starts in zip(observations, episode_starts, strict=True):
            state = self.cell(x, torch.where(starts[:, None], self.initial_state(len(state)), state))
            rows.append(self.head(state))
        y = torch.cat(rows)
        return (Categorical(logits=y) if self.outputs > 1 else y.squeeze(-1)), state


KINDS = {"gru": {"policy": "gru"}, "lstm": {"policy": "lstm"}, "own": {"policy": Own}}
KINDS["own"] = {"policy": lambda *_: Own(), "critic": lambda *_: Own(1), "recurrent_size": 64}


@pytest.mark.parametrize("count", [2, 8])
def test_a_saved_agent_goes_on_with_another_number_of_copies(count, tmp_path):
    agent = recall().learn(256)
    agent.save(tmp_path / "agent.trpo")
    agent.close()
    other = TRPO.load(tmp_path / "agent.trpo", env=Recall, num_envs=count)
    assert other.inexact == f"saved of 4 copies, and these are {count}, so that new episodes began"
    for before, after in zip(agent.critic.parameters(), other.critic.parameters(), strict=True):
        np.testing.assert_array_equal(after.detach(), before.detach())
    other.learn(256, reset_num_timesteps=False)
    assert other.num_timesteps == 512
    other.close()


def test_a_setting_that_does_nothing_for_a_loaded_agent_is_refused_then(tmp_path):
    recall().save(tmp_path / "agent.trpo")
    with pytest.raises(ValueError, match=r"^fisher_subsample: 0\.5 given; want it left out: the sequences"):
        TRPO.load(tmp_path / "agent.trpo", env=Recall, fisher_subsample=0.5)


@pytest.mark.parametrize(("kind", "env"), [("gru", Recall), ("lstm", MaskedRecall)])
def test_it_learns_what_only_memory_knows(kind, env):
    agent = recall(env, policy=kind, steps_per_env=64, critic_epochs=5)
    agent.learn(12_000)
    result = agent.evaluate(30)
    agent.close()
    assert result.mean > 5.5  # of 6; without memory 2 to 3
    if env is Recall:
        forgetful = recall(policy="mlp", recurrent_size=64, steps_per_env=64, critic_epochs=5)
        forgetful.learn(12_000)
        assert forgetful.evaluate(30).mean < 4
        forgetful.close()


def test_the_networks_are_those_that_were_asked_for():
    agent = recall(policy="lstm", recurrent_size=10, hidden_sizes=(7,))
    assert isinstance(agent.policy, RecurrentPolicy)
    assert (agent.policy.kind, agent.policy.widths) == ("lstm", (10, 7, 3))
    assert isinstance(agent.critic, RecurrentCritic)
    assert agent.critic.kind == "lstm"
    agent.close()
    plain = recall(recurrent_critic=False, critic_epochs=None)
    assert not hasattr(plain.critic, "initial_state")
    assert plain.config.critic_epochs == 20
    plain.learn(128)
    plain.close()
    assert recall(critic_epochs=None).config.critic_epochs == 10


def states_by_hand(policy, rollout, state):
    """Policy state before every step, from one pass over the rollout's own observations."""
    states = []
    for x, starts in zip(rollout.observations, rollout.sequences.starts, strict=True):
        states.append(state)
        with torch.no_grad():
            _, state = policy(torch.from_numpy(x)[None], torch.from_numpy(state), torch.from_numpy(starts)[None])
        state = state.numpy()
    return states, state


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_rollouts_states_and_starts_are_those_of_its_episodes(mode):
    makers = [lambda: Recall(5, truncates=True), lambda: Recall(7), lambda: Recall(3)]
    agent = recall(SyncVectorEnv(makers, autoreset_mode=mode), num_envs=None, steps_per_env=20, warm_up_steps=0)
    collector = agent.training_environments.ready(agent.num_updates)
    last = np.zeros((3, 8), np.float32)
    for index in range(3):
        rollout = collector.collect()
        starts, valid = rollout.sequences.starts, rollout.valid
        first = np.zeros_like(starts)
        done = rollout.terminated | rollout.truncated
        if mode is AutoresetMode.SAME_STEP:
            first[1:] = done[:-1]
        else:
            assert (valid[1:] == ~done[:-1]).all()
            first[2:] = done[:-2]
        if index == 0:
            first[0] = True
            np.testing.assert_array_equal(starts, first)
        else:
            np.testing.assert_array_equal(starts[2:], first[2:])
            np.testing.assert_array_equal(rollout.sequences.state, last)
        _, after = states_by_hand(agent.policy, rollout, rollout.sequences.state)
        last = collector._state
        np.testing.assert_allclose(last, after, atol=1e-6)
    agent.close()


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_a_recurrent_critic_are_those_of_its_whole_episodes(kind):
    agent = recall(lambda: Recall(5, truncates=True), steps_per_env=12, num_envs=2, **KINDS[kind])
    critic, collector = agent.critic_trainer, agent.training_environments.ready(agent.num_updates)
    state = None
    for _ in range(2):
        rollout = collector.collect()
        values = critic.values(rollout.critic_sequences)
        module = agent.critic
        state = module.initial_state(2) if state is None else state
        size = rollout.valid.size
        inputs = torch.from_numpy(rollout.value_inputs)
        after = []
        with torch.no_grad():
            for t, starts in enumerate(torch.from_numpy(rollout.sequences.starts)):
                found, state = module(inputs[2 * t : 2 * t + 2][None], state, starts[None])
                np.testing.assert_allclose(values[2 * t : 2 * t + 2], found, atol=1e-5)
                after.append(state)
            no = torch.zeros(1, 1, dtype=torch.bool)
            rows = [size - 2, size - 1, *rollout.final_rows]
            assert len(rollout.final_rows) > 0
            for place, row in enumerate(rows):
                before = after[row // 2][row % 2][None]
                found, _ = module(inputs[size + place][None, None], before, no)
                np.testing.assert_allclose(values[size + place], found, atol=1e-5)
    agent.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [5, 32, 50, 70])
def test_a_fit_meets_every_sample_once_and_no_other_row(kind, steps):
    """With a learning rate of nothing the loss of an epoch is that of all samples, each from its stored state."""
    module = Own(1) if kind == "own" else RecurrentCritic(kind, Recall.observation_space, units=6, seed=1)
    kernel, rng = SequenceValueKernel(module), np.random.default_rng(0)
    valid, starts = rng.random((steps, 3)) < 0.9, rng.random((steps, 3)) < 0.1
    rows = rng.normal(size=(steps * 3, 3)).astype(np.float32)
    sequences = CriticSequences(rows, rows[:3], np.empty(0, np.int64), starts, valid)
    theta = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    values = kernel.values(theta, sequences)[: 3 * steps][valid.reshape(-1)]
    returns = rng.normal(size=valid.sum()).astype(np.float32)
    moments, before = [np.zeros_like(theta), np.zeros_like(theta)], theta.copy()
    given = {"adam_step": 0, "epochs": 1, "batch_size": 64, "learning_rate": 1e-30, "seed": 0, "stream": 1}
    steps_taken, loss = kernel.fit(theta, *moments, sequences, returns, first_epoch=0, **given)
    np.testing.assert_allclose(theta, before, atol=1e-20)
    assert loss == pytest.approx(np.mean((values - returns) ** 2), rel=1e-5)
    assert steps_taken >= 1


def test_a_fit_fits():
    module, rng = RecurrentCritic("gru", Recall.observation_space, units=6, seed=1), np.random.default_rng(0)
    kernel, starts = SequenceValueKernel(module), np.zeros((40, 4), bool)
    starts[::10] = True
    rows = rng.normal(size=(160, 3)).astype(np.float32)
    sequences = CriticSequences(rows, rows[:4], np.empty(0, np.int64), starts, np.ones_like(starts))
    # What only memory knows: the first number of the episode's first observation.
    targets = np.repeat(rows.reshape(4, 10, 4, 3)[:, :1, :, 0], 10, axis=1).reshape(-1)
    theta = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    kernel.values(theta, sequences)
    moments = [np.zeros_like(theta), np.zeros_like(theta)]
    given = {"batch_size": 64, "learning_rate": 1e-2, "seed": 0, "stream": 1, "first_epoch": 0}
    _, loss = kernel.fit(theta, *moments, sequences, targets, adam_step=0, epochs=300, **given)
    assert loss < 0.05 * np.var(targets)


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumed_from_any_update_ends_with_the_same_bits(kind, tmp_path):
    given = {"env": Recall, "num_envs": 2, "steps_per_env": 10, **KINDS[kind]}
    agent, seen = recall(**given), {}

    def keep(agent):
        agent.save(tmp_path / f"{agent.num_updates}.trpo")
        seen[agent.num_updates] = everything(agent)

    agent.learn(80, callback=keep)
    assert agent.inexact is None
    agent.close()
    modules = {name: given[name] for name in ("policy", "critic") if kind == "own"}
    for update in (1, 3):
        again = TRPO.load(tmp_path / f"{update}.trpo", env=Recall, **modules)
        again.learn(80 - again.num_timesteps, reset_num_timesteps=False)
        assert everything(again) == seen[4]
        again.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_update_leaves_no_trace(kind):
    one, other = recall(**KINDS[kind]), recall(**KINDS[kind])
    one.learn(256)

    def stop(agent):
        if agent.num_updates == 1 and not stop.stopped:
            stop.stopped = True
            original = agent.critic_trainer.values

            def interrupted(observations):
                original(observations)
                agent.critic_trainer.values = original
                raise KeyboardInterrupt

            agent.critic_trainer.values = interrupted

    stop.stopped = False
    with pytest.raises(KeyboardInterrupt):
        other.learn(256, callback=stop)
    other.learn(128, reset_num_timesteps=False)
    assert everything(one) == everything(other)
    for agent in (one, other):
        agent.close()


@pytest.mark.parametrize("kind", ["gru", "own"])
def test_workers_have_the_bits_of_one_process(kind):
    digests = set()
    for more in ({}, {"vectorization": "workers", "num_workers": 2}, {"vectorization": "workers", "num_workers": 4}):
        agent = recall(**KINDS[kind], **more)
        agent.learn(256)
        digests.add(
            agent.policy.head.weight.detach().numpy().tobytes()
            if kind == "own"
            else agent.engine.parameters().tobytes()
        )
        agent.close()
    assert len(digests) == 1


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_hybrid_actions_with_masks_are_remembered_in_rollouts_files_and_actors(kind, tmp_path):
    agent = recall(HybridRecall, policy=kind)
    agent.learn(256)
    agent.evaluate(4)
    agent.save(tmp_path / "model.trpo")
    actor, states = load_actor(tmp_path / "model.trpo"), [None, None]
    observations, masks = np.eye(3, dtype=np.float32), (np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], bool), None)
    for deterministic in (True, False, True):
        given = {"deterministic": deterministic, "action_masks": list(zip(masks[0], [None] * 3, strict=True))}
        found = [one.predict(observations, state, **given) for one, state in zip((agent, actor), states, strict=True)]
        states = [state for _, state in found]
        for mine, its in zip(found[0][0], found[1][0], strict=True):
            np.testing.assert_array_equal(mine, its)
        assert masks[0][np.arange(3), found[0][0][0]].all()
    agent.close()


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_predict_remembers_as_a_rollout_does_and_so_does_a_loaded_actor(kind, tmp_path):
    agent = recall(MaskedRecall, policy=kind)
    agent.learn(256)
    agent.save(tmp_path / "model.trpo")
    loaded, actor = TRPO.load(tmp_path / "model.trpo", env=MaskedRecall), load_actor(tmp_path / "model.trpo")
    assert actor.recurrent
    rng, states = np.random.default_rng(0), [None, None, None]
    for step in range(6):
        observations = rng.normal(size=(3, 3)).astype(np.float32)
        starts, masks = rng.random(3) < 0.3, np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
        given = {"episode_start": starts, "deterministic": step % 2 == 0, "action_masks": masks}
        found = [
            one.predict(observations, state, **given) for one, state in zip((agent, loaded, actor), states, strict=True)
        ]
        states = [state for _, state in found]
        for action, state in found[1:]:
            np.testing.assert_array_equal(action, found[0][0])
            np.testing.assert_array_equal(state, found[0][1])
        assert masks[np.arange(3), found[0][0]].all()
    # One row alone, and what a start forgets.
    action, state = agent.predict(observations[0], states[0][:1], deterministic=True, action_masks=masks[0])
    assert state.shape == states[0][:1].shape
    assert np.isscalar(action) or action.shape == ()
    _, fresh = agent.predict(observations, None, deterministic=True, action_masks=masks)
    _, forgot = agent.predict(observations, states[0], [True] * 3, deterministic=True, action_masks=masks)
    np.testing.assert_array_equal(fresh, forgot)
    for one in (agent, loaded):
        one.close()


@pytest.mark.parametrize("what", ["agent", "actor"])
@pytest.mark.parametrize(
    ("state", "start", "words"),
    [
        (np.zeros((2, 8), np.float32), None, "state: float32 of shape"),
        (np.zeros((3, 7), np.float32), None, "state: float32 of shape"),
        (np.zeros((3, 8), np.int64), None, "state: int64"),
        (np.full((3, 8), np.nan), None, "state: .*finite"),
        (np.full((3, 8), np.nan), [True, False, True], "state: .*finite"),
        ("x", None, "state"),
        (None, [True], "episode_start"),
        (None, [0, 1, 2], "episode_start"),
    ],
)
def test_bad_states_are_named(what, state, start, words, tmp_path):
    agent = recall()
    agent.save(tmp_path / "model.trpo")
    one = agent if what == "agent" else load_actor(tmp_path / "model.trpo")
    with pytest.raises(ValueError, match=words):
        one.predict(np.zeros((3, 3), np.float32), state, start)
    agent.close()


@pytest.mark.parametrize("what", ["agent", "actor", "own"])
def test_a_state_is_not_looked_at_where_an_episode_starts(what, tmp_path):
    agent = recall(**KINDS["own" if what == "own" else "gru"])
    agent.save(tmp_path / "model.trpo")
    one = load_actor(tmp_path / "model.trpo") if what == "actor" else agent
    observations = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    _, state = one.predict(observations, deterministic=True)
    state[1] = 0.0
    expected = one.predict(observations, state, [False, True, False], deterministic=True)
    state[1] = np.nan
    found = one.predict(observations, state, [False, True, False], deterministic=True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()
    agent.close()


def test_a_loaded_actor_without_a_state_says_what_acts(tmp_path):
    agent = recall()
    agent.save(tmp_path / "model.trpo")
    with pytest.raises(ValueError, match=r"recurrent; want actor\.predict"):
        load_actor(tmp_path / "model.trpo")(np.zeros(3, np.float32))
    agent.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "mlp", "recurrent_size": 32}, "recurrent_size"),
        ({"policy": "mlp", "recurrent_size": 64, "recurrent_critic": False}, "recurrent_critic"),
        ({"fisher_subsample": 0.5}, "fisher_subsample"),
        ({"recurrent_size": 0}, "recurrent_size"),
        ({"engine": "native"}, "native"),
        ({"device": "cuda"}, "device: 'cuda' given; want 'auto' or 'cpu' with policy='gru'"),
        ({"preconditioner": "kfac"}, "preconditioner"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        recall(**settings)


def test_a_state_of_another_shape_is_refused_when_the_agent_is_made():
    class Flat(Own):
        def initial_state(self, count):
            return torch.zeros(count * 6)

    with pytest.raises(ValueError, match=r"initial_state\(1\)"):
        recall(policy=lambda *_: Flat(), recurrent_size=64)


def test_a_critics_state_of_another_shape_in_a_file_is_refused(tmp_path):
    agent = recall()
    agent.learn(128)
    agent.save(tmp_path / "model.trpo")
    agent.close()
    arrays, metadata = model_file.read(tmp_path / "model.trpo")
    arrays["adam.state"] = np.zeros((7, 3), np.float32)
    model_file.write(tmp_path / "model.trpo", arrays, metadata)
    with pytest.raises(model_file.ModelFileError, match=r"adam.state: \(7, 3\)"):
        TRPO.load(tmp_path / "model.trpo", env=Recall)


def test_a_fit_may_end_with_pieces_without_samples():
    module, rng = RecurrentCritic("gru", Recall.observation_space, units=6, seed=1), np.random.default_rng(0)
    kernel, valid = SequenceValueKernel(module), np.ones((33, 17), bool)
    valid[32] = False
    rows = rng.normal(size=(valid.size, 3)).astype(np.float32)
    sequences = CriticSequences(rows, rows[:17], np.empty(0, np.int64), np.zeros_like(valid), valid)
    theta = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    kernel.values(theta, sequences)
    returns = rng.normal(size=valid.sum()).astype(np.float32)
    for seed in range(40):
        moments = [np.zeros_like(theta), np.zeros_like(theta)]
        given = {"adam_step": 0, "epochs": 1, "batch_size": 64, "learning_rate": 1e-3, "stream": 1, "first_epoch": 0}
        _, loss = kernel.fit(theta.copy(), *moments, sequences, returns, seed=seed, **given)
        assert np.isfinite(loss)
