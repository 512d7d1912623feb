"""Small files of settings and of rows of numbers, which may be anything by the time they are read."""

from __future__ import annotations

import errno
import os
import stat

_MOST_BYTES = 2**31  # of rows of millions of updates


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """What is in a file.

    OSError where it cannot be read, where it is a device, a pipe or a socket, which would be waited for or has no end,
    and where it is larger than anything of the kind that is written here.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is a device, a pipe or a socket", os.fspath(path))
        if status.st_size > _MOST_BYTES:
            what = f"it has {status.st_size:,} bytes; want at most {_MOST_BYTES:,}"
            raise OSError(errno.EFBIG, what, os.fspath(path))
        return file.read()
