import concurrent.futures
import copy
import math
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from trpo_fast.algorithm.callbacks import Callback, CallbackList
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.critic import PendingFit
from trpo_fast.algorithm.schedules import SCHEDULES
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.solvers.status import Status

STEPS = 3 * 64  # of one update of the small agent
TIMINGS = {"rollout", "advantages", "gradient", "solve", "line_search", "critic_fit", "critic_wait"}


class Corridor(gym.Env):
    """Walk right to the end of a line of five cells; episodes are cut after 20 steps."""

    def __init__(self, shape=(1,), fail_at=None, error=None):
        self.observation_space = gym.spaces.Box(-10.0, 10.0, shape, np.float32)
        self.action_space = gym.spaces.Discrete(2, start=5)
        self.fail_at, self.error, self.calls = fail_at, error, 0

    def _observe(self):
        return np.full(self.observation_space.shape, self.position, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.time = int(self.np_random.integers(3)), 0
        return self._observe(), {}

    def step(self, action):
        assert action in (5, 6)
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        self.time += 1
        self.position = max(self.position + (1 if action == 6 else -1), 0)
        done = self.position >= 5
        return self._observe(), 1.0 if done else -0.1, done, self.time >= 20, {}


def test_overlapped_critic_fit_gives_the_same_bits(make_agent, bits):
    agents = [make_agent(overlap_critic=overlap) for overlap in (True, False)]
    for agent in agents:
        agent.learn(4 * STEPS)
    assert bits(agents[0]) == bits(agents[1])
    assert agents[0].last_update.value_loss == agents[1].last_update.value_loss


@pytest.mark.parametrize("cores", [1, 2])
def test_critic_is_fitted_beside_the_rollout_where_there_are_two_cores(make_agent, monkeypatch, cores):
    monkeypatch.setattr("trpo_fast.algorithm.critic.usable_cores", lambda: cores)
    beside = []
    monkeypatch.setattr(PendingFit, "run_beside", lambda fit, compute: beside.append(fit) or fit.run_here(compute))
    make_agent().learn(2 * STEPS)
    assert len(beside) == (2 if cores > 1 else 0)


def test_reading_the_critic_in_a_callback_changes_no_bit(make_agent, bits):
    plain, watched = make_agent(), make_agent()
    plain.learn(4 * STEPS)
    watched.learn(4 * STEPS, callback=lambda agent: agent.critic.flat.numpy.sum() > math.inf or None)
    assert bits(plain) == bits(watched)


def test_same_seed_same_bits_and_another_seed_others(make_agent, bits):
    learned = [bits(make_agent(seed=seed).learn(2 * STEPS)) for seed in (3, 3, 4)]
    assert learned[0] == learned[1] != learned[2]


@pytest.mark.parametrize("overlap", [True, False])
def test_timings_have_exactly_the_promised_keys(make_agent, overlap):
    agent = make_agent(overlap_critic=overlap).learn(2 * STEPS)
    timings = agent.last_update.timings
    assert set(timings) == TIMINGS
    assert all(seconds >= 0 for seconds in timings.values())
    assert timings["rollout"] > 0 and timings["critic_fit"] > 0


def test_report_tells_of_an_update_inside_the_trust_region(make_agent):
    agent = make_agent(max_kl=0.02).learn(3 * STEPS)
    report = agent.last_update
    assert report.status == Status.SUCCESS
    assert 0 < report.kl <= 0.02
    assert report.improvement > 0
    assert report.steps == STEPS
    assert report.gradient_norm > 0 and report.cg_iterations > 0
    assert report.explained_variance <= 1
    assert report.value_loss > 0


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [("preconditioner", "kfac", "None"), ("fisher_jacobians", "always", "'auto' or 'never'")],
)
def test_what_the_engine_cannot_make_is_refused_before_anything_is_collected(make_agent, name, value, wanted):
    with pytest.raises(ValueError, match=f"{name}: {value!r} given; want {wanted} with the autograd engine"):
        make_agent(**{name: value}, engine="autograd")
    make_agent(fisher_jacobians="never", engine="autograd")


