"""The collector together with the real engines."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests import reference
from tests.rollout.toys import Walk, copies_of, follow, make_environments, walks
from trpo_fast.algorithm.acting import AgentActor
from trpo_fast.engines import make_engine
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.rollout.collector import Collector


def collect(adapter, steps, *, engine="native", dtype=torch.float32, rollouts=1, action_map="clip", **options):
    """Engine, collector, and the last of some rollouts."""
    policy = MLPPolicy(
        adapter.observation_space, adapter.action_space, hidden_sizes=(16, 16), dtype=dtype, seed=1, **options
    )
    made = make_engine(policy, engine)
    collector = Collector(
        adapter,
        made,
        steps_per_env=steps,
        seed=5,
        action_map=action_map,
        observation_normalizer=ObservationNormalizer(adapter.observation_size),
        reward_scaler=RewardScaler(adapter.num_envs, 0.99),
    )
    collector.warm_up(10)
    for _ in range(rollouts):
        rollout = collector.collect()
    return made, collector, rollout


def zeros(rows):
    return np.zeros(len(rows), rows.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        lambda: walks(5),
        lambda: walks(5, AutoresetMode.NEXT_STEP),
        lambda: make_environments("CartPole-v1", num_envs=5),
        lambda: make_environments("CartPole-v1", num_envs=5, vectorization="vector"),
    ],
    ids=["walk", "walk, next step", "CartPole", "CartPole, vector"],
)
def test_first_ratio_is_exactly_one(make, dtype):
    engine, collector, rollout = collect(make(), 50, dtype=dtype, rollouts=2)
    batch, _, _ = collector.finisher.finish(rollout, zeros, 0.99, 0.95, True)
    assert 100 < len(batch) <= 250
    engine.bind(batch)
    assert engine.evaluate() == (0.0, 0.0)


def test_both_engines_collect_the_same_rollout():
    _, _, native = collect(walks(4), 40, rollouts=2, dtype=torch.float64)
    _, _, autograd = collect(walks(4), 40, rollouts=2, dtype=torch.float64, engine="autograd")
    for name in ("observations", "actions", "log_probs", "rewards", "value_inputs", "episode_returns"):
        np.testing.assert_allclose(getattr(native, name), getattr(autograd, name), rtol=1e-9, atol=1e-9)
    for name in ("terminated", "truncated", "valid", "episode_lengths"):
        np.testing.assert_array_equal(getattr(native, name), getattr(autograd, name))


def test_noise_differs_between_steps_environments_and_rollouts():
    _, collector, first = collect(walks(3), 20)
    actions = np.concatenate([first.actions, collector.collect().actions])
    assert len(np.unique(actions)) == actions.size


class Door(Walk):
    """Sees what goes to the environment."""

    seen: list

    def step(self, action):
        self.seen.append(np.array(action))
        return super().step(action)


def test_actions_are_clipped_at_the_door_and_not_in_the_rollout():
    adapter = make_environments(Door, num_envs=2)
    for env in copies_of(adapter):
        env.seen = []
    _, _, rollout = collect(adapter, 30, log_std_init=1.0)
    seen = np.stack([env.seen[10:] for env in copies_of(adapter)], axis=1)  # after the warm-up
    assert (np.abs(rollout.actions) > 1).mean() > 0.2
    np.testing.assert_array_equal(seen, np.clip(rollout.actions, -1, 1))


class Pump(Door):
    """In the units of its machine."""

    action_space = gymnasium.spaces.Box(8, 40, (1,), np.float32)


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_actions_are_mapped_at_the_door_and_not_in_the_rollout(engine):
    adapter = make_environments(Pump, num_envs=2)
    for env in copies_of(adapter):
        env.seen = []
    made, collector, rollout = collect(adapter, 30, engine=engine, action_map="affine", dtype=torch.float64)
    seen = np.stack([env.seen[10:] for env in copies_of(adapter)], axis=1)  # after the warm-up
    assert 0.1 < (np.abs(rollout.actions) > 1).mean() < 0.6
    np.testing.assert_allclose(seen, reference.environment_action(rollout.actions, 8, 40, "affine"), rtol=1e-7)
    made.bind(collector.finisher.finish(rollout, zeros, 0.99, 0.95, True)[0])
    np.testing.assert_allclose(made.evaluate(), 0, atol=1e-12)


def test_final_observations_are_normalized_as_the_actor_does():
    # In NEXT_STEP the actor itself sees the final observations: the dummy rows.
    rollouts = []
    for mode in AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP:
        normalizer = ObservationNormalizer(3)
        normalizer.merge(np.random.default_rng(0).normal(size=(50, 3)) * 3)
        adapter = walks(1, mode, limit=4, edge=np.inf)
        engine = make_engine(MLPPolicy(adapter.observation_space, adapter.action_space, seed=1))
        collector = Collector(adapter, engine, steps_per_env=5, seed=5, observation_normalizer=normalizer)
        rollouts.append(collector.collect())
    same, following = rollouts
    assert same.truncated[3, 0]
    np.testing.assert_array_equal(same.value_inputs[-1], following.observations[4, 0])


def test_observation_that_is_not_finite_is_named_with_environment_and_step():
    class Lost(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        number = iter(range(3))

        def reset(self, *, seed=None, options=None):
            self.index = next(self.number)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.full(2, np.nan if self.index == 1 else 0, np.float32), 0.0, False, False, {}

    adapter = make_environments(Lost, num_envs=3)
    engine = make_engine(MLPPolicy(adapter.observation_space, adapter.action_space, seed=1))
    with pytest.raises(ValueError, match=r"observation of environment 1 at step 1: .* given; want finite"):
        Collector(adapter, engine, steps_per_env=5, seed=5).collect()


@pytest.fixture(params=["native", "autograd"])
def playing(request):
    """Policy, engine and a collector that made its first rollout."""
    adapter = walks(2)
    policy = MLPPolicy(adapter.observation_space, adapter.action_space, seed=1)
    engine = make_engine(policy, request.param)
    collector = Collector(adapter, engine, steps_per_env=5, seed=5)
    collector.collect()
    return policy, engine, collector


def test_copies_that_are_stepped_one_by_one_are_acted_for_with_narrow_vectors():
    assert follow(walks(2), 4).toy_actor.options["narrow"]
    assert not follow(walks(2, AutoresetMode.NEXT_STEP), 4).toy_actor.options["narrow"]  # stepped by others


def test_parameters_that_are_not_finite_are_named_before_they_act(playing):
    _, engine, collector = playing
    engine.parameters()[-1] = np.nan
    engine.parameters_changed()
    with pytest.raises(ValueError, match=r"parameter 'layers.2.bias' contains nan"):
        collector.collect()


def test_actions_that_overflow_are_noticed(playing):
    _, engine, collector = playing
    engine.parameters()[1:] = 3e38  # finite, unlike what they add up to
    engine.parameters_changed()
    with pytest.raises(ValueError, match=r"action of environment 0 at step 5: .* given; want finite"):
        collector.collect()


def test_collecting_acts_with_parameters_that_were_replaced(playing):
    policy, engine, collector = playing
    with torch.no_grad():
        policy.log_std.fill_(-20)
    policy.layers[-1].bias = torch.nn.Parameter(torch.full((1,), 0.5))
    policy.layers[-1].weight = torch.nn.Parameter(torch.zeros(1, 64))
    np.testing.assert_allclose(collector.collect().actions, 0.5, atol=1e-6)
    assert policy.flat.is_intact()
    assert engine.parameters()[-1] == 0.5


def test_collecting_refuses_a_policy_of_another_dtype(playing):
    policy, _, collector = playing
    policy.double()
    with pytest.raises(ValueError, match="make another engine"):
        collector.collect()


@pytest.mark.parametrize("name", ["native", "autograd"])
def test_a_player_acts_with_parameters_that_were_replaced_and_refuses_another_dtype(name):
    adapter = walks(2)
    policy = MLPPolicy(adapter.observation_space, adapter.action_space, seed=1)
    actor = AgentActor(make_engine(policy, name), adapter.action_space, None, seed=0, stream=0)
    observations = np.ones((2, 3))
    before = actor.act(observations, 0, deterministic=True)
    bias = policy.layers[-1].bias
    policy.layers[-1].bias = torch.nn.Parameter(bias.detach() + 0.25)
    np.testing.assert_allclose(actor.act(observations, 1, deterministic=True), before + 0.25, rtol=1e-6)
    policy.double()
    with pytest.raises(ValueError, match="make another engine"):
        actor.act(observations, 2, deterministic=True)
