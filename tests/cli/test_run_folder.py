import errno
import fcntl
import json
import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from trpo_fast import TRPO, CheckpointCallback, RunLogger, model_file
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.run_folder import RUN_OPTIONS, RunFolder, claimed_by_name, latest_of
from trpo_fast.run_models import checkpoint_name


def in_child(function):
    """What `function` is refused with in another process, "" where it is not."""
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
        except CommandError as error:
            os.write(here, str(error).encode())
        finally:
            os._exit(0)
    os.close(here)
    os.waitpid(child, 0)
    with os.fdopen(there) as said:
        return said.read()


def test_folder_in_use_and_file_are_refused_but_an_empty_folder_serves(tmp_path):
    RunFolder(tmp_path).refuse_if_used()
    RunFolder(tmp_path / "new").refuse_if_used()
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(CommandError, match="exists and is not empty"):
        RunFolder(tmp_path).refuse_if_used()
    with pytest.raises(CommandError, match="is a file"):
        RunFolder(tmp_path / "notes.txt").refuse_if_used()


def test_what_a_start_left_that_was_killed_refuses_no_other_try(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    (folder.checkpoints / checkpoint_name(0)).write_text("")
    (folder.checkpoints / f".{checkpoint_name(0)}.0123abcd.new").write_text("")
    folder.release()
    (folder.path / ".lock").write_text("process 1 on that.machine")
    RunFolder(folder.path).refuse_if_used()
    RunFolder(folder.path).claim_new()
    folder = RunFolder(folder.path)
    with pytest.raises(CommandError, match="in use by process"):
        folder.claim_old()
    folder.write_config({})
    with pytest.raises(CommandError, match="in use by process"):
        RunFolder(folder.path).refuse_if_used()


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"file/run cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run").claim_new()


def test_two_runs_of_one_name_get_two_folders(tmp_path):
    made = [claimed_by_name(RunFolder(tmp_path / "runs" / "a")) for _ in range(3)]
    assert [folder.path.name for folder in made] == ["a", "a-2", "a-3"]


