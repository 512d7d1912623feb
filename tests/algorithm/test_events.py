import errno
import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from trpo_fast import EveryNTimesteps
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.callbacks import Callback, CallbackList, EvaluationCallback
from trpo_fast.algorithm.evaluation import EvaluationResult
from trpo_fast.algorithm.logging import RunLogger
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.model_file import read_metadata
from trpo_fast.progress import read_progress

STEPS = 3 * 64


def evaluated(mean):
    return EvaluationResult(mean, 0.0, np.array([mean]), np.array([7]), np.array([True]))


def with_means(agent, *means):
    """`agent`, whose evaluations have these means, the last one for ever."""
    left = list(means)
    agent.evaluate = lambda **_: evaluated(left.pop(0) if len(left) > 1 else left[0])
    return agent


class Told(gymnasium.Env):
    """Episodes of five steps; infos say how many there were, and whether the last action was 1 at the end."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {"steps": -1, "is_success": True}

    def step(self, action):
        self.steps += 1
        end, truncated = self.steps == 5, self.steps == 5 and action == 1
        info = {"steps": self.steps, "words": "no number"} | ({"is_success": np.bool_(truncated)} if end else {})
        return np.zeros(2, np.float32), 1.0, end and not truncated, truncated, info


class Rollouts(Callback):
    infos = ("steps", "is_success", "words")

    def __init__(self):
        self.seen = []

    def on_rollout_end(self, agent, rollout):
        infos = {name: array.copy() for name, array in rollout.infos.items()}
        self.seen.append((agent.num_updates, infos, rollout.ended.copy()))
        assert rollout.rewards.shape == rollout.ended.shape == rollout.infos["steps"].shape
        assert rollout.episode_lengths.tolist() == [5] * rollout.ended.sum()
        order = rollout.sequences
        for array in (rollout.rewards, rollout.infos["steps"], order.starts, order.valid, order.state):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
        self.success = rollout.ended & rollout.truncated


def vector(mode):
    return SyncVectorEnv([Told] * 2, autoreset_mode=mode)


@pytest.mark.parametrize(
    ("env", "how"),
    [
        (Told, {}),
        (Told, {"vectorization": "workers", "num_workers": 1}),
        (Told, {"vectorization": "workers", "num_workers": 2, "policy": "gru"}),  # acts in the main process
        (functools.partial(vector, AutoresetMode.SAME_STEP), {}),
        (functools.partial(vector, AutoresetMode.NEXT_STEP), {}),
    ],
    ids=["sync", "workers", "workers step by step", "same step", "next step"],
)
def test_a_rollout_has_what_infos_say_under_the_names_asked_for(make_agent, env, how):
    made = env() if isinstance(env, functools.partial) else env
    callback = Rollouts()
    agent = make_agent(made, **({"num_envs": 2} if made is Told else {}), steps_per_env=13, **how)
    agent.learn(40, callback=callback)
    assert [updates for updates, _, _ in callback.seen] == [0, 1]
    infos, ended = callback.seen[1][1:]
    assert np.isnan(infos["words"]).all()
    assert (infos["steps"][ended] == 5).all() and ended.sum() > 2
    inside = ~ended & (infos["steps"] > 0)  # not a row that only resets
    assert set(infos["steps"][inside]) == {1, 2, 3, 4}
    assert (infos["is_success"][ended] == callback.success[ended]).all()
    assert np.isnan(infos["is_success"][inside]).all()
    agent.close()
    if made is not env:
        made.close()


def test_what_no_callback_asks_for_is_not_kept_and_names_that_cannot_be_are_refused(make_agent):
    class Asks(Callback):
        infos = ("x", 3)

    class Looks(Callback):
        def on_rollout_end(self, agent, rollout):
            assert dict(rollout.infos) == {}

    with pytest.raises(ValueError, match=r"infos: \['x', 3\] given; want 16 names at most, strings"):
        make_agent().learn(STEPS, callback=Asks())
    make_agent().learn(STEPS, callback=Looks())


def test_the_log_has_the_part_of_episodes_that_were_a_success(make_agent, tmp_path):
    callback = Rollouts()
    agent = make_agent(Told, steps_per_env=20)
    agent.learn(120, callback=[RunLogger(tmp_path, tensorboard=False), callback])
    rows = read_progress(tmp_path / "progress.csv")
    said = [infos["is_success"][ended] for _, infos, ended in callback.seen]
    assert float(rows[0]["rollout/success_rate"]) == said[0].mean()
    assert float(rows[1]["rollout/success_rate"]) == np.concatenate(said)[-100:].mean()
    assert agent.callback_states["RunLogger"]["successes"] == np.concatenate(said).tolist()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_is_raised_at_a_rollouts_end_undoes_the_update(make_agent, bits, error):
    class Raises(Callback):
        def on_rollout_end(self, agent, rollout):
            agent.logger.record("of/rollout", agent.num_updates)
            if agent.num_updates == 1:
                raise error

    agent = make_agent()
    with pytest.raises(error):
        agent.learn(3 * STEPS, callback=Raises())
    assert agent.num_updates == 1 and bits(agent) == bits(make_agent().learn(STEPS))
    assert agent.logger.get_state() == {"of/rollout": 0}, "what was recorded in the update is undone, too"
    if error is KeyboardInterrupt:
        agent.learn(STEPS, reset_num_timesteps=False)
        assert bits(agent) == bits(make_agent().learn(2 * STEPS))


def test_nothing_is_saved_between_a_rollout_and_its_update(make_agent, tmp_path):
    class Saves(Callback):
        def on_rollout_end(self, agent, rollout):
            with pytest.raises(RuntimeError, match=r"save: called in on_rollout_end.*want it in on_update"):
                agent.save(tmp_path / "m.trpo")

    make_agent().learn(STEPS, callback=Saves()).save(tmp_path / "m.trpo")


def test_a_start_that_says_false_ends_the_training_before_it_steps(make_agent):
    class Reached(Callback):
        def on_training_start(self, agent, total_timesteps):
            return False

        def on_training_end(self, agent):
            self.ended = True

    callback = Reached()
    agent = make_agent().learn(STEPS, callback=callback)
    assert agent.num_updates == 0 and agent.collector.get_state()["step"] == 0 and callback.ended


class Hears(Callback):
    def __init__(self, answer=None):
        self.calls, self.answer = [], answer

    def on_evaluation(self, agent, result):
        self.calls.append(result.mean)

    def on_new_best(self, agent, result):
        self.calls.append("best")
        return self.answer

    def on_update(self, agent):
        self.calls.append("update")


def test_all_callbacks_hear_of_evaluations_and_of_a_new_best(make_agent):
    hears = Hears()
    with_means(make_agent(), 1.0, 0.5, 2.0).learn(3 * STEPS, callback=[EvaluationCallback(STEPS), hears])
    assert hears.calls == [1.0, "best", "update", 0.5, "update", 2.0, "best", "update"]
    agent = with_means(make_agent(), 1.0)
    hears.calls, hears.on_training_start = [], lambda agent, total_timesteps: hears.calls.append("start")
    agent.learn(STEPS, callback=[EvaluationCallback(2 * STEPS, at_start=True), hears])
    assert hears.calls == ["start", 1.0, "best", "update"]
    agent = with_means(make_agent(), 1.0)
    callbacks = [EvaluationCallback(STEPS, at_start=True), Hears(answer=False)]
    assert agent.learn(STEPS, callback=callbacks).num_updates == 0
    assert agent.learn(3 * STEPS, callback=[EvaluationCallback(STEPS), Hears(answer=False)]).num_updates == 1


@pytest.mark.parametrize(
    ("arguments", "means", "updates"),
    [
        ({"stop_at_return": 2.0}, [1.0, 2.0], 2),
        ({"patience": 2}, [1.0, 3.0, 3.0, 2.0], 4),
        ({"patience": 3}, [1.0, 0.0, 0.0, 2.0, 0.0], 7),
        ({"stop_at_return": 1.0, "at_start": True}, [1.0], 0),
    ],
)
def test_evaluations_end_a_training_at_a_goal_or_where_nothing_becomes_better(make_agent, arguments, means, updates):
    agent = with_means(make_agent(), *means)
    callback = EvaluationCallback(STEPS, **arguments)
    assert agent.learn(9 * STEPS, callback=callback).num_updates == updates
    assert callback.best_mean == max(means)


@pytest.mark.parametrize("infos", ["is_success", None, 3])
def test_infos_that_are_no_names_are_refused(make_agent, infos):
    callback = Callback()
    callback.infos = infos
    with pytest.raises(TypeError, match=r"^infos: .* given; want a sequence of names"):
        make_agent().learn(STEPS, callback=callback)


def test_a_training_that_counts_from_0_has_the_whole_patience(make_agent):
    agent = with_means(make_agent(), 3.0, 2.0, 1.0)
    callback = EvaluationCallback(STEPS, patience=2)
    agent.learn(9 * STEPS, callback=callback)
    assert agent.num_updates == 3
    agent.learn(9 * STEPS, callback=callback)
    assert agent.num_updates == 5 and callback.best_mean == 3.0


def test_a_run_that_goes_on_knows_for_how_long_nothing_became_better(make_agent, tmp_path):
    agent = with_means(make_agent(), 3.0, 2.0, 1.0)
    agent.learn(2 * STEPS, callback=EvaluationCallback(STEPS, patience=3))
    agent.save(tmp_path / "m.trpo")
    again = with_means(TRPO.load(tmp_path / "m.trpo"), 2.0)
    callback = EvaluationCallback(STEPS, patience=3)
    again.learn(9 * STEPS, callback=callback, reset_num_timesteps=False)
    assert again.num_updates == 4 and callback.best_mean == 3.0
    again.close()


def test_evaluations_from_several_starts_are_one_result_and_the_latest_model_is_kept(make_agent, tmp_path):
    path = tmp_path / "last.trpo"
    callback = EvaluationCallback(STEPS, episodes=2, seed=[5, 6], last_path=path, max_steps=20)
    with pytest.warns(UserWarning, match="had not ended"):
        agent = make_agent().learn(2 * STEPS, callback=callback)
        apart = [agent.evaluate(2, seed=seed, max_steps=20).returns for seed in (5, 6)]
    _, result = callback.results[-1]
    assert result.returns.tolist() == np.concatenate(apart).tolist() and result.mean == result.returns.mean()
    assert TRPO.load(path).num_timesteps == 2 * STEPS


def test_what_no_evaluation_can_have_is_refused_by_name(tmp_path):
    for arguments, message in (
        ({"seed": []}, r"seed: \[\] given; want an integer from 0"),
        ({"patience": 0}, "patience: 0 given; want an integer >= 1"),
        ({"stop_at_return": float("nan")}, "stop_at_return: nan given; want a finite number"),
        ({"last_path": "a", "best_path": "a"}, "last_path: a given, which is best_path, too"),
        ({"last_path": "."}, "last_path: the folder"),
        ({"deterministic": "no"}, "deterministic: 'no' given; want True or False"),
    ):
        with pytest.raises(ValueError, match=message):
            EvaluationCallback(STEPS, **arguments)


def test_a_callback_of_every_n_timesteps_is_called_at_the_first_update_behind_each_also_when_resumed(make_agent):
    found = []

    def note(agent):
        found.append(agent.total_timesteps)

    def callback():
        return EveryNTimesteps(2 * STEPS + 1, note)

    agent = make_agent().learn(STEPS, callback=callback())
    agent.learn(6 * STEPS, callback=callback(), reset_num_timesteps=False)
    assert found == [3 * STEPS, 5 * STEPS, 7 * STEPS]
    assert make_agent().learn(5 * STEPS, callback=EveryNTimesteps(STEPS, lambda agent: False)).num_updates == 1


def test_callbacks_that_cannot_be_are_named(tmp_path):
    class Letters(Callback):
        infos = "is_success"

    with pytest.raises(TypeError, match="infos: 'is_success' given; want a sequence of names"):
        CallbackList([[Letters()]])
    with pytest.raises(
        TypeError, match=r"callback: \[.*\] given; want a Callback or a function, of several one for each"
    ):
        EveryNTimesteps(STEPS, [Callback()])
    with pytest.raises(ValueError, match="callback: a RunLogger given, which writes what every update records"):
        EveryNTimesteps(STEPS, RunLogger(tmp_path))


def test_a_best_model_that_found_the_disk_full_leaves_room_for_the_next_better_one(make_agent, tmp_path, monkeypatch):
    save, best = checkpoint.save, tmp_path / "best.trpo"
    agent, kept = with_means(make_agent(), 10.0, 30.0, 20.0, 29.0), []

    def full(agent, path, **more):
        if more["evaluation"]["mean"] == 30.0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(agent, path, **more)
        kept.append(read_metadata(path)["evaluation"]["mean"])

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.warns(UserWarning, match="the best model.*was not written: .*No space left"):
        agent.learn(4 * STEPS, callback=EvaluationCallback(STEPS, best_path=best))
    assert kept == [10.0, 20.0, 29.0]


def test_an_evaluation_that_is_made_again_behind_its_own_best_file_is_a_new_best_again(make_agent, tmp_path):
    def callback():
        return EvaluationCallback(2 * STEPS, best_path=tmp_path / "best.trpo")

    agent = with_means(make_agent(), 5.0)
    agent.learn(STEPS, callback=callback())
    agent.save(tmp_path / "m.trpo")
    agent.learn(STEPS, callback=callback(), reset_num_timesteps=False)  # as if it were killed then
    again, hears = with_means(TRPO.load(tmp_path / "m.trpo"), 5.0), Hears()
    again.learn(STEPS, callback=[callback(), hears], reset_num_timesteps=False)
    assert hears.calls == [5.0, "best", "update"] and again.callback_states == agent.callback_states
    again.close()
