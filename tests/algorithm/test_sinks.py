import errno
import io
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.algorithm.test_events import with_means
from tests.environments.pids import wait_until
from trpo_fast.algorithm import sinks
from trpo_fast.algorithm.callbacks import Callback, EvaluationCallback
from trpo_fast.algorithm.logging import COLUMNS, Logger, RunLogger
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.progress import read_progress

STEPS = 3 * 64


class Records(Callback):
    """A number of its own from the second update on, and another from the third."""

    def on_update(self, agent):
        if agent.num_updates > 1:
            agent.logger.record("own/updates", agent.num_updates)
        if agent.num_updates > 2:
            agent.logger.record("own/half", np.float32(agent.num_updates / 2))


def lines(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_recorded_names_get_columns_where_they_first_appear_and_keep_them_when_the_run_goes_on(make_agent, tmp_path):
    def log():
        return [RunLogger(tmp_path, log="csv,jsonl"), Records()]  # whatever their order

    agent = make_agent().learn(3 * STEPS, callback=log())
    agent.learn(STEPS, callback=log(), reset_num_timesteps=False)
    rows, objects = read_progress(tmp_path / "progress.csv"), lines(tmp_path)
    assert list(rows[0]) == [*COLUMNS, "own/updates", "own/half"]
    assert [row["own/updates"] for row in rows] == ["", "2", "3", "4"]
    assert [row["own/half"] for row in rows] == ["", "", "1.5", "2.0"]
    for row, said in zip(rows, objects, strict=True):
        assert {name: float(value) for name, value in row.items() if value} == said
    agent.learn(STEPS, callback=RunLogger(tmp_path, tensorboard=False), reset_num_timesteps=False)
    assert read_progress(tmp_path / "progress.csv")[-1]["own/half"] == ""


def test_lines_beyond_the_agent_and_halves_are_dropped_when_the_run_goes_on(make_agent, tmp_path):
    agent = make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, log=["jsonl"]))
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"time/total_timesteps": 3 * STEPS}) + '\n{"time/total_ti')
    agent.learn(STEPS, callback=RunLogger(tmp_path, log=["jsonl"]), reset_num_timesteps=False)
    assert [row["time/total_timesteps"] for row in lines(tmp_path)] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert "train/value_loss" in lines(tmp_path)[-1]


def test_the_rows_of_a_file_that_was_emptied_come_from_the_table(make_agent, tmp_path):
    logger = lambda: RunLogger(tmp_path, log="csv,jsonl")  # noqa: E731
    agent = make_agent().learn(3 * STEPS, callback=logger())
    (tmp_path / "progress.jsonl").write_bytes(b"")
    agent.learn(STEPS, callback=logger(), reset_num_timesteps=False)
    assert [row["time/total_timesteps"] for row in lines(tmp_path)] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]
    assert "train/value_loss" in lines(tmp_path)[0]


def test_a_line_that_is_nested_without_end_is_none(tmp_path):
    (tmp_path / "progress.jsonl").write_text("[" * 100_000 + '\n{"time/total_timesteps": 8}\n')
    sink = sinks.JsonLinesSink()
    sink.begin(tmp_path, [{"time/total_timesteps": "8"}], {}, 8)
    sink.close()
    assert (tmp_path / "progress.jsonl").read_text() == '{"time/total_timesteps": 8}\n'


def test_lines_come_in_the_order_of_rows_and_lost_ones_from_these(tmp_path):
    (tmp_path / "progress.jsonl").write_text(
        '{"time/total_timesteps": 24, "a": 3.5}\n{"time/total_timesteps": 8, "a": 1.5}\n{"time/total_ti'
    )
    sink = sinks.JsonLinesSink()
    kept = [{"time/total_timesteps": str(8 * i), "a": f"{i}.5", "b": "nan", "c": ""} for i in (1, 2, 3)]
    sink.begin(tmp_path, kept, {"late": 1.0}, 24)
    sink.close()
    assert lines(tmp_path) == [
        {"time/total_timesteps": 8, "a": 1.5},
        {"a": 2.5, "time/total_timesteps": 16},
        {"time/total_timesteps": 24, "a": 3.5, "late": 1.0},
    ]