def test_a_folder_is_one_process_s_and_another_is_refused_by_its_name(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    message = r"run is in use by process {}.*; want one run in a folder"
    with pytest.raises(CommandError, match=message.format(f"{os.getpid()}, this one")):
        RunFolder(tmp_path / "run").claim_old()
    refused = in_child(lambda: RunFolder(tmp_path / "run").claim_old())
    assert re.search(message.format(f"{os.getpid()} on "), refused), refused
    refused = in_child(lambda: RunFolder(tmp_path / "run").claim_new())
    assert re.search(message.format(f"{os.getpid()} on "), refused), refused
    folder.release()
    assert os.listdir(folder.path) == ["checkpoints"]
    assert in_child(lambda: RunFolder(tmp_path / "run").claim_old()) == ""


def test_no_handle_of_the_lock_that_this_process_closes_gives_the_folder_away(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    shutil.copytree(folder.place, tmp_path / "copy")
    assert "in use by process" in in_child(lambda: RunFolder(folder.place).claim_old())
    assert in_child(lambda: RunFolder(tmp_path / "copy").claim_new()) == "", "what is copied is nobody's"


def test_a_folder_that_was_renamed_is_still_its_process_s_and_another_of_its_name_is_not(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    folder.place.rename(tmp_path / "moved")
    with pytest.raises(CommandError, match=r"in use by process .*, this one"):
        RunFolder(tmp_path / "moved").claim_old()
    assert "in use by process" in in_child(lambda: RunFolder(tmp_path / "moved").claim_old())
    other = RunFolder(tmp_path / "run")
    other.claim_new()
    folder.release()
    assert os.listdir(tmp_path / "moved") == ["checkpoints"]
    assert "in use by process" in in_child(lambda: RunFolder(tmp_path / "run").claim_old()), "the other one has it"
    other.release()


def test_a_child_that_is_forked_has_nothing_of_its_parent_s_folder_and_takes_nothing_from_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    assert in_child(folder.release) == ""
    assert "in use by process" in in_child(lambda: RunFolder(folder.place).claim_old())
    lock = (folder.place / ".lock").stat()

    def inherited():
        for handle in os.listdir("/dev/fd"):
            with suppress(OSError):
                if os.path.samestat(os.fstat(int(handle)), lock):
                    raise CommandError("a handle")

    assert in_child(inherited) == ""


def test_the_kernel_frees_the_folder_of_a_process_that_was_killed_though_its_child_lives(tmp_path):
    folder = RunFolder(tmp_path / "run")
    ready, tell = os.pipe()
    wait, end = os.pipe()
    owner = os.fork()
    if owner == 0:
        folder.claim_new()
        if os.fork() == 0:
            os.read(wait, 1)
            os._exit(0)
        os.write(tell, b".")
        os.kill(os.getpid(), signal.SIGKILL)
    os.read(ready, 1)
    os.waitpid(owner, 0)
    assert (folder.path / ".lock").read_text().startswith(f"process {owner} on ")
    folder.claim_old()
    folder.release()
    os.write(end, b".")
    for handle in (ready, tell, wait, end):
        os.close(handle)


def test_callbacks_of_python_are_refused_in_the_folder_of_a_command_but_for_its_own_agent(tmp_path):
    folder, settings = RunFolder(tmp_path / "run"), {"num_envs": 2, "steps_per_env": 16, "hidden_sizes": (4,)}
    folder.claim_new()
    agent = TRPO("CartPole-v1", seed=0, **settings)
    callbacks = [RunLogger(folder.place, tensorboard=False), CheckpointCallback(folder.checkpoints)]
    with pytest.raises(ValueError, match=r"folder: .*run is in use by process .*, this one; want one training"):
        agent.learn(32, callback=callbacks)
    folder.share_with(agent)
    agent.learn(32, callback=callbacks)
    refused = in_child(lambda: RunFolder(folder.path).claim_new())
    assert "in use by process" in refused, "the command has it still"
    agent.close()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match=r"run is on a file system without locks \(No locks available\)"):
        RunFolder(tmp_path / "run").claim_new()


def test_a_new_folder_that_is_discarded_leaves_nothing_and_one_that_was_there_stays(tmp_path):
    for path in (tmp_path / "new", tmp_path / "old"):
        if path.name == "old":
            path.mkdir()
        folder = RunFolder(path)
        folder.claim_new()
        folder.write_config({})
        (folder.checkpoints / checkpoint_name(0)).write_text("")
        folder.discard()
    assert os.listdir(tmp_path) == ["old"] and os.listdir(tmp_path / "old") == []


def test_a_new_folder_that_is_discarded_keeps_what_others_wrote_and_so_does_one_that_took_its_name(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    for number in (0, 64):
        (folder.checkpoints / checkpoint_name(number)).write_text("")
    folder.discard()
    assert os.listdir(folder.place) == ["checkpoints"] and os.listdir(folder.checkpoints) == [checkpoint_name(64)]
    folder, other = RunFolder(tmp_path / "again"), RunFolder(tmp_path / "again")
    folder.claim_new()
    folder.place.rename(tmp_path / "moved")
    other.claim_new()
    other.write_config({})
    (other.checkpoints / checkpoint_name(0)).write_text("")
    folder.discard()
    assert os.listdir(other.checkpoints) == [checkpoint_name(0)] and other.config.exists()
    other.release()


def test_an_old_run_that_is_discarded_is_let_go_and_loses_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim_new()
    folder.write_config({})
    folder.model.write_text("")
    (folder.checkpoints / checkpoint_name(64)).write_text("")
    folder.release()
    folder = RunFolder(tmp_path)
    folder.claim_old()
    folder.discard()
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "config.json", "model.trpo"]
    assert os.listdir(folder.checkpoints) == [checkpoint_name(64)]
    assert in_child(lambda: RunFolder(tmp_path).claim_old()) == ""


def test_a_folder_that_is_no_run_is_refused_and_nothing_in_it_is_changed(tmp_path):
    for name in (".lock", ".notes.2026.new", ".old.trpo.abcdefgh"):
        (tmp_path / name).write_text(name)
    for config in (None, "{"):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}
        with pytest.raises(CommandError, match=r"holds no config\.json|config\.json is no JSON object: Expecting"):
            RunFolder(tmp_path).claim_old()
        if config is None:
            with pytest.raises(CommandError, match="exists and is not empty"):
                RunFolder(tmp_path).refuse_if_used()
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_left_overs_of_killed_saves_are_removed_from_a_run_that_goes_on(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim_new()
    folder.write_config({})
    for left in (folder.path / ".model.trpo.0123abcd.new", folder.checkpoints / f".{checkpoint_name(5)}.0123abcd.new"):
        left.write_text("")
    folder.release()
    folder.claim_old()
    assert len(os.listdir(folder.checkpoints)) == 1, "not before all that stands against it has been looked at"
    folder.prepare()
    folder.release()
    assert sorted(os.listdir(folder.path)) == ["checkpoints", "config.json"] and os.listdir(folder.checkpoints) == []


def test_a_run_argument_is_a_file_or_a_folder(tmp_path):
    file = tmp_path / "a.trpo"
    model_file.write(file, {}, {"counters": {"num_timesteps": 3}})
    assert latest_of(str(file), lambda path: path) == file
    file.rename(tmp_path / "model.trpo")
    assert latest_of(str(tmp_path), lambda path: path) == tmp_path / "model.trpo"


def test_missing_run_empty_run_and_damaged_config_are_named(tmp_path):
    with pytest.raises(CommandError, match="none given; want a run's folder"):
        latest_of(str(tmp_path / "none"), lambda path: path)
    with pytest.raises(CommandError, match=r"run: the folder .* given; want a model file, or the folder of a run"):
        latest_of(str(tmp_path), lambda path: path)
    folder = RunFolder(tmp_path)
    with pytest.raises(CommandError, match=r"no config\.json"):
        folder.read_config()
    for content in ("{", "[]"):
        folder.config.write_text(content)
        with pytest.raises(CommandError, match="no JSON object"):
            folder.read_config()


@pytest.mark.parametrize("value", ['"abc"', "null", "0", "-5", "1.5", "true", "[]"])
def test_timesteps_that_are_no_number_of_steps_are_named(tmp_path, value):
    folder = RunFolder(tmp_path)
    folder.config.write_text(f'{{"timesteps": {value}}}')
    with pytest.raises(CommandError, match=r"config\.json is damaged: timesteps: .*want an integer >= 1"):
        folder.options()


@pytest.mark.parametrize("name", ["checkpoint_every", "keep_checkpoints", "eval_episodes", "threads"])
def test_options_of_a_run_are_those_of_its_config_or_the_defaults_and_no_number_is_named(tmp_path, name):
    folder = RunFolder(tmp_path)
    usual = {key: default for key, (_, default) in RUN_OPTIONS.items()} | {"timesteps": 9}
    folder.config.write_text('{"timesteps": 9}')
    assert folder.options() == usual
    folder.config.write_text(json.dumps({"timesteps": 9, name: 7}))
    assert folder.options() == usual | {name: 7}
    folder.config.write_text(json.dumps({"timesteps": 9, name: -1}))
    with pytest.raises(CommandError, match=rf"config\.json is damaged: {name}: -1 given; want an integer"):
        folder.options()
    folder.config.write_text("{}")
    with pytest.raises(CommandError, match=r"config\.json is damaged: timesteps: missing; want the steps of the whole"):
        folder.options()


def test_a_folder_stays_where_it_was_given_and_is_called_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("runs/a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder.claim_new()
    again = claimed_by_name(folder)
    assert sorted(os.listdir(tmp_path / "runs")) == ["a", "a-2"] and os.listdir() == []
    assert (str(again.path), str(again.shown(again.model))) == ("runs/a-2", "runs/a-2/model.trpo")
    with pytest.raises(CommandError, match=r"^runs/a-2/config\.json is no JSON object: it holds a list"):
        again.config.write_text("[]")
        again.read_config()


def test_a_folder_that_was_renamed_or_whose_place_another_has_is_not_in_place(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_new()
    assert folder.is_in_place
    folder.place.rename(tmp_path / "moved")
    assert not folder.is_in_place
    other = RunFolder(tmp_path / "run")
    refused = in_child(other.claim_new)
    assert refused == "" and not folder.is_in_place
    (other.place / ".lock").write_text("of another process")
    folder.release()
    assert (other.place / ".lock").exists(), "another run's"
    RunFolder(tmp_path / "moved").claim_new()


def test_config_that_cannot_be_read_or_written_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.config.mkdir()  # as unreadable as a file without permission, also for root
    with pytest.raises(CommandError, match=r"config\.json is a folder; want a file"):
        folder.read_config()
    with pytest.raises(CommandError, match=r"config\.json cannot be written: Is a directory"):
        folder.write_config({})


def test_permission_denied_is_named_wherever_the_folder_is_looked_at(tmp_path, monkeypatch):
    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("exists", "is_dir", "is_file", "read_text", "glob"):
        monkeypatch.setattr(Path, name, deny)
    monkeypatch.setattr(os, "open", lambda path, *_: deny(path))
    folder = RunFolder(tmp_path)
    looks = (
        folder.refuse_if_used,
        folder.claim_old,
        folder.read_config,
        lambda: folder.write_config({}),
        lambda: latest_of(str(tmp_path), Path),
    )
    for look in looks:
        with pytest.raises(CommandError, match="Permission denied"):
            look()
