"""Closing copies, some of which may raise: nothing can be mended then, and the others have to be closed, too."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any


def close_each(envs: Iterable[Any], first: int = 0) -> list[str]:
    """Close all of `envs`, copies `first`, `first` + 1, ...; what is to be said of those that raise."""
    said = []
    for index, env in enumerate(envs, first):
        try:
            env.close()
        except Exception as error:
            said.append(f"environment {index} raised {error!r} when it was closed")
    return said


def warn_of_failed_closes(said: Sequence[str]) -> None:
    """One UserWarning with what `close_each` returned; none for nothing."""
    if said:
        warnings.warn(f"env: {'; '.join(said)}", stacklevel=2)
