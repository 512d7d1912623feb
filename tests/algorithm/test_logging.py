import contextlib
import csv
import errno
import math
import random
import sys
import threading

import gymnasium
import pytest
from torch import nn
from torch.distributions import Independent, Normal

from tests.algorithm.images import OwnPolicy
from trpo_fast.algorithm import logging, sinks
from trpo_fast.algorithm.logging import COLUMNS, RunLogger
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.progress import as_columns, read_progress

STEPS = 3 * 64
SB3_NAMES = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "time/iterations",
    "time/time_elapsed",
    "time/total_timesteps",
    "train/explained_variance",
    "train/is_line_search_success",
    "train/kl_divergence_loss",
    "train/learning_rate",
    "train/n_updates",
    "train/policy_objective",
    "train/std",
    "train/value_loss",
}


def test_columns_have_the_names_of_stable_baselines3():
    assert set(COLUMNS) >= SB3_NAMES


@pytest.mark.parametrize("overlap", [True, False])
def test_every_update_has_one_complete_row(make_agent, tmp_path, overlap):
    agent = make_agent(overlap_critic=overlap).learn(5 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    rows = read_progress(tmp_path / "progress.csv")
    assert [int(row["time/total_timesteps"]) for row in rows] == [STEPS * i for i in range(1, 6)]
    last, report = rows[-1], agent.last_update
    assert float(last["train/kl_divergence_loss"]) == report.kl
    assert float(last["train/value_loss"]) == report.value_loss
    assert float(last["train/policy_objective"]) == report.improvement
    assert float(last["timings/critic_fit"]) == report.timings["critic_fit"]
    assert float(last["rollout/ep_rew_mean"]) == agent.episode_return_mean
    # An episode of Pendulum takes 200 steps: none has ended in the first three updates of 64.
    assert [row["rollout/ep_rew_mean"] == "" for row in rows] == [True, True, False, False, False]


def test_rows_that_find_no_room_until_the_end_are_written_behind_it_or_by_the_next_training(make_agent, tmp_path):
    logger, full = RunLogger(tmp_path, tensorboard=False), True

    class Full:
        def __init__(self, file):
            self._file = file

        def write(self, content):
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(content)

        def __getattr__(self, name):
            return getattr(self._file, name)

    def wrap(agent):
        logger._files[0].file = Full(logger._files[0].file)

    def written():
        return [int(row["time/total_timesteps"]) for row in read_progress(tmp_path / "progress.csv")]

    agent = make_agent()
    with pytest.warns(UserWarning, match=r"rows of progress\.csv wait.*No space left on device; the training goes on"):
        agent.learn(2 * STEPS, callback=[wrap, logger])
    assert written() == []
    logger.write_waiting()
    assert written() == [STEPS, 2 * STEPS]
    logger.write_waiting()  # nothing waits any more
    assert written() == [STEPS, 2 * STEPS]
    with pytest.warns(UserWarning, match=r"rows of progress\.csv wait"):
        agent.learn(STEPS, callback=[wrap, logger], reset_num_timesteps=False)
    full = False
    agent.learn(STEPS, callback=logger, reset_num_timesteps=False)
    assert written() == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]


