"""Calls of the C library that fail on request, by number; see failing_calls.c, which has to be preloaded."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
ALLOCATION, THREAD, FORK, CHANGE = 1, 2, 3, 4
LIBRARIES = {
    "compiled core": r"trpo_fast/_core/\w+(\.\w+)*\.so$",
    "numpy": r"numpy/_core/_multiarray_umath.*\.so$",
    "torch": r"torch/lib/libc10\.so$",
}
FOR_EVER = 2**40


def preloaded(folder: Path) -> Mapping[str, str]:
    """Build it, and the environment of a process that has it."""
    library = folder / "failing_calls.so"
    cc = os.environ.get("CC", "cc").split()
    subprocess.run([*cc, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-pthread"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


class Calls:
    """Calls that fail in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ.pop("LD_PRELOAD"))  # worker processes are whole
        self._library.failing_begin.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long]
        self._library.failing_add_range.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        self._library.failing_end.restype = ctypes.c_long

    @classmethod
    @functools.cache
    def of_this_process(cls) -> Calls:
        """The one that there is."""
        return cls()

    def of(self, libraries: str) -> None:
        """Let allocations be those that this one of `LIBRARIES` asks for."""
        pattern = re.compile(LIBRARIES[libraries])
        self._library.failing_forget_ranges()
        found = 0
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, flags, _, _, _, *name = line.split(maxsplit=5)
            if name and "x" in flags and pattern.search(name[0]):
                self._library.failing_add_range(*(int(part, 16) for part in span.split("-")))
                found += 1
        assert found, f"{libraries}: not loaded"

    @contextmanager
    def failing(self, kind: int, first: int, count: int = 1) -> Iterator[list[int]]:
        """Within it `count` calls of a kind fail from the first-th on; how many there were is put into the list."""
        counted: list[int] = []
        self._library.failing_begin(kind, first, first + count)
        try:
            yield counted
        finally:
            counted.append(self._library.failing_end())
