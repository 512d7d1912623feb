import pytest

from trpo_fast.algorithm.callbacks import Callback

STEPS = 3 * 64


def test_functions_of_the_progress_give_the_settings_of_each_update(make_agent):
    seen, found = [], []

    def note(agent):
        found.append((agent.last_update.max_kl, agent.last_update.critic_learning_rate))

    def halves(progress):
        seen.append(progress)
        return 0.02 if progress < 0.5 else 0.01

    schedules = {"max_kl": halves, "critic_learning_rate": lambda progress: 1e-3 * (1 - progress)}
    agent = make_agent().learn(4 * STEPS, callback=note, schedules=schedules)
    assert seen == [0.0, 0.25, 0.5, 0.75]
    assert [kl for kl, _ in found] == [0.02, 0.02, 0.01, 0.01]
    assert [rate for _, rate in found] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    agent.learn(STEPS, callback=note)  # of that call alone
    assert found[-1] == (agent.config.max_kl, agent.config.critic_learning_rate)


def test_a_function_stands_in_the_place_of_the_setting_s_own_schedule(make_agent):
    agent = make_agent(max_kl_schedule="cosine", critic_learning_rate_schedule="linear")
    found = []

    def note(agent):
        found.append((agent.last_update.max_kl, agent.last_update.critic_learning_rate))

    agent.learn(2 * STEPS, note, schedules={"max_kl": lambda progress: 0.03})
    rate = agent.config.critic_learning_rate
    assert found == [(0.03, rate), (0.03, rate / 2)]


def test_a_function_that_is_the_setting_changes_no_bit_and_an_entropy_bonus_may_fall(make_agent, bits):
    plain = bits(make_agent(entropy_coefficient=0.01).learn(2 * STEPS))
    agent = make_agent(entropy_coefficient=0.5)
    assert bits(agent.learn(2 * STEPS, schedules={"entropy_coefficient": lambda progress: 0.01})) == plain


@pytest.mark.parametrize(
    ("schedules", "error", "message"),
    [
        ({"max_kl": 0.1}, TypeError, "schedules: 0.1 given for max_kl; want a function of the progress"),
        ({"gamma": float}, ValueError, "schedules: 'gamma' given; want some of max_kl, critic_learning_rate"),
        (abs, TypeError, "schedules: .* given; want functions of the progress"),
        ({"max_kl": lambda progress: -1.0}, ValueError, r"schedules\['max_kl'\]\(0\): -1.0 given; want"),
    ],
)
def test_schedules_that_cannot_be_are_named(make_agent, schedules, error, message):
    agent = make_agent()
    with pytest.raises(error, match=message):
        agent.learn(STEPS, schedules=schedules)
    assert agent.num_updates == 0


class Counted(Callback):
    def on_rollout_end(self, agent, rollout):
        self.first_step = rollout.first_step


@pytest.mark.parametrize(("timesteps", "horizon", "warm_up"), [(6, None, 2), (5, 600, 8), (STEPS, None, 8)])
def test_the_warm_up_takes_no_more_steps_than_the_training_asks_for(make_agent, timesteps, horizon, warm_up):
    counted = Counted()
    make_agent().learn(timesteps, callback=counted, horizon=horizon)
    assert counted.first_step == warm_up  # of each of three environments


def test_a_few_timesteps_that_become_a_whole_rollout_are_said_in_a_line(make_agent):
    with pytest.warns(
        UserWarning, match="learn: 4 timesteps asked for, 1,200 are taken: rollouts are whole, num_envs 3"
    ):
        make_agent("CartPole-v1", steps_per_env=400).learn(4)
