"""Files that are damaged by chance: cut, with other bytes, or with something else in what their header says."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

VALUES = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, "", "x", "inf", "nan", [], {}),
    *([1], [0], [2**26], [2**13, 2**13], [1] * 300, ["a"], {"a": 1}, "float16", "Box", "Dict", 2**26, 2**24),
)


def parts(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Of a model's file: the header, what it says of the agent, and the bytes of the arrays."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    said = json.loads(header["__metadata__"]["trpo_fast"])
    return header, said, content[8 + size :]


def joined(header: dict[str, Any], said: dict[str, Any], body: bytes) -> bytes:
    """Inverse of `parts`."""
    header = {**header, "__metadata__": {"trpo_fast": json.dumps(said)}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut, or with a few other bytes."""
    if chance.random() < 0.4:
        return content[: chance.randrange(len(content))]
    spoilt = bytearray(content)
    for _ in range(chance.choice([1, 1, 8])):
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    return bytes(spoilt)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A model's file with one damage: of bytes, of what the header says of arrays, or of what it says of the agent."""
    kind = chance.choice(["bytes", "bytes", "array", "said", "said", "said", "gone", "twice"])
    if kind == "bytes":
        return damaged_bytes(content, chance)
    header, said, body = parts(content)
    if kind == "array":
        name = chance.choice([name for name in header if name != "__metadata__"])
        header[name] |= chance.choice(
            [
                {"dtype": chance.choice(["BF16", "F8_E4M3", "F16", "F64", "I64", "BOOL", "C64", "?"])},
                {"shape": chance.choice([[], [1], [2**40], [-1], [0], [10**400], [2**62, 2**62, 0], [2**40, 0]])},
                {"data_offsets": chance.choice([[0, 2**40], [4, 0], [0, 0]])},
            ]
        )
        return joined(header, said, body)
    for _ in range(2 if kind == "twice" else 1):
        *way, last = chance.choice(list(places(said)))
        where = said
        for key in way:
            where = where[key]
        if kind == "gone":
            del where[last]
        else:
            where[last] = copy.deepcopy(chance.choice(VALUES))
    return joined(header, said, body)
