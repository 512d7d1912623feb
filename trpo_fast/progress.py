"""The rows of a run's ``progress.csv``, read without what writes them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from trpo_fast.files import read_regular
from trpo_fast.model_file import checked_path

_NEEDED = ("time/total_timesteps", "time/time_elapsed", "rollout/ep_rew_mean")  # by going on, and by curves


def read_progress(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a ``progress.csv``, values as text, empty where there was none.

    FileNotFoundError where it is missing, OSError where it cannot be read or is no file; ValueError, naming it, where
    it is not what RunLogger writes; TypeError where ``path`` is none.
    """
    path = checked_path("path", path)
    content = read_regular(path)
    # A killed run may leave half a row, which has no end, and a power cut zeros.
    complete = content.rstrip(b"\0")
    complete = complete[: complete.rfind(b"\n") + 1]
    try:
        if content and not complete:
            raise ValueError("no complete line")
        reader = csv.DictReader(io.StringIO(complete.decode(), newline=""))
        rows = list(reader)
        missing = [name for name in _NEEDED if name not in reader.fieldnames] if reader.fieldnames else []
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        # As earlier versions left a row on a full disk: with fewer cells, or with those of the next one, too.
        rows = [row for row in rows if None not in row.values() and None not in row]
        for row in rows:
            int(row["time/total_timesteps"])
            for name in _NEEDED[1:]:
                float(row[name] or "nan")
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; want the columns of trpo-fast train") from error
    return rows


def as_columns(rows: Iterable[Mapping[str, str]]) -> dict[str, NDArray[np.float64]]:
    """The numbers of `read_progress` by column, a row each; NaN where there was none, or a text that is no number."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([_number(row.get(name)) for row in rows], np.float64) for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