@pytest.mark.parametrize("other", ["NaN", "-Infinity", "1e999", "[NaN]", '{"b": Infinity}', "null", "true", '"1"'])
def test_of_a_line_that_somebody_changed_the_finite_numbers_are_kept(tmp_path, other):
    huge = 10**400
    line = f'{{"time/total_timesteps": 8, "a": {other}, "b": 1.5, "c": {huge}}}\n'
    (tmp_path / "progress.jsonl").write_text(line + '{"time/total_timesteps": true, "b": 2.5}\n')
    sink = sinks.JsonLinesSink()
    sink.begin(tmp_path, [{"time/total_timesteps": "1"}, {"time/total_timesteps": "8"}], {}, 8)
    sink.close()
    assert lines(tmp_path) == [{"time/total_timesteps": 1}, {"time/total_timesteps": 8, "b": 1.5, "c": huge}]


def test_a_new_column_that_finds_the_disk_full_waits_with_all_rows(make_agent, tmp_path, monkeypatch):
    write, full = sinks.replace_file, []

    def replace_file(path, content):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(sinks, "replace_file", replace_file)

    class Full(Callback):
        def on_update(self, agent):
            full[:] = [True] if 1 < agent.num_updates < 4 else []

    with pytest.warns(UserWarning, match=r"rows of progress\.csv wait.*No space left on device; the training goes on"):
        make_agent(overlap_critic=False).learn(
            5 * STEPS, callback=[RunLogger(tmp_path, tensorboard=False), Records(), Full()]
        )
    assert [row["own/half"] for row in read_progress(tmp_path / "progress.csv")] == ["", "", "1.5", "2.0", "2.5"]


@pytest.mark.parametrize("names", [True, False])
def test_no_row_is_lost_to_a_log_that_somebody_cuts_off(make_agent, tmp_path, names):
    class CutsOff(Callback):
        def on_update(self, agent):
            if agent.num_updates == 3:
                os.truncate(tmp_path / "progress.csv", 10)
            if names and agent.num_updates > 2:
                agent.logger.record(f"own/{agent.num_updates}", 1)

    make_agent().learn(5 * STEPS, callback=[RunLogger(tmp_path, log="csv,jsonl"), CutsOff()])
    rows = read_progress(tmp_path / "progress.csv")
    assert [int(row["time/iterations"]) for row in rows] == [row["time/iterations"] for row in lines(tmp_path)]
    assert len(rows) == 5 and rows[4].get("own/5") == ("1" if names else None)


def test_a_new_column_is_written_in_a_folder_that_was_renamed(make_agent, tmp_path):
    class Renames(Callback):
        def on_update(self, agent):
            if agent.num_updates == 2:
                (tmp_path / "run").rename(tmp_path / "renamed")

    make_agent().learn(4 * STEPS, callback=[RunLogger(tmp_path / "run", tensorboard=False), Records(), Renames()])
    assert [row["own/half"] for row in read_progress(tmp_path / "renamed" / "progress.csv")] == ["", "", "1.5", "2.0"]
    assert not (tmp_path / "run").exists()


def test_what_is_there_stays_where_there_is_no_room_for_what_comes_in_its_place(tmp_path):
    class Full(io.FileIO):
        def write(self, content):
            if self.tell() + len(content) > 8:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    (tmp_path / "x").write_bytes(b"before")
    with Full(tmp_path / "x", "r+") as file, pytest.raises(OSError, match="No space"):
        sinks.Tail(0, b"all of it", anew=True).put(file)
    assert (tmp_path / "x").read_bytes() == b"before"
    with (tmp_path / "x").open("r+b", buffering=0) as file:
        assert sinks.Tail(0, b"all of it", anew=True).put(file) == sinks.Tail(9)
    assert (tmp_path / "x").read_bytes() == b"all of it"


