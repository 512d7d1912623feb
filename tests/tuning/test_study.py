"""Studies whose trials are functions of their settings: what is trained is tested in test_trial.py."""

import dataclasses
import os
import sqlite3

import pytest

optuna = pytest.importorskip("optuna", reason="optuna is not installed")

from trpo_fast.settings import linear_range, log_range, one_of  # noqa: E402
from trpo_fast.tuning import study as module  # noqa: E402
from trpo_fast.tuning.study import STARTUP_TRIALS, Plan, State, Study, StudyError, _Locks  # noqa: E402
from trpo_fast.tuning.trial import Score, Task  # noqa: E402

SPACE = {"max_kl": log_range(0.005, 0.2), "gamma": one_of(0.9, 0.99)}


@pytest.fixture
def plan(tmp_path):
    task = Task("CartPole-v1", {}, None, (), 1000, (0, 1), 5, {"num_envs": 2, "hidden_sizes": (8,)})
    path = tmp_path / "study.db"
    return Plan(path, path, task, SPACE, {"max_kl": 0.04, "gamma": 0.99}, "Discrete(2)")


@pytest.fixture
def scores(monkeypatch):
    """Let a function of the settings be the score, by default their KL."""

    def give(function=lambda settings, report: settings["max_kl"]):
        def scored(task, settings, report):
            value = function(settings, report)
            return Score(value, [value, value])

        monkeypatch.setattr(module, "scored", scored)

    give()
    return give


@pytest.fixture
def opened():
    studies = []

    def make(plan):
        studies.append(Study(plan))
        return studies[-1]

    yield make
    for study in studies:
        study.close()


def at(plan, path):
    """The same study in another file."""
    return dataclasses.replace(plan, path=path, place=path)


def carry_out(study, trials):
    while (trial := study.claim(trials)) is not None:
        study.carry_out(trial)
    return [trial.params for trial in study.finished()]


def test_a_study_has_as_many_trials_as_asked_and_begins_with_the_settings_of_now(plan, scores, opened):
    study = opened(plan)
    assert carry_out(study, 3)[0] == {"max_kl": 0.04, "gamma": "0.99"}
    again = opened(plan)
    assert len(carry_out(again, 3)) == 3
    assert len(carry_out(again, 4)) == 4
    best = again.best()
    assert best.value == max(trial.value for trial in again.finished())
    assert best.user_attrs["settings"]["hidden_sizes"] == [8]


def test_a_study_that_is_killed_has_the_trials_of_one_that_is_not(plan, scores, opened, tmp_path):
    whole = carry_out(opened(plan), 13)  # more than the ten that are drawn at random
    other = at(plan, tmp_path / "other.db")
    study = opened(other)
    study.claim(13)  # killed before it has its settings
    study.close()
    study = opened(other)
    carry_out(study, 11)
    killed = study.claim(13)
    module.suggested(killed, SPACE)
    study.close()
    study = opened(other)
    assert carry_out(study, 13) == whole
    states = [trial.state for trial in study._study.get_trials()]
    assert states.count(State.FAIL) == 2 and len(states) == 15


def test_ctrl_c_gives_a_trial_back(plan, scores, opened):
    study = opened(plan)
    carry_out(study, 1)

    def interrupted(settings, report):
        raise KeyboardInterrupt

    scores(interrupted)
    trial = study.claim(2)
    with pytest.raises(KeyboardInterrupt):
        study.carry_out(trial)
    assert len(study.finished()) == 1
    scores()
    assert carry_out(study, 2)[1] == trial.params


def test_a_trial_that_another_ends_between_two_looks_at_it_is_left_to_it(plan, scores, opened, monkeypatch):
    first, second = opened(plan), opened(plan)
    trial, is_taken = first.claim(2), second._locks.is_taken

    def ended_behind_the_list(number):
        if number == trial.number:
            first.carry_out(trial)
        return is_taken(number)

    monkeypatch.setattr(second._locks, "is_taken", ended_behind_the_list)
    second.carry_out(second.claim(2))
    assert [(found.number, found.state) for found in second.trials()] == [(0, State.COMPLETE), (1, State.COMPLETE)]