def test_schedules_fall_over_the_training_and_never_to_nothing(make_agent):
    agent = make_agent(max_kl=0.02, max_kl_schedule="linear", critic_learning_rate_schedule="cosine")
    seen = []

    def note(agent):
        seen.append((agent.last_update.max_kl, agent.last_update.critic_learning_rate))

    agent.learn(4 * STEPS, callback=note)
    np.testing.assert_allclose([kl for kl, _ in seen], [0.02, 0.015, 0.01, 0.005])
    np.testing.assert_allclose([rate for _, rate in seen], 5e-4 * (1 + np.cos(np.pi * np.arange(4) / 4)))
    assert agent.last_update.kl <= 0.005


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_above_zero_until_the_last_timestep_of_the_longest_training(name):
    assert 0 < SCHEDULES[name](1 - 1e-12) <= SCHEDULES[name](0.5) <= SCHEDULES[name](0.0) == 1


def test_a_training_in_two_parts_follows_the_schedule_of_the_whole(make_agent, bits):
    whole = make_agent(max_kl_schedule="linear").learn(4 * STEPS)
    parts = make_agent(max_kl_schedule="linear")
    parts.learn(4 * STEPS, callback=lambda agent: agent.num_updates < 2)
    parts.learn(2 * STEPS, reset_num_timesteps=False)
    assert bits(parts) == bits(whole)


def test_fisher_rows_are_a_part_of_the_batch_drawn_anew_for_every_update(make_agent):
    agent = make_agent(fisher_subsample=0.25)
    first = agent._fisher_rows(STEPS)
    assert len(first) == STEPS // 4
    assert (np.diff(first) > 0).all() and first[0] >= 0 and first[-1] < STEPS
    agent.num_updates = 1
    assert not np.array_equal(agent._fisher_rows(STEPS), first)
    assert make_agent()._fisher_rows(STEPS) is None
    assert len(make_agent(fisher_subsample=1e-9)._fisher_rows(STEPS)) == 1


def test_learn_trains_whole_rollouts_and_counts_additional_steps(make_agent):
    agent = make_agent()
    assert agent.learn(STEPS + 1) is agent
    assert (agent.num_timesteps, agent.num_updates) == (2 * STEPS, 2)
    agent.learn(STEPS, reset_num_timesteps=False)
    assert (agent.num_timesteps, agent.num_updates) == (3 * STEPS, 3)
    agent.learn(STEPS)
    assert (agent.num_timesteps, agent.num_updates) == (STEPS, 4)


def test_whole_numbers_are_timesteps_however_they_are_written(make_agent):
    agent = make_agent()
    agent.learn(float(STEPS))
    assert agent.num_timesteps == STEPS and type(agent.num_timesteps) is int


def test_an_agent_says_what_it_is(make_agent):
    agent = make_agent(seed=3)
    agent.learn(STEPS)
    text = repr(agent)
    assert "\n" not in text and "MLPPolicy (native engine" in text and "seed=3" in text and f"{STEPS:,} steps" in text


@pytest.mark.parametrize("value", [0, -5, 1.5, math.inf, "100", True, 2**63, 1e300])
def test_bad_total_timesteps_are_refused_by_name(make_agent, value):
    with pytest.raises(ValueError, match=r"total_timesteps: .*want an integer from 1 to"):
        make_agent().learn(value)


@pytest.mark.parametrize("name", ["progress_bar", "reset_num_timesteps"])
def test_what_is_no_flag_is_refused_by_name(make_agent, name):
    with pytest.raises(ValueError, match=f"{name}: 'no' given; want True or False"):
        make_agent().learn(1, **{name: "no"})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("simulator gone")])
@pytest.mark.parametrize("overlap", [True, False])
def test_interrupted_update_leaves_the_agent_at_its_last_complete_one(make_agent, bits, error, overlap):
    made = []

    def env():
        # The first environment fails in the middle of the third rollout.
        made.append(Corridor(fail_at=8 + 2 * 64 + 20, error=error) if not made else Corridor())
        return made[-1]

    agent = make_agent(env, overlap_critic=overlap)
    states = []
    with pytest.raises(type(error)):
        agent.learn(10 * STEPS, callback=lambda agent: states.append(agent.num_timesteps))
    undisturbed = make_agent(Corridor, overlap_critic=overlap).learn(2 * STEPS)
    assert states == [STEPS, 2 * STEPS]
    assert (agent.num_timesteps, agent.num_updates) == (2 * STEPS, 2)
    assert bits(agent) == bits(undisturbed)
    assert agent.last_update.kl == undisturbed.last_update.kl
    agent.learn(STEPS, reset_num_timesteps=False)
    assert agent.num_timesteps == 3 * STEPS