def test_an_evaluation_that_was_interrupted_is_in_the_row_that_it_would_have_been_in(make_agent, tmp_path):
    def callbacks(folder):
        return [RunLogger(folder, log="csv,jsonl"), EvaluationCallback(STEPS)]

    with_means(make_agent(), 1.0, 2.0, 3.0).learn(3 * STEPS, callback=callbacks(tmp_path / "whole"))

    def interrupted(**_):
        raise KeyboardInterrupt

    agent = with_means(make_agent(), 1.0)
    agent.learn(STEPS, callback=callbacks(tmp_path / "run"))
    agent.evaluate = interrupted
    with pytest.raises(KeyboardInterrupt):
        agent.learn(STEPS, callback=callbacks(tmp_path / "run"), reset_num_timesteps=False)
    agent.save(tmp_path / "run" / "model.trpo")
    again = with_means(TRPO.load(tmp_path / "run"), 2.0, 3.0)
    again.learn(STEPS, callback=callbacks(tmp_path / "run"), reset_num_timesteps=False)
    again.close()
    for read in (lambda folder: read_progress(folder / "progress.csv"), lines):
        found = [
            [{n: v for n, v in row.items() if not n.startswith(("timings", "time/f", "time/time"))} for row in rows]
            for rows in (read(tmp_path / "whole"), read(tmp_path / "run"))
        ]
        assert found[0] == found[1]
        assert [float(row["eval/mean_reward"]) for row in found[1]] == [1.0, 2.0, 3.0]


def test_what_is_recorded_behind_the_row_is_in_the_next_one_also_of_another_process(make_agent, tmp_path):
    class Late(Callback):
        runs_last = True

        def on_update(self, agent):
            agent.logger.record("late", agent.num_updates)

    agent = make_agent().learn(STEPS, callback=[RunLogger(tmp_path, tensorboard=False), Late()])
    agent.save(tmp_path / "model.trpo")
    again = TRPO.load(tmp_path)
    again.learn(STEPS, callback=[RunLogger(tmp_path, tensorboard=False), Late()], reset_num_timesteps=False)
    again.close()
    assert [row["late"] for row in read_progress(tmp_path / "progress.csv")] == ["", "1"]


@pytest.mark.parametrize("value", [3, 3.0, True, np.float32(3), np.array(3), torch.tensor(3.0), np.nan])
def test_numbers_of_any_library_are_recorded(value):
    logger = Logger()
    logger.record("x", value)
    (found,) = logger.take().values()
    assert type(found) in (int, float) and (found == value or np.isnan(found)) and logger.take() == {}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("x", "3", TypeError, "value: '3' given for 'x'; want a number"),
        ("x", [3], TypeError, r"value: \[3\] given for 'x'; want a number"),
        ("x", np.ones(2), TypeError, "value: .* given for 'x'; want a number"),
        ("x", 10**400, ValueError, "value: a number beyond a float's given for 'x'; want a smaller one"),
        ("", 3, TypeError, "name: '' given; want a string of a line"),
        ("a\nb", 3, TypeError, "name: 'a.nb' given; want a string of a line"),
        ("train/value_loss", 3, ValueError, "name: 'train/value_loss' given, which is a column of the log's own"),
    ],
)
def test_what_cannot_be_recorded_is_named(name, value, error, message):
    with pytest.raises(error, match=message):
        Logger().record(name, value)


def test_sinks_that_cannot_be_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="log: 'csv,excel' given; want some of csv, jsonl, tensorboard, wandb, table"):
        RunLogger(tmp_path, log="csv,excel")
    with pytest.raises(ValueError, match=r"log: \[1\] given; want some of csv, jsonl"):
        RunLogger(tmp_path, log=[1])
    with pytest.raises(ValueError, match="folder: None given; want a path, for jsonl"):
        RunLogger(log=["table", "jsonl"])
    with pytest.raises(ValueError, match="tensorboard: True given with log='csv'"):
        RunLogger(tmp_path, tensorboard=True, log="csv")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"log: 'wandb' given, which is not installed.*want pip install wandb"):
        RunLogger(tmp_path, log="wandb")
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(ImportError, match=r"tensorboard.*not installed; want pip install tensorboard"):
        RunLogger(tmp_path, log="tensorboard")