def test_a_trial_that_had_failed_where_it_was_interrupted_is_not_asked_for_again(plan, scores, opened, monkeypatch):
    scores(lambda settings, report: 1 / 0)
    study = opened(plan)
    trial = study.claim(1)

    def interrupted(*_, **__):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(study._study, "tell", interrupted)
    monkeypatch.setattr(module, "scored", lambda *_: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        study.carry_out(trial)
    assert study.claim(1) is None
    assert [found.state for found in study._study.get_trials()] == [State.FAIL]


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "{0}.db", "100%25.db", "with space.db"])
def test_a_path_is_no_url(plan, scores, opened, tmp_path, name):
    study = opened(at(plan, tmp_path / name))
    carry_out(study, 2)
    again = opened(at(plan, tmp_path / name))
    assert [trial.state for trial in again.finished()] == [State.COMPLETE] * 2
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.lock"}


def test_a_file_in_no_folder_is_an_error_with_its_name(plan, tmp_path):
    with pytest.raises(StudyError, match=r"^study: .*nofolder/study\.db: .*No such file"):
        Study(at(plan, tmp_path / "nofolder" / "study.db"))


def test_a_file_that_cannot_be_written_is_an_error_with_its_name(plan, scores, opened, monkeypatch):
    study, full = opened(plan), sqlite3.OperationalError("database or disk is full")
    trial = study.claim(3)

    def fails(*_, **__):
        raise full

    error = "^study: .*study.db: .*database or disk is full"
    with monkeypatch.context() as patch, pytest.raises(StudyError, match=error):
        patch.setattr(optuna, "load_study", fails)
        opened(plan)
    with monkeypatch.context() as patch, pytest.raises(StudyError, match=error):
        patch.setattr(type(study._study), "ask", fails)
        study.claim(3)
    with monkeypatch.context() as patch, pytest.raises(StudyError, match=error):
        patch.setattr(type(trial), "set_user_attr", fails)
        study.carry_out(trial)
    with monkeypatch.context() as patch, pytest.raises(StudyError, match=error):
        patch.setattr(type(study._study), "get_trials", fails)
        study.best()
    assert carry_out(study, 1)[0] == trial.params


def test_a_trial_that_fails_is_noted_and_ends_no_study(plan, scores, opened):
    def fails(settings, report):
        if settings["max_kl"] != 0.04:
            return 1.0
        raise ValueError("reward of environment 0 at step 3: nan given; want a finite number")

    scores(fails)
    study = opened(plan)
    carry_out(study, 1)
    assert study.best() is None and study.preset() is None
    carry_out(study, 3)
    failed, *done = study.finished()
    assert failed.state == State.FAIL
    assert (
        failed.user_attrs["reason"] == "ValueError: reward of environment 0 at step 3: nan given; want a finite number"
    )
    assert [trial.state for trial in done] == [State.COMPLETE] * 2
    assert "the best of 3 (2 trained to the end, 0 pruned, 1 failed)" in study.preset().evidence


def test_what_is_behind_the_others_at_the_same_timesteps_is_pruned_once_there_are_some(plan, scores, opened):
    seen = []

    def shown(settings, report):
        trial = len(seen)
        seen.append([])
        for step in (100, 250, 500, 1000):
            seen[-1].append(step)
            # The first trials are good late, the others better than those before, and still behind at each moment.
            report(step, step / 100 if trial < STARTUP_TRIALS else step / 200)
        return 1.0

    scores(shown)
    study = opened(plan)
    carry_out(study, STARTUP_TRIALS + 1)
    *first, last = study.finished()
    assert {trial.state for trial in first} == {State.COMPLETE}
    assert last.state == State.PRUNED and last.last_step == 250  # a quarter is warm-up
    scores(shown)
    seen.clear()
    unpruned = opened(dataclasses.replace(at(plan, plan.path.with_name("all.db")), prune=False))
    carry_out(unpruned, STARTUP_TRIALS + 1)
    assert {trial.state for trial in unpruned.finished()} == {State.COMPLETE}


