import numpy as np
import pytest

from trpo_fast import model_file
from trpo_fast.model_file import ModelFileError
from trpo_fast.run_models import newest_first, read_latest


@pytest.fixture
def write(tmp_path):
    """``write("model.trpo", 900)``: a file of so many timesteps; its path."""
    (tmp_path / "checkpoints").mkdir()

    def make(name, timesteps, **counters):
        path = tmp_path / name
        content = {"num_timesteps": timesteps, "num_updates": timesteps // 100, **counters}
        model_file.write(path, {"a": np.arange(3.0)}, {"counters": content})
        return path

    return make


def latest(folder):
    return read_latest(folder, lambda path: model_file.read(path) and path)


def test_the_latest_is_the_one_with_the_most_timesteps_whatever_its_name_and_age(write, tmp_path):
    newest = write("checkpoints/000000000900.trpo", 900)
    write("checkpoints/000000000800.trpo", 800)
    write("model.trpo", 100)
    assert latest(tmp_path) == newest
    renamed = write("checkpoints/a.trpo", 950)
    assert latest(tmp_path) == renamed
    assert [progress.timesteps for _, progress in newest_first(tmp_path)] == [950, 900, 800, 100]


def test_of_two_that_are_as_far_the_model_is_the_latest(write, tmp_path):
    write("checkpoints/000000000900.trpo", 900)
    newest = write("model.trpo", 900)
    assert latest(tmp_path) == newest


def test_timesteps_before_a_learn_that_counted_anew_are_counted(write, tmp_path):
    write("checkpoints/000000000900.trpo", 900)
    newest = write("checkpoints/000000001000.trpo", 100, earlier_timesteps=900)
    assert latest(tmp_path) == newest


def test_the_best_is_no_latest(write, tmp_path):
    write("checkpoints/best.trpo", 900)
    newest = write("model.trpo", 100)
    assert latest(tmp_path) == newest


@pytest.mark.parametrize("damage", ["truncated", "foreign", "counters"])
@pytest.mark.parametrize("name", ["checkpoints/000000000900.trpo", "model.trpo"])
def test_a_damaged_newest_goes_back_to_the_one_before_and_says_so(write, tmp_path, name, damage):
    kept = write("checkpoints/000000000800.trpo", 800)
    write("checkpoints/000000000700.trpo", 700)
    bad = write(name, 900, **({"num_updates": -1} if damage == "counters" else {}))
    if damage != "counters":
        bad.write_bytes(bad.read_bytes()[:-3] if damage == "truncated" else b"")
    with pytest.warns(UserWarning, match=f"{bad.name}.*; taken instead: .*{kept.name}, at 800 timesteps"):
        assert latest(tmp_path) == kept


def test_an_older_one_that_is_damaged_is_not_worth_a_word(write, tmp_path):
    write("checkpoints/000000000700.trpo", 700).write_bytes(b"")
    newest = write("checkpoints/000000000800.trpo", 800)
    assert latest(tmp_path) == newest


def test_what_the_reader_refuses_is_passed_over(write, tmp_path):
    write("model.trpo", 900)
    kept = write("checkpoints/000000000800.trpo", 800)

    def read(path):
        if path.name == "model.trpo":
            raise ModelFileError(f"{path}: of another version")
        return path

    with pytest.warns(UserWarning, match="of another version; taken instead"):
        assert read_latest(tmp_path, read) == kept


def test_a_checkpoint_that_a_run_under_way_has_just_removed_is_passed_over(write, tmp_path):
    write("checkpoints/000000000900.trpo", 900)
    kept = write("checkpoints/000000000800.trpo", 800)

    def read(path):
        if path != kept:
            path.unlink()
        return model_file.read(path) and path

    assert read_latest(tmp_path, read) == kept


def test_a_folder_without_a_model_that_can_be_read_is_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run: the folder .* given; want a model file, or the folder of a run"):
        read_latest(tmp_path, model_file.read, "run")
    write("model.trpo", 1).write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"run: .* holds no model that can be read: .*model\.trpo is truncated"):
        read_latest(tmp_path, model_file.read, "run")


def test_a_folder_of_checkpoints_is_read_by_the_same_rule(write, tmp_path):
    write("checkpoints/000000000800.trpo", 800)
    newest = write("checkpoints/000000000900.trpo", 900)
    write("checkpoints/best.trpo", 800)
    write("checkpoints/mine.trpo", 1000)
    assert latest(tmp_path / "checkpoints") == newest


@pytest.mark.parametrize("damaged", [True, False])
def test_the_best_is_named_where_it_alone_can_be_read(write, tmp_path, damaged):
    if damaged:
        write("checkpoints/000000000900.trpo", 900).write_bytes(b"")
    best = write("checkpoints/best.trpo", 800)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises((ModelFileError, FileNotFoundError), match=f"; {best}, the best of training, can be: give"):
            latest(folder)
    best.write_bytes(b"")
    with pytest.raises((ModelFileError, FileNotFoundError)) as caught:
        latest(tmp_path)
    assert "the best of training" not in str(caught.value)