@pytest.fixture
def interrupted(make_agent):
    """An agent interrupted in its third rollout, while a fit far too long to wait for goes on; with its critic before.

    The fit of its first update is short.
    """

    def make(error):
        made = []

        def env():
            made.append(Corridor(fail_at=8 + 2 * 64 + 20, error=error) if not made else Corridor())
            return made[-1]

        agent = make_agent(env)
        seen = {}

        def lengthen(agent):
            if agent.num_updates == 1:
                seen["before"] = agent.critic.flat.numpy.copy(), agent.critic_trainer.get_state()["adam_step"]
                agent.critic_trainer._config = agent.config.replace(critic_epochs=10_000_000)

        with pytest.raises(type(error)):
            agent.learn(10 * STEPS, callback=lengthen)
        agent.critic_trainer._config = agent.config
        return agent, *seen["before"]

    return make


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_interruption_abandons_a_long_fit_and_leaves_critic_and_adam_as_before_it(interrupted, tmp_path, error):
    began = time.monotonic()
    agent, critic, adam_step = interrupted(error)
    assert time.monotonic() - began < 2
    assert (agent.num_timesteps, agent.num_updates) == (2 * STEPS, 2)
    np.testing.assert_array_equal(agent.critic.flat.numpy, critic)
    assert agent.critic_trainer.get_state()["adam_step"] == adam_step
    assert agent.inexact.startswith("1 of its critic's fits")
    with pytest.raises(RuntimeError, match="the value fit was stopped"):
        _ = agent.last_update.value_loss
    agent.save(tmp_path / "a.trpo")
    assert TRPO.load(tmp_path / "a.trpo").inexact == agent.inexact
    agent.learn(STEPS, reset_num_timesteps=False)
    assert agent.num_updates == 3
    assert agent.last_update.value_loss > 0


def test_who_stops_a_training_may_give_the_fit_more_time(interrupted):
    error = KeyboardInterrupt()
    error.patience = 0.9
    began = time.monotonic()
    agent, *_ = interrupted(error)
    assert time.monotonic() - began > 0.9
    assert agent.inexact is not None  # 10,000,000 epochs take longer


def test_ctrl_c_once_more_while_the_fit_is_given_time_ends_every_callback(interrupted, monkeypatch):
    ended = []

    def wait(futures, timeout):
        ended.append("interrupted again")
        raise KeyboardInterrupt

    monkeypatch.setattr(CallbackList, "on_training_end", lambda self, agent: ended.append("ended"))
    monkeypatch.setattr(concurrent.futures, "wait", wait)
    agent, critic, _ = interrupted(KeyboardInterrupt())
    assert ended == ["interrupted again", "ended"]
    np.testing.assert_array_equal(agent.critic.flat.numpy, critic)
    assert agent.inexact.startswith("1 of its critic's fits")


def test_the_time_of_a_callback_is_not_booked_as_waiting_for_the_critic(make_agent):
    class Slow(Callback):
        def on_rollout_end(self, agent, rollout):
            time.sleep(0.2)

    agent = make_agent(overlap_critic=False).learn(STEPS, Slow())
    assert agent.last_update.timings["critic_wait"] == 0.0


def test_a_training_that_a_callback_refuses_leaves_the_agent_as_it_was(make_agent, bits):
    class Refusing(Callback):
        def on_training_start(self, agent, end):
            raise LookupError("not here")

    agent = make_agent().learn(STEPS)
    before = bits(agent), agent.num_timesteps, agent.earlier_timesteps, agent.horizon
    for refused, error in (
        ({"callback": Refusing()}, LookupError),
        ({"callback": 3}, TypeError),
        ({"horizon": 1}, ValueError),
    ):
        with pytest.raises(error):
            agent.learn(2 * STEPS, **refused)
        assert (bits(agent), agent.num_timesteps, agent.earlier_timesteps, agent.horizon) == before
    assert agent.learn(STEPS, reset_num_timesteps=False).num_timesteps == 2 * STEPS


