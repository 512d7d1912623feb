"""Model files: safetensors holding named arrays, with JSON metadata in the header. Never pickle.

The header's metadata has one key, ``trpo_fast``: a JSON object with the format's version and the caller's metadata.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from trpo_fast._core.library import in_words
from trpo_fast.settings import UnavailableError

FORMAT_VERSION = 1
_KEY = "trpo_fast"
_UNFINISHED = ".new"
_LARGE = 2**20  # bytes of an array that is not copied to be written
_DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64")
"""What `write` takes, in the words of safetensors: others, such as BF16, are no arrays of NumPy's."""


class ModelFileError(ValueError):
    """A file that exists but is not a model this version can read."""


def checked_path(name: str, value: Any) -> Path:
    """The path that is given as argument ``name``; TypeError for what is none, an integer or bytes for example.

    ValueError for an empty one, which would mean the working folder.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name}: {in_words(value)} given; want a path, a str or an os.PathLike")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name}: {in_words(value)} given; want a path, which no null byte is in")
    if not os.fspath(value):
        raise ValueError(f"{name}: '' given; want a path, . for the working folder")
    return Path(value)


def write(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write a model file; an existing one is replaced in one step, or left as it was when anything fails.

    Parameters
    ----------
    path : path
        Its folder must exist.
    tensors : mapping of str to ndarray
        Bool, integer or floating arrays of any shape.
    metadata : mapping
        What ``json.dumps`` accepts; keys are strings.

    Raises
    ------
    TypeError
        A tensor of another kind, or metadata that JSON cannot hold.
    OSError
        The folder is missing or cannot be written.
    """
    arrays = {}
    for name, tensor in tensors.items():
        array = np.asarray(tensor, order="C")
        if array.dtype.kind not in "biuf" or array.itemsize > 8:
            raise TypeError(f"tensors[{name!r}]: dtype {array.dtype} given; want a bool, integer or floating array")
        arrays[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    said = json.dumps({"version": FORMAT_VERSION, "metadata": dict(metadata)})
    replace_file(path, *_pieces(arrays, {_KEY: said}))


def _pieces(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[Any]:
    """A file of safetensors, in pieces: the large arrays as they lie in memory, all that is between them joined.

    The package makes one string of bytes of it all, which takes longer than to write it, and as much memory again.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # The widest first: then each lies at a multiple of its item's size.
    in_order = sorted(arrays.items(), key=lambda named: -named[1].itemsize)
    end = 0
    for name, array in in_order:
        kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    small = [len(text).to_bytes(8, "little"), text]
    for _, array in in_order:
        if array.nbytes < _LARGE:
            small.append(array.tobytes())
            continue
        yield b"".join(small)
        small = []
        yield array.reshape(-1).view(np.uint8).data
    yield b"".join(small)


def replace_file(path: str | os.PathLike[str], *content: Any) -> None:
    """Write bytes, in pieces, as a file; an existing one is replaced in one step, or stays where that fails (OSError).

    What an earlier one to the same path left, whose process was killed, is removed.
    """
    target = checked_path("path", path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: folder {target.parent} does not exist")
    _remove_left_of(target)
    # In the same folder, because only a rename within one file system is atomic.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        with os.fdopen(_locked_new_file(temporary), "wb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _locked_new_file(path: Path) -> int:
    """Make a file that nobody takes for left over while it is open, where the file system has locks."""
    while True:
        # With the permissions that the process gives to its files.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # removed between its making and the lock


def _remove_left_of(target: Path) -> None:
    """Remove what saves to `target` left whose process was killed: what nobody holds the lock of."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????{_UNFINISHED}"):
        with suppress(OSError):
            handle = os.open(left, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(handle)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, in one step where that is taken; a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        os.link(source, temporary)
    except OSError:
        replace_file(target, source.read_bytes())
        return
    os.replace(temporary, target)
    with suppress(OSError):  # POSIX: nothing is renamed where both are the same file already
        temporary.unlink()
    _sync_folder(target.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what saves into ``folder`` left there whose process was killed; nothing may be writing there."""
    for pattern in (f".*.*{_UNFINISHED}", ".*.trpo.????????"):  # the second is how earlier versions called them
        for left in folder.glob(pattern):
            with suppress(OSError):
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a model file; returns ``(tensors, metadata)``.

    Raises
    ------
    FileNotFoundError
        Nothing lies at `path`.
    ModelFileError
        A truncated, foreign or future-version file; the message says which.
    """
    with _opened(path) as (source, file):
        metadata = _metadata_of(source, file)
        tensors = {name: _tensor(source, file, name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    return tensors, metadata


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata alone, of a file of any size; errors are those of :func:`read`."""
    with _opened(path) as (source, file):
        return _metadata_of(source, file)


def read_array(path: str | os.PathLike[str], name: str) -> NDArray[Any]:
    """One array of a file of any size; errors are those of :func:`read`, a missing array is damage."""
    with _opened(path) as (source, file):
        return _tensor(source, file, name)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Any]]:
    source = checked_path("path", path)
    if not source.exists():
        raise FileNotFoundError(f"no model file at {source}")
    if source.is_dir():
        raise ModelFileError(f"{source} is a folder, not a model file")
    if not source.is_file():  # a pipe would be waited for
        raise ModelFileError(f"{source} is a device, a pipe or a socket, not a model file")
    try:
        with safetensors.safe_open(source, framework="numpy") as file:
            yield source, file
    except safetensors.SafetensorError as error:
        with source.open("rb") as opened:
            if opened.read(4) == b"PK\x03\x04":
                raise ModelFileError(
                    f"{source} is a zip file, as Stable-Baselines3 writes; want what TRPO.save writes, or "
                    "trpo_fast.sb3.TRPO.load for it"
                ) from error
        raise ModelFileError(f"{source} is truncated, or not a model file: {error}") from error


def _tensor(source: Path, file: Any, name: str) -> NDArray[Any]:
    dtype = file.get_slice(name).get_dtype()
    if dtype not in _DTYPES:
        raise ModelFileError(f"{source}: {name} is of {dtype}; want one of {', '.join(_DTYPES)}")
    array: NDArray[Any] = file.get_tensor(name)
    return array


def _metadata_of(source: Path, file: Any) -> dict[str, Any]:
    header = (file.metadata() or {}).get(_KEY)
    if header is None:
        raise ModelFileError(f"{source} is a safetensors file, but was not written by trpo_fast")
    return _metadata(source, header)


@contextmanager
def damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a damaged description of an agent raises into a ModelFileError that names ``path``.

    What only this machine lacks is no damage, and travels on.
    """
    try:
        yield
    except (ModelFileError, UnavailableError):
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{os.fspath(path)}: damaged description of an agent: {error}") from error


def _metadata(source: Path, header: str) -> dict[str, Any]:
    try:
        content = json.loads(header)
        version, metadata = content["version"], content["metadata"]
        if type(version) is not int or type(metadata) is not dict:
            raise TypeError(
                f"version, metadata: {version!r:.40} and {metadata!r:.40} given; want an integer and an object"
            )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{source} has a damaged trpo_fast header: {error}") from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{source} has format version {version}, this trpo_fast reads up to {FORMAT_VERSION}: install a newer one"
        )
    return dict(metadata)