def test_overlap_changes_no_logged_number_but_times(make_agent, tmp_path):
    logged = []
    for overlap in (True, False):
        folder = tmp_path / str(overlap)
        make_agent(overlap_critic=overlap).learn(4 * STEPS, callback=RunLogger(folder, tensorboard=False))
        rows = read_progress(folder / "progress.csv")
        timed = ("time/time_elapsed", "time/fps", "timings/")
        logged.append([{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows])
    assert logged[0] == logged[1]


def test_the_standard_deviation_is_logged_where_it_is_a_parameter_of_the_policy(make_agent, tmp_path):
    class Layered(OwnPolicy):
        def __init__(self):
            super().__init__()
            self.log_std = nn.Linear(3, 1)

        def forward(self, observations):
            mean = self.body(observations)[:, :1]
            return Independent(Normal(mean, self.log_std(observations).exp()), 1)

    stds = []
    for policy in (None, Layered()):
        folder = tmp_path / str(len(stds))
        agent = make_agent("Pendulum-v1", policy=policy, log_std_init=-1.0)
        agent.learn(STEPS, callback=RunLogger(folder, tensorboard=False))
        stds.append(read_progress(folder / "progress.csv")[-1]["train/std"])
    assert float(stds[0]) == pytest.approx(math.exp(-1.0), rel=0.3)
    assert stds[1] == ""


def test_row_is_written_although_training_was_interrupted(make_agent, tmp_path):
    def interrupt(agent):
        if agent.num_updates == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_agent().learn(9 * STEPS, callback=[RunLogger(tmp_path, tensorboard=False), interrupt])
    assert len(read_progress(tmp_path / "progress.csv")) == 3


def test_resumed_log_goes_on_and_drops_rows_beyond_the_agent(make_agent, tmp_path, bits):
    agent = make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    path = tmp_path / "progress.csv"
    elapsed = float(read_progress(path)[-1]["time/time_elapsed"])
    with path.open("a", newline="") as file:  # a run that was killed after its last checkpoint
        csv.DictWriter(file, COLUMNS).writerow({"time/total_timesteps": 3 * STEPS, "time/time_elapsed": 99.0})
        file.write("4,76")
    agent.learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    rows = read_progress(path)
    assert [int(row["time/total_timesteps"]) for row in rows] == [STEPS * i for i in range(1, 5)]
    assert elapsed < float(rows[2]["time/time_elapsed"]) < 99


@pytest.mark.parametrize("end", [b"", b"\0\0\0"], ids=["killed", "power cut"])
def test_a_log_that_was_cut_at_any_byte_is_repaired_without_losing_or_doubling_a_row(make_agent, tmp_path, end):
    agent = make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    path = tmp_path / "progress.csv"
    content = path.read_bytes()
    make_agent().learn(3 * STEPS, callback=RunLogger(tmp_path / "whole", tensorboard=False))
    whole = (tmp_path / "whole" / "progress.csv").read_bytes()
    third = len(b"".join(whole.splitlines(keepends=True)[:3]))
    for cut in (*range(third, len(whole), 37), len(whole) - 1):
        path.write_bytes(content + whole[third:cut] + end)
        rows = read_progress(path)
        assert [int(row["time/total_timesteps"]) for row in rows] == [STEPS, 2 * STEPS]
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    rows = read_progress(path)
    assert [int(row["time/total_timesteps"]) for row in rows] == [STEPS, 2 * STEPS, 3 * STEPS]


def test_a_row_that_another_went_on_in_is_left_out(tmp_path):
    names = ("time/total_timesteps", "time/time_elapsed", "rollout/ep_rew_mean")
    (tmp_path / "progress.csv").write_text(f"{','.join(names)}\n8,1,2\n16,1,24,1,2\n32,1,2\n")
    rows = read_progress(tmp_path / "progress.csv")
    assert as_columns(rows)[names[0]].tolist() == [8, 32]


def test_rows_that_find_the_disk_full_wait_and_are_written_once_there_is_room(make_agent, tmp_path):
    logger = RunLogger(tmp_path, tensorboard=False)

    class Full:
        """Takes ten bytes of the second write, and refuses the rest and the third."""

        def __init__(self, file):
            self._file, self._calls = file, 0

        def write(self, content):
            self._calls += 1
            if self._calls == 2:
                return self._file.write(content[:10])
            if self._calls in (3, 4):
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(content)

        def __getattr__(self, name):
            return getattr(self._file, name)

    def wrap(agent):
        if agent.num_updates == 1:
            logger._files[0].file = Full(logger._files[0].file)

    agent = make_agent(overlap_critic=False)
    with pytest.warns(UserWarning, match=r"rows of progress\.csv wait.*No space left on device; the training goes on"):
        agent.learn(5 * STEPS, callback=[wrap, logger])
    rows = read_progress(tmp_path / "progress.csv")
    assert [int(row["time/total_timesteps"]) for row in rows] == [STEPS * i for i in range(1, 6)]


@pytest.mark.parametrize("first", [True, False])
def test_every_session_purges_what_tensorboard_has_of_an_abandoned_one(make_agent, tmp_path, first):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    agent = make_agent()
    if not first:
        agent.learn(2 * STEPS)
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=True), reset_num_timesteps=False)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = list(loader.LegacyEventFileLoader(str(file)).Load())
    found = [event.step for event in events if event.session_log.status == event.session_log.START]
    assert found == [0 if first else 2 * STEPS + 1]


