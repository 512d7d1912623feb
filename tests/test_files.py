"""Files that became something else are refused by name, and waited for by nobody."""

import os

import pytest

from trpo_fast.algorithm import presets
from trpo_fast.algorithm.sinks import JsonLinesSink
from trpo_fast.cli.errors import CommandError
from trpo_fast.cli.values import read_json_object
from trpo_fast.files import read_regular
from trpo_fast.progress import read_progress


def begin(path):
    JsonLinesSink().begin(path.parent, [{"time/total_timesteps": "8"}], {}, 8)


READERS = {
    "progress.csv": (read_progress, OSError),
    "progress.jsonl": (begin, OSError),
    "mine.toml": (presets.read_presets, ValueError),
    "config.json": (lambda path: read_json_object(path, "config.json"), CommandError),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a device", "too large"])
def test_what_is_no_small_file_is_refused_by_name(tmp_path, name, kind):
    path, (read, error) = tmp_path / name, READERS[name]
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    what = (
        "it has 1,099,511,627,776 bytes; want at most" if kind == "too large" else "it is a device, a pipe or a socket"
    )
    with pytest.raises(error, match=what) as caught:
        read(path)
    assert name in str(caught.value)


def test_a_folder_and_a_file_that_is_missing_are_told_as_usual(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    (tmp_path / "some").write_bytes(b"x")
    assert read_regular(tmp_path / "some") == b"x"