def test_a_callback_whose_state_cannot_be_had_does_not_make_the_agent_useless(make_agent):
    class Stateless(Callback):
        def get_state(self):
            raise LookupError("no state")

    agent = make_agent()
    with pytest.raises(LookupError, match="no state"):
        agent.learn(STEPS, Stateless())
    assert agent.learn(STEPS).num_timesteps == STEPS


def test_close_abandons_a_long_fit_and_the_agent_can_still_be_saved(interrupted, tmp_path):
    agent, critic, _ = interrupted(RuntimeError("simulator gone"))
    began = time.monotonic()
    agent.close()
    assert time.monotonic() - began < 1
    np.testing.assert_array_equal(agent.critic.flat.numpy, critic)
    agent.save(tmp_path / "a.trpo")
    np.testing.assert_array_equal(TRPO.load(tmp_path / "a.trpo").critic.flat.numpy, critic)


def test_interpreter_ends_without_waiting_for_a_long_fit():
    program = """
import os, time
import numpy as np
from trpo_fast.algorithm.callbacks import Callback
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.critic import PendingFit
from trpo_fast.algorithm.schedules import SCHEDULES
from trpo_fast.algorithm.trpo import TRPO
agent = TRPO("Pendulum-v1", seed=0, num_envs=1, steps_per_env=64, warm_up_steps=0, critic_epochs=100_000_000)
agent.critic_trainer.start(np.zeros((64, 3), np.float32), np.ones(64, np.float32))
time.sleep(0.2)
pending = agent.critic_trainer.pending
assert not pending.done(), pending.exception() or pending.result()
print(time.time(), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert time.time() - float(done.stdout) < 30  # the fit would take hours


@pytest.mark.parametrize("value", [3, "g=9", [1], {1: 2}])
def test_bad_env_kwargs_are_refused_by_name(value):
    with pytest.raises(TypeError, match=r"env_kwargs: .* given; want a mapping"):
        TRPO("Pendulum-v1", env_kwargs=value)


@pytest.mark.parametrize("seed", range(8))
def test_seeds_of_evaluation_environments_stay_below_the_32_bit_limit(make_agent, monkeypatch, seed):
    agent = make_agent()
    seeds = []
    reset = InProcessEnvironments.reset
    monkeypatch.setattr(InProcessEnvironments, "reset", lambda self, seed: seeds.append(seed) or reset(self, seed))
    agent.evaluate(3, seed=seed)
    assert 0 <= seeds[0] <= 2**31 - 1 - 3


def test_settings_with_which_no_critic_fit_succeeds_are_reported_and_leave_the_critic_usable(make_agent):
    agent = make_agent(critic_learning_rate=1e30, scale_rewards=False)
    before = agent.critic.flat.numpy.tobytes()
    told = pytest.warns(RuntimeWarning, match=r"not finite \(learning_rate=1e\+30.*those before this fit")
    with told, pytest.raises(FloatingPointError, match="finite"):
        agent.learn(5 * STEPS)
    assert agent.num_updates == 3
    assert agent.critic.flat.numpy.tobytes() == before
    assert np.isfinite(agent.policy.flat.numpy).all()


class Spike(Corridor):
    """The corridor, with one reward that is far too large."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, 1e25 if self.calls == 100 else reward, terminated, truncated, info


