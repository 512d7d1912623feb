"""What kills, full disks and editors leave of progress.csv and progress.jsonl: read, and repaired by going on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from tests.fuzz.decoding import Input
from trpo_fast.algorithm.sinks import CsvSink, JsonLinesSink, Tail
from trpo_fast.progress import as_columns, read_progress

MODULES = (
    *("progress.py", "algorithm/sinks.py:Tail", "algorithm/sinks.py:FileSink", "algorithm/sinks.py:CsvSink"),
    *(
        "algorithm/sinks.py:JsonLinesSink",
        "algorithm/sinks.py:_csv",
        "algorithm/sinks.py:_json",
        "algorithm/sinks.py:_object",
        "algorithm/sinks.py:_is_number",
    ),
)
PLANTED = (
    "progress.py",
    "        rows = [row for row in rows if None not in row.values() and None not in row]",
    "        pass",
    "TypeError: int() argument must be",
)
_NEEDED = ("time/total_timesteps", "time/time_elapsed", "rollout/ep_rew_mean")
_COLUMNS = (*_NEEDED, "a", "", "time/total_timesteps", "ä", '"', "b,c")
_CELLS = (
    "",
    "1",
    "2",
    "3.5",
    "nan",
    "inf",
    "-1",
    "1e400",
    "x",
    "1_0",
    " 4",
    '"',
    '"5"',
    '"a\nb"',
    "\0",
    "\r",
    "٣",
    "9" * 5000,
    "1,2",
)
_LINES = (
    b"{}",
    b"[]",
    b"{",
    b"\xff",
    b'{"time/total_timesteps": 1}',
    b'{"time/total_timesteps": true}',
    b'{"time/total_timesteps": 2, "a": NaN}',
)
_LINES += (
    b'{"time/total_timesteps": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b"\0" * 5,
    b'{"time/total_timesteps": 1e3}',
    b'{"time/total_timesteps": 8, "a": -Infinity}',
    b'{"time/total_timesteps": 0, "a": 1e999, "b": [NaN]}',
)


def _content(chosen: Input) -> bytes:
    columns = list(_NEEDED) + [chosen.choose(_COLUMNS) for _ in range(chosen.take(3))]
    if chosen.take(8) == 1:
        columns.pop(chosen.take(len(columns)))
    end = chosen.choose(("\r\n", "\r\n", "\n", "\r"))
    lines = [",".join(columns)]
    for row in range(chosen.take(6)):
        cells = [str(8 * row), "0.5", chosen.choose(("", "1.5"))] + ["1"] * (len(columns) - 3)
        for _ in range(chosen.take(3)):
            cells[chosen.take(len(cells))] = chosen.choose(_CELLS)
        lines.append(",".join(cells[: len(cells) - (chosen.take(8) == 1)] + ["7"] * (chosen.take(8) == 2)))
    text = (end.join(lines) + end).encode()
    if chosen.take(4) == 1:
        text = text[: chosen.take(len(text) + 1)]
    if chosen.take(4) == 1:
        at = chosen.take(len(text) + 1)
        text = text[:at] + chosen.bytes(8) + text[at:]
    return text + bytes(chosen.take(3)) * chosen.take(2)


def run(data: bytes, folder: Path) -> None:
    """AssertionError where a log is neither read nor refused by name, or where going on loses or adds something."""
    chosen, path = Input(data), folder / "progress.csv"
    path.write_bytes(_content(chosen))
    (folder / "progress.jsonl").write_bytes(b"\n".join(chosen.choose(_LINES) for _ in range(chosen.take(6))))
    try:
        rows = read_progress(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is damaged: ") and len(str(error)) < 20_000, error
        return
    columns = as_columns(rows)
    assert all(values.dtype == np.float64 and len(values) == len(rows) for values in columns.values())
    _go_on(chosen, folder, rows)


def _go_on(chosen: Input, folder: Path, rows: list[dict[str, str]]) -> None:
    path = folder / "progress.csv"
    sinks = [CsvSink(_NEEDED), JsonLinesSink()]
    late = {"a": 1.0} if chosen.take(2) else {}
    tails = [sink.begin(folder, rows, late, 0) for sink in sinks]
    assert read_progress(path) == [{name: row.get(name, "") for name in _all(rows)} for row in rows]
    added = []
    for number in range(chosen.take(4)):
        row = {"time/total_timesteps": 100 + number, "time/time_elapsed": 1.0, "rollout/ep_rew_mean": 2.0}
        if chosen.take(2):
            row[chosen.choose(("new", "b,c", "", "ä"))] = 3.0
        added.append(row)
        tails = [sink.extended(tail, row) for sink, tail in zip(sinks, tails, strict=True)]
        if chosen.take(4) == 1:  # somebody cuts the file off
            with path.open("r+b") as file:
                file.truncate(chosen.take(path.stat().st_size + 1))
        if chosen.take(2):
            tails = [sink.put(tail) for sink, tail in zip(sinks, tails, strict=True)]
        if chosen.take(8) == 1:
            for sink in sinks:
                sink.close()
            for sink, tail in zip(sinks, tails, strict=True):
                try:
                    sink.open_again(tail)
                except OSError as error:
                    assert "is another file" in str(error), error
                    sink.open()
                    return
    tails = [sink.put(tail) for sink, tail in zip(sinks, tails, strict=True)]
    assert all(isinstance(tail, Tail) and not tail.waiting for tail in tails)
    for sink in sinks:
        sink.close()
    found = read_progress(path)
    assert len(found) == len(rows) + len(added), (len(found), len(rows), added)
    for row, wanted in zip(found[len(rows) :], added, strict=True):
        assert all(math.isclose(float(row[name]), value) for name, value in wanted.items()), (row, wanted)
    objects = [json.loads(line) for line in (folder / "progress.jsonl").read_bytes().splitlines()]
    assert all(math.isfinite(value) for one in objects for value in one.values()), objects
    assert objects[len(objects) - len(added) :] == added, (objects, added)


def _all(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys([*_NEEDED, *(name for row in rows for name in row)]))
