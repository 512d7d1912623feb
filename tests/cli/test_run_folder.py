from pathlib import Path

import pytest

from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.run_folder import RunFolder, model_of


def test_folder_in_use_and_file_are_refused_but_an_empty_folder_serves(tmp_path):
    RunFolder(tmp_path).refuse_if_used()
    RunFolder(tmp_path / "new").refuse_if_used()
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(CommandError, match="exists and is not empty"):
        RunFolder(tmp_path).refuse_if_used()
    with pytest.raises(CommandError, match="is a file"):
        RunFolder(tmp_path / "notes.txt").refuse_if_used()


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"file/run cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run").make()


def test_latest_checkpoint_is_the_one_with_the_most_timesteps(tmp_path):
    folder = RunFolder(tmp_path)
    folder.make()
    folder.model.write_text("")
    assert folder.latest_checkpoint() == folder.model
    for steps in (900, 1000, 100_000):
        (folder.checkpoints / f"{steps:012d}.trpo").write_text("")
    assert folder.latest_checkpoint().name == "000000100000.trpo"


def test_model_of_a_run_is_its_model_file_or_its_latest_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    folder.make()
    checkpoint = folder.checkpoints / f"{7:012d}.trpo"
    checkpoint.write_text("")
    assert model_of(str(tmp_path)) == checkpoint
    folder.model.write_text("")
    assert model_of(str(tmp_path)) == folder.model
    assert model_of(str(checkpoint)) == checkpoint


def test_missing_run_empty_run_and_damaged_config_are_named(tmp_path):
    with pytest.raises(CommandError, match="none given; want a run's folder"):
        model_of(str(tmp_path / "none"))
    with pytest.raises(CommandError, match="holds neither"):
        model_of(str(tmp_path))
    folder = RunFolder(tmp_path)
    with pytest.raises(CommandError, match=r"no config\.json"):
        folder.read_config()
    for content in ("{", "[]"):
        folder.config.write_text(content)
        with pytest.raises(CommandError, match="damaged"):
            folder.read_config()


@pytest.mark.parametrize("value", ['"abc"', "null", "0", "-5", "1.5", "true", "[]"])
def test_timesteps_that_are_no_number_of_steps_are_named(tmp_path, value):
    folder = RunFolder(tmp_path)
    folder.config.write_text(f'{{"timesteps": {value}}}')
    with pytest.raises(CommandError, match=r"config\.json is damaged: timesteps: .*want an integer >= 1"):
        folder.timesteps()


def test_config_that_cannot_be_read_or_written_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.config.mkdir()  # as unreadable as a file without permission, also for root
    with pytest.raises(CommandError, match=r"config\.json cannot be read: Is a directory"):
        folder.read_config()
    with pytest.raises(CommandError, match=r"config\.json cannot be written: Is a directory"):
        folder.write_config({})


def test_permission_denied_is_named_wherever_the_folder_is_looked_at(tmp_path, monkeypatch):
    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("exists", "is_dir", "is_file", "read_text", "write_text"):
        monkeypatch.setattr(Path, name, deny)
    folder = RunFolder(tmp_path)
    looks = (
        folder.refuse_if_used,
        folder.latest_checkpoint,
        folder.read_config,
        lambda: folder.write_config({}),
        lambda: model_of(str(tmp_path)),
    )
    for look in looks:
        with pytest.raises(CommandError, match="Permission denied"):
            look()