def values_of_any_kind(observation_space, action_space, seed):
    """A critic that the compiled core has no kernel for."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0))


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("critic", [None, values_of_any_kind], ids=["compiled", "torch"])
def test_one_return_that_is_far_too_large_is_named_and_the_training_goes_on(make_agent, tmp_path, critic, overlap):
    agent = make_agent(Spike, scale_rewards=False, overlap_critic=overlap, critic=critic)
    seen = []

    def look(agent):
        parameters = [p.detach().clone() for p in agent.critic.parameters()]
        adam = agent.critic_trainer.get_state()
        moments = [adam["first_moment"], adam["second_moment"]]
        report = agent.last_update
        seen.append((report.critic_status, report.value_loss, adam["adam_step"], [*parameters, *moments]))

    with pytest.warns(RuntimeWarning, match=r"second moment.*1e\+25.*those before this fit, and training goes on"):
        agent.learn(4 * STEPS, callback=look)
    statuses, losses, steps, states = zip(*seen, strict=True)
    assert statuses == (Status.SUCCESS, Status.NON_FINITE, Status.SUCCESS, Status.SUCCESS)
    assert [math.isnan(loss) for loss in losses] == [False, True, False, False]
    assert steps == (8, 8, 16, 24)
    for before, after, later in zip(states[0], states[1], states[2], strict=True):
        np.testing.assert_array_equal(after, before)
        assert np.isfinite(np.asarray(later)).all()
        assert (np.asarray(later) != np.asarray(before)).any()
    agent.save(tmp_path / "model.trpo")
    loaded = TRPO.load(tmp_path / "model.trpo", env=Spike, critic=critic)
    assert loaded.num_updates == 4
    loaded.close()


def test_policy_improves_on_a_corridor(make_agent):
    agent = make_agent(Corridor, critic_epochs=10)
    before = agent.evaluate(30, seed=0).mean
    agent.learn(40 * STEPS)
    assert before < 0 < agent.evaluate(30, seed=0).mean


def test_policy_is_a_torch_module_over_the_trained_parameters(make_agent):
    agent = make_agent("CartPole-v1").learn(STEPS)
    observation = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
    normalized = agent.observation_normalizer.normalize(observation[None], np.float32)
    logits = agent.policy(torch.from_numpy(normalized)).logits
    assert agent.predict(observation, deterministic=True)[0] == logits.argmax()


def test_policy_cannot_be_replaced_but_takes_parameters(make_agent):
    agent, other = make_agent(), make_agent(seed=4)
    with pytest.raises(AttributeError, match=r"policy: cannot be replaced.*agent\.take_policy\(other_agent\)"):
        agent.policy = copy.deepcopy(agent.policy)
    agent.policy.load_state_dict(other.policy.state_dict())
    assert (agent.policy.flat.numpy == other.policy.flat.numpy).all()


def test_vector_env_brings_its_own_number_of_environments(make_agent):
    env = gym.vector.SyncVectorEnv([Corridor] * 5, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    agent = make_agent(env)
    assert agent.num_envs == agent.config.num_envs == 5
    with pytest.raises(ValueError, match="num_envs: 2 given; want it left out or 5"):
        TRPO(gym.vector.SyncVectorEnv([Corridor] * 5, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP), num_envs=2)


def test_overrides_go_on_top_of_a_config_and_unknown_ones_are_refused():
    agent = TRPO(Corridor, num_envs=2, config=TRPOConfig(gamma=0.5, damping=0.3), gamma=0.7)
    assert (agent.config.num_envs, agent.config.gamma, agent.config.damping) == (2, 0.7, 0.3)
    agent.close()
    with pytest.raises(TypeError, match="'gama' is no field of TRPOConfig; did you mean gamma"):
        TRPO(Corridor, gama=0.5)
    with pytest.raises(TypeError, match=r"config: .* given; want a TRPOConfig"):
        TRPO(Corridor, config={"gamma": 0.5})


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0", True])
def test_bad_seed_is_refused_by_name(seed):
    with pytest.raises(ValueError, match=r"seed: .*want an integer"):
        TRPO(Corridor, seed=seed)


def test_seed_is_drawn_and_kept_when_none_is_given():
    agents = [TRPO(Corridor, num_envs=1) for _ in range(2)]
    assert agents[0].seed != agents[1].seed  # equal with probability 2**-31
    for agent in agents:
        agent.close()


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_predict_takes_one_observation_or_several(make_agent, env):
    agent = make_agent(env)
    shape = agent.observation_space.shape
    single, state = agent.predict(np.zeros(shape), state="kept", deterministic=True)
    several, _ = agent.predict(np.zeros((7, *shape)), deterministic=True)
    assert state == "kept"
    assert single.shape == agent.action_space.shape
    assert several.shape == (7, *agent.action_space.shape)
    assert single.dtype == several.dtype == agent.action_space.dtype
    assert agent.action_space.contains(single)
    assert (several == single).all()


def test_predict_adds_the_start_of_a_discrete_space_and_flattens_observations(make_agent):
    agent = make_agent(lambda: Corridor(shape=(2, 3)))
    actions, _ = agent.predict(np.zeros((50, 2, 3)))
    assert set(actions.tolist()) == {5, 6}  # one side missing: probability 2**-49


def test_predict_samples_anew_at_every_call_unless_deterministic(make_agent):
    agent = make_agent()
    observation = np.zeros(3)
    assert agent.predict(observation)[0] != agent.predict(observation)[0]
    first, second = (agent.predict(observation, deterministic=True)[0] for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("shape", [(), (2,), (4,), (5, 4), (2, 2, 3), (3, 1)])
def test_predict_refuses_a_wrong_shape_by_name(make_agent, shape):
    with pytest.raises(ValueError) as error:
        make_agent().predict(np.zeros(shape))
    assert f"observation: shape {shape} given; want (3,) for one observation or (n, 3) for several" in str(error.value)


def test_predict_of_no_observations_is_no_actions(make_agent):
    actions, _ = make_agent().predict(np.zeros((0, 3)))
    assert actions.shape == (0, 1)


def test_predict_refuses_ragged_lists_by_name(make_agent):
    with pytest.raises(ValueError, match="observation: no array can be made of it"):
        make_agent().predict([[0.0, 1.0, 2.0], [0.0, 1.0]])


def test_predict_refuses_observations_that_are_not_finite_numbers(make_agent):
    agent = make_agent()
    with pytest.raises(ValueError, match=r"^observation: column 1 is nan; want finite numbers$"):
        agent.predict(np.array([0.0, np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"^observation: row 1, column 2 is inf; want finite numbers$"):
        agent.predict([[0.0, 0.0, 0.0], [0.0, 0.0, np.inf]])
    with pytest.raises(ValueError, match=r"^observation: it, or the action that comes of it, is beyond float32"):
        make_agent(normalize_observations=False).predict([0.0, 1e300, 0.0])
    with pytest.raises(TypeError, match="observation: dtype"):
        agent.predict(np.array(["a", "b", "c"]))


def test_prediction_and_evaluation_leave_the_training_untouched(make_agent, bits):
    plain, watched = make_agent(), make_agent()
    for _ in range(3):
        plain.learn(STEPS)
        watched.learn(STEPS)
        watched.evaluate(4, deterministic=False)
        watched.predict(np.zeros(3))
    assert bits(plain) == bits(watched)


def test_evaluation_with_the_same_seed_plays_the_same_episodes(make_agent):
    agent = make_agent().learn(STEPS)
    first, again, other = (agent.evaluate(4, deterministic=False, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert (first.returns != other.returns).any()
    assert first.mean == pytest.approx(first.returns.mean())
    assert first.std == pytest.approx(first.returns.std())
    assert first.lengths.tolist() == [200] * 4


@pytest.mark.parametrize("value", [0, -1, 2.0, None])
def test_bad_number_of_episodes_is_refused_by_name(make_agent, value):
    with pytest.raises(ValueError, match=r"episodes: .*want an integer >= 1"):
        make_agent().evaluate(value)


def test_unknown_environment_is_refused_with_near_names():
    with pytest.raises(ValueError, match="CartPole-v1"):
        TRPO("CartPol-v1")


def test_autograd_engine_learns_as_the_native_one_does(make_agent):
    agents = [make_agent(engine=engine, dtype="float64") for engine in ("native", "autograd")]
    for agent in agents:
        agent.learn(2 * STEPS)
    assert [agent.engine.name for agent in agents] == ["native", "autograd"]
    native, autograd = (agent.policy.flat.numpy for agent in agents)
    # Two updates amplify rounding differences of 1e-16; measured far below this bound.
    assert np.linalg.norm(native - autograd) <= 1e-7 * np.linalg.norm(native)
