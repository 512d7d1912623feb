from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from trpo_fast import model_file
from trpo_fast.model_file import ModelFileError

TENSORS = {
    "policy/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "strided": np.arange(12.0).reshape(3, 4).T[::2],
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4)),
    "counts": np.array([1, 2**40]),
    "flags": np.array([True, False]),
}
METADATA = {"config": {"gamma": 0.99, "hidden_sizes": [64, 64], "name": "Grüße"}, "steps": 1_000_000, "nothing": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.trpo"


def test_what_is_written_is_read_bit_for_bit(path):
    model_file.write(path, TENSORS, METADATA)
    tensors, metadata = model_file.read(str(path))
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(tensors[name], tensor)
        assert tensors[name].flags.writeable or tensor.size == 0


def test_any_safetensors_reader_can_read_it(path):
    model_file.write(path, TENSORS, METADATA)
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["strided"], TENSORS["strided"])


def test_file_is_readable_by_others_as_the_umask_allows(path):
    model_file.write(path, {}, {})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_saving_never_changes_the_umask_of_the_process(path, monkeypatch):
    def refuse(_):
        raise AssertionError("another thread would make files of other permissions meanwhile")

    monkeypatch.setattr(os, "umask", refuse)
    model_file.write(path, {}, {})


def test_what_a_killed_save_left_is_removed_and_nothing_else(path, monkeypatch):
    (path.parent / ".hidden").write_text("")
    model_file.write(path, TENSORS, METADATA)
    with monkeypatch.context() as killed:
        for module, name in (os, "replace"), (type(path), "unlink"):
            killed.setattr(module, name, lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            model_file.write(path, {}, {})
    assert len(os.listdir(path.parent)) == 3
    model_file.remove_unfinished(path.parent)
    assert sorted(os.listdir(path.parent)) == [".hidden", path.name]


def test_metadata_are_read_without_the_arrays(path):
    model_file.write(path, TENSORS, METADATA)
    assert model_file.read_metadata(path) == METADATA
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="is truncated"):
        model_file.read_metadata(path)


def test_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch):
    model_file.write(path, TENSORS, METADATA)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        model_file.write(path, {}, {"other": 1})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_missing_file_or_folder_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"no model file at .*model\.trpo"):
        model_file.read(path)
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        model_file.write(path.parent / "nowhere" / "model.trpo", {}, {})
    with pytest.raises(ModelFileError, match="is a folder"):
        model_file.read(path.parent)


def test_what_is_no_path_is_named():
    for call in (model_file.read, lambda given: model_file.write(given, {}, {})):
        with pytest.raises(TypeError, match=r"^path: 3 given; want a path, a str or an os.PathLike"):
            call(3)
        with pytest.raises(TypeError, match=r"^path: .* more digits than can be shown given; want a path"):
            call(10**5000)
        with pytest.raises(ValueError, match=r"^path: 'a\\x00b' given; want a path, which no null byte is in"):
            call("a\0b")


def test_a_zip_file_is_refused_with_who_reads_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a2c.zip", "w") as file:
        file.writestr("data", "{}")
    with pytest.raises(ModelFileError, match=r"a2c\.zip is a zip file, .*; want .*trpo_fast\.sb3\.TRPO\.load for it"):
        model_file.read(tmp_path / "a2c.zip")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_file_is_refused_by_name_and_not_waited_for(path, make):
    make(path)
    with pytest.raises(ModelFileError, match=r"model\.trpo is a device, a pipe or a socket, not a model file"):
        model_file.read(path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_file_is_refused(path, kept):
    model_file.write(path, TENSORS, METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"model\.trpo is truncated, or not a model file"):
        model_file.read(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip archive of something else", b"{}", bytes(64)])
def test_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.trpo is"):
        model_file.read(path)


def test_safetensors_file_of_somebody_else_is_refused(path):
    safetensors.numpy.save_file({"w": np.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="was not written by trpo_fast"):
        model_file.read(path)
    safetensors.numpy.save_file({"w": np.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="was not written by trpo_fast"):
        model_file.read(path)


def test_file_of_a_future_version_says_so(path):
    header = json.dumps({"version": model_file.FORMAT_VERSION + 1, "metadata": {}, "novelty": 3})
    safetensors.numpy.save_file({}, path, metadata={"trpo_fast": header})
    with pytest.raises(ModelFileError, match="has format version 2, this trpo_fast reads up to 1: install a newer one"):
        model_file.read(path)


@pytest.mark.parametrize(
    "header",
    ["not json", "[]", "{}", '{"version": "1", "metadata": {}}', '{"version": 1, "metadata": 3}', "[" * 10**5],
    ids=lambda header: header[:40],
)
def test_damaged_header_is_refused(path, header):
    safetensors.numpy.save_file({}, path, metadata={"trpo_fast": header})
    with pytest.raises(ModelFileError, match="damaged trpo_fast header"):
        model_file.read(path)


@pytest.mark.parametrize(
    "tensor", [np.array(["text"]), np.array([object()]), np.array([1j]), np.zeros(2, np.longdouble)]
)
def test_tensor_of_another_kind_is_refused(path, tensor):
    if tensor.dtype.kind == "f" and tensor.itemsize <= 8:
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match=r"tensors\['odd'\]: dtype .* given; want a bool, integer or floating array"):
        model_file.write(path, {"odd": tensor}, {})
    assert not path.exists()


def test_metadata_that_json_cannot_hold_is_refused(path):
    with pytest.raises(TypeError, match="JSON"):
        model_file.write(path, {}, {"array": np.zeros(2)})
    assert not path.exists()


def test_what_a_killed_save_left_is_removed_by_the_next_to_the_same_path_and_one_under_way_is_not(tmp_path):
    target = tmp_path / "a[1].trpo"
    left, other = tmp_path / ".a[1].trpo.0123abcd.new", tmp_path / ".b.trpo.0123abcd.new"
    for path in (left, other):
        path.write_bytes(b"half")
    with left.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)  # as replace_file holds it
        model_file.replace_file(target, b"whole")
        assert left.exists()
    model_file.replace_file(target, b"whole again")
    assert {path.name for path in tmp_path.iterdir()} == {target.name, other.name}
    assert target.read_bytes() == b"whole again"


def test_a_file_being_written_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    locked = []

    def replace(source, target, real=os.replace):
        with open(source, "rb") as another, pytest.raises(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(source)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    model_file.replace_file(tmp_path / "a", b"whole")
    assert len(locked) == 1 and (tmp_path / "a").read_bytes() == b"whole"


def test_a_file_is_what_safetensors_reads_with_every_array_where_its_items_are_aligned(tmp_path):
    tensors = {**TENSORS, "large": np.arange(2**19, dtype=np.float32).reshape(2, -1), "flag": np.array([True, False])}
    tensors |= {"bytes": np.arange(5, dtype=np.uint8), "wide": np.arange(2**18, dtype=np.int64)}
    tensors |= {"swapped": np.arange(3, dtype=">f4"), "half": np.ones(3, np.float16), "none": np.zeros((0, 2**20))}
    model_file.write(tmp_path / "a.trpo", tensors, {"kind": "x"})
    found = safetensors.numpy.load_file(tmp_path / "a.trpo")
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype.newbyteorder("=") and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    content = (tmp_path / "a.trpo").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % found[name].itemsize == 0, name


def test_large_arrays_are_written_without_a_copy_of_them(tmp_path):
    tensors = {f"{i}": np.ones(2**20) for i in range(8)}
    tracemalloc.start()
    model_file.write(tmp_path / "a.trpo", tensors, {})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20 < tensors["0"].nbytes
