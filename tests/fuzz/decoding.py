"""Bytes of a fuzzer as choices: the same bytes always mean the same, their end means the first of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.damage import VALUES

MORE = (
    *VALUES,
    "NaN",
    float("nan"),
    float("inf"),
    10**18,
    -(2**63),
    "\ud800",
    "\0",
    "ä",
    "1" * 5000,
    [[]],
    [None],
    {"": {}},
)


class Input:
    """What a target reads its choices from."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes nobody has read."""
        return len(self._data) - self._at

    def take(self, bound: int) -> int:
        """A number below `bound`."""
        value, most = 0, bound - 1
        while most > 0 and self.left > 0:
            value = value << 8 | self._data[self._at]
            self._at += 1
            most >>= 8
        return value % bound

    def choose(self, among: Sequence[Any]) -> Any:
        """One of them."""
        return among[self.take(len(among))]

    def bytes(self, most: int = 64) -> bytes:
        """Some bytes as they are."""
        count = min(self.take(most + 1), self.left)
        self._at += count
        return self._data[self._at - count : self._at]

    def text(self, tokens: Sequence[str]) -> str:
        """Some of `tokens`, or characters of any kind, one after the other."""
        parts = []
        for _ in range(self.take(24)):
            parts.append(self.bytes(8).decode("utf-8", "replace") if self.take(8) == 7 else self.choose(tokens))
        return "".join(parts)

    def value(self) -> Any:
        """A value that JSON may have, most of them strange."""
        return self.choose(MORE) if self.take(4) else self.take(2**32) - 2**31
