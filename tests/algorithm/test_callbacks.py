import errno
import math
import os
import sys
import warnings
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

from tests.algorithm.images import OwnCritic
from trpo_fast import model_file
from trpo_fast.algorithm import trpo
from trpo_fast.algorithm.callbacks import (
    Callback,
    CheckpointCallback,
    EvaluationCallback,
    EveryNTimesteps,
    StopAtReturn,
    as_callback,
)
from trpo_fast.algorithm.evaluation import EvaluationResult
from trpo_fast.algorithm.logging import RunLogger
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.progress import read_progress
from trpo_fast.run_models import checkpoint_name

STEPS = 3 * 64


def evaluated(mean):
    return EvaluationResult(mean, 0.0, np.array([mean]), np.array([1]), np.array([True]))


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_training_start(self, agent, total_timesteps):
        self.calls.append(("start", total_timesteps))

    def on_update(self, agent):
        self.calls.append(("update", agent.num_timesteps))

    def on_training_end(self, agent):
        self.calls.append(("end", agent.num_timesteps))


def test_callbacks_see_start_every_update_and_end(make_agent):
    recorder = Recorder()
    agent = make_agent().learn(2 * STEPS, callback=recorder)
    agent.learn(STEPS, callback=[recorder, None], reset_num_timesteps=False)
    first = [("start", 2 * STEPS), ("update", STEPS), ("update", 2 * STEPS), ("end", 2 * STEPS)]
    assert recorder.calls == [*first, ("start", 3 * STEPS), ("update", 3 * STEPS), ("end", 3 * STEPS)]


def test_false_ends_the_training_after_all_callbacks_ran(make_agent):
    recorder = Recorder()
    agent = make_agent().learn(10 * STEPS, callback=[lambda agent: agent.num_updates < 2, recorder])
    assert agent.num_timesteps == 2 * STEPS
    assert recorder.calls[-2:] == [("update", 2 * STEPS), ("end", 2 * STEPS)]


def test_none_from_a_function_goes_on(make_agent):
    assert make_agent().learn(2 * STEPS, callback=lambda agent: None).num_updates == 2


def test_exception_of_a_callback_reaches_the_caller_and_ends_the_others(make_agent):
    recorder = Recorder()

    def fail(agent):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        make_agent().learn(STEPS, callback=[fail, recorder])
    assert recorder.calls == [("start", STEPS), ("end", STEPS)]


def test_anything_else_is_refused_by_name():
    with pytest.raises(TypeError, match="callback: 3 given; want a Callback"):
        as_callback(3)
    with pytest.raises(TypeError, match=r"callback: the class StopAtReturn given; want one that is made"):
        as_callback(StopAtReturn)


def test_checkpoints_are_loadable_and_named_by_timesteps(make_agent, tmp_path):
    make_agent().learn(4 * STEPS, callback=CheckpointCallback(tmp_path / "new" / "folder", 2 * STEPS))
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == [f"{2 * STEPS:012d}.trpo", f"{4 * STEPS:012d}.trpo"]
    assert TRPO.load(tmp_path / "new" / "folder" / names[0]).num_timesteps == 2 * STEPS


def test_evaluation_callback_keeps_the_best_model(make_agent, tmp_path):
    callback = EvaluationCallback(2 * STEPS, episodes=2, seed=1, best_path=tmp_path / "best.trpo")
    make_agent().learn(4 * STEPS, callback=callback)
    assert [timesteps for timesteps, _ in callback.results] == [2 * STEPS, 4 * STEPS]
    best = TRPO.load(tmp_path / "best.trpo")
    means = [result.mean for _, result in callback.results]
    assert best.evaluate(2, seed=1).mean == max(means)
    assert best.num_timesteps == callback.results[int(np.argmax(means))][0]
    best.close()


class Clock:
    """Goes on by the next of `seconds` at every look."""

    def __init__(self, *seconds):
        self.now, self.seconds = 0.0, list(seconds)

    def __call__(self):
        self.now += self.seconds.pop(0) if self.seconds else 0.0
        return self.now


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_the_moment_after_its_update_though_it_is_written_at_the_next(make_agent, bits, tmp_path):
    found = {}

    def look(agent):
        agent.critic_trainer.wait()
        found[agent.num_timesteps] = bits(agent)
        return agent.num_updates < 4

    for overlap in (True, False):
        folder = tmp_path / str(overlap)
        make_agent(overlap_critic=overlap).learn(4 * STEPS, callback=CheckpointCallback(folder, 2 * STEPS))
        make_agent(overlap_critic=overlap).learn(9 * STEPS, callback=look)
        for timesteps in (2 * STEPS, 4 * STEPS):
            assert bits(TRPO.load(folder / checkpoint_name(timesteps))) == found[timesteps]


