"""Schedules end at a horizon that outlives calls of learn, and files; callbacks' states do, too."""

import pytest

from trpo_fast import model_file
from trpo_fast.algorithm.callbacks import Callback
from trpo_fast.algorithm.trpo import TRPO

STEPS = 3 * 64


def trust_regions(agent, calls, **learning):
    seen = []
    for _ in range(calls):
        agent.learn(STEPS, lambda agent: seen.append(agent.last_update.max_kl), reset_num_timesteps=False, **learning)
    return seen


def test_a_loop_of_short_calls_falls_as_one_long_call_where_the_horizon_is_given(make_agent):
    whole = []
    agent = make_agent(max_kl_schedule="linear")
    agent.learn(4 * STEPS, lambda agent: whole.append(agent.last_update.max_kl))
    assert len(set(whole)) == 4
    again = make_agent(max_kl_schedule="linear")
    assert trust_regions(again, 1, horizon=4 * STEPS) + trust_regions(again, 3) == whole
    assert again.horizon == 4 * STEPS


def test_a_loaded_agent_goes_on_to_the_horizon_of_before(make_agent, tmp_path):
    agent = make_agent(max_kl_schedule="linear")
    first = trust_regions(agent, 2, horizon=4 * STEPS)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert trust_regions(loaded, 2) == trust_regions(agent, 2)
    assert loaded.last_update.max_kl < first[-1]
    loaded.close()


def test_a_file_of_before_there_was_a_horizon_goes_on_with_its_fall(make_agent, tmp_path):
    agent = make_agent(max_kl_schedule="linear")
    first = trust_regions(agent, 2, horizon=4 * STEPS)
    agent.save(tmp_path / "a.trpo")
    tensors, metadata = model_file.read(tmp_path / "a.trpo")
    for name in ("horizon", "schedules_from"):
        del metadata["counters"][name]
    model_file.write(tmp_path / "a.trpo", tensors, metadata)
    loaded, seen = TRPO.load(tmp_path / "a.trpo"), []
    loaded.learn(2 * STEPS, lambda agent: seen.append(agent.last_update.max_kl), reset_num_timesteps=False)
    loaded.close()
    assert seen == trust_regions(agent, 2) and seen[0] < first[-1]


def test_calls_behind_the_horizon_go_through_the_schedules_anew(make_agent, tmp_path):
    """They would stay where the schedules have fallen to, else, and learn ever less."""
    agent, seen = make_agent(max_kl_schedule="linear"), []

    def note(agent):
        seen.append(agent.last_update.max_kl)

    agent.learn(2 * STEPS, note)
    agent.learn(2 * STEPS, note, reset_num_timesteps=False)
    assert seen == [agent.config.max_kl, agent.config.max_kl / 2] * 2
    assert (agent.schedules_from, agent.horizon) == (2 * STEPS, 4 * STEPS)
    agent.learn(4 * STEPS, lambda agent: False, reset_num_timesteps=False)  # ended before its schedules
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo")
    for one in (agent, loaded):
        one.learn(STEPS, reset_num_timesteps=False)
        assert one.last_update.max_kl == pytest.approx(0.75 * one.config.max_kl)
        assert (one.schedules_from, one.horizon) == (4 * STEPS, 8 * STEPS)
    loaded.close()


def test_a_horizon_that_is_given_again_is_the_same_one(make_agent):
    agent = make_agent(max_kl_schedule="linear")
    agent.learn(2 * STEPS)
    first = [trust_regions(agent, 1, horizon=horizon) for horizon in (None, 5 * STEPS, 5 * STEPS)]
    kl = agent.config.max_kl
    assert [value for (value,) in first] == pytest.approx([kl, kl * 2 / 5, kl / 5]), "counted as num_timesteps is"


def test_counting_from_0_forgets_the_horizon(make_agent):
    agent = make_agent(max_kl_schedule="linear")
    agent.learn(STEPS, horizon=9 * STEPS)
    agent.learn(STEPS)
    assert agent.horizon == STEPS


@pytest.mark.parametrize("bad", [STEPS - 1, 0, "9", 1.5])
def test_a_horizon_before_the_end_is_named(make_agent, bad):
    with pytest.raises((TypeError, ValueError), match=r"horizon: .* given; want"):
        make_agent().learn(STEPS, horizon=bad)


class Count(Callback):
    def __init__(self):
        self.updates = 0

    def on_update(self, agent):
        self.updates += 1

    def get_state(self):
        return {"updates": self.updates}

    def set_state(self, state):
        self.updates = state["updates"]


def test_states_of_callbacks_are_in_files_and_go_on_in_order_where_timesteps_do(make_agent, tmp_path):
    one, two = Count(), Count()
    two.updates = 10
    agent = make_agent()
    # Saved by a callback between the two, so that they are at different updates.
    agent.learn(2 * STEPS, [one, lambda agent: agent.save(tmp_path / "a.trpo"), two])
    loaded = TRPO.load(tmp_path / "a.trpo")
    assert loaded.callback_states == {"Count": {"updates": 2}, "Count 2": {"updates": 11}}
    loaded.save(tmp_path / "b.trpo")
    assert TRPO.load(tmp_path / "b.trpo").callback_states == loaded.callback_states
    one, two, three = Count(), Count(), Count()
    loaded.learn(STEPS, [one, two, three], reset_num_timesteps=False)
    assert (one.updates, two.updates, three.updates) == (3, 12, 1)
    one = Count()
    loaded.learn(STEPS, one)
    assert one.updates == 1
    loaded.close()
