"""One process at a time in a run's folder.

A record lock of POSIX: the kernel drops it with the process, however that ends, and the processes that it starts do not
inherit it. It lies on a file of its own, which says whose it is, and which is removed with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

NAME = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_held: dict[str, int] = {}  # process of each path that is locked here: its own record locks are no obstacle to it


class FolderInUse(Exception):
    """Another run is in the folder; the message names its process."""


class FolderLock:
    """The lock on one folder, which has to exist."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._key = ""
        self._handle: int | None = None

    def acquire(self) -> None:
        """FolderInUse where another process, or this one, has it; OSError where the folder cannot be written.

        Says on stderr where the file system has no locks, and goes on without.
        """
        key = os.path.realpath(self._path)
        # Looked at before the file is opened: closing any handle of it would drop this process's lock.
        if _held.get(key) == os.getpid():
            raise FolderInUse(f"process {os.getpid()}, this one")
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    print(
                        f"warning: {self._path.parent} is on a file system without locks ({error.strerror}): nothing "
                        "keeps a second run out of it",
                        file=sys.stderr,
                    )
                    break
                owner = os.read(handle, 200).decode(errors="replace").strip()
                os.close(handle)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise FolderInUse(owner or "another process") from None
                raise
            if self._is_at_path(handle):
                break
            os.close(handle)  # its owner removed it between the opening and the locking
        os.ftruncate(handle, 0)
        with suppress(OSError):  # on a full disk it locks without a name
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _held[key] = os.getpid()
        self._key, self._handle = key, handle

    def release(self) -> None:
        """Give the folder back; nothing where it is not held."""
        if self._handle is None:
            return
        with suppress(OSError):
            self._path.unlink()
        os.close(self._handle)
        self._handle = None
        del _held[self._key]

    def _is_at_path(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self._path))
        except FileNotFoundError:
            return False