def test_a_table_of_every_update_is_printed_without_a_folder(make_agent, capsys):
    make_agent("CartPole-v1").learn(2 * STEPS, callback=[RunLogger(log="table"), Records()])
    out = capsys.readouterr().out
    assert out.count("| rollout/") == 2 and out.count("|    updates ") == 1
    assert len({len(line) for line in out.partition("| own/")[0].splitlines()}) == 1


class FakeWandb:
    """What is used of wandb."""

    def __init__(self, *fails):
        self.run, self.fails, self.begun, self.logged, self.ended = None, fails, [], [], 0

    def init(self, **arguments):
        if "init" in self.fails:
            raise RuntimeError("no network")
        self.begun.append(arguments)
        start = self.logged[-1][0] + 1 if "resume" in arguments else 0
        return SimpleNamespace(id=arguments.get("id", "abc"), log=self.log, finish=self.finish, starting_step=start)

    def log(self, row, step):
        if "log" in self.fails:
            raise RuntimeError("no network")
        self.logged.append((step, row.get("train/n_updates", row.get("late"))))

    def finish(self):
        self.ended += 1
        if "finish" in self.fails:
            raise RuntimeError("no network")


def test_weights_and_biases_get_every_row_in_one_run_that_goes_on(make_agent, tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    agent = make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, log=["wandb"]))
    agent.learn(STEPS, callback=RunLogger(tmp_path, log=["wandb"]), reset_num_timesteps=False)
    assert fake.logged == [(STEPS, 1), (2 * STEPS, 2), (3 * STEPS, 3)] and fake.ended == 2
    first, second = fake.begun
    assert (first["name"], first["dir"], first["config"]["seed"]) == (tmp_path.name, str(tmp_path), 3)
    assert "id" not in first and (second["id"], second["resume"]) == ("abc", "allow")

    class MadeUpFor(Callback):
        def on_training_start(self, agent, total_timesteps):
            agent.logger.record("late", 7)

    callbacks = [MadeUpFor(), RunLogger(tmp_path, log=["wandb"])]
    agent.learn(STEPS, callback=callbacks, reset_num_timesteps=False)
    assert fake.logged[3:] == [(3 * STEPS + 1, 7), (4 * STEPS, 4)] and fake.ended == 3
    fake.run = fake.init()
    agent.learn(STEPS, callback=RunLogger(log=["wandb"]), reset_num_timesteps=False)
    assert len(fake.logged) == 6 and len(fake.begun) == 4 and fake.ended == 3, "a run of the user's stays open"


@pytest.mark.parametrize(("fails", "ended"), [(["init"], 0), (["log", "finish"], 1)])
def test_a_sink_that_fails_is_told_once_and_the_training_and_the_other_sinks_go_on(
    make_agent, tmp_path, monkeypatch, fails, ended
):
    fake = FakeWandb(*fails)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.warns(UserWarning, match=r"log: WandbSink gets no more rows.*no network.*training goes on") as told:
        make_agent().learn(3 * STEPS, callback=RunLogger(tmp_path, log=["wandb"]))
    assert len(told) == 1 and len(read_progress(tmp_path / "progress.csv")) == 3 and fake.ended == ended


@pytest.mark.filterwarnings("default")  # of wandb's own
def test_the_real_package_writes_a_run_offline(make_agent, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    make_agent().learn(2 * STEPS, callback=RunLogger(tmp_path, log=["wandb"]))
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    # Another process writes it, in blocks that may part a name.
    assert wait_until(lambda: sum(name.encode() in file.read_bytes() for name in COLUMNS) > 20)


def test_every_log_has_what_was_recorded(make_agent, tmp_path):
    logs = [RunLogger(tmp_path / name, log="csv,jsonl") for name in "ab"]
    agent = make_agent().learn(2 * STEPS, callback=[logs[0], Records(), logs[1]])
    agent.learn(STEPS, callback=[*logs, Records()], reset_num_timesteps=False)
    for name in "ab":
        rows = read_progress(tmp_path / name / "progress.csv")
        assert [row["own/updates"] for row in rows] == ["", "2", "3"], name
        assert rows[-1]["own/half"] == "1.5"