def test_the_preset_says_settings_and_where_they_come_from(plan, scores, opened, tmp_path):
    scores(lambda settings, report: -abs(settings["max_kl"] - 0.03))
    study = opened(plan)
    carry_out(study, 4)
    preset = study.write_preset(tmp_path / "best.toml", tmp_path / "best.toml")
    assert preset.name == "CartPole-v1" and preset.actions == "Discrete(2)"
    assert set(preset.settings) == {"max_kl", "gamma", "hidden_sizes"}  # num_envs is an option of its own
    for part in (
        "study.db",
        f"trial {study.best().number}, the best of 4",
        "seeds 0, 1",
        "--num-envs 2",
        "1,000 timeste",
    ):
        assert part in preset.evidence
    assert module.Preset(**vars(preset)) == preset
    assert "hidden_sizes = [8]" in (tmp_path / "best.toml").read_text()


def test_a_file_of_something_else_is_refused_and_left_as_it_is(plan, tmp_path):
    for name, make in {
        "text": lambda path: path.write_text("no database"),
        "empty": lambda path: path.touch(),
        "database": lambda path: sqlite3.connect(path).execute("create table a (b)").connection.close(),
        "folder": lambda path: path.mkdir(),
        "optuna": lambda path: optuna.create_study(storage=f"sqlite:///{path}", study_name="another"),
    }.items():
        path = tmp_path / name
        make(path)
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ValueError, match=f"study: {path} given, .*study of trpo-fast tune"):
            Study(at(plan, path))
        assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Acrobot-v1"}, "environment id CartPole-v1, now Acrobot-v1"),
        ({"env_kwargs": {"gravity": 1}}, "environment env_kwargs .*, now .*"),
        ({"timesteps": 2000}, "timesteps 1000, now 2000"),
        ({"seeds": (0,)}, r"seeds \[0, 1\], now \[0\]"),
        ({"fixed": {"num_envs": 2}}, r"fixed hidden_sizes \[8\], now left out"),
    ],
)
def test_a_study_of_something_else_is_refused_by_name(plan, opened, changes, message):
    opened(plan)
    with pytest.raises(ValueError, match=f"study.db given, which was made with {message}.*; want the same, or another"):
        Study(dataclasses.replace(plan, task=dataclasses.replace(plan.task, **changes)))
    narrower = {"max_kl": linear_range(0.005, 0.3)}
    with pytest.raises(
        ValueError, match=r"search max_kl 0.005 to 0.2, by its logarithm, now 0.005 to 0.3; search gamma"
    ):
        Study(dataclasses.replace(plan, space=narrower))


def test_a_trial_of_a_living_process_is_nobody_elses(tmp_path):
    here, told = os.pipe()
    asked, go = os.pipe()
    child = os.fork()
    if child == 0:
        _Locks(tmp_path / "study.db").take(3)
        os.write(told, b"x")
        os.read(asked, 1)
        os._exit(0)
    os.read(here, 1)
    locks = _Locks(tmp_path / "study.db")
    assert locks.is_taken(3) and not locks.is_taken(2)
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert not locks.is_taken(3)
    locks.take(3)
    others = _Locks(tmp_path / "study.db")  # in one process, too, and whoever of it closes the file
    assert others.is_taken(3) and locks.is_taken(3)
    others.close()
    if os.fork() == 0:
        others = _Locks(tmp_path / "study.db")
        os._exit(0 if others.is_taken(3) else 1)
    assert os.wait()[1] == 0
    locks.close()
    for handle in (here, told, asked, go):
        os.close(handle)


def test_a_system_whose_locks_differ_is_named(plan, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with pytest.raises(StudyError, match="study: a system of darwin given, whose locks differ; want Linux"):
        Study(plan)