def test_the_log_of_another_run_is_refused_and_left_as_it_is(make_agent, tmp_path):
    make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    log = (tmp_path / "progress.csv").read_bytes()
    small = make_agent(num_envs=1).learn(64)
    with pytest.raises(
        ValueError, match=r"folder: .*progress\.csv has rows up to 384 timesteps, and none at 64, which"
    ):
        small.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    assert (tmp_path / "progress.csv").read_bytes() == log


def test_an_agent_that_begins_begins_a_new_log_and_the_one_before_is_kept(make_agent, tmp_path):
    make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    log = (tmp_path / "progress.csv").read_bytes()
    for number, aside in enumerate(("progress.csv.before", "progress.csv.before-2", "progress.csv.before-3")):
        said = rf"progress\.csv has rows of another training, .*: it is {aside} now, and a new one begins"
        with pytest.warns(UserWarning, match=said):
            make_agent(seed=number).learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False))
        assert (tmp_path / aside).read_bytes() == log
        log = (tmp_path / "progress.csv").read_bytes()
        assert len(read_progress(tmp_path / "progress.csv")) == 1


@pytest.mark.parametrize("seed", [4, 5])
def test_the_log_of_another_run_is_refused_where_it_has_a_row_of_the_same_timesteps(make_agent, tmp_path, seed):
    env = "CartPole-v1"  # whose episodes end in the first update
    make_agent(env).learn(3 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    log = (tmp_path / "progress.csv").read_bytes()
    make_agent(env, seed=seed).learn(2 * STEPS).save(tmp_path / "other.trpo")
    other = TRPO.load(tmp_path / "other.trpo")
    with pytest.raises(
        ValueError, match=r"folder: .*csv has rollout/ep_rew_mean .* at 384 timesteps, this agent \d.*another run"
    ):
        other.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    assert (tmp_path / "progress.csv").read_bytes() == log
    other.close()


def test_a_log_beside_a_model_of_another_seed_or_environment_is_refused(make_agent, tmp_path):
    make_agent().learn(STEPS).save(tmp_path / "model.trpo")
    for agent, difference in (
        (make_agent(seed=4), "its seed is 3, this agent's 4"),
        (make_agent("CartPole-v1"), "its environment is Pendulum-v1, this agent's CartPole-v1"),
        (make_agent(lambda: gymnasium.make("CartPole-v1")), "its observations are other ones"),
    ):
        agent.learn(STEPS)
        with pytest.raises(ValueError, match=rf"folder: .*model\.trpo is of another run: {difference}; want a folder"):
            agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    assert not (tmp_path / "progress.csv").exists()


def test_an_earlier_agent_of_the_run_is_refused_by_the_log_where_a_farther_one_is_there(make_agent, tmp_path):
    agent = make_agent().learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    agent.save(tmp_path / "early.trpo")
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    agent.save(tmp_path / "model.trpo")
    log = (tmp_path / "progress.csv").read_bytes()
    early = TRPO.load(tmp_path / "early.trpo")
    with pytest.raises(ValueError, match=r"folder: .*model\.trpo is farther than this agent, which has 192 timesteps"):
        early.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    assert (tmp_path / "progress.csv").read_bytes() == log
    early.close()


def test_a_run_that_was_killed_before_its_first_checkpoint_with_a_row_begins_its_log_anew(make_agent, tmp_path):
    agent = make_agent()
    (tmp_path / "checkpoints").mkdir()
    agent.save(tmp_path / "checkpoints" / "000000000000.trpo")
    agent.learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    agent = TRPO.load(tmp_path)
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    agent.close()
    assert [int(row["time/total_timesteps"]) for row in read_progress(tmp_path / "progress.csv")] == [STEPS]


def test_rows_that_were_doubled_by_an_earlier_version_are_one_when_the_run_goes_on(make_agent, tmp_path):
    agent = make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, tensorboard=False))
    path = tmp_path / "progress.csv"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    rows = [int(row["time/total_timesteps"]) for row in read_progress(path)]
    assert rows == [STEPS, 2 * STEPS, 3 * STEPS]


