"""One training at a time in a run's folder.

A record lock of POSIX: the kernel drops it with the process, however that ends, and the processes that it starts do not
inherit it. It lies on a file of its own, which says whose it is, and which is removed with it.
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
    """A lock that this process has: its own record locks are no obstacle to it, so that it has to keep account."""

    process: int  # that took it: of a parent's locks a child knows, and has none
    handle: int
    owner: Any
    times: int = 1


_held: dict[str, _Held] = {}  # by the path of the lock's file


def _held_here(key: str) -> _Held | None:
    held = _held.get(key)
    return held if held is not None and held.process == os.getpid() else None


class FolderLock:
    """The lock on one folder, which has to exist.

    Parameters
    ----------
    folder : Path
    owner : object
        Whose it is: within this process the same owner may take it again, and no other.
    """

    def __init__(self, folder: Path, owner: Any) -> None:
        self._path = folder / NAME
        self._owner = owner
        self._key = ""
        self._held: _Held | None = None

    def acquire(self) -> None:
        """FolderInUse where another process or owner has it; OSError where the folder cannot be written.

        Says in a warning where the file system has no locks, and goes on without.
        """
        key = os.path.realpath(self._path)
        # Looked at before the file is opened: closing any handle of it would drop this process's lock.
        held = _held_here(key)
        if held is not None:
            if held.owner is not self._owner:
                raise FolderInUse(f"process {os.getpid()}, this one")
            held.times += 1
            self._key, self._held = key, held
            return
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    warnings.warn(
                        f"{self._path.parent} is on a file system without locks ({error.strerror}): nothing keeps a "
                        "second run out of it",
                        stacklevel=3,
                    )
                    break
                owner = os.read(handle, 200).decode(errors="replace").strip()
                os.close(handle)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise FolderInUse(owner or "another process") from None
                raise
            if _is_at(self._path, handle):
                break
            os.close(handle)  # its owner removed it between the opening and the locking
        os.ftruncate(handle, 0)
        with suppress(OSError):  # on a full disk it locks without a name
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._key, self._held = key, _Held(os.getpid(), handle, self._owner)
        _held[key] = self._held

    def pass_to(self, owner: Any) -> None:
        """Let `owner` take it besides."""
        self._owner = owner
        if self._held is not None:
            self._held.owner = owner

    @property
    def is_in_place(self) -> bool:
        """Whether the folder that is held still has its name: it may be renamed or removed while a run is in it."""
        return self._held is not None and _is_at(self._path, self._held.handle)

    def release(self) -> None:
        """Give the folder back, where all who took it have; nothing where it is not held."""
        held, self._held = self._held, None
        if held is None or held.process != os.getpid():
            return
        held.times -= 1
        if held.times:
            return
        if _is_at(self._path, held.handle):  # not another run's, in a folder that has taken its place
            with suppress(OSError):
                self._path.unlink()
        del _held[self._key]
        os.close(held.handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