def test_no_checkpoint_waits_for_a_fit_or_changes_a_bit(make_agent, bits, tmp_path, monkeypatch):
    plain = bits(make_agent().learn(4 * STEPS))
    agent, calls = make_agent(), []
    monkeypatch.setattr(CheckpointCallback, "save", lambda *_: calls.append("waits"))
    agent.learn(4 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert bits(agent) == plain and calls == [] and len(names(tmp_path)) == 4


def test_by_default_no_more_than_a_minute_is_lost_and_the_last_three_stay(make_agent, tmp_path):
    callback = CheckpointCallback(tmp_path)
    assert (callback.seconds, callback.keep, callback.every) == (60, 3, None)
    callback._clock = Clock(0, *[10] * 8)  # two more updates of 10 s make it a minute
    make_agent().learn(8 * STEPS, callback=callback)
    assert names(tmp_path) == [checkpoint_name(4 * STEPS), checkpoint_name(8 * STEPS)]


def test_an_update_that_takes_longer_than_the_time_is_a_checkpoint_of_its_own_and_few_stay(make_agent, tmp_path):
    callback = CheckpointCallback(tmp_path, seconds=1.0, keep=2)
    callback._clock = Clock(*[100] * 10)
    make_agent().learn(5 * STEPS, callback=callback)
    assert names(tmp_path) == [checkpoint_name(4 * STEPS), checkpoint_name(5 * STEPS)]


def test_by_number_all_stay_unless_few_are_asked_for(make_agent, tmp_path):
    make_agent().learn(5 * STEPS, callback=CheckpointCallback(tmp_path / "all", STEPS))
    make_agent().learn(5 * STEPS, callback=CheckpointCallback(tmp_path / "few", STEPS, keep=2))
    assert len(names(tmp_path / "all")) == 5 and len(names(tmp_path / "few")) == 2


def test_the_best_checkpoint_stays_and_is_known_when_the_run_goes_on(make_agent, tmp_path):
    def better(value):
        return lambda agent: agent.recent_episodes.extend([(value, 1)] * 100)

    def mean():
        return model_file.read_array(tmp_path / "best.trpo", "episodes.returns").mean()

    agent = make_agent()
    agent.learn(STEPS, callback=CheckpointCallback(tmp_path, STEPS, keep=1, best=True))
    assert names(tmp_path) == [checkpoint_name(STEPS)], "a few episodes say little"
    for value, best in (5.0, 5.0), (3.0, 5.0), (7.0, 7.0):
        callback = CheckpointCallback(tmp_path, STEPS, keep=1, best=True)
        agent.learn(STEPS, callback=[callback, better(value)], reset_num_timesteps=False)
        assert mean() == best
        assert names(tmp_path) == [checkpoint_name(agent.num_timesteps), "best.trpo"]


def test_a_checkpoint_that_finds_the_disk_full_is_reported_and_the_training_goes_on(make_agent, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full_at_the_second(handle):
        calls.append(handle)
        if len(calls) == 3:  # of a file and its folder each
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.warns(UserWarning, match=f"at {2 * STEPS} timesteps was not written: .*No space left.*goes on"):
        make_agent().learn(3 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert names(tmp_path) == [checkpoint_name(STEPS), checkpoint_name(3 * STEPS)]


def test_left_overs_of_a_killed_save_are_removed_when_the_training_starts(make_agent, tmp_path):
    (tmp_path / f".{checkpoint_name(7)}.01234567.new").write_text("")
    make_agent().learn(STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert names(tmp_path) == [checkpoint_name(STEPS)]


def test_a_folder_of_checkpoints_of_another_run_is_refused_and_damaged_ones_are_nobody_s(make_agent, tmp_path):
    make_agent().learn(2 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    with pytest.raises(ValueError, match=r"folder: .*192\.trpo is farther than this agent, which has 0 timesteps"):
        make_agent().learn(STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    (tmp_path / checkpoint_name(2 * STEPS)).write_bytes(b"")
    agent = TRPO.load(tmp_path / checkpoint_name(STEPS))
    with pytest.warns(UserWarning, match=r"384\.trpo is truncated.*: it is 000000000384\.trpo\.damaged now"):
        agent.learn(STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert TRPO.load(tmp_path / checkpoint_name(2 * STEPS)).total_timesteps == 2 * STEPS
    agent.close()


@pytest.mark.parametrize("keep", [1, 0])
def test_no_checkpoint_of_another_run_is_pruned(make_agent, tmp_path, keep):
    make_agent().learn(3 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    other = make_agent(seed=4).learn(4 * STEPS)
    with pytest.raises(ValueError, match=r"folder: .*192\.trpo is of another run: its seed is 3, this agent's 4; want"):
        other.learn(STEPS, callback=CheckpointCallback(tmp_path, STEPS, keep=keep), reset_num_timesteps=False)
    assert len(names(tmp_path)) == 3


def test_the_best_model_of_another_run_is_not_written_over(make_agent, tmp_path):
    best = tmp_path / "best.trpo"
    make_agent().learn(STEPS, callback=EvaluationCallback(STEPS, episodes=1, best_path=best))
    was = best.read_bytes()
    for agent, difference in (make_agent(seed=4), "seed is 3"), (make_agent("CartPole-v1"), "environment is Pendulum"):
        with pytest.raises(
            ValueError, match=rf"best_path: .*best\.trpo is of another run: its {difference}.*another path"
        ):
            agent.learn(STEPS, callback=EvaluationCallback(STEPS, episodes=1, best_path=best))
    assert best.read_bytes() == was


def test_the_best_model_is_one_training_s_at_a_time(make_agent, tmp_path):
    def best():
        return EvaluationCallback(STEPS, episodes=1, best_path=tmp_path / "best.trpo")

    other = make_agent()

    def start(agent):
        with pytest.raises(ValueError, match=r"best_path: .*best\.trpo is another agent's, which trains"):
            other.learn(STEPS, callback=best())

    for keeper in (best(), EveryNTimesteps(STEPS, best())):
        agent = make_agent().learn(STEPS, callback=[keeper, start])
        (tmp_path / "best.trpo").unlink()
    agent.learn(STEPS, callback=lambda _: other.learn(STEPS, callback=best()) and None, reset_num_timesteps=False)
    assert other.num_timesteps == STEPS


def test_a_run_goes_on_from_the_one_before_a_damaged_newest_and_keeps_its_log(make_agent, bits, tmp_path):
    def callbacks():
        return [RunLogger(tmp_path, tensorboard=False), CheckpointCallback(tmp_path / "checkpoints", STEPS)]

    plain = bits(make_agent().learn(4 * STEPS))
    make_agent().learn(3 * STEPS, callback=callbacks())
    newest = tmp_path / "checkpoints" / checkpoint_name(3 * STEPS)
    arrays, metadata = model_file.read(newest)
    arrays["critic.layers.0.weight"][0, 0] = np.nan
    model_file.write(newest, arrays, metadata)
    with pytest.warns(UserWarning, match=r"critic\.layers\.0\.weight: nan given.*; taken instead: .*384\.trpo"):
        agent = TRPO.load(tmp_path)
    with pytest.warns(UserWarning, match=r"critic\.layers\.0\.weight: nan given.*576\.trpo\.damaged now"):
        agent.learn(2 * STEPS, callback=callbacks(), reset_num_timesteps=False)
    assert bits(agent) == plain
    agent.close()
    assert TRPO.load(tmp_path).total_timesteps == 4 * STEPS
    rows = [int(row["time/total_timesteps"]) for row in read_progress(tmp_path / "progress.csv")]
    assert rows == [STEPS * i for i in range(1, 5)]


def test_nothing_is_touched_where_one_callback_refuses_whatever_their_order(make_agent, tmp_path):
    make_agent().learn(2 * STEPS, callback=CheckpointCallback(tmp_path / "other", STEPS))
    recorder = Recorder()
    for refusing in (CheckpointCallback(tmp_path / "other"), Failing("check_training_start", ValueError("farther"))):
        callbacks = [recorder, RunLogger(tmp_path / "log", tensorboard=False), EvaluationCallback(STEPS), refusing]
        with pytest.raises(ValueError, match="farther"):
            make_agent().learn(STEPS, callback=callbacks)
    assert recorder.calls == [] and not (tmp_path / "log").exists()


def both(folder):
    return [RunLogger(folder, tensorboard=False), CheckpointCallback(folder / "checkpoints", STEPS)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_folder_is_one_training_s_and_another_is_refused_by_its_process_and_touches_nothing(make_agent, tmp_path):
    other, refused, before = make_agent(seed=4), [], []

    def start(callback):
        with pytest.raises(ValueError, match="is in use by process") as caught:
            other.learn(STEPS, callback=callback)
        refused.append(str(caught.value))

    def others(agent):
        before.append(content(tmp_path))
        start(RunLogger(tmp_path / "run", tensorboard=False))
        start(CheckpointCallback(tmp_path / "run" / "checkpoints"))
        with pytest.warns(DeprecationWarning, match="fork") if sys.version_info >= (3, 12) else nullcontext():
            child = os.fork()
        if child == 0:
            status = 1
            try:
                start(both(tmp_path / "run"))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert content(tmp_path) == before[-1]

    make_agent().learn(2 * STEPS, callback=[*both(tmp_path / "run"), others])
    assert (
        refused
        == [f"folder: {tmp_path}/run is in use by process {os.getpid()}, this one; want one training in a folder"] * 4
    )
    assert names(tmp_path / "run") == ["checkpoints", "progress.csv"], "it is given back"
    make_agent().learn(STEPS, callback=both(tmp_path / "new"))


def test_nothing_is_written_or_removed_in_a_folder_that_took_the_name_of_the_training_s_own(make_agent, tmp_path):
    run, moved, taken = tmp_path / "run", tmp_path / "moved", {}

    def callbacks():
        best = EvaluationCallback(STEPS, best_path=run / "best.trpo")
        return [RunLogger(run, tensorboard=False), CheckpointCallback(run / "checkpoints", STEPS, keep=1), best]

    def training(seed):
        agent = make_agent(seed=seed)
        agent.evaluate = lambda **_: evaluated(float(agent.num_timesteps))
        return agent

    def rename(agent):
        if agent.num_updates == 2:
            run.rename(moved)
            training(4).learn(2 * STEPS, callback=callbacks())
            taken.update(content(run))
        if agent.num_updates in (3, 4, 5):
            with pytest.raises(FileNotFoundError, match="renamed or removed while a training is in it"):
                checkpoints.save(agent)
        if agent.num_updates == 5:
            assert content(run) == taken
            run.rename(tmp_path / "other")
            moved.rename(run)

    own = callbacks()
    checkpoints = own[1]
    with pytest.warns(UserWarning, match="renamed or removed") as warned:
        training(3).learn(6 * STEPS, callback=[rename, *own])
    told = sorted(str(warning.message).partition(":")[0] for warning in warned)
    gone = "is not there any more, it was renamed or removed"
    assert told == [f"{run} {gone}", f"{run / 'checkpoints'} {gone}"], "each once"
    assert content(tmp_path / "other") == taken and len(taken) == 3
    assert names(run / "checkpoints") == [checkpoint_name(6 * STEPS)]
    assert model_file.read_metadata(run / "best.trpo")["evaluation"] == {"mean": 6.0 * STEPS}
    assert len(read_progress(run / "progress.csv")) == 6


def test_a_folder_is_given_back_and_what_was_made_removed_where_the_training_is_refused(make_agent, tmp_path):
    for callback in (Failing("check_training_start", ValueError("no")), Failing("on_training_start", ValueError("no"))):
        with pytest.raises(ValueError, match="no"):
            make_agent().learn(STEPS, callback=[callback, *both(tmp_path / "a" / "run")])
    assert names(tmp_path / "a" / "run") == [], "a start that was under way keeps its folder"
    make_agent().learn(STEPS, callback=both(tmp_path / "a" / "run"))


def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(make_agent, tmp_path):
    (tmp_path / "file").write_text("")
    recorder = Recorder()
    for callback in both(tmp_path / "file"):
        with pytest.raises(OSError, match=r"folder: .*file.* cannot be written: (Not a directory|File exists)"):
            make_agent().learn(STEPS, callback=[recorder, callback])
    assert recorder.calls == []


class Seen(Callback):
    """Its state is the very list that it goes on to change."""

    def __init__(self):
        self.at = []

    def on_update(self, agent):
        self.at.append(agent.num_timesteps)

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


def test_the_state_of_a_callback_in_a_checkpoint_is_that_of_its_moment(make_agent, tmp_path):
    agent = make_agent().learn(3 * STEPS, callback=[Seen(), CheckpointCallback(tmp_path, STEPS)])
    for updates in (1, 2, 3):
        early = TRPO.load(tmp_path / checkpoint_name(updates * STEPS))
        assert early.callback_states == {"Seen": {"at": [STEPS * i for i in range(1, updates + 1)]}}
    seen = Seen()
    agent.learn(STEPS, callback=seen, reset_num_timesteps=False)
    seen.at.append("later")
    assert agent.callback_states == {"Seen": {"at": [STEPS * i for i in range(1, 5)]}}


def test_a_state_that_no_file_can_have_is_refused_when_the_training_starts(make_agent):
    class Torch(Callback):
        def get_state(self):
            return {"x": torch.zeros(1)}

    agent = make_agent()
    with pytest.raises(TypeError, match=r"get_state\(\) of Torch\['x'\]: <class 'torch\.Tensor'> given; want arrays"):
        agent.learn(STEPS, callback=Torch())
    assert agent.total_timesteps == 0
    assert agent.learn(STEPS).total_timesteps == STEPS


class Turning(Callback):
    """Its state is fine until the second update."""

    def __init__(self, bad):
        self.bad, self.state = bad, {"updates": 0}

    def on_update(self, agent):
        self.state = {"updates": agent.num_updates}

    def get_state(self):
        return self.bad() if self.state["updates"] >= 2 else self.state


def fail():
    raise RuntimeError("lost")


@pytest.mark.parametrize("bad", [lambda: {"best": torch.zeros(1)}, fail])
def test_a_state_that_a_file_can_no_more_have_is_told_once_and_the_one_before_is_kept(make_agent, tmp_path, bad):
    agent = make_agent()
    with pytest.warns(
        UserWarning, match=r"callback Turning: (TypeError|RuntimeError).*state of before is kept"
    ) as told:
        agent.learn(4 * STEPS, callback=[Turning(bad), CheckpointCallback(tmp_path, STEPS)])
    assert len(told) == 1 and agent.callback_states["Turning"] == {"updates": 1}
    assert TRPO.load(tmp_path / checkpoint_name(4 * STEPS)).callback_states["Turning"] == {"updates": 1}


def test_states_of_callbacks_outlive_a_training_without_them_but_not_one_that_counts_from_0(make_agent, tmp_path):
    agent = make_agent().learn(STEPS, callback=Seen())
    agent.learn(STEPS, callback=lambda agent: agent.save(tmp_path / "m.trpo"), reset_num_timesteps=False)
    for one in agent, TRPO.load(tmp_path / "m.trpo"):
        seen = Seen()
        one.learn(STEPS, callback=seen, reset_num_timesteps=False)
        assert seen.at == [STEPS, 3 * STEPS]
    assert agent.learn(STEPS).callback_states == {}


def test_the_best_model_has_the_states_of_all_callbacks_whatever_their_order(make_agent, tmp_path):
    best = tmp_path / "best.trpo"
    evaluation = EvaluationCallback(STEPS, episodes=1, best_path=best)
    make_agent().learn(STEPS, callback=[evaluation, Seen()])
    states = TRPO.load(best).callback_states
    assert states["Seen"] == {"at": [STEPS]} and states["EvaluationCallback"]["due"] == 2 * STEPS


def test_a_callback_that_saves_and_runs_last_has_the_states_of_all_whatever_their_order(make_agent, tmp_path):
    class Saver(Callback):
        runs_last = True

        def on_update(self, agent):
            agent.save(tmp_path / "m.trpo")

    make_agent().learn(STEPS, callback=[Saver(), Seen()])
    assert TRPO.load(tmp_path / "m.trpo").callback_states == {"Seen": {"at": [STEPS]}}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_best_model_is_written_where_a_callback_behind_raises(make_agent, tmp_path, error):
    def end(agent):
        raise error

    with pytest.raises(error):
        make_agent().learn(STEPS, callback=[EvaluationCallback(STEPS, episodes=1, best_path=tmp_path / "b.trpo"), end])
    assert TRPO.load(tmp_path / "b.trpo").num_updates == 1


def test_an_environment_that_changes_the_working_folder_moves_no_file(make_agent, tmp_path, monkeypatch):
    class Wanders(type(gymnasium.make("CartPole-v1").unwrapped)):
        def reset(self, **arguments):
            os.chdir(tmp_path / "elsewhere")
            return super().reset(**arguments)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    log, checkpoints = RunLogger("log", tensorboard=False), CheckpointCallback("log/checkpoints", STEPS)
    best = EvaluationCallback(STEPS, episodes=1, best_path="log/best.trpo")
    make_agent(Wanders).learn(2 * STEPS, callback=[log, checkpoints, best])
    assert names(tmp_path / "log") == ["best.trpo", "checkpoints", "progress.csv"]
    assert len(names(tmp_path / "log" / "checkpoints")) == 2 and names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes: 0 given; want an integer >= 1"),
        ({"episodes": "x"}, "episodes: 'x' given; want an integer >= 1"),
        ({"max_steps": 0}, "max_steps: 0 given; want an integer >= 1"),
        ({"seed": -1}, "seed: -1 given; want an integer from 0"),
        ({"best_path": ""}, "best_path: '' given; want a path"),
        ({"best_path": "."}, "best_path: the folder .* given; want the name of a file"),
    ],
)
def test_an_evaluation_that_never_could_be_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        EvaluationCallback(STEPS, **arguments)


def test_a_best_path_that_cannot_be_written_is_named_when_the_training_starts(make_agent, tmp_path):
    (tmp_path / "file").write_text("")
    callback = EvaluationCallback(STEPS, best_path=tmp_path / "file" / "b.trpo")
    with pytest.raises(OSError, match=r"best_path: .*file cannot be written: Not a directory"):
        make_agent().learn(STEPS, callback=callback)
    callback = EvaluationCallback(STEPS, best_path=tmp_path / "b.trpo")
    (tmp_path / "b.trpo").mkdir()
    with pytest.raises(ValueError, match=r"best_path: the folder .*b\.trpo given"):
        make_agent().learn(STEPS, callback=callback)


def test_an_evaluation_of_a_policy_without_a_mode_is_refused_before_the_training(make_agent):
    class Squashed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.nn.Linear(3, 1)

        def forward(self, observations):
            base = torch.distributions.Normal(self.mean(observations), 1.0)
            squashed = torch.distributions.TransformedDistribution(base, [torch.distributions.TanhTransform()])
            return torch.distributions.Independent(squashed, 1)

    agent = make_agent(policy=Squashed())
    with pytest.raises(ValueError, match="deterministic: True given; want False for a policy that returns a Transf"):
        agent.learn(192, EvaluationCallback(64, episodes=1))
    assert agent.num_updates == 0
    agent.learn(192, EvaluationCallback(64, episodes=1, deterministic=False))


def test_an_evaluation_that_was_interrupted_is_made_up_for_when_the_training_goes_on(make_agent, tmp_path):
    def evaluations(agent, total, interrupt_at=None):
        callback, found = EvaluationCallback(2 * STEPS), []

        def evaluate(**arguments):
            if agent.num_timesteps == interrupt_at:
                raise KeyboardInterrupt
            found.append((agent.num_timesteps, arguments["seed"]))
            return evaluated(0.0)

        agent.evaluate = evaluate
        try:
            agent.learn(total - agent.num_timesteps, callback=callback, reset_num_timesteps=False)
        except KeyboardInterrupt:
            agent.save(tmp_path / "a.trpo")
        return found

    undisturbed = evaluations(make_agent(), 6 * STEPS)
    first = evaluations(make_agent(), 6 * STEPS, interrupt_at=4 * STEPS)
    again = TRPO.load(tmp_path / "a.trpo")
    second = evaluations(again, 6 * STEPS, interrupt_at=4 * STEPS)  # and again, as soon as it goes on
    again.close()
    last = TRPO.load(tmp_path / "a.trpo")
    third = evaluations(last, 6 * STEPS)
    last.close()
    assert [steps for steps, _ in undisturbed] == [2 * STEPS, 4 * STEPS, 6 * STEPS]
    assert second == [] and first + third == undisturbed


def test_evaluations_of_another_interval_are_planned_anew(make_agent):
    agent = make_agent().learn(STEPS, callback=EvaluationCallback(9 * STEPS))
    found = []
    agent.evaluate = lambda **_: found.append(agent.num_timesteps) or evaluated(0.0)
    agent.learn(2 * STEPS, callback=EvaluationCallback(2 * STEPS), reset_num_timesteps=False)
    assert found == [2 * STEPS]


def test_no_seed_of_an_evaluation_is_that_of_another_stream(make_agent):
    agent, found = make_agent(), []
    agent.evaluate = lambda **arguments: found.append(arguments["seed"]) or evaluated(0.0)
    agent.learn(8 * STEPS, callback=EvaluationCallback(STEPS))
    others = {int(np.random.SeedSequence([agent.seed, stream]).generate_state(1)[0]) for stream in range(10)}
    assert len(found) == 8 and not others & set(found)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_due_checkpoint_is_written_where_another_callback_ends_the_training_while_a_fit_runs(
    make_agent, bits, tmp_path, error
):
    plain = bits(make_agent(critic_epochs=200).learn(2 * STEPS))

    def fail(agent):
        if agent.num_updates == 3:
            raise error("from the callback")

    with pytest.raises(error):
        make_agent(critic_epochs=200).learn(9 * STEPS, callback=[CheckpointCallback(tmp_path, 2 * STEPS), fail])
    assert names(tmp_path) == [checkpoint_name(2 * STEPS)]
    assert bits(TRPO.load(tmp_path / checkpoint_name(2 * STEPS))) == plain


def test_a_due_checkpoint_is_written_where_its_own_fit_still_runs_as_the_training_fails(make_agent, bits, tmp_path):
    plain = bits(make_agent(critic_epochs=2000).learn(STEPS))
    agent = make_agent(critic_epochs=2000)
    collect = type(agent.training_environments.ready(agent.num_updates)).collect

    def fail(collector):
        if agent.num_updates == 1:
            raise RuntimeError("simulator gone")
        return collect(collector)

    agent.collector.collect = lambda: fail(agent.collector)
    with pytest.raises(RuntimeError, match="simulator gone"):
        agent.learn(9 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert bits(TRPO.load(tmp_path / checkpoint_name(STEPS))) == plain


def test_a_checkpoint_whose_writing_is_interrupted_is_written_when_the_training_ends(make_agent, tmp_path, monkeypatch):
    write, interrupts = model_file.replace_file, [KeyboardInterrupt()]

    def interrupted(path, content):
        if interrupts:
            raise interrupts.pop()
        write(path, content)

    monkeypatch.setattr(model_file, "replace_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_agent().learn(9 * STEPS, callback=CheckpointCallback(tmp_path, STEPS))
    assert names(tmp_path) == [checkpoint_name(STEPS)]
    assert TRPO.load(tmp_path / checkpoint_name(STEPS)).total_timesteps == STEPS


def test_learning_again_goes_on_in_log_and_checkpoints(make_agent, tmp_path):
    logger, folder = RunLogger(tmp_path, tensorboard=False), tmp_path / "checkpoints"
    agent = make_agent().learn(2 * STEPS, callback=[CheckpointCallback(folder, STEPS), logger])
    agent.learn(STEPS, callback=[CheckpointCallback(folder, STEPS), logger])
    agent = TRPO.load(tmp_path).learn(STEPS, callback=[CheckpointCallback(folder, STEPS), logger])
    agent.close()
    assert (agent.num_timesteps, agent.total_timesteps) == (STEPS, 4 * STEPS)
    rows = [int(row["time/total_timesteps"]) for row in read_progress(tmp_path / "progress.csv")]
    assert rows == [STEPS * i for i in range(1, 5)]
    assert names(folder) == [checkpoint_name(steps) for steps in rows]
    assert TRPO.load(tmp_path).total_timesteps == 4 * STEPS


def test_the_row_of_an_update_is_written_before_its_checkpoint_whatever_the_order(make_agent, tmp_path, monkeypatch):
    write = model_file.replace_file

    def look(path, content):
        if Path(path).suffix == ".trpo":
            last = read_progress(tmp_path / "progress.csv")[-1]
            assert int(last["time/total_timesteps"]) >= int(Path(path).stem)
        write(path, content)

    monkeypatch.setattr(model_file, "replace_file", look)
    callbacks = [CheckpointCallback(tmp_path / "checkpoints", STEPS), RunLogger(tmp_path, tensorboard=False)]
    make_agent().learn(3 * STEPS, callback=callbacks)
    assert len(names(tmp_path / "checkpoints")) == 3


def test_evaluations_without_a_seed_vary_and_do_so_again(make_agent):
    def seeds():
        callback, found = EvaluationCallback(STEPS, episodes=1), []
        agent = make_agent()
        agent.evaluate = lambda **arguments: found.append(arguments["seed"]) or evaluated(0.0)
        agent.learn(3 * STEPS, callback=callback)
        return found

    found = seeds()
    assert len(set(found)) == 3 and found == seeds()


def test_the_best_model_of_evaluations_outlives_the_process(make_agent, tmp_path):
    best = tmp_path / "new" / "folder" / "best.trpo"

    def learn(agent, mean):
        agent.evaluate = lambda **_: evaluated(mean)
        agent.learn(STEPS, callback=EvaluationCallback(STEPS, best_path=best), reset_num_timesteps=False)

    agent = make_agent()
    learn(agent, 5.0)
    for mean, kept in (3.0, 5.0), (7.0, 7.0):
        learn(agent, mean)
        assert model_file.read_metadata(best)["evaluation"] == {"mean": kept}
    for number, mean in ("", 7.0), ("-2", 1.0):
        with pytest.warns(
            UserWarning, match=rf"another training, this one begins: it is best\.trpo\.before{number} now"
        ):
            learn(make_agent(), 1.0)
        assert model_file.read_metadata(best)["evaluation"] == {"mean": 1.0}, "an agent that begins has no best yet"
        assert model_file.read_metadata(f"{best}.before{number}")["evaluation"] == {"mean": mean}


def test_an_evaluation_that_raises_is_reported_and_the_training_goes_on(make_agent):
    agent = make_agent()

    def evaluate(**_):
        raise RuntimeError("simulator gone")

    agent.evaluate = evaluate
    callback = EvaluationCallback(2 * STEPS)
    with pytest.warns(UserWarning, match=r"evaluation at 384 timesteps failed: RuntimeError\('simulator gone'\)"):
        agent.learn(3 * STEPS, callback=callback)
    assert agent.num_updates == 3 and callback.results == []


@pytest.mark.parametrize("make", [lambda every: CheckpointCallback("folder", every), EvaluationCallback])
def test_bad_interval_is_refused_by_name(make):
    with pytest.raises(ValueError, match="every: 0 given; want an integer from 1 to"):
        make(0)


def test_what_is_no_path_is_named_before_the_training_starts():
    with pytest.raises(TypeError, match=r"^folder: 3 given; want a path"):
        CheckpointCallback(3, 1000)
    with pytest.raises(TypeError, match=r"^best_path: 3 given; want a path"):
        EvaluationCallback(1000, best_path=3)


def test_progress_bar_shows_return_kl_and_speed(make_agent, capsys):
    make_agent().learn(4 * STEPS, progress_bar=True)
    shown = capsys.readouterr().err
    assert "return=" in shown and "kl=0.0" in shown and "step/s" in shown and "100%" in shown


class Failing(Callback):
    def __init__(self, method, error):
        setattr(self, method, self._fail)
        self._error = error

    def _fail(self, *arguments):
        raise self._error


def test_only_started_callbacks_are_ended_when_a_start_fails(make_agent):
    started, late = Recorder(), Recorder()
    failing = Failing("on_training_start", KeyError("from the start"))
    with pytest.raises(KeyError, match="from the start"):
        make_agent().learn(STEPS, callback=[[started, failing], late], progress_bar=True)
    assert started.calls == [("start", STEPS), ("end", 0)]
    assert late.calls == []


def test_every_callback_is_ended_and_the_first_exception_of_an_end_travels(make_agent):
    recorder = Recorder()
    ends = [Failing("on_training_end", RuntimeError(f"end {number}")) for number in (1, 2)]
    with pytest.raises(RuntimeError, match="end 1") as raised:
        make_agent().learn(STEPS, callback=[*ends, recorder])
    assert "end 2" in raised.value.__notes__[0]
    assert recorder.calls[-1] == ("end", STEPS)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyError("update")])
def test_what_ended_the_training_travels_where_an_end_fails_too(make_agent, error):
    recorder = Recorder()
    callbacks = [Failing("on_update", error), Failing("on_training_end", OSError("disk full")), recorder]
    with pytest.raises(type(error)) as raised:
        make_agent().learn(STEPS, callback=callbacks)
    assert raised.value is error and "disk full" in error.__notes__[0]
    assert recorder.calls[-1][0] == "end"


@pytest.mark.parametrize("answer", [False, np.False_, np.array(False), torch.tensor(False), 0], ids=repr)
def test_a_false_of_any_library_ends_the_training(make_agent, answer):
    assert make_agent().learn(3 * STEPS, callback=lambda agent: answer).num_updates == 1


@pytest.mark.parametrize("answer", [None, True, np.True_, torch.tensor(True), "False", [], 3], ids=repr)
def test_what_does_not_equal_false_goes_on(make_agent, answer):
    assert make_agent().learn(2 * STEPS, callback=lambda agent: answer).num_updates == 2


@pytest.mark.parametrize("answer", [np.zeros(2, bool), torch.ones(2)], ids=repr)
def test_several_answers_at_once_are_refused(make_agent, answer):
    with pytest.raises(TypeError, match=r"callback: .* returned; want True, False or None"):
        make_agent().learn(STEPS, callback=lambda agent: answer)


def test_stop_at_return_waits_for_enough_finished_episodes(make_agent):
    agent = make_agent("CartPole-v1")
    agent.learn(4000, callback=StopAtReturn(0.0, episodes=40))  # reached by any episode, once there are enough
    assert agent.num_episodes >= 40 and agent.num_timesteps < 4000
    never = make_agent("Pendulum-v1").learn(STEPS, callback=StopAtReturn(-1e9))  # no episode ends in 64 steps
    assert never.num_updates == 1 and never.num_episodes == 0
    longer = make_agent("Pendulum-v1").learn(2 * STEPS, callback=StopAtReturn(-1e9))
    assert longer.num_updates == 2


def test_stop_at_return_ends_at_the_mean_of_the_latest_episodes():
    returns = [0.0, 0.0, 5.0, 7.0]
    agent = SimpleNamespace(recent_episodes=deque([(value, 9) for value in returns], maxlen=100))
    assert StopAtReturn(6.0, episodes=2).on_update(agent) is False
    assert StopAtReturn(6.1, episodes=2).on_update(agent) is True
    assert StopAtReturn(4.0, episodes=3).on_update(agent) is False
    assert StopAtReturn(-1.0, episodes=5).on_update(agent) is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((math.nan,), "value: nan given; want a finite number"),
        ((1.0, 0), "episodes: 0 given; want an integer from 1 to 100"),
        ((1.0, 101), "episodes: 101 given; want an integer from 1 to 100"),
    ],
)
def test_goal_that_can_never_be_judged_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StopAtReturn(*arguments)


class Doubled(gymnasium.vector.SyncVectorEnv):
    """What it does to rewards is in no recipe."""

    def step(self, actions):
        observations, rewards, *others = super().step(actions)
        return observations, 2 * rewards, *others


def doubled():
    return Doubled([lambda: gymnasium.make("Pendulum-v1")] * 2, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)


def test_evaluation_that_will_not_be_possible_is_said_when_the_training_starts(make_agent):
    vector = doubled()
    agent = make_agent(vector)
    with pytest.raises(ValueError, match="cannot make new environments like Doubled"):
        agent.learn(STEPS, callback=EvaluationCallback(STEPS))
    assert agent.num_updates == 0
    vector.close()


def test_evaluation_in_an_environment_of_its_own(make_agent):
    vector, callback = doubled(), EvaluationCallback(2 * 64, episodes=2, env="Pendulum-v1", max_steps=50)
    with pytest.warns(UserWarning, match="2 of 2 episodes had not ended after 50 steps"):
        make_agent(vector).learn(2 * 64, callback=callback)
    ((_, result),) = callback.results
    assert result.lengths.tolist() == [50, 50]
    vector.close()


def test_evaluation_in_an_environment_with_other_spaces_is_refused_when_the_training_starts(make_agent):
    with pytest.raises(ValueError, match="env CartPole-v1: observation_space"):
        make_agent().learn(STEPS, callback=EvaluationCallback(10**9, env="CartPole-v1"))


def test_learning_from_a_callback_of_learn_is_refused_and_leaves_an_agent_that_learns(make_agent):
    agent = make_agent("CartPole-v1")
    with pytest.raises(RuntimeError, match="learn: called by a callback of learn"):
        agent.learn(1000, callback=lambda agent: agent.learn(64))
    updates = agent.num_updates
    assert agent.learn(64).num_updates > updates


class Clamps(Callback):
    """Writes to the critic that was given, or to the agent's."""

    def __init__(self, critic=None):
        self.critic = critic

    def on_update(self, agent):
        critic = agent.critic if self.critic is None else self.critic
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.clamp_(-0.01, 0.01)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_critic_that_is_written_to_during_its_fit_is_said_to_lose_that(make_agent, overlap):
    critic = OwnCritic()
    agent = make_agent(critic=critic, overlap_critic=overlap)
    with pytest.warns(RuntimeWarning, match=r"critic: its parameters were changed while a fit .* agent\.critic, which"):
        agent.learn(STEPS, callback=Clamps(critic))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(STEPS, callback=Clamps())
    assert max(parameter.abs().max() for parameter in agent.critic.parameters()) <= 0.01


def test_a_fit_that_is_put_back_has_the_parameters_that_it_began_with(make_agent, monkeypatch):
    """Those of the fit after it are other ones, and nobody wrote to the critic."""

    agent, report = make_agent(overlap_critic=True), trpo.UpdateReport

    def reported(*values):
        if agent.num_updates == 3:
            raise RuntimeError("after the third fit has begun")
        return report(*values)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(trpo, "UpdateReport", reported)
        with pytest.raises(RuntimeError, match="third fit"):
            agent.learn(5 * STEPS)
        assert agent.num_updates == 2
        monkeypatch.undo()
        agent.learn(2 * STEPS, reset_num_timesteps=False)
    assert agent.num_updates == 4


def test_timesteps_of_callbacks_may_be_written_as_those_of_learn(tmp_path):
    assert EveryNTimesteps(1e5, Callback()).every == EvaluationCallback(1e5).every == 100_000
    assert CheckpointCallback(tmp_path, every=1e5).every == 100_000
    with pytest.raises(ValueError, match=r"every: 1\.5 given; want an integer from 1"):
        EvaluationCallback(1.5)