WRITING = ("on_update", "on_training_end", "_complete", "_record", "_finish", "_write_waiting", "put")


def interrupted(agent, line):
    """A trace function that raises Ctrl-C before a line of what writes a log, counted from the second update on."""
    left = [line]

    def trace(frame, event, _):
        if frame.f_code.co_filename not in (logging.__file__, sinks.__file__) or frame.f_code.co_name not in WRITING:
            return None
        if event == "line" and agent.num_updates == 2:
            left[0] -= 1
            if left[0] == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("tensorboard", [False, True])
def test_ctrl_c_at_any_line_of_the_logger_loses_and_doubles_no_row(make_agent, tmp_path, tensorboard):
    if tensorboard:
        loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    lines = 0
    before = sys.gettrace()
    for line in range(1, 200):
        folder = tmp_path / str(line)
        log = RunLogger(folder, tensorboard=tensorboard)
        agent = make_agent(num_envs=1, steps_per_env=16, critic_epochs=1, overlap_critic=False)
        sys.settrace(interrupted(agent, line))
        try:
            agent.learn(2 * 16, callback=log)
            break
        except KeyboardInterrupt:
            lines += 1
        finally:
            sys.settrace(before)
            log._close()  # where Ctrl-C came right before that
        rows = [int(row["time/total_timesteps"]) for row in read_progress(folder / "progress.csv")]
        assert rows == [16 * (i + 1) for i in range(agent.num_updates)], line
        if tensorboard:
            (file,) = folder.glob("events.out.tfevents.*")
            events = list(loader.LegacyEventFileLoader(str(file)).Load())
            assert [event.step for event in events if event.summary.value] == rows, line
    assert lines > 40


def test_events_are_written_without_a_thread_that_would_have_to_be_waited_for(make_agent, tmp_path):
    pytest.importorskip("tensorboard")
    threads = []
    callback = [RunLogger(tmp_path, tensorboard=True), lambda agent: threads.append(threading.active_count())]
    before = threading.active_count()
    make_agent(overlap_critic=False).learn(2 * STEPS, callback=callback)
    assert threads == [before] * 2


def test_rows_that_find_no_room_until_the_end_are_written_when_that_is_asked_for(make_agent, tmp_path, monkeypatch):
    logger, put = RunLogger(tmp_path, tensorboard=False), sinks.Tail.put

    def full(tail, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sinks.Tail, "put", full)
    with pytest.warns(UserWarning, match=r"rows of progress\.csv wait.*No space left"):
        make_agent().learn(2 * STEPS, callback=logger)
    assert read_progress(tmp_path / "progress.csv") == []
    monkeypatch.setattr(sinks.Tail, "put", put)
    path, own = tmp_path / "progress.csv", tmp_path / "own.csv"
    path.rename(own)
    path.write_text("another run's")
    with pytest.warns(UserWarning, match=r"last rows .* were not written: .*another file than this training wrote"):
        logger.write_waiting()
    assert path.read_text() == "another run's"
    own.rename(path)
    for _ in range(2):
        logger.write_waiting()
        assert len(read_progress(path)) == 2


