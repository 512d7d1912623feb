"""One training at a time in a run's folder.

A lock of flock(2): the kernel drops it with the process, however that ends, and nothing that the process does with the
file drops it before. It lies on a file of its own, which says whose it is, and which is removed with it. A child that
is forked closes the handles that it inherits, and a program that is started never has them: neither keeps a folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class FolderInUse(Exception):
    """Another run is in the folder; the message names its process."""


@dataclass(eq=False)
class _Held:
    """A folder that this process has; it is open, so that no other gets its number while this one is held."""

    folder: int  # handles, and of the lock's file; -1 where they were a parent's
    file: int
    owner: Any
    times: int = 1


_held: dict[tuple[int, int], _Held] = {}  # by device and number of the folder, which a new name leaves as they are


def _leave_to_parent() -> None:
    for held in _held.values():
        os.close(held.file)
        os.close(held.folder)
        held.file = held.folder = -1
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


class FolderLock:
    """The lock on one folder, which has to exist.

    Parameters
    ----------
    folder : Path
    owner : object
        Whose it is: within this process the same owner may take it again, and no other.
    """

    def __init__(self, folder: Path, owner: Any) -> None:
        self._path = folder
        self._owner = owner
        self._held: _Held | None = None

    def acquire(self) -> None:
        """FolderInUse where another process or owner has it; OSError where the folder cannot be written.

        Says in a warning where the file system has no locks, and goes on without.
        """
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            key = _number(folder)
            held = _held.get(key)
            if held is None:
                held = _held[key] = _Held(folder, self._locked(folder), self._owner)
            elif held.owner is self._owner:
                held.times += 1
            else:
                raise FolderInUse(f"process {os.getpid()}, this one")
            self._held = held
        finally:
            if self._held is None or self._held.folder != folder:
                os.close(folder)

    def _locked(self, folder: int) -> int:
        """A handle of the lock's file, which is locked and says whose it is."""
        while True:
            file = os.open(NAME, os.O_RDWR | os.O_CREAT, 0o666, dir_fd=folder)
            try:
                self._lock(file)
                if _is_there(file, folder):  # else its owner removed it between the opening and the locking
                    os.ftruncate(file, 0)
                    with suppress(OSError):  # on a full disk it locks without a name
                        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = os.read(file, 200).decode(errors="replace").strip()
                raise FolderInUse(owner or "another process") from None
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{self._path} is on a file system without locks ({error.strerror}): nothing keeps a second run out "
                "of it",
                stacklevel=5,
            )

    def pass_to(self, owner: Any) -> None:
        """Let `owner` take it besides."""
        self._owner = owner
        if self._held is not None:
            self._held.owner = owner

    @property
    def is_in_place(self) -> bool:
        """Whether the folder that is held still has its name: it may be renamed or removed while a run is in it."""
        try:
            return self._held is not None and os.path.samestat(os.fstat(self._held.folder), os.stat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        """Give the folder back, where all who took it have; nothing where it is not held."""
        held, self._held = self._held, None
        if held is None or held.folder < 0:
            return
        held.times -= 1
        if held.times:
            return
        if _is_there(held.file, held.folder):
            with suppress(OSError):
                os.unlink(NAME, dir_fd=held.folder)
        del _held[_number(held.folder)]
        os.close(held.file)
        os.close(held.folder)


def _number(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _is_there(file: int, folder: int) -> bool:
    """Whether a handle is that of the lock's file in a folder."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(NAME, dir_fd=folder))
    except OSError:
        return False