def test_tensorboard_holds_the_numbers_of_the_csv(make_agent, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_agent().learn(3 * STEPS, callback=RunLogger(tmp_path, tensorboard=True))
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    rows = read_progress(tmp_path / "progress.csv")
    known = [name for name in COLUMNS if rows[-1][name]]
    assert set(events.Tags()["scalars"]) == set(known) and len(known) > 25
    for name in known:
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [STEPS * (i + 1) for i, row in enumerate(rows) if row[name]]
        for event, row in zip(scalars, [row for row in rows if row[name]], strict=True):
            assert math.isclose(event.value, float(row[name]), rel_tol=1e-6)  # events hold float32


def test_an_update_is_one_event(make_agent, tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    make_agent().learn(3 * STEPS, callback=RunLogger(tmp_path, tensorboard=True))
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = list(loader.LegacyEventFileLoader(str(file)).Load())
    assert len([event for event in events if event.summary.value]) == 3


def test_without_tensorboard_the_csv_is_still_written(make_agent, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    make_agent().learn(STEPS, callback=RunLogger(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["progress.csv"]
    with pytest.raises(ImportError):
        RunLogger(tmp_path, tensorboard=True)


def test_row_is_written_although_ctrl_c_came_between_the_update_and_its_row(make_agent, tmp_path):
    def interrupt(agent):
        if agent.num_updates == 2:
            raise KeyboardInterrupt

    agent = make_agent()
    with pytest.raises(KeyboardInterrupt):
        agent.learn(5 * STEPS, callback=[interrupt, RunLogger(tmp_path, tensorboard=False)])
    rows = read_progress(tmp_path / "progress.csv")
    assert [int(row["train/n_updates"]) for row in rows] == [1, 2]
    assert agent.num_updates == 2


def test_what_is_no_path_is_named():
    with pytest.raises(ValueError, match=r"^tensorboard: 'no' given; want True or False"):
        RunLogger("folder", "no")
    with pytest.raises(TypeError, match=r"^folder: 3 given; want a path"):
        RunLogger(3)
    with pytest.raises(TypeError, match=r"^path: 3 given; want a path"):
        read_progress(3)


def interrupting(function, number, seen):
    """`function`, which Ctrl-C ends at its `number`-th call of another; notes in `seen` how many there were."""

    def interrupted(*arguments):
        def event(frame, kind, argument):
            if kind in ("call", "c_call"):
                seen.append(kind)
                if len(seen) == number:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(event)
        try:
            return function(*arguments)
        finally:
            sys.setprofile(None)

    return interrupted


def test_ctrl_c_at_any_moment_of_a_row_neither_loses_nor_doubles_it(make_agent, tmp_path):
    def rows_of(number):
        seen, folder = [], tmp_path / f"{number}"
        logger = RunLogger(folder, tensorboard=False)
        agent = make_agent("CartPole-v1", critic_epochs=1, steps_per_env=16, overlap_critic=False)
        on_update = logger.on_update

        def second(agent):
            if agent.num_updates == 2:
                logger.on_update = on_update
                interrupting(on_update, number, seen)(agent)
            else:
                on_update(agent)

        logger.on_update = second
        with contextlib.suppress(KeyboardInterrupt):
            agent.learn(3 * 16 * agent.num_envs, logger)
        agent.close()
        return len(seen), agent.num_updates, [row["train/n_updates"] for row in read_progress(folder / "progress.csv")]

    total, updates, rows = rows_of(0)
    assert updates == 3 and rows == ["1", "2", "3"] and total > 50
    for number in sorted(random.Random(0).sample(range(1, total), 30)):
        _, updates, rows = rows_of(number)
        assert updates == 2 and rows == ["1", "2"], number
